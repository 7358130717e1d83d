//! The client's one socket: edge-triggered readiness kept as two flags, and the addresses of the
//! dial in progress.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::vec;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::error::ConfigError;
use crate::net::{self, HostPort, SocketOptions};

/// A socket, from its dial on. Dropping it closes it.
pub(super) struct Link {
    stream: TcpStream,
    /// No other socket of this client has or had it, so an event of an older one cannot be taken
    /// for one of this.
    token: Token,
    addr: SocketAddr,
    established: bool,
    /// Whether a read may find something: mio is edge-triggered and reports once until a read would
    /// block.
    pub(super) readable: bool,
    /// The same for writes.
    pub(super) writable: bool,
    /// An event announced the end of stream. No further event does, so reading goes on until it is
    /// reached.
    end_in_sight: bool,
    watching_writes: bool,
    /// The writing side was shut.
    has_shut: bool,
}

/// The result of a read.
pub(super) enum LinkRead {
    Bytes(usize),
    Nothing,
    End,
}

impl Link {
    /// Begins to dial, without waiting.
    pub(super) fn dial(
        addr: SocketAddr,
        options: &SocketOptions,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut stream = net::dial(addr, options)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link {
            stream,
            token,
            addr,
            established: false,
            readable: false,
            writable: false,
            end_in_sight: false,
            watching_writes: true,
            has_shut: false,
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// Notes an event of the poll if it belongs to this socket.
    pub(super) fn handle_event(&mut self, event: &Event) {
        if event.token() != self.token {
            return;
        }
        // The error of a socket is found by reading it.
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.end_in_sight |= event.is_read_closed() || event.is_error();
    }

    /// Whether the dial is over, and how it went. `Ok(false)`: not yet.
    pub(super) fn finish_dial(&mut self) -> io::Result<bool> {
        if !self.writable {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(peer) if self.stream.local_addr()? == peer => {
                // TCP's simultaneous open: without a listener on a port of the ephemeral range,
                // a dial may connect to itself.
                Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the dial connected to itself: no server is listening there",
                ))
            }
            Ok(_) => {
                self.established = true;
                // Bytes may have come with the handshake; a read that would block costs little.
                self.readable = true;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.writable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// One read.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<LinkRead> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(LinkRead::End),
                Ok(n) => {
                    // A short read has emptied the socket, and later bytes raise a new event,
                    // unless an end of stream was announced.
                    self.readable = n == buffer.len() || self.end_in_sight;
                    return Ok(LinkRead::Bytes(n));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (self.readable, self.end_in_sight) = (false, false);
                    return Ok(LinkRead::Nothing);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One vectored write. Returns how much the kernel took; less than `total` means that it has no
    /// more room.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], total: usize) -> io::Result<usize> {
        loop {
            match self.stream.write_vectored(slices) {
                Ok(n) => {
                    self.writable = n == total;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for writability events only while something is queued: otherwise each acknowledgement
    /// would wake the loop.
    pub(super) fn watch_writes(&mut self, watch: bool, registry: &Registry) -> io::Result<()> {
        if watch != self.watching_writes {
            let interest = if watch {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            registry.reregister(&mut self.stream, self.token, interest)?;
            self.watching_writes = watch;
        }
        Ok(())
    }

    /// Bytes that the server has not acknowledged; `None` where the system does not report it.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        let bytes = net::unacknowledged_bytes(&self.stream)? as u64;
        // The client's FIN counts as a byte.
        Some(bytes.saturating_sub(u64::from(self.has_shut)))
    }

    /// Whether bytes, or the end, wait to be read.
    pub(super) fn has_unread(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok()
    }

    pub(super) fn shut_write(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.has_shut = true;
        Ok(())
    }
}

/// The addresses of one try that were not dialled yet.
#[derive(Default)]
pub(super) struct Addresses(vec::IntoIter<SocketAddr>);

impl Addresses {
    /// Looks `addr` up. Blocks on a name server if it is a name.
    pub(super) fn resolve(addr: &str) -> io::Result<Self> {
        let parsed = HostPort::parse(addr).map_err(io::Error::other)?;
        Ok(Addresses(parsed.resolve()?.into_iter()))
    }

    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        self.0.next()
    }
}

/// Checks that `addr` is a host and a port. Whether the host exists is found out at each dial.
pub(super) fn check_addr(addr: &str) -> Result<(), ConfigError> {
    let problem = match HostPort::parse(addr) {
        Ok(HostPort { port: 0, .. }) => {
            format!("{addr:?} has port 0, on which no server can listen")
        }
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(ConfigError::new("addr", problem))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn events_of_an_earlier_socket_are_ignored() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        let (addr, options) = (
            listener.local_addr().expect("bound"),
            SocketOptions {
                keepalive: None,
                user_timeout: None,
            },
        );
        let mut poll = Poll::new().expect("a poll");
        let dial = |token| {
            let link = Link::dial(addr, &options, poll.registry(), Token(token)).expect("dials");
            (link, listener.accept().expect("the link").0)
        };
        let ((mut old, mut old_peer), (mut new, _new_peer)) = (dial(7), dial(8));
        old_peer.write_all(b"pong\n").expect("the link reads");
        let mut events = Events::with_capacity(8);
        while !(old.readable && new.writable) {
            poll.poll(&mut events, Some(DEADLINE))
                .expect("the poll works");
            assert!(!events.is_empty(), "waited in vain");
            for event in &events {
                old.handle_event(event);
                new.handle_event(event);
            }
        }
        assert!(!new.readable, "the pong is the old line's");
    }

    #[test]
    fn address_needs_host_and_port() {
        for good in [
            "127.0.0.1:1",
            "[::1]:65535",
            "localhost:7878",
            "no.such.name:80",
        ] {
            assert_eq!(check_addr(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "localhost:",
            ":80",
            "::1",
            "::1:80",
            "[::1]",
            "host:0",
            "host:65536",
            "host:+80",
            "host:http",
        ] {
            assert_eq!(check_addr(bad).expect_err(bad).field, "addr");
        }
    }
}
