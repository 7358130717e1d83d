//! From counters that only grow to what happens now, and how it was a while ago.

use std::collections::VecDeque;

use crate::admin::api::{DurationHistogram, Status};

/// Most answers that are remembered: more than the widest terminal has columns for one figure.
const LENGTH: usize = 240;

/// What happened per second between the last two answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) messages_in: f64,
    pub(super) messages_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) opened: f64,
    pub(super) closed: f64,
    /// Seconds of processor time.
    pub(super) cpu: f64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    last: Status,
    /// `None` before the second status, and again after a restart of the server.
    rates: Option<Rates>,
    /// Of the last pings that were answered.
    round_trips: Option<DurationHistogram>,
    pub(super) lines: Series,
    pub(super) messages: Series,
    /// Mean, in microseconds.
    pub(super) round_trip: Series,
    pub(super) closed: Series,
}

impl History {
    /// Returns whether it is another server than before.
    pub(super) fn add(&mut self, status: Status) -> bool {
        let last = std::mem::replace(&mut self.last, status);
        let status = &self.last;
        let same = (last.pid, &last.started) == (status.pid, &status.started);
        // The server's own clock: how long an answer was on its way does not matter.
        let seconds = status.uptime_s - last.uptime_s;
        self.rates = (same && seconds > 0.0).then(|| rates(&last, status, seconds));
        let round_trips = same
            .then(|| status.round_trip.since(&last.round_trip))
            .filter(|between| between.count > 0);
        self.lines.push(Some(status.connections.open as f64));
        self.messages.push(
            self.rates
                .as_ref()
                .map(|rates| rates.messages_in + rates.messages_out),
        );
        self.round_trip
            .push(round_trips.as_ref().map(|between| between.mean_s() * 1e6));
        self.closed
            .push(self.rates.as_ref().map(|rates| rates.closed));
        // If no ping was answered meanwhile, the last known value is kept.
        if round_trips.is_some() || !same {
            self.round_trips = round_trips;
        }
        !same && last.pid != 0
    }

    pub(super) fn status(&self) -> &Status {
        &self.last
    }

    pub(super) fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    pub(super) fn round_trips(&self) -> Option<&DurationHistogram> {
        self.round_trips.as_ref()
    }
}

fn rates(last: &Status, status: &Status, seconds: f64) -> Rates {
    let rate =
        |count: fn(&Status) -> u64| count(status).saturating_sub(count(last)) as f64 / seconds;
    Rates {
        messages_in: rate(|status| status.messages.received),
        messages_out: rate(|status| status.messages.queued),
        bytes_in: rate(|status| status.bytes.received),
        bytes_out: rate(|status| status.bytes.sent),
        opened: rate(|status| status.connections.opened),
        closed: rate(|status| status.closed.values().sum()),
        cpu: (status.process.cpu_s - last.process.cpu_s).max(0.0) / seconds,
    }
}

/// One figure over the last answers.
#[derive(Debug, Default)]
pub(super) struct Series(VecDeque<Option<f64>>);

/// Bars are drawn from whole numbers: a thousandth is fine enough.
const BAR: f64 = 1000.0;

impl Series {
    fn push(&mut self, value: Option<f64>) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last `count` values as heights of bars, oldest first; any value above zero is visible.
    pub(super) fn bars(&self, count: usize) -> Vec<Option<u64>> {
        let height = |value: f64| (value * BAR).ceil() as u64;
        self.0
            .iter()
            .skip(self.0.len().saturating_sub(count))
            .map(|value| value.map(height))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uptime_s: f64, count: u64) -> Status {
        let mut status = Status {
            pid: 1,
            started: "then".into(),
            uptime_s,
            ..Status::default()
        };
        (
            status.messages.received,
            status.messages.queued,
            status.connections.open,
        ) = (count, 2 * count, 5);
        status.closed = [
            ("rate-limited".to_string(), count),
            ("evicted".to_string(), 1),
        ]
        .into();
        status
    }

    #[test]
    fn rates_are_per_second_of_the_server() {
        let mut history = History::default();
        assert!(!history.add(status(10.0, 100)));
        assert_eq!(history.rates(), None);
        assert!(!history.add(status(12.0, 110)));
        let rates = history.rates().expect("two answers");
        assert_eq!(
            (
                rates.messages_in,
                rates.messages_out,
                rates.closed,
                rates.cpu
            ),
            (5.0, 10.0, 5.0, 0.0)
        );
        assert_eq!(history.messages.bars(9), [None, Some(15_000)]);
        assert_eq!(history.lines.bars(1), [Some(5000)]);
    }

    #[test]
    fn restarted_server_has_no_rates_at_first() {
        let mut history = History::default();
        history.add(status(10.0, 100));
        let anew = Status {
            pid: 2,
            ..status(11.0, 3)
        };
        assert!(history.add(anew.clone()));
        assert_eq!(history.rates(), None);
        history.add(anew);
        assert_eq!(history.rates(), None, "no time has passed between the two");
    }

    #[test]
    fn last_round_trips_stay_visible() {
        let with = |json: &str, uptime_s| Status {
            round_trip: serde_json::from_str(json).expect("a histogram"),
            ..status(uptime_s, 1)
        };
        let mut history = History::default();
        history.add(with(
            r#"{"count": 2, "sum_s": 0.5, "max_s": 0.4, "buckets": [[0.001, 1]]}"#,
            1.0,
        ));
        assert!(
            history.round_trips().is_none(),
            "nobody knows when those before the first answer were"
        );
        let next =
            r#"{"count": 4, "sum_s": 0.504, "max_s": 0.4, "buckets": [[0.001, 1], [0.01, 3]]}"#;
        history.add(with(next, 2.0));
        history.add(with(next, 3.0));
        let last = history.round_trips().expect("two were answered");
        assert_eq!((last.count, last.at_most(0.99)), (2, Some(0.01)));
        assert!((last.mean_s() - 0.002).abs() < 1e-9);
        assert_eq!(
            history
                .round_trip
                .bars(3)
                .iter()
                .map(Option::is_some)
                .collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn history_is_bounded() {
        let mut series = Series::default();
        (0..1000).for_each(|value| series.push(Some(f64::from(value))));
        let bars = series.bars(5000);
        assert_eq!(
            (bars.len(), bars[0], bars[LENGTH - 1]),
            (LENGTH, Some(760_000), Some(999_000))
        );
    }
}
