//! The heartbeat of a server or a client.

use std::time::Duration;

use super::MAX_DURATION;
use crate::error::ConfigError;

/// The heartbeat: when a ping is sent, and when unanswered pings lead to a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which the first ping is sent. At least 2 ms. Default: 5 s.
    pub interval: Duration,
    /// Time that each ping has to be answered, after which the next ping is sent or the peer is
    /// closed. At least 2 ms. `None`: as long as `interval`. Default: `None`.
    ///
    /// A short `retry` with a long `interval` finds a dead peer soon, at little traffic: with 4
    /// minutes and 5 s a peer is closed after 4 min 15 s instead of 16 min.
    pub retry: Option<Duration>,
    /// Pings that may go unanswered: a silent peer is closed `interval + retry * max_missed` after
    /// its last byte. 1 to 255. Default: 3.
    pub max_missed: u8,
    /// Whether pings are sent at all. With `false`, a peer must send by itself within the same
    /// time. Default: `true`.
    pub send_pings: bool,
    /// Shortest interval that a peer is granted when it asks for one of its own (`hello beat=…`).
    /// A server grants two ticks at least. Default: 1 s.
    pub beat_min: Duration,
    /// Longest interval that a peer is granted. Default: 10 min.
    pub beat_max: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat {
            interval: Duration::from_secs(5),
            retry: None,
            max_missed: 3,
            send_pings: true,
            beat_min: Duration::from_secs(1),
            beat_max: Duration::from_secs(600),
        }
    }
}

impl Heartbeat {
    /// How long a peer may be silent before it is closed: `interval + retry * max_missed`. It is
    /// closed no earlier, and no later than one tick and the lag of the loop after that.
    pub fn timeout(&self) -> Duration {
        let retries = self.retry().saturating_mul(u32::from(self.max_missed));
        self.interval.saturating_add(retries)
    }

    /// Time that each ping has to be answered: `retry`, or `interval` if that is `None`.
    pub fn retry(&self) -> Duration {
        self.retry.unwrap_or(self.interval)
    }

    /// The rule for a peer that has asked for an interval of its own: `interval` is as close to
    /// what it wants as `beat_min`, `beat_max` and `tick` allow, and `retry` is at most as long.
    pub(crate) fn granted(&self, wanted: Duration, tick: Duration) -> Heartbeat {
        let min = self.beat_min.max(tick.saturating_mul(2));
        let interval = wanted.min(self.beat_max).max(min);
        Heartbeat {
            interval,
            retry: Some(self.retry().min(interval)),
            ..self.clone()
        }
    }

    /// The longest time that any peer may be silent, whatever interval it asks for.
    pub(crate) fn longest_timeout(&self) -> Duration {
        let granted = self.granted(Duration::MAX, Duration::ZERO);
        self.timeout().max(granted.timeout())
    }

    /// The shorter of `interval` and `retry`.
    pub(crate) fn shortest(&self) -> Duration {
        self.interval.min(self.retry())
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.max_missed == 0 {
            return Err(ConfigError::new(
                "missed",
                "must be 1 to 255: a peer needs one ping that it can answer",
            ));
        }
        let fields = [
            ("heartbeat", self.interval),
            ("retry", self.retry()),
            ("beat_min", self.beat_min),
            ("beat_max", self.beat_max),
        ];
        for (field, duration) in fields {
            if duration < Duration::from_millis(2) || duration > MAX_DURATION {
                let problem = "must be at least 2 ms and at most 24 days";
                return Err(ConfigError::new(field, problem));
            }
        }
        if self.beat_min > self.beat_max {
            let problem = format!("must be at most beat_max: {:?}", self.beat_max);
            return Err(ConfigError::new("beat_min", problem).against(&["beat_max"]));
        }
        Ok(())
    }
}
