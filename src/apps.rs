//! The applications that `heartline serve` can run.

use std::fmt;

use clap::ValueEnum;

use crate::engine::{Context, Handler};
use crate::id::ConnId;

/// What the server does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum App {
    /// Reply `echo: <message>`
    Echo,
    /// Send each message to all other connections
    Broadcast,
    /// Discard messages
    Sink,
}

/// The name in settings.
impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value()
            .map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl Handler for App {
    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        // The engine closes a peer with a full queue as a slow reader, and a message that came
        // in can go out: no error needs handling here.
        let _ = match self {
            App::Echo => cx.send_parts(id, &[b"echo: ", message]),
            App::Broadcast => cx.broadcast(message, Some(id)).map(drop),
            App::Sink => Ok(()),
        };
    }
}
