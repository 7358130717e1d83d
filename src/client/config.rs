//! The configuration of a client.

use std::time::Duration;

use super::backoff::Backoff;
use super::handshake::ClientHello;
use super::queue::MESSAGE_OVERHEAD;
use crate::config::{Heartbeat, check_os_timeouts, os_timeout_notes};
use crate::error::ConfigError;
use crate::framing::{Codec, Framing, HeartbeatWords};
use crate::keepalive::Keepalive;

/// The configuration of a client. `ClientConfig::default()` is safe on any network: buffers are
/// bounded and a dead connection is found.
///
/// Fields are plain; [`ClientConfig::check`] runs in [`Client::connect`](super::Client::connect)
/// and names the field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// How messages are separated; it must be that of the server. Default: lines.
    pub framing: Framing,
    /// The heartbeat words; the server's choice. Default: `ping` and `pong`.
    pub words: HeartbeatWords,
    /// The heartbeat. A ping is sent `interval` after the last one unless both directions were busy
    /// since. With `send_pings` off the client sends none, and the server must send by itself.
    /// `None` leaves finding a dead connection to OS keepalive. Default: every 5 s, 3 missed.
    pub heartbeat: Option<Heartbeat>,
    /// The handshake with which each connection begins. Messages wait for the server's welcome; its
    /// heartbeat then takes the place of `heartbeat`. A server without the handshake takes it for a
    /// message, and the client leaves after 30 s. `None`: no handshake. Default: `None`.
    pub hello: Option<ClientHello>,
    /// OS keepalive. Default: after 30 s idle, every 30 s, 3 probes.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`, as in [`Config::user_timeout`](crate::Config::user_timeout). Default:
    /// `None`.
    pub user_timeout: Option<Duration>,
    /// How long the server may take nothing of what is queued for it. After this time the
    /// connection ends as [`CloseReason::SlowReader`](crate::CloseReason::SlowReader), even if the
    /// server sends meanwhile, and the queue is kept for the next connection. At least 1 ms; `None`
    /// waits as long as the server is alive. Default: 30 s.
    pub write_timeout: Option<Duration>,
    /// Failed dials in a row after which the client gives up; `None`: never. A dial counts as
    /// failed until its connection has received a byte. At least 1. Default: 5.
    pub tries: Option<u32>,
    /// The wait before each dial but the first. Default: exponential with full jitter, from 3 s to
    /// 60 s, so that the clients of a server that failed do not all reconnect at once.
    pub backoff: Backoff,
    /// How long a dial may take, for each address of a name. At least 1 ms. Default: 5 s.
    pub dial_timeout: Duration,
    /// Longest message accepted from the server in bytes, its framing not counted. A longer one
    /// ends the connection. Default: 64 KiB.
    pub max_message: usize,
    /// Most bytes queued while the connection is down or slow, framing and 8 bytes per message
    /// counted. A message that would exceed it is refused with
    /// [`SendError::Full`](crate::SendError::Full); queued messages are never dropped to make room,
    /// and are kept over any number of connections. A [`ClientHandle`](super::ClientHandle) may
    /// queue as much again. At least 256. Default: 1 MiB.
    pub max_queue: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            framing: Framing::Lines,
            words: HeartbeatWords::default(),
            heartbeat: Some(Heartbeat::default()),
            hello: None,
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
            write_timeout: Some(Duration::from_secs(30)),
            tries: Some(5),
            backoff: Backoff::exponential(Duration::from_secs(3), Duration::from_secs(60)),
            dial_timeout: Duration::from_secs(5),
            max_message: 64 * 1024,
            max_queue: 1024 * 1024,
        }
    }
}

/// The smallest sensible queue: a short message must fit.
const MIN_QUEUE: usize = 256;
const _: () = assert!(MIN_QUEUE > MESSAGE_OVERHEAD);

impl ClientConfig {
    /// Checks every field, alone and against the others. The error names the first field at fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_message == 0 || self.max_message > u32::MAX as usize {
            return Err(ConfigError::new(
                "max_message",
                "must be at least 1 byte and less than 4 GiB",
            ));
        }
        self.codec()?;
        if self.max_queue < MIN_QUEUE {
            return Err(ConfigError::new(
                "max_queue",
                format!("must be at least {MIN_QUEUE} bytes"),
            ));
        }
        if self.tries == Some(0) {
            return Err(ConfigError::new("tries", "must be at least 1, or forever"));
        }
        self.backoff.check()?;
        if let Some(hello) = &self.hello {
            hello.check(self.framing)?;
        }
        if self.dial_timeout < Duration::from_millis(1) {
            return Err(ConfigError::new("dial_timeout", "must be at least 1 ms"));
        }
        if self
            .write_timeout
            .is_some_and(|timeout| timeout < Duration::from_millis(1))
        {
            return Err(ConfigError::new(
                "write_timeout",
                "must be at least 1 ms, or off",
            ));
        }
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.check()?;
        }
        check_os_timeouts(
            self.keepalive.as_ref(),
            self.user_timeout,
            self.heartbeat.as_ref().map(Heartbeat::timeout),
        )
    }

    /// Warnings about legal settings that are probably not meant, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        os_timeout_notes(
            self.keepalive.as_ref(),
            self.user_timeout,
            self.heartbeat.as_ref(),
        )
    }

    pub(crate) fn codec(&self) -> Result<Codec, ConfigError> {
        Codec::new(self.framing, self.words.clone(), self.max_message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_at_fault(change: impl FnOnce(&mut ClientConfig)) -> &'static str {
        let mut config = ClientConfig::default();
        change(&mut config);
        config.check().expect_err("refused").field
    }

    #[test]
    fn defaults_are_valid_and_have_no_notes() {
        assert_eq!(ClientConfig::default().check(), Ok(()));
        assert_eq!(ClientConfig::default().notes(), Vec::<String>::new());
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        assert_eq!(
            field_at_fault(|config| config.max_message = 0),
            "max_message"
        );
        assert_eq!(field_at_fault(|config| config.words.pong.clear()), "words");
        assert_eq!(field_at_fault(|config| config.max_queue = 255), "max_queue");
        assert_eq!(field_at_fault(|config| config.tries = Some(0)), "tries");
        assert_eq!(
            field_at_fault(|config| config.backoff = Backoff::fixed(Duration::ZERO)),
            "retry_delay"
        );
        assert_eq!(
            field_at_fault(|config| config.dial_timeout = Duration::ZERO),
            "dial_timeout"
        );
        assert_eq!(
            field_at_fault(|config| config.write_timeout = Some(Duration::ZERO)),
            "write_timeout"
        );
        assert_eq!(
            field_at_fault(|config| config.heartbeat = Some(Heartbeat {
                max_missed: 0,
                ..Heartbeat::default()
            })),
            "missed"
        );
        assert_eq!(
            field_at_fault(|config| config.user_timeout = Some(Duration::from_secs(60))),
            "user_timeout"
        );
    }
}
