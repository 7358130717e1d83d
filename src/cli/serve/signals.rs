//! Signals, on the loop of the server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::Interest;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

use crate::error::Error;
use crate::server::Server;

/// Readiness of the signals.
const SIGNALS: usize = 0;

/// SIGTERM and SIGINT. They are waited for on the server's own loop: a thread of their own would cost every system call of the server, as the
/// kernel and the C library take care of threads where there are several.
pub(super) struct Termination(Signals);

impl Termination {
    pub(super) fn watch(server: &Server) -> Result<Self, Error> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the first signal must find it false. The second ends the process whatever the loop is doing.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
            flag::register(signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::io(WATCH_SIGNALS))?;
        server.registry().register(&mut signals, Server::guest_token(SIGNALS), Interest::READABLE).map_err(Error::io(WATCH_SIGNALS))?;
        Ok(Termination(signals))
    }

    pub(super) fn has_come(&mut self, server: &Server) -> bool {
        server.ready_guests().contains(&SIGNALS) && self.0.pending().next().is_some()
    }
}

const WATCH_SIGNALS: &str = "watch for signals";
