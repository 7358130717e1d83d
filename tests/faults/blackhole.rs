//! A network that swallows packets. The tests make network namespaces: they need root and iproute2.

use std::time::{Duration, Instant};

use crate::common::field;
use crate::network::{BOTH_WAYS, Network, SERVER, TO_CLIENT, TO_SERVER};
use crate::{LAG, TICK, ms};

/// A second server on the same host.
const PATIENT: &str = "192.0.2.1:7879";

/// Of two lines through the router, one is judged by its server alone, the other by its client
/// alone.
fn each_end_finds_the_other_gone_within_the_bound(lost: &[&str]) {
    let bound = ms(1500);
    let network = Network::new();
    let heartbeat = ["--heartbeat", "500ms", "--missed", "2"];
    let server = network.serve(SERVER, &heartbeat);
    let patient = network.serve(PATIENT, &["--heartbeat", "off"]);
    let mut judged = network.connect("c", SERVER, &["--heartbeat", "off"]);
    let mut neighbour = network.connect("s", SERVER, &["--heartbeat", "off"]);
    let reconnect = [
        "--tries",
        "forever",
        "--retry-delay",
        "300ms",
        "--dial-timeout",
        "1s",
    ];
    let mut judge = network.connect("c", PATIENT, &[&heartbeat[..], &reconnect[..]].concat());
    for line in [&mut judged, &mut neighbour, &mut judge] {
        line.is_served("hello");
    }

    network.cut(lost);
    let cut = Instant::now();
    let close = &server.wait_for_closes(1)[0];
    let evicted = cut.elapsed();
    let noticed = judge.wait_for("lost the connection (silent for") - cut;
    assert!(
        evicted < bound + TICK + LAG && noticed < bound + TICK + LAG,
        "by the server {evicted:?}, by the client {noticed:?}"
    );
    // Its kernel acknowledges nothing either, unlike that of a frozen program.
    assert_eq!(field(close, "reason"), "half-open");
    assert!(field(close, "addr").starts_with("198.51.100.1:"), "{close}");
    let silence = ms(field(close, "silence_ms").parse().expect("a number"));
    assert!(
        silence > bound && silence < bound + TICK + LAG,
        "{silence:?}"
    );

    judge.say("are you there?");
    network.heal();
    judge.expect("echo: are you there?");
    neighbour.is_served("still here");
    assert_eq!(server.closes().len(), 1, "the neighbour was none the worse");
    drop(patient);
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn packet_loss_from_the_server_is_detected_by_both_ends() {
    each_end_finds_the_other_gone_within_the_bound(TO_CLIENT);
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn packet_loss_from_the_client_is_detected_by_both_ends() {
    each_end_finds_the_other_gone_within_the_bound(TO_SERVER);
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn packet_loss_both_ways_is_detected_by_both_ends() {
    each_end_finds_the_other_gone_within_the_bound(BOTH_WAYS);
}

/// Shorter than either timeout: TCP retransmits what was lost; either end may ping, and neither
/// closes.
#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn network_gap_shorter_than_the_bound_closes_no_connection() {
    let network = Network::new();
    let heartbeat = ["--heartbeat", "1s", "--missed", "9"];
    let server = network.serve(SERVER, &heartbeat);
    let mut client = network.connect("c", SERVER, &heartbeat);
    client.is_served("before");
    network.cut(BOTH_WAYS);
    client.say("into the gap");
    std::thread::sleep(Duration::from_secs(2));
    network.heal();
    client.expect("echo: into the gap");
    client.is_served("after");
    assert_eq!(server.closes(), Vec::<String>::new());
    let statuses = client.statuses();
    assert!(
        statuses.iter().all(|status| status.contains("silent for")),
        "{statuses:?}"
    );
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn both_ends_close_and_reconnect_after_a_network_loss() {
    let network = Network::new();
    let heartbeat = ["--heartbeat", "500ms", "--missed", "2"];
    let server = network.serve(SERVER, &heartbeat);
    let reconnect = [
        "--tries",
        "forever",
        "--retry-delay",
        "300ms",
        "--dial-timeout",
        "1s",
    ];
    let mut client = network.connect("c", SERVER, &[&heartbeat[..], &reconnect[..]].concat());
    client.is_served("hello");

    network.cut(BOTH_WAYS);
    let cut = Instant::now();
    let noticed = client.wait_for("lost the connection");
    let close = &server.wait_for_closes(1)[0];
    // The bound of either end is 1.5 s of silence, and the last byte came up to a heartbeat before
    // the cut.
    assert!(
        noticed - cut > Duration::from_millis(900) && cut.elapsed() < Duration::from_secs(5),
        "{:?}",
        cut.elapsed()
    );
    assert_eq!(field(close, "reason"), "half-open");
    let silence_ms: u64 = field(close, "silence_ms").parse().expect("a number");
    assert!((1501..3000).contains(&silence_ms), "{silence_ms}");

    // Sent while the network is down, delivered when it is back.
    client.say("are you there?");
    network.heal();
    client.expect("echo: are you there?");
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn keepalive_alone_detects_a_vanished_host() {
    let network = Network::new();
    let args = [
        "--heartbeat",
        "off",
        "--keepalive-idle",
        "1s",
        "--keepalive-interval",
        "1s",
        "--keepalive-count",
        "2",
    ];
    let server = network.serve(SERVER, &args);
    let mut client = network.connect("c", SERVER, &["--heartbeat", "off"]);
    client.is_served("hello");
    network.cut(BOTH_WAYS);
    let cut = Instant::now();
    let close = &server.wait_for_closes(1)[0];
    assert_eq!(field(close, "reason"), "network-timeout");
    assert!(
        cut.elapsed() > Duration::from_millis(1500) && cut.elapsed() < Duration::from_secs(10),
        "{:?}",
        cut.elapsed()
    );
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn vanished_peer_with_a_full_queue_is_closed_in_time() {
    let network = Network::new();
    let server = network.serve(
        SERVER,
        &[
            "--app",
            "broadcast",
            "--heartbeat",
            "1s",
            "--missed",
            "2",
            "--max-outbox",
            "64MiB",
        ],
    );
    let listener = network.connect("c", SERVER, &["--heartbeat", "300ms"]);
    // Beside the server, so that the cut does not concern it.
    let mut talker = network.connect("s", SERVER, &["--heartbeat", "300ms"]);
    talker.say("before");
    listener.expect("before");
    network.cut(BOTH_WAYS);
    // More than the kernel takes for one connection, so the rest waits in the outbox and no ping
    // could get past it.
    let message = "m".repeat(10_000);
    for _ in 0..1500 {
        talker.say(&message);
    }
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "half-open");
    assert!(
        field(&closes[0], "addr").starts_with("198.51.100.1:"),
        "{closes:?}"
    );
    assert!(
        field(&closes[0], "unsent")
            .parse::<u64>()
            .expect("a number")
            > 1_000_000,
        "{closes:?}"
    );
    let silence_ms: u64 = field(&closes[0], "silence_ms").parse().expect("a number");
    assert!((3001..4500).contains(&silence_ms), "{silence_ms}");
    assert_eq!(server.closes().len(), 1, "the talker is none the worse");
}

/// Bytes that the kernel has taken and that are not acknowledged are not sent.
#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn unacknowledged_lines_in_a_dead_network_exit_with_1() {
    let network = Network::new();
    let _server = network.serve(SERVER, &["--heartbeat", "off"]);
    let heartbeat = ["--heartbeat", "500ms", "--missed", "2", "--tries", "1"];
    let mut sender = network.connect("c", SERVER, &heartbeat);
    sender.is_served("hello");
    network.cut(TO_SERVER);
    for line in ["one", "two", "three", "four", "five"] {
        sender.say(line);
    }
    let status = sender.end_of_input();
    assert_eq!(status.code(), Some(1));
    let said = sender.statuses();
    assert!(
        said.iter().any(|line| line.contains("not acknowledged")),
        "{said:?}"
    );
}
