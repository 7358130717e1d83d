//! The type of a scenario, and what all scenarios are given.

use std::path::PathBuf;
use std::time::Duration;

use crate::child::Failure;
use crate::peers::{Peer, Ready};
use crate::stats::Unit;

/// Virtual connections of the engine alone, in a full run and in a quick one.
pub const LINES: [u32; 5] = [10_000, 30_000, 100_000, 300_000, 1_000_000];
pub const FEW_LINES: [u32; 5] = [1000, 3000, 10_000, 30_000, 100_000];

/// A peer that beats every 5 s is never pinged, and closed after 20 s as by the tokio peer; the
/// timers run as in production.
pub const BEATING: &[&str] = &["--heartbeat", "10s", "--missed", "1"];

pub struct Bench {
    /// For everything that is built and written.
    pub dir: PathBuf,
    pub size: Size,
    /// Or why it is missing.
    pub peers: Vec<(Peer, Result<Ready, String>)>,
    /// Or why it was not built; `None` if it was not requested.
    pub tiny_example: Option<Result<PathBuf, String>>,
}

pub struct Metric {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// Whether its ratio to the baseline is meaningful.
    pub to_baseline: bool,
}

pub struct Scenario {
    pub id: &'static str,
    pub peers: &'static [Peer],
    pub metrics: &'static [Metric],
    /// Not in every round, because it would be the same each time, or for its length.
    pub once: bool,
    pub measure: fn(&Bench, &Ready) -> Result<Measured, Failure>,
}

/// One figure for each of the scenario's metrics, in their order.
pub struct Measured {
    pub figures: Vec<f64>,
    pub remarks: Vec<String>,
}

pub const fn metric(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    to_baseline: bool,
) -> Metric {
    Metric {
        id,
        title,
        unit,
        to_baseline,
    }
}

/// How much of everything.
pub struct Size {
    /// Lines that are held, beat, ping, listen or fall silent.
    pub many: u32,
    /// Lines that only beat while others are active.
    pub idle: u32,
    /// Lines that echo 16 KiB each.
    pub kept: u32,
    pub huge: u32,
    /// Virtual lines of the engine alone.
    pub engine_lines: [u32; 5],
    pub pushes: u32,
    pub push_every: &'static str,
    pub echo_for: &'static str,
    pub beat_every: &'static str,
    pub beat_for: &'static str,
    pub tail_for: &'static str,
    pub fairness_for: &'static str,
    /// An accept storm is over sooner.
    pub storm_for: &'static str,
    /// Time for a listing, two scrapes and two events.
    pub watched_for: &'static str,
    pub watchers_alone_for: Duration,
    pub huge_for: &'static str,
    pub no_connections_for: Duration,
}

impl Size {
    pub fn full() -> Self {
        Size {
            many: 15_000,
            idle: 10_000,
            kept: 5000,
            huge: 95_000,
            engine_lines: LINES,
            pushes: 10,
            push_every: "500ms",
            echo_for: "5s",
            beat_every: "5s",
            beat_for: "10s",
            tail_for: "10s",
            fairness_for: "6s",
            storm_for: "2s",
            watched_for: "2s",
            watchers_alone_for: Duration::from_secs(4),
            huge_for: "60s",
            no_connections_for: Duration::from_secs(5),
        }
    }

    pub fn quick() -> Self {
        Size {
            many: 300,
            idle: 200,
            kept: 100,
            huge: 1000,
            engine_lines: FEW_LINES,
            pushes: 3,
            push_every: "50ms",
            echo_for: "500ms",
            beat_every: "250ms",
            beat_for: "500ms",
            tail_for: "500ms",
            fairness_for: "500ms",
            storm_for: "700ms",
            watched_for: "300ms",
            watchers_alone_for: Duration::from_secs(1),
            huge_for: "1s",
            no_connections_for: Duration::from_secs(1),
        }
    }
}
