//! Time as an argument: instants in milliseconds, and the clock that forgives a process its own
//! sleep.
//!
//! Nothing here reads a clock. The drivers read the monotonic clock (`CLOCK_MONOTONIC`; a changed
//! wall clock changes nothing) and hand it in; the simulation hands in whatever it likes.

use std::fmt;
use std::time::Duration;

/// An instant: whole milliseconds since the driver started, on a monotonic clock, rounded down.
///
/// Because it is rounded down, a timestamp may be up to 1 ms before its event. A promise "not
/// earlier than" adds that millisecond (see `engine::liveness`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant at which the driver started.
    pub const ZERO: Timestamp = Timestamp(0);

    /// The instant `ms` milliseconds after the start.
    pub const fn from_ms(ms: u64) -> Self {
        Timestamp(ms)
    }

    /// The instant `since_start` after the start, rounded down.
    pub const fn from_duration(since_start: Duration) -> Self {
        Timestamp(since_start.as_secs() * 1000 + since_start.subsec_millis() as u64)
    }

    /// Milliseconds since the start.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This instant moved `ms` milliseconds into the future, at most to the end of time.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; 0 when `earlier` is in fact later.
    pub const fn ms_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// The whole milliseconds of a duration, rounded up, so that a wait is never cut short; at most
/// `u64::MAX`.
pub fn duration_to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Monotonic time without the spells in which this process was not running.
///
/// A process that is stopped by SIGSTOP, a paused virtual machine, or a handler that blocks for
/// seconds receives nothing meanwhile, so the silence of its peers proves nothing. A gap between
/// two readings that is longer than the requested wait, by more than `threshold_ms`, is a *stall*,
/// and stalls are taken out of the time that the engine sees. All deadlines move with it: a dead
/// peer is found later by the length of the stall, and no live peer is closed because of it.
///
/// Lag below the threshold is left in: it delays verdicts, and cannot cause one, because a verdict
/// also needs pings that were sent and a final read of the socket.
#[derive(Clone, Debug)]
pub struct AwakeClock {
    threshold_ms: u64,
    last_raw: Timestamp,
    stalled_ms: u64,
    stalls: u64,
}

impl AwakeClock {
    /// A clock at zero that takes out gaps of more than `threshold_ms` beyond the requested wait.
    pub fn new(threshold_ms: u64) -> Self {
        AwakeClock {
            threshold_ms,
            last_raw: Timestamp::ZERO,
            stalled_ms: 0,
            stalls: 0,
        }
    }

    /// Forgives gaps of more than this from now on.
    pub fn set_threshold_ms(&mut self, threshold_ms: u64) {
        self.threshold_ms = threshold_ms;
    }

    /// Takes a reading of the monotonic clock and returns the awake time.
    ///
    /// `waited_ms` is the longest wait that the driver requested since the last reading: 0 inside a
    /// turn, the poll timeout after a poll, `None` for an endless wait (then a gap cannot be told
    /// from the wait, and none is taken out; with nothing on the timer wheel there is no verdict
    /// either). A reading before the previous one counts as equal to it.
    pub fn read(&mut self, raw: Timestamp, waited_ms: Option<u64>) -> Timestamp {
        let raw = raw.max(self.last_raw);
        if let Some(waited_ms) = waited_ms {
            let lag_ms = raw.ms_since(self.last_raw).saturating_sub(waited_ms);
            if lag_ms > self.threshold_ms {
                self.stalled_ms += lag_ms;
                self.stalls += 1;
            }
        }
        self.last_raw = raw;
        Timestamp(raw.0 - self.stalled_ms)
    }

    /// Total length of all stalls so far, in milliseconds.
    pub fn stalled_ms(&self) -> u64 {
        self.stalled_ms
    }

    /// Number of stalls so far.
    pub fn stalls(&self) -> u64 {
        self.stalls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_up_so_a_wait_is_never_short() {
        assert_eq!(duration_to_ms(Duration::from_micros(1)), 1);
        assert_eq!(duration_to_ms(Duration::from_millis(7)), 7);
        assert_eq!(duration_to_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn stall_is_taken_out_of_awake_time() {
        let mut clock = AwakeClock::new(500);
        assert_eq!(clock.read(Timestamp(1000), Some(1000)), Timestamp(1000));
        assert_eq!(clock.read(Timestamp(9100), Some(100)), Timestamp(1100));
        assert_eq!((clock.stalls(), clock.stalled_ms()), (1, 8000));
        assert_eq!(clock.read(Timestamp(9200), Some(100)), Timestamp(1200));
    }

    #[test]
    fn lag_below_the_threshold_and_endless_waits_are_no_stall() {
        let mut clock = AwakeClock::new(500);
        assert_eq!(clock.read(Timestamp(600), Some(100)), Timestamp(600));
        assert_eq!(clock.read(Timestamp(60_000), None), Timestamp(60_000));
        assert_eq!(clock.stalls(), 0);
    }

    #[test]
    fn awake_time_never_runs_backwards() {
        let mut clock = AwakeClock::new(10);
        clock.read(Timestamp(100), Some(100));
        assert_eq!(clock.read(Timestamp(40), Some(0)), Timestamp(100));
    }
}
