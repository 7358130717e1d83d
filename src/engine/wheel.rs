//! The timer wheel: one pending check per connection, O(1) to insert, remove and expire, eight
//! bytes each.
//!
//! One level of [`SLOTS`] steps; a step is an eighth of [`Config::tick`](crate::Config::tick). A
//! deadline beyond the horizon is clamped to it, and the caller inserts it again when it fires
//! early: the engine checks every entry anew when it fires, so this costs nothing extra. There are
//! no cascading levels.

/// Steps to the horizon, for 16 KiB of heads. By default the engine takes steps of 12 ms, which
/// makes 49 s: beyond most heartbeats.
pub const SLOTS: usize = 4096;

const WORDS: usize = SLOTS / 64;
/// `Node::prev` of the first entry of a slot is the slot number with this bit set; no key is that
/// large.
const HEAD: u32 = 1 << 31;
/// End of a list; as `Node::prev`, the mark of a key that is not on the wheel.
const NONE: u32 = u32::MAX;

/// A timer wheel for keys that are small integers: the slots of a slab.
///
/// Invariants: every entry lies in `[cursor, cursor + SLOTS)`, so a slot never mixes two rounds and
/// its entries are due exactly when the cursor reaches it; a bit in `occupied` is set if and only
/// if that slot's list is not empty.
pub struct Wheel {
    heads: Box<[u32]>,
    occupied: [u64; WORDS],
    nodes: Vec<Node>,
    /// The step that is being expired, or is next.
    cursor: u64,
    len: usize,
}

#[derive(Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
}

const ABSENT: Node = Node {
    prev: NONE,
    next: NONE,
};

impl Wheel {
    /// An empty wheel at step 0.
    pub fn new() -> Self {
        Wheel {
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            occupied: [0; WORDS],
            nodes: Vec::new(),
            cursor: 0,
            len: 0,
        }
    }

    /// Advances the cursor of an empty wheel to `now_step`: the horizon counts from the cursor. To
    /// be called before an insertion. Does nothing if there are entries, which may still be due.
    pub fn catch_up(&mut self, now_step: u64) {
        if self.is_empty() {
            self.cursor = self.cursor.max(now_step);
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry, so nothing will ever be due.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the one pending check of `key` to `step`, in place of an earlier one. A step in the
    /// past is due at the next expiry; a step beyond the horizon becomes the horizon. Keys must be
    /// below 2^31.
    pub fn insert(&mut self, key: usize, step: u64) {
        self.remove(key);
        let key = u32::try_from(key)
            .ok()
            .filter(|key| *key < HEAD)
            .expect("keys are slab slots, below 2^31");
        if self.nodes.len() <= key as usize {
            self.nodes.resize(key as usize + 1, ABSENT);
        }
        let slot = slot_of(step.clamp(self.cursor, self.cursor + (SLOTS as u64 - 1)));
        let first = std::mem::replace(&mut self.heads[slot], key);
        if first != NONE {
            self.nodes[first as usize].prev = key;
        }
        self.nodes[key as usize] = Node {
            prev: HEAD | slot as u32,
            next: first,
        };
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// Removes the pending check of `key`. Does nothing if there is none.
    pub fn remove(&mut self, key: usize) {
        let Some(node) = self.nodes.get_mut(key) else {
            return;
        };
        let Node { prev, next } = std::mem::replace(node, ABSENT);
        if prev == NONE {
            return;
        }
        self.len -= 1;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev & HEAD == 0 {
            self.nodes[prev as usize].next = next;
            return;
        }
        let slot = (prev & !HEAD) as usize;
        self.heads[slot] = next;
        if next == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Takes one entry that is due at `now_step` or before off the wheel, earliest step first;
    /// `None` when nothing more is due.
    ///
    /// An entry inserted between two calls at a step that is not in the future is returned by this
    /// same series of calls. A `now_step` before an earlier one returns nothing new.
    pub fn expire(&mut self, now_step: u64) -> Option<usize> {
        match self.next_step() {
            Some(step) if step <= now_step => {
                self.cursor = step;
                let key = self.heads[slot_of(step)] as usize;
                self.remove(key);
                Some(key)
            }
            _ => {
                // Not beyond now_step: an entry that is inserted for this very step must still find
                // its place.
                self.cursor = self.cursor.max(now_step);
                None
            }
        }
    }

    /// The earliest step that has an entry.
    pub fn next_step(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let start = slot_of(self.cursor);
        // The word of the cursor is read twice: first its bits from the cursor on, and at the end
        // those before it, which are a round later.
        (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let bits = match step {
                0 => self.occupied[word] & (u64::MAX << (start % 64)),
                _ => self.occupied[word],
            };
            let slot = (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)?;
            Some(self.cursor + ((slot + SLOTS - start) % SLOTS) as u64)
        })
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

fn slot_of(step: u64) -> usize {
    (step % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn wheel_entry_takes_eight_bytes() {
        assert_eq!(size_of::<Node>(), 8);
    }

    #[test]
    fn expiry_is_exact_at_the_horizon_and_at_the_seam() {
        for start in [
            0,
            1,
            63,
            64,
            SLOTS as u64 - 1,
            SLOTS as u64,
            3 * SLOTS as u64 + 17,
        ] {
            let mut wheel = Wheel::new();
            assert_eq!(wheel.expire(start), None);
            let last = start + SLOTS as u64 - 1;
            wheel.insert(3, last);
            assert_eq!(wheel.next_step(), Some(last));
            assert_eq!(wheel.expire(last - 1), None);
            assert_eq!(wheel.expire(last), Some(3));
            assert_eq!(wheel.next_step(), None);
        }
    }

    #[test]
    fn catch_up_moves_empty_wheels_only() {
        let mut wheel = Wheel::new();
        let long_after = 100 * SLOTS as u64;
        wheel.catch_up(long_after);
        wheel.insert(0, long_after + 10);
        assert_eq!(wheel.next_step(), Some(long_after + 10));
        wheel.catch_up(2 * long_after);
        assert_eq!(
            (wheel.next_step(), wheel.expire(2 * long_after)),
            (Some(long_after + 10), Some(0))
        );
    }

    #[test]
    fn late_entries_are_due_at_once_and_far_ones_clamped() {
        let mut wheel = Wheel::new();
        wheel.expire(100);
        wheel.insert(0, 5);
        assert_eq!(wheel.expire(100), Some(0));
        wheel.insert(1, u64::MAX);
        assert_eq!(wheel.next_step(), Some(100 + SLOTS as u64 - 1));
    }

    #[test]
    fn removing_an_absent_key_does_nothing() {
        let mut wheel = Wheel::new();
        wheel.remove(7);
        wheel.insert(2, 1);
        wheel.remove(1);
        wheel.remove(2);
        wheel.remove(2);
        assert!(wheel.is_empty());
        assert_eq!(wheel.expire(10), None);
    }

    #[derive(Debug, Clone)]
    enum WheelStep {
        Insert { key: usize, after: u64 },
        Remove { key: usize },
        Advance { by: u64, budget: usize },
    }

    fn step() -> impl Strategy<Value = WheelStep> {
        let far = SLOTS as u64 * 3;
        prop_oneof![
            4 => (0usize..40, prop_oneof![0u64..5, 0u64..200, 0u64..far])
                .prop_map(|(key, after)| WheelStep::Insert { key, after }),
            1 => (0usize..40).prop_map(|key| WheelStep::Remove { key }),
            3 => (prop_oneof![0u64..4, 0u64..300, 0u64..far], 0usize..50)
                .prop_map(|(by, budget)| WheelStep::Advance { by, budget }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn wheel_agrees_with_a_btree_map(steps in prop::collection::vec(step(), 0..120)) {
            let mut wheel = Wheel::new();
            // key -> step, as the wheel's contract words it
            let mut model: BTreeMap<usize, u64> = BTreeMap::new();
            let (mut now, mut cursor) = (0u64, 0u64);
            for step in steps {
                match step {
                    WheelStep::Insert { key, after } => {
                        wheel.insert(key, now + after);
                        model.insert(key, (now + after).clamp(cursor, cursor + SLOTS as u64 - 1));
                    }
                    WheelStep::Remove { key } => {
                        wheel.remove(key);
                        model.remove(&key);
                    }
                    WheelStep::Advance { by, budget } => {
                        now += by;
                        for _ in 0..budget {
                            let earliest = model.values().min().copied().filter(|step| *step <= now);
                            let fired = wheel.expire(now);
                            match (earliest, fired) {
                                (Some(step), Some(key)) => {
                                    prop_assert_eq!(model.remove(&key), Some(step));
                                    cursor = step;
                                }
                                (None, None) => {
                                    cursor = cursor.max(now);
                                    break;
                                }
                                other => prop_assert!(false, "model and wheel differ: {:?}", other),
                            }
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.next_step(), model.values().min().copied());
            }
        }
    }
}
