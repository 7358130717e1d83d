//! Peers that connect, send and vanish in every way, for as long as `HEARTLINE_CHURN_SECONDS` says.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};
use std::{env, thread};

use socket2::SockRef;

use crate::common::{Peer, Serve, wait_until};
use crate::connect::Connect;
use crate::{LAG, TICK, ms};

/// The default of `HEARTLINE_CHURN_SECONDS`; ten minutes are the long run.
const SECONDS: u64 = 10;
/// Peers at a time, so that the server's memory reaches a level.
const THREADS: u64 = 8;
/// Peers per second of one thread at most: the kernel keeps the port of each for a while.
const PAUSE: Duration = ms(10);
/// How far the server's memory may rise after the beginning. A leak of 100 bytes per peer would
/// exceed it, even in the short run.
const GROWTH_KB: u64 = 256;

/// The ways to go.
const WAYS: u64 = 9;
/// After this time the server has closed a silent dead peer, see [`SERVER`].
const BOUND: Duration = ms(4000);
const SERVER: [&str; 6] = ["--heartbeat", "2s", "--missed", "1", "--log-level", "warn"];

/// Returns the peer if it is to stay, deaf and dumb.
fn come_talk_and_vanish(server: &Serve, way: u64) -> Option<Peer> {
    let mut peer = server.connect();
    if way == 0 {
        return None;
    }
    peer.send("hello\nping\n");
    peer.expect("echo: hello\npong\n");
    match way {
        1 => {}
        2 => reset(&peer),
        3 => {
            peer.finish();
            peer.expect_end();
        }
        4 => peer.send("in the middle of a"),
        5 => peer.send("answers that nobody reads\n".repeat(100)),
        6 => {
            peer.send("answers that nobody reads\n".repeat(100));
            reset(&peer);
        }
        7 => garbage(peer),
        _ => return Some(peer),
    }
    None
}

/// Its end will be a reset.
fn reset(peer: &Peer) {
    SockRef::from(&peer.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("an option");
}

/// Longer than a message may be, without an end.
fn garbage(mut peer: Peer) {
    let mut noise = vec![0; 100_000];
    fastrand::fill(&mut noise);
    noise.retain(|byte| *byte != b'\n');
    // The server ends it in the middle.
    let _ = peer.stream.write_all(&noise);
    peer.time_of_end();
}

/// One after the other; returns how many that were.
fn churn(server: &Serve, until: Instant, first_way: u64) -> u64 {
    let mut deaf: VecDeque<(Instant, Peer)> = VecDeque::new();
    let mut peers = 0;
    while Instant::now() < until {
        deaf.extend(
            come_talk_and_vanish(server, (first_way + peers) % WAYS)
                .map(|peer| (Instant::now(), peer)),
        );
        while deaf
            .front()
            .is_some_and(|(since, _)| since.elapsed() > BOUND + TICK + LAG)
        {
            let (_, mut peer) = deaf.pop_front().expect("just seen");
            assert!(peer.has_ended(), "a silent peer was not found in time");
        }
        peers += 1;
        thread::sleep(PAUSE);
    }
    peers
}

#[test]
fn churn_leaks_no_memory_and_no_descriptors() {
    let seconds = env::var("HEARTLINE_CHURN_SECONDS").map_or(SECONDS, |seconds| {
        seconds.parse().expect("a number of seconds")
    });
    let server = Serve::start(&SERVER);
    let mut witness = Connect::start(server.addr(), &["--heartbeat", "off", "--tries", "1"]);
    witness.is_served("before");
    let descriptors = server.descriptors();

    let start = Instant::now();
    // By then the number of remaining peers is at its maximum.
    let settled = start + BOUND + TICK + LAG + Duration::from_secs(1);
    let until = settled + Duration::from_secs(seconds);
    let mut memory = None;
    let peers: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let server = &server;
                    move || churn(server, until, thread)
                })
            })
            .collect();
        while Instant::now() < until {
            witness.is_served("still here");
            thread::sleep(ms(100));
            if memory.is_none() && Instant::now() >= settled {
                memory = Some(server.status("VmRSS"));
            }
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("every peer was served"))
            .sum()
    });
    let grown = server
        .status("VmRSS")
        .saturating_sub(memory.expect("measured"));
    println!(
        "{peers} peers in {:?}, memory {:?} kB and then {grown} kB more",
        start.elapsed(),
        memory
    );
    assert!(peers > 20 * seconds, "{peers} peers were no churn");
    assert!(grown < GROWTH_KB, "{grown} kB more after {peers} peers");
    wait_until("the descriptors are as they were", || {
        server.descriptors() == descriptors
    });
    witness.is_served("after");
    assert_eq!(witness.statuses(), Vec::<String>::new());
}
