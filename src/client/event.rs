//! Events of a client's connection, and its states.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::close::{CloseReason, DenyReason, Origin};

/// What happens to a client's line, in the order in which it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A dial begins.
    Dialing(Attempt),
    /// A dial failed: the name does not resolve, or no address of it answered. The error is that of
    /// the last address.
    DialFailed(io::Error),
    /// The connection is established.
    Connected {
        /// Counts the connections of this client, from 1.
        epoch: u64,
        /// The address that answered.
        addr: SocketAddr,
    },
    /// The server has answered the `hello`: messages are sent from now on.
    Welcomed {
        /// The name under which it knows this client; `None` if it knows none.
        name: Option<String>,
        /// The silence after which each side leaves the connection; `None` without a heartbeat.
        timeout: Option<Duration>,
    },
    /// The server has denied the login.
    Denied {
        /// Why: the text of a [`DenyReason`](crate::DenyReason), or of a later version.
        reason: String,
    },
    /// A ping was not answered and no other byte arrived; the next ping is sent.
    Silent(Duration),
    /// A heartbeat was answered after this time, see [`RttStats`](super::RttStats).
    RoundTrip(Duration),
    /// The connection is gone.
    Disconnected {
        /// The connection that is gone.
        epoch: u64,
        /// Why. [`CloseReason::HeartbeatTimeout`]: it was silent for too long.
        reason: CloseReason,
        /// Time since the last sign of life.
        silence: Duration,
    },
    /// The client waits, then dials again.
    Reconnecting {
        /// The next dial.
        next: Attempt,
        /// The wait before it.
        delay: Duration,
    },
    /// The last event: the client is done.
    Done(Outcome),
}

/// The form in logs: a word, then `key=value`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Dialing(next) => write!(f, "dial try={}", next.number),
            Event::DialFailed(error) => write!(f, "dial-failed error=\"{error}\""),
            Event::Connected { epoch, addr } => write!(f, "connected epoch={epoch} addr={addr}"),
            Event::Welcomed { name, timeout } => {
                write!(f, "welcomed name={}", name.as_deref().unwrap_or("none"))?;
                timeout.map_or(Ok(()), |timeout| {
                    write!(f, " timeout_ms={}", timeout.as_millis())
                })
            }
            // It comes from the server and may hold anything.
            Event::Denied { reason } => write!(f, "denied reason={reason:?}"),
            Event::Silent(silence) => write!(f, "silent silence_ms={}", silence.as_millis()),
            Event::RoundTrip(rtt) => write!(f, "round-trip rtt_ms={}", rtt.as_millis()),
            Event::Disconnected {
                epoch,
                reason,
                silence,
            } => {
                write!(
                    f,
                    "disconnected epoch={epoch} reason={reason} silence_ms={}",
                    silence.as_millis()
                )
            }
            Event::Reconnecting { next, delay } => write!(
                f,
                "reconnect try={} delay_ms={}",
                next.number,
                delay.as_millis()
            ),
            Event::Done(outcome) => write!(f, "done outcome=\"{outcome}\""),
        }
    }
}

/// A dial, by its number. Counting starts over when a connection receives its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Failed dials after which the client gives up. `None`: never.
    pub of: Option<u32>,
}

/// `try 2 of 5`, or `try 2`.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "try {}", self.number)?;
        self.of.map_or(Ok(()), |of| write!(f, " of {of}"))
    }
}

/// The state of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It waits before dialling.
    Waiting,
    /// It dials.
    Dialing,
    /// The connection is established.
    Connected,
    /// It has ended, and stays so.
    Done(Outcome),
}

/// How a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// After [`ClientContext::finish`](super::ClientContext::finish): everything was sent, and then
    /// the server closed its side or, once ours was closed, sent nothing for the whole heartbeat
    /// timeout.
    Finished,
    /// Everything was handed to the kernel, then the connection ended for this reason: whether the
    /// server got all of it is not known.
    ConnectionLost(CloseReason),
    /// Everything was handed to the kernel, and the server's kernel had not acknowledged these
    /// bytes when the connection ended for this reason: they are probably lost.
    Unacknowledged {
        /// How many.
        bytes: u64,
        /// How the connection ended.
        reason: CloseReason,
    },
    /// The server has denied the login, and the client does not try for ever.
    Denied(DenyReason),
    /// Another client has logged in with the same name. Dialling again would replace that one in
    /// turn, so the client never does.
    Replaced,
    /// All tries were used up.
    GaveUp {
        /// How many that were.
        tries: u32,
    },
    /// After [`ClientContext::stop`](super::ClientContext::stop).
    Stopped,
}

impl Outcome {
    /// The outcome of a client that has nothing more to send when its connection is lost.
    pub(crate) fn after_everything_sent(reason: CloseReason) -> Self {
        if reason == CloseReason::PeerClosed {
            Outcome::Finished
        } else {
            Outcome::ConnectionLost(reason)
        }
    }
}

/// The side that ended the connection, in words for a person.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Finished => f.write_str("finished"),
            Outcome::ConnectionLost(reason) if reason.origin() == Origin::Peer => {
                write!(f, "cut off by the server ({reason})")
            }
            Outcome::ConnectionLost(reason) => write!(f, "cut off ({reason})"),
            Outcome::Unacknowledged { bytes, reason } => {
                write!(
                    f,
                    "{bytes} bytes were not acknowledged by the server ({reason})"
                )
            }
            Outcome::Denied(reason) => write!(f, "the server denied the login ({reason})"),
            Outcome::Replaced => f.write_str("another client has logged in with the same name"),
            Outcome::GaveUp { tries: 1 } => f.write_str("gave up after 1 try"),
            Outcome::GaveUp { tries } => write!(f, "gave up after {tries} tries"),
            Outcome::Stopped => f.write_str("stopped"),
        }
    }
}
