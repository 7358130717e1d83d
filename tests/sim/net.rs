//! TCP as far as a server sees it: bounded buffers, FIN and RST, and readiness reported on edges
//! only, as epoll(7) does.
//!
//! Bytes towards the server are kept. Bytes towards the peer are only counted: the driver's tap has
//! checked them on their way.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

/// All connections ever made, by number; a number is never used again.
#[derive(Default)]
pub struct Net {
    pub now_ms: u64,
    wires: Vec<Wire>,
    /// Connections that have something new for the server's poll, each once.
    edges: VecDeque<usize>,
    /// Connections that the server has not accepted yet.
    backlog: VecDeque<usize>,
    /// Connections with news for their peer.
    pub news: Vec<usize>,
    /// Connections whose peer found the server's receive buffer full, and that have room now.
    pub roomy: Vec<usize>,
}

struct Wire {
    inbound: VecDeque<u8>,
    inbound_capacity: usize,
    /// The peer has more to send than there was room for.
    sender_waits: bool,
    outbound_capacity: usize,
    /// The link between the server's kernel and the peer's; `None`: no link, and no send buffer
    /// either.
    link: Option<Link>,
    /// Bytes that the server has written, that have reached the peer's kernel, and that the peer
    /// has read.
    written: u64,
    arrived: u64,
    received: u64,
    fin: bool,
    reset: bool,
    closed_by_server: bool,
    registered: bool,
    watches_room: bool,
    /// A write took less than it was given for want of room: only then is later room an edge
    /// (`SOCK_NOSPACE`).
    lacked_room: bool,
    on_edge: bool,
    last_arrival_ms: u64,
}

/// A network link of a fixed rate behind a send buffer in the server's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub bytes_per_ms: u64,
    pub send_buffer: usize,
}

/// One event of the server's poll, made of the state at the time of the poll.
pub struct Event {
    pub line: usize,
    pub readable: bool,
    pub writable: bool,
    pub read_closed: bool,
    pub error: bool,
}

/// The peers' side.
impl Net {
    pub fn connect(
        &mut self,
        inbound_capacity: usize,
        outbound_capacity: usize,
        link: Option<Link>,
    ) -> usize {
        self.wires.push(Wire {
            link,
            arrived: 0,
            inbound: VecDeque::new(),
            inbound_capacity,
            sender_waits: false,
            outbound_capacity,
            written: 0,
            received: 0,
            fin: false,
            reset: false,
            closed_by_server: false,
            registered: false,
            watches_room: false,
            lacked_room: false,
            on_edge: false,
            last_arrival_ms: self.now_ms,
        });
        self.backlog.push_back(self.wires.len() - 1);
        self.wires.len() - 1
    }

    /// Delivers as many of the bytes as the server's receive buffer has room for.
    pub fn deliver(&mut self, line: usize, bytes: &[u8]) -> usize {
        let wire = &mut self.wires[line];
        if wire.closed_by_server || wire.reset {
            return bytes.len();
        }
        let n = bytes
            .len()
            .min(wire.inbound_capacity - wire.inbound.len().min(wire.inbound_capacity));
        wire.sender_waits = n == 0 && !bytes.is_empty();
        if n > 0 {
            wire.inbound.extend(&bytes[..n]);
            self.arrived(line);
        }
        n
    }

    pub fn shut(&mut self, line: usize) {
        self.wires[line].fin = true;
        self.arrived(line);
    }

    /// The peer's kernel reports that the connection is gone; bytes on their way to the server are
    /// lost.
    pub fn reset(&mut self, line: usize) {
        let wire = &mut self.wires[line];
        wire.reset = true;
        wire.inbound.clear();
        // No sign of life.
        self.edge(line);
    }

    /// The peer reads at most `max` bytes. Returns how many it has read in all.
    pub fn receive(&mut self, line: usize, max: u64) -> u64 {
        let wire = &mut self.wires[line];
        let n = max.min(wire.arrived - wire.received);
        wire.received += n;
        if n > 0
            && wire.link.is_none()
            && wire.watches_room
            && std::mem::take(&mut wire.lacked_room)
        {
            self.edge(line);
        }
        self.wires[line].received
    }

    pub fn unread_by_peer(&self, line: usize) -> u64 {
        self.wires[line].arrived - self.wires[line].received
    }

    /// Whether a link has something to carry still.
    pub fn is_in_flight(&self, line: usize) -> bool {
        self.wires[line].arrived < self.wires[line].written
    }

    /// For one millisecond, a link carries what the peer's receive buffer has room for.
    pub fn transmit(&mut self, line: usize) {
        let wire = &mut self.wires[line];
        let Some(link) = wire.link else { return };
        let window = wire.received + wire.outbound_capacity as u64 - wire.arrived;
        wire.arrived += link
            .bytes_per_ms
            .min(wire.written - wire.arrived)
            .min(window);
        if wire.watches_room && wire.room() > 0 && std::mem::take(&mut wire.lacked_room) {
            self.edge(line);
        }
    }

    pub fn is_closed_by_server(&self, line: usize) -> bool {
        self.wires[line].closed_by_server
    }

    fn arrived(&mut self, line: usize) {
        self.wires[line].last_arrival_ms = self.now_ms;
        self.edge(line);
    }

    fn edge(&mut self, line: usize) {
        let wire = &mut self.wires[line];
        if wire.registered && !wire.on_edge {
            wire.on_edge = true;
            self.edges.push_back(line);
        }
    }
}

/// The server's side.
impl Net {
    /// Whether a poll would return at once.
    pub fn has_events(&self) -> bool {
        !self.edges.is_empty() || !self.backlog.is_empty()
    }

    pub fn poll(&mut self, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < max
            && let Some(line) = self.edges.pop_front()
        {
            let wire = &mut self.wires[line];
            wire.on_edge = false;
            if wire.registered {
                events.push(Event {
                    line,
                    readable: !wire.inbound.is_empty() || wire.fin || wire.reset,
                    writable: wire.watches_room && (wire.room() > 0 || wire.reset),
                    read_closed: wire.fin || wire.reset,
                    error: wire.reset,
                });
            }
        }
        events
    }

    pub fn accept(&mut self) -> Option<usize> {
        self.backlog.pop_front()
    }

    /// Starts to watch a connection, or changes what is watched; existing readiness is an edge, as
    /// with `EPOLL_CTL_MOD`.
    pub fn watch(&mut self, line: usize, room: bool) {
        let wire = &mut self.wires[line];
        wire.registered = true;
        wire.watches_room = room;
        if !wire.inbound.is_empty() || wire.fin || wire.reset || (room && wire.room() > 0) {
            self.edge(line);
        }
    }

    /// Reads at most `max` bytes, though there may be more. Then more counts as having come just
    /// after: an edge follows.
    pub fn read(&mut self, line: usize, buffer: &mut [u8], max: usize) -> io::Result<usize> {
        let wire = &mut self.wires[line];
        if wire.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let n = wire.inbound.len().min(buffer.len()).min(max);
        let n = io::Read::read(&mut wire.inbound, &mut buffer[..n])?;
        if n > 0 && std::mem::take(&mut wire.sender_waits) {
            self.roomy.push(line);
        }
        if n < buffer.len() && !wire.inbound.is_empty() {
            self.edge(line);
        }
        let wire = &self.wires[line];
        if n == 0 && !(wire.fin && wire.inbound.is_empty()) {
            Err(ErrorKind::WouldBlock.into())
        } else {
            Ok(n)
        }
    }

    /// The result of a peek of one byte.
    pub fn peek(&self, line: usize) -> io::Result<usize> {
        let wire = &self.wires[line];
        match wire.inbound.len() {
            _ if wire.reset => Err(ErrorKind::ConnectionReset.into()),
            0 if !wire.fin => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n.min(1)),
        }
    }

    /// Takes at most `max` bytes, though there may be room for more, and returns those that it
    /// took. Then room counts as having come just after: an edge follows.
    pub fn write(
        &mut self,
        line: usize,
        slices: &[IoSlice<'_>],
        max: usize,
    ) -> io::Result<Vec<u8>> {
        let wire = &mut self.wires[line];
        if wire.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let n = offered.min(max).min(wire.room());
        let mut taken = Vec::with_capacity(offered);
        slices
            .iter()
            .for_each(|slice| taken.extend_from_slice(slice));
        taken.truncate(n);
        wire.written += n as u64;
        if wire.link.is_none() {
            wire.arrived = wire.written;
        }
        if n < offered && wire.watches_room && wire.room() > 0 {
            self.edge(line);
        } else if n < offered {
            wire.lacked_room = true;
        }
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.news.push(line);
        Ok(taken)
    }

    /// Bytes written that the peer's kernel has not acknowledged (`SIOCOUTQ`). Without a link it
    /// acknowledges what its program reads.
    pub fn unacknowledged(&self, line: usize) -> u64 {
        let wire = &self.wires[line];
        let acknowledged = match wire.link {
            Some(_) => wire.arrived,
            None => wire.received,
        };
        wire.written - acknowledged
    }

    pub fn is_reset(&self, line: usize) -> bool {
        self.wires[line].reset
    }

    /// Drops the server's socket: what it wrote still reaches the peer, and then an end.
    pub fn close(&mut self, line: usize) {
        let wire = &mut self.wires[line];
        wire.closed_by_server = true;
        wire.registered = false;
        wire.inbound = VecDeque::new();
        self.news.push(line);
    }

    /// Whether the peer's bytes or FIN wait to be read.
    pub fn has_unread(&self, line: usize) -> bool {
        !self.wires[line].inbound.is_empty() || self.wires[line].fin
    }

    pub fn last_arrival_ms(&self, line: usize) -> u64 {
        self.wires[line].last_arrival_ms
    }
}

impl Wire {
    fn room(&self) -> usize {
        match self.link {
            Some(link) => link.send_buffer - (self.written - self.arrived) as usize,
            None => self.outbound_capacity - (self.written - self.received) as usize,
        }
    }
}
