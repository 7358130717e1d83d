//! Runs the scenarios in rounds: within a round each on all peers, so that changes of the machine
//! affect all alike.

use crate::child::Failure;
use crate::report::Report;
use crate::scenario::{Bench, Metric, Scenario};

/// What fails on one peer is noted and no reason to stop.
pub fn run(
    bench: &Bench,
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
            let ready = bench
                .peers
                .iter()
                .filter_map(|(_, ready)| ready.as_ref().ok());
            for ready in ready.filter(|ready| scenario.peers.contains(&ready.peer)) {
                let outcome = match (scenario.measure)(bench, ready) {
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

fn written(scenario: &Scenario, figures: &[f64]) -> String {
    let one = |(metric, figure): (&Metric, &f64)| metric.unit.written(*figure);
    scenario
        .metrics
        .iter()
        .zip(figures)
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}
