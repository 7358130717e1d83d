//! The report as text for a terminal, and as Markdown.

use std::fmt::Write;

use clap::ValueEnum;

use crate::engine_alone;
use crate::peers::Peer;
use crate::report::{Figures, MetricReport, Remark, Report, ScenarioReport};
use crate::stats::Unit;

const QUICK: &str =
    "From --quick: tiny numbers, which show that everything works and nothing about speed.";

/// Writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

pub fn plain(report: &Report) -> String {
    let mut out = String::new();
    if report.quick {
        line!(out, "{QUICK}\n");
    }
    line!(
        out,
        "median (min–max) over {} rounds; × baseline: median of the ratios in the same round (min–max)\n",
        report.rounds
    );
    for scenario in &report.scenarios {
        for metric in &scenario.metrics {
            line!(out, "{}: {}", scenario.id, with_unit(metric));
            for figures in &metric.peers {
                let (value, ratio) = (value(figures, metric.unit), ratio_range(figures));
                line!(out, "  {:<10} {value:<32} {ratio}", figures.peer);
            }
        }
        remarks(scenario)
            .iter()
            .for_each(|remark| line!(out, "  ! {remark}"));
        line!(out, "");
    }
    for target in &report.targets {
        line!(
            out,
            "{:<12}  {}  [{}]  {}",
            target.verdict,
            target.title,
            target.target,
            target.measured
        );
    }
    for peer in report.peers.iter().filter(|peer| peer.missing.is_some()) {
        line!(out, "{peer}");
    }
    out
}

/// The text between the markers in docs/benchmarks.md. `plots` are file names beside it, each with
/// its title.
pub fn markdown(report: &Report, plots: &[(String, String)]) -> String {
    let mut out = String::new();
    if report.quick {
        line!(out, "**{QUICK}**\n");
    }
    let machine = &report.machine;
    line!(
        out,
        "`{}`, {}, {} rounds, on {}, {}, {} cores,",
        report.command,
        report.started,
        report.rounds,
        machine.kernel,
        machine.cpu,
        machine.cores
    );
    line!(out, "{:.0} GB of memory.\n", machine.memory_bytes / 1e9);
    report.peers.iter().for_each(|peer| line!(out, "* {peer}"));

    line!(out, "\n### Targets\n");
    line!(
        out,
        "| scenario | target | heartline | |\n|---|---|---|---|"
    );
    for target in &report.targets {
        line!(
            out,
            "| {} | {} | {} | {} |",
            target.title,
            target.target,
            target.measured,
            target.verdict
        );
    }

    peers(&mut out, report);
    engine_sizes(&mut out, report);

    let remarks: Vec<String> = report
        .scenarios
        .iter()
        .flat_map(|of| {
            remarks(of)
                .into_iter()
                .map(move |remark| format!("{}, {remark}", of.id))
        })
        .collect();
    if !remarks.is_empty() {
        line!(out, "\nDisturbances during the run:\n");
        remarks.iter().for_each(|remark| line!(out, "* {remark}"));
    }
    line!(
        out,
        "\n### Plots\n\nBars end at the median; the thin line goes from the least to the most. So does that of a curve's points.\n"
    );
    plots
        .iter()
        .for_each(|(file, title)| line!(out, "![{title}]({file})\n"));
    out
}

fn peers(out: &mut String, report: &Report) {
    let scenarios = report
        .scenarios
        .iter()
        .filter(|scenario| scenario.id != engine_alone::ID);
    let metrics: Vec<&MetricReport> = scenarios.flat_map(|scenario| &scenario.metrics).collect();
    if metrics.is_empty() {
        return;
    }
    line!(out, "\n### All peers\n");
    line!(
        out,
        "Each cell: median (min–max), and the median of the ratios to the baseline in the same round. A dash: not part of the scenario.\n"
    );
    let names: Vec<String> = report
        .peers
        .iter()
        .map(|peer| peer.peer.to_string())
        .collect();
    line!(
        out,
        "| | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for metric in metrics {
        let cell = |peer: Peer| {
            metric
                .of(peer)
                .map_or_else(|| "–".to_string(), |figures| cell(figures, metric.unit))
        };
        let cells: Vec<String> = report.peers.iter().map(|peer| cell(peer.peer)).collect();
        line!(out, "| {} | {} |", with_unit(metric), cells.join(" | "));
    }
}

/// Of no peer but heartline, and a row for each number of lines.
fn engine_sizes(out: &mut String, report: &Report) {
    let mut sizes = engine_alone::sizes(report).peekable();
    if sizes.peek().is_none() {
        return;
    }
    line!(out, "\n### The engine alone\n");
    line!(
        out,
        "| virtual connections | resident, MB | per connection, B | \
         wheel insert, ns | wheel expiry, ns | CPU per connection and heartbeat interval, ns |"
    );
    line!(out, "|---|---|---|---|---|---|");
    for (lines, metrics) in sizes {
        let ours = metrics
            .iter()
            .filter_map(|metric| Some(value(metric.of(Peer::Heartline)?, metric.unit)));
        line!(
            out,
            "| {} | {} |",
            Unit::Count.number(f64::from(lines)),
            ours.collect::<Vec<_>>().join(" | ")
        );
    }
}

/// One for each peer, so that a disturbed machine does not fill the page.
fn remarks(scenario: &ScenarioReport) -> Vec<String> {
    let of_peer = |peer: &Peer| {
        let of_peer: Vec<&Remark> = scenario
            .remarks
            .iter()
            .filter(|remark| remark.peer == *peer)
            .collect();
        let last = of_peer.last()?;
        let mut rounds: Vec<String> = of_peer
            .iter()
            .map(|remark| remark.round.to_string())
            .collect();
        rounds.dedup();
        match &rounds[..] {
            [round] if of_peer.len() == 1 => Some(format!("{peer}, round {round}: {}", last.text)),
            _ => Some(format!(
                "{peer}, rounds {}; the last: {}",
                rounds.join(", "),
                last.text
            )),
        }
    };
    Peer::value_variants().iter().filter_map(of_peer).collect()
}

fn with_unit(metric: &MetricReport) -> String {
    match metric.unit.name() {
        "" => metric.title.to_string(),
        unit => format!("{}, {unit}", metric.title),
    }
}

fn value(figures: &Figures, unit: Unit) -> String {
    match &figures.spread {
        None => figures.absence().to_string(),
        // Measured once, or always the same.
        Some(spread) if spread.min == spread.max => unit.number(spread.median),
        Some(spread) => format!("{} ({})", unit.number(spread.median), unit.range(spread)),
    }
}

fn cell(figures: &Figures, unit: Unit) -> String {
    match figures
        .to_baseline
        .filter(|_| figures.peer != Peer::Baseline)
    {
        None => value(figures, unit),
        Some(ratio) => format!(
            "{}, {} ×",
            value(figures, unit),
            Unit::Times.number(ratio.median)
        ),
    }
}

fn ratio_range(figures: &Figures) -> String {
    match figures
        .to_baseline
        .filter(|_| figures.peer != Peer::Baseline)
    {
        None => String::new(),
        Some(ratio) => format!(
            "{} × baseline ({})",
            Unit::Times.number(ratio.median),
            Unit::Times.range(&ratio)
        ),
    }
}
