//! The read buffer of one connection: the frame that has not ended yet, and what may not be decoded
//! yet. Empty means no heap at all.

use crate::time::Timestamp;

/// Bytes received and not yet consumed.
///
/// Invariants: an inbox without unconsumed bytes owns no heap once [`Inbox::release_if_empty`] was
/// called; memory follows bytes that really arrived, never a length that the peer claims; the frame
/// never holds more than one frame.
#[derive(Debug, Default)]
pub struct Inbox(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// The beginning of a frame, or a whole frame that is lent out (`handed_out`).
    frame: Vec<u8>,
    /// When the unfinished frame began.
    since: Timestamp,
    /// The frame was completed and handed out; the next [`Inbox::begin`] drops it.
    handed_out: bool,
    /// Bytes after the frame that are not decoded yet.
    undecoded: Undecoded,
    /// Length of the unfinished frame when its bytes were dropped.
    dropped: usize,
}

/// Bytes that were read and are not decoded yet: reading was stopped, or the budget of work ran
/// out.
#[derive(Debug, Default)]
pub struct Undecoded {
    bytes: Vec<u8>,
    /// The position of the first of them in `bytes`.
    start: usize,
}

impl Undecoded {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Inbox {
    /// Bytes of the unfinished frame.
    pub fn frame_len(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |held| if held.handed_out { 0 } else { held.frame.len() })
    }

    /// Memory held, in bytes: the capacity of the buffers.
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |held| {
            held.frame.capacity() + held.undecoded.bytes.capacity()
        })
    }

    /// Whether undecoded bytes wait.
    pub fn has_undecoded(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|held| !held.undecoded.bytes().is_empty())
    }

    /// Drops the frame that was lent out last, if any. A decoder calls it first.
    pub fn begin(&mut self) {
        if let Some(held) = &mut self.0
            && held.handed_out
        {
            held.frame.clear();
            held.handed_out = false;
        }
    }

    /// Adds to the unfinished frame.
    pub fn extend(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let held = self.0.get_or_insert_default();
            debug_assert!(!held.handed_out, "begin() comes before extend()");
            held.frame.extend_from_slice(bytes);
        }
    }

    /// The unfinished frame so far.
    pub fn frame(&self) -> &[u8] {
        self.0
            .as_ref()
            .map_or(&[], |held| if held.handed_out { &[] } else { &held.frame })
    }

    /// When the unfinished frame began, if there is one.
    pub fn frame_since(&self) -> Option<Timestamp> {
        self.0
            .as_ref()
            .filter(|held| !held.handed_out && !held.frame.is_empty())
            .map(|held| held.since)
    }

    /// Sets the time at which the unfinished frame began. Does nothing without one.
    pub fn set_frame_since(&mut self, since: Timestamp) {
        if let Some(held) = &mut self.0 {
            held.since = since;
        }
    }

    /// Declares the frame finished and lends it out, until the next [`Inbox::begin`].
    pub fn complete(&mut self) -> &[u8] {
        let held = self.0.get_or_insert_default();
        held.handed_out = true;
        &held.frame
    }

    /// Keeps bytes to be decoded later. They come before all bytes read later, so nothing may be
    /// kept twice.
    pub fn keep_undecoded(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let kept = Undecoded {
                bytes: bytes.to_vec(),
                start: 0,
            };
            self.return_undecoded(kept, bytes.len());
        }
    }

    /// Takes the bytes that were kept.
    pub fn take_undecoded(&mut self) -> Undecoded {
        self.0
            .as_mut()
            .map(|held| std::mem::take(&mut held.undecoded))
            .unwrap_or_default()
    }

    /// Returns the last `left` of the bytes that were taken, without copying them.
    pub fn return_undecoded(&mut self, taken: Undecoded, left: usize) {
        if left > 0 {
            let held = self.0.get_or_insert_default();
            debug_assert!(held.undecoded.bytes().is_empty(), "nothing is kept twice");
            let start = taken.bytes.len() - left;
            held.undecoded = Undecoded { start, ..taken };
        }
    }

    /// Drops all bytes and frees their memory, but [`Inbox::unfinished`] still returns the length
    /// of the frame. Nothing may be added after it.
    pub fn drop_bytes(&mut self) {
        let dropped = self.unfinished();
        if let Some(held) = &mut self.0 {
            **held = Held {
                dropped,
                ..Held::default()
            };
        }
    }

    /// Bytes of the unfinished frame, those included that were dropped.
    pub fn unfinished(&self) -> usize {
        self.frame_len() + self.0.as_ref().map_or(0, |held| held.dropped)
    }

    /// Gives the heap back if there is nothing left to keep.
    pub fn release_if_empty(&mut self) {
        self.begin();
        if self
            .0
            .as_ref()
            .is_some_and(|held| held.frame.is_empty() && held.undecoded.bytes().is_empty())
        {
            self.0 = None;
        }
    }

    #[cfg(test)]
    fn owns_heap(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptied_inbox_owns_no_heap() {
        let mut inbox = Inbox::default();
        assert!(!inbox.owns_heap());
        inbox.extend(b"half");
        inbox.release_if_empty();
        assert_eq!(inbox.frame(), b"half");
        assert_eq!(inbox.complete(), b"half");
        inbox.release_if_empty();
        assert!(!inbox.owns_heap());
    }

    #[test]
    fn handed_out_frame_is_dropped_at_the_next_begin() {
        let mut inbox = Inbox::default();
        inbox.extend(b"one");
        inbox.complete();
        assert_eq!(inbox.frame_len(), 0);
        inbox.begin();
        inbox.extend(b"two");
        assert_eq!(inbox.complete(), b"two");
    }

    #[test]
    fn undecoded_bytes_are_kept_apart_from_the_frame() {
        let mut inbox = Inbox::default();
        inbox.extend(b"frame");
        inbox.keep_undecoded(b"later");
        inbox.release_if_empty();
        assert!(inbox.has_undecoded());
        let taken = inbox.take_undecoded();
        assert_eq!(taken.bytes(), b"later");
        assert!(!inbox.has_undecoded());
        inbox.return_undecoded(taken, 3);
        assert_eq!(inbox.take_undecoded().bytes(), b"ter");
        assert_eq!(inbox.frame(), b"frame");
    }
}
