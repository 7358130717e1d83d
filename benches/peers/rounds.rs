//! Runs the scenarios, in turn: within a round each on all peers, so that whatever changes on the
//! machine meanwhile meets all alike.

use std::path::PathBuf;

use crate::child::Failure;
use crate::peers::{Peer, Ready};
use crate::report::Report;
use crate::scenarios::{Scenario, Size};

pub struct Bench {
    /// For everything that is built and written.
    pub dir: PathBuf,
    pub size: Size,
    /// Or why it is missing.
    pub peers: Vec<(Peer, Result<Ready, String>)>,
    /// Or why it was not built; `None` if nobody wanted it.
    pub tiny_example: Option<Result<PathBuf, String>>,
}

impl Bench {
    /// What fails on one peer is noted and no reason to stop.
    pub fn run(
        &self,
        rounds: u32,
        scenarios: &[&Scenario],
        report: &mut Report,
    ) -> Result<(), Failure> {
        for round in 1..=rounds {
            println!("\nround {round} of {rounds}");
            for (index, scenario) in scenarios.iter().enumerate() {
                if scenario.once && round > 1 {
                    continue;
                }
                let ready = self
                    .peers
                    .iter()
                    .filter_map(|(_, ready)| ready.as_ref().ok());
                for ready in ready.filter(|ready| scenario.peers.contains(&ready.peer)) {
                    let outcome = match (scenario.measure)(self, ready) {
                        Err(Failure::Interrupted) => return Err(Failure::Interrupted),
                        Err(Failure::Failed(problem)) => Err(problem),
                        Ok(measured) => Ok(measured),
                    };
                    let figures = match &outcome {
                        Ok(measured) => written(scenario, &measured.figures),
                        Err(problem) => format!("failed: {problem}"),
                    };
                    println!("  {:<17} {:<10} {figures}", scenario.id, ready.peer);
                    report.add(index, round, ready.peer, outcome);
                }
            }
        }
        Ok(())
    }
}

fn written(scenario: &Scenario, figures: &[f64]) -> String {
    let one = |(metric, figure): (&crate::scenarios::Metric, &f64)| metric.unit.written(*figure);
    scenario
        .metrics
        .iter()
        .zip(figures)
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}
