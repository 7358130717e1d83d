//! A timer that a poll waits for like a socket.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// Makes its token ready at one instant, to within some ten microseconds, and never early.
///
/// The timeout of a poll is rounded up to milliseconds, and costs the kernel a timer set and taken
/// back with each wait; this one is set once (timerfd_create(2)). Elsewhere than on Linux it cannot
/// be set, and a poll's timeout has to do.
pub(crate) struct Alarm {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    timer: std::os::fd::OwnedFd,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Alarm {
    pub(crate) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;

        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        registry.register(
            &mut mio::unix::SourceFd(&timer.as_raw_fd()),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Alarm { timer })
    }

    /// Sets the one instant at which it fires, this long from now, in place of the earlier one;
    /// `None`: never. Pending readiness is cleared.
    pub(crate) fn set(&self, from_now: Option<Duration>) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        // Zero would mean never.
        let wait = from_now.map_or(Duration::ZERO, |wait| wait.max(Duration::from_nanos(1)));
        let it_value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Alarm {
    pub(crate) fn register(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Alarm {})
    }

    pub(crate) fn set(&self, _: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn alarm_fires_at_each_set_instant() {
        let mut poll = mio::Poll::new().expect("a poll");
        let alarm = Alarm::register(poll.registry(), Token(0)).expect("an alarm");
        let mut events = mio::Events::with_capacity(1);
        for wait in [
            Duration::from_micros(2500),
            Duration::ZERO,
            Duration::from_millis(5),
        ] {
            let set = Instant::now();
            alarm.set(Some(wait)).expect("it can be set");
            while events.is_empty() {
                poll.poll(&mut events, Some(Duration::from_secs(30)))
                    .expect("the poll works");
                assert!(events.is_empty() || set.elapsed() >= wait, "too early");
                assert!(set.elapsed() < Duration::from_secs(30), "never");
            }
            events.clear();
        }
        alarm
            .set(Some(Duration::from_millis(20)))
            .expect("it can be set");
        alarm.set(None).expect("it can be silenced");
        poll.poll(&mut events, Some(Duration::from_millis(60)))
            .expect("the poll works");
        assert!(events.is_empty());
    }
}
