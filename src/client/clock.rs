//! The client's view of time: awake time, and whether the machine slept.

use crate::net::{MonotonicClock, SuspendClock};
use crate::time::{AwakeClock, Timestamp};

/// A shorter distance between boot time and monotonic time is drift of their readings, or a nap
/// that no peer and no NAT noticed.
const MIN_SUSPENSION_MS: u64 = 1000;

/// Reads the clocks, given how long the driver meant to wait between two readings.
pub(super) struct Clock {
    monotonic: MonotonicClock,
    awake: AwakeClock,
    raw: Timestamp,
    now: Timestamp,
    suspended_ms: u64,
}

impl Clock {
    /// Gaps of more than `stall_ms` are taken out of awake time.
    pub(super) fn start(stall_ms: u64) -> Self {
        Clock {
            monotonic: MonotonicClock::start(),
            awake: AwakeClock::new(stall_ms),
            raw: Timestamp::ZERO,
            now: Timestamp::ZERO,
            suspended_ms: SuspendClock::suspended_ms(),
        }
    }

    /// Another threshold for [`Clock::start`].
    pub(super) fn set_stall_ms(&mut self, stall_ms: u64) {
        self.awake.set_threshold_ms(stall_ms);
    }

    /// Awake time. `waited_ms` as for [`AwakeClock::read`].
    pub(super) fn read(&mut self, waited_ms: Option<u64>) -> Timestamp {
        self.raw = self.monotonic.now();
        self.now = self.awake.read(self.raw, waited_ms);
        self.now
    }

    /// Awake time at the last reading.
    pub(super) fn last(&self) -> Timestamp {
        self.now
    }

    /// Milliseconds since the last reading.
    pub(super) fn since_last_ms(&self) -> u64 {
        self.monotonic.now().ms_since(self.raw)
    }

    /// Whether the machine was suspended since the last call.
    pub(super) fn was_suspended(&mut self) -> bool {
        let before = std::mem::replace(&mut self.suspended_ms, SuspendClock::suspended_ms());
        self.suspended_ms.saturating_sub(before) >= MIN_SUSPENSION_MS
    }
}
