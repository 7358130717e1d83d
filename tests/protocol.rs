//! Messages over real sockets: complete, in order, in every framing, however they are cut.
#![cfg(feature = "cli")]

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use common::{Peer, Serve, field};

#[test]
fn twenty_thousand_pipelined_messages_come_back_complete_and_in_order() {
    let server = Serve::start(&[]);
    let mut peer = server.connect();
    let mut writer = peer.stream.try_clone().expect("a second descriptor");
    let writing = thread::spawn(move || {
        let mut batch = Vec::new();
        for n in 0..20_000 {
            // Heartbeats and both line ends in between.
            let end = if n % 3 == 0 { "\r\n" } else { "\n" };
            batch.extend_from_slice(format!("message {n} {}{end}", "x".repeat(n % 97)).as_bytes());
            if n % 100 == 0 {
                batch.extend_from_slice(b"ping\npong\r\n");
            }
        }
        writer.write_all(&batch).expect("the server reads");
        writer.shutdown(std::net::Shutdown::Write).expect("open");
    });
    // It writes everything before it reads anything: the server must not read what it cannot
    // answer.
    thread::sleep(Duration::from_millis(300));
    let mut pongs = 0;
    for n in 0..20_000 {
        let mut line = peer.read_line().expect("a reply");
        while line == "pong" || line == "ping" {
            pongs += usize::from(line == "pong");
            line = peer.read_line().expect("a reply");
        }
        assert_eq!(line, format!("echo: message {n} {}", "x".repeat(n % 97)));
    }
    while let Some(line) = peer.read_line() {
        assert!(line == "pong" || line == "ping", "{line}");
        pongs += usize::from(line == "pong");
    }
    assert_eq!(pongs, 200);
    writing.join().expect("all was written");
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "peer-closed");
}

#[test]
fn tiny_outbox_loses_no_message() {
    let server = Serve::start(&["--max-outbox", "4KiB", "--max-message", "1KiB"]);
    let mut peer = server.connect();
    let mut writer = peer.stream.try_clone().expect("a second descriptor");
    // The empty line is the worst case: one byte in, seven bytes out.
    let writing = thread::spawn(move || {
        writer
            .write_all(&[b'\n'; 400_000])
            .expect("the server reads")
    });
    thread::sleep(Duration::from_millis(200));
    for _ in 0..400_000 {
        peer.expect("echo: \n");
    }
    writing.join().expect("all was written");
}

#[test]
fn messages_sent_byte_by_byte_are_decoded() {
    let server = Serve::start(&[]);
    let mut peer = server.connect();
    for byte in b"hello\r\nping\n\nworld\n" {
        peer.send([*byte]);
        thread::sleep(Duration::from_millis(2));
    }
    peer.expect("echo: hello\npong\necho: \necho: world\n");
}

#[test]
fn length_prefixed_messages_and_heartbeats() {
    let server = Serve::start(&["--framing", "length"]);
    let mut peer = server.connect();
    peer.send(b"\0\0\0\x05hello\0\0\0\x04ping\0\0\0\0\0\0");
    peer.send(b"\0\x03a\nb");
    peer.expect(b"\0\0\0\x0becho: hello\0\0\0\x04pong\0\0\0\x06echo: \0\0\0\x09echo: a\nb");
    peer.finish();
    peer.expect_end();
}

#[test]
fn raw_reads_are_messages_and_chunks_of_pings_are_heartbeats() {
    let server = Serve::start(&["--framing", "raw"]);
    let mut peer = server.connect();
    peer.send("Hello Server");
    peer.expect("echo: Hello Server");
    peer.send("ping");
    peer.expect("pong");
    peer.send("pingping");
    peer.expect("pongpong");
}

#[test]
fn longest_message_is_accepted_and_a_longer_one_closed() {
    let server = Serve::start(&["--max-message", "1000"]);
    let mut peer = server.connect();
    let longest = "x".repeat(1000);
    peer.send(format!("{longest}\r\n"));
    peer.expect(format!("echo: {longest}\n"));
    // Earlier requests are answered, and the answers are not lost in a reset, although more bytes
    // arrive.
    peer.send(format!("last\n{longest}x and so on and so on"));
    peer.expect("echo: last\n");
    peer.expect_end();
    assert_eq!(
        field(&server.wait_for_closes(1)[0], "reason"),
        "frame-too-large"
    );
}

#[test]
fn length_above_the_limit_closes_at_once() {
    let server = Serve::start(&["--framing", "length"]);
    let mut peer = server.connect();
    peer.send(b"\xff\xff\xff\xff");
    peer.expect_end();
    assert_eq!(
        field(&server.wait_for_closes(1)[0], "reason"),
        "frame-too-large"
    );
}

#[test]
fn half_closed_peer_gets_every_reply() {
    let server = Serve::start(&[]);
    let mut peer = server.connect();
    let big = "y".repeat(60_000);
    for _ in 0..20 {
        peer.send(format!("{big}\n"));
    }
    peer.send("an unfinished line is dropped");
    peer.finish();
    for _ in 0..20 {
        peer.expect(format!("echo: {big}\n"));
    }
    peer.expect_end();
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "peer-closed");
    assert_eq!(
        field(&closes[0], "bytes_in"),
        (20 * 60_001 + 29).to_string()
    );
    let bytes_out: usize = field(&closes[0], "bytes_out").parse().expect("a number");
    let pings = bytes_out - 20 * 60_007;
    assert!(pings <= 20 * 5 && pings.is_multiple_of(5), "{pings}");
}

#[test]
fn broadcast_reaches_all_other_connections() {
    let server = Serve::start(&["--app", "broadcast"]);
    let mut peers: Vec<Peer> = (0..5).map(|_| server.connect()).collect();
    // A pong shows that the server has admitted this peer.
    for peer in &mut peers {
        peer.send("ping\n");
        peer.expect("pong\n");
    }
    let long = "z".repeat(5000);
    peers[0].send(format!("hello\n{long}\n"));
    for peer in &mut peers[1..] {
        peer.expect(format!("hello\n{long}\n"));
    }
    peers[0].send("ping\n");
    peers[0].expect("pong\n");
}

/// Many small pieces that all peers share: more of them than one turn writes, while the socket has
/// room for all.
#[test]
fn late_reader_gets_all_queued_broadcasts() {
    let server = Serve::start(&["--app", "broadcast", "--max-outbox", "64MiB"]);
    let (mut late, mut talker) = (server.connect(), server.connect());
    late.send("ping\n");
    late.expect("pong\n");
    let message = |n: usize| format!("{n:06} {}\n", "b".repeat(600));
    for n in 0..20_000 {
        talker.send(message(n));
    }
    talker.send("ping\n");
    talker.expect("pong\n");
    for n in 0..20_000 {
        late.expect(message(n));
    }
}

#[test]
fn sink_sends_no_reply() {
    let server = Serve::start(&["--app", "sink"]);
    let mut peer = server.connect();
    peer.send("hello\nping\n");
    peer.expect("pong\n");
    peer.finish();
    peer.expect_end();
}

/// The client of the article on TCP keepalive: lines, no heartbeat of its own.
#[test]
fn client_of_the_first_article_is_served() {
    let server = Serve::start(&["--heartbeat", "off"]);
    let mut peer = server.connect();
    for n in 0..3 {
        peer.send(format!("line {n}\n"));
        assert_eq!(
            peer.read_line().as_deref(),
            Some(format!("echo: line {n}").as_str())
        );
    }
}

/// The client of the article on heartbeats: no framing, `ping` without an end, each read is a
/// message.
#[test]
fn client_of_the_second_article_is_served() {
    let server = Serve::start(&["--framing", "raw"]);
    let mut peer = server.connect();
    let read = |peer: &mut Peer| {
        let mut buffer = [0; 1024];
        let n = peer.stream.read(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    peer.send("Hello Server");
    assert_eq!(read(&mut peer), "echo: Hello Server");
    for _ in 0..3 {
        peer.send("ping");
        assert_eq!(read(&mut peer), "pong");
    }
}

#[test]
fn http_request_is_not_delivered_as_message() {
    let server = Serve::start(&["--app", "broadcast"]);
    let mut other = server.connect();
    other.send("ping\n");
    other.expect("pong\n");
    let mut web = server.connect();
    web.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    web.expect_end();
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "http-request");
    // Nothing of it reached the others; and later in a conversation such a line is a message.
    let mut peer = server.connect();
    peer.send("hello\nGET / HTTP/1.1\n");
    other.expect("hello\nGET / HTTP/1.1\n");
}
