//! Listening sockets: batched accepts, and what to do when there are no descriptors left.

use std::fs::File;
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::error::{ConfigError, Error};
use crate::net::SocketOptions;
use crate::time::Timestamp;

/// How long accepting pauses after the system had no descriptor or no memory: nothing frees up
/// faster than that, and retrying in a loop would delay the connected peers.
const PAUSE_MS: u64 = 100;

pub(super) const MAX_LISTENERS: usize = 64;

pub(super) fn check_listeners(number: usize) -> Result<(), ConfigError> {
    if (1..=MAX_LISTENERS).contains(&number) {
        Ok(())
    } else {
        Err(ConfigError::new(
            "addr",
            format!("must be 1 to {MAX_LISTENERS} addresses, not {number}"),
        ))
    }
}

/// Fails if `addrs` are too many, or if two of them conflict (`EADDRINUSE`).
#[cfg(feature = "cli")]
pub(crate) fn check_addrs(addrs: &[SocketAddr]) -> Result<(), ConfigError> {
    check_listeners(addrs.len())?;
    for (index, addr) in addrs.iter().enumerate() {
        if addrs[..index].contains(addr) && addr.port() != 0 {
            return Err(ConfigError::new("addr", format!("{addr} is given twice")));
        }
        if let Some(other) = addrs.iter().find(|other| covers(other, addr)) {
            let problem = format!("{addr} is part of {other}; leave one of them out");
            return Err(ConfigError::new("addr", problem));
        }
    }
    Ok(())
}

/// Whether `all` is the unspecified address of the same family and port.
#[cfg(feature = "cli")]
pub(crate) fn covers(all: &SocketAddr, addr: &SocketAddr) -> bool {
    all.port() == addr.port()
        && addr.port() != 0
        && all.is_ipv4() == addr.is_ipv4()
        && all.ip().is_unspecified()
        && !addr.ip().is_unspecified()
}

/// All listening sockets of a server, and the descriptor in reserve.
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// Closed for a moment when descriptors have run out, to accept a peer and close it at once
    /// rather than leave it hanging.
    spare: Option<File>,
    paused_until: Option<Timestamp>,
}

struct Listener {
    socket: TcpListener,
    /// Its queue may hold more: the edge has been consumed, or a budget ran out.
    pending: bool,
}

/// What an attempt to accept came to.
pub(super) enum Accepted {
    Stream(TcpStream, SocketAddr),
    /// Accepted and closed at once, because no descriptor was left.
    Refused(SocketAddr),
    /// Accepting rests for a while; this is why.
    Paused(io::Error),
    /// No connection is waiting.
    Nobody,
}

impl Listeners {
    pub(super) fn new(sockets: Vec<TcpListener>) -> Self {
        let listeners = sockets
            .into_iter()
            .map(|socket| Listener {
                socket,
                pending: true,
            })
            .collect();
        Listeners {
            listeners,
            spare: spare(),
            paused_until: None,
        }
    }

    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
    ) -> Result<(), Error> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            registry
                .register(&mut listener.socket, token(index), Interest::READABLE)
                .map_err(Error::io("poll a listening socket"))?;
        }
        Ok(())
    }

    /// Sets options that the connections accepted from now on inherit.
    pub(super) fn apply(&self, options: &SocketOptions) -> Result<(), Error> {
        let set = |listener: &Listener| {
            options
                .apply_to_listener(&listener.socket)
                .map_err(Error::io("set the options of a listening socket"))
        };
        self.listeners.iter().try_for_each(set)
    }

    pub(super) fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners
            .iter()
            .filter_map(|listener| listener.socket.local_addr().ok())
    }

    pub(super) fn handle_readable(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.pending = true;
        }
    }

    /// Accepts the next peer, of whichever listener has one.
    pub(super) fn accept(&mut self, now: Timestamp) -> Accepted {
        if self.paused_until.is_some_and(|until| now < until) {
            return Accepted::Nobody;
        }
        self.paused_until = None;
        if self.spare.is_none() {
            self.spare = spare();
        }
        while let Some(listener) = self.listeners.iter_mut().find(|listener| listener.pending) {
            match listener.socket.accept() {
                Ok((stream, peer)) => return Accepted::Stream(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.pending = false,
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => return self.handle_exhaustion(now, error),
            }
        }
        Accepted::Nobody
    }

    /// Out of descriptors or of memory: rejects one peer with the descriptor in reserve, or pauses.
    fn handle_exhaustion(&mut self, now: Timestamp, error: io::Error) -> Accepted {
        if self.spare.take().is_some()
            && let Some(listener) = self.listeners.iter_mut().find(|listener| listener.pending)
        {
            let turned_away = listener.socket.accept();
            // accept(2) takes a descriptor before it reads the queue: only now is the queue known
            // to be empty.
            let nobody = turned_away
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if nobody {
                listener.pending = false;
            }
            let peer = turned_away.map(|(_, peer)| peer);
            self.spare = spare();
            match peer {
                Ok(peer) => return Accepted::Refused(peer),
                Err(_) if nobody => return Accepted::Nobody,
                Err(_) => {}
            }
        }
        self.paused_until = Some(now.plus_ms(PAUSE_MS));
        Accepted::Paused(error)
    }

    /// Whether a connection may be waiting.
    pub(super) fn is_pending(&self) -> bool {
        self.paused_until.is_none() && self.listeners.iter().any(|listener| listener.pending)
    }

    /// When accepting begins again, if it rests.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.paused_until
    }

    /// Accepts from every listener again, whatever its last event was.
    pub(super) fn mark_all_pending(&mut self) {
        self.paused_until = None;
        self.listeners
            .iter_mut()
            .for_each(|listener| listener.pending = true);
    }

    /// Stops listening. Peers that the kernel has not handed over yet are reset by it.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.spare = None;
        self.paused_until = None;
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Errors of one connection that died in the queue, and interruptions: the next accept may succeed
/// (accept(2), "Error handling").
fn concerns_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        Interrupted
            | ConnectionAborted
            | ConnectionReset
            | NetworkDown
            | HostUnreachable
            | NetworkUnreachable
            | TimedOut
            | Unsupported
    ) || error.raw_os_error() == Some(rustix::io::Errno::PROTO.raw_os_error())
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn listeners() -> Listeners {
        let socket =
            TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("a listener");
        Listeners::new(vec![socket])
    }

    /// accept(2), "Errors": which errors concern the system, and which only the one peer in the
    /// queue.
    #[test]
    fn accept_errors_of_one_peer_differ_from_system_errors() {
        let concerns =
            |errno: Errno| concerns_one_peer(&io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [
            Errno::CONNABORTED,
            Errno::INTR,
            Errno::PROTO,
            Errno::NETDOWN,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
        ] {
            assert!(concerns(errno), "{errno:?}: the next accept may succeed");
        }
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::PERM,
        ] {
            assert!(
                !concerns(errno),
                "{errno:?}: trying again at once would spin"
            );
        }
    }

    #[test]
    fn accepting_pauses_without_a_reserve_descriptor() {
        for errno in [Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let mut listeners = listeners();
            listeners.spare = None;
            let now = Timestamp::from_ms(1000);
            let paused = listeners
                .handle_exhaustion(now, io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(paused, Accepted::Paused(_)), "{errno:?}");
            assert!(!listeners.is_pending(), "the loop may sleep");
            assert_eq!(listeners.poll_timeout(), Some(now.plus_ms(PAUSE_MS)));
            assert!(
                matches!(listeners.accept(now.plus_ms(1)), Accepted::Nobody)
                    && listeners.poll_timeout().is_some()
            );
            assert!(matches!(
                listeners.accept(now.plus_ms(PAUSE_MS)),
                Accepted::Nobody
            ));
            assert_eq!(listeners.poll_timeout(), None, "it has tried again");
        }
    }

    #[test]
    fn reserve_descriptor_rejects_instead_of_hanging() {
        let mut listeners = listeners();
        let addr = listeners.local_addrs().next().expect("bound");
        let dialled = std::net::TcpStream::connect(addr).expect("a dial");
        let error = || io::Error::from_raw_os_error(Errno::NFILE.raw_os_error());
        let refused = listeners.handle_exhaustion(Timestamp::ZERO, error());
        assert!(
            matches!(refused, Accepted::Refused(peer) if Some(peer) == dialled.local_addr().ok())
        );
        assert!(listeners.spare.is_some(), "and the reserve is there again");
        assert!(
            matches!(
                listeners.handle_exhaustion(Timestamp::ZERO, error()),
                Accepted::Nobody
            ),
            "nobody waits: no reason to rest"
        );
    }
}
