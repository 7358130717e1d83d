//! The JSON of the admin endpoint: what the server writes and the client reads. docs/admin.md
//! describes it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine;

/// Closes that the server keeps: enough for the last minute of an incident, in 200 kB.
pub(crate) const MAX_CLOSED: usize = 1000;
/// Most connections in one listing.
pub(crate) const MAX_LISTED: usize = 1000;
/// Largest offset of a listing, which bounds what it keeps to 1.6 MB.
pub(crate) const MAX_OFFSET: usize = 100_000;

/// The key that a listing is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Silence,
    Age,
    Queued,
    Bytes,
    RoundTrip,
}

impl Sort {
    const ALL: [Sort; 5] = [
        Sort::Silence,
        Sort::Age,
        Sort::Queued,
        Sort::Bytes,
        Sort::RoundTrip,
    ];

    /// Its name in queries.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Sort::Silence => "silence",
            Sort::Age => "age",
            Sort::Queued => "queued",
            Sort::Bytes => "bytes",
            Sort::RoundTrip => "round_trip",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.as_str() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Descending,
    Ascending,
}

impl Direction {
    /// Its name in queries.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Descending => "desc",
            Direction::Ascending => "asc",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Direction::Descending, Direction::Ascending]
            .into_iter()
            .find(|order| order.as_str() == name)
    }
}

/// `GET /status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) app: String,
    pub(crate) framing: String,
    pub(crate) listening: Vec<String>,
    /// When the process started, in RFC 3339.
    pub(crate) started: String,
    pub(crate) uptime_s: f64,
    pub(crate) draining: bool,
    pub(crate) heartbeat_s: Option<f64>,
    /// How long a ping has to be answered.
    pub(crate) retry_s: Option<f64>,
    pub(crate) missed: Option<u8>,
    /// How long a peer may be silent.
    pub(crate) bound_s: Option<f64>,
    pub(crate) connections: ConnectionCounts,
    /// By reason.
    pub(crate) closed: BTreeMap<String, u64>,
    /// By reason.
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) logins: LoginCounts,
    pub(crate) bytes: Bytes,
    pub(crate) messages: Messages,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) round_trip: DurationHistogram,
    pub(crate) overshoot: DurationHistogram,
    pub(crate) lag: DurationHistogram,
    pub(crate) turn: DurationHistogram,
    pub(crate) yields: u64,
    pub(crate) throttled: u64,
    pub(crate) rate_limited: u64,
    pub(crate) stalls: u64,
    pub(crate) stalled_s: f64,
    pub(crate) buffered_bytes: u64,
    pub(crate) max_buffered_bytes: Option<u64>,
    pub(crate) process: ProcessUsage,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConnectionCounts {
    pub(crate) open: u64,
    pub(crate) max: u64,
    pub(crate) opened: u64,
}

/// Names, and how they came about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LoginCounts {
    /// Different names of open connections.
    pub(crate) names: u64,
    /// Groups with members.
    pub(crate) groups: u64,
    /// Members of all groups together.
    pub(crate) memberships: u64,
    pub(crate) accepted: u64,
    /// Under way.
    pub(crate) pending: u64,
    /// By reason.
    pub(crate) denied: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bytes {
    #[serde(rename = "in")]
    pub(crate) received: u64,
    #[serde(rename = "out")]
    pub(crate) sent: u64,
}

/// Messages, heartbeats not counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Messages {
    pub(crate) received: u64,
    /// Queued for peers, once per receiver.
    pub(crate) queued: u64,
    pub(crate) dropped: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heartbeats {
    pub(crate) pings_sent: u64,
    pub(crate) pongs_received: u64,
    pub(crate) pings_received: u64,
}

/// Memory, CPU and descriptors of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProcessUsage {
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) max_descriptors: u64,
    pub(crate) cpu_s: f64,
}

/// Lengths of time, counted by size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DurationHistogram {
    pub(crate) count: u64,
    pub(crate) sum_s: f64,
    pub(crate) max_s: f64,
    /// Upper bounds in seconds, from the smallest up, and how many were not longer.
    buckets: Vec<(f64, u64)>,
}

impl From<&engine::Histogram> for DurationHistogram {
    fn from(histogram: &engine::Histogram) -> Self {
        let buckets = histogram.cumulated();
        DurationHistogram {
            count: histogram.count(),
            sum_s: histogram.sum().as_secs_f64(),
            max_s: histogram.max().as_secs_f64(),
            buckets: buckets
                .map(|(bound, count): (Duration, u64)| (bound.as_secs_f64(), count))
                .collect(),
        }
    }
}

impl DurationHistogram {
    /// A bound, in seconds, that this share of all durations did not exceed. `None` if there were
    /// none.
    pub(crate) fn at_most(&self, part: f64) -> Option<f64> {
        let rank = (self.count as f64 * part).ceil() as u64;
        let bucket = self
            .buckets
            .iter()
            .find(|(_, cumulated)| *cumulated >= rank);
        // The longest is more exact than the bound of its bucket, and the last bucket has no bound.
        (self.count > 0).then(|| bucket.map_or(self.max_s, |(bound, _)| bound.min(self.max_s)))
    }

    /// The durations that were added after `earlier`, an earlier state of this histogram. Their
    /// longest is not known: it is that of all.
    pub(crate) fn since(&self, earlier: &DurationHistogram) -> DurationHistogram {
        let before = |bound: f64| {
            earlier
                .buckets
                .iter()
                .find(|(other, _)| *other == bound)
                .map_or(0, |(_, cumulated)| *cumulated)
        };
        DurationHistogram {
            count: self.count.saturating_sub(earlier.count),
            sum_s: (self.sum_s - earlier.sum_s).max(0.0),
            max_s: self.max_s,
            buckets: self
                .buckets
                .iter()
                .map(|(bound, cumulated)| (*bound, cumulated.saturating_sub(before(*bound))))
                .collect(),
        }
    }

    /// Zero without durations.
    pub(crate) fn mean_s(&self) -> f64 {
        if self.count > 0 {
            self.sum_s / self.count as f64
        } else {
            0.0
        }
    }
}

/// `GET /connections`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConnectionList {
    pub(crate) open: u64,
    /// How many there are that the search fits.
    pub(crate) matched: u64,
    pub(crate) offset: u64,
    pub(crate) limit: u64,
    pub(crate) sort: String,
    pub(crate) order: String,
    pub(crate) connections: Vec<ConnectionEntry>,
}

/// `GET /connections/ID`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectionEntry {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) address: String,
    /// How long it may be silent; `None` without a heartbeat.
    pub(crate) bound_s: Option<f64>,
    pub(crate) age_s: f64,
    pub(crate) silence_s: f64,
    pub(crate) round_trip_ms: Option<u64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) queued: u64,
    pub(crate) unfinished: u64,
    pub(crate) pings_unanswered: u64,
    pub(crate) closing: bool,
    /// Its login is still to come.
    pub(crate) awaits_login: bool,
}

impl ConnectionEntry {
    /// Name and address.
    pub(crate) fn label(&self) -> String {
        label(self.name.as_deref(), &self.address)
    }
}

impl ClosedEntry {
    /// Name and address.
    pub(crate) fn label(&self) -> String {
        label(self.name.as_deref(), &self.address)
    }
}

fn label(name: Option<&str>, address: &str) -> String {
    name.map_or_else(|| address.to_owned(), |name| format!("{name} {address}"))
}

/// `GET /closed`: the last closes, newest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClosedList {
    pub(crate) closed: Vec<ClosedEntry>,
    pub(crate) displaced: Vec<Displaced>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClosedEntry {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) address: String,
    /// In RFC 3339.
    pub(crate) at: String,
    pub(crate) reason: String,
    pub(crate) origin: String,
    /// Why its login was denied, if it was.
    pub(crate) denied: Option<String>,
    pub(crate) age_s: f64,
    pub(crate) silence_s: f64,
    pub(crate) pings_unanswered: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) unsent: u64,
    pub(crate) unfinished: u64,
    pub(crate) unacknowledged_s: f64,
}

/// Totals of closes that are no longer in the list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Displaced {
    /// In RFC 3339.
    pub(crate) since: String,
    pub(crate) closed: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
    /// The largest first.
    pub(crate) networks: Vec<NetworkTotal>,
    pub(crate) other_networks: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NetworkTotal {
    pub(crate) network: String,
    pub(crate) closed: u64,
}

/// A connection in the event `opened`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenedEntry {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) address: String,
}

/// The event `opened` of `GET /events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenedEvent {
    pub(crate) opened: Vec<OpenedEntry>,
    /// How many more there were, those included that have closed since.
    pub(crate) more: u64,
}

/// The event `closed` of `GET /events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClosedEvent {
    pub(crate) closed: Vec<ClosedEntry>,
    /// How many more there were.
    pub(crate) more: u64,
}

/// `GET /names`, in the order of the names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NameList {
    /// How many there are in all.
    pub(crate) names: u64,
    pub(crate) list: Vec<NameEntry>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NameEntry {
    pub(crate) name: String,
    pub(crate) ids: Vec<String>,
}

/// `GET /groups`, in the order of the groups' names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GroupList {
    /// How many there are in all.
    pub(crate) groups: u64,
    pub(crate) list: Vec<GroupEntry>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) group: String,
    pub(crate) members: u64,
}

/// The answer to `POST /connections/ID/send`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Queued {
    pub(crate) queued: bool,
}

/// The answer to `POST /broadcast`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Receivers {
    pub(crate) receivers: u64,
}

/// The answer to `DELETE /connections/ID`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Closing {
    pub(crate) closing: bool,
}

/// The answer to `POST /drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Draining {
    pub(crate) draining: bool,
    pub(crate) grace_s: f64,
}

/// The reason for an error response.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_of_buckets_or_the_longest() {
        let histogram = DurationHistogram {
            count: 10,
            sum_s: 3.0,
            max_s: 0.4,
            buckets: vec![(0.001, 5), (0.01, 8), (0.1, 9)],
        };
        assert_eq!(
            [0.5, 0.51, 0.9, 0.99].map(|part| histogram.at_most(part)),
            [0.001, 0.01, 0.1, 0.4].map(Some)
        );
        let short = DurationHistogram {
            count: 1,
            sum_s: 0.0002,
            max_s: 0.0002,
            buckets: vec![(0.001, 1)],
        };
        assert_eq!(short.at_most(0.5), Some(0.0002));
        assert_eq!(DurationHistogram::default().at_most(0.5), None);
    }
}
