//! Runs `heartline bench` against a server, and reads its JSON.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::child::{Child, Failure, LOAD_CORE, last_lines};
use crate::peers::{Server, Wire};

/// No scenario takes as long.
const LIMIT: Duration = Duration::from_secs(300);
/// Share of the measured time that the threads of the server may have waited for their core, in
/// all. Several wait for each other, too.
pub const WAITING: f64 = 0.05;

/// The result of a harness run.
pub struct Found {
    json: Value,
}

/// The scheduling priority where harnesses share a core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Usual,
    /// Before all others (sched(7), SCHED_FIFO), so that it does not measure its own wait for the
    /// core. Needs root.
    First,
}

const HARNESS: &str = env!("CARGO_BIN_EXE_heartline");

/// `args` begin with the scenario. All `servers` listen on the same address.
pub fn run(dir: &Path, servers: &[Server], wire: &Wire, args: &[String]) -> Result<Found, Failure> {
    run_at(Urgency::Usual, dir, servers, wire, args)
}

/// A harness whose figures are not used; it ends when the returned value is dropped, if not before.
pub fn disturb(server: &Server, args: &[&str]) -> Result<Child, Failure> {
    Child::start(LOAD_CORE, Path::new(HARNESS), |command| {
        command.arg("bench").args(args).arg(server.addr.to_string());
    })
}

pub fn run_at(
    urgency: Urgency,
    dir: &Path,
    servers: &[Server],
    wire: &Wire,
    args: &[String],
) -> Result<Found, Failure> {
    let (json, log) = (dir.join("harness.json"), dir.join("harness.log"));
    // Only what is read after this belongs to the run.
    let _ = fs::remove_file(&json);
    let stderr = File::create(&log).map_err(|error| format!("write {}: {error}", log.display()))?;
    let mut all = args.to_vec();
    let mut flag = |name: &str, value: &str| all.extend([name.to_string(), value.to_string()]);
    flag("--expect", wire.expect);
    flag("--answer", wire.answer);
    wire.hello.iter().for_each(|hello| flag("--hello", hello));
    wire.send.iter().for_each(|send| flag("--send", send));
    servers
        .iter()
        .for_each(|server| flag("--pid", &server.pid().to_string()));
    all.extend(servers.first().map(|server| server.addr.to_string()));
    let program = if urgency == Urgency::First {
        "chrt"
    } else {
        HARNESS
    };
    let child = Child::start(LOAD_CORE, Path::new(program), |command| {
        if urgency == Urgency::First {
            command.args(["-f", "10", HARNESS]);
        }
        command
            .arg("bench")
            .args(all)
            .arg("--json")
            .arg(&json)
            .stderr(Stdio::from(stderr));
    })?;
    let problem =
        |problem: String| Failure::Failed(format!("heartline bench {}: {problem}", args.join(" ")));
    let status = child.wait(LIMIT)?;
    if !status.success() {
        return Err(problem(last_lines(
            &fs::read_to_string(&log).unwrap_or_default(),
        )));
    }
    let text = fs::read_to_string(&json).map_err(|error| problem(error.to_string()))?;
    Ok(Found {
        json: serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?,
    })
}

impl Found {
    /// The figure at `pointer` (RFC 6901).
    pub fn figure(&self, pointer: &str) -> Result<f64, Failure> {
        self.maybe(pointer).ok_or_else(|| {
            Failure::Failed(format!("the harness's results have no figure at {pointer}"))
        })
    }

    fn maybe(&self, pointer: &str) -> Option<f64> {
        self.json.pointer(pointer)?.as_f64()
    }

    /// The same of each element of the list at `list`.
    pub fn figures(&self, list: &str, pointer: &str) -> Vec<f64> {
        let elements = self.json.pointer(list).and_then(Value::as_array);
        elements
            .into_iter()
            .flatten()
            .filter_map(|element| element.pointer(pointer)?.as_f64())
            .collect()
    }

    /// Warnings about the figures.
    pub fn remarks(&self) -> Vec<String> {
        let causes = |pointer: &str| {
            let causes = self
                .json
                .pointer(pointer)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            causes
                .map(|(cause, count)| format!("{count} {cause}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let sum = |pointer: &str| self.figures("/groups", pointer).into_iter().sum::<f64>();
        let mut remarks = Vec::new();
        let (failed, lost) = (causes("/connecting/failed"), causes("/connections/lost"));
        if !failed.is_empty() {
            remarks.push(format!("connections failed ({failed})"));
        }
        if !lost.is_empty() {
            remarks.push(format!("connections were lost ({lost})"));
        }
        let missing =
            sum("/unanswered") + sum("/unsent") + self.maybe("/push/missing").unwrap_or(0.0);
        if missing > 0.0 {
            remarks.push(format!(
                "{missing} messages were not sent, not answered or not delivered"
            ));
        }
        let waited = self.maybe("/server/cpu_wait_s").unwrap_or(0.0)
            / self.maybe("/measured_s").unwrap_or(f64::INFINITY);
        if waited > WAITING {
            remarks.push(format!(
                "the threads of the server waited for their core for {:.0} % of the time",
                waited * 100.0
            ));
        }
        remarks
    }
}
