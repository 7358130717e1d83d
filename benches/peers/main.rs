//! The comparison: the same scenarios, in turn and pinned, on heartline and on what users might
//! pick instead. docs/benchmarks.md says how it is measured, and is where the results of a full run
//! go.
//!
//!     cargo bench --bench peers

mod background;
mod child;
mod curves;
mod docs;
mod engine_alone;
mod fairness;
mod harness;
mod machine;
mod peers;
mod plots;
mod proc;
mod report;
mod retained;
mod rounds;
mod scenario;
mod scenarios;
mod sizes;
mod stats;
mod table;
mod targets;
mod virtual_connections;
mod watched;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, getrlimit, setrlimit};

use child::{Failure, LOAD_CORE};
use peers::Peer;
use report::Report;
use scenario::{Bench, Size};

/// Fewer would give a median that one disturbed round can move.
const FULL_ROUNDS: u32 = 5;

/// Compares heartline with its peers. A full run, which is one without --only, --peers, --quick and
/// with at least five rounds, writes docs/benchmarks.md and its plots; any other writes the same to
/// target/peers.
#[derive(Parser)]
#[command(name = "cargo bench --bench peers --")]
struct Options {
    /// How often each scenario is run on each peer [default: 5; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Tiny numbers: shows that everything works, and nothing about speed
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, separated by commas
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(scenarios::ids()))]
    only: Vec<String>,
    /// Only these peers, separated by commas
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Hold 95,000 lines for a minute over five processes, too
    #[arg(long)]
    huge: bool,
    /// The flag that `cargo bench` passes, and `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
    /// Drive the engine alone with this many connections, and print its cost
    #[arg(long = engine_alone::FLAG, hide = true, value_name = "LINES")]
    engine_alone: Option<u32>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.engine_alone {
        Some(lines) => be_alone(lines),
        None if options.bench => compare(&options),
        None => {
            println!("nothing measured: this is for `cargo bench --bench peers`");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => ExitCode::from(130),
        Err(Failure::Failed(problem)) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The other end of `engine_alone::measure`.
fn be_alone(lines: u32) -> Result<(), Failure> {
    let costs = virtual_connections::measure(lines)?;
    println!(
        "{}",
        serde_json::to_string(&costs).map_err(|error| error.to_string())?
    );
    Ok(())
}

fn compare(options: &Options) -> Result<(), Failure> {
    child::obey_interrupts()?;
    raise_descriptor_limit();
    let dir = work_dir()?;
    let rounds = options
        .rounds
        .unwrap_or(if options.quick { 1 } else { FULL_ROUNDS });
    let full = !options.quick
        && options.only.is_empty()
        && options.peers.is_empty()
        && rounds >= FULL_ROUNDS;
    let chosen = scenarios::choose(&options.only, options.huge);

    let takes_part = |peer: &Peer| chosen.iter().any(|scenario| scenario.peers.contains(peer));
    let wanted = |peer: &Peer| {
        takes_part(peer) && (options.peers.is_empty() || options.peers.contains(peer))
    };
    println!("finding and building the peers");
    let prepared: Vec<_> = Peer::value_variants()
        .iter()
        .copied()
        .filter(wanted)
        .map(|peer| (peer, peers::prepare(peer, &dir)))
        .collect();
    // Before this process and all that it starts are left with one core.
    let tiny_example = chosen
        .iter()
        .any(|scenario| scenario.id == "size")
        .then(|| sizes::build_tiny_example(&dir));
    child::pin_self(LOAD_CORE)?;

    let size = if options.quick {
        Size::quick()
    } else {
        Size::full()
    };
    let mut report = Report::new(rounds, options.quick, &prepared, &chosen);
    report.peers.iter().for_each(|peer| println!("  {peer}"));
    let bench = Bench {
        dir: dir.clone(),
        size,
        peers: prepared,
        tiny_example,
    };
    let outcome = rounds::run(&bench, rounds, &chosen, &mut report);

    report.finish(outcome.is_ok());
    report.targets = targets::judge(&report);
    print!("\n{}", table::plain(&report));
    let json = dir.join("results.json");
    let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    child::write(&json, &text)?;
    println!("\nwritten: {}", json.display());
    outcome?;
    docs::write(&report, &dir, full)
}

/// Children inherit it, and some servers do not raise it themselves.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised shows as connections that fail.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// `target/peers`, wherever the target directory is.
fn work_dir() -> Result<PathBuf, Failure> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}
