//! The counters of one worker, and of all workers together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::histogram::Durations;
use super::plan::{Plan, ProgressCounts};

/// Everything that a worker measures. Tallies of several workers can be merged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The counts at the end.
    pub(super) progress: ProgressCounts,
    /// Dials that failed, by cause.
    pub(super) failed: BTreeMap<String, u64>,
    /// Addresses that were dialled from, as far as the kernel was not left the choice.
    pub(super) sources: BTreeSet<IpAddr>,
    /// How long dials took.
    pub(super) connecting: Durations,
    /// What each group of connections did, in the plan's order.
    pub(super) groups: Vec<Load>,
    /// For each pushed message, its way to all listeners.
    pub(super) pushes: Vec<PushCounters>,
    pub(super) evictions: Evictions,
    /// The longest time that the worker's loop was busy without looking at its sockets anew.
    pub(super) longest_turn_ns: u64,
    /// From the beginning of the measurement to its end.
    pub(super) lasted_ns: u64,
}

/// What a group of connections sent and received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Load {
    /// Connections that ended before the measurement did, by cause; not the mute ones.
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) sent: u64,
    /// Replies.
    pub(super) answered: u64,
    /// Sent, and no reply.
    pub(super) unanswered: u64,
    /// Due, and not sent, because the connection was stuck or gone.
    pub(super) unsent: u64,
    /// Pings of the server that were answered.
    pub(super) asks: u64,
    /// From the intended instant of sending to the reply.
    pub(super) latency: Durations,
    /// How late the harness itself sent.
    pub(super) send_lag: Durations,
    /// When the last of the messages that were due was written, from the beginning of the
    /// measurement.
    pub(super) last_sent_ns: u64,
}

/// One message on its way to all listeners: instants from its intended sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PushCounters {
    pub(super) received: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// When mute connections were closed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Evictions {
    /// Time since the connection's last byte.
    pub(super) silence: Durations,
    /// The same beyond the bound.
    pub(super) overshoot: Durations,
    /// Before the bound.
    pub(super) early: u64,
    /// The shortest and the longest silence, exactly.
    pub(super) shortest_ns: Option<u64>,
    pub(super) longest_ns: Option<u64>,
    /// Still open at the end.
    pub(super) open: u64,
}

impl Counters {
    pub(super) fn new(plan: &Plan) -> Self {
        Counters {
            groups: plan.groups.iter().map(|_| Load::default()).collect(),
            pushes: vec![PushCounters::default(); plan.pushes as usize],
            ..Counters::default()
        }
    }

    pub(super) fn merge(&mut self, other: &Counters) {
        self.progress = self.progress.plus(other.progress);
        add(&mut self.failed, &other.failed);
        self.sources.extend(&other.sources);
        self.connecting.merge(&other.connecting);
        // Workers of one crew have the same groups and the same pushes.
        self.groups
            .iter_mut()
            .zip(&other.groups)
            .for_each(|(load, other)| load.merge(other));
        self.pushes
            .iter_mut()
            .zip(&other.pushes)
            .for_each(|(push, other)| push.merge(other));
        self.evictions.merge(&other.evictions);
        self.longest_turn_ns = self.longest_turn_ns.max(other.longest_turn_ns);
        self.lasted_ns = self.lasted_ns.max(other.lasted_ns);
    }

    /// Connections of all groups that ended before the measurement did, by cause.
    pub(super) fn lost(&self) -> BTreeMap<String, u64> {
        let mut lost = BTreeMap::new();
        self.groups
            .iter()
            .for_each(|load| add(&mut lost, &load.lost));
        lost
    }
}

impl Load {
    fn merge(&mut self, other: &Load) {
        add(&mut self.lost, &other.lost);
        self.sent += other.sent;
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.asks += other.asks;
        self.latency.merge(&other.latency);
        self.send_lag.merge(&other.send_lag);
        self.last_sent_ns = self.last_sent_ns.max(other.last_sent_ns);
    }
}

impl PushCounters {
    pub(super) fn record(&mut self, ns: u64) {
        self.merge(&PushCounters {
            received: 1,
            first_ns: ns,
            last_ns: ns,
        });
    }

    fn merge(&mut self, other: &PushCounters) {
        if other.received == 0 {
            return;
        }
        self.first_ns = if self.received == 0 {
            other.first_ns
        } else {
            self.first_ns.min(other.first_ns)
        };
        self.last_ns = self.last_ns.max(other.last_ns);
        self.received += other.received;
    }
}

impl Evictions {
    pub(super) fn record(&mut self, silence_ns: u64, bound_ns: Option<u64>) {
        self.silence.record(silence_ns);
        self.shortest_ns = Some(self.shortest_ns.map_or(silence_ns, |ns| ns.min(silence_ns)));
        self.longest_ns = Some(self.longest_ns.map_or(silence_ns, |ns| ns.max(silence_ns)));
        if let Some(bound_ns) = bound_ns {
            match silence_ns.checked_sub(bound_ns) {
                Some(overshoot_ns) => self.overshoot.record(overshoot_ns),
                None => self.early += 1,
            }
        }
    }

    fn merge(&mut self, other: &Evictions) {
        self.silence.merge(&other.silence);
        self.overshoot.merge(&other.overshoot);
        self.early += other.early;
        self.shortest_ns = self.shortest_ns.into_iter().chain(other.shortest_ns).min();
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.open += other.open;
    }
}

fn add(to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (cause, count) in from {
        *to.entry(cause.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_lasts_from_first_to_last_arrival() {
        let (mut one, mut other) = (PushCounters::default(), PushCounters::default());
        [30, 10, 20].into_iter().for_each(|ns| one.record(ns));
        [5, 25].into_iter().for_each(|ns| other.record(ns));
        one.merge(&other);
        one.merge(&PushCounters::default());
        assert_eq!(
            one,
            PushCounters {
                received: 5,
                first_ns: 5,
                last_ns: 30
            }
        );
    }

    #[test]
    fn evictions_are_early_or_late_by_the_bound() {
        let mut all = Evictions::default();
        let mut other = Evictions::default();
        all.record(999, Some(1000));
        other.record(1000, Some(1000));
        other.record(1500, Some(1000));
        all.merge(&other);
        all.merge(&Evictions::default());
        assert_eq!(
            (all.early, all.overshoot.len(), all.silence.len()),
            (1, 2, 3)
        );
        assert_eq!((all.shortest_ns, all.longest_ns), (Some(999), Some(1500)));
    }

    #[test]
    fn causes_add_up() {
        let causes = |refused, reset| {
            BTreeMap::from([
                ("refused".to_string(), refused),
                ("reset".to_string(), reset),
            ])
        };
        let mut counters = Counters {
            failed: causes(1, 2),
            ..Counters::default()
        };
        counters.merge(&Counters {
            failed: causes(10, 20),
            ..Counters::default()
        });
        assert_eq!(counters.failed, causes(11, 22));
    }

    #[test]
    fn losses_are_counted_by_group_and_in_all() {
        let load = |cause: &str, count| Load {
            lost: BTreeMap::from([(cause.to_string(), count)]),
            ..Load::default()
        };
        let mut counters = Counters {
            groups: vec![load("reset", 1), load("timeout", 2)],
            ..Counters::default()
        };
        counters.merge(&Counters {
            groups: vec![load("reset", 10), load("reset", 20)],
            ..Counters::default()
        });
        assert_eq!(
            counters.groups[0].lost,
            BTreeMap::from([("reset".to_string(), 11)])
        );
        assert_eq!(
            counters.lost(),
            BTreeMap::from([("reset".to_string(), 31), ("timeout".to_string(), 2)])
        );
    }
}
