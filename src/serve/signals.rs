//! Signals, on the loop of the server.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::Interest;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::error::Error;
use crate::server::Server;

/// Readiness of the signals.
const SIGNALS: usize = 0;

/// The request of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT: an end, with a drain before it.
    Terminate,
    /// SIGHUP: the settings read again, the log opened anew.
    HangUp,
    /// SIGUSR1: reopen the log (a common convention of log rotation).
    Reopen,
}

/// The signals are waited for on the server's own loop: a thread of their own would cost every
/// system call of the server, as the kernel and the C library take care of threads where there are
/// several.
pub(super) struct Signals {
    signals: signal_hook_mio::v1_0::Signals,
    /// The server was started in a terminal and ends when the terminal is closed.
    has_terminal: bool,
}

impl Signals {
    pub(super) fn watch(server: &Server) -> Result<Self, Error> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the first signal must find it false. The second ends the process,
            // even if the loop is stuck.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen))
                .map_err(Error::io(WATCH_SIGNALS))?;
            flag::register(signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
        }
        // Checked before the handler is set: nohup(1) ignores SIGHUP.
        let has_terminal = is_terminal_there() && !is_hangup_ignored();
        let mut signals = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
            .map_err(Error::io(WATCH_SIGNALS))?;
        server
            .register_event_source(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(Error::io(WATCH_SIGNALS))?;
        Ok(Signals {
            signals,
            has_terminal,
        })
    }

    /// The next pending signal. Several of a kind may be merged.
    pub(super) fn next(&mut self, server: &Server) -> Option<Signal> {
        if !server.ready_event_sources().contains(&SIGNALS) {
            return None;
        }
        Some(match self.signals.pending().next()? {
            // The kernel also sends SIGHUP when the terminal is closed.
            SIGHUP if self.has_terminal && !is_terminal_there() => {
                log::warn!("terminal closed");
                Signal::Terminate
            }
            SIGHUP => Signal::HangUp,
            SIGUSR1 => Signal::Reopen,
            _ => Signal::Terminate,
        })
    }
}

/// Whether there is a controlling terminal: tty(4).
fn is_terminal_there() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the process was started with SIGHUP ignored: proc_pid_status(5), `SigIgn`.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

const WATCH_SIGNALS: &str = "watch for signals";
