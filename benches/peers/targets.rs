//! Heartline's targets, and whether they are met.

use crate::fairness;
use crate::peers::Peer;
use crate::report::{Outcome, Report, Verdict};
use crate::watched;

/// How a figure is held against its bound.
#[derive(Clone, Copy)]
enum Rule {
    /// The median over the rounds.
    Median(f64),
    /// The worst round.
    Worst(f64),
    /// The median of the ratios to the baseline.
    ToBaseline(f64),
    /// The median is below that of another.
    Below(Peer),
}

struct Target {
    title: &'static str,
    target: &'static str,
    /// Scenario, metric, rule: all of them.
    rules: &'static [(&'static str, &'static str, Rule)],
}

use Rule::{Below, Median, ToBaseline, Worst};

const TARGETS: &[Target] = &[
    Target {
        title: "user memory per idle connection, slope over 0/5k/10k/15k",
        target: "≤ 128 B, aim 96",
        rules: &[("hold", "memory", Median(128.0))],
    },
    Target {
        title: "retained per connection after 16 KiB echoed once",
        target: "≤ 150 B",
        rules: &[("retained", "memory", Median(150.0))],
    },
    Target {
        title: "CPU per echo, 64 active, depth 1",
        target: "≤ 1.05 × baseline, below tokio",
        rules: &[
            ("echo", "cpu", ToBaseline(1.05)),
            ("echo", "cpu", Below(Peer::Tokio)),
        ],
    },
    Target {
        title: "the same with 10k idle heartbeating connections beside",
        target: "≤ 1.05 × baseline",
        rules: &[("echo-beside-idle", "cpu", ToBaseline(1.05))],
    },
    Target {
        title: "CPU per message at depth 16",
        target: "≤ 1.0 × baseline",
        rules: &[("echo-depth-16", "cpu", ToBaseline(1.0))],
    },
    Target {
        title: "CPU per heartbeat, 15k connections",
        target: "≤ 1.10 × baseline",
        rules: &[("beat", "cpu", ToBaseline(1.10))],
    },
    Target {
        title: "15k pings at once, last answer",
        target: "≤ 1.15 × baseline",
        rules: &[("storm", "last", ToBaseline(1.15))],
    },
    Target {
        title: "CPU per accepted connection",
        target: "≤ 1.2 × baseline",
        rules: &[("hold", "accept", ToBaseline(1.2))],
    },
    Target {
        title: "fan-out of one message to 15k: last arrival, CPU per delivery",
        target: "≤ 1.15 × a bare write loop",
        rules: &[
            ("fan-out", "last", ToBaseline(1.15)),
            ("fan-out", "cpu", ToBaseline(1.15)),
        ],
    },
    Target {
        title: "p99.9 of 64 active connections while 15k others are pinged and swept",
        target: "≤ 1.3 × without them",
        rules: &[("tail", "ratio", Median(1.3))],
    },
    Target {
        title: "eviction overshoot, 15k falling silent at once",
        target: "p100 ≤ one tick + 50 ms, none early",
        rules: &[
            ("dead", "overshoot", Worst(150.0)),
            ("dead", "early", Worst(0.0)),
            ("dead", "open", Worst(0.0)),
            ("dead", "alive-lost", Worst(0.0)),
        ],
    },
    Target {
        title: "p99 of quiet peers beside a flood; of empty lines, from one; from fifty; to 500 readers; an accept storm; a mass expiry",
        target: "≤ 3 × without them",
        rules: &[
            (fairness::ID, "rate-limited", Median(3.0)),
            (fairness::ID, "empty-lines", Median(3.0)),
            (fairness::ID, "many-empty-lines", Median(3.0)),
            (fairness::ID, "broadcast", Median(3.0)),
            (fairness::ID, "accepts", Median(3.0)),
            (fairness::ID, "expiry", Median(3.0)),
        ],
    },
    Target {
        title: "p99 of quiet peers beside 15k connections with operators",
        target: "≤ 1.2 × unwatched",
        rules: &[(watched::ID, "watched", Median(1.2))],
    },
    Target {
        title: "wake-ups without a connection",
        target: "0",
        rules: &[("wake-ups", "count", Worst(0.0))],
    },
    Target {
        title: "engine alone at 1,000,000 virtual connections: resident; wheel insert, expiry; \
            bytes per connection to those at 10k",
        target: "≤ 160 MB; ≤ 50 ns each; linear: ≤ 1.2 ×",
        rules: &[
            ("engine", "resident-1M", Median(160.0)),
            ("engine", "insert-1M", Median(50.0)),
            ("engine", "expiry-1M", Median(50.0)),
            ("engine", "growth", Median(1.2)),
        ],
    },
    Target {
        title: "a 95,000-connection hold over 5 `--reuse-port` processes",
        target: "held for a minute with heartbeats, none lost",
        rules: &[
            ("huge", "missing", Worst(0.0)),
            ("huge", "unanswered", Worst(0.0)),
        ],
    },
    Target {
        title: "stripped release binary",
        target: "≤ 3 MB",
        rules: &[("size", "binary", Worst(3.0))],
    },
    Target {
        title: "resident memory at start",
        target: "≤ 4 MB",
        rules: &[("start", "resident", Median(4.0))],
    },
    Target {
        title: "library-only example with `opt-level=\"z\"`",
        target: "≤ 600 kB",
        rules: &[("size", "tiny", Worst(0.6))],
    },
];

pub fn judge(report: &Report) -> Vec<Outcome> {
    let judge = |target: &Target| {
        let held: Vec<(bool, String)> = target
            .rules
            .iter()
            .filter_map(|(scenario, metric, rule)| hold(report, scenario, metric, *rule))
            .collect();
        let verdict = match held.len() == target.rules.len() {
            false => Verdict::NotMeasured,
            // Tiny numbers meet tiny targets.
            true if report.quick => Verdict::NotMeasured,
            true if held.iter().all(|(met, _)| *met) => Verdict::Met,
            true => Verdict::Missed,
        };
        let ratio = |(scenario, metric, rule): &(&'static str, &'static str, Rule)| match rule {
            ToBaseline(most) => Some((*scenario, *metric, *most)),
            _ => None,
        };
        Outcome {
            title: target.title,
            target: target.target,
            measured: held
                .into_iter()
                .map(|(_, measured)| measured)
                .collect::<Vec<_>>()
                .join("; "),
            verdict,
            ratio_bounds: target.rules.iter().filter_map(ratio).collect(),
        }
    };
    TARGETS.iter().map(judge).collect()
}

/// Whether it is met, and the measured value. `None` without a measurement.
fn hold(report: &Report, scenario: &str, metric: &str, rule: Rule) -> Option<(bool, String)> {
    let metric = report.metric(scenario, metric)?;
    let ours = metric.of(Peer::Heartline)?;
    let (unit, spread) = (metric.unit, ours.spread?);
    Some(match rule {
        Median(most) => (spread.median <= most, unit.written(spread.median)),
        Worst(most) if most == 0.0 => (
            spread.max <= most,
            format!("{} {}", unit.written(spread.max), metric.title),
        ),
        Worst(most) => (spread.max <= most, unit.written(spread.max)),
        ToBaseline(most) => {
            let ratio = ours.to_baseline?.median;
            (
                ratio <= most,
                format!("{ratio:.2} × ({})", unit.written(spread.median)),
            )
        }
        Below(other) => {
            let other_median = metric.of(other)?.spread?.median;
            (
                spread.median < other_median,
                format!("{other} {}", unit.written(other_median)),
            )
        }
    })
}
