//! How many messages a connection may send: a token bucket for each (GCRA, as ITU-T I.371 calls
//! it), kept beside the slab and only with a limit.

use std::num::NonZeroU32;

use crate::time::Timestamp;

/// The burst that a connection may send after a rest, in time at its full rate.
const BURST_NS: u64 = 1_000_000_000;
/// A connection that has kept to its rate for this long is below it again.
const FORGIVEN_NS: u64 = 1_000_000_000;
/// A connection that stays above its rate for so long is closed.
const FLOOD_MS: u64 = 10_000;

/// The buckets of all connections.
pub(super) struct RateLimiter {
    /// Time that one message costs.
    message_ns: u64,
    /// The size of a full bucket: at least two messages, or a message that comes slightly early
    /// would exceed the rate.
    burst_ns: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// When the bucket will be full again: GCRA's theoretical arrival time.
    full_at_ns: u64,
    /// Since when the connection has been over its rate.
    over_since: Option<Timestamp>,
    /// When the last message that was over the rate was paid for.
    paid_at_ns: u64,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateDecision {
    /// The next message is allowed at once.
    Allowed,
    /// No message is allowed before [`RateLimiter::resumes_at`].
    Paused,
    /// It has been like this for too long.
    Exceeded,
}

impl RateLimiter {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let message_ns = BURST_NS / u64::from(per_second.get());
        RateLimiter {
            message_ns,
            burst_ns: BURST_NS.max(2 * message_ns),
            buckets: Vec::new(),
        }
    }

    /// A connection begins, with a full bucket.
    pub(super) fn open(&mut self, slot: usize) {
        if self.buckets.len() <= slot {
            self.buckets.resize(slot + 1, Bucket::default());
        }
        self.buckets[slot] = Bucket::default();
    }

    /// Counts `messages` that have arrived.
    pub(super) fn count(&mut self, now: Timestamp, slot: usize, messages: u32) -> RateDecision {
        let now_ns = to_ns(now);
        // A flood exceeds the rate again as soon as it is read. A peer that has kept to the rate
        // for a second since is no flood.
        let forgiven = now_ns >= self.buckets[slot].paid_at_ns.saturating_add(FORGIVEN_NS);
        let bucket = &mut self.buckets[slot];
        if forgiven {
            bucket.over_since = None;
        }
        bucket.full_at_ns = bucket
            .full_at_ns
            .max(now_ns)
            .saturating_add(self.message_ns.saturating_mul(u64::from(messages)));
        let paid_at_ns = self.resumes_at_ns(slot);
        if paid_at_ns <= now_ns {
            return RateDecision::Allowed;
        }
        let bucket = &mut self.buckets[slot];
        bucket.paid_at_ns = paid_at_ns;
        let over_since = *bucket.over_since.get_or_insert(now);
        if now.ms_since(over_since) >= FLOOD_MS {
            RateDecision::Exceeded
        } else {
            RateDecision::Paused
        }
    }

    /// When a paused connection is read again: when there is room for a message, or when the next
    /// one closes it. A single read in `raw` may cost more than that time at the full rate.
    pub(super) fn resumes_at(&self, slot: usize) -> Timestamp {
        let paid_at = Timestamp::from_ms(self.resumes_at_ns(slot).div_ceil(1_000_000));
        match self.buckets[slot].over_since {
            Some(since) => paid_at.min(since.plus_ms(FLOOD_MS)),
            None => paid_at,
        }
    }

    fn resumes_at_ns(&self, slot: usize) -> u64 {
        self.buckets[slot]
            .full_at_ns
            .saturating_sub(self.burst_ns - self.message_ns)
    }
}

fn to_ns(at: Timestamp) -> u64 {
    at.as_ms().saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate_limiter(per_second: u32) -> RateLimiter {
        let mut rate_limiter =
            RateLimiter::new(NonZeroU32::new(per_second).expect("more than none"));
        rate_limiter.open(3);
        rate_limiter
    }

    /// Sends as fast as it may for so long; returns how many messages that were, and whether it
    /// ended as a flood.
    fn flood(rate_limiter: &mut RateLimiter, for_ms: u64) -> (u64, bool) {
        let (mut now, mut sent) = (Timestamp::from_ms(5000), 0);
        let end = now.plus_ms(for_ms);
        while now < end {
            sent += 1;
            match rate_limiter.count(now, 3, 1) {
                RateDecision::Allowed => {}
                RateDecision::Paused => now = rate_limiter.resumes_at(3).max(now.plus_ms(1)),
                RateDecision::Exceeded => return (sent, true),
            }
        }
        (sent, false)
    }

    #[test]
    fn rate_limit_allows_a_burst_then_pauses_then_closes() {
        for per_second in [1, 7, 100, 900] {
            let expected = u64::from(per_second) * 9;
            let (sent, ended) = flood(&mut rate_limiter(per_second), 8000);
            assert!(
                !ended && sent.abs_diff(expected) <= expected / 50 + 2,
                "{sent} messages at {per_second} per second, not {expected}"
            );
            assert!(flood(&mut rate_limiter(per_second), 20_000).1);
        }
    }

    #[test]
    fn pause_ends_after_ten_seconds_and_the_next_message_is_too_many() {
        let (mut rate_limiter, now) = (rate_limiter(1), Timestamp::from_ms(5000));
        assert_eq!(rate_limiter.count(now, 3, 100), RateDecision::Paused);
        let resumes_at = rate_limiter.resumes_at(3);
        assert_eq!(resumes_at, now.plus_ms(FLOOD_MS));
        assert_eq!(rate_limiter.count(resumes_at, 3, 1), RateDecision::Exceeded);
    }

    #[test]
    fn messages_at_the_rate_are_not_paused() {
        let mut rate_limiter = rate_limiter(10);
        for message in 0..1000 {
            assert_eq!(
                rate_limiter.count(Timestamp::from_ms(message * 100), 3, 1),
                RateDecision::Allowed
            );
        }
    }

    #[test]
    fn rate_limit_forgives_after_a_second_below_the_rate() {
        let mut rate_limiter = rate_limiter(10);
        for spell in 0..100 {
            let from = Timestamp::from_ms(spell * 4000);
            let rate_limited = (0..20)
                .map(|_| rate_limiter.count(from, 3, 1))
                .collect::<Vec<_>>();
            assert!(
                rate_limited.contains(&RateDecision::Paused)
                    && !rate_limited.contains(&RateDecision::Exceeded),
                "spell {spell}"
            );
        }
    }

    /// Messages at a little less than the rate, between two bursts that go over it.
    #[test]
    fn bursts_twelve_seconds_apart_are_not_a_flood() {
        for per_second in [1, 5, 50] {
            let mut rate_limiter = rate_limiter(per_second);
            let every_ms = 1000 / u64::from(per_second) + 2;
            let mut count = |ms| rate_limiter.count(Timestamp::from_ms(ms), 3, 1);
            let burst = per_second + 2;
            (0..burst).for_each(|_| assert_ne!(count(5000), RateDecision::Exceeded));
            let begin = 5000 + 2 * 1000 + every_ms;
            for message in 0..12_000 / every_ms {
                let counted = count(begin + message * every_ms);
                assert_ne!(counted, RateDecision::Exceeded, "{per_second} per second");
            }
            for _ in 0..burst {
                assert_ne!(
                    count(20_000),
                    RateDecision::Exceeded,
                    "{per_second} per second"
                );
            }
        }
    }

    #[test]
    fn new_connection_starts_with_a_full_bucket() {
        let mut rate_limiter = rate_limiter(1);
        assert_eq!(
            rate_limiter.count(Timestamp::ZERO, 3, 1000),
            RateDecision::Paused
        );
        rate_limiter.open(3);
        assert_eq!(
            (
                rate_limiter.count(Timestamp::ZERO, 3, 1),
                rate_limiter.count(Timestamp::ZERO, 3, 1)
            ),
            (RateDecision::Allowed, RateDecision::Paused)
        );
    }
}
