//! The scenarios.

use std::fs;
use std::time::Duration;

use crate::child::{Failure, pause};
use crate::engine_alone;
use crate::fairness;
use crate::harness::{self, Found};
use crate::peers::Peer::{self, Baseline, Go, Heartline, Mosquitto, Nats, Redis, Tokio};
use crate::peers::{Mode, Ready, free_port};
use crate::proc;
use crate::retained;
use crate::scenario::{BEATING, Bench, Measured, Scenario, metric};
use crate::sizes;
use crate::stats::{Spread, Unit};
use crate::watched;

const ALL: &[Peer] = &[Baseline, Heartline, Tokio, Go, Redis, Nats, Mosquitto];
const ECHOES: &[Peer] = &[Baseline, Heartline, Tokio, Go, Redis, Nats];

const HUGE: &str = "huge";

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "size",
        peers: &[Heartline],
        metrics: &[
            metric("binary", "release binary, stripped", Unit::Megabytes, false),
            metric(
                "tiny",
                "library-only example with opt-level=\"z\"",
                Unit::Megabytes,
                false,
            ),
        ],
        once: true,
        measure: |bench, _| sizes::measure(bench),
    },
    Scenario {
        id: "start",
        peers: ALL,
        metrics: &[metric(
            "resident",
            "resident memory at start",
            Unit::Megabytes,
            false,
        )],
        once: false,
        measure: start,
    },
    Scenario {
        id: "hold",
        peers: ALL,
        metrics: &[
            metric(
                "memory",
                "user memory per idle connection",
                Unit::Bytes,
                false,
            ),
            metric(
                "accept",
                "CPU per accepted connection",
                Unit::Microseconds,
                true,
            ),
        ],
        once: false,
        measure: hold,
    },
    Scenario {
        id: "retained",
        peers: &[Baseline, Heartline, Tokio, Go],
        metrics: &[metric(
            "memory",
            "retained per connection after 16 KiB echoed once",
            Unit::Bytes,
            false,
        )],
        once: false,
        measure: retained::measure,
    },
    Scenario {
        id: "echo",
        peers: ECHOES,
        metrics: &[metric(
            "cpu",
            "CPU per echo, 64 active, depth 1",
            Unit::Microseconds,
            true,
        )],
        once: false,
        measure: |bench, ready| echo(bench, ready, 0, "1"),
    },
    Scenario {
        id: "echo-beside-idle",
        peers: ECHOES,
        metrics: &[metric(
            "cpu",
            "CPU per echo, 64 active, 10k heartbeating beside",
            Unit::Microseconds,
            true,
        )],
        once: false,
        measure: |bench, ready| echo(bench, ready, bench.size.idle, "1"),
    },
    Scenario {
        id: "echo-depth-16",
        peers: ECHOES,
        metrics: &[metric(
            "cpu",
            "CPU per message, 64 active, depth 16",
            Unit::Microseconds,
            true,
        )],
        once: false,
        measure: |bench, ready| echo(bench, ready, 0, "16"),
    },
    Scenario {
        id: "beat",
        peers: ECHOES,
        metrics: &[metric(
            "cpu",
            "CPU per heartbeat, 15k connections, each every 5 s",
            Unit::Microseconds,
            true,
        )],
        once: false,
        measure: beat,
    },
    Scenario {
        id: "storm",
        peers: ECHOES,
        metrics: &[metric(
            "last",
            "15k pings at once, last answer",
            Unit::Milliseconds,
            true,
        )],
        once: false,
        measure: storm,
    },
    Scenario {
        id: "fan-out",
        peers: &[Baseline, Heartline, Redis, Nats],
        metrics: &[
            metric(
                "last",
                "one message to 15k, last arrival",
                Unit::Milliseconds,
                true,
            ),
            metric(
                "cpu",
                "CPU per delivery, one message to 15k",
                Unit::Microseconds,
                true,
            ),
        ],
        once: false,
        measure: fan_out,
    },
    Scenario {
        id: "tail",
        peers: &[Heartline],
        metrics: &[
            metric(
                "alone",
                "p99.9 of 64 active connections",
                Unit::Microseconds,
                false,
            ),
            metric(
                "beside",
                "the same with 15k pinged and swept beside",
                Unit::Microseconds,
                false,
            ),
            metric("ratio", "the latter to the former", Unit::Times, false),
        ],
        once: false,
        measure: tail,
    },
    Scenario {
        id: "dead",
        peers: &[Heartline],
        metrics: &[
            metric(
                "overshoot",
                "eviction overshoot, 15k falling silent at once, p100",
                Unit::Milliseconds,
                false,
            ),
            metric(
                "seen",
                "the same as the load sees it, which reads 15k ends of file",
                Unit::Milliseconds,
                false,
            ),
            metric("early", "of them closed early", Unit::Count, false),
            metric("open", "of them never closed", Unit::Count, false),
            metric(
                "alive-lost",
                "live connections beside them lost",
                Unit::Count,
                false,
            ),
        ],
        once: false,
        measure: dead,
    },
    Scenario {
        id: fairness::ID,
        peers: &[Heartline],
        metrics: fairness::METRICS,
        once: false,
        measure: fairness::measure,
    },
    Scenario {
        id: watched::ID,
        peers: &[Heartline],
        metrics: watched::METRICS,
        once: false,
        measure: watched::measure,
    },
    Scenario {
        id: "wake-ups",
        peers: &[Heartline],
        metrics: &[metric(
            "count",
            "wake-ups in 5 s without a connection",
            Unit::Count,
            false,
        )],
        once: false,
        measure: wake_ups,
    },
    Scenario {
        id: engine_alone::ID,
        peers: &[Heartline],
        metrics: engine_alone::METRICS,
        once: false,
        measure: |bench, _| engine_alone::measure(bench),
    },
    Scenario {
        id: HUGE,
        peers: &[Heartline],
        metrics: &[
            metric(
                "missing",
                "of 95,000 connections over 5 processes not open after a minute",
                Unit::Count,
                false,
            ),
            metric(
                "unanswered",
                "of their heartbeats not answered",
                Unit::Count,
                false,
            ),
        ],
        once: true,
        measure: huge,
    },
];

pub fn ids() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.id).collect()
}

/// Those in `only`, or all. The huge one only on request.
pub fn choose(only: &[String], huge: bool) -> Vec<&'static Scenario> {
    let wanted = |scenario: &&Scenario| match only.iter().any(|id| id == scenario.id) {
        true => true,
        false if scenario.id == HUGE => huge,
        false => only.is_empty(),
    };
    SCENARIOS.iter().filter(wanted).collect()
}

/// Pings would mix with what is measured.
const NOT_ASKING: &[&str] = &["--heartbeat", "60s"];
/// A verdict after four seconds of silence.
const IMPATIENT: &[&str] = &["--heartbeat", "1s", "--missed", "3"];
const IMPATIENT_BOUND: &str = "4s";
const HEARTLINES_DEFAULTS: &[&str] = &[];

/// One server, one run of the harness.
fn load(
    bench: &Bench,
    ready: &Ready,
    mode: Mode,
    options: &[&str],
    args: &[&str],
) -> Result<Found, Failure> {
    let server = ready.start(mode, options)?;
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    harness::run(&bench.dir, &[server], &ready.peer.wire(mode), &args)
}

fn figures(found: &Found, pointers: &[&str]) -> Result<Measured, Failure> {
    let figures = pointers
        .iter()
        .map(|pointer| found.figure(pointer))
        .collect::<Result<_, _>>()?;
    Ok(Measured {
        figures,
        remarks: found.remarks(),
    })
}

fn start(_: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let server = ready.start(Mode::Reply, HEARTLINES_DEFAULTS)?;
    proc::rest(server.pid())?;
    Ok(Measured {
        figures: vec![proc::rss(server.pid())? / 1e6],
        remarks: Vec::new(),
    })
}

fn hold(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let args = [
        "hold",
        "--connections",
        &bench.size.many.to_string(),
        "--for",
        "1s",
    ];
    let found = load(bench, ready, Mode::Reply, HEARTLINES_DEFAULTS, &args)?;
    figures(
        &found,
        &[
            "/memory/bytes_per_connection",
            "/connecting/server_cpu_us_per_connection",
        ],
    )
}

fn echo(bench: &Bench, ready: &Ready, idle: u32, depth: &str) -> Result<Measured, Failure> {
    let (idle, size) = (idle.to_string(), &bench.size);
    let args = [
        "echo",
        "--active",
        "64",
        "--depth",
        depth,
        "--for",
        size.echo_for,
        "--idle",
        &idle,
        "--beat",
        size.beat_every,
    ];
    figures(
        &load(bench, ready, Mode::Reply, BEATING, &args)?,
        &["/server/cpu_us_per_unit"],
    )
}

fn beat(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let (many, size) = (bench.size.many.to_string(), &bench.size);
    let args = [
        "beat",
        "--connections",
        &many,
        "--beat",
        size.beat_every,
        "--for",
        size.beat_for,
    ];
    figures(
        &load(bench, ready, Mode::Reply, BEATING, &args)?,
        &["/server/cpu_us_per_unit"],
    )
}

fn storm(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    // At full speed, servers with a short backlog would lose dials, and it is not dialling that is
    // measured.
    let args = [
        "storm",
        "--connections",
        &bench.size.many.to_string(),
        "--ramp",
        "5000/s",
    ];
    figures(
        &load(bench, ready, Mode::Reply, BEATING, &args)?,
        &["/storm/last_answer_ms"],
    )
}

fn fan_out(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let (many, pushes) = (bench.size.many.to_string(), bench.size.pushes.to_string());
    let args = [
        "push",
        "--connections",
        &many,
        "--messages",
        &pushes,
        "--every",
        bench.size.push_every,
    ];
    let found = load(bench, ready, Mode::FanOut, NOT_ASKING, &args)?;
    let last = Spread::of(found.figures("/push/messages", "/last_us"))
        .ok_or_else(|| "nothing was delivered".to_string())?;
    let figures = vec![last.median / 1e3, found.figure("/server/cpu_us_per_unit")?];
    Ok(Measured {
        figures,
        remarks: found.remarks(),
    })
}

fn tail(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let run = |idle: u32| {
        let idle = idle.to_string();
        // The connections beside it send only pongs, every 5 s.
        let args = [
            "echo",
            "--active",
            "64",
            "--for",
            bench.size.tail_for,
            "--idle",
            &idle,
            "--beat",
            "off",
        ];
        load(bench, ready, Mode::Reply, HEARTLINES_DEFAULTS, &args)
    };
    let (alone, beside) = (run(0)?, run(bench.size.many)?);
    let p999 = "/groups/0/latency_us/p99_9";
    let figures = vec![
        alone.figure(p999)?,
        beside.figure(p999)?,
        beside.figure(p999)? / alone.figure(p999)?,
    ];
    Ok(Measured {
        figures,
        remarks: [alone.remarks(), beside.remarks()].concat(),
    })
}

/// The overshoot is the server's own, from its last log line. That of the load includes the time in
/// which the load itself sees 15,000 connections end.
fn dead(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let log = bench.dir.join("dead.log");
    // It is appended to.
    let _ = fs::remove_file(&log);
    let log_file = log.to_string_lossy();
    let server = ready.start(
        Mode::Reply,
        &[
            IMPATIENT,
            &[
                "--log-level",
                "info",
                "--log-file",
                &log_file,
                "--drain",
                "0s",
            ],
        ]
        .concat(),
    )?;
    let args = [
        "dead",
        "--connections",
        &bench.size.many.to_string(),
        "--alive",
        "100",
        "--bound",
        IMPATIENT_BOUND,
    ]
    .map(str::to_string);
    let servers = [server];
    let found = harness::run(&bench.dir, &servers, &ready.peer.wire(Mode::Reply), &args)?;
    let [server] = servers;
    server.terminate()?;
    let text = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let worst = text
        .split_once("worst_overshoot_ms=")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    let mut measured = figures(
        &found,
        &[
            "/dead/overshoot_us/max",
            "/dead/early",
            "/dead/open",
            "/dead/alive_lost",
        ],
    )?;
    measured.figures[0] /= 1e3;
    measured.figures.insert(
        0,
        worst.ok_or_else(|| "the server's log does not end with worst_overshoot_ms".to_string())?,
    );
    Ok(measured)
}

fn wake_ups(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let server = ready.start(Mode::Reply, HEARTLINES_DEFAULTS)?;
    // The connection that checked for a reply is closed by then.
    pause(Duration::from_secs(1))?;
    let before = proc::sleeps(server.pid())?;
    pause(bench.size.no_connections_for)?;
    Ok(Measured {
        figures: vec![proc::sleeps(server.pid())? - before],
        remarks: Vec::new(),
    })
}

const HUGE_PROCESSES: usize = 5;

fn huge(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let port = free_port()?;
    let options = [BEATING, &["--reuse-port"]].concat();
    let servers = (0..HUGE_PROCESSES)
        .map(|_| ready.start_at(port, Mode::Reply, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let (huge, size) = (bench.size.huge.to_string(), &bench.size);
    let args = [
        "hold",
        "--connections",
        &huge,
        "--beat",
        size.beat_every,
        "--for",
        size.huge_for,
    ]
    .map(str::to_string);
    let found = harness::run(&bench.dir, &servers, &ready.peer.wire(Mode::Reply), &args)?;
    let missing = f64::from(size.huge) - found.figure("/connections/open")?;
    Ok(Measured {
        figures: vec![
            missing,
            found.figure("/groups/0/unanswered")? + found.figure("/groups/0/unsent")?,
        ],
        remarks: found.remarks(),
    })
}
