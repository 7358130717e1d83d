//! Peers that end a line by halves or with violence, and peers that do not read.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::common::{Peer, Serve, field, wait_until};
use crate::connect::Connect;
use crate::{LAG, TICK, addr, is_served, ms, served};

/// Nothing but the peer's own end can end a line.
const NO_TIMEOUTS: [&str; 6] = [
    "--heartbeat",
    "off",
    "--write-timeout",
    "off",
    "--frame-timeout",
    "off",
];

/// Closes with a reset.
fn reset(peer: Peer) {
    SockRef::from(&peer.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("an option");
}

/// Sends until neither the server nor the kernel takes any more, and never reads.
fn stuff(peer: &mut Peer, request: &str) {
    peer.stream
        .set_write_timeout(Some(ms(500)))
        .expect("a timeout above zero");
    while peer.stream.write(request.as_bytes()).is_ok() {}
}

#[test]
fn reset_closes_a_connection_at_once() {
    let server = Serve::start(&NO_TIMEOUTS);
    let mut neighbour = served(&server);
    let (quiet, mut unfinished, mut stuck) = (served(&server), served(&server), served(&server));
    unfinished.send("the beginning of");
    // The server does not read from this one any more, so no read reports the end.
    stuff(&mut stuck, &("x".repeat(10_000) + "\n"));
    for (closed, peer) in [quiet, unfinished, stuck].into_iter().enumerate() {
        let (addr, start) = (addr(&peer), Instant::now());
        reset(peer);
        let close = server.wait_for_closes(closed + 1).remove(closed);
        assert!(start.elapsed() < LAG, "{:?}", start.elapsed());
        assert_eq!(
            (field(&close, "reason"), field(&close, "addr")),
            ("peer-reset", addr.as_str())
        );
    }
    is_served(&mut neighbour);
}

#[test]
fn fin_then_silence_is_closed() {
    let server = Serve::start(&NO_TIMEOUTS);
    let before = server.descriptors();
    let mut peers: Vec<Peer> = (0..10).map(|_| served(&server)).collect();
    let start = Instant::now();
    for peer in &mut peers {
        peer.send("an unfinished");
        peer.finish();
    }
    // None of them ever reads or closes.
    let closes = server.wait_for_closes(10);
    wait_until("the descriptors are back", || {
        server.descriptors() == before
    });
    assert!(start.elapsed() < LAG, "{:?}", start.elapsed());
    assert!(
        closes
            .iter()
            .all(|close| field(close, "reason") == "peer-closed"),
        "{closes:?}"
    );
}

/// The FIN comes while much is queued for the peer, which then reads nothing of it.
#[test]
fn half_closed_peer_that_does_not_read_is_closed_within_the_bound() {
    let bound = ms(3000);
    let args = [
        "--app",
        "broadcast",
        "--heartbeat",
        "1s",
        "--missed",
        "2",
        "--max-outbox",
        "64MiB",
        "--write-timeout",
        "off",
    ];
    let server = Serve::start(&args);
    let (mut shut, mut talker) = (served(&server), served(&server));
    let living = keep_beating(&shut);
    talker.send(("m".repeat(10_000) + "\n").repeat(1000) + "ping\n");
    // All of it is queued when the pong comes; the server may have pinged before.
    while talker.read_line().expect("a pong") != "pong" {}
    living.stop();
    let start = Instant::now();
    shut.finish();
    let talking = keep_beating(&talker);
    let close = server.wait_for_closes(1).remove(0);
    assert!(
        start.elapsed() < bound + TICK + LAG,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        (field(&close, "reason"), field(&close, "addr")),
        ("slow-reader", addr(&shut).as_str())
    );
    assert!(
        field(&close, "unsent").parse::<u64>().expect("a number") > 1_000_000,
        "{close}"
    );
    talking.stop();
}

/// A thread that sends a heartbeat every 100 ms, and reads nothing.
struct Pinging {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn keep_beating(peer: &Peer) -> Pinging {
    let mut stream = peer.stream.try_clone().expect("a second descriptor");
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let thread = thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) && stream.write_all(b"ping\n").is_ok() {
            thread::sleep(ms(100));
        }
    });
    Pinging {
        over,
        thread: Some(thread),
    }
}

impl Pinging {
    fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("stopped once")
            .join()
            .expect("no panic");
    }
}

/// A permanent zero window, from a peer whose heartbeats are signs of life.
#[test]
fn peer_that_pings_and_never_reads_is_closed_after_write_timeout() {
    // The server sends no pings meanwhile.
    let args = [
        "--app",
        "broadcast",
        "--max-outbox",
        "64MiB",
        "--write-timeout",
        "1s",
        "--heartbeat",
        "60s",
    ];
    let server = Serve::start(&args);
    let (deaf, mut reader, mut talker) = (served(&server), served(&server), served(&server));
    let beating = keep_beating(&deaf);
    let message = "m".repeat(10_000) + "\n";
    let start = Instant::now();
    for _ in 0..1000 {
        talker.send(&message);
        reader.expect(&message);
    }
    let told = Instant::now();
    let close = server.wait_for_closes(1).remove(0);
    assert!(
        start.elapsed() > ms(1000) && told.elapsed() < ms(1000) + TICK + LAG,
        "{:?} after the last message",
        told.elapsed()
    );
    assert_eq!(
        (field(&close, "reason"), field(&close, "addr")),
        ("slow-reader", addr(&deaf).as_str())
    );
    beating.stop();
    talker.send(&message);
    reader.expect(&message);
    is_served(&mut talker);
}

#[test]
fn client_reconnects_after_reset_and_fin() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let addr = listener.local_addr().expect("bound");
    let (connected, wait) = channel();
    let server = thread::spawn(move || {
        let (first, _) = listener.accept().expect("a client");
        // A reset that comes before the client has read is a dial that failed.
        wait.recv().expect("it connects");
        SockRef::from(&first)
            .set_linger(Some(Duration::ZERO))
            .expect("an option");
        drop(first);
        let (second, _) = listener.accept().expect("it is back");
        second.shutdown(Shutdown::Write).expect("open");
        // The second is neither read from nor closed until the client is back once more.
        listener.accept().expect("it is back").0
    });
    let start = Instant::now();
    let client = Connect::start(
        addr,
        &[
            "--heartbeat",
            "off",
            "--tries",
            "forever",
            "--retry-delay",
            "100ms",
        ],
    );
    connected.send(()).expect("the server waits");
    client.wait_for("lost the connection (peer reset)");
    client.wait_for("lost the connection (peer closed)");
    client.wait_for("connected to");
    assert!(start.elapsed() < ms(200) + 2 * LAG, "{:?}", start.elapsed());
    drop(server.join().expect("the server is content"));
}
