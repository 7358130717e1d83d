//! The write queue of one connection: bytes in order, some its own, some shared with others. An
//! empty queue owns no heap.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::progress::Progress;

/// Own bytes are gathered up to this size before a new segment is begun. Small enough that a queue
/// which drains slowly gives its memory back piece by piece, large enough that one `writev` of a
/// few segments fills any socket buffer.
const SEGMENT_BYTES: usize = 64 * 1024;

/// What a segment costs beside its bytes: its place in the queue and the header of its allocation.
const SEGMENT_OVERHEAD: usize = size_of::<Segment>() + 16;

/// Bytes queued for one connection and not yet taken by the kernel.
///
/// Invariants: `len` is the number of unsent bytes; no segment is empty except a recycled first
/// one; an empty outbox owns no heap. The outbox does not know its limit: the caller checks it
/// first (see `Engine::send`).
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that were sent already.
    sent: usize,
    len: usize,
    /// What the queue costs in memory: see [`Outbox::held`].
    held: usize,
    /// Set once a timeout depends on it.
    progress: Option<Progress>,
}

#[derive(Debug)]
enum Segment {
    Own(Vec<u8>),
    SharedBytes(Arc<SharedBytes>),
}

/// Bytes that many connections queue. They are counted as held until the last of them lets go.
#[derive(Debug)]
pub struct SharedBytes {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl SharedBytes {
    /// Adds the length of `bytes` to `held`, until the value is dropped.
    pub fn new(bytes: Vec<u8>, held: Arc<AtomicUsize>) -> Arc<Self> {
        held.fetch_add(bytes.len(), Relaxed);
        Arc::new(SharedBytes { bytes, held })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Relaxed);
    }
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Own(bytes) => bytes,
            Segment::SharedBytes(shared) => &shared.bytes,
        }
    }

    fn held(&self) -> usize {
        match self {
            Segment::Own(bytes) => SEGMENT_OVERHEAD + bytes.capacity(),
            Segment::SharedBytes(_) => SEGMENT_OVERHEAD,
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

    /// What the queue costs in memory, in bytes: the room of its own segments, until they are
    /// sent, and the overhead of every segment.
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.held)
    }

    /// How the peer takes what is queued; `None` before [`Outbox::set_progress`].
    pub fn progress(&self) -> Option<Progress> {
        self.0.as_ref().and_then(|queue| queue.progress)
    }

    /// Sets the progress. Does nothing if nothing is queued.
    pub fn set_progress(&mut self, progress: Progress) {
        if let Some(queue) = &mut self.0 {
            queue.progress = Some(progress);
        }
    }

    /// Appends what `fill` adds to its argument, and returns what it returns. `fill` may only add.
    pub fn append<R>(&mut self, pool: &mut Pool, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let queue = self.0.get_or_insert_with(|| pool.take());
        let tail = match queue.segments.back_mut() {
            Some(Segment::Own(tail)) if tail.len() < SEGMENT_BYTES => tail,
            _ => {
                queue.segments.push_back(Segment::Own(Vec::new()));
                queue.held += SEGMENT_OVERHEAD;
                match queue.segments.back_mut() {
                    Some(Segment::Own(tail)) => tail,
                    _ => unreachable!("an own segment was pushed just now"),
                }
            }
        };
        let (before, room) = (tail.len(), tail.capacity());
        let result = fill(tail);
        let added = tail.len() - before;
        queue.len += added;
        queue.held += tail.capacity() - room;
        if added == 0 {
            queue.drop_empty_back();
            self.release_if_empty(pool);
        }
        result
    }

    /// Appends bytes that other connections queue as well, without copying them.
    pub fn append_shared(&mut self, pool: &mut Pool, shared: &Arc<SharedBytes>) {
        if !shared.bytes.is_empty() {
            let queue = self.0.get_or_insert_with(|| pool.take());
            queue.drop_empty_front();
            queue.len += shared.bytes.len();
            let segment = Segment::SharedBytes(Arc::clone(shared));
            queue.held += segment.held();
            queue.segments.push_back(segment);
        }
    }

    /// Fills `slices` with the first unsent bytes, for one vectored write, and returns how many
    /// slices it filled.
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
        while queue.segments.len() > 1
            && queue
                .segments
                .front()
                .is_some_and(|first| first.bytes().len() <= queue.sent)
        {
            if let Some(spent) = queue.segments.pop_front() {
                queue.sent -= spent.bytes().len();
                queue.held -= spent.held();
            }
        }
        self.release_if_empty(pool);
    }

    /// Drops the bytes and frees their memory, but [`Outbox::len`] still says how many there were.
    /// Nothing may be appended or sent after it.
    pub fn drop_bytes(&mut self) {
        if let Some(queue) = &mut self.0 {
            queue.segments = VecDeque::new();
            queue.held = 0;
        }
    }

    /// Drops everything that is queued.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(queue) = self.0.take() {
            pool.recycle(queue);
        }
    }

    fn release_if_empty(&mut self, pool: &mut Pool) {
        if self.is_empty() {
            self.clear(pool);
        }
    }
}

impl Queue {
    /// Nothing was appended to a segment that had been begun for it.
    fn drop_empty_back(&mut self) {
        if self.segments.len() > 1
            && self
                .segments
                .back()
                .is_some_and(|last| last.bytes().is_empty())
        {
            let last = self.segments.pop_back();
            self.held -= last.map_or(0, |last| last.held());
        }
    }

    /// A recycled queue begins with an empty segment, which must not stay in front of shared bytes.
    fn drop_empty_front(&mut self) {
        if self.len == 0 {
            self.segments.clear();
            self.sent = 0;
            self.held = 0;
        }
    }
}

/// Recycled queues. With a reply per message, each turn takes its queues from here and returns
/// them, and the allocator is not called.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is recycled")]
pub struct Pool(Vec<Box<Queue>>);

/// As many queues as one turn flushes without a second call of the allocator; further ones are
/// freed.
const POOLED_QUEUES: usize = 256;
/// Larger buffers go back to the heap, so that the pool holds at most 512 KiB after any burst, and
/// a small reply in a recycled buffer costs at most 2 KiB of the memory limit.
const POOLED_BYTES: usize = 2 * 1024;
/// A queue with room for more segments is shrunk.
const POOLED_SEGMENTS: usize = 16;

impl Pool {
    fn take(&mut self) -> Box<Queue> {
        self.0.pop().unwrap_or_default()
    }

    fn recycle(&mut self, mut queue: Box<Queue>) {
        if self.0.len() >= POOLED_QUEUES {
            return;
        }
        queue.segments.truncate(1);
        match queue.segments.front_mut() {
            Some(Segment::Own(buffer)) if buffer.capacity() <= POOLED_BYTES => buffer.clear(),
            _ => queue.segments.clear(),
        }
        if queue.segments.capacity() > POOLED_SEGMENTS {
            queue.segments.shrink_to(1);
        }
        queue.sent = 0;
        queue.len = 0;
        queue.held = queue.segments.iter().map(Segment::held).sum();
        queue.progress = None;
        self.0.push(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn unsent(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.peek(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    #[test]
    fn emptied_outbox_owns_no_heap() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        outbox.append(&mut pool, |buffer| buffer.extend_from_slice(b"hello"));
        outbox.advance(5, &mut pool);
        assert!(outbox.0.is_none());
        assert_eq!(pool.0.len(), 1);
    }

    #[test]
    fn appending_an_empty_slice_allocates_nothing() {
        let mut pool = Pool::default();
        let mut outbox = Outbox::default();
        outbox.append(&mut pool, |_| ());
        outbox.append_shared(&mut pool, &SharedBytes::new(Vec::new(), Arc::default()));
        assert!(outbox.0.is_none());
    }

    #[test]
    fn pool_is_bounded() {
        let mut pool = Pool::default();
        let mut outboxes: Vec<Outbox> =
            (0..POOLED_QUEUES + 10).map(|_| Outbox::default()).collect();
        for outbox in &mut outboxes {
            outbox.append(&mut pool, |buffer| buffer.resize(POOLED_BYTES * 2, 7));
        }
        for outbox in &mut outboxes {
            outbox.clear(&mut pool);
        }
        assert_eq!(pool.0.len(), POOLED_QUEUES);
        assert!(pool.0.iter().all(|queue| queue.segments.is_empty()));
    }

    /// The lengths of the slices that one write would get.
    fn slices(outbox: &Outbox) -> Vec<usize> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.peek(&mut slices);
        slices[..filled].iter().map(|slice| slice.len()).collect()
    }

    fn append(outbox: &mut Outbox, pool: &mut Pool, bytes: usize) {
        outbox.append(pool, |buffer| buffer.resize(buffer.len() + bytes, 7));
    }

    fn shared(bytes: usize) -> Arc<SharedBytes> {
        SharedBytes::new(vec![7; bytes], Arc::default())
    }

    #[test]
    fn full_segment_is_followed_by_a_new_one() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, SEGMENT_BYTES - 1);
        append(&mut outbox, &mut pool, 1);
        assert_eq!(slices(&outbox), [SEGMENT_BYTES]);
        append(&mut outbox, &mut pool, 3);
        assert_eq!(slices(&outbox), [SEGMENT_BYTES, 3]);
        outbox.append_shared(&mut pool, &shared(5));
        append(&mut outbox, &mut pool, 2);
        assert_eq!(slices(&outbox), [SEGMENT_BYTES, 3, 5, 2]);
        assert_eq!(outbox.len(), SEGMENT_BYTES + 10);
    }

    #[test]
    fn empty_append_leaves_no_segment_behind() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, SEGMENT_BYTES);
        let held = outbox.held();
        append(&mut outbox, &mut pool, 0);
        assert_eq!(
            (slices(&outbox), outbox.held()),
            (vec![SEGMENT_BYTES], held)
        );
        outbox.append_shared(&mut pool, &shared(5));
        let held = outbox.held();
        append(&mut outbox, &mut pool, 0);
        assert_eq!((slices(&outbox).len(), outbox.held()), (2, held));
    }

    #[test]
    fn held_memory_shrinks_segment_by_segment() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, SEGMENT_BYTES);
        let first = outbox.held();
        assert!(first >= SEGMENT_BYTES + SEGMENT_OVERHEAD);
        outbox.append_shared(&mut pool, &shared(5));
        assert_eq!(outbox.held(), first + SEGMENT_OVERHEAD);
        append(&mut outbox, &mut pool, 2);
        outbox.advance(SEGMENT_BYTES - 1, &mut pool);
        assert_eq!(
            slices(&outbox),
            [1, 5, 2],
            "the first segment is not sent yet"
        );
        let both = outbox.held();
        outbox.advance(1, &mut pool);
        assert_eq!((slices(&outbox), outbox.held()), (vec![5, 2], both - first));
        outbox.advance(6, &mut pool);
        assert_eq!(slices(&outbox), [1]);
        outbox.advance(1, &mut pool);
        assert_eq!((outbox.len(), outbox.held()), (0, 0));
    }

    #[test]
    fn dropped_bytes_still_count_but_hold_no_memory() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, 100);
        outbox.drop_bytes();
        assert_eq!((outbox.len(), outbox.held()), (100, 0));
        assert!(slices(&outbox).is_empty());
    }

    #[test]
    fn recycled_queue_is_like_a_new_one() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        outbox.set_progress(Progress::since(Timestamp::ZERO));
        assert_eq!(outbox.progress(), None, "nothing is queued");
        append(&mut outbox, &mut pool, 100);
        outbox.set_progress(Progress::since(Timestamp::ZERO));
        outbox.advance(40, &mut pool);
        outbox.clear(&mut pool);
        assert_eq!(
            (outbox.len(), outbox.progress(), pool.0.len()),
            (0, None, 1)
        );

        append(&mut outbox, &mut pool, 30);
        assert_eq!(pool.0.len(), 0);
        assert_eq!((outbox.len(), outbox.progress()), (30, None));
        assert_eq!(slices(&outbox), [30], "nothing of the last use is left");
        assert!(
            outbox.held() >= SEGMENT_OVERHEAD + 100,
            "its buffer is kept"
        );

        outbox.advance(30, &mut pool);
        outbox.append_shared(&mut pool, &shared(5));
        assert_eq!(
            (slices(&outbox), outbox.held()),
            (vec![5], SEGMENT_OVERHEAD)
        );
    }

    #[test]
    fn buffer_of_a_sent_queue_is_recycled() {
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, 100);
        outbox.advance(100, &mut pool);
        assert_eq!(pool.0[0].segments.len(), 1);
        append(&mut outbox, &mut pool, 0);
        assert_eq!(pool.0[0].segments.len(), 1, "an empty append keeps it");
    }

    #[test]
    fn pool_keeps_one_small_buffer_per_queue() {
        for (bytes, kept) in [(POOLED_BYTES, 1), (POOLED_BYTES + 1, 0)] {
            let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
            outbox.append(&mut pool, |buffer| {
                buffer.reserve_exact(bytes);
                buffer.push(7);
            });
            outbox.clear(&mut pool);
            let queue = &pool.0[0];
            assert_eq!(queue.segments.len(), kept, "a buffer of {bytes} bytes");
            let held: usize = queue.segments.iter().map(Segment::held).sum();
            assert_eq!((queue.held, queue.len, queue.sent), (held, 0, 0));
        }
        let (mut pool, mut outbox) = (Pool::default(), Outbox::default());
        append(&mut outbox, &mut pool, 10);
        for _ in 0..40 {
            outbox.append_shared(&mut pool, &shared(5));
        }
        outbox.clear(&mut pool);
        let queue = &pool.0[0];
        assert_eq!(queue.segments.len(), 1);
        assert!(queue.segments.capacity() <= POOLED_SEGMENTS);
    }

    #[derive(Debug, Clone)]
    enum OutboxStep {
        Own(Vec<u8>),
        SharedBytes(Vec<u8>),
        Send(usize),
    }

    fn step() -> impl Strategy<Value = OutboxStep> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200).prop_map(OutboxStep::Own),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(OutboxStep::SharedBytes),
            (0usize..300).prop_map(OutboxStep::Send),
        ]
    }

    proptest! {
        #[test]
        fn bytes_leave_complete_and_in_order(steps in prop::collection::vec(step(), 0..60)) {
            let mut pool = Pool::default();
            let mut outbox = Outbox::default();
            let mut model: Vec<u8> = Vec::new();
            let held = Arc::<AtomicUsize>::default();
            for step in steps {
                match step {
                    OutboxStep::Own(bytes) => {
                        outbox.append(&mut pool, |buffer| buffer.extend_from_slice(&bytes));
                        model.extend(bytes);
                    }
                    OutboxStep::SharedBytes(bytes) => {
                        outbox.append_shared(&mut pool, &SharedBytes::new(bytes.clone(), Arc::clone(&held)));
                        model.extend(bytes);
                    }
                    OutboxStep::Send(n) => {
                        let n = n.min(model.len());
                        outbox.advance(n, &mut pool);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(outbox.len(), model.len());
                prop_assert_eq!(outbox.0.is_none(), model.is_empty());
                let segments = outbox.0.iter().flat_map(|queue| &queue.segments);
                let (own, shared) = segments.fold((0, 0), |(own, shared), segment| match segment {
                    Segment::Own(_) => (own + segment.held(), shared),
                    Segment::SharedBytes(bytes) => (own + segment.held(), shared + bytes.bytes.len()),
                });
                prop_assert_eq!((outbox.held(), held.load(Relaxed)), (own, shared));
                prop_assert_eq!(&unsent(&outbox)[..], &model[..]);
            }
        }
    }
}
