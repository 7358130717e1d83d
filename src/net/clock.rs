//! The clocks of the operating system.

use std::time::Instant;

use crate::time::Millis;

/// Monotonic time since the clock was made (`CLOCK_MONOTONIC` on Linux: it stands still while the machine is suspended).
pub(crate) struct MonotonicClock(Instant);

impl MonotonicClock {
    pub(crate) fn start() -> Self {
        MonotonicClock(Instant::now())
    }

    pub(crate) fn now(&self) -> Millis {
        Millis::from_ms(u64::try_from(self.0.elapsed().as_millis()).expect("584 million years of uptime"))
    }
}

/// How long the machine was suspended: the distance between boot time, which goes on during suspension, and monotonic time, which does not.
pub(crate) struct SuspendClock;

impl SuspendClock {
    /// Milliseconds that the machine has spent suspended since it booted. Only ever grows; 0 where the system keeps no boot time.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn suspended_ms() -> u64 {
        use rustix::time::{ClockId, Timespec, clock_gettime};
        let ms = |time: Timespec| time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
        let boot = ms(clock_gettime(ClockId::Boottime));
        let monotonic = ms(clock_gettime(ClockId::Monotonic));
        u64::try_from(boot - monotonic).unwrap_or(0)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn suspended_ms() -> u64 {
        0
    }
}
