//! Lists of connections. A server may hold tens of thousands, so a listing is built in parts and
//! keeps only the connections of its page and those before it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use crate::admin::api::{ConnectionEntry, ConnectionList, Direction, Sort};
use crate::engine::{ConnectionInfo, Context};
use crate::id::ConnId;

/// Slots visited per turn: about 50 us.
const SLOTS_PER_TURN: usize = 1024;

/// The query of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub(super) sort: Sort,
    pub(super) order: Direction,
    pub(super) offset: usize,
    pub(super) limit: usize,
    /// What a name, or an address with its port, must begin with.
    pub(super) search: String,
}

impl Default for ListQuery {
    fn default() -> Self {
        ListQuery {
            sort: Sort::Silence,
            order: Direction::Descending,
            offset: 0,
            limit: 100,
            search: String::new(),
        }
    }
}

/// The rank of a connection in a listing: higher ranks come first. Connections without the figure
/// come last in either order, and equal ranks are ordered by slot, so that pages follow one
/// another.
type Rank = (u64, Reverse<ConnId>);

/// A listing that is being made.
pub(super) struct Listing {
    query: ListQuery,
    /// Where the next part begins.
    slot: usize,
    matched: usize,
    /// The best of those seen, the worst of them on top.
    kept: BinaryHeap<Reverse<Rank>>,
    /// For the address of one connection after the other.
    text: String,
}

impl Listing {
    pub(super) fn new(query: ListQuery) -> Self {
        Listing {
            query,
            slot: 0,
            matched: 0,
            kept: BinaryHeap::new(),
            text: String::new(),
        }
    }

    /// Visits some more connections; `true` if those were the last.
    pub(super) fn advance(&mut self, cx: &Context<'_>) -> bool {
        let Some(connections) = cx.snapshot_slots(self.slot, SLOTS_PER_TURN) else {
            return true;
        };
        let most = self.query.offset + self.query.limit;
        for connection in connections {
            if !matches(&self.query.search, &connection, &mut self.text) {
                continue;
            }
            self.matched += 1;
            let rank = rank(&self.query, &connection);
            if self.kept.len() < most {
                self.kept.push(Reverse(rank));
            } else if let Some(mut worst) = self.kept.peek_mut()
                && worst.0 < rank
            {
                *worst = Reverse(rank);
            }
        }
        self.slot += SLOTS_PER_TURN;
        false
    }

    /// The page as of now: connections that have closed meanwhile are not on it.
    pub(super) fn finish(self, cx: &Context<'_>) -> ConnectionList {
        let mut kept = self.kept.into_vec();
        let page = match self.query.offset {
            offset if offset >= kept.len() => &mut [],
            0 => &mut kept[..],
            // Only the page need be in order, not what is passed over.
            offset => {
                kept.select_nth_unstable_by_key(offset - 1, |Reverse(rank)| Reverse(*rank))
                    .2
            }
        };
        let mut page: Vec<(Rank, ConnectionInfo)> = page
            .iter()
            .filter_map(|Reverse((_, Reverse(id)))| cx.snapshot(*id))
            .map(|connection| (rank(&self.query, &connection), connection))
            .collect();
        page.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        ConnectionList {
            open: cx.connections() as u64,
            matched: self.matched as u64,
            offset: self.query.offset as u64,
            limit: self.query.limit as u64,
            sort: self.query.sort.as_str().into(),
            order: self.query.order.as_str().into(),
            connections: page
                .iter()
                .map(|(_, connection)| entry(connection))
                .collect(),
        }
    }
}

fn matches(prefix: &str, connection: &ConnectionInfo, text: &mut String) -> bool {
    let name = connection.name.as_deref();
    if prefix.is_empty() || name.is_some_and(|name| name.starts_with(prefix)) {
        return true;
    }
    text.clear();
    write!(text, "{}", connection.peer).is_ok() && text.starts_with(prefix)
}

fn rank(query: &ListQuery, connection: &ConnectionInfo) -> Rank {
    let rank = match (sort_key(query.sort, connection), query.order) {
        (None, _) => 0,
        (Some(key), Direction::Descending) => key.saturating_add(1),
        (Some(key), Direction::Ascending) => u64::MAX - key,
    };
    (rank, Reverse(connection.id))
}

/// The figure that `sort` uses, for one connection.
fn sort_key(sort: Sort, connection: &ConnectionInfo) -> Option<u64> {
    let ms =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match sort {
        Sort::Silence => Some(ms(connection.silence)),
        Sort::Age => Some(ms(connection.age)),
        Sort::Queued => Some(connection.queued as u64),
        Sort::Bytes => Some(connection.bytes_in.saturating_add(connection.bytes_out)),
        Sort::RoundTrip => connection.round_trip.map(ms),
    }
}

/// A connection as the endpoint shows it.
pub(super) fn entry(connection: &ConnectionInfo) -> ConnectionEntry {
    ConnectionEntry {
        id: connection.id.to_string(),
        name: connection.name.as_ref().map(ToString::to_string),
        address: connection.peer.to_string(),
        bound_s: connection.timeout.map(|timeout| timeout.as_secs_f64()),
        age_s: connection.age.as_secs_f64(),
        silence_s: connection.silence.as_secs_f64(),
        round_trip_ms: sort_key(Sort::RoundTrip, connection),
        bytes_in: connection.bytes_in,
        bytes_out: connection.bytes_out,
        queued: connection.queued as u64,
        unfinished: connection.unfinished as u64,
        pings_unanswered: connection.pings_unanswered.into(),
        closing: connection.closing,
        awaits_login: connection.awaits_login,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::{Engine, Handler};
    use crate::time::Timestamp;

    struct Nothing;

    impl Handler for Nothing {
        fn on_message(&mut self, _: &mut Context<'_>, _: ConnId, _: &[u8]) {}
    }

    /// One connection opened per second, from ports 1000, 1001 and so on.
    fn engine(connections: u16) -> Engine {
        let mut engine = Engine::new(&Config::default()).expect("it is valid");
        for n in 0..connections {
            let peer = format!("192.0.2.1:{}", 1000 + n)
                .parse()
                .expect("an address");
            engine
                .handle_open(Timestamp::from_ms(u64::from(n) * 1000), peer, &mut Nothing)
                .expect("there is room");
        }
        engine
    }

    fn list(engine: &mut Engine, query: ListQuery) -> (usize, Vec<u16>) {
        let cx = Context { engine };
        let mut listing = Listing::new(query.clone());
        while !listing.advance(&cx) {
            assert!(
                listing.kept.len() <= query.offset + query.limit,
                "nothing is kept in vain"
            );
        }
        let page = listing.finish(&cx);
        let port = |view: &ConnectionEntry| {
            view.address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok())
                .expect("a port")
        };
        (
            page.matched as usize,
            page.connections.iter().map(port).collect(),
        )
    }

    #[test]
    fn pages_of_a_listing_are_consecutive() {
        let mut engine = engine(3000);
        for order in [Direction::Descending, Direction::Ascending] {
            let mut all = Vec::new();
            for offset in (0..3500).step_by(700) {
                let query = ListQuery {
                    sort: Sort::Age,
                    order,
                    offset,
                    limit: 700,
                    ..ListQuery::default()
                };
                let (matched, page) = list(&mut engine, query);
                assert_eq!(matched, 3000);
                all.extend(page);
            }
            // The oldest came first, and has the lowest port.
            let mut expected: Vec<u16> = (1000..4000).collect();
            if order == Direction::Ascending {
                expected.reverse();
            }
            assert_eq!(all, expected, "{order:?}");
        }
    }

    #[test]
    fn sort_is_stable_and_missing_figures_come_last() {
        let mut engine = engine(2100);
        for order in [Direction::Descending, Direction::Ascending] {
            let query = ListQuery {
                sort: Sort::RoundTrip,
                order,
                offset: 1500,
                limit: 3,
                ..ListQuery::default()
            };
            assert_eq!(
                list(&mut engine, query),
                (2100, vec![2500, 2501, 2502]),
                "{order:?}"
            );
        }
        assert_eq!(
            list(
                &mut engine,
                ListQuery {
                    limit: 0,
                    ..ListQuery::default()
                }
            ),
            (2100, vec![])
        );
    }

    #[test]
    fn listing_is_filtered_by_address() {
        let mut engine = engine(300);
        let narrowed = |prefix: &str| ListQuery {
            search: prefix.into(),
            limit: 2,
            ..ListQuery::default()
        };
        assert_eq!(
            list(&mut engine, narrowed("192.0.2.1:10")),
            (100, vec![1000, 1001])
        );
        assert_eq!(list(&mut engine, narrowed("192.0.2.2")), (0, vec![]));
    }

    #[test]
    fn closed_connections_are_not_listed() {
        let mut engine = engine(10);
        let mut listing = Listing::new(ListQuery::default());
        while !listing.advance(&Context {
            engine: &mut engine,
        }) {}
        engine.close_on_request(ConnId::new(3, 4), crate::engine::Close::Now);
        let page = listing.finish(&Context {
            engine: &mut engine,
        });
        assert_eq!((page.matched as usize, page.connections.len()), (10, 9));
        assert!(page.connections.iter().all(|view| view.id != "3.4"));
    }
}
