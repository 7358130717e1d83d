//! Dead peers are closed within the bound, live ones never, and an idle server uses no CPU.
#![cfg(feature = "cli")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Peer, Serve, field, wait_until};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::Signal;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a loaded machine may add to a bound before a test fails. The bound itself, one tick, is
/// tested in the simulation.
const LAG: Duration = ms(1500);

#[test]
fn silent_peer_is_pinged_and_closed_within_the_bound() {
    let server = Serve::start(&["--heartbeat", "500ms", "--missed", "2", "--tick", "50ms"]);
    let mut peer = server.connect();
    let before = Instant::now();
    peer.send("hello\n");
    peer.expect("echo: hello\n");
    let after = Instant::now();
    let mut pings = 0;
    while let Some(line) = peer.read_line() {
        assert_eq!(line, "ping");
        pings += 1;
    }
    assert_eq!(pings, 2);
    assert!(
        before.elapsed() > ms(1500),
        "closed {:?} after the last byte",
        before.elapsed()
    );
    assert!(
        after.elapsed() < ms(1500) + ms(50) + LAG,
        "closed {:?} after the last byte",
        after.elapsed()
    );
    let close = &server.wait_for_closes(1)[0];
    assert_eq!(field(close, "reason"), "heartbeat-timeout");
    assert_eq!(field(close, "pings_unanswered"), "2");
    assert_eq!(
        field(close, "addr"),
        peer.stream.local_addr().expect("connected").to_string()
    );
    assert!(field(close, "silence_ms").parse::<u64>().expect("a number") > 1500);
}

#[test]
fn short_retry_closes_a_silent_peer_soon_after_a_long_heartbeat() {
    let server = Serve::start(&["--heartbeat", "2s", "--retry", "200ms", "--missed", "3"]);
    let mut peer = server.connect();
    let before = Instant::now();
    peer.send("hello\n");
    peer.expect("echo: hello\n");
    let mut pings = 0;
    while let Some(line) = peer.read_line() {
        assert_eq!(line, "ping");
        pings += 1;
    }
    assert_eq!(pings, 3);
    let silence = before.elapsed();
    assert!(silence > ms(2600), "closed {silence:?} after the last byte");
    // With a retry as long as the heartbeat it would be 8 s.
    assert!(
        silence < ms(2700) + LAG,
        "closed {silence:?} after the last byte"
    );
}

#[test]
fn peer_that_never_sends_is_closed_within_the_bound() {
    let server = Serve::start(&["--heartbeat", "300ms", "--missed", "1", "--no-ping"]);
    let start = Instant::now();
    let mut peer = server.connect();
    // With --no-ping no ping is sent before the end, which is a reset: no FIN is kept for a peer
    // that does not answer.
    assert_eq!(peer.expect_reset(), b"");
    assert!(start.elapsed() > ms(600));
    assert_eq!(
        field(&server.wait_for_closes(1)[0], "reason"),
        "heartbeat-timeout"
    );
}

#[test]
fn mass_silence_is_closed_in_time_and_never_early() {
    const PEERS: usize = 3000;
    let bound = ms(3000);
    let server = Serve::start(&["--heartbeat", "1s", "--missed", "2"]);
    let mut poll = Poll::new().expect("a poll");
    let mut peers: Vec<(TcpStream, Instant)> = (0..PEERS)
        .map(|n| {
            let mut peer = server.connect();
            peer.send("x\n");
            peer.expect("echo: x\n");
            peer.stream.set_nonblocking(true).expect("an option");
            let mut stream = TcpStream::from_std(peer.stream);
            poll.registry()
                .register(&mut stream, Token(n), Interest::READABLE)
                .expect("registered");
            (stream, Instant::now())
        })
        .collect();
    for (stream, last_byte) in &mut peers {
        *last_byte = Instant::now();
        stream.write_all(b"the last\n").expect("room for a line");
    }
    let silent = Instant::now();
    let mut events = Events::with_capacity(1024);
    let mut ended = 0;
    let mut worst = Duration::ZERO;
    while ended < PEERS {
        assert!(
            silent.elapsed() < DEADLINE,
            "{} are still open",
            PEERS - ended
        );
        poll.poll(&mut events, Some(ms(100))).expect("a poll");
        for event in &events {
            let (stream, last_byte) = &mut peers[event.token().0];
            loop {
                match stream.read(&mut [0; 4096]) {
                    Ok(0) => panic!("a FIN, which the kernel would go on sending to the dead"),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        let silence = last_byte.elapsed();
                        assert!(silence > bound, "closed {silence:?} after its last byte");
                        worst = worst.max(silence);
                        ended += 1;
                        // A reset wakes twice, and is reported once.
                        poll.registry().deregister(stream).expect("registered");
                        break;
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(
        worst < bound + ms(100) + LAG,
        "the last was closed {worst:?} after its last byte"
    );
}

#[test]
fn any_byte_keeps_a_connection_alive() {
    let server = Serve::start(&["--heartbeat", "300ms", "--missed", "1"]);
    let mut peer = server.connect();
    for _ in 0..10 {
        peer.send("x");
        thread::sleep(ms(200));
        assert!(!peer.has_ended());
    }
}

#[test]
fn server_without_heartbeat_closes_no_silent_peer() {
    let server = Serve::start(&["--heartbeat", "off"]);
    let mut peer = server.connect();
    thread::sleep(ms(1500));
    peer.send("ping\nstill here\n");
    peer.expect("pong\necho: still here\n");
}

/// Peers that live, each in its way, and are never closed.
struct Alive {
    peer: TcpStream,
    beats: bool,
}

impl Alive {
    fn act(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.peer.read(&mut buffer) {
                Ok(0) => panic!("a live peer was closed"),
                Ok(_) if self.beats => {}
                Ok(n) => {
                    let pings = buffer[..n].iter().filter(|byte| **byte == b'i').count();
                    self.peer
                        .write_all("pong\n".repeat(pings).as_bytes())
                        .expect("room for pongs");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a live peer was closed: {error}"),
            }
        }
        if self.beats {
            self.peer.write_all(b"ping\n").expect("room for a beat");
        }
    }
}

fn two_hundred_live_peers(server: &Serve) -> Vec<Alive> {
    let alive = |n| {
        let peer = server.connect();
        peer.stream.set_nonblocking(true).expect("an option");
        Alive {
            peer: TcpStream::from_std(peer.stream),
            beats: n % 2 == 0,
        }
    };
    (0..200).map(alive).collect()
}

fn live_for(peers: &mut [Alive], time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        peers.iter_mut().for_each(Alive::act);
        thread::sleep(ms(250));
    }
}

#[test]
fn frozen_server_closes_no_live_peer_after_it_wakes() {
    let server = Serve::start(&["--heartbeat", "1s"]);
    let mut peers = two_hundred_live_peers(&server);
    live_for(&mut peers, ms(2500));
    server.signal(Signal::STOP);
    // Peers that beat go on beating at a server that does not read; peers that only answer have
    // nothing to answer.
    live_for(&mut peers, ms(8000));
    server.signal(Signal::CONT);
    live_for(&mut peers, ms(5000));
    assert_eq!(server.closes(), Vec::<String>::new());
}

#[test]
fn frozen_peer_is_closed_as_heartbeat_timeout() {
    let server = Serve::start(&["--heartbeat", "300ms", "--missed", "2"]);
    let mut living = two_hundred_live_peers(&server);
    let dead = server.connect();
    let start = Instant::now();
    while server.closes().is_empty() {
        assert!(start.elapsed() < DEADLINE);
        living.iter_mut().for_each(Alive::act);
        thread::sleep(ms(50));
    }
    let closes = server.closes();
    assert_eq!(closes.len(), 1);
    assert_eq!(
        field(&closes[0], "addr"),
        dead.stream.local_addr().expect("connected").to_string()
    );
}

#[test]
fn server_wakes_only_when_something_is_due() {
    let server = Serve::start(&["--heartbeat", "60s"]);
    let wake_ups = || server.status("voluntary_ctxt_switches");
    let settle = || {
        let mut last = wake_ups();
        wait_until("the server sleeps", || {
            thread::sleep(ms(300));
            std::mem::replace(&mut last, wake_ups()) == last
        });
        last
    };
    let asleep = settle();
    thread::sleep(ms(1500));
    assert_eq!(wake_ups(), asleep, "woken up with nobody connected");

    let peers: Vec<Peer> = (0..50).map(|_| server.connect()).collect();
    wait_until("the server has noticed", || wake_ups() > asleep);
    let asleep = settle();
    thread::sleep(ms(1500));
    assert_eq!(
        wake_ups(),
        asleep,
        "woken up although nothing is due for fifty seconds"
    );
    drop(peers);
}

#[test]
fn peer_that_sends_without_reading_is_a_slow_reader() {
    let server = Serve::start(&[
        "--heartbeat",
        "300ms",
        "--missed",
        "1",
        "--max-outbox",
        "64KiB",
    ]);
    let mut peer = server.connect();
    peer.stream.set_nonblocking(true).expect("an option");
    let request = "x".repeat(1000) + "\n";
    wait_until("the slow reader is closed", || {
        // It goes on pinging; the server has stopped reading long before.
        while peer.stream.write(request.as_bytes()).is_ok() {}
        !server.closes().is_empty()
    });
    assert_eq!(field(&server.closes()[0], "reason"), "slow-reader");
}

#[test]
fn stalled_reader_of_broadcasts_is_closed_and_delays_no_other() {
    let server = Serve::start(&["--app", "broadcast", "--max-outbox", "64KiB"]);
    let mut stalled = server.connect();
    let mut reader = server.connect();
    let mut writer = server.connect();
    for peer in [&mut reader, &mut writer] {
        peer.send("ping\n");
        peer.expect("pong\n");
    }
    let message = "m".repeat(10_000) + "\n";
    let mut sent = 0;
    while server.closes().is_empty() {
        assert!(sent < 5_000, "50 MB and the stalled reader is not closed");
        writer.send(&message);
        reader.expect(&message);
        sent += 1;
    }
    let closes = server.closes();
    assert_eq!(field(&closes[0], "reason"), "slow-reader");
    assert_eq!(
        field(&closes[0], "addr"),
        stalled.stream.local_addr().expect("connected").to_string()
    );
    writer.send(&message);
    reader.expect(&message);
    // It has lost messages, and learns of it by the reset: a FIN would look as if these were all.
    let arrived = stalled.expect_reset();
    assert!(
        !arrived.is_empty() && arrived.len() < sent * message.len(),
        "{} bytes of {sent} messages",
        arrived.len()
    );
}
