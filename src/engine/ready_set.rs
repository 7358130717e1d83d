//! The list of connections that a driver reads again.

use std::collections::VecDeque;

use crate::id::ConnId;

/// Connections to read again without an event, in order, each once.
#[derive(Debug, Default)]
pub struct ReadySet {
    queue: VecDeque<ConnId>,
    /// One bit per slot.
    queued: Vec<u64>,
}

impl ReadySet {
    /// Adds a connection, if its slot is not there yet.
    pub fn insert(&mut self, id: ConnId) {
        let (word, bit) = place(id);
        if self.queued.len() <= word {
            self.queued.resize(word + 1, 0);
        }
        if self.queued[word] & bit == 0 {
            self.queued[word] |= bit;
            self.queue.push_back(id);
        }
    }

    /// Whether the connection's slot is there.
    pub fn contains(&self, id: ConnId) -> bool {
        let (word, bit) = place(id);
        self.queued.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes the connection that has waited for longest.
    pub fn pop(&mut self) -> Option<ConnId> {
        let id = self.queue.pop_front()?;
        let (word, bit) = place(id);
        self.queued[word] &= !bit;
        Some(id)
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
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
