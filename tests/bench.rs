//! The load harness, from outside: each scenario in small, against its own server and against
//! others.
#![cfg(feature = "cli")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::Serve;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    command(args).output().expect("the binary starts")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command.arg("bench").args(args).stdin(Stdio::null());
    command
}

/// Runs it, expects success, and returns the output of `--json`. Options of the server, behind
/// `--`, are in `serve`.
fn measure(args: &[&str], serve: &[&str]) -> Value {
    measure_to_code(args, serve, 0)
}

fn measure_to_code(args: &[&str], serve: &[&str], code: i32) -> Value {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let json = dir.path().join("results.json");
    let flag = ["--json", json.to_str().expect("a path in UTF-8")];
    let output = bench(&[args, &flag, serve].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    let table = String::from_utf8(output.stdout).expect("the table is text");
    assert!(table.starts_with(args[0]), "{table}");
    let results: Value =
        serde_json::from_slice(&fs::read(&json).expect("it was written")).expect("it is JSON");
    assert_eq!(results["scenario"], args[0]);
    assert_eq!(results["format"], 1);
    assert_eq!(
        results["connecting"]["failed"],
        serde_json::json!({}),
        "{stderr}"
    );
    results
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number but {value}"))
}

fn group<'a>(results: &'a Value, name: &str) -> &'a Value {
    let groups = results["groups"].as_array().expect("a list");
    groups
        .iter()
        .find(|group| group["name"] == name)
        .unwrap_or_else(|| panic!("no group {name} in {groups:?}"))
}

/// An echo server with one thread per connection, for as long as the test runs.
fn plain_echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    if stream.write_all(&chunk[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn hold_scenario_measures_memory() {
    let results = measure(
        &[
            "hold",
            "--connections",
            "300",
            "--for",
            "1s",
            "--beat",
            "400ms",
        ],
        &[],
    );
    assert_eq!(results["connections"]["open"], 300);
    assert_eq!(results["connections"]["lost"], serde_json::json!({}));
    assert_eq!(
        results["memory"]["points"]
            .as_array()
            .expect("a list")
            .len(),
        4
    );
    let held = group(&results, "held");
    assert!(number(&held["answered"]) >= 600.0, "{held}");
    assert_eq!(held["unanswered"], 0);
    assert!(number(&results["server"]["cpu_us_per_unit"]) > 0.0);
    assert_eq!(results["run"]["own_server"], true);
    let series = results["series"].as_object().expect("an object");
    let samples = series["at_s"].as_array().expect("a list").len();
    assert!(samples >= 5);
    assert!(
        series
            .values()
            .filter_map(Value::as_array)
            .all(|values| values.len() == samples)
    );
}

#[test]
fn bench_connection_answers_pings() {
    let results = measure(
        &["hold", "--connections", "50", "--for", "1s"],
        &["--", "--heartbeat", "200ms"],
    );
    assert_eq!(results["connections"]["open"], 50);
    assert!(number(&group(&results, "held")["questions_answered"]) >= 100.0);
}

#[test]
fn echo_keeps_its_depth_beside_idle_connections() {
    let args = [
        "echo", "--active", "8", "--depth", "4", "--size", "100", "--idle", "50", "--beat",
        "300ms", "--for", "1s",
    ];
    let results = measure(&args, &[]);
    let active = group(&results, "active");
    assert!(number(&active["answered"]) > 100.0, "{active}");
    assert_eq!(active["answered"], active["sent"]);
    let latency = &active["latency_us"];
    let percentiles =
        ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| number(&latency[name]));
    assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{latency}");
    assert!(number(&group(&results, "idle")["answered"]) >= 100.0);
    let server = &results["server"];
    assert_eq!(server["unit"], "echo");
    let thread = &server["busiest_thread"];
    assert!(
        number(&thread["cpu_cores"]) > 0.0
            && number(&thread["cpu_cores"]) <= number(&server["cpu_cores"]),
        "{server}"
    );
    assert!(
        number(&thread["cpu_wait_s"]) <= number(&server["cpu_wait_s"])
            && number(&server["cores"]) >= 1.0,
        "{server}"
    );
    assert_eq!(
        (&active["lost"], &group(&results, "idle")["lost"]),
        (&serde_json::json!({}), &serde_json::json!({}))
    );
}

#[test]
fn beat_scenario_is_an_open_loop() {
    let results = measure(
        &[
            "beat",
            "--connections",
            "200",
            "--beat",
            "500ms",
            "--for",
            "1s",
        ],
        &[],
    );
    let beating = group(&results, "beating");
    assert_eq!(
        (&beating["sent"], &beating["answered"]),
        (&Value::from(400), &Value::from(400))
    );
    assert_eq!(beating["latency_us"]["count"], 400);
}

#[test]
fn storm_waits_for_the_last_answer() {
    let results = measure(&["storm", "--connections", "300"], &[]);
    assert_eq!(group(&results, "pinging")["answered"], 300);
    let storm = &results["storm"];
    assert!(
        number(&storm["last_answer_ms"]) > 0.0 && number(&storm["last_written_ms"]) > 0.0,
        "{storm}"
    );
    assert!(number(&results["connecting"]["server_cpu_us_per_connection"]) > 0.0);
}

#[test]
fn push_reaches_every_listener() {
    let results = measure(
        &[
            "push",
            "--connections",
            "100",
            "--messages",
            "5",
            "--every",
            "50ms",
        ],
        &[],
    );
    let push = &results["push"];
    assert_eq!(
        (&push["delivered"], &push["missing"]),
        (&Value::from(500), &Value::from(0))
    );
    let messages = push["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 5);
    for message in messages {
        assert_eq!(message["received"], 100);
        assert!(number(&message["first_us"]) <= number(&message["last_us"]));
    }
}

#[test]
fn bench_dead_finds_closes_within_the_bound() {
    let args = [
        "dead",
        "--connections",
        "100",
        "--alive",
        "20",
        "--before",
        "500ms",
    ];
    let results = measure(&args, &["--", "--heartbeat", "400ms", "--missed", "2"]);
    let dead = &results["dead"];
    assert_eq!(number(&dead["bound_s"]), 1.2);
    assert_eq!(
        (&dead["closed"], &dead["open"], &dead["early"]),
        (&Value::from(100), &Value::from(0), &Value::from(0))
    );
    assert!(number(&dead["shortest_silence_s"]) >= 1.2, "{dead}");
    // A tick, and much lag: other tests run beside.
    assert!(number(&dead["longest_silence_s"]) < 2.5, "{dead}");
    assert_eq!(
        (&dead["alive_lost"], &results["connections"]["open"]),
        (&Value::from(0), &Value::from(20))
    );
}

#[test]
fn bench_dead_counts_early_closes() {
    let serve = Serve::start(&["--heartbeat", "200ms", "--missed", "1"]);
    let addr = serve.addr().to_string();
    let results = measure(
        &[
            "dead",
            &addr,
            "--connections",
            "20",
            "--alive",
            "0",
            "--before",
            "100ms",
            "--bound",
            "5s",
        ],
        &[],
    );
    assert_eq!(
        (&results["dead"]["closed"], &results["dead"]["early"]),
        (&Value::from(20), &Value::from(20))
    );
    assert!(
        results["server"].is_null(),
        "nobody said which process it is"
    );
    assert!(results["notes"].to_string().contains("before the bound"));
}

#[test]
fn workers_are_merged_and_dial_from_the_addresses_they_are_given() {
    let serve = Serve::start(&[]);
    let (addr, pid) = (
        serve.addr().to_string(),
        serve.pid().as_raw_nonzero().to_string(),
    );
    let args = [
        "beat",
        &addr,
        "--connections",
        "101",
        "--beat",
        "300ms",
        "--for",
        "900ms",
        "--workers",
        "2",
        "--pid",
        &pid,
    ];
    let results = measure(
        &[
            &args[..],
            &["--source", "127.0.0.2-127.0.0.4", "--ramp", "max"],
        ]
        .concat(),
        &[],
    );
    assert_eq!(results["connections"]["open"], 101);
    assert_eq!(results["groups"][0]["connections"], 101);
    assert_eq!(results["groups"][0]["answered"], 303);
    assert_eq!(
        results["client"]["workers"]
            .as_array()
            .expect("a list")
            .len(),
        2
    );
    assert_eq!(
        results["run"]["sources"].as_array().expect("a list").len(),
        3
    );
    assert!(number(&results["server"]["cpu_s"]) > 0.0);
    // Lines from all three addresses were closed at the end, and by reset, so that their ports are
    // free.
    let closes = serve.wait_for_closes(101);
    for source in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        assert!(
            closes
                .iter()
                .filter(|close| common::field(close, "addr").starts_with(source))
                .count()
                // A dial whose port is taken is repeated from the next address.
                >= 30,
            "{source}"
        );
    }
    assert!(
        closes
            .iter()
            .all(|close| common::field(close, "reason") == "peer-reset")
    );
}

#[test]
fn bench_measures_other_line_servers() {
    let addr = plain_echo_server().to_string();
    let lines = ["--send", "a\\nb\\n", "--expect", "lines:2"];
    let results = measure(
        &[
            &["echo", &addr, "--active", "4", "--for", "500ms"][..],
            &lines,
        ]
        .concat(),
        &[],
    );
    let active = group(&results, "active");
    assert!(number(&active["answered"]) > 10.0);
    assert_eq!(active["sent"], active["answered"]);

    let bytes = [
        "--send",
        "\\x01\\x02\\xff",
        "--expect",
        "\\x02\\xff",
        "--hello",
        "hello\\r\\n",
    ];
    let results = measure(
        &[&["storm", &addr, "--connections", "20"][..], &bytes].concat(),
        &[],
    );
    assert_eq!(group(&results, "pinging")["answered"], 20);
}

#[test]
fn run_without_any_expected_answer_fails() {
    let addr = plain_echo_server().to_string();
    let results = measure_to_code(
        &[
            "beat",
            &addr,
            "--connections",
            "5",
            "--beat",
            "200ms",
            "--for",
            "400ms",
            "--expect",
            "nothing like it",
        ],
        &[],
        1,
    );
    assert_eq!(
        (
            &results["groups"][0]["sent"],
            &results["groups"][0]["unanswered"]
        ),
        (&Value::from(10), &Value::from(10))
    );
    assert!(results["groups"][0]["latency_us"].is_null());
    assert!(results["notes"].to_string().contains("not answered"));
}

#[test]
fn refused_dials_are_reported_and_exit_with_1() {
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("bound")
        .to_string();
    let output = bench(&["hold", &free, "--connections", "20", "--for", "1s"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("20 refused"), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn result_file_name_need_not_be_utf8() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let json = dir.path().join(OsStr::from_bytes(b"r\xffsults.json"));
    let mut command = command(&["hold", "--connections", "1", "--for", "100ms"]);
    let output = command.arg("--json").arg(&json).output();
    let output = output.expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(json.exists());
}

#[test]
fn result_file_behind_a_symbolic_link_is_written_and_the_link_stays() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "old").expect("room on the disk");
    std::os::unix::fs::symlink(&file, &link).expect("a symbolic link");
    let mut command = command(&["hold", "--connections", "1", "--for", "100ms"]);
    let output = command.arg("--json").arg(&link).output();
    let output = output.expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(link.is_symlink());
    assert_ne!(fs::read_to_string(&file).expect("it is there"), "old");
}

#[test]
fn failed_run_keeps_earlier_result_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let json = dir.path().join("results.json");
    fs::write(&json, "precious").expect("room on the disk");
    let path = json.to_str().expect("a path in UTF-8");
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("bound")
        .to_string();
    for addr in [&free, "127.0.0.1:99999"] {
        let output = bench(&["hold", addr, "--connections", "1", "--json", path]);
        assert!(!output.status.success());
        assert_eq!(fs::read_to_string(&json).expect("it is there"), "precious");
    }
    let left = fs::read_dir(dir.path()).expect("it is there").count();
    assert_eq!(left, 1, "nothing is left beside it");
}

#[test]
fn connections_that_the_server_will_not_have_are_counted() {
    let results = measure(
        &["hold", "--connections", "30", "--for", "500ms"],
        &["--", "--max-connections", "10"],
    );
    assert_eq!(results["connections"]["open"], 10);
    let lost = results["connections"]["lost"]
        .as_object()
        .expect("an object");
    assert_eq!(lost.values().map(number).sum::<f64>(), 20.0, "{lost:?}");
    assert_eq!(group(&results, "held")["lost"].as_object(), Some(lost));
    assert!(results["notes"].to_string().contains("were lost"));
}

#[test]
fn wrong_usage_is_refused_and_the_flag_named() {
    for (args, culprit) in [
        (&["run"][..], "run"),
        (&["hold", "nowhere"], "ADDR"),
        (&["hold", "--connections", "0"], "--connections"),
        (&["hold", "--for", "5"], "--for"),
        (&["hold", "--for", "0s"], "--for"),
        (&["hold", "--ramp", "fast"], "--ramp"),
        (&["hold", "--send", "\\q"], "--send"),
        (&["hold", "--expect", "lines:0"], "--expect"),
        (&["hold", "--answer", "ping"], "--answer"),
        (&["hold", "--pid", "4294967295"], "--pid"),
        (&["hold", "--workers", "0"], "--workers"),
        (&["hold", "--source", "192.0.2.1"], "--source"),
        (&["hold", "--source", "::1"], "--source"),
        (&["echo", "--depth", "0"], "--depth"),
        (&["echo", "--depth", "65536", "--size", "1MiB"], "--depth"),
        (&["echo", "--size", "0"], "--size"),
        (&["echo", "--size", "10", "--send", "x"], "--size"),
        (&["beat", "--beat", "off"], "--beat"),
        (&["push", "--messages", "0"], "--messages"),
        (&["dead", "--bound", "soon"], "--bound"),
        (&["dead", "--", "--heartbeat", "0s"], "--heartbeat"),
        (&["hold", "--", "--no-such-flag"], "--no-such-flag"),
        (
            &["hold", "127.0.0.1:1", "--", "--tick", "1s"],
            "SERVE-OPTIONS",
        ),
    ] {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(
            stderr.contains(culprit),
            "{args:?} should name {culprit}: {stderr}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn ctrl_c_ends_it_with_the_figures_so_far() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (json, html) = (
        dir.path().join("results.json"),
        dir.path().join("page.html"),
    );
    let mut command = command(&["hold", "--connections", "50", "--for", "1h"]);
    let child = command
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the binary starts");
    thread::sleep(Duration::from_millis(1500));
    let began = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).expect("the process is ours");
    let output = child.wait_with_output().expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("ended early"));
    let results: Value =
        serde_json::from_slice(&fs::read(&json).expect("it was written")).expect("it is JSON");
    assert_eq!(
        (&results["interrupted"], &results["connections"]["open"]),
        (&Value::from(true), &Value::from(50))
    );

    let page = fs::read_to_string(&html).expect("it was written");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
    // Nothing is fetched from elsewhere; the name of SVG's namespace is no address to fetch.
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// The processes of a harness that is killed outright do not outlive it.
#[cfg(target_os = "linux")]
#[test]
fn killed_harness_leaves_no_process_behind() {
    let child = command(&["hold", "--connections", "20", "--for", "1h"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("the binary starts");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let mut pids: Vec<String> = Vec::new();
    common::wait_until("server and worker run", || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        pids = text.split_whitespace().map(str::to_string).collect();
        pids.len() == 2
    });
    child.kill().expect("the process is ours");
    child.wait().expect("it ends");
    common::wait_until("they have ended", || {
        let runs = |pid: &String| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("bench"))
        };
        !pids.iter().any(runs)
    });
}
