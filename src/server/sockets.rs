//! The sockets, by slot, and the list of those to read again.

use std::collections::VecDeque;

use mio::net::TcpStream;

use crate::id::ConnId;

/// The socket of each connection, beside the engine's slab and by the same slot: the engine itself
/// knows no descriptor.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<TcpStream>>);

impl Sockets {
    pub(super) fn insert(&mut self, id: ConnId, stream: TcpStream) {
        if self.0.len() <= id.slot() {
            self.0.resize_with(id.slot() + 1, || None);
        }
        self.0[id.slot()] = Some(stream);
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut TcpStream> {
        self.0.get_mut(id.slot())?.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<TcpStream> {
        self.0.get_mut(id.slot())?.take()
    }
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadUntil {
    /// Until a read returns less than it could: the socket was empty then, and whatever comes later
    /// brings an event of its own (epoll(7), "Possible pitfalls"). It saves the second read that
    /// nearly always would block.
    Short,
    /// Until a read would block: where the event spoke of an end that only another read finds, and
    /// where the event is long past.
    WouldBlock,
}

/// Connections to read again without an event, in order, each once.
#[derive(Default)]
pub(super) struct ReadySet {
    queue: VecDeque<ConnId>,
    /// One bit per slot.
    queued: Vec<u64>,
}

impl ReadySet {
    pub(super) fn insert(&mut self, id: ConnId) {
        let (word, bit) = place(id);
        if self.queued.len() <= word {
            self.queued.resize(word + 1, 0);
        }
        if self.queued[word] & bit == 0 {
            self.queued[word] |= bit;
            self.queue.push_back(id);
        }
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        let (word, bit) = place(id);
        self.queued.get(word).is_some_and(|bits| bits & bit != 0)
    }

    pub(super) fn pop(&mut self) -> Option<ConnId> {
        let id = self.queue.pop_front()?;
        let (word, bit) = place(id);
        self.queued[word] &= !bit;
        Some(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn place(id: ConnId) -> (usize, u64) {
    (id.slot() / 64, 1 << (id.slot() % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_queued_once() {
        let mut ready = ReadySet::default();
        let (a, b) = (ConnId::new(1, 1), ConnId::new(100, 2));
        for id in [a, b, a] {
            ready.insert(id);
        }
        assert_eq!(
            (
                ready.queue.len(),
                ready.pop(),
                ready.contains(a),
                ready.contains(b)
            ),
            (2, Some(a), false, true)
        );
        ready.insert(a);
        assert_eq!(
            (ready.pop(), ready.pop(), ready.pop()),
            (Some(b), Some(a), None)
        );
    }
}
