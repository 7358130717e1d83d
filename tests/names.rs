//! The handshake and names over sockets: `nc`-like peers and the built client against the built
//! server.
#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Peer, Serve, field, wait_until};

const DEFAULT_BEAT: &str = "beat=5s retry=5s missed=3\n";

/// What a closed connection's log line says under `key`.
fn closed(serve: &Serve, n: usize, key: &str) -> String {
    field(&serve.wait_for_closes(n)[n - 1], key).to_owned()
}

fn log_in(serve: &Serve, name: &str) -> Peer {
    let mut peer = serve.connect();
    peer.send(format!("hello version=1 name={name}\n"));
    peer.expect(format!("welcome version=1 name={name} {DEFAULT_BEAT}"));
    peer
}

/// `heartline connect` with no input, until it ends by itself.
fn connect(serve: &Serve, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command.arg("connect").arg(serve.addr().to_string());
    command.args(args).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

#[test]
fn hello_is_answered_with_every_framing_that_has_borders() {
    let serve = Serve::start(&[]);
    let mut peer = serve.connect();
    peer.send("ping\nhello version=1 beat=4m\none\n\\ping\n");
    let welcome = "welcome version=1 beat=240s retry=5s missed=3\n";
    peer.expect(format!("pong\n{welcome}echo: one\necho: ping\n"));

    let serve = Serve::start(&["--framing", "length"]);
    let mut peer = serve.connect();
    peer.send(b"\0\0\0\x0fhello version=1\0\0\0\x03one");
    peer.expect(b"\0\0\0\x2bwelcome version=1 beat=5s retry=5s missed=3");
    peer.expect(b"\0\0\0\x09echo: one");

    let serve = Serve::start(&["--framing", "raw"]);
    let mut peer = serve.connect();
    peer.send("hello version=1");
    peer.expect("echo: hello version=1");
}

#[test]
fn malformed_hello_and_untimely_control_words_close_the_connection() {
    let serve = Serve::start(&[]);
    let cases = [
        (
            "hello version=1 beat=soon\n",
            "denied reason=bad-hello detail=the%20value%20of%20beat%20cannot%20be%20read\n",
        ),
        (
            "hello version=2\n",
            "denied reason=bad-hello detail=only%20version%201%20is%20spoken\n",
        ),
    ];
    for (n, (said, answer)) in cases.into_iter().enumerate() {
        let mut peer = serve.connect();
        peer.send(said);
        peer.expect(answer);
        peer.expect_end();
        assert_eq!(closed(&serve, n + 1, "reason"), "malformed");
        assert_eq!(closed(&serve, n + 1, "denied"), "bad-hello");
    }
    let mut twice = serve.connect();
    twice.send("hello version=1\nhello version=1\n");
    twice.expect(format!(
        "welcome version=1 {DEFAULT_BEAT}bye reason=malformed\n"
    ));
    twice.expect_end();
    assert_eq!(closed(&serve, 3, "reason"), "malformed");
    let mut plain = serve.connect();
    plain.send("bye\nwelcome\n");
    plain.expect("echo: bye\necho: welcome\n");
}

#[test]
fn name_is_required_and_known_in_the_log() {
    let serve = Serve::start(&["--login", "trust"]);
    let mut unnamed = serve.connect();
    unnamed.send("something\n");
    unnamed.expect("denied reason=login-required\n");
    unnamed.expect_end();
    assert_eq!(closed(&serve, 1, "reason"), "login-failed");
    assert_eq!(closed(&serve, 1, "denied"), "login-required");
    let mut forged = serve.connect();
    forged.send("hello version=1 name=a%0areason=forged\n");
    forged.expect("denied reason=bad-name\n");
    forged.expect_end();
    assert_eq!(closed(&serve, 2, "denied"), "bad-name");
    let peer = log_in(&serve, "dev-17");
    drop(peer);
    assert_eq!(closed(&serve, 3, "name"), "dev-17");
    assert!(!serve.log().contains("\nreason=forged"));
}

#[test]
fn bytes_right_behind_the_hello_are_not_lost() {
    let serve = Serve::start(&["--login", "trust"]);
    let mut peer = serve.connect();
    let many: String = (0..5000).map(|n| format!("{n}\n")).collect();
    peer.send(format!("hello version=1 name=a\n{many}"));
    peer.finish();
    peer.expect(format!("welcome version=1 name=a {DEFAULT_BEAT}"));
    let echoes: String = (0..5000).map(|n| format!("echo: {n}\n")).collect();
    peer.expect(echoes);
    peer.expect_end();
}

#[test]
fn connection_without_a_login_is_closed_in_time_though_it_beats() {
    let serve = Serve::start(&["--login", "trust", "--login-timeout", "500ms"]);
    let mut peer = serve.connect();
    let began = Instant::now();
    let mut answered = String::new();
    while let Some(line) = peer.read_line() {
        answered.push_str(&line);
        if began.elapsed() < Duration::from_secs(5) {
            let _ = peer.stream.write_all(b"ping\n");
        }
        if line == "denied reason=timed-out" {
            break;
        }
        if answered.is_empty() {
            peer.send("ping\n");
        }
    }
    assert!(answered.ends_with("denied reason=timed-out"), "{answered}");
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(closed(&serve, 1, "reason"), "login-timeout");
}

#[test]
fn second_login_replaces_the_first_and_our_client_stays_away() {
    let serve = Serve::start(&["--login", "trust"]);
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| connect(&serve, &["--name", "dup", "--listen-only"]));
        let mut second = None;
        // The client may need a moment to come; then its name is taken from it.
        wait_until("the client is replaced", || {
            second = Some(log_in(&serve, "dup"));
            std::thread::sleep(Duration::from_millis(100));
            first.is_finished()
        });
        first.join().expect("no panic")
    });
    assert_eq!(first.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&first.stderr).into_owned();
    let said = "heartline: another client has logged in with the same name\n";
    assert!(stderr.ends_with(said), "{stderr}");
    assert!(
        stderr.contains("welcome as dup, dead after 20 s of silence"),
        "{stderr}"
    );
}

#[test]
fn duplicate_name_is_refused_where_that_is_set() {
    let serve = Serve::start(&["--login", "trust", "--on-duplicate", "refuse"]);
    let mut first = log_in(&serve, "dup");
    let second = connect(&serve, &["--name", "dup"]);
    assert_eq!(second.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    let said = "heartline: the server denied the login (name-in-use)\n";
    assert!(stderr.ends_with(said), "{stderr}");
    first.send("still here\n");
    first.expect("echo: still here\n");
}

#[test]
fn client_that_tries_for_ever_comes_back_after_a_denial() {
    let serve = Serve::start(&["--login", "trust", "--on-duplicate", "refuse"]);
    let holder = log_in(&serve, "dup");
    let mut client = Command::new(env!("CARGO_BIN_EXE_heartline"));
    client.arg("connect").arg(serve.addr().to_string());
    client.args(["--name", "dup", "--listen-only"]);
    client.args(["--tries", "forever", "--retry-delay", "50ms"]);
    let mut client = client
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stderr = BufReader::new(client.stderr.take().expect("piped"));
    wait_until("it is denied twice", || {
        let denied = |line: &&String| line.contains("denied=name-in-use");
        serve.closes().iter().filter(denied).count() >= 2
    });
    drop(holder);
    let mut lines = stderr.lines().map_while(Result::ok);
    let welcome = lines.any(|line| line.contains("welcome as dup"));
    client.kill().and_then(|()| client.wait()).expect("it runs");
    assert!(welcome);
}

#[test]
fn wrong_login_settings_are_named() {
    let refused = |args: &[&str], culprit: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
        let output = command.args(args).stdin(Stdio::null()).output();
        let output = output.expect("the binary starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(culprit), "{args:?}: {stderr}");
        output.status.code()
    };
    let usage = Some(2);
    let raw = ["serve", "--login", "trust", "--framing", "raw"];
    assert_eq!(refused(&raw, "--login"), usage);
    assert_eq!(
        refused(&["serve", "--login-timeout", "0s"], "--login-timeout"),
        usage
    );
    assert_eq!(
        refused(&["serve", "--beat-min", "11m"], "--beat-min"),
        usage
    );
    let raw = ["connect", "127.0.0.1:1", "--name", "a", "--framing", "raw"];
    assert_eq!(refused(&raw, "--hello"), usage);
    let blank = ["connect", "127.0.0.1:1", "--name", "a b"];
    assert_eq!(refused(&blank, "--name"), usage);
    let missing = ["connect", "127.0.0.1:1", "--token-file", "/nowhere/token"];
    assert_eq!(refused(&missing, "/nowhere/token"), Some(1));
    let directory = ["connect", "127.0.0.1:1", "--token-file", "/tmp"];
    assert_eq!(refused(&directory, "/tmp"), Some(1));
}

/// `HEARTLINE_RACES=1000` makes more of them.
#[test]
fn one_of_ten_racing_logins_survives() {
    let races = std::env::var("HEARTLINE_RACES").map_or(50, |races| {
        races.parse().expect("HEARTLINE_RACES is a number")
    });
    let serve = Serve::start(&["--login", "trust", "--log-level", "off"]);
    for race in 0..races {
        let mut peers: Vec<Peer> = (0..10).map(|_| serve.connect()).collect();
        for peer in &mut peers {
            peer.send(format!("hello version=1 name=n{race}\nmine\n"));
        }
        wait_until("nine are replaced", || {
            let ended = peers
                .iter_mut()
                .filter_map(|peer| peer.has_ended().then_some(()));
            ended.count() == 9
        });
        let mut survivors = peers.into_iter().filter_map(|mut peer| {
            let is_over = peer.has_ended();
            (!is_over).then_some(peer)
        });
        let mut survivor = survivors.next().expect("one is left");
        assert!(survivors.next().is_none(), "race {race}");
        survivor.send("still here\n");
        while survivor.read_line().expect("it is served") != "echo: still here" {}
    }
}
