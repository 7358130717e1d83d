//! The limit on the memory of all buffers together, and which connections are closed at it.

use std::cmp::Reverse;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::Engine;
use super::conn::{Conn, LentInbox, Phase};
use super::outbox::{Outbox, Pool, SharedBytes};
use crate::close::CloseReason;
use crate::framing::inbox::Inbox;
use crate::id::ConnId;
use crate::time::Timestamp;

/// When the bound is reached, room is made down to this share of it, so that the search for the
/// largest is worth its while.
const TARGET_NUMERATOR: usize = 7;
const TARGET_DENOMINATOR: usize = 8;

/// Where memory is tight, reading stops with so much queued for a peer already.
pub(super) const PRESSURE_THROTTLE: usize = 4096;

/// Memory held by inboxes and outboxes: what their buffers have room for, and what their segments
/// cost beside it.
pub(super) struct Memory {
    max: usize,
    /// A lower limit, and when it takes the place of `max`.
    next_max: Option<(Timestamp, usize)>,
    inbound: usize,
    outbound: usize,
    shared: Arc<AtomicUsize>,
}

/// A buffer of a connection with write access. When the guard is dropped, the memory limit counts
/// what the buffer holds more or less than before.
pub(super) struct Counted<'a, B: Buffer> {
    buffer: &'a mut B,
    total: &'a mut usize,
    before: usize,
}

/// A buffer that knows how much memory it holds.
pub(super) trait Buffer {
    fn held(&self) -> usize;
}

impl Buffer for Inbox {
    fn held(&self) -> usize {
        Inbox::held(self)
    }
}

impl Buffer for Outbox {
    fn held(&self) -> usize {
        Outbox::held(self)
    }
}

impl<'a, B: Buffer> Counted<'a, B> {
    fn new(buffer: &'a mut B, total: &'a mut usize) -> Self {
        let before = buffer.held();
        Counted {
            buffer,
            total,
            before,
        }
    }
}

impl<B: Buffer> Deref for Counted<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        self.buffer
    }
}

impl<B: Buffer> DerefMut for Counted<'_, B> {
    fn deref_mut(&mut self) -> &mut B {
        self.buffer
    }
}

impl<B: Buffer> Drop for Counted<'_, B> {
    fn drop(&mut self) {
        *self.total = *self.total + self.buffer.held() - self.before;
    }
}

impl Memory {
    /// `None` for no bound.
    pub(super) fn new(max: Option<usize>) -> Self {
        Memory {
            max: max.unwrap_or(usize::MAX),
            next_max: None,
            inbound: 0,
            outbound: 0,
            shared: Arc::default(),
        }
    }

    /// Replaces the limit: at once, or at `at` if more is held than the new one allows.
    pub(super) fn replace_max(&mut self, max: Option<usize>, at: Timestamp) {
        let max = max.unwrap_or(usize::MAX);
        if self.held() <= max {
            (self.max, self.next_max) = (max, None);
        } else {
            self.next_max = Some((at, max));
        }
    }

    /// When [`Engine::handle_memory_limit`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_max.map(|(at, _)| at)
    }

    /// See [`Conn::inbox_mut`].
    pub(super) fn counted_inbox<'a>(&'a mut self, inbox: &'a mut Inbox) -> Counted<'a, Inbox> {
        Counted::new(inbox, &mut self.inbound)
    }

    /// See [`Conn::outbox_mut`].
    pub(super) fn counted_outbox<'a>(&'a mut self, outbox: &'a mut Outbox) -> Counted<'a, Outbox> {
        Counted::new(outbox, &mut self.outbound)
    }

    /// Counts a lent inbox, which was counted with `before`, with `after`.
    pub(super) fn recount(&mut self, before: usize, after: usize) {
        self.inbound = self.inbound + after - before;
    }

    /// Drops an inbox whose connection was closed while it was lent.
    pub(super) fn forget(&mut self, lent: LentInbox) {
        self.recount(lent.counted, 0);
    }

    /// Drops the buffers of a connection that leaves the engine.
    pub(super) fn release(&mut self, mut conn: Conn, pool: &mut Pool) {
        *conn.inbox_mut(self) = Inbox::default();
        conn.outbox_mut(self).clear(pool);
    }

    /// Bytes that several connections will queue, counted once, for as long as any of them does.
    pub(super) fn share(&self, bytes: Vec<u8>) -> Arc<SharedBytes> {
        SharedBytes::new(bytes, Arc::clone(&self.shared))
    }

    pub(super) fn held(&self) -> usize {
        self.inbound + self.queued()
    }

    /// Held by what is to be sent.
    fn queued(&self) -> usize {
        self.outbound + self.shared.load(Relaxed)
    }

    /// Whether what is to be sent holds over half of the limit: what leads to more of it waits.
    pub(super) fn is_under_pressure(&self) -> bool {
        let max = self.next_max.map_or(self.max, |(_, max)| max);
        self.queued() > max / 2
    }

    /// Over three quarters of the limit: what can be flushed is flushed before more is queued.
    pub(super) fn is_short(&self) -> bool {
        !self.has_space_for(0)
    }

    /// Whether this much more stays below three quarters of the limit.
    pub(super) fn has_space_for(&self, bytes: usize) -> bool {
        self.held() + bytes <= self.max / 4 * 3
    }

    /// What broadcasts that are not complete may hold together, unless it is only one.
    pub(super) fn max_pending(&self) -> usize {
        self.max / 4
    }

    fn is_over(&self) -> bool {
        self.held() > self.max
    }

    fn is_below_target(&self) -> bool {
        self.held() <= self.max / TARGET_DENOMINATOR * TARGET_NUMERATOR
    }
}

impl Engine {
    /// Bytes held in all inboxes and outboxes together; what several connections share counts once.
    pub fn buffered(&self) -> usize {
        self.memory.held()
    }

    /// To be called wherever a buffer has grown. If the bound is passed the largest holders are
    /// closed, and what they hold is dropped at once; connections that hold nothing are never
    /// touched.
    #[inline]
    pub(super) fn enforce_memory_limit(&mut self) {
        if self.memory.is_over() {
            self.evict_largest();
        }
    }

    /// Puts a lower limit in force whose time has come.
    pub(super) fn handle_memory_limit(&mut self) {
        if let Some((at, max)) = self.memory.next_max
            && (at <= self.now || self.memory.held() <= max)
        {
            (self.memory.max, self.memory.next_max) = (max, None);
            self.enforce_memory_limit();
        }
    }

    /// Closes the largest holders. First those whose memory is theirs: a queue that the kernel did
    /// not take, bytes that they sent. Only if that is not enough, as when one callback queues more
    /// than the limit, those whose queues are only waiting for this turn's flush.
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
