//! Processes that are frozen (SIGSTOP: the kernel goes on acknowledging for them) and processes
//! that are killed.

use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::common::{Serve, field, wait_until};
use crate::connect::Connect;
use crate::{LAG, TICK, ms};

const HEARTBEAT: [&str; 4] = ["--heartbeat", "500ms", "--missed", "2"];
/// Of [`HEARTBEAT`].
const BOUND_MS: u64 = 1500;

/// A client that answers the server's pings and closes no connection itself.
fn answering(server: &Serve) -> Connect {
    let mut client = Connect::start(
        server.addr(),
        &[
            "--heartbeat",
            "off",
            "--tries",
            "forever",
            "--retry-delay",
            "100ms",
        ],
    );
    client.is_served("hello");
    client
}

#[test]
fn frozen_peer_is_closed_within_the_bound_and_reconnects() {
    let server = Serve::start(&HEARTBEAT);
    let (mut frozen, mut neighbour) = (answering(&server), answering(&server));
    frozen.signal(Signal::STOP);
    let start = Instant::now();
    let close = server.wait_for_closes(1).remove(0);
    assert!(
        start.elapsed() < ms(BOUND_MS) + TICK + LAG,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        (field(&close, "reason"), field(&close, "pings_unanswered")),
        ("heartbeat-timeout", "2")
    );
    let silence_ms = field(&close, "silence_ms")
        .parse::<u64>()
        .expect("a number");
    assert!(silence_ms > BOUND_MS, "{silence_ms}");

    frozen.signal(Signal::CONT);
    frozen.wait_for("lost the connection");
    frozen.is_served("back again");
    neighbour.is_served("still here");
    assert_eq!((server.closes().len(), neighbour.statuses()), (1, vec![]));
}

#[test]
fn frozen_server_closes_no_connection_and_logs_the_stall() {
    let server = Serve::start(&HEARTBEAT);
    let mut clients: Vec<Connect> = (0..8).map(|_| answering(&server)).collect();
    server.signal(Signal::STOP);
    thread::sleep(ms(2 * BOUND_MS));
    server.signal(Signal::CONT);
    // By then it has closed every connection that it would close.
    thread::sleep(ms(BOUND_MS) + TICK + LAG);
    assert_eq!(server.closes(), Vec::<String>::new());
    clients
        .iter_mut()
        .for_each(|client| client.is_served("still here"));
    let log = server.log();
    let stall = log
        .lines()
        .find(|line| line.contains(" stall "))
        .expect("a line about the stall");
    let stalled_ms = field(stall, "stalled_ms").parse::<u64>().expect("a number");
    // The part that it would have waited anyway is no stall, and that lasts at most until the next
    // ping.
    assert!(
        (2 * BOUND_MS - 500..2 * BOUND_MS + 1500).contains(&stalled_ms),
        "{stall}"
    );
}

/// Its kernel accepts new connections for it, so a client that found it dead dials, is accepted,
/// and pings again.
#[test]
fn client_leaves_a_frozen_server_and_reconnects() {
    let server = Serve::start(&["--heartbeat", "off"]);
    let mut client = Connect::start(
        server.addr(),
        &[
            &HEARTBEAT[..],
            &["--tries", "forever", "--retry-delay", "100ms"],
        ]
        .concat(),
    );
    client.is_served("hello");
    server.signal(Signal::STOP);
    let start = Instant::now();
    let noticed = client.wait_for("lost the connection (silent for") - start;
    assert!(noticed < ms(BOUND_MS) + TICK + LAG, "{noticed:?}");
    client.wait_for("connected to");
    server.signal(Signal::CONT);
    client.is_served("back again");
}

/// Its kernel reports it at once: no heartbeat is waited for.
#[test]
fn killed_peer_is_closed_at_once() {
    let server = Serve::start(&["--heartbeat", "off"]);
    let before = server.descriptors();
    let (killed, mut neighbour) = (answering(&server), answering(&server));
    killed.signal(Signal::KILL);
    let start = Instant::now();
    let close = server.wait_for_closes(1).remove(0);
    assert!(start.elapsed() < LAG, "{:?}", start.elapsed());
    assert!(
        ["peer-closed", "peer-reset"].contains(&field(&close, "reason")),
        "{close}"
    );
    wait_until("its descriptor is free", || {
        server.descriptors() == before + 1
    });
    neighbour.is_served("still here");
}

#[test]
fn clients_of_a_killed_server_reconnect() {
    // An address that no other test uses: the port is still free when it is bound again.
    let mut server = Serve::start_on(&["127.0.0.2:0"], &[]);
    let addr = server.addr();
    let mut clients: Vec<Connect> = (0..8).map(|_| answering(&server)).collect();
    server.signal(Signal::KILL);
    let start = Instant::now();
    for client in &clients {
        let noticed = client.wait_for("lost the connection (peer") - start;
        assert!(noticed < LAG, "{noticed:?}");
    }
    server.wait();
    clients
        .iter_mut()
        .for_each(|client| client.say("said meanwhile"));

    let start = Instant::now();
    let _again = Serve::start_on(&[&addr.to_string()], &[]);
    clients
        .iter()
        .for_each(|client| client.expect("echo: said meanwhile"));
    assert!(start.elapsed() < ms(100) + 2 * LAG, "{:?}", start.elapsed());
}
