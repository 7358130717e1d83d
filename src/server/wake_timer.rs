//! How the loop sleeps until the next deadline.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

use crate::net::Alarm;

/// A timer for the poll. The loop waits thousands of times a second and is seldom woken by time, so
/// the timer stays armed from wait to wait, and is set anew only when it would fire too late, or
/// has fired: firing too early costs one wake-up.
pub(super) struct WakeTimer {
    alarm: Alarm,
    /// When it fires, in time since the server's start.
    set_for: Option<Duration>,
}

impl WakeTimer {
    pub(super) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(WakeTimer {
            alarm: Alarm::register(registry, token)?,
            set_for: None,
        })
    }

    /// Makes the poll end at `at`; `None`: no limit. `now` is an earlier reading of the same clock,
    /// `clock` makes a new one. Returns the timeout that the poll needs besides, if the timer could
    /// not be set.
    pub(super) fn until(
        &mut self,
        now: Duration,
        at: Option<Duration>,
        clock: impl Fn() -> Duration,
    ) -> Option<Duration> {
        let serves = match (self.set_for, at) {
            (None, None) => true,
            (Some(set_for), Some(at)) => now < set_for && set_for <= at,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if serves {
            return None;
        }
        let from_now = at.map(|at| at.saturating_sub(clock()));
        match self.alarm.set(from_now) {
            Ok(()) => {
                self.set_for = at;
                None
            }
            Err(_) => {
                self.set_for = None;
                from_now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sleeps until `at`, and says whether an alarm that was set before serves still.
    fn serves(wake_timer: &mut WakeTimer, now_ms: u64, at_ms: Option<u64>) -> bool {
        let read = std::cell::Cell::new(false);
        let now = Duration::from_millis(now_ms);
        let before = wake_timer.set_for;
        let timeout = wake_timer.until(now, at_ms.map(Duration::from_millis), || {
            read.set(true);
            now
        });
        assert_eq!(timeout, None, "an alarm can be set on Linux");
        !read.get() && wake_timer.set_for == before
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn wake_timer_is_reset_only_if_it_would_be_late() {
        let poll = mio::Poll::new().expect("a poll");
        let mut wake_timer = WakeTimer::register(poll.registry(), Token(0)).expect("an alarm");
        assert!(!serves(&mut wake_timer, 0, Some(1000)));
        assert!(serves(&mut wake_timer, 10, Some(1000)) && serves(&mut wake_timer, 20, Some(5000)));
        assert!(!serves(&mut wake_timer, 30, Some(500)), "it would be late");
        assert!(serves(&mut wake_timer, 499, Some(500)));
        assert!(!serves(&mut wake_timer, 500, Some(5000)), "it has gone off");
        assert!(
            !serves(&mut wake_timer, 600, None),
            "nobody is to be woken any more"
        );
        assert_eq!(wake_timer.set_for, None);
        assert!(serves(&mut wake_timer, 700, None));
    }
}
