//! Faults as they come, on real sockets and real processes: networks that swallow packets, peers
//! that reset, freeze, die, dawdle and flood, and a machine that has no more to give. After each
//! the server does what it promised to the line at fault, and its neighbours notice nothing.
//!
//! What makes network namespaces or mounts needs root and iproute2, what makes system calls fail
//! needs strace: `cargo test --test faults -- --ignored`. The long run of the churn:
//! `HEARTLINE_CHURN_SECONDS=600 cargo test --release --test faults churn`.
#![cfg(feature = "cli")]

mod blackhole;
mod churn;
#[path = "../common/mod.rs"]
mod common;
mod connect;
mod death;
mod endings;
mod exhaustion;
mod injected;
mod network;
mod slow_peers;

use std::time::Duration;

use common::{Peer, Serve};

/// What a loaded machine may add to a bound before a test fails. The bound itself, one tick, is
/// tested in the simulation.
const LAG: Duration = Duration::from_millis(1500);
/// The server's default tick.
const TICK: Duration = Duration::from_millis(100);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A peer that the server has admitted.
fn served(server: &Serve) -> Peer {
    let mut peer = server.connect();
    is_served(&mut peer);
    peer
}

/// Nothing may wait for this peer but the answer.
fn is_served(peer: &mut Peer) {
    peer.send("ping\n");
    peer.expect("pong\n");
}

/// The address by which the server's log names a peer.
fn addr(peer: &Peer) -> String {
    peer.stream.local_addr().expect("connected").to_string()
}
