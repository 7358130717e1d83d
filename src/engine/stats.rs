//! Counters.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::close::{CloseReason, DenyReason, RejectReason};

/// Codes of the application's that are counted one by one.
const MAX_CODES: usize = 64;

/// Counters of a server since its start. They only grow; none is ever reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections opened. Those open now are `opened` less the sum of all closes.
    pub opened: u64,
    closed: [u64; CloseReason::ALL.len()],
    refused: [u64; RejectReason::ALL.len()],
    /// Logins accepted.
    pub logins: u64,
    denied: [u64; DenyReason::ALL.len()],
    closed_by_code: BTreeMap<u16, u64>,
    /// Closes with codes beyond the first [`MAX_CODES`].
    closed_by_other_codes: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel has taken for sending.
    pub bytes_out: u64,
    /// Messages received, heartbeats not counted.
    pub messages_received: u64,
    /// Messages queued for peers, heartbeats not counted; a broadcast counts once per receiver.
    pub messages_queued: u64,
    /// Messages dropped because the peer's queue had no room for them (`OnSlow::Drop`).
    pub messages_dropped: u64,
    /// Pings received. Each was answered, unless the outbox had no room left.
    pub pings_received: u64,
    /// Pongs received.
    pub pongs_received: u64,
    /// Pings sent, to quiet peers and amid long answers.
    pub pings_sent: u64,
    /// From the last ping to the next sign of life of its peer. The engine's clock counts whole
    /// milliseconds.
    pub round_trip: Histogram,
    /// How far past their deadlines verdicts of silence came; after a change of settings a deadline
    /// counts from the change at the earliest. The engine's clock counts whole milliseconds.
    pub overshoot: Histogram,
    /// How late checks and final reads were: of each turn in which one was due, the age of the
    /// oldest when it was handled, or at the end of the turn if it is left over. In whole
    /// milliseconds.
    pub lag: Histogram,
    /// How long turns took, without their wait. Only a server counts it: the engine has no turns.
    pub turn: Histogram,
    /// Times that a budget ran out, so that others had their turn first.
    pub yields: u64,
    /// Times that reading from a peer was stopped because it did not read what was queued for it.
    pub throttled: u64,
    /// Times that reading from a peer was stopped because it had sent as many messages as it may.
    pub rate_limited: u64,
    /// Spells in which this process did not run: stopped, paused, or blocked in a handler.
    pub stalls: u64,
    /// Total length of those spells in milliseconds.
    pub stalled_ms: u64,
}

/// Upper bounds of a [`Histogram`]'s buckets but the last, which has none, in microseconds.
const BOUNDS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// How often a length of time was seen, by its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
    max_us: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, length: Duration) {
        let us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    pub(crate) fn record_ms(&mut self, ms: u64) {
        self.record(Duration::from_millis(ms));
    }

    /// For each bound, from the smallest to the largest, how many durations did not exceed it. The
    /// difference to [`Histogram::count`] exceeded all bounds.
    pub fn cumulated(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        BOUNDS_US
            .iter()
            .zip(&self.counts)
            .scan(0, |seen, (bound, count)| {
                *seen += count;
                Some((Duration::from_micros(*bound), *seen))
            })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// The longest; zero if there was none.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }
}

impl Stats {
    /// Connections closed with each code of the application's
    /// ([`Context::close_with`](crate::Context::close_with)), in the order of the codes, and those
    /// with codes beyond the first 64 different ones.
    pub fn closed_by_code(&self) -> (impl Iterator<Item = (u16, u64)> + '_, u64) {
        let codes = self.closed_by_code.iter();
        let counts = codes.map(|(code, count)| (*code, *count));
        (counts, self.closed_by_other_codes)
    }

    pub(super) fn count_code(&mut self, code: u16) {
        if self.closed_by_code.len() < MAX_CODES || self.closed_by_code.contains_key(&code) {
            *self.closed_by_code.entry(code).or_default() += 1;
        } else {
            self.closed_by_other_codes += 1;
        }
    }

    /// Logins denied for this reason.
    pub fn denied(&self, reason: DenyReason) -> u64 {
        self.denied[reason.index()]
    }

    pub(super) fn count_denial(&mut self, reason: DenyReason) {
        self.denied[reason.index()] += 1;
    }

    /// Connections closed for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Connections refused for this reason.
    pub fn refused(&self, reason: RejectReason) -> u64 {
        self.refused[reason.index()]
    }

    /// Connections closed, for any reason.
    pub fn closed_in_all(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub(crate) fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    pub(crate) fn count_rejection(&mut self, reason: RejectReason) {
        self.refused[reason.index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_in_the_smallest_matching_bucket() {
        let mut histogram = Histogram::default();
        for ms in [0, 1, 3, 5, 100, 101, 10_000, 10_001] {
            histogram.record_ms(ms);
        }
        histogram.record(Duration::from_micros(11));
        let at_most = |us| {
            histogram
                .cumulated()
                .find(|(bound, _)| bound.as_micros() == us)
                .map(|(_, count)| count)
        };
        assert_eq!(
            [10, 20, 1000, 2000, 5000, 100_000, 200_000, 10_000_000].map(at_most),
            [1, 2, 3, 3, 5, 6, 7, 8].map(Some)
        );
        assert_eq!(
            (histogram.count(), histogram.max(), histogram.sum()),
            (
                9,
                Duration::from_millis(10_001),
                Duration::from_micros(20_211_011)
            )
        );
    }
}
