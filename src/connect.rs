//! `heartline connect`: stdin lines out, messages to stdout, status to stderr.

use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::token::Token;
use crate::args::values::{DurationOrOff, Tries, display, duration};
use crate::args::{FramingArgs, HeartbeatArgs, LogArgs, OsTimeoutArgs};
use crate::client::{
    Backoff, Client, ClientConfig, ClientContext, ClientHandle, ClientHandler, ClientHello,
    ClientState, Event, Outcome,
};
use crate::close::CloseReason;
use crate::console::notice;
use crate::directory::Name;
use crate::error::{Error, SendError};
use crate::framing::handshake::MAX_HELLO;
use crate::framing::{Framing, HeartbeatWords};
use crate::logging;
use crate::logging::output::Output;

// A server's log is a record; this one is beside a conversation.
#[derive(Args, Debug)]
#[command(mut_arg("log_level", |level| level.default_value("warn")))]
pub(crate) struct ConnectArgs {
    /// The server, as host:port
    #[arg(value_name = "ADDR")]
    addr: String,
    /// Send nothing: stdin is not read, and its end does not end the connection
    #[arg(long)]
    listen_only: bool,
    #[command(flatten)]
    framing: FramingArgs,
    #[command(flatten)]
    heartbeat: HeartbeatArgs,
    #[command(flatten)]
    login: ConnectLoginArgs,
    #[command(flatten)]
    reconnect: ReconnectArgs,
    #[command(flatten)]
    os_timeouts: OsTimeoutArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Login")]
struct ConnectLoginArgs {
    /// Name under which the server is to know this client
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// File with the token that proves the name
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with a JSON Web Token that proves the name
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    jwt_file: Option<PathBuf>,
    /// Begin with the handshake also without a name, so that the server keeps to --heartbeat as far
    /// as it grants that
    #[arg(long)]
    hello: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Reconnecting")]
struct ReconnectArgs {
    /// Failed dials in a row before giving up, or forever; counting starts over with the first byte
    /// received
    #[arg(long, value_name = "N", default_value = "5")]
    tries: Tries,
    /// Wait before dialling again; with exponential backoff, the longest first wait
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    retry_delay: Duration,
    /// How the wait grows
    #[arg(long, value_enum, default_value = "fixed")]
    backoff: BackoffArg,
    /// Longest wait of exponential backoff
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    max_retry_delay: Duration,
    /// How long a dial may take, for each address of a name
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    dial_timeout: Duration,
    /// Reconnect after the server has taken nothing of the queue for this long, or off
    #[arg(long, value_name = "TIME", default_value = "30s")]
    write_timeout: DurationOrOff,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BackoffArg {
    /// The same wait each time
    Fixed,
    /// A random wait below a bound that doubles each time
    Exponential,
}

/// Messages that wait for the reader of stdout. Beyond that nothing is read from the server.
const MAX_WAITING: usize = 1 << 20;
/// A reply may add to what was sent, as an echo does, so received messages may be longer by this
/// factor.
const RECEIVED_FACTOR: usize = 2;
/// The server has denied the login, or given the name to another client: dialling again is in vain.
const EXIT_LOGIN: u8 = 3;

pub(crate) fn run(args: ConnectArgs) -> Result<ExitCode, Error> {
    logging::start(&args.log, "--log-file")?;
    let config = args.config()?;
    let (framing, max_message) = (config.framing, args.framing.max_message());
    let max_pending = MAX_WAITING + config.max_message + 1;
    let stdout = Output::inherited(io::stdout().as_fd(), max_pending)
        .map_err(Error::io("write to stdout"))?;
    let mut client = Client::connect(args.addr.as_str(), config)?;
    let input_failed = Arc::new(AtomicBool::new(false));
    if !args.listen_only {
        let (handle, failed) = (client.handle(), Arc::clone(&input_failed));
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || send_lines(&handle, io::stdin().lock(), max_message, &failed))
            .map_err(Error::io("start a thread for stdin"))?;
    }

    let mut terminal = Terminal {
        addr: args.addr,
        framing,
        stdout,
        broken: None,
        last_error: None,
    };
    let outcome = loop {
        // Once per turn: one write for all the messages of a burst.
        let max_wait = if terminal.flush(&mut client) {
            None
        } else {
            terminal.stdout.wait(client.as_fd(), client.timeout());
            Some(Duration::ZERO)
        };
        logging::flush();
        if let ClientState::Done(outcome) = client.turn(&mut terminal, max_wait)? {
            break outcome;
        }
    };
    Ok(terminal.exit_code(outcome, input_failed.load(Ordering::Relaxed)))
}

impl ConnectArgs {
    fn config(&self) -> Result<ClientConfig, Error> {
        let max_message = self.framing.max_message();
        Ok(ClientConfig {
            framing: self.framing.framing(),
            words: HeartbeatWords::default(),
            heartbeat: self.heartbeat.heartbeat(true),
            hello: self.login.hello()?,
            keepalive: self.os_timeouts.keepalive(),
            user_timeout: self.os_timeouts.user_timeout(),
            write_timeout: self.reconnect.write_timeout.0,
            tries: self.reconnect.tries.0,
            backoff: match self.reconnect.backoff {
                BackoffArg::Fixed => Backoff::fixed(self.reconnect.retry_delay),
                BackoffArg::Exponential => {
                    Backoff::exponential(self.reconnect.retry_delay, self.reconnect.max_retry_delay)
                }
            },
            dial_timeout: self.reconnect.dial_timeout,
            max_message: max_message.saturating_mul(RECEIVED_FACTOR),
            // The longest message must fit, or it could never be sent.
            max_queue: ClientConfig::default()
                .max_queue
                .max(max_message.saturating_mul(2)),
        })
    }
}

impl ConnectLoginArgs {
    fn hello(&self) -> Result<Option<ClientHello>, Error> {
        if !self.hello
            && self.name.is_none()
            && self.token_file.is_none()
            && self.jwt_file.is_none()
        {
            return Ok(None);
        }
        let token = match (self.token_file.as_deref(), self.jwt_file.as_deref()) {
            (Some(path), _) => Some(Token::read("token_file", path)?),
            (None, Some(path)) => Some(Token::read_long("jwt_file", path, MAX_HELLO)?),
            (None, None) => None,
        };
        Ok(Some(ClientHello {
            name: self.name.clone(),
            token: token.map(|token| token.as_str().to_owned()),
        }))
    }
}

/// Sends each line as a message, until the input or the client ends. Waits while the server does
/// not keep up. `failed` is set if a line could not be sent or the input could not be read.
fn send_lines(
    handle: &ClientHandle,
    mut input: impl BufRead,
    max_message: usize,
    failed: &AtomicBool,
) {
    let mut line = Vec::new();
    let fail = |what: String| {
        failed.store(true, Ordering::Relaxed);
        notice(&what);
    };
    loop {
        match next_line(&mut input, max_message, &mut line) {
            Ok(Line::Whole) => match handle.send_blocking(&line) {
                Ok(()) => {}
                Err(SendError::Closed) => return,
                Err(error) => fail(format!(
                    "a line of {} bytes was not sent: {error}",
                    line.len()
                )),
            },
            Ok(Line::TooLong) => fail(format!(
                "a line longer than --max-message ({max_message} bytes) was not sent"
            )),
            Ok(Line::End) => return handle.finish(),
            Err(error) => {
                fail(format!("cannot read stdin: {error}"));
                return handle.finish();
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads the next line into `line`, without its line feed. The last one may lack it. Holds no more
/// than `max` bytes of any line.
fn next_line(input: &mut impl BufRead, max: usize, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    if input
        .by_ref()
        .take((max as u64).saturating_add(1))
        .read_until(b'\n', line)?
        == 0
    {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > max {
        input.skip_until(b'\n')?;
        return Ok(Line::TooLong);
    }
    Ok(Line::Whole)
}

/// The person or program at the other side of stdout and stderr.
struct Terminal {
    addr: String,
    framing: Framing,
    stdout: Output,
    /// The error of stdout.
    broken: Option<io::Error>,
    /// The last error, until it is printed.
    last_error: Option<String>,
}

impl ClientHandler for Terminal {
    fn on_message(&mut self, client: &mut ClientContext<'_>, message: &[u8]) {
        // The longest message always fits: see below.
        self.stdout.push(message);
        if self.framing != Framing::Raw {
            self.stdout.push(b"\n");
        }
        if self.stdout.pending() >= MAX_WAITING {
            client.pause_reads();
        }
    }

    fn on_event(&mut self, _: &mut ClientContext<'_>, event: &Event) {
        match event {
            Event::Dialing(first) if first.number == 1 && self.last_error.is_none() => {
                notice(&format!("connecting to {} ({first})", self.addr));
            }
            Event::Connected { addr, .. } => {
                self.last_error = None;
                notice(&format!("connected to {addr}"));
            }
            Event::Welcomed { name, timeout } => {
                let name = name.as_ref().map_or_else(
                    || "without a name".to_owned(),
                    // It comes from the server, and goes to a terminal.
                    |name| format!("as {}", name.escape_debug()),
                );
                let timeout = timeout.map_or_else(String::new, |timeout| {
                    format!(", dead after {} of silence", display(timeout))
                });
                notice(&format!("welcome {name}{timeout}"));
            }
            Event::Denied { reason } => {
                let reason = reason.escape_debug();
                self.last_error = Some(format!("the server denied the login ({reason})"));
            }
            Event::Silent(silence) => {
                notice(&format!("silent for {}, sending a ping", display(*silence)))
            }
            Event::DialFailed(error) => self.last_error = Some(format!("cannot connect: {error}")),
            // The denial says why.
            Event::Disconnected {
                reason: CloseReason::LoginFailed,
                ..
            } => {}
            Event::Disconnected {
                reason, silence, ..
            } => {
                let why = match reason {
                    CloseReason::HeartbeatTimeout => format!("silent for {}", display(*silence)),
                    reason => reason.as_str().replace('-', " "),
                };
                self.last_error = Some(format!("lost the connection ({why})"));
            }
            Event::Reconnecting { next, delay } => {
                let last_error = self.last_error.as_deref().unwrap_or("lost the connection");
                notice(&format!(
                    "{last_error}, reconnecting ({next}, in {})",
                    display(*delay)
                ));
            }
            Event::Done(outcome) => self.print_outcome(*outcome),
            _ => {}
        }
    }
}

impl Terminal {
    fn print_outcome(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Finished | Outcome::Stopped) {
            // A denial is its own reason.
            let is_denied = matches!(outcome, Outcome::Denied(_));
            if let Some(last_error) = self.last_error.take().filter(|_| !is_denied) {
                notice(&last_error);
            }
            notice(&outcome.to_string());
        }
    }

    /// Writes messages to stdout as far as its reader takes them, and reads on from the server once
    /// there is room again. Returns whether all were written. A reader that is gone ends the
    /// program.
    fn flush(&mut self, client: &mut Client) -> bool {
        match self.stdout.flush() {
            Ok(is_idle) => {
                if self.stdout.pending() < MAX_WAITING / 2 {
                    client.resume_reads();
                }
                is_idle
            }
            Err(error) => {
                self.broken.get_or_insert(error);
                client.stop();
                true
            }
        }
    }

    fn exit_code(mut self, outcome: Outcome, input_failed: bool) -> ExitCode {
        // Threads that wait for room return.
        while self.broken.is_none() {
            match self.stdout.flush() {
                Ok(true) => break,
                Ok(false) => self.stdout.finish(Duration::from_secs(60)),
                Err(error) => self.broken = Some(error),
            }
        }
        match (self.broken, outcome) {
            // `heartline connect ... | head` ends without an error when `head` does.
            (Some(error), _) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            (Some(error), _) => {
                notice(&format!("cannot write stdout: {error}"));
                ExitCode::FAILURE
            }
            (None, Outcome::Denied(_) | Outcome::Replaced) => ExitCode::from(EXIT_LOGIN),
            (None, Outcome::Finished | Outcome::Stopped) if !input_failed => ExitCode::SUCCESS,
            (None, _) => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_lines_are_bounded() {
        let mut input = &b"one\n\nfour\nlonger than four\nr\r\nend"[..];
        let mut line = Vec::new();
        let mut seen = Vec::new();
        loop {
            match next_line(&mut input, 4, &mut line).expect("a slice can be read") {
                Line::End => break,
                Line::Whole => seen.push(String::from_utf8(line.clone()).expect("text")),
                Line::TooLong => seen.push("too long".into()),
            }
        }
        assert_eq!(seen, ["one", "", "four", "too long", "r\r", "end"]);
    }
}
