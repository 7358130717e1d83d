//! Why a connection was closed, or rejected.

use std::fmt;
use std::io;

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The peer, by its own doing.
    Peer,
    /// The network or the operating system.
    Network,
    /// A rule of this server that the peer broke or outlived.
    Policy,
    /// This side, on request.
    Local,
}

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal, $origin:ident;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason, in the order of [`Self::index`].
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The reason in logs and metrics: lower case, words joined by hyphens.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// Which side ended a connection.
            pub const fn origin(self) -> Origin {
                match self { $($name::$variant => Origin::$origin,)* }
            }

            /// The reason that [`Self::as_str`] has made this text of, if there is one.
            pub fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }

            /// The position of this reason in [`Self::ALL`], for counters kept in an array.
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a connection was closed. The first reason wins: what happens to a connection already
    /// closing does not change it.
    CloseReason {
        /// The peer shut its writing side (FIN); it was sent everything that was queued for it.
        PeerClosed = "peer-closed", Peer;
        /// The peer reset the connection (RST; `ECONNRESET`), or was gone when we wrote (`EPIPE`).
        PeerReset = "peer-reset", Peer;
        /// The kernel gave the peer up: OS keepalive, `TCP_USER_TIMEOUT` or retransmission ran out
        /// (`ETIMEDOUT`), or the peer became unreachable (`EHOSTUNREACH`, `ENETUNREACH`).
        NetworkTimeout = "network-timeout", Network;
        /// Reading failed in some other way.
        ReadFailed = "read-failed", Network;
        /// Writing failed in some other way.
        WriteFailed = "write-failed", Network;
        /// A frame was longer than the longest message allowed.
        FrameTooLarge = "frame-too-large", Policy;
        /// The first message was an HTTP request: the peer expects a web server. The handler does
        /// not see it.
        HttpRequest = "http-request", Policy;
        /// A frame was begun and not finished within the time allowed for it, though its bytes may
        /// have trickled in to the last.
        FrameTimeout = "frame-timeout", Policy;
        /// The peer sent no message and no heartbeat within the time allowed for its first.
        FirstMessageTimeout = "first-message-timeout", Policy;
        /// The peer has broken the rules of the handshake: a `hello` that cannot be read, or a
        /// control message that is unknown or untimely.
        Malformed = "malformed", Policy;
        /// The peer's login was denied; [`Closed::denied`](crate::Closed::denied) has the cause.
        LoginFailed = "login-failed", Policy;
        /// The peer's login was not decided within the time allowed for it.
        LoginTimeout = "login-timeout", Policy;
        /// The proof of the connection's name no longer holds: its token was removed or has
        /// expired.
        LoginExpired = "login-expired", Policy;
        /// Another connection has logged in with the same name.
        Replaced = "replaced", Policy;
        /// The peer went on sending more messages than it may, though it was held back.
        RateLimited = "rate-limited", Policy;
        /// The peer was silent for `heartbeat + retry * missed` and left `missed` pings unanswered.
        HeartbeatTimeout = "heartbeat-timeout", Policy;
        /// The peer was silent for the heartbeat timeout, and its kernel has not acknowledged what
        /// was sent to it: the host or the network is gone, not only the program. Detected on Linux
        /// only; elsewhere it counts as one of the two next to it.
        HalfOpen = "half-open", Policy;
        /// The peer does not read: more was queued for it than the outbox limit allows; or it took
        /// nothing for the whole write timeout; or it neither read nor sent anything for the
        /// heartbeat timeout while its queue was stuck.
        SlowReader = "slow-reader", Policy;
        /// All buffers together had reached their bound, and this connection held most.
        MemoryLimit = "memory-limit", Policy;
        /// The connection had been silent for longest when a new one came and no place was free.
        Evicted = "evicted", Policy;
        /// The handler or a handle closed it.
        Requested = "requested", Local;
        /// The server shuts down.
        Shutdown = "shutdown", Local;
    }
}

reasons! {
    /// Why a connection was rejected: accepted by the kernel, closed at once by the server, and not
    /// passed to the handler.
    RejectReason {
        /// As many connections are held as the limit allows.
        Full = "full", Policy;
        /// This address holds as many connections as one address may.
        PerIpLimit = "per-ip-limit", Policy;
        /// This address may not connect.
        Denied = "denied", Policy;
        /// The connection of a balancer had no valid PROXY header in time.
        ProxyHeader = "proxy-header", Policy;
        /// A balancer closed the connection before it sent a PROXY header: a health check.
        Probe = "probe", Peer;
        /// The application has rejected it ([`Context::reject`](crate::Context::reject)).
        Application = "application", Local;
        /// The server is shutting down.
        ShuttingDown = "shutting-down", Local;
        /// The process or the machine is out of descriptors (`EMFILE`, `ENFILE`).
        NoDescriptors = "no-descriptors", Local;
    }
}

reasons! {
    /// Why a login was denied. The peer is told the text of it (`denied reason=…`).
    DenyReason {
        /// The first message was not a `hello`, and a name is needed.
        LoginRequired = "login-required", Policy;
        /// The peer has sent a token, and the server checks none.
        LoginOff = "login-off", Policy;
        /// The `hello` cannot be read.
        BadHello = "bad-hello", Policy;
        /// The peer has stated no name, and one is needed.
        NameMissing = "name-missing", Policy;
        /// The name is not one: see [`Name`](crate::Name).
        BadName = "bad-name", Policy;
        /// The peer has sent no token, and one is needed.
        TokenMissing = "token-missing", Policy;
        /// The token is unknown, cannot be read, or is not signed with the server's key.
        BadToken = "bad-token", Policy;
        /// The token is signed with another algorithm than the server's key has, or not at all.
        WrongAlgorithm = "wrong-algorithm", Policy;
        /// The time of the token is over.
        TokenExpired = "token-expired", Policy;
        /// The time of the token has not come.
        TokenNotYetValid = "token-not-yet-valid", Policy;
        /// The token is for another audience.
        WrongAudience = "wrong-audience", Policy;
        /// The name is not the one that the token proves.
        NameMismatch = "name-mismatch", Policy;
        /// Another connection has the name, and
        /// [`OnDuplicate::Refuse`](crate::OnDuplicate::Refuse) is set.
        NameInUse = "name-in-use", Policy;
        /// Too many logins of this address have failed within a minute.
        TooManyFailures = "too-many-failures", Policy;
        /// Too many logins wait for a decision.
        TooManyLogins = "too-many-logins", Policy;
        /// The login was not decided in time.
        TimedOut = "timed-out", Policy;
        /// The application denied the login, for a reason of its own.
        Refused = "refused", Policy;
    }
}

impl CloseReason {
    /// The reason for a failed read.
    pub fn from_read_error(error: &io::Error) -> Self {
        Self::from_io_error(error).unwrap_or(CloseReason::ReadFailed)
    }

    /// The reason for a failed write.
    pub fn from_write_error(error: &io::Error) -> Self {
        Self::from_io_error(error).unwrap_or(CloseReason::WriteFailed)
    }

    fn from_io_error(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::*;
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected => {
                Some(CloseReason::PeerReset)
            }
            TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown => {
                Some(CloseReason::NetworkTimeout)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_reasons_have_unique_names_and_indices() {
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(CloseReason::from_text(reason.as_str()), Some(*reason));
            assert_eq!(
                CloseReason::ALL
                    .iter()
                    .filter(|other| other.as_str() == reason.as_str())
                    .count(),
                1
            );
        }
    }

    #[test]
    fn os_errors_map_to_close_reasons() {
        let reason = |kind| CloseReason::from_read_error(&io::Error::from(kind));
        assert_eq!(
            reason(io::ErrorKind::ConnectionReset),
            CloseReason::PeerReset
        );
        assert_eq!(reason(io::ErrorKind::TimedOut), CloseReason::NetworkTimeout);
        assert_eq!(
            reason(io::ErrorKind::PermissionDenied),
            CloseReason::ReadFailed
        );
        let write =
            CloseReason::from_write_error(&io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(write, CloseReason::WriteFailed);
    }
}
