//! The clocks of the operating system.

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::time::Timestamp;

/// Monotonic time since the clock was made (`CLOCK_MONOTONIC` on Linux: it stands still while the
/// machine is suspended).
pub(crate) struct MonotonicClock(Instant);

impl MonotonicClock {
    pub(crate) fn start() -> Self {
        MonotonicClock(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_duration(self.elapsed())
    }
}

/// How long the machine was suspended: the difference between boot time, which counts suspension,
/// and monotonic time, which does not.
pub(crate) struct SuspendClock;

impl SuspendClock {
    /// Milliseconds that the machine has spent suspended since it booted. Only ever grows; 0 where
    /// the system keeps no boot time.
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

/// Wakes a poll when the machine resumes from suspension, which a poll timeout does not: it counts
/// monotonic time, and sleeps on.
///
/// On Linux it is a timer on the wall clock that never expires but is cancelled, and thereby
/// readable, whenever that clock jumps; the kernel counts a resume as such a jump
/// (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`). Other jumps wake too; the client then checks
/// [`SuspendClock`]. Elsewhere it does nothing, and a resume is noticed at the next wake-up.
pub(crate) struct ResumeAlarm {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    timer: std::os::fd::OwnedFd,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl ResumeAlarm {
    pub(crate) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        };
        use std::os::fd::AsRawFd;

        let timer = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let never = Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: never,
        };
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET,
            &once,
        )?;
        registry.register(
            &mut mio::unix::SourceFd(&timer.as_raw_fd()),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(ResumeAlarm { timer })
    }

    /// Makes ready for the next resume.
    pub(crate) fn rearm(&self) {
        // The read fails with ECANCELED, and there is no more information.
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl ResumeAlarm {
    pub(crate) fn register(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(ResumeAlarm {})
    }

    pub(crate) fn rearm(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it wakes on a resume takes a machine that can be suspended.
    #[test]
    fn resume_alarm_is_silent_without_a_clock_jump() {
        let mut poll = mio::Poll::new().expect("a poll");
        let alarm = ResumeAlarm::register(poll.registry(), Token(0)).expect("an alarm");
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_millis(50)))
            .expect("the poll works");
        assert!(events.is_empty());
        alarm.rearm();
    }
}
