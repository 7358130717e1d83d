//! System calls that fail as on a machine whose resources are exhausted, which no test can bring
//! about for a whole machine. strace(1) makes them fail: `cargo test --test faults injected --
//! --ignored`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::common::{Peer, Serve, field, wait_until};
use crate::{is_served, ms, served};

/// The server, in which calls of `call` fail with `error` as `when` says (strace(1), `inject`), and
/// a file with every such call.
fn failing(call: &str, error: &str, when: &str) -> (Serve, tempfile::NamedTempFile) {
    let calls = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut command = Command::new("strace");
    // The server stays our child, and strace is the one that is forked off.
    command.args(["-D", "-f", "-qq", "-o"]).arg(calls.path());
    command.args([
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:error={error}:when={when}"),
    ]);
    command.arg(env!("CARGO_BIN_EXE_heartline"));
    (
        Serve::spawn(command, &["127.0.0.1:0"], &["--heartbeat", "off"]),
        calls,
    )
}

fn count(calls: &tempfile::NamedTempFile, part: &str) -> usize {
    fs::read_to_string(calls.path())
        .expect("strace writes")
        .lines()
        .filter(|line| line.contains(part))
        .count()
}

/// Thirty calls in a row fail: with the descriptor in reserve or without it, no peer can be
/// accepted for a while.
#[test]
#[ignore = "takes strace"]
fn accepting_pauses_while_resources_are_exhausted() {
    for error in ["ENFILE", "EMFILE", "ENOBUFS", "ENOMEM"] {
        let (server, calls) = failing("accept4", error, "8..37");
        let mut inside = served(&server);
        let start = Instant::now();
        let mut late: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
        wait_until("the fault is over", || {
            is_served(&mut inside);
            count(&calls, error) >= 30
        });
        late.iter_mut().for_each(is_served);
        late.push(served(&server));
        is_served(&mut inside);
        assert_eq!(
            server.closes(),
            Vec::<String>::new(),
            "{error}: nobody was put out"
        );
        assert!(server.log().contains("accept-error"), "{error}");
        // Each try is one call and one with the reserve, and a pause of 100 ms comes after it.
        assert!(
            start.elapsed() > ms(1300),
            "{error}: tried again after {:?}",
            start.elapsed()
        );
    }
}

/// The peer was gone before it was accepted (accept(2)): no concern of anybody else.
#[test]
#[ignore = "takes strace"]
fn connection_aborted_before_accept_delays_no_other() {
    let (server, calls) = failing("accept4", "ECONNABORTED", "6..25");
    let mut peers: Vec<Peer> = (0..10).map(|_| served(&server)).collect();
    peers.iter_mut().for_each(is_served);
    assert!(
        count(&calls, "ECONNABORTED") == 20 && !server.log().contains("accept-error"),
        "{}",
        server.log()
    );
}

/// A connection that the kernel will not watch could never be read: it is closed.
#[test]
#[ignore = "takes strace"]
fn connection_that_epoll_rejects_is_closed_alone() {
    for error in ["ENOMEM", "ENOSPC"] {
        let (server, calls) = failing("epoll_ctl", error, "10..12");
        let mut peers: Vec<Peer> = (0..12).map(|_| server.connect()).collect();
        wait_until("three lines have ended", || server.closes().len() == 3);
        assert_eq!(count(&calls, error), 3);
        assert!(
            server
                .closes()
                .iter()
                .all(|close| field(close, "reason") == "read-failed"),
            "{error}: {:?}",
            server.closes()
        );
        let ended = peers.iter_mut().map(Peer::has_ended).collect::<Vec<_>>();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 3, "{error}");
        peers
            .iter_mut()
            .zip(ended)
            .filter(|(_, ended)| !ended)
            .for_each(|(peer, _)| is_served(peer));
    }
}

/// A signal may come at any moment, and a socket may have no room after all.
#[test]
#[ignore = "takes strace"]
fn calls_that_are_interrupted_or_would_block_lose_nothing() {
    for (call, error) in [
        ("recvfrom", "EINTR"),
        ("sendto", "EINTR"),
        ("sendto", "EAGAIN"),
        ("epoll_wait", "EINTR"),
    ] {
        // Every third call.
        let (server, calls) = failing(call, error, "3+3");
        let mut peer = served(&server);
        for n in 0..200 {
            peer.send(format!("one {n}\ntwo {n}\n"));
            peer.expect(format!("echo: one {n}\necho: two {n}\n"));
        }
        assert!(
            count(&calls, error) > 50,
            "{call} {error}: {} failed",
            count(&calls, error)
        );
    }
}
