//! Counters.

use crate::close::{CloseReason, Refusal};

/// What a server has done since it started. All counts only grow; none is ever reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections opened. Those open now are `opened` less the sum of all closes.
    pub opened: u64,
    closed: [u64; CloseReason::ALL.len()],
    refused: [u64; Refusal::ALL.len()],
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel has taken for sending.
    pub bytes_out: u64,
    /// Messages received, heartbeats not counted.
    pub messages_in: u64,
    /// Messages queued for peers, heartbeats not counted; a broadcast counts once per receiver.
    pub messages_out: u64,
    /// Messages dropped because the peer's queue had no room for them (`OnSlow::Drop`).
    pub messages_dropped: u64,
    /// Pings received. Each was answered, unless the outbox had no room left.
    pub pings_in: u64,
    /// Pongs received.
    pub pongs_in: u64,
    /// Pings pushed to quiet peers.
    pub pings_out: u64,
    /// How far past their deadlines verdicts of silence came, in milliseconds.
    pub overshoot: Histogram,
    /// How late turns began that a timer was due for, in milliseconds: the loop's own lag.
    pub lag: Histogram,
    /// Times that a budget ran out, so that others had their turn first.
    pub yields: u64,
    /// Times that reading from a peer was stopped because it did not read what was queued for it.
    pub throttled: u64,
    /// Times that reading from a peer was stopped because it had sent as many messages as it may.
    pub rationed: u64,
    /// Spells in which this process did not run: stopped, paused, or blocked in a handler.
    pub stalls: u64,
    /// Total length of those spells in milliseconds.
    pub stalled_ms: u64,
}

/// Upper bounds of a [`Histogram`]'s buckets but the last, which has none.
pub const BUCKETS_MS: [u64; 14] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// How often a length of time was seen, by its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS_MS.len() + 1],
    sum_ms: u64,
    max_ms: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, ms: u64) {
        self.counts[BUCKETS_MS.partition_point(|bound| *bound < ms)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.max_ms = self.max_ms.max(ms);
    }

    /// How many were not longer than each of [`BUCKETS_MS`]; what is missing to [`Histogram::count`] was longer than all.
    pub fn cumulated(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        BUCKETS_MS.iter().zip(&self.counts).scan(0, |seen, (bound, count)| {
            *seen += count;
            Some((*bound, *seen))
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in milliseconds.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// The longest, in milliseconds; 0 if there was none.
    pub fn max_ms(&self) -> u64 {
        self.max_ms
    }
}

impl Stats {
    /// Connections closed for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Connections refused for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason.index()]
    }

    /// Connections closed, for whatever reason.
    pub fn closed_in_all(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub(crate) fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    pub(crate) fn count_refusal(&mut self, reason: Refusal) {
        self.refused[reason.index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 3, 5, 100, 101, 10_000, 10_001] {
            histogram.record(ms);
        }
        let at_most = |ms| histogram.cumulated().find(|(bound, _)| *bound == ms).map(|(_, count)| count);
        assert_eq!([0, 1, 2, 5, 100, 200, 10_000].map(at_most), [1, 2, 2, 4, 5, 6, 7].map(Some));
        assert_eq!((histogram.count(), histogram.max_ms(), histogram.sum_ms()), (8, 10_001, 20_211));
    }
}
