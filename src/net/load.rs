//! What the load harness needs of the operating system: a clock that all its processes share, a
//! timer finer than a poll's timeout, and dials from a chosen source address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Registry, Token};
use rustix::time::{ClockId, Timespec, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};

use super::Alarm;

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same clock in every process of the machine: an
/// instant can be handed to another one.
pub(crate) fn monotonic_ns() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    // Neither is negative: the clock counts from the machine's start, and nanoseconds are a
    // fraction of a second.
    tv_sec.unsigned_abs() * 1_000_000_000 + tv_nsec.unsigned_abs()
}

/// Begins to connect, without waiting, from `source` if one is given, which had better have a port:
/// for port 0 the kernel searches one, and that takes it milliseconds when half of them are in use.
pub(crate) fn dial_from(
    source: Option<SocketAddr>,
    addr: SocketAddr,
) -> io::Result<mio::net::TcpStream> {
    let Some(source) = source else {
        let stream = mio::net::TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        return Ok(stream);
    };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&source.into())?;
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

/// Wakes a poll at an instant of [`monotonic_ns`]. A poll's timeout is rounded up to milliseconds,
/// which would be most of the latency that there is to measure.
pub(crate) struct PreciseTimer {
    alarm: Alarm,
    armed_ns: Option<u64>,
}

impl PreciseTimer {
    pub(crate) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(PreciseTimer {
            alarm: Alarm::register(registry, token)?,
            armed_ns: None,
        })
    }

    /// Sets the one instant at which to wake. One in the past wakes at once. Where there is no such
    /// timer, the poll's timeout has to do.
    pub(crate) fn arm(&mut self, at_ns: u64) -> io::Result<()> {
        if self.armed_ns == Some(at_ns) {
            return Ok(());
        }
        self.armed_ns = Some(at_ns);
        match self.alarm.set(Some(Duration::from_nanos(
            at_ns.saturating_sub(monotonic_ns()),
        ))) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _ => Ok(()),
        }
    }

    /// To be called when the poll names its token.
    pub(crate) fn handle_event(&mut self) {
        self.armed_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precise_timer_wakes_at_its_instant() {
        let mut poll = mio::Poll::new().expect("a poll");
        let mut timer = PreciseTimer::register(poll.registry(), Token(0)).expect("a timer");
        let mut events = mio::Events::with_capacity(1);
        let due_ns = monotonic_ns() + 2_500_000;
        timer.arm(due_ns).expect("it can be armed");
        while monotonic_ns() < due_ns {
            let left = Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()))
                + Duration::from_secs(1);
            poll.poll(&mut events, Some(left)).expect("the poll works");
            assert!(events.is_empty() || monotonic_ns() >= due_ns, "too early");
        }
    }

    #[test]
    fn dial_uses_the_given_source_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let source: SocketAddr = "127.0.0.3:0".parse().expect("an address");
        let _stream =
            dial_from(Some(source), listener.local_addr().expect("bound")).expect("a dial");
        assert_eq!(listener.accept().expect("a connection").1.ip(), source.ip());
    }
}
