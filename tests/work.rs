//! Floods of the smallest messages, broadcasts, and slow readers must not delay others.
#![cfg(feature = "cli")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Peer, Serve, field, without_pings};

/// Sends empty lines as fast as they are taken, and reads the answers, until it is stopped.
fn flood(server: &Serve, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (mut stream, stop) = (server.connect().stream, Arc::clone(stop));
    thread::spawn(move || {
        stream.set_nonblocking(true).expect("an option");
        let (lines, mut answers) = ([b'\n'; 65_536], vec![0; 1 << 20]);
        while !stop.load(Ordering::Relaxed) {
            for result in [stream.write(&lines), stream.read(&mut answers)] {
                let is_over = result.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
                assert!(!is_over, "a flood is served as well");
            }
        }
    })
}

/// The longest time that the answer to one of these heartbeats takes.
fn worst_wait(witness: &mut Peer, times: usize) -> Duration {
    let waits = (0..times).map(|_| {
        let asked = Instant::now();
        witness.send("ping\n");
        witness.expect("pong\n");
        thread::sleep(Duration::from_millis(2));
        asked.elapsed()
    });
    waits.max().expect("more than none")
}

#[test]
fn flood_of_empty_lines_delays_no_timeout_and_no_other_peer() {
    let server = Serve::start(&["--heartbeat", "300ms", "--missed", "2"]);
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..3).map(|_| flood(&server, &stop)).collect();
    let mut witness = server.connect();
    let _dead: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
    let worst = worst_wait(&mut witness, 300);
    let closes = server.wait_for_closes(20);
    stop.store(true, Ordering::Relaxed);
    floods
        .into_iter()
        .for_each(|flood| flood.join().expect("no panic"));
    // Generous for a debug build on a busy machine; before the turns were bounded it was 20 s.
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    for close in &closes[..20] {
        let silence_ms: u64 = field(close, "silence_ms").parse().expect("a number");
        assert!((900..3000).contains(&silence_ms), "{close}");
    }
}

#[test]
fn broadcast_of_one_segment_closes_and_delays_no_connection() {
    const READERS: usize = 600;
    let server = Serve::start(&["--app", "broadcast", "--heartbeat", "60s"]);
    let readers: Vec<Peer> = (0..READERS).map(|_| server.connect()).collect();
    let mut witness = server.connect();
    worst_wait(&mut witness, 1);
    let reading = thread::spawn(move || {
        let mut left = vec![5000_usize; READERS];
        let mut bytes = vec![0; 1 << 20];
        for (reader, left) in readers.iter().zip(&mut left) {
            while *left > 0 {
                let n = (&reader.stream).read(&mut bytes).expect("it is not closed");
                assert!(n > 0, "the end of a connection that reads");
                *left -= bytes[..n]
                    .split(|byte| *byte == b'\n')
                    .filter(|line| line.is_empty())
                    .count()
                    .min(*left);
            }
        }
        readers
    });
    let mut sender = server.connect();
    sender.send([b'\n'; 5000]);
    // It is a receiver as well: its replies come behind earlier broadcasts.
    let asked = Instant::now();
    witness.send("ping\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"pong\n") && !seen.windows(5).any(|five| five == b"pong\n") {
        let mut more = [0; 4096];
        let n = witness.stream.read(&mut more).expect("it is not closed");
        seen.extend_from_slice(&more[..n]);
    }
    let wait = asked.elapsed();
    assert!(wait < Duration::from_secs(2), "{wait:?}");
    drop(reading.join().expect("everybody gets everything"));
    assert_eq!(server.log().matches("reason=memory-limit").count(), 0);
    assert_eq!(server.log().matches("reason=slow-reader").count(), 0);
}

/// Reads at this many bytes per 10 ms, and answers the pings among them at once.
fn read_slowly(mut stream: TcpStream, piece: usize) -> Vec<u8> {
    let (mut all, mut bytes) = (Vec::new(), vec![0; piece]);
    loop {
        let before = all.len();
        match stream.read(&mut bytes) {
            Ok(0) => return without_pings(all),
            Ok(n) => all.extend_from_slice(&bytes[..n]),
            Err(error) => panic!("{error} after {} bytes", all.len()),
        }
        // One may have begun in the piece before.
        let new = &all[before.saturating_sub(5)..];
        for _ in new.windows(6).filter(|six| *six == b"\nping\n") {
            // After the writing side is shut nothing can be sent, and after a reset the next read
            // reports it.
            let _ = stream.write_all(b"pong\n");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn slow_reader_that_answers_pings_stays_open() {
    let server = Serve::start(&["--heartbeat", "500ms", "--missed", "2"]);
    let stream = server.connect().stream;
    let mut asking = stream.try_clone().expect("a descriptor");
    let line = format!("{}\n", "x".repeat(993));
    let lines = 900;
    // Requested at once, read over more than two seconds: longer than the timeout of 1.5 s.
    let asked = thread::spawn(move || {
        asking
            .write_all(line.repeat(lines).as_bytes())
            .expect("the server reads in the end");
        thread::sleep(Duration::from_millis(2000));
        asking
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
    });
    let all = read_slowly(stream, 4000);
    asked.join().expect("no panic");
    assert_eq!(all.len(), lines * 1000);
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "peer-closed");
}

#[test]
fn slow_reader_gets_everything_after_its_fin() {
    let server = Serve::start(&["--heartbeat", "200ms", "--missed", "2"]);
    let mut peer = server.connect();
    let line = format!("{}\n", "x".repeat(993));
    peer.send(line.repeat(300));
    peer.finish();
    let all = read_slowly(peer.stream, 4000);
    assert_eq!(all.len(), 300 * 1000);
}
