//! Signals, on the loop of the server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::Interest;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Error;
use crate::server::Server;

/// Readiness of the signals.
const SIGNALS: usize = 0;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT: an end, with a drain before it.
    Terminate,
    /// SIGHUP: the settings read again, the log opened anew.
    HangUp,
}

/// The signals are waited for on the server's own loop: a thread of their own would cost every system call of the server, as the kernel and the C
/// library take care of threads where there are several.
pub(super) struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    pub(super) fn watch(server: &Server) -> Result<Self, Error> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the first signal must find it false. The second ends the process whatever the loop is doing.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen))
                .map_err(Error::io(WATCH_SIGNALS))?;
            flag::register(signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
        }
        let mut signals = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(Error::io(WATCH_SIGNALS))?;
        server
            .registry()
            .register(
                &mut signals,
                Server::guest_token(SIGNALS),
                Interest::READABLE,
            )
            .map_err(Error::io(WATCH_SIGNALS))?;
        Ok(Signals(signals))
    }

    /// The next signal that has come. Several of a kind may be one.
    pub(super) fn next(&mut self, server: &Server) -> Option<Signal> {
        if !server.ready_guests().contains(&SIGNALS) {
            return None;
        }
        let signal = self.0.pending().next()?;
        Some(if signal == SIGHUP {
            Signal::HangUp
        } else {
            Signal::Terminate
        })
    }
}

const WATCH_SIGNALS: &str = "watch for signals";
