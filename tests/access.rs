//! Access lists, PROXY headers and evictions, through the binary.
#![cfg(feature = "cli")]

mod common;

use std::io::{ErrorKind, Write};
use std::process::Command;

use common::{Peer, Serve, field, wait_until};

fn connect_from(source: &str, server: &Serve) -> Peer {
    Peer::connect_from(source.parse().expect("an address"), server.addr())
}

/// Reads until the end, be it orderly or a reset.
fn ends(peer: &mut Peer) {
    wait_until("the line ends", || peer.has_ended());
}

#[test]
fn access_lists_allow_and_deny() {
    let server = Serve::start(&["--allow", "127.0.0.0/16,::1", "--deny", "127.0.0.66"]);
    server.served();
    ends(&mut connect_from("127.0.0.66:0", &server));
    ends(&mut connect_from("127.1.0.1:0", &server));
    wait_until("both are logged", || server.refusals().len() == 2);
    assert!(
        server
            .refusals()
            .iter()
            .all(|refusal| field(refusal, "reason") == "denied"),
        "{:?}",
        server.refusals()
    );
    server.served();
}

#[test]
fn invalid_network_is_named_in_the_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_heartline"))
        .args(["serve", "--deny", "10.1.2.3/8"])
        .output()
        .expect("the binary starts");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        problem.contains("10.1.2.3/8")
            && problem.contains("10.0.0.0/8")
            && problem.contains("--deny"),
        "{problem}"
    );
}

#[test]
fn behind_a_balancer_the_real_peer_counts() {
    let server = Serve::start(&[
        "--proxy-protocol",
        "127.0.0.9",
        "--deny",
        "198.51.100.66",
        "--max-connections-per-ip",
        "1",
        "--log-level",
        "debug",
    ]);
    let mut first = connect_from("127.0.0.9:0", &server);
    first.send("PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\nhello\n");
    first.expect("echo: hello\n");
    let mut binary = connect_from("127.0.0.9:0", &server);
    binary.send(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x08\xc0\0\x02\x01\x0f\xa0\x01\xbbhello\n",
    );
    binary.expect("echo: hello\n");

    let mut same = connect_from("127.0.0.9:0", &server);
    same.send("PROXY TCP4 198.51.100.7 192.0.2.1 4001 443\r\n");
    let mut denied = connect_from("127.0.0.9:0", &server);
    denied.send("PROXY TCP4 198.51.100.66 192.0.2.1 4000 443\r\n");
    let mut headless = connect_from("127.0.0.9:0", &server);
    headless.send("hello\n");
    for peer in [&mut same, &mut denied, &mut headless] {
        ends(peer);
    }
    // A balancer's health check connects like this: no fault, and no log line.
    drop(connect_from("127.0.0.9:0", &server));
    wait_until("it is logged", || server.refusals().len() == 4);
    let log = server.log();
    let probe = log
        .lines()
        .find(|line| line.ends_with("reason=probe connections=2"));
    assert!(probe.expect("logged").contains("[DEBUG] refuse "), "{log}");
    let mut reasons: Vec<String> = server
        .refusals()
        .iter()
        .map(|refusal| field(refusal, "reason").to_owned())
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["denied", "per-ip-limit", "probe", "proxy-header"]);

    let mut liar = connect_from("127.0.0.8:0", &server);
    liar.send("PROXY TCP4 198.51.100.9 192.0.2.1 4000 443\r\n");
    liar.expect("echo: PROXY TCP4 198.51.100.9 192.0.2.1 4000 443\n");
    drop((first, binary, liar));
    let mut addrs: Vec<String> = server
        .wait_for_closes(3)
        .iter()
        .map(|close| field(close, "addr").to_owned())
        .collect();
    addrs.sort();
    assert!(
        addrs[0].starts_with("127.0.0.8:")
            && addrs[1..] == ["198.51.100.7:4000", "198.51.100.8:4000"],
        "{addrs:?}"
    );
}

#[test]
fn evict_idlest_closes_the_idlest_connection() {
    let server = Serve::start(&["--max-connections", "3", "--on-full", "evict-idlest"]);
    let mut peers: Vec<Peer> = (0..3).map(|_| server.served()).collect();
    // Stamps have a millisecond.
    std::thread::sleep(std::time::Duration::from_millis(5));
    peers[0].send("ping\n");
    peers[0].expect("pong\n");
    let _newcomer = server.served();
    assert_eq!(field(&server.wait_for_closes(1)[0], "reason"), "evicted");
    peers[1].expect_end();
    for peer in [0, 2] {
        peers[peer].send("ping\n");
        peers[peer].expect("pong\n");
    }
}

/// One peer that never reads, and one that sends to all: the server's policy decides about the
/// first.
fn broadcast_to_a_slow_peer(policy: &str) -> (Serve, Peer, Peer) {
    let server = Serve::start(&[
        "--app",
        "broadcast",
        "--max-outbox",
        "64KiB",
        "--on-slow",
        policy,
        "--write-timeout",
        "off",
        "--heartbeat",
        "off",
    ]);
    let slow = server.served();
    let mut speaker = server.served();
    let message = [b'x'; 1000];
    // More than the kernel's buffers of a loopback connection and the outbox together.
    for _ in 0..16_000 {
        speaker.send(message);
        speaker.send("\n");
    }
    speaker.send("ping\n");
    speaker.expect("pong\n");
    (server, slow, speaker)
}

#[test]
fn on_slow_close_closes_a_slow_reader() {
    let (server, _slow, _speaker) = broadcast_to_a_slow_peer("close");
    assert_eq!(
        field(&server.wait_for_closes(1)[0], "reason"),
        "slow-reader"
    );
}

#[test]
fn on_slow_drop_drops_whole_messages() {
    let (server, mut slow, mut speaker) = broadcast_to_a_slow_peer("drop");
    assert!(server.closes().is_empty());
    slow.send("ping\n");
    let mut received = 0;
    loop {
        match slow.read_line().as_deref() {
            Some("pong") => break,
            Some(line) => {
                assert_eq!(line.len(), 1000, "whole messages only");
                received += 1;
            }
            None => panic!("the line ended"),
        }
    }
    assert!((64..16_000).contains(&received), "{received} received");
    speaker.send("again\n");
    assert_eq!(slow.read_line().as_deref(), Some("again"));
}

#[test]
fn memory_limit_closes_no_idle_connection() {
    let server = Serve::start(&[
        "--max-memory",
        "4MiB",
        "--max-outbox",
        "1MiB",
        "--heartbeat",
        "off",
        "--framing",
        "length",
    ]);
    let frame = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
    let mut idle = server.connect();
    // Each holds the beginning of a message; 200 of them would hold 12 MB.
    let mut holders: Vec<Peer> = Vec::new();
    for _ in 0..200 {
        let mut holder = server.connect();
        let beginning = &frame(&[b'x'; 64 * 1024])[..60_000];
        match holder.stream.write_all(beginning) {
            Ok(()) => holders.push(holder),
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ),
                "{error}"
            ),
        }
    }
    let closes = server.wait_for_closes(130);
    let by_memory = |close: &&String| {
        field(close, "reason") == "memory-limit" && field(close, "unfinished") == "60000"
    };
    assert!(
        closes.iter().filter(by_memory).count() > 120,
        "{:?}",
        closes.last()
    );
    assert!(
        server.status("VmRSS") < 40_000,
        "{} kB",
        server.status("VmRSS")
    );
    idle.send(frame(b"still here"));
    idle.expect(frame(b"echo: still here"));
}
