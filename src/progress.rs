//! Whether a peer takes what is written to it: by what its kernel acknowledges, not by what the
//! local kernel takes. Pure arithmetic.
//!
//! A peer makes progress while it acknowledges bytes, on average 64 bytes per second. That is
//! measured four times per timeout, so a peer that stops reading is found out within `timeout *
//! 5/4` of its last progress, and a peer that reads steadily never is, if it reads its receive
//! window, which its kernel acknowledges in one piece, within the timeout.

use crate::time::Timestamp;

/// Bytes per second that a peer must acknowledge on average while bytes wait for it.
const MIN_RATE: u64 = 64;
/// Measurements per timeout.
const SAMPLES: u64 = 4;

/// How a peer takes what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// When it last made progress, or the wait for it began.
    at: Timestamp,
    /// When that was last measured, and how many bytes it had acknowledged then.
    sample: Option<(Timestamp, u64)>,
}

impl Progress {
    /// No progress yet; the timeout begins now.
    pub fn since(now: Timestamp) -> Self {
        Progress {
            at: now,
            sample: None,
        }
    }

    /// When the peer last made progress, or the wait for it began.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Whether it was ever measured. The first measurement is what later ones are compared with.
    pub fn is_measured(&self) -> bool {
        self.sample.is_some()
    }

    /// When it is to be measured next, for a timeout of this length.
    pub fn next_sample(&self, timeout_ms: u64) -> Timestamp {
        let from = self.sample.map_or(self.at, |(at, _)| at);
        from.plus_ms(timeout_ms / SAMPLES + 1)
    }

    /// Adds a measurement: `unacknowledged` of the `written` bytes are not acknowledged by the peer
    /// (`SIOCOUTQ` of tcp(7)). `None` where the system does not report it: then a byte that the
    /// local kernel takes is progress.
    ///
    /// A peer that has acknowledged everything makes progress at any rate: it was offered no more.
    pub fn measure(&mut self, now: Timestamp, written: u64, unacknowledged: Option<u64>) {
        let acknowledged = written.saturating_sub(unacknowledged.unwrap_or(0));
        if let Some((sampled, before)) = self.sample {
            let wanted = (now.ms_since(sampled) * MIN_RATE / 1000).max(1);
            let made = acknowledged.saturating_sub(before);
            if unacknowledged == Some(0) || made >= wanted {
                self.at = now;
            }
        }
        self.sample = Some((now, acknowledged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn first_measurement_is_the_reference() {
        let mut progress = Progress::since(at(100));
        progress.measure(at(200), 1000, Some(10));
        assert_eq!((progress.at(), progress.is_measured()), (at(100), true));
        progress.measure(at(300), 1000, Some(3));
        assert_eq!(progress.at(), at(300));
        assert_eq!(progress.next_sample(400), at(401));
    }

    #[test]
    fn single_bytes_are_not_progress() {
        let mut progress = Progress::since(at(0));
        progress.measure(at(0), 1000, Some(900));
        progress.measure(at(1000), 1000, Some(837));
        assert_eq!(progress.at(), at(0), "63 bytes in a second");
        progress.measure(at(2000), 1000, Some(773));
        assert_eq!(progress.at(), at(2000), "64 bytes in a second");
    }

    #[test]
    fn peer_without_outstanding_bytes_makes_progress() {
        let mut progress = Progress::since(at(0));
        progress.measure(at(0), 10, Some(5));
        progress.measure(at(9000), 10, Some(0));
        assert_eq!(progress.at(), at(9000));
    }
}
