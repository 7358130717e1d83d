//! Who may have a name, and how it is proven.

use std::time::Duration;

use super::check_timeout;
use crate::error::ConfigError;
use crate::framing::Framing;

/// Names of connections: whether one is needed, and the bounds on proving it.
///
/// The handshake (docs/protocol.md) needs message boundaries: with [`Framing::Raw`] the mode must
/// be [`LoginMode::Off`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who needs a name. Default: off.
    pub mode: LoginMode,
    /// What happens when a second connection logs in with a name. Default: it replaces the first.
    pub on_duplicate: OnDuplicate,
    /// How long a login may take: from the open of the connection where one is required, else from
    /// the `hello`. Heartbeats do not extend it. Default: 10 s.
    pub timeout: Duration,
    /// Most logins that wait for a decision at once; the next one is denied. At least 1. Default:
    /// 1,000.
    pub max_pending: usize,
    /// Most failed logins of one IP address within a minute; further ones are denied unseen until
    /// the minute is over. IPv6 addresses count by their prefix, as for
    /// [`Limits::per_ip_prefix_v6`](crate::Limits::per_ip_prefix_v6). 0: no limit. Default: 60.
    pub max_failures: u32,
}

/// Who needs a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginMode {
    /// No connection has a name. A `hello` with a token is denied.
    #[default]
    Off,
    /// A connection may prove a name with its first message.
    Optional,
    /// A connection must prove a name with its first message. Until then the handler does not know
    /// of it.
    Required,
    /// A connection must state a name with its first message, and is believed. For laboratories:
    /// anybody can take any name.
    Trust,
}

/// What happens when a second connection logs in with a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The first connection is closed, as
    /// [`CloseReason::Replaced`](crate::CloseReason::Replaced), before the second one opens.
    #[default]
    Replace,
    /// The second connection is denied.
    Refuse,
    /// Both keep the name. A message to the name is sent to all its connections.
    Allow,
}

impl Default for Login {
    fn default() -> Self {
        Login {
            mode: LoginMode::Off,
            on_duplicate: OnDuplicate::Replace,
            timeout: Duration::from_secs(10),
            max_pending: 1000,
            max_failures: 60,
        }
    }
}

impl LoginMode {
    /// Whether a connection without a name is not admitted.
    pub(crate) fn needs_name(self) -> bool {
        matches!(self, LoginMode::Required | LoginMode::Trust)
    }
}

impl Login {
    pub(super) fn check(&self, framing: Framing) -> Result<(), ConfigError> {
        if self.mode != LoginMode::Off && framing == Framing::Raw {
            let problem = "the handshake needs message boundaries, which raw framing does not have";
            return Err(ConfigError::new("login", problem).against(&["framing"]));
        }
        if self.max_pending == 0 {
            return Err(ConfigError::new("max_pending_logins", "must be at least 1"));
        }
        check_timeout("login_timeout", Some(self.timeout))
    }
}
