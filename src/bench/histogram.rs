//! Durations in nanoseconds, counted in an HDR histogram: three significant digits from one
//! nanosecond to years.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Durations that were measured. Travels between processes as its buckets, so that merging loses
/// nothing.
#[derive(Clone, Debug)]
pub(super) struct Durations(Histogram<u64>);

impl Default for Durations {
    fn default() -> Self {
        // It fails only for a number of digits out of 0 to 5.
        Durations(Histogram::new(3).expect("three digits are within its bounds"))
    }
}

impl Durations {
    pub(super) fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    pub(super) fn merge(&mut self, other: &Durations) {
        for (ns, count) in other.buckets() {
            self.record_many(ns, count);
        }
    }

    fn record_many(&mut self, ns: u64, count: u64) {
        // It resizes itself, so it records any value.
        let _ = self.0.record_n(ns, count);
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The non-empty buckets: a duration in nanoseconds, and how many there were of it.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|bucket| {
            (
                bucket.value_iterated_to(),
                bucket.count_since_last_iteration(),
            )
        })
    }

    /// The duration that this percentage did not exceed.
    pub(super) fn percentile_ns(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    /// The usual percentiles; `None` without values.
    pub(super) fn summary(&self) -> Option<Summary> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |percent| us(self.percentile_ns(percent));
        (!self.0.is_empty()).then(|| Summary {
            count: self.0.len(),
            min: us(self.0.min()),
            mean: self.0.mean() / 1e3,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: us(self.0.max()),
        })
    }
}

/// A distribution in a few figures, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

impl Serialize for Durations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.buckets())
    }
}

impl<'de> Deserialize<'de> for Durations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut durations = Durations::default();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            durations.record_many(ns, count);
        }
        Ok(durations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Durations {
        let mut durations = Durations::default();
        values.into_iter().for_each(|ns| durations.record(ns));
        durations
    }

    #[test]
    fn histogram_survives_split_and_merge() {
        let values = |odd| {
            (0..5000_u64)
                .filter(move |n| (n % 2 == 1) == odd)
                .map(|n| n * n * 997)
        };
        let travel = |half: &Durations| -> Durations {
            serde_json::from_str(&serde_json::to_string(half).expect("it can be written"))
                .expect("it can be read")
        };
        let mut merged = travel(&of(values(false)));
        merged.merge(&travel(&of(values(true))));
        let whole = of(values(false).chain(values(true)));
        assert_eq!(
            merged.buckets().collect::<Vec<_>>(),
            whole.buckets().collect::<Vec<_>>()
        );
        assert_eq!(merged.summary(), whole.summary());
    }

    #[test]
    fn percentiles_have_three_digits() {
        let summary = of((1..=10_000).map(|n| n * 1000))
            .summary()
            .expect("there are values");
        assert_eq!(summary.count, 10_000);
        for (figure, expected) in [
            (summary.p50, 5000.0),
            (summary.p90, 9000.0),
            (summary.p99, 9900.0),
            (summary.p99_9, 9990.0),
            (summary.max, 10_000.0),
        ] {
            assert!(
                (figure / expected - 1.0_f64).abs() < 0.002,
                "{figure} instead of {expected}"
            );
        }
        assert_eq!(Durations::default().summary(), None);
    }
}
