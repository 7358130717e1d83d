//! Limits on connections, and exhausted resources.
#![cfg(feature = "cli")]

mod common;

use std::thread;
use std::time::Duration;

use common::{Peer, Serve, field, wait_until};
use rustix::process::{Resource, Rlimit, prlimit};

fn is_served(peer: &mut Peer) {
    peer.send("ping\n");
    peer.expect("pong\n");
}

#[test]
fn full_server_rejects_until_a_connection_closes() {
    let server = Serve::start(&["--max-connections", "3"]);
    let mut peers: Vec<Peer> = (0..3).map(|_| server.served()).collect();
    server.connect().expect_end();
    assert_eq!(field(&server.refusals()[0], "reason"), "full");
    peers.iter_mut().for_each(is_served);
    drop(peers.pop());
    server.wait_for_closes(1);
    server.served();
}

#[test]
fn one_address_may_hold_so_many() {
    let server = Serve::start(&["--max-connections-per-ip", "2"]);
    let _peers: Vec<Peer> = (0..2).map(|_| server.served()).collect();
    server.connect().expect_end();
    assert_eq!(field(&server.refusals()[0], "reason"), "per-ip-limit");
}

#[test]
fn exhausted_descriptors_disturb_no_open_connection() {
    let server = Serve::start(&[]);
    let mut peers: Vec<Peer> = (0..10).map(|_| server.served()).collect();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero()))
        .expect("the process runs")
        .count() as u64;
    let limit = |files| {
        prlimit(
            Some(server.pid()),
            Resource::Nofile,
            Rlimit {
                current: Some(files),
                maximum: Some(20_000),
            },
        )
    };
    limit(descriptors + 5).expect("the process is ours");

    let late: Vec<Peer> = (0..50).map(|_| server.connect()).collect();
    peers.iter_mut().for_each(is_served);
    let before =
        server.status("voluntary_ctxt_switches") + server.status("nonvoluntary_ctxt_switches");
    thread::sleep(Duration::from_secs(1));
    let after =
        server.status("voluntary_ctxt_switches") + server.status("nonvoluntary_ctxt_switches");
    assert!(
        after - before < 100,
        "{} wake-ups in a second",
        after - before
    );
    peers.iter_mut().for_each(is_served);
    let refused = server.refusals();
    assert!(
        refused
            .iter()
            .all(|line| field(line, "reason") == "no-descriptors"),
        "{refused:?}"
    );
    // Holes in the descriptor table make it a few more or less.
    assert!(
        refused.len() >= 40,
        "those beyond the limit are told, not left hanging: {}",
        refused.len()
    );
    assert!(
        !server.log().contains("accept-error"),
        "the spare descriptor was enough"
    );

    // As soon as descriptors are free again, peers are accepted again.
    drop(late);
    wait_until("the late ones are gone", || {
        server.closes().len() + refused.len() >= 50
    });
    limit(descriptors + 100).expect("the process is ours");
    server.served();
    peers.iter_mut().for_each(is_served);
}

#[test]
fn without_even_the_spare_descriptor_the_loop_rests_and_recovers() {
    let server = Serve::start(&[]);
    let mut peer = server.served();
    let limit = |files| {
        prlimit(
            Some(server.pid()),
            Resource::Nofile,
            Rlimit {
                current: Some(files),
                maximum: Some(20_000),
            },
        )
    };
    // Below the number of open ones: the reserve, once used, cannot be opened again.
    limit(3).expect("the process is ours");
    let mut late: Vec<Peer> = (0..5).map(|_| server.connect()).collect();
    wait_until("it says that it cannot accept", || {
        server.log().contains(" accept-error ")
    });
    let before = server.status("voluntary_ctxt_switches");
    thread::sleep(Duration::from_secs(1));
    let wake_ups = server.status("voluntary_ctxt_switches") - before;
    assert!(wake_ups < 100, "{wake_ups} wake-ups in a second");
    is_served(&mut peer);
    limit(1000).expect("the process is ours");
    // Those that could not be rejected wait in the kernel's queue and are accepted now.
    is_served(late.last_mut().expect("five"));
}

/// What `serve --check` reports for 500 connections under the limit that the test sets.
fn checked_limit(admin: &[&str]) -> usize {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_heartline"));
    command.args(["serve", "--check", "--max-connections", "500"]);
    let output = command.args(admin).output().expect("the binary starts");
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).expect("text");
    let said = stderr.lines().find(|line| line.contains("wanted=500"));
    let lowered_to = field(said.expect("it is said"), "lowered_to");
    lowered_to.parse().expect("a figure")
}

#[test]
fn connection_limit_follows_the_descriptor_limit() {
    for admin in [&[][..], &["--admin", "127.0.0.1:0"]] {
        let mut command = std::process::Command::new("sh");
        command.args([
            "-c",
            "ulimit -n 64 && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_heartline"),
        ]);
        let server = Serve::spawn(
            command,
            &["127.0.0.1:0"],
            &[&["--max-connections", "500"], admin].concat(),
        );
        let mut peers: Vec<Peer> = (0..20).map(|_| server.served()).collect();
        let log = server.log();
        let said: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("max-connections wanted=500 "))
            .collect();
        assert_eq!(
            said.len(),
            1,
            "said once, when all that is reserved is: {log}"
        );
        let most: usize = field(said[0], "lowered_to").parse().expect("a figure");
        let checked = checked_limit(admin);
        assert_eq!(checked, most, "as the check says");
        let mut late: Vec<Peer> = (0..200).map(|_| server.connect()).collect();
        let mut turned_away = || {
            late.iter_mut()
                .filter_map(|peer| peer.has_ended().then_some(()))
                .count()
        };
        wait_until("the others are turned away", || turned_away() == 220 - most);
        assert!(
            server
                .refusals()
                .iter()
                .all(|line| field(line, "reason") == "full"),
            "full before descriptors run out"
        );
        peers.iter_mut().for_each(is_served);
    }
}
