//! Which connections are closed at the memory limit.

use std::cmp::Reverse;

use super::Engine;
use super::conn::Phase;
use crate::close::CloseReason;
use crate::id::ConnId;

impl Engine {
    /// Bytes held in all inboxes and outboxes together; what several connections share counts once.
    pub fn buffered(&self) -> usize {
        self.memory.held()
    }

    /// To be called wherever a buffer has grown. At the limit the largest holders are closed, and
    /// what they hold is dropped at once; connections that hold nothing are never touched.
    #[inline]
    pub(super) fn enforce_memory_limit(&mut self) {
        if self.memory.is_over() {
            self.evict_largest();
        }
    }

    /// Applies a lower limit that is due.
    pub(super) fn handle_memory_limit(&mut self) {
        if self.memory.apply_next_max(self.now) {
            self.enforce_memory_limit();
        }
    }

    /// Closes the largest holders. First those that hold a queue that the kernel did not take, or
    /// bytes that they sent. Only if that is not enough, as when one callback queues more than the
    /// limit, those whose queues only wait for this turn's flush.
    #[cold]
    fn evict_largest(&mut self) {
        for index in 0..self.closed.len() {
            self.drop_bytes(self.closed[index]);
        }
        let mut holders: Vec<(bool, Reverse<usize>, ConnId)> = self
            .conns
            .iter()
            .filter(|(_, conn)| !matches!(conn.phase, Phase::Closed(_) | Phase::Refused(_)))
            .map(|(slot, conn)| {
                let waits_for_flush = !conn.is_blocked() && conn.inbox().held() == 0;
                (
                    waits_for_flush,
                    Reverse(conn.outbox().len() + conn.inbox().held()),
                    ConnId::new(slot, conn.generation),
                )
            })
            .filter(|(_, Reverse(held), _)| *held > 0)
            .collect();
        holders.sort_unstable();
        for (_, _, id) in holders {
            if self.memory.is_below_target() {
                return;
            }
            self.close(id, CloseReason::MemoryLimit);
            self.drop_bytes(id);
        }
    }

    /// Drops what a closed connection still holds.
    fn drop_bytes(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.slot()) {
            conn.outbox_mut(&mut self.memory).drop_bytes();
            conn.inbox_mut(&mut self.memory).drop_bytes();
        }
    }
}
