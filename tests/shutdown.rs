//! Shutdown: everything received is answered, no peer is cut off early, and the end comes in time.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::{Peer, Serve, field, wait_until};
use rustix::process::Signal;

#[test]
fn idle_server_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Serve::start(&["--drain", "25s"]);
        let start = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn drain_answers_received_messages_and_closes_the_listener() {
    let mut server = Serve::start(&["--drain", "2s"]);
    let mut peers: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.send("ping\n");
        peer.expect("pong\n");
    }
    // The messages and the signal wait for the server together.
    server.signal(Signal::STOP);
    for peer in &mut peers {
        for n in 0..500 {
            peer.send(format!("message {n}\n"));
        }
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for peer in &mut peers {
        for n in 0..500 {
            assert_eq!(
                peer.read_line().as_deref(),
                Some(format!("echo: message {n}").as_str())
            );
        }
        assert_eq!(peer.read_line(), None);
    }
    assert!(
        TcpStream::connect(server.addr()).is_err(),
        "nobody listens any more"
    );
    drop(peers);
    assert_eq!(server.wait().code(), Some(0));
    let closes = server.closes();
    assert_eq!(closes.len(), 20);
    assert!(
        closes
            .iter()
            .all(|close| field(close, "reason") == "shutdown"),
        "{closes:?}"
    );
}

#[test]
fn closes_are_spread_over_the_drain() {
    let mut server = Serve::start(&["--drain", "2s"]);
    let peers: Vec<Peer> = (0..40).map(|_| server.connect()).collect();
    wait_until("all are in", || {
        server.connect().has_ended();
        server.status("FDSize") > 40
    });
    let start = Instant::now();
    server.signal(Signal::TERM);
    let ends: Vec<_> = peers
        .into_iter()
        .map(|mut peer| thread::spawn(move || peer.time_of_end().duration_since(start)))
        .collect();
    let ends: Vec<Duration> = ends
        .into_iter()
        .map(|end| end.join().expect("no panic"))
        .collect();
    assert_eq!(server.wait().code(), Some(0));
    let first = ends.iter().min().expect("forty");
    let last = ends.iter().max().expect("forty");
    assert!(
        *last - *first > Duration::from_millis(500),
        "all within {:?}",
        *last - *first
    );
    assert!(start.elapsed() < Duration::from_secs(2 + 8));
}

#[test]
fn shutdown_ends_despite_a_peer_that_does_not_read() {
    let mut server = Serve::start(&["--drain", "500ms"]);
    let mut stuck = server.connect();
    stuck.stream.set_nonblocking(true).expect("an option");
    let request = "x".repeat(30_000) + "\n";
    let full = Instant::now();
    while full.elapsed() < Duration::from_secs(1) {
        if stuck.stream.write(request.as_bytes()).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn second_signal_ends_at_once() {
    let mut server = Serve::start(&["--drain", "29s"]);
    let mut peers: Vec<Peer> = (0..10).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.send("ping\n");
        peer.expect("pong\n");
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    wait_until("the drain has begun", || {
        server.log().contains(" shutdown ")
    });
    assert!(server.is_running());
    server.signal(Signal::INT);
    server.wait();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn backlog_is_served_at_shutdown() {
    let mut server = Serve::start(&["--drain", "2s", "--goodbye", "bye"]);
    server.signal(Signal::STOP);
    // The kernel completes the handshakes; the server has yet to accept them.
    let mut peers: Vec<Peer> = (0..200).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.send("hello\n");
    }
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for peer in &mut peers {
        peer.expect("echo: hello\nbye\n");
        peer.expect_end();
    }
    drop(peers);
    assert_eq!(server.wait().code(), Some(0));
}
