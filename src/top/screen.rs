//! Takes over the terminal and restores it, also after a panic.

use std::io::{self, Stdout, stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::SIGSTOP;

pub(super) struct Screen {
    /// Never dropped: its destructor prints to stderr if it cannot show the cursor, and panics if
    /// stderr is the closed terminal. `give_back` shows the cursor.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    /// The drawing surface.
    window: Rect,
}

/// Maximum columns and rows drawn. Any program can set an absurd size (TIOCSWINSZ(2const)), and
/// every cell takes memory.
const MAX_SIZE: (u16, u16) = (1000, 500);
/// Size of a terminal that does not report one, such as a serial line.
const USUAL: (u16, u16) = (80, 24);

fn window() -> Rect {
    let (columns, rows) = match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => USUAL,
    };
    Rect::new(0, 0, columns.min(MAX_SIZE.0), rows.min(MAX_SIZE.1))
}

fn terminal(window: Rect) -> io::Result<ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>> {
    let viewport = Viewport::Fixed(window);
    let terminal = Terminal::with_options(
        CrosstermBackend::new(stdout()),
        TerminalOptions { viewport },
    )?;
    Ok(ManuallyDrop::new(terminal))
}

impl Screen {
    pub(super) fn take() -> io::Result<Self> {
        // The message of a panic is to be read, on the screen that is left when it is over; and in
        // a release nothing is dropped after it.
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let hook = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                give_back();
                hook(info);
            }));
        });
        enter()?;
        let window = window();
        match terminal(window) {
            Ok(terminal) => Ok(Screen { terminal, window }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let window = window();
        if window != self.window {
            self.terminal.resize(window)?;
            self.window = window;
        }
        self.terminal.draw(draw).map(drop)
    }

    /// Stops the process as Ctrl-Z does elsewhere; the terminal is the shell's meanwhile.
    pub(super) fn suspend(&self) -> io::Result<()> {
        give_back();
        signal_hook::low_level::raise(SIGSTOP)
    }

    /// Takes over the terminal again when the process continues, and draws everything anew.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        // The program that stopped the process may have changed the terminal, so everything is
        // set again.
        let _ = disable_raw_mode();
        enter()?;
        // A new surface: clearing the old one would query the terminal for its cursor, and the
        // answer would be taken for keys.
        self.window = window();
        self.terminal = terminal(self.window)?;
        execute!(stdout(), Clear(ClearType::All))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the terminal is taken over. Restoring it twice would move the cursor back over later
/// output.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    TAKEN.store(true, Ordering::Relaxed);
    // Pasted text is reported as such, and not as keys.
    enable_raw_mode()
        .and_then(|()| execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste))
        .inspect_err(|_| give_back())
}

/// Does nothing when it has been done before. Errors of a closed terminal are ignored.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // The first needs no writing, which may block or fail.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    }
}
