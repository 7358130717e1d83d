//! Fifteen thousand lines in one process, and what each costs.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use common::{Peer, Serve, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Resident memory in bytes, once it has stopped changing.
fn resident(server: &Serve) -> u64 {
    let mut last = 0;
    wait_until("the server has come to rest", || {
        thread::sleep(Duration::from_millis(200));
        let now = server.status("VmRSS");
        std::mem::replace(&mut last, now) == now
    });
    last * 1024
}

#[test]
fn memory_per_connection_at_fifteen_thousand() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .expect("soft up to hard");
    let most = limit
        .maximum
        .unwrap_or(u64::MAX)
        .saturating_sub(2000)
        .min(15_000) as usize;
    assert!(
        most >= 3000,
        "a hard descriptor limit of {:?} is too low for this test",
        limit.maximum
    );

    let server = Serve::start(&["--heartbeat", "60s"]);
    let mut peers: Vec<Peer> = Vec::new();
    let hold = |count: usize, peers: &mut Vec<Peer>| {
        while peers.len() < count {
            // Others on this machine may need the ports of 127.0.0.1.
            let source = SocketAddr::from(([127, 0, 200, (peers.len() / 1000) as u8], 0));
            peers.push(Peer::connect_from(source, server.addr()));
        }
        // The last one is served, so all are in.
        let last = peers.last_mut().expect("some are held");
        last.send("ping\n");
        last.expect("pong\n");
        resident(&server)
    };
    let some = hold(most / 3, &mut peers);
    let all = hold(most, &mut peers);
    let idle = (all - some) as f64 / (most - most / 3) as f64;
    println!("{most} lines held, {idle:.0} bytes of resident memory per idle line");
    assert!(idle <= 160.0, "{idle:.0} bytes per idle line");

    let burst = vec![b'x'; 16 * 1024 - 1];
    for peer in &mut peers {
        peer.stream.write_all(&burst).expect("the server reads");
        peer.send("\n");
        peer.expect("echo: ");
        peer.expect(&burst);
        peer.expect("\n");
    }
    let kept = (resident(&server).saturating_sub(some)) as f64 / (most - most / 3) as f64;
    println!("{kept:.0} bytes per line after 16 KiB were echoed on each");
    assert!(
        kept <= 200.0,
        "{kept:.0} bytes kept per line after the burst"
    );

    // And all of them still work.
    for peer in &mut peers {
        peer.send("ping\n");
    }
    for peer in &mut peers {
        peer.expect("pong\n");
    }
    assert_eq!(server.closes(), Vec::<String>::new());
}
