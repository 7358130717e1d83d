//! Errors of the configuration and of the operating system. What happens to one connection is a
//! [`CloseReason`](crate::CloseReason) instead.

use std::fmt;
use std::io;

/// A configuration that contradicts itself or is impossible. Found when it is built, never later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field at fault, by its name in the configuration; with hyphens for underscores it is the
    /// flag of the binary.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// The fields that it contradicts, if any.
    pub against: &'static [&'static str],
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        ConfigError {
            field,
            problem: problem.into(),
            against: &[],
        }
    }

    pub(crate) fn against(mut self, fields: &'static [&'static str]) -> Self {
        self.against = fields;
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Why a server or a client could not start, or cannot go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is at fault.
    Config(ConfigError),
    /// The operating system refused something.
    Io {
        /// The operation, in words that fit after "cannot".
        doing: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A handler has panicked in an earlier turn, and the panic was caught: the state is
    /// inconsistent, so the server has closed all its sockets.
    Poisoned,
}

impl Error {
    /// An error of the system while `doing` something, for `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Error::Config(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => error.fmt(f),
            Error::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Error::Poisoned => {
                f.write_str("cannot go on: a handler has panicked in an earlier turn")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(error) => Some(error),
            Error::Io { source, .. } => Some(source),
            Error::Poisoned => None,
        }
    }
}

/// Why a message was not queued. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closed or closing, or the server or client has stopped.
    Closed,
    /// The queue is at its bound. On a server's outbox this also closes the connection, as a slow
    /// reader, unless it drops instead ([`OnSlow`](crate::OnSlow)).
    Full,
    /// The framing cannot carry the message: a line feed inside a line, more than 2^32 - 1 bytes
    /// behind a length.
    InvalidMessage,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed => "the connection is closed",
            SendError::Full => "the queue is full",
            SendError::InvalidMessage => "the framing cannot carry this message",
        })
    }
}

impl std::error::Error for SendError {}
