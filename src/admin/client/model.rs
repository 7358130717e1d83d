//! The server's answers: of its JSON, what is shown here.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) app: String,
    pub(crate) framing: String,
    pub(crate) listening: Vec<String>,
    pub(crate) started: String,
    pub(crate) uptime_s: f64,
    pub(crate) draining: bool,
    pub(crate) heartbeat_s: Option<f64>,
    pub(crate) bound_s: Option<f64>,
    pub(crate) connections: Held,
    pub(crate) closed: BTreeMap<String, u64>,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) bytes: InOut,
    pub(crate) messages: Messages,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) round_trip: Histogram,
    pub(crate) overshoot: Histogram,
    pub(crate) lag: Histogram,
    pub(crate) turn: Histogram,
    pub(crate) stalls: u64,
    pub(crate) stalled_s: f64,
    pub(crate) buffered_bytes: u64,
    pub(crate) max_buffered_bytes: Option<u64>,
    pub(crate) process: Process,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Held {
    pub(crate) open: u64,
    pub(crate) max: u64,
    pub(crate) opened: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct InOut {
    #[serde(rename = "in")]
    pub(crate) received: u64,
    #[serde(rename = "out")]
    pub(crate) sent: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Messages {
    #[serde(rename = "in")]
    pub(crate) received: u64,
    #[serde(rename = "out")]
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Heartbeats {
    pub(crate) pings_out: u64,
    pub(crate) pongs_in: u64,
    pub(crate) pings_in: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) max_descriptors: u64,
    pub(crate) cpu_s: f64,
}

/// Lengths of time, counted by size.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Histogram {
    pub(crate) count: u64,
    pub(crate) sum_s: f64,
    pub(crate) max_s: f64,
    /// Upper bounds in seconds, from the smallest up, and how many were not longer.
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// A bound, in seconds, that this part of all did not exceed. `None` if there were none.
    pub(crate) fn at_most(&self, part: f64) -> Option<f64> {
        let rank = (self.count as f64 * part).ceil() as u64;
        let bucket = self
            .buckets
            .iter()
            .find(|(_, cumulated)| *cumulated >= rank);
        // The longest is known better than the bucket that it is in, and it is all there is to say
        // of the one without a bound.
        (self.count > 0).then(|| bucket.map_or(self.max_s, |(bound, _)| bound.min(self.max_s)))
    }

    /// Those that came after `earlier`, of which this is a later state. The longest of them is not
    /// known: it is that of all.
    pub(crate) fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |bound: f64| {
            earlier
                .buckets
                .iter()
                .find(|(other, _)| *other == bound)
                .map_or(0, |(_, cumulated)| *cumulated)
        };
        Histogram {
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

    /// Zero if there were none.
    pub(crate) fn mean_s(&self) -> f64 {
        if self.count > 0 {
            self.sum_s / self.count as f64
        } else {
            0.0
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Connections {
    /// How many there are that the search fits.
    pub(crate) matched: u64,
    pub(crate) offset: u64,
    pub(crate) connections: Vec<Connection>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Connection {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) age_s: f64,
    pub(crate) silence_s: f64,
    pub(crate) round_trip_ms: Option<u64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) queued: u64,
    pub(crate) pings_out: u64,
    pub(crate) closing: bool,
}

/// The last closes, newest first.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Closes {
    pub(crate) closed: Vec<Closed>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Closed {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) at: String,
    pub(crate) reason: String,
    pub(crate) age_s: f64,
    pub(crate) silence_s: f64,
    pub(crate) pings_unanswered: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) unsent: u64,
}

#[derive(Deserialize)]
pub(super) struct RejectReason {
    pub(super) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_bounds_of_buckets_or_the_longest() {
        let histogram = Histogram {
            count: 10,
            sum_s: 3.0,
            max_s: 0.4,
            buckets: vec![(0.001, 5), (0.01, 8), (0.1, 9)],
        };
        assert_eq!(
            [0.5, 0.51, 0.9, 0.99].map(|part| histogram.at_most(part)),
            [0.001, 0.01, 0.1, 0.4].map(Some)
        );
        let short = Histogram {
            count: 1,
            sum_s: 0.0002,
            max_s: 0.0002,
            buckets: vec![(0.001, 1)],
        };
        assert_eq!(short.at_most(0.5), Some(0.0002));
        assert_eq!(Histogram::default().at_most(0.5), None);
    }
}
