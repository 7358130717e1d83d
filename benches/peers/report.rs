//! All that came out, as `target/peers/results.json` has it.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::machine::Machine;
use crate::peers::{Peer, Ready};
use crate::scenario::{Measured, Metric, Scenario};
use crate::stats::{Spread, Unit};

#[derive(Serialize)]
pub struct Report {
    /// Wall-clock time, in UTC.
    pub started: String,
    pub command: String,
    pub quick: bool,
    pub rounds: u32,
    pub interrupted: bool,
    pub machine: Machine,
    pub peers: Vec<PeerNote>,
    pub scenarios: Vec<ScenarioReport>,
    pub targets: Vec<Outcome>,
}

/// Whether heartline reaches a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::NotMeasured => "not measured",
        })
    }
}

#[derive(Serialize)]
pub struct Outcome {
    pub title: &'static str,
    pub target: &'static str,
    pub measured: String,
    pub verdict: Verdict,
    /// Scenario, metric, and how many times the baseline it may be, where that is the target.
    pub ratio_bounds: Vec<(&'static str, &'static str, f64)>,
}

#[derive(Serialize)]
pub struct PeerNote {
    pub peer: Peer,
    pub version: Option<String>,
    /// Why it is.
    pub missing: Option<String>,
}

impl fmt::Display for PeerNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.version, &self.missing) {
            (_, Some(problem)) => write!(f, "{}: missing: {problem}", self.peer),
            (version, None) => write!(
                f,
                "{}: {}",
                self.peer,
                version.as_deref().unwrap_or("of unknown version")
            ),
        }
    }
}

#[derive(Serialize)]
pub struct ScenarioReport {
    pub id: &'static str,
    pub metrics: Vec<MetricReport>,
    pub remarks: Vec<Remark>,
}

/// Warnings about a figure.
#[derive(Serialize)]
pub struct Remark {
    pub peer: Peer,
    pub round: u32,
    pub text: String,
}

#[derive(Serialize)]
pub struct MetricReport {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// All peers of the scenario, missing or not.
    pub peers: Vec<Figures>,
}

#[derive(Serialize)]
pub struct Figures {
    pub peer: Peer,
    pub missing: bool,
    /// For each round; null if it failed.
    pub values: Vec<Option<f64>>,
    pub spread: Option<Spread>,
    /// The ratio to the baseline of the same round.
    pub to_baseline: Option<Spread>,
    #[serde(skip)]
    compares: bool,
}

impl Report {
    pub fn new(
        rounds: u32,
        quick: bool,
        peers: &[(Peer, Result<Ready, String>)],
        scenarios: &[&Scenario],
    ) -> Self {
        let note = |(peer, ready): &(Peer, Result<Ready, String>)| {
            let (version, missing) = match ready {
                Ok(ready) => (Some(ready.version.clone()), None),
                Err(problem) => (None, Some(problem.clone())),
            };
            PeerNote {
                peer: *peer,
                version,
                missing,
            }
        };
        let peers: Vec<PeerNote> = peers.iter().map(note).collect();
        let metric = |scenario: &Scenario, metric: &Metric| {
            let takes_part = |note: &&PeerNote| scenario.peers.contains(&note.peer);
            let figures = |note: &PeerNote| Figures {
                peer: note.peer,
                missing: note.missing.is_some(),
                values: Vec::new(),
                spread: None,
                to_baseline: None,
                compares: metric.to_baseline,
            };
            MetricReport {
                id: metric.id,
                title: metric.title,
                unit: metric.unit,
                peers: peers.iter().filter(takes_part).map(figures).collect(),
            }
        };
        let scenario = |scenario: &&Scenario| ScenarioReport {
            id: scenario.id,
            metrics: scenario
                .metrics
                .iter()
                .map(|of| metric(scenario, of))
                .collect(),
            remarks: Vec::new(),
        };
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
            .collect();
        let own = if arguments.is_empty() { "" } else { " -- " };
        Report {
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: format!("cargo bench --bench peers{own}{}", arguments.join(" ")),
            quick,
            rounds,
            interrupted: false,
            machine: Machine::read_proc(),
            scenarios: scenarios.iter().map(scenario).collect(),
            peers,
            targets: Vec::new(),
        }
    }

    pub fn add(
        &mut self,
        scenario: usize,
        round: u32,
        peer: Peer,
        outcome: Result<Measured, String>,
    ) {
        let scenario = &mut self.scenarios[scenario];
        let (figures, remarks) = match outcome {
            Ok(measured) => (measured.figures, measured.remarks),
            Err(problem) => (Vec::new(), vec![format!("failed: {problem}")]),
        };
        scenario
            .remarks
            .extend(remarks.into_iter().map(|text| Remark { peer, round, text }));
        for (index, metric) in scenario.metrics.iter_mut().enumerate() {
            let seat = metric.peers.iter_mut().find(|figures| figures.peer == peer);
            seat.into_iter()
                .for_each(|seat| seat.values.push(figures.get(index).copied()));
        }
    }

    /// Aggregates all rounds.
    pub fn finish(&mut self, complete: bool) {
        self.interrupted = !complete;
        for metric in self
            .scenarios
            .iter_mut()
            .flat_map(|scenario| &mut scenario.metrics)
        {
            let baseline = metric
                .peers
                .iter()
                .find(|figures| figures.peer == Peer::Baseline)
                .map(|figures| figures.values.clone());
            for figures in &mut metric.peers {
                figures.spread = Spread::of(figures.values.iter().copied().flatten());
                let baseline = baseline.iter().filter(|_| figures.compares).flatten();
                let ratios = figures
                    .values
                    .iter()
                    .zip(baseline)
                    .filter_map(|(value, baseline)| Some((*value)? / (*baseline)?));
                figures.to_baseline = Spread::of(ratios);
            }
        }
    }

    pub fn metric(&self, scenario: &str, metric: &str) -> Option<&MetricReport> {
        let scenario = self.scenarios.iter().find(|report| report.id == scenario)?;
        scenario.metrics.iter().find(|report| report.id == metric)
    }
}

impl MetricReport {
    pub fn of(&self, peer: Peer) -> Option<&Figures> {
        self.peers.iter().find(|figures| figures.peer == peer)
    }
}

impl Figures {
    /// The cell without a figure.
    pub fn absence(&self) -> &'static str {
        match (self.missing, self.values.is_empty()) {
            (true, _) => "missing",
            (false, true) => "not run",
            (false, false) => "failed",
        }
    }
}
