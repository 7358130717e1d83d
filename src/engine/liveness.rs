//! When a quiet peer is pinged, and when unanswered pings lead to a verdict. Pure arithmetic.
//!
//! With `H` the heartbeat interval, `R` the retry, `M` the pings that may be missed, `L` the last
//! sign of life and `tick` the wheel's resolution:
//!
//! * ping 1 is due at `L + H`, less a jitter between `tick` and `H/8`;
//! * ping `k` of `M` is due at `L + H + (k-1)*R`, less a jitter between `tick` and `R/8`, and at
//!   least `R/2` after ping `k - 1`;
//! * for a peer that sends pings by itself, ping 1 is due at `L + H + tick`, so that the peer's own
//!   ping, which comes every `H`, makes it superfluous; but only if the later pings can make up for
//!   the delay: `M >= 2`, `H >= 8 ticks` and `R >= 8 ticks`;
//! * the verdict is due at `L + H + R*M + 1 ms`, and at least `R + 1 ms` after the last ping was
//!   sent.
//!
//! The millisecond makes up for the rounding of [`Timestamp`]: the peer's last byte may have
//! come up to 1 ms after its stamp.
//!
//! On a loop without lag the verdict comes within `(H + R*M, H + R*M + tick]` of the last byte. The
//! first term gives the lower end. For the upper end, the second term must not be later than the
//! first: the last ping must be sent by `L + H + R*(M-1)`. It fires up to a tick after it is due,
//! and its jitter is at least a tick. The spacing does not delay it: if ping `k - 1` was sent by
//! `L + H + R*(k-2)`, ping `k` may be sent from `R/2` after that, and `R/2 <= R - tick` since `R >=
//! 2 ticks`. A delayed ping 1 is sent by `L + H + 2 ticks`; then ping 2 may be sent from `L + H + 2
//! ticks + R/2`, which is at most `L + H + R - tick` since `R >= 8 ticks`.
//!
//! Lag delays the pings and with them the verdict; it never brings it forward.
//!
//! A connection that was granted an interval of its own has that one in the place of `H`, and in the
//! place of `R` if that is longer.
//!
//! If the heartbeat was changed or granted since `L`, the verdict is due as if the last sign of life
//! had come at the change: a peer gets one full new timeout.

use crate::config::Heartbeat;
use crate::time::{Timestamp, duration_to_ms};

/// The rules of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Liveness {
    interval_ms: u64,
    retry_ms: u64,
    bound_ms: u64,
    max_missed: u8,
    send_pings: bool,
    tick_ms: u64,
    /// Whether the first ping to a peer that sends pings by itself is delayed.
    defers_to_peer_pings: bool,
    in_force_since: Timestamp,
}

/// What the liveness of one connection depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) last_seen: Timestamp,
    pub(super) pings_unanswered: u8,
    pub(super) last_ping: Option<Timestamp>,
    /// Whether the peer sends pings of its own.
    pub(super) beats: bool,
    /// Any number that differs between connections: it spreads their pings.
    pub(super) salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do before this instant.
    Alive { check_again: Timestamp },
    /// A ping is due.
    Ping,
    /// Silent for too long and pinged often enough. A final read decides.
    Suspect,
}

impl Liveness {
    pub(super) fn new(heartbeat: &Heartbeat, tick_ms: u64, in_force_since: Timestamp) -> Self {
        Liveness {
            interval_ms: duration_to_ms(heartbeat.interval),
            retry_ms: duration_to_ms(heartbeat.retry()),
            bound_ms: duration_to_ms(heartbeat.timeout()),
            max_missed: heartbeat.max_missed,
            send_pings: heartbeat.send_pings,
            tick_ms,
            defers_to_peer_pings: heartbeat.max_missed >= 2
                && duration_to_ms(heartbeat.shortest()) >= 8 * tick_ms,
            in_force_since,
        }
    }

    pub(super) fn judge(&self, now: Timestamp, evidence: &Evidence) -> Verdict {
        let check_again = self.next_check(evidence);
        if now < check_again {
            Verdict::Alive { check_again }
        } else if self.asks(evidence) {
            Verdict::Ping
        } else {
            Verdict::Suspect
        }
    }

    /// When the next ping or the verdict is due, if the peer stays silent.
    pub(super) fn next_check(&self, evidence: &Evidence) -> Timestamp {
        let Evidence {
            last_seen,
            pings_unanswered,
            last_ping,
            beats,
            salt,
        } = *evidence;
        let after_last_ping =
            |ms| last_ping.map_or(Timestamp::ZERO, |last_ping| last_ping.plus_ms(ms));
        if !self.asks(evidence) {
            return self
                .deadline(last_seen)
                .max(after_last_ping(self.retry_ms + 1));
        }
        if pings_unanswered == 0 {
            let deferred = self.defers_to_peer_pings && beats;
            let silence_ms = if deferred {
                self.interval_ms + self.tick_ms
            } else {
                self.interval_ms - self.jitter_ms(self.interval_ms, salt)
            };
            return last_seen.plus_ms(silence_ms);
        }
        let retries = u64::from(pings_unanswered);
        let silence_ms = self.interval_ms + retries * self.retry_ms;
        let by_silence =
            last_seen.plus_ms(silence_ms - self.jitter_ms(self.retry_ms, salt ^ retries));
        // Also after a lag, pings do not come in a burst.
        by_silence.max(after_last_ping(self.retry_ms / 2))
    }

    /// The earliest instant at which silence since `last_seen` may be a verdict.
    pub(super) fn deadline(&self, last_seen: Timestamp) -> Timestamp {
        last_seen
            .max(self.in_force_since)
            .plus_ms(self.bound_ms + 1)
    }

    pub(super) fn in_force_since(&self) -> Timestamp {
        self.in_force_since
    }

    /// The same rules with another interval, in force since `since`, and with a retry that is no
    /// longer than that interval.
    pub(super) fn with_interval(self, interval_ms: u64, since: Timestamp) -> Self {
        let retry_ms = self.retry_ms.min(interval_ms);
        Liveness {
            interval_ms,
            retry_ms,
            in_force_since: self.in_force_since.max(since),
            bound_ms: interval_ms + retry_ms * u64::from(self.max_missed),
            defers_to_peer_pings: self.max_missed >= 2
                && retry_ms.min(interval_ms) >= 8 * self.tick_ms,
            ..self
        }
    }

    pub(super) fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    pub(super) fn max_missed(&self) -> u8 {
        self.max_missed
    }

    /// How long a ping has to be answered.
    pub(super) fn retry_ms(&self) -> u64 {
        self.retry_ms
    }

    pub(super) fn bound_ms(&self) -> u64 {
        self.bound_ms
    }

    /// Whether peers are sent pings.
    pub(super) fn pings(&self) -> bool {
        self.send_pings
    }

    /// Whether the next step for a silent peer is a ping; if not, it is the verdict.
    pub(super) fn asks(&self, evidence: &Evidence) -> bool {
        self.send_pings && evidence.pings_unanswered < self.max_missed
    }

    /// Shortens a wait of `wait_ms` by a fixed amount per connection and ping, so that connections
    /// opened together drift apart, the same way in each run.
    fn jitter_ms(&self, wait_ms: u64, salt: u64) -> u64 {
        let most = (wait_ms / 8).max(self.tick_ms);
        self.tick_ms + fastrand::Rng::with_seed(salt).u64(0..=most - self.tick_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn liveness(interval_ms: u64, max_missed: u8, send_pings: bool, tick_ms: u64) -> Liveness {
        with_retry(interval_ms, None, max_missed, send_pings, tick_ms)
    }

    fn with_retry(
        interval_ms: u64,
        retry_ms: Option<u64>,
        max_missed: u8,
        send_pings: bool,
        tick_ms: u64,
    ) -> Liveness {
        let heartbeat = Heartbeat {
            interval: Duration::from_millis(interval_ms),
            retry: retry_ms.map(Duration::from_millis),
            max_missed,
            send_pings,
            ..Heartbeat::default()
        };
        Liveness::new(&heartbeat, tick_ms, Timestamp::ZERO)
    }

    fn silent_since(last_seen_ms: u64) -> Evidence {
        Evidence {
            last_seen: Timestamp::from_ms(last_seen_ms),
            pings_unanswered: 0,
            last_ping: None,
            beats: false,
            salt: 7,
        }
    }

    /// Plays a peer that sends nothing after `last_seen`, checked on a wheel of `tick_ms`; returns
    /// the pings and the verdict.
    fn play(liveness: &Liveness, mut evidence: Evidence) -> (Vec<u64>, u64) {
        let on_wheel = |at: Timestamp| {
            Timestamp::from_ms(at.as_ms().div_ceil(liveness.tick_ms) * liveness.tick_ms)
        };
        let mut pings = Vec::new();
        let mut now = on_wheel(liveness.next_check(&evidence));
        loop {
            match liveness.judge(now, &evidence) {
                Verdict::Alive { check_again } => now = on_wheel(check_again),
                Verdict::Ping => {
                    pings.push(now.as_ms());
                    evidence.pings_unanswered += 1;
                    evidence.last_ping = Some(now);
                }
                Verdict::Suspect => return (pings, now.as_ms()),
            }
        }
    }

    proptest! {
        #[test]
        fn verdict_comes_within_a_tick_after_the_timeout(
            tick_ms in 1u64..200,
            ticks_per_interval in 2u64..60,
            ticks_per_retry in 2u64..60,
            odd_ms in 0u64..200,
            max_missed in 1u8..8,
            last_seen_ms in 0u64..1_000_000,
            salt in any::<u64>(),
            send_pings in any::<bool>(),
            beats in any::<bool>(),
        ) {
            let interval_ms = ticks_per_interval * tick_ms + odd_ms;
            let retry_ms = ticks_per_retry * tick_ms + odd_ms;
            let bound_ms = interval_ms + retry_ms * u64::from(max_missed);
            let rules = with_retry(interval_ms, Some(retry_ms), max_missed, send_pings, tick_ms);
            let evidence = Evidence { salt, beats, ..silent_since(last_seen_ms) };
            let (pings, verdict) = play(&rules, evidence);
            prop_assert!(verdict > last_seen_ms + bound_ms);
            prop_assert!(verdict <= last_seen_ms + bound_ms + tick_ms);
            prop_assert_eq!(pings.len(), if send_pings { usize::from(max_missed) } else { 0 });
            for (k, ping) in pings.iter().enumerate() {
                let courtesy_ms = if beats && k == 0 { 2 * tick_ms } else { 0 };
                let due_ms = last_seen_ms + interval_ms + k as u64 * retry_ms;
                prop_assert!(*ping <= due_ms + courtesy_ms, "jitter only ever shortens");
            }
            for pair in pings.windows(2) {
                prop_assert!(pair[1] - pair[0] >= retry_ms / 2);
            }
            if let Some(last) = pings.last() {
                prop_assert!(verdict - last > retry_ms, "the last ping has its whole retry");
            }
        }
    }

    #[test]
    fn short_retry_after_a_long_interval_finds_a_dead_peer_soon() {
        let rules = with_retry(240_000, Some(5000), 3, true, 100);
        let (pings, verdict) = play(&rules, silent_since(0));
        assert!((210_000..=240_000).contains(&pings[0]), "{pings:?}");
        assert!((244_375..=245_000).contains(&pings[1]), "{pings:?}");
        assert!((249_375..=250_000).contains(&pings[2]), "{pings:?}");
        assert!((255_001..=255_100).contains(&verdict), "{verdict}");
    }

    #[test]
    fn late_wake_up_pings_before_a_verdict() {
        let liveness = liveness(1000, 3, true, 100);
        let late = Timestamp::from_ms(60_000);
        let mut evidence = silent_since(0);
        assert_eq!(liveness.judge(late, &evidence), Verdict::Ping);
        evidence.pings_unanswered = 3;
        evidence.last_ping = Some(late);
        assert_eq!(
            liveness.judge(late, &evidence),
            Verdict::Alive {
                check_again: late.plus_ms(1001)
            }
        );
    }

    #[test]
    fn peer_that_pings_in_time_gets_no_ping() {
        let liveness = liveness(5000, 3, true, 100);
        let beating = Evidence {
            beats: true,
            ..silent_since(0)
        };
        assert!(matches!(
            liveness.judge(Timestamp::from_ms(5099), &beating),
            Verdict::Alive { .. }
        ));
        assert_eq!(
            liveness.judge(Timestamp::from_ms(5100), &beating),
            Verdict::Ping
        );
        assert_eq!(
            liveness.judge(Timestamp::from_ms(5000), &silent_since(0)),
            Verdict::Ping
        );
    }

    #[test]
    fn pings_of_connections_opened_together_are_spread() {
        let liveness = liveness(5000, 3, true, 100);
        let due: std::collections::BTreeSet<u64> = (0..1000)
            .map(|salt| {
                liveness
                    .next_check(&Evidence {
                        salt,
                        ..silent_since(0)
                    })
                    .as_ms()
            })
            .collect();
        assert!(due.len() > 300, "{} instants", due.len());
        assert!(due.iter().all(|due| (4375..=4900).contains(due)));
    }
}
