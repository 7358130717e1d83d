//! The last closed connections, kept for `GET /closed`.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::admin::api::{ClosedEntry, Displaced, MAX_CLOSED, NetworkTotal};
use crate::close::Origin;
use crate::engine::Closed;
use crate::id::ConnId;
use crate::totals::Totals;

/// Length of a period. Totals are shown for one more period after it.
const DISPLACED_PERIOD: Duration = Duration::from_secs(600);
/// Networks shown, largest first.
const SHOWN_NETWORKS: usize = 20;

/// The last closes, and how many there were in all.
#[derive(Default)]
pub(crate) struct ClosedRing {
    entries: VecDeque<Entry>,
    total: u64,
    /// Totals of removed entries: of the current period and of the previous one.
    displaced: [Option<DisplacedTotals>; 2],
}

/// Totals of the entries removed in one period.
struct DisplacedTotals {
    since: SystemTime,
    totals: Totals,
}

struct Entry {
    id: ConnId,
    at: SystemTime,
    closed: Closed,
}

impl ClosedRing {
    pub(super) fn push(&mut self, id: ConnId, closed: &Closed) {
        if self.entries.len() == MAX_CLOSED
            && let Some(oldest) = self.entries.pop_front()
        {
            self.displace(&oldest.closed);
        }
        self.entries.push_back(Entry {
            id,
            at: SystemTime::now(),
            closed: closed.clone(),
        });
        self.total += 1;
    }

    fn displace(&mut self, closed: &Closed) {
        let now = SystemTime::now();
        let [current, before] = &mut self.displaced;
        let is_over = current.as_ref().is_some_and(|displaced| {
            // A clock that was set back ends the period as well.
            now.duration_since(displaced.since)
                .map_or(true, |age| age >= DISPLACED_PERIOD)
        });
        if is_over {
            *before = current.take();
        }
        let displaced = current.get_or_insert_with(|| DisplacedTotals {
            since: now,
            totals: Totals::default(),
        });
        displaced
            .totals
            .count(closed.reason.as_str(), closed.peer.ip());
    }

    /// Totals of recently removed entries, the current period first.
    pub(super) fn displaced(&self) -> Vec<Displaced> {
        self.displaced
            .iter()
            .flatten()
            .map(displaced_view)
            .collect()
    }

    /// How many there ever were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The last `limit` of them, newest first.
    pub(super) fn newest(&self, limit: usize) -> Vec<ClosedEntry> {
        self.entries.iter().rev().take(limit).map(view).collect()
    }
}

fn displaced_view(DisplacedTotals { since, totals }: &DisplacedTotals) -> Displaced {
    let (networks, other_networks) = totals.networks(SHOWN_NETWORKS);
    let networks = networks.into_iter().map(|(network, closed)| NetworkTotal {
        network: network.to_string(),
        closed,
    });
    let reasons = totals.reasons().into_iter();
    Displaced {
        since: humantime::format_rfc3339_millis(*since).to_string(),
        closed: totals.sum(),
        reasons: reasons
            .map(|(reason, closed)| (reason.to_owned(), closed))
            .collect(),
        networks: networks.collect(),
        other_networks,
    }
}

fn view(Entry { id, at, closed }: &Entry) -> ClosedEntry {
    let origin = match closed.reason.origin() {
        Origin::Peer => "peer",
        Origin::Network => "network",
        Origin::Policy => "policy",
        Origin::Local => "local",
    };
    ClosedEntry {
        id: id.to_string(),
        name: closed.name.as_ref().map(ToString::to_string),
        address: closed.peer.to_string(),
        at: humantime::format_rfc3339_millis(*at).to_string(),
        reason: closed.reason.to_string(),
        origin: origin.into(),
        denied: closed.denied.map(|denied| denied.to_string()),
        age_s: closed.age.as_secs_f64(),
        silence_s: closed.silence.as_secs_f64(),
        pings_unanswered: closed.pings_unanswered.into(),
        bytes_in: closed.bytes_in,
        bytes_out: closed.bytes_out,
        unsent: closed.unsent as u64,
        unfinished: closed.unfinished as u64,
        unacknowledged_s: closed.unacknowledged.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::server::broadcasts::Broadcasts;
    use crate::admin::server::opened::OpenedRing;
    use crate::admin::server::recording::{RecordedEvents, RecordingHandler};
    use crate::config::Config;
    use crate::engine::{Close, Context, Engine, Handler};
    use crate::time::Timestamp;

    struct Nothing;

    impl Handler for Nothing {
        fn on_message(&mut self, _: &mut Context<'_>, _: ConnId, _: &[u8]) {}
    }

    #[test]
    fn ring_keeps_the_newest_closes_and_counts_all() {
        let mut ring = ClosedRing::default();
        let mut handler = RecordingHandler {
            handler: &mut Nothing,
            memory: Some(RecordedEvents {
                closed: &mut ring,
                opened: &mut OpenedRing::default(),
                broadcasts: &mut Broadcasts::default(),
            }),
        };
        let mut engine = Engine::new(&Config::default()).expect("it is valid");
        let peer = "192.0.2.1:5000".parse().expect("an address");
        for _ in 0..MAX_CLOSED + 5 {
            let id = engine
                .handle_open(Timestamp::ZERO, peer, &mut handler)
                .expect("there is room");
            engine.close_on_request(id, Close::Now);
            engine
                .poll_closed(Timestamp::ZERO, &mut handler)
                .expect("it is closed");
        }
        assert_eq!(
            (ring.total(), ring.entries.len()),
            (MAX_CLOSED as u64 + 5, MAX_CLOSED)
        );
        let displaced = ring.displaced();
        assert_eq!(displaced.len(), 1);
        assert_eq!(displaced[0].closed, 5);
        assert_eq!(displaced[0].reasons["requested"], 5);
        assert_eq!(displaced[0].networks[0].network, "192.0.2.0/24");
        let newest = ring.newest(3);
        let generations: Vec<&str> = newest
            .iter()
            .filter_map(|view| Some(view.id.split_once('.')?.1))
            .collect();
        assert_eq!(generations, ["1005", "1004", "1003"]);
        assert_eq!(
            (
                newest[0].reason.as_str(),
                newest[0].origin.as_str(),
                newest[0].address.as_str()
            ),
            ("requested", "local", "192.0.2.1:5000")
        );
    }
}
