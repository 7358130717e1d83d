//! A terminal of the test: a pseudo-terminal, and a reader that knows its screen.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::common::wait_until;

/// Windows of other sizes are not checked as a whole.
const MIN_SEEN: u16 = 10;
const MAX_SEEN: u16 = 2000;

pub struct Pty {
    child: Child,
    /// Where keys are pressed.
    keyboard: File,
    /// The side of the program; held open, so that the terminal outlives it.
    line: File,
    before: Termios,
    parser: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    /// Whether the reader is to end.
    closing: Arc<AtomicBool>,
}

impl Pty {
    /// Starts this on a terminal of this size.
    pub fn start(command: Command, columns: u16, rows: u16) -> Pty {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&keyboard)
            .and_then(|()| unlockpt(&keyboard))
            .expect("it is ours");
        let name = ptsname(&keyboard, Vec::new())
            .expect("it has a name")
            .into_string()
            .expect("of text");
        // It does not become the controlling terminal of this process, which has no session of its
        // own.
        let line = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .expect("it is ours");
        resize(&keyboard, columns, rows);
        let before = tcgetattr(&line).expect("a terminal");
        let end = || line.try_clone().expect("a descriptor");
        let mut command = in_a_session(&command);
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the binary starts");
        // Descriptors that the command still holds would keep the terminal open for ever.
        drop(command);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(
            rows.clamp(MIN_SEEN, MAX_SEEN),
            columns.clamp(MIN_SEEN, MAX_SEEN),
            0,
        )));
        let keyboard = File::from(keyboard);
        let (mut output, seen) = (
            keyboard.try_clone().expect("a descriptor"),
            Arc::clone(&parser),
        );
        let closing = Arc::new(AtomicBool::new(false));
        let is_closing = Arc::clone(&closing);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            // It fails once the other side is closed.
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                if is_closing.load(Ordering::Relaxed) {
                    return;
                }
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .process(&chunk[..read]);
            }
        });
        Pty {
            child,
            keyboard,
            line,
            before,
            parser,
            reader: Some(reader),
            closing,
        }
    }

    /// Closes the terminal under the program, and waits for it to end.
    pub fn close(&mut self) -> ExitStatus {
        self.hang_up();
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().expect("the process is ours");
            status.is_some()
        });
        status.expect("waited for")
    }

    /// Closes the terminal under the program.
    pub fn hang_up(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // The reader wakes up, and lets go of its side.
        self.line.write_all(b" ").expect("it is open");
        let reader = self.reader.take().expect("it is closed once");
        reader.join().expect("no panic");
        let nothing = || File::open("/dev/null").expect("it is there");
        (self.line, self.keyboard) = (nothing(), nothing());
    }

    fn parser(&self) -> MutexGuard<'_, vt100::Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The visible text.
    pub fn screen(&self) -> String {
        self.parser().screen().contents()
    }

    /// Whether anything visible has a colour.
    pub fn is_coloured(&self) -> bool {
        let parser = self.parser();
        let (rows, columns) = parser.screen().size();
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| parser.screen().cell(row, column))
            .any(|cell| {
                [cell.fgcolor(), cell.bgcolor()]
                    .iter()
                    .any(|colour| *colour != vt100::Color::Default)
            })
    }

    /// Waits until this is seen.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} is seen"), |screen| screen.contains(text));
    }

    pub fn wait_until(&self, what: &str, seen: impl Fn(&str) -> bool) {
        let mut last = String::new();
        // Prints the screen when a wait fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(what, || {
                last = self.screen();
                seen(&last)
            });
        }));
        assert!(
            result.is_ok(),
            "waited in vain until {what}; there was:\n{last}"
        );
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("the terminal takes it");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }

    /// Changes the size of the terminal, which the kernel reports to the program.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.parser().screen_mut().set_size(rows, columns);
        resize(&self.keyboard, columns, rows);
    }

    /// Waits for the program to end, and for the terminal to be as it was.
    pub fn end(&mut self) -> ExitStatus {
        let status = self.wait();
        let after = tcgetattr(&self.line).expect("a terminal");
        assert_eq!(self.before.input_modes, after.input_modes);
        assert_eq!(self.before.output_modes, after.output_modes);
        assert_eq!(self.before.local_modes, after.local_modes);
        wait_until("the screen is given back, with its cursor", || {
            let parser = self.parser();
            let screen = parser.screen();
            !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste()
        });
        status
    }

    /// Whether the program has put the terminal into raw mode.
    pub fn is_taken(&self) -> bool {
        self.parser().screen().alternate_screen()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have ended already, which is no concern of a test that is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command in a session of its own, with its standard input as controlling terminal:
/// `/dev/tty` is that, and not the terminal of the user who runs the tests (setsid(1), which
/// becomes the command itself).
fn in_a_session(command: &Command) -> Command {
    let mut session = Command::new("setsid");
    session
        .arg("--ctty")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => session.env(name, value),
            None => session.env_remove(name),
        };
    }
    session
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    tcsetwinsize(
        terminal,
        Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
    .expect("a terminal");
}
