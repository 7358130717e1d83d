//! The engine without sockets: memory and work by the number of connections, up to a million. Each
//! size has a process of its own, which is this program once more (`virtual_connections.rs`).

use std::env;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use crate::child::{Child, Failure, SERVER_CORE, last_lines};
use crate::harness::WAITING;
use crate::peers::Peer;
use crate::report::{MetricReport, Report};
use crate::scenario::{Bench, FEW_LINES, LINES, Measured, Metric, metric};
use crate::stats::{Spread, Unit};
use crate::virtual_connections::Costs;

pub const ID: &str = "engine";
/// The flag that makes this program such a process.
pub const FLAG: &str = "engine-alone";

/// A hundred times what it takes.
const LIMIT: Duration = Duration::from_secs(300);

/// The rows for each number of connections, and the summary.
macro_rules! metrics {
    ($($lines:literal)*) => {
        &[
            $(
                metric(
                    concat!("resident-", $lines),
                    concat!("engine alone, ", $lines, " connections, resident"),
                    Unit::Megabytes,
                    false,
                ),
                metric(
                    concat!("per-line-", $lines),
                    concat!("engine alone, ", $lines, " connections, resident per connection"),
                    Unit::Bytes,
                    false,
                ),
                metric(
                    concat!("insert-", $lines),
                    concat!("engine alone, ", $lines, " connections, wheel insert"),
                    Unit::Nanoseconds,
                    false,
                ),
                metric(
                    concat!("expiry-", $lines),
                    concat!("engine alone, ", $lines, " connections, wheel expiry"),
                    Unit::Nanoseconds,
                    false,
                ),
                metric(
                    concat!("interval-", $lines),
                    concat!(
                        "engine alone, ",
                        $lines,
                        " connections, CPU per connection and heartbeat interval"
                    ),
                    Unit::Nanoseconds,
                    false,
                ),
            )*
            metric(
                "growth",
                "engine alone, bytes per connection at 1M to those at 10k",
                Unit::Times,
                false,
            ),
        ]
    };
}

pub const METRICS: &[Metric] = metrics!("10k" "30k" "100k" "300k" "1M");

/// Metrics of one number of lines, in their order.
const PER_SIZE: usize = 5;

pub fn measure(bench: &Bench) -> Result<Measured, Failure> {
    let mut figures = Vec::with_capacity(METRICS.len());
    let (mut per_line, mut remarks) = (Vec::new(), Vec::new());
    for lines in bench.size.engine_lines {
        let costs = run(bench, lines)?;
        let bytes = costs.resident_bytes / f64::from(lines);
        figures.extend([
            costs.resident_bytes / 1e6,
            bytes,
            costs.insert_ns,
            costs.expiry_ns,
            costs.interval_ns,
        ]);
        per_line.push(bytes);
        if costs.waited > WAITING {
            remarks.push(format!(
                "with {lines} connections the process waited for its core for {:.0} % of the time",
                costs.waited * 100.0
            ));
        }
    }
    figures.push(per_line[per_line.len() - 1] / per_line[0]);
    Ok(Measured { figures, remarks })
}

fn run(bench: &Bench, lines: u32) -> Result<Costs, Failure> {
    let problem =
        |problem: String| Failure::Failed(format!("{lines} virtual connections: {problem}"));
    let program = env::current_exe().map_err(|error| problem(error.to_string()))?;
    let (json, log) = (bench.dir.join("engine.json"), bench.dir.join("engine.log"));
    let create = |path| File::create(path).map_err(|error| problem(error.to_string()));
    let (stdout, stderr) = (create(&json)?, create(&log)?);
    let child = Child::start(SERVER_CORE, &program, |command| {
        command
            .arg(format!("--{FLAG}"))
            .arg(lines.to_string())
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
    })?;
    let status = child.wait(LIMIT)?;
    if !status.success() {
        return Err(problem(last_lines(
            &fs::read_to_string(&log).unwrap_or_default(),
        )));
    }
    let text = fs::read_to_string(&json).map_err(|error| problem(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
}

/// Each number of lines with its metrics. Nothing if the scenario was not run.
pub fn sizes(report: &Report) -> impl Iterator<Item = (u32, &[MetricReport])> {
    let lines = if report.quick { FEW_LINES } else { LINES };
    let scenario = report.scenarios.iter().find(|scenario| scenario.id == ID);
    scenario.into_iter().flat_map(move |scenario| {
        lines
            .into_iter()
            .zip(scenario.metrics.chunks_exact(PER_SIZE))
    })
}

/// How `quantity`, which is how the ids of its metrics begin, grows with the lines.
pub fn growth(report: &Report, quantity: &str) -> Vec<(f64, Spread)> {
    let point = |(lines, metrics): (u32, &[MetricReport])| {
        let metric = metrics
            .iter()
            .find(|metric| metric.id.starts_with(quantity))?;
        Some((f64::from(lines), metric.of(Peer::Heartline)?.spread?))
    };
    sizes(report).filter_map(point).collect()
}
