//! OS keepalive: its settings, and how they contradict each other.

use std::time::Duration;

use crate::error::ConfigError;

/// OS keepalive (RFC 9293 section 3.8.4; tcp(7)): probes that the kernel sends while a connection
/// carries nothing at all. They keep NAT entries alive and find dead hosts, not stuck programs, and
/// they are silent while sent data is unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Quiet time before the first probe (`TCP_KEEPIDLE`). Whole seconds, 1 to 32,767. Default: 30
    /// s.
    pub idle: Duration,
    /// Time between probes (`TCP_KEEPINTVL`). Whole seconds, 1 to 32,767. Default: 30 s.
    pub interval: Duration,
    /// Unanswered probes after which the kernel gives the peer up (`TCP_KEEPCNT`). 1 to 127.
    /// Default: 3.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(30),
            count: 3,
        }
    }
}

impl Keepalive {
    /// How long an idle connection to a vanished host survives: `idle + interval * count`.
    pub fn timeout(&self) -> Duration {
        self.idle
            .saturating_add(self.interval.saturating_mul(self.count))
    }

    /// Checks the three values, alone and against `TCP_USER_TIMEOUT`.
    ///
    /// Linux ends a probed connection by the user timeout in place of the probe count as soon as
    /// one is set (tcp_timer.c, `tcp_keepalive_timer`): a shorter timeout closes after fewer probes
    /// than configured, so it is an error here.
    pub fn check(&self, user_timeout: Option<Duration>) -> Result<(), ConfigError> {
        for (field, value) in [
            ("keepalive_idle", self.idle),
            ("keepalive_interval", self.interval),
        ] {
            if value.subsec_nanos() != 0 || !(1..=32_767).contains(&value.as_secs()) {
                return Err(ConfigError::new(
                    field,
                    "the kernel takes whole seconds from 1s to 32767s",
                ));
            }
        }
        if !(1..=127).contains(&self.count) {
            return Err(ConfigError::new(
                "keepalive_count",
                "the kernel takes 1 to 127 probes",
            ));
        }
        match user_timeout {
            Some(timeout) if timeout < self.timeout() => Err(ConfigError::new(
                "user_timeout",
                format!(
                    "{timeout:?} would override the keepalive probe count: the kernel would close \
                     the connection before {} probes went unanswered ({:?}); make it longer, or \
                     lower --keepalive-idle, --keepalive-interval or --keepalive-count, or turn \
                     keepalive off",
                    self.count,
                    self.timeout()
                ),
            )
            .against(&["keepalive_idle", "keepalive_interval", "keepalive_count"])),
            _ => Ok(()),
        }
    }
}
