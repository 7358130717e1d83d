//! `heartline top`: a server live in a terminal.

mod app;
mod history;
mod input;
mod list;
mod peer;
mod poller;
mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event as TerminalEvent};
use ratatui::crossterm::terminal::disable_raw_mode;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::admin::client::{AdminClient, AdminClientArgs};
use crate::args::values::duration;
use crate::console::notice;
use crate::error::{ConfigError, Error};
use app::{Effect, TopApp};
use list::ListRequest;
use poller::{PollerCommand, Update};
use screen::Screen;
use view::Theme;

/// Wrong usage, as of clap.
const USAGE: u8 = 2;

/// Events that wait to be handled. A sender waits beyond that.
const EVENTS: usize = 64;

/// Most pending actions. More pending ones occur only if a server hangs, and then another one is
/// refused.
const ORDERS: usize = 16;

/// The screen is drawn anew after so long even if nothing happens, for the ages that it shows.
const REDRAW: Duration = Duration::from_secs(1);

/// Shortest and longest interval. Sorting tens of thousands of connections takes the server
/// milliseconds, which delays them.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(3600);

/// How long pending actions are waited for at the end: two requests, each with its connection.
const LAST_ACTIONS: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    admin: AdminClientArgs,
    /// How often the server is queried
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
}

enum TopEvent {
    Terminal(TerminalEvent),
    /// The terminal cannot be read any more.
    TerminalError(io::Error),
    Update(Update),
    Signal(i32),
}

pub(crate) fn run(args: TopArgs) -> Result<ExitCode, Error> {
    if !INTERVALS.contains(&args.interval) {
        return Err(ConfigError::new("interval", "write 200ms to 1h").into());
    }
    let client = AdminClient::new(&args.admin)?;
    if !io::stdout().is_terminal() {
        notice(
            "top needs a terminal for its output; for scripts and pipes there is `heartline status`",
        );
        return Ok(ExitCode::from(USAGE));
    }
    let mut app = TopApp::new(client.addr(), args.interval, Instant::now());
    // Before the terminal is taken over: errors of the address or the token belong on the normal
    // screen.
    match poller::first_refresh(&client, &app.list.query()) {
        Ok(news) => news
            .into_iter()
            .for_each(|news| app.update(news, Instant::now())),
        Err(error) => {
            notice(&error.to_string());
            return Ok(ExitCode::FAILURE);
        }
    }
    let (tell, events) = sync_channel(EVENTS);
    let ended_by = watch_signals(tell.clone())?;
    let poller = start_poller(client, args.interval, app.list.query(), tell.clone())?;
    let mut screen = Screen::take().map_err(Error::io("take the terminal"))?;
    start_thread("keys", move || read_terminal(&tell))?;
    let session = TopSession {
        app,
        events,
        ended_by,
        poller,
        unfinished: 0,
    };
    session.run(&mut screen).map(|(session, code)| {
        drop(screen);
        session.finish();
        code
    })
}

struct TopSession {
    app: TopApp,
    events: Receiver<TopEvent>,
    /// The signal that ends the program; zero before it.
    ended_by: Arc<AtomicI32>,
    poller: SyncSender<PollerCommand>,
    /// Actions whose result is not known yet.
    unfinished: usize,
}

impl TopSession {
    /// Until the user or a signal ends it.
    fn run(mut self, screen: &mut Screen) -> Result<(Self, ExitCode), Error> {
        let theme = Theme::of_environment();
        let mut shown: Option<ListRequest> = None;
        loop {
            let mut drawn = Ok(());
            let now = Instant::now();
            screen
                .draw(|frame| {
                    self.app.list.fit(view::rows(frame.area()));
                    view::draw(frame, &self.app, theme, now);
                    drawn = self.order_lines(&mut shown);
                })
                .map_err(Error::io("write to the terminal"))?;
            drawn?;
            let first = match self.events.recv_timeout(REDRAW) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ended("the event channel is closed"));
                }
            };
            match self.ended_by.load(Ordering::Relaxed) {
                0 => {}
                signal => return Ok((self, exit_code(signal))),
            }
            // All that has happened is drawn at once, but not so much that nothing is drawn.
            let rest: Vec<TopEvent> = self.events.try_iter().take(EVENTS).collect();
            for event in first.into_iter().chain(rest) {
                if let Some(code) = self.handle(event, screen)? {
                    return Ok((self, code));
                }
            }
        }
    }

    fn handle(&mut self, event: TopEvent, screen: &mut Screen) -> Result<Option<ExitCode>, Error> {
        let now = Instant::now();
        let effect = match event {
            TopEvent::Terminal(TerminalEvent::Key(key)) => self.app.key(key, now),
            TopEvent::Terminal(TerminalEvent::Paste(text)) => {
                self.app.paste(&text);
                None
            }
            // A new size is found when it is drawn.
            TopEvent::Terminal(_) => None,
            TopEvent::Update(news) => {
                self.unfinished -= usize::from(matches!(news, Update::Done(_)));
                self.app.update(news, now);
                None
            }
            TopEvent::Signal(SIGTSTP) => Some(Effect::Suspend),
            TopEvent::Signal(SIGCONT) => {
                screen
                    .resume()
                    .map_err(Error::io("take the terminal again"))?;
                None
            }
            // What ends it is seen in any case, above.
            TopEvent::Signal(_) => None,
            TopEvent::TerminalError(error) => {
                return Err(Error::io("read from the terminal")(error));
            }
        };
        match effect {
            None => {}
            Some(Effect::Quit) => return Ok(Some(ExitCode::SUCCESS)),
            Some(Effect::Suspend) => screen.suspend().map_err(Error::io("stop"))?,
            Some(Effect::Act(action)) => match self.poller.try_send(PollerCommand::Act(action)) {
                Ok(()) => self.unfinished += 1,
                Err(TrySendError::Full(_)) => self.app.show_notice(
                    "the server is too slow; the action was not sent".to_string(),
                    now,
                ),
                Err(TrySendError::Disconnected(_)) => return Err(poller_ended()),
            },
        }
        Ok(None)
    }

    /// Requests the visible part of the list, if it has changed. If the poller is busy, the next
    /// drawing tries again.
    fn order_lines(&self, shown: &mut Option<ListRequest>) -> Result<(), Error> {
        let wanted = self.app.list.query();
        if shown.as_ref() != Some(&wanted) {
            match self.poller.try_send(PollerCommand::Show(wanted.clone())) {
                Ok(()) => *shown = Some(wanted),
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Err(poller_ended()),
            }
        }
        Ok(())
    }

    /// Waits for actions that the user has begun before leaving, and prints their results.
    fn finish(self) {
        let deadline = Instant::now() + LAST_ACTIONS;
        let mut unfinished = self.unfinished;
        // Another signal ends it at once.
        while unfinished > 0 {
            match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(TopEvent::Update(Update::Done(sentence))) => {
                    notice(&sentence);
                    unfinished -= 1;
                }
                Err(_) => {
                    return notice("the result of the last action is not known");
                }
                Ok(_) => {}
            }
        }
    }
}

fn start_poller(
    client: AdminClient,
    interval: Duration,
    query: ListRequest,
    tell: SyncSender<TopEvent>,
) -> Result<SyncSender<PollerCommand>, Error> {
    let (order, orders) = sync_channel(ORDERS);
    start_thread("poller", move || {
        poller::work(&client, interval, query, &orders, |news| {
            // At the end of the process there is no receiver.
            let _ = tell.send(TopEvent::Update(news));
        });
    })?;
    Ok(order)
}

/// Ends the program on a signal as `q` does: the returned value is zero, or the signal. A second
/// signal ends it at once.
fn watch_signals(tell: SyncSender<TopEvent>) -> Result<Arc<AtomicI32>, Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])
        .map_err(Error::io("watch for signals"))?;
    let ended_by = Arc::new(AtomicI32::new(0));
    let end = Arc::clone(&ended_by);
    start_thread("signals", move || {
        for signal in signals.forever() {
            let ends = ![SIGTSTP, SIGCONT].contains(&signal);
            if ends && end.swap(signal, Ordering::Relaxed) != 0 {
                // The terminal itself may be stuck, so nothing is written to it.
                let _ = disable_raw_mode();
                signal_hook::low_level::exit(128 + signal);
            }
            // Where so much has happened that there is no room, it is awake already.
            let _ = tell.try_send(TopEvent::Signal(signal));
        }
    })?;
    Ok(ended_by)
}

fn read_terminal(tell: &SyncSender<TopEvent>) {
    loop {
        let (event, last) = match event::read() {
            Ok(event) => (TopEvent::Terminal(event), false),
            Err(error) => (TopEvent::TerminalError(error), true),
        };
        if tell.send(event).is_err() || last {
            return;
        }
    }
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(work)
        .map(drop)
        .map_err(Error::io(format!("start the thread {name}")))
}

/// As shells have it.
fn exit_code(signal: i32) -> ExitCode {
    u8::try_from(128 + signal).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn poller_ended() -> Error {
    ended("the requests to the server have stopped")
}

/// A thread has panicked, and has printed why.
fn ended(sentence: &str) -> Error {
    Error::io("go on")(io::Error::other(sentence))
}
