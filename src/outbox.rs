//! The write queue of one connection: bytes in order, some of its own, some shared with others. Drained means no heap at all.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::time::Millis;

/// Own bytes are gathered up to this size before a new segment is begun. Small enough that a queue which drains slowly gives its
/// memory back piece by piece, large enough that one `writev` of a few segments fills any socket buffer.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Bytes queued for one connection and not yet taken by the kernel.
///
/// Invariants: `len` is the number of unsent bytes; no segment is empty but a recycled first one; a drained outbox owns no heap.
/// The outbox does not know its bound: whoever appends checks it first (see `Engine::send`).
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that were sent already.
    sent: usize,
    len: usize,
    /// When the kernel last took something, or found that it had no room.
    moved_at: Millis,
}

#[derive(Debug)]
enum Segment {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Own(bytes) => bytes,
            Segment::Shared(bytes) => bytes,
        }
    }
}

impl Outbox {
    /// Unsent bytes.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len)
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the queue last moved, if [`Outbox::set_moved_at`] was told; `None` if it is empty.
    pub fn moved_at(&self) -> Option<Millis> {
        self.0.as_ref().map(|queue| queue.moved_at)
    }

    /// Says that the queue has moved, or has begun to wait. Without one, it does nothing.
    pub fn set_moved_at(&mut self, now: Millis) {
        if let Some(queue) = &mut self.0 {
            queue.moved_at = now;
        }
    }

    /// Appends what `fill` adds to the buffer it is given. `fill` may only add.
    pub fn append(&mut self, pool: &mut Pool, fill: impl FnOnce(&mut Vec<u8>)) {
        let queue = self.0.get_or_insert_with(|| pool.take());
        let tail = match queue.segments.back_mut() {
            Some(Segment::Own(tail)) if tail.len() < SEGMENT_BYTES => tail,
            _ => {
                queue.segments.push_back(Segment::Own(Vec::new()));
                match queue.segments.back_mut() {
                    Some(Segment::Own(tail)) => tail,
                    _ => unreachable!("an own segment was pushed just now"),
                }
            }
        };
        let before = tail.len();
        fill(tail);
        queue.len += tail.len() - before;
        self.settle(pool);
    }

    /// Appends bytes that other connections queue as well, without copying them.
    pub fn append_shared(&mut self, pool: &mut Pool, bytes: &Arc<[u8]>) {
        if !bytes.is_empty() {
            let queue = self.0.get_or_insert_with(|| pool.take());
            queue.drop_empty_front();
            queue.len += bytes.len();
            queue.segments.push_back(Segment::Shared(Arc::clone(bytes)));
        }
    }

    /// Fills `slices` with the first unsent bytes, for one vectored write, and returns how many slices it filled.
    pub fn peek<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(queue) = &self.0 else { return 0 };
        let mut sent = queue.sent;
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&queue.segments) {
            *slice = IoSlice::new(&segment.bytes()[sent..]);
            sent = 0;
            filled += 1;
        }
        filled
    }

    /// Forgets the first `n` unsent bytes: the kernel has taken them.
    pub fn advance(&mut self, n: usize, pool: &mut Pool) {
        let Some(queue) = &mut self.0 else {
            assert_eq!(n, 0, "nothing is queued, so nothing was sent");
            return;
        };
        assert!(n <= queue.len, "no more is sent than was queued");
        queue.len -= n;
        queue.sent += n;
        // The last segment stays even when it is spent: it may be recycled.
        while queue.segments.len() > 1 && queue.segments.front().is_some_and(|first| first.bytes().len() <= queue.sent) {
            let spent = queue.segments.pop_front().map_or(0, |first| first.bytes().len());
            queue.sent -= spent;
        }
        self.settle(pool);
    }

    /// Drops everything that is queued.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(queue) = self.0.take() {
            pool.give_back(queue);
        }
    }

    fn settle(&mut self, pool: &mut Pool) {
        if self.is_empty() {
            self.clear(pool);
        }
    }
}

impl Queue {
    /// A recycled queue begins with an empty segment, which must not stay in front of shared bytes.
    fn drop_empty_front(&mut self) {
        if self.len == 0 {
            self.segments.clear();
            self.sent = 0;
        }
    }
}

/// Queues between two uses. On the steady path, a reply per message, each turn takes its queues here and gives them back, and the
/// allocator is never asked.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is recycled")]
pub struct Pool(Vec<Box<Queue>>);

/// As many queues as one turn flushes without asking the allocator twice; what is beyond goes back to the heap.
const POOLED_QUEUES: usize = 256;
/// Larger buffers go back to the heap, so that the pool holds 1 MiB at most after whatever burst.
const POOLED_BYTES: usize = 4 * 1024;

impl Pool {
    fn take(&mut self) -> Box<Queue> {
        self.0.pop().unwrap_or_default()
    }

    fn give_back(&mut self, mut queue: Box<Queue>) {
        if self.0.len() >= POOLED_QUEUES {
            return;
        }
        queue.segments.truncate(1);
        match queue.segments.front_mut() {
            Some(Segment::Own(buffer)) if buffer.capacity() <= POOLED_BYTES => buffer.clear(),
            _ => queue.segments.clear(),
        }
        if queue.segments.capacity() > 16 {
            queue.segments.shrink_to(1);
        }
        queue.sent = 0;
        queue.len = 0;
        self.0.push(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unsent(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.peek(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn a_drained_outbox_owns_no_heap() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        outbox.append(&mut pool, |buffer| buffer.extend_from_slice(b"hello"));
        outbox.advance(5, &mut pool);
        assert!(outbox.0.is_none());
        assert_eq!(pool.0.len(), 1);
    }

    #[test]
    fn appending_nothing_leaves_nothing() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        outbox.append(&mut pool, |_| ());
        outbox.append_shared(&mut pool, &Arc::from(&b""[..]));
        assert!(outbox.0.is_none());
    }

    #[test]
    fn the_pool_keeps_few_and_small_buffers() {
        let mut pool = Pool::default();
        let mut outboxes: Vec<Outbox> = (0..POOLED_QUEUES + 10).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.append(&mut pool, |buffer| buffer.resize(POOLED_BYTES * 2, 7));
        }
        for outbox in &mut outboxes {
            outbox.clear(&mut pool);
        }
        assert_eq!(pool.0.len(), POOLED_QUEUES);
        assert!(pool.0.iter().all(|queue| queue.segments.is_empty()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Own(Vec<u8>),
        Shared(Vec<u8>),
        Send(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Step::Own),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Step::Shared),
            (0usize..300).prop_map(Step::Send),
        ]
    }

    proptest! {
        #[test]
        fn bytes_leave_complete_and_in_order(steps in prop::collection::vec(step(), 0..60)) {
            let mut pool = Pool::default();
            let mut outbox = Outbox::default();
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Own(bytes) => {
                        outbox.append(&mut pool, |buffer| buffer.extend_from_slice(&bytes));
                        model.extend(bytes);
                    }
                    Step::Shared(bytes) => {
                        outbox.append_shared(&mut pool, &Arc::from(bytes.as_slice()));
                        model.extend(bytes);
                    }
                    Step::Send(n) => {
                        let n = n.min(model.len());
                        outbox.advance(n, &mut pool);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(outbox.len(), model.len());
                prop_assert_eq!(outbox.0.is_none(), model.is_empty());
                prop_assert_eq!(&unsent(&outbox)[..], &model[..]);
            }
        }
    }
}
