//! The command line: its output, and its errors.
#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use common::{Peer, Serve, wait_until};
use rustix::process::{Pid, Signal, kill_process};

fn heartline(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heartline"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Runs it and expects it to refuse, with exit code 2 and a message that names the culprit.
fn refused(args: &[&str], culprit: &str) {
    let output = heartline(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(
        stderr.contains(culprit),
        "{args:?} should name {culprit}: {stderr}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_usage_is_refused_and_the_flag_named() {
    refused(&[], "Usage");
    refused(&["serve", "--no-such-flag"], "--no-such-flag");
    refused(&["serve", "--heartbeat", "soon"], "--heartbeat");
    refused(&["serve", "--heartbeat", "5"], "--heartbeat");
    refused(&["serve", "--heartbeat", "0s"], "--heartbeat");
    refused(&["serve", "--missed", "0"], "--missed");
    refused(&["serve", "--retry", "0s"], "--retry");
    refused(&["serve", "--retry", "150ms"], "--tick");
    refused(&["connect", "127.0.0.1:1", "--retry", "0s"], "--retry");
    refused(&["serve", "--tick", "4s"], "--tick");
    refused(&["serve", "--max-message", "lots"], "--max-message");
    refused(&["serve", "--max-message", "0"], "--max-message");
    refused(&["serve", "--max-outbox", "1"], "--max-outbox");
    refused(&["serve", "--max-connections", "0"], "--max-connections");
    refused(&["serve", "--backlog", "0"], "--backlog");
    refused(&["serve", "--app", "chat"], "--app");
    refused(&["serve", "--framing", "xml"], "--framing");
    refused(&["serve", "127.0.0.1"], "ADDR");
    refused(&["connect"], "ADDR");
    refused(&["connect", "nowhere"], "ADDR");
    refused(&["connect", "127.0.0.1:1", "--tries", "0"], "--tries");
}

#[test]
fn os_timeouts_that_contradict_each_other_are_refused() {
    refused(&["serve", "--keepalive-idle", "1500ms"], "--keepalive-idle");
    refused(&["serve", "--keepalive-count", "0"], "--keepalive-count");
    // It would overrule the probe count, and end a slow but live peer before the heartbeat's
    // verdict.
    refused(&["serve", "--user-timeout", "60s"], "--user-timeout");
    refused(
        &["serve", "--keepalive", "off", "--user-timeout", "10s"],
        "--user-timeout",
    );
    refused(
        &[
            "connect",
            "127.0.0.1:1",
            "--keepalive",
            "off",
            "--user-timeout",
            "10s",
        ],
        "--user-timeout",
    );
}

#[test]
fn help_shows_every_flag_with_its_default() {
    let output = heartline(&["serve", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    let flags = [
        "--app",
        "--framing",
        "--max-message",
        "--heartbeat",
        "--retry",
        "--missed",
        "--no-ping",
        "--keepalive",
        "--keepalive-idle",
        "--keepalive-interval",
        "--keepalive-count",
        "--user-timeout",
        "--max-connections",
        "--max-connections-per-ip",
        "--max-outbox",
        "--tick",
        "--backlog",
        "--reuse-port",
        "--drain",
        "--admin",
        "--admin-token-file",
        "--log-level",
        "--log-file",
    ];
    for flag in flags {
        assert!(help.contains(flag), "{flag}");
    }
    for default in [
        "[default: 127.0.0.1:7878]",
        "[default: 5s]",
        "[default: 64KiB]",
        "[default: 1MiB]",
        "[default: 100ms]",
    ] {
        assert!(help.contains(default), "{default}");
    }
}

#[test]
fn address_in_use_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let output = heartline(&["serve", &addr]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&format!("cannot listen on {addr}")),
        "{stderr}"
    );
}

#[test]
fn several_addresses_of_both_families_are_served() {
    let mut addrs = vec!["127.0.0.1:0", "127.0.0.2:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        addrs.push("[::1]:0");
    }
    let server = Serve::start_on(&addrs, &[]);
    assert_eq!(server.addrs.len(), addrs.len());
    for addr in &server.addrs {
        let mut peer = Peer::connect(*addr);
        peer.send("hello\n");
        peer.expect("echo: hello\n");
        drop(peer);
    }
    let closes = server.wait_for_closes(addrs.len());
    assert_eq!(
        closes
            .iter()
            .filter(|close| close.contains("addr=[::1]:"))
            .count(),
        addrs.len() - 2
    );
}

#[test]
fn stdout_has_the_addresses_and_nothing_else() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_heartline"))
        .args(["serve", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    let mut peer = Peer::connect(
        line.trim_end()
            .strip_prefix("listening ")
            .expect("listening")
            .parse()
            .expect("an address"),
    );
    peer.send("hello\n");
    peer.expect("echo: hello\n");
    drop(peer);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr)
        .expect("text");
    assert!(
        stderr.contains("] close id="),
        "without --log-file the log goes to stderr: {stderr}"
    );
    assert_eq!(child.wait().expect("the process is ours").code(), Some(0));
}

#[test]
fn with_reuse_port_two_servers_share_an_address() {
    let first = Serve::start(&["--reuse-port"]);
    let addr = first.addr().to_string();
    let second = Serve::start_on(&[&addr], &["--reuse-port"]);
    wait_until("both have served somebody", || {
        let mut peer = first.connect();
        peer.send("ping\n");
        peer.expect("pong\n");
        drop(peer);
        !first.closes().is_empty() && !second.closes().is_empty()
    });
}

#[test]
fn log_level_filters_lines() {
    let server = Serve::start(&["--log-level", "debug"]);
    drop(server.connect());
    server.wait_for_closes(1);
    assert!(server.log().contains("] open id="));

    let quiet = Serve::start(&["--log-level", "error"]);
    let mut peer = quiet.connect();
    peer.send("ping\n");
    peer.expect("pong\n");
    peer.finish();
    peer.expect_end();
    assert_eq!(quiet.log(), "");
}

/// Ten thousand closes at once are one summary, not ten thousand lines.
#[test]
fn flood_of_closes_is_summarized_in_the_log() {
    let server = Serve::start(&["--max-connections", "1"]);
    let mut holder = server.connect();
    holder.send("ping\n");
    holder.expect("pong\n");
    for _ in 0..3000 {
        drop(server.connect());
    }
    wait_until("the flood is summarised", || {
        server.log().contains("suppressed kind=refuse")
    });
    let lines = server
        .log()
        .lines()
        .filter(|line| line.contains("] refuse "))
        .count();
    let summarised: usize = server
        .log()
        .lines()
        .filter_map(|line| line.split_once("kind=refuse lines="))
        .filter_map(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(lines < 3000, "{lines} lines");
    let log = server.log();
    let summary = log.lines().find(|line| line.contains("kind=refuse"));
    let summary = summary.expect("found above");
    let told = " reasons=full:";
    assert!(summary.contains(told), "{summary}");
    assert!(summary.contains(" networks=127.0.0.0/24:"), "{summary}");
    wait_until("every refusal is accounted for", || {
        lines + summarised >= 2500
    });
}
