//! Round-trip times of heartbeats.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Round-trip times of the heartbeats that were answered, over all lines of one client.
///
/// Measured from queueing the ping to decoding its pong on a clock of whole milliseconds, so each
/// may be 1 ms off. A peer that never answers `pong` leaves `count` at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttStats {
    /// The latest.
    pub last: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// The running average of RFC 6298: 7/8 of itself and 1/8 of each new one, beginning with the
    /// first.
    pub smoothed: Duration,
    /// How many heartbeats were answered.
    pub count: u64,
}

impl RttStats {
    fn add(&mut self, rtt: Duration) {
        if self.count == 0 {
            *self = RttStats {
                last: rtt,
                min: rtt,
                max: rtt,
                smoothed: rtt,
                count: 1,
            };
            return;
        }
        self.last = rtt;
        self.min = self.min.min(rtt);
        self.max = self.max.max(rtt);
        self.smoothed = (self.smoothed * 7 + rtt) / 8;
        self.count += 1;
    }
}

/// Pings timed at once. A peer further behind than this is still matched in order, only not timed.
const TIMED_PINGS: usize = 16;

/// The pings of one line that were not answered yet, oldest first.
///
/// TCP keeps order and a pong carries no name, so pongs are matched to pings in order. Bounded: a
/// peer that never answers costs a counter, not a queue.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    timed: VecDeque<Timestamp>,
    /// Pings sent after the timed ones.
    untimed: u64,
}

impl Outstanding {
    pub(crate) fn handle_ping(&mut self, now: Timestamp) {
        if self.untimed == 0 && self.timed.len() < TIMED_PINGS {
            self.timed.push_back(now);
        } else {
            self.untimed += 1;
        }
    }

    /// Matches one pong, adds its time to `stats` and returns it. `None` for a pong without a ping,
    /// and for a ping that was not timed.
    pub(crate) fn handle_pong(&mut self, now: Timestamp, stats: &mut RttStats) -> Option<Duration> {
        let Some(sent) = self.timed.pop_front() else {
            self.untimed = self.untimed.saturating_sub(1);
            return None;
        };
        let rtt = Duration::from_millis(now.ms_since(sent));
        stats.add(rtt);
        Some(rtt)
    }

    /// Stops waiting for the answers, because one may have gone by unseen: a later pong must not be
    /// taken for an earlier one.
    pub(crate) fn forget(&mut self) {
        *self = Outstanding::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn pongs_answer_pings_in_order() {
        let (mut pings, mut stats) = (Outstanding::default(), RttStats::default());
        pings.handle_ping(at(0));
        pings.handle_ping(at(100));
        assert_eq!(
            pings.handle_pong(at(150), &mut stats),
            Some(Duration::from_millis(150))
        );
        assert_eq!(
            pings.handle_pong(at(160), &mut stats),
            Some(Duration::from_millis(60))
        );
        assert_eq!(pings.handle_pong(at(170), &mut stats), None);
        assert_eq!(
            (stats.last, stats.min, stats.max, stats.count),
            (
                stats.min,
                Duration::from_millis(60),
                Duration::from_millis(150),
                2
            )
        );
        assert_eq!(
            stats.smoothed,
            Duration::from_micros((150_000 * 7 + 60_000) / 8)
        );
    }

    #[test]
    fn unanswered_pings_are_bounded_and_late_pongs_matched() {
        let (mut pings, mut stats) = (Outstanding::default(), RttStats::default());
        for beat in 0..1000 {
            pings.handle_ping(at(beat * 10));
        }
        assert_eq!(pings.timed.len(), TIMED_PINGS);
        let timed = (0..1000)
            .filter(|_| pings.handle_pong(at(20_000), &mut stats).is_some())
            .count();
        assert_eq!(timed, TIMED_PINGS);
        pings.handle_ping(at(30_000));
        assert_eq!(
            pings.handle_pong(at(30_007), &mut stats),
            Some(Duration::from_millis(7))
        );
    }
}
