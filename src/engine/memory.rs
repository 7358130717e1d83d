//! What all buffers hold together, against one bound; and who yields when it is reached.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::Engine;
use super::conn::Phase;
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::outbox::Shared;

/// When the bound is reached, room is made down to this share of it, so that the search for the largest is worth its while.
const ROOM_NUMERATOR: usize = 7;
const ROOM_DENOMINATOR: usize = 8;

/// Where memory is tight, reading stops with so much queued for a peer already.
pub(super) const TIGHT_THROTTLE: usize = 4096;

/// Bytes held in inboxes and outboxes. What the allocator rounds up to is not counted; it can double a buffer that has just grown.
pub(super) struct Memory {
    max: usize,
    own: usize,
    shared: Arc<AtomicUsize>,
}

impl Memory {
    /// `None` for no bound.
    pub(super) fn new(max: Option<usize>) -> Self {
        let mut memory = Memory {
            max: 0,
            own: 0,
            shared: Arc::default(),
        };
        memory.set_max(max);
        memory
    }

    /// Puts another bound in the place of the one there was.
    pub(super) fn set_max(&mut self, max: Option<usize>) {
        self.max = max.unwrap_or(usize::MAX);
    }

    /// The charge of one connection has changed.
    pub(super) fn recount(&mut self, before: usize, after: usize) {
        self.own = self.own + after - before;
    }

    /// Bytes that several connections will queue, counted once, for as long as any of them does.
    pub(super) fn share(&self, bytes: Vec<u8>) -> Arc<Shared> {
        Shared::new(bytes, Arc::clone(&self.shared))
    }

    pub(super) fn held(&self) -> usize {
        self.own + self.shared.load(Relaxed)
    }

    /// Over half of the bound: whoever can wait should.
    pub(super) fn is_tight(&self) -> bool {
        self.held() > self.max / 2
    }

    fn is_over(&self) -> bool {
        self.held() > self.max
    }

    fn has_room(&self) -> bool {
        self.held() <= self.max / ROOM_DENOMINATOR * ROOM_NUMERATOR
    }
}

impl Engine {
    /// Bytes held in all inboxes and outboxes together; what several connections share counts once.
    pub fn buffered(&self) -> usize {
        self.memory.held()
    }

    /// To be called wherever a buffer has grown. If the bound is passed the largest holders are closed, and what they hold is dropped at once;
    /// connections that hold nothing are never touched.
    #[inline]
    pub(super) fn keep_within_memory(&mut self) {
        if self.memory.is_over() {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        let mut holders: Vec<(Reverse<usize>, ConnId)> = self
            .conns
            .iter()
            .filter(|(_, conn)| !matches!(conn.phase, Phase::Closed(_) | Phase::Refused(_)))
            .map(|(slot, conn)| {
                (
                    Reverse(conn.outbox.len() + conn.inbox.held()),
                    ConnId::new(slot, conn.generation),
                )
            })
            .filter(|(Reverse(held), _)| *held > 0)
            .collect();
        holders.sort_unstable();
        for (_, id) in holders {
            if self.memory.has_room() {
                return;
            }
            self.close(id, CloseReason::MemoryLimit);
            if let Some(conn) = self.conns.get_mut(id.slot()) {
                let before = conn.charge();
                conn.outbox.drop_bytes();
                conn.inbox.drop_bytes();
                self.memory.recount(before, conn.charge());
            }
        }
    }
}
