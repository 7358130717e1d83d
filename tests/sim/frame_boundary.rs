//! Finds frame boundaries in what a peer has sent, without the decoder under test.

use heartline::Framing;
use heartline::time::Timestamp;

/// Follows the bytes of one connection.
pub struct FrameBoundary {
    framing: Framing,
    /// Bytes of the header, and how much of the frame is still to come, for [`Framing::Length`].
    header: Vec<u8>,
    missing: usize,
    /// When the frame that has not ended began.
    pub open_since: Option<Timestamp>,
    /// Frames that have ended.
    pub whole: u64,
}

impl FrameBoundary {
    pub fn new(framing: Framing) -> Self {
        FrameBoundary {
            framing,
            header: Vec::new(),
            missing: 0,
            open_since: None,
            whole: 0,
        }
    }

    pub fn read(&mut self, now: Timestamp, bytes: &[u8]) {
        match self.framing {
            Framing::Raw => self.whole += 1,
            Framing::Lines => {
                for byte in bytes {
                    self.byte(now, *byte == b'\n');
                }
            }
            Framing::Length => {
                for byte in bytes {
                    let ends = self.counts_down(*byte);
                    self.byte(now, ends);
                }
            }
        }
    }

    fn byte(&mut self, now: Timestamp, ends: bool) {
        if ends {
            self.open_since = None;
            self.whole += 1;
        } else {
            self.open_since.get_or_insert(now);
        }
    }

    fn counts_down(&mut self, byte: u8) -> bool {
        if self.missing > 0 {
            self.missing -= 1;
            return self.missing == 0;
        }
        self.header.push(byte);
        if let Some(header) = self.header.first_chunk::<4>() {
            self.missing = u32::from_be_bytes(*header) as usize;
            self.header.clear();
            return self.missing == 0;
        }
        false
    }
}
