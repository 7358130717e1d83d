//! Accounting of the memory of all buffers, against its limits.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::outbox::{Outbox, SharedBytes};
use crate::framing::inbox::Inbox;
use crate::time::Timestamp;

/// When the bound is reached, room is made down to this share of it, so that the search for the
/// largest is worth its while.
const TARGET_NUMERATOR: usize = 7;
const TARGET_DENOMINATOR: usize = 8;

/// Where memory is tight, reading stops with so much queued for a peer already.
pub(super) const PRESSURE_THROTTLE: usize = 4096;

/// Memory held by inboxes and outboxes: the capacity of their buffers and the overhead of their
/// segments.
pub(super) struct Memory {
    max: usize,
    /// A lower limit, and when it takes the place of `max`.
    next_max: Option<(Timestamp, usize)>,
    inbound: usize,
    outbound: usize,
    shared: Arc<AtomicUsize>,
}

/// An inbox that is out of its connection while frames that borrow from it are with the handler. It
/// counts as held until [`Memory::recount`] or [`Memory::forget`].
pub(super) struct LentInbox {
    pub(super) inbox: Inbox,
    counted: usize,
}

impl LentInbox {
    pub(super) fn new(inbox: Inbox) -> Self {
        LentInbox {
            counted: inbox.held(),
            inbox,
        }
    }
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
    /// `None` for no limit.
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

    /// An inbox to be changed.
    pub(super) fn counted_inbox<'a>(&'a mut self, inbox: &'a mut Inbox) -> Counted<'a, Inbox> {
        Counted::new(inbox, &mut self.inbound)
    }

    /// An outbox to be changed.
    pub(super) fn counted_outbox<'a>(&'a mut self, outbox: &'a mut Outbox) -> Counted<'a, Outbox> {
        Counted::new(outbox, &mut self.outbound)
    }

    /// Counts what a lent inbox holds now, and returns it.
    pub(super) fn recount(&mut self, lent: LentInbox) -> Inbox {
        self.inbound = self.inbound + lent.inbox.held() - lent.counted;
        lent.inbox
    }

    /// Drops an inbox whose connection was closed while it was lent.
    pub(super) fn forget(&mut self, lent: LentInbox) {
        self.inbound -= lent.counted;
    }

    /// Bytes that several connections will queue, counted once, for as long as any of them does.
    pub(super) fn share(&self, bytes: Vec<u8>) -> Arc<SharedBytes> {
        SharedBytes::new(bytes, Arc::clone(&self.shared))
    }

    pub(super) fn held(&self) -> usize {
        self.inbound + self.queued()
    }

    /// Held by outboxes.
    fn queued(&self) -> usize {
        self.outbound + self.shared.load(Relaxed)
    }

    /// Whether outboxes hold over half of the limit: then nothing is done that adds to them.
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

    pub(super) fn is_over(&self) -> bool {
        self.held() > self.max
    }

    pub(super) fn is_below_target(&self) -> bool {
        self.held() <= self.max / TARGET_DENOMINATOR * TARGET_NUMERATOR
    }

    /// Applies a lower limit that is due, or that is kept already. Returns whether it did.
    pub(super) fn apply_next_max(&mut self, now: Timestamp) -> bool {
        match self.next_max {
            Some((at, max)) if at <= now || self.held() <= max => {
                (self.max, self.next_max) = (max, None);
                true
            }
            _ => false,
        }
    }
}
