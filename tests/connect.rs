//! `heartline connect` as people and scripts use it: the built binary, stdin, stdout, stderr, and
//! the exit code.
#![cfg(feature = "cli")]

mod common;
#[path = "common/scripted.rs"]
mod scripted;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Serve, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use scripted::{accept, first_article, second_article, server};

/// A `heartline connect` of the test's own, ended when the test ends.
struct Connect {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
}

/// Everything that a pipe brought so far.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                sink.lock()
                    .expect("no reader panics")
                    .extend_from_slice(&chunk[..n]);
            }
        });
        Collected {
            bytes,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8(self.bytes.lock().expect("no reader panics").clone()).expect("text")
    }

    fn whole(&mut self) -> String {
        self.reader
            .take()
            .expect("taken once")
            .join()
            .expect("no reader panics");
        self.so_far()
    }
}

impl Connect {
    fn start(addr: impl ToString, args: &[&str]) -> Self {
        let mut child = Self::command(addr, args)
            .spawn()
            .expect("the binary starts");
        Connect {
            stdin: child.stdin.take(),
            stdout: Collected::new(child.stdout.take().expect("piped")),
            stderr: Collected::new(child.stderr.take().expect("piped")),
            child,
        }
    }

    fn command(addr: impl ToString, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
        command.arg("connect").arg(addr.to_string()).args(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn type_in(&mut self, text: &str) {
        self.stdin
            .as_mut()
            .expect("stdin is open")
            .write_all(text.as_bytes())
            .expect("the binary reads");
    }

    fn end_stdin(&mut self) {
        self.stdin = None;
    }

    fn wait_for_stdout(&self, text: &str) {
        wait_until(&format!("stdout has {text:?}"), || {
            self.stdout.so_far().contains(text)
        });
    }

    fn wait_for_stderr(&self, text: &str) {
        wait_until(&format!("stderr has {text:?}"), || {
            self.stderr.so_far().contains(text)
        });
    }

    /// Waits for the process to end by itself: exit code, stdout, stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut status = None;
        wait_until("the client ends", || {
            status = self.child.try_wait().expect("the process is ours");
            status.is_some()
        });
        (
            status.expect("waited for").code(),
            self.stdout.whole(),
            self.stderr.whole(),
        )
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        // It may have ended already, which is no concern of a test that is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stderr of the client ---\n{}", self.stderr.so_far());
        }
    }
}

#[test]
fn connect_sends_stdin_and_prints_answers() {
    let (addr, server) = server(first_article);
    let mut connect = Connect::start(addr, &[]);
    connect.type_in("one\n");
    connect.wait_for_stdout("echo: one\n");
    connect.wait_for_stderr(&format!("heartline: connected to {addr}\n"));
    connect.type_in("two\n\nlast without a line feed");
    connect.end_stdin();
    let (code, stdout, stderr) = connect.end();
    assert_eq!(
        (code, stdout.as_str()),
        (
            Some(0),
            "echo: one\necho: two\necho: \necho: last without a line feed\n"
        )
    );
    assert_eq!(
        stderr,
        format!("heartline: connecting to {addr} (try 1 of 5)\nheartline: connected to {addr}\n")
    );
    server.join().expect("the server is content");
}

#[test]
fn messages_after_end_of_stdin_are_printed() {
    let (addr, server) = server(|listener| {
        let mut stream = accept(&listener);
        assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
        thread::sleep(Duration::from_millis(100));
        stream.write_all(b"late\n").expect("the client listens");
    });
    let mut connect = Connect::start(addr, &[]);
    connect.end_stdin();
    let (code, stdout, _) = connect.end();
    assert_eq!((code, stdout.as_str()), (Some(0), "late\n"));
    server.join().expect("the server is content");
}

#[test]
fn raw_messages_are_printed_without_pongs() {
    let (addr, server) = server(second_article);
    let mut connect = Connect::start(
        addr,
        &["--framing", "raw", "--heartbeat", "500ms", "--missed", "20"],
    );
    connect.type_in("hello\n");
    connect.wait_for_stdout("HELLO");
    thread::sleep(Duration::from_millis(1200));
    connect.end_stdin();
    let (code, stdout, _) = connect.end();
    assert_eq!((code, stdout.as_str()), (Some(0), "HELLO"));
    server.join().expect("the server is content");
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_flag() {
    let cases: &[(&[&str], &str)] = &[
        (&["--tries", "0"], "--tries"),
        (&["--heartbeat", "soon"], "--heartbeat"),
        (&["--framing", "xml"], "--framing"),
        (&["--missed", "0"], "--missed"),
        (&["--retry-delay", "0s"], "--retry-delay"),
        (
            &["--backoff", "exponential", "--max-retry-delay", "1s"],
            "--max-retry-delay",
        ),
        (&["--dial-timeout", "0s"], "--dial-timeout"),
        (&["--write-timeout", "0s"], "--write-timeout"),
        (&["--max-message", "0"], "--max-message"),
        (&["--keepalive-idle", "1500ms"], "--keepalive-idle"),
        (&["--keepalive-count", "0"], "--keepalive-count"),
        (&["--user-timeout", "1s"], "--user-timeout"),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (args, flag) in cases {
        let (code, stdout, stderr) = Connect::start("127.0.0.1:1", args).end();
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(flag), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = Connect::start("localhost", &[]).end();
    assert!(code == Some(2) && stderr.contains("ADDR"), "{stderr}");
}

#[test]
fn tries_used_up_exit_with_1() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    let connect = Connect::start(
        format!("127.0.0.1:{port}"),
        &["--tries", "2", "--retry-delay", "100ms"],
    );
    let (code, stdout, stderr) = connect.end();
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("reconnecting (try 2 of 2, in 100 ms)\n"),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("heartline: gave up after 2 tries\n"),
        "{stderr}"
    );
}

#[test]
fn input_during_a_restart_arrives_in_order() {
    let (addr, server) = server(|listener| {
        accept(&listener)
            .write_all(b"welcome\n")
            .expect("the client reads");
    });
    let mut connect = Connect::start(addr, &["--tries", "forever", "--retry-delay", "100ms"]);
    connect.wait_for_stdout("welcome\n");
    server.join().expect("the server is content");
    connect.wait_for_stderr(
        "heartline: lost the connection (peer closed), reconnecting (try 1, in 100 ms)\n",
    );
    connect.wait_for_stderr("heartline: cannot connect: ");
    connect.type_in("first\nsecond\n");
    let mut listener = None;
    wait_until("the port is ours again", || {
        listener = TcpListener::bind(addr).ok();
        listener.is_some()
    });
    let again = thread::spawn(move || first_article(listener.expect("bound")));
    connect.wait_for_stdout("echo: second\n");
    connect.end_stdin();
    let (code, stdout, _) = connect.end();
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "welcome\necho: first\necho: second\n")
    );
    again.join().expect("the server is content");
}

#[test]
fn client_pings_a_silent_server_then_leaves() {
    // The kernel accepts, and no process reads.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let addr = deaf.local_addr().expect("bound");
    let connect = Connect::start(
        addr,
        &["--heartbeat", "200ms", "--missed", "2", "--tries", "1"],
    );
    let (code, _, stderr) = connect.end();
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("heartline: silent for ") && stderr.contains(", sending a ping\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("heartline: lost the connection (silent for "),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("heartline: gave up after 1 try\n"),
        "{stderr}"
    );
}

/// Frozen for twice its own timeout, it wakes without having sent a ping, and closes no connection.
#[test]
fn frozen_client_keeps_its_connection() {
    let (addr, server) = server(first_article);
    let mut connect = Connect::start(addr, &["--heartbeat", "300ms", "--missed", "3"]);
    connect.type_in("before\n");
    connect.wait_for_stdout("echo: before\n");
    let pid = Pid::from_child(&connect.child);
    kill_process(pid, Signal::STOP).expect("the process is ours");
    thread::sleep(Duration::from_millis(2400));
    kill_process(pid, Signal::CONT).expect("the process is ours");
    connect.type_in("after\n");
    connect.wait_for_stdout("echo: after\n");
    thread::sleep(Duration::from_millis(700));
    connect.end_stdin();
    let (code, _, stderr) = connect.end();
    assert!(code == Some(0) && !stderr.contains("lost"), "{stderr}");
    server.join().expect("the server is content");
}

#[test]
fn connect_ends_without_error_when_stdout_closes() {
    let (addr, server) = server(|listener| {
        let mut stream = accept(&listener);
        while stream
            .write_all(b"more than anybody wants to read\n")
            .is_ok()
        {}
    });
    let mut child = Connect::command(addr, &[])
        .spawn()
        .expect("the binary starts");
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
    let mut first = String::new();
    BufReader::new(stdout).read_line(&mut first).expect("text");
    // The reader of stdout has closed its pipe.
    let connect = Connect {
        stdin,
        stdout: Collected::new(std::io::empty()),
        stderr: Collected::new(child.stderr.take().expect("piped")),
        child,
    };
    let (code, _, stderr) = connect.end();
    assert_eq!(
        (first.as_str(), code),
        ("more than anybody wants to read\n", Some(0))
    );
    assert!(
        stderr.ends_with(&format!("heartline: connected to {addr}\n")),
        "{stderr}"
    );
    server.join().expect("the server is content");
}

#[test]
fn overlong_input_line_is_reported_and_skipped() {
    let (addr, server) = server(first_article);
    let mut connect = Connect::start(addr, &["--max-message", "100"]);
    connect.type_in(&format!("before\n{}\nafter\n", "x".repeat(101)));
    connect.end_stdin();
    let (code, stdout, stderr) = connect.end();
    assert_eq!(
        (code, stdout.as_str()),
        (Some(1), "echo: before\necho: after\n")
    );
    assert!(
        stderr.contains("a line longer than --max-message (100 bytes) was not sent"),
        "{stderr}"
    );
    server.join().expect("the server is content");
}

#[test]
fn connect_logs_to_the_given_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let (addr, server) = server(first_article);
    let mut connect = Connect::start(
        addr,
        &[
            "--log-level",
            "debug",
            "--log-file",
            path.to_str().expect("text"),
        ],
    );
    connect.end_stdin();
    let (code, _, stderr) = connect.end();
    assert_eq!(code, Some(0));
    assert!(!stderr.contains("DEBUG"), "{stderr}");
    let log = std::fs::read_to_string(&path).expect("a log");
    assert!(
        log.lines().count() >= 3
            && log
                .lines()
                .all(|line| line.contains("Z [DEBUG] client server=")),
        "{log}"
    );
    server.join().expect("the server is content");
    let unwritable = Connect::start(addr, &["--log-file", "/no/such/directory/log"]);
    let (code, _, stderr) = unwritable.end();
    assert!(
        code == Some(1) && stderr.contains("/no/such/directory/log"),
        "{stderr}"
    );
}

/// Both ends are ours: order and content of many lines, over each framing that has borders.
#[test]
fn twenty_thousand_messages_come_back_from_the_server() {
    for framing in ["lines", "length"] {
        let serve = Serve::start(&["--framing", framing]);
        let mut connect = Connect::start(serve.addr(), &["--framing", framing]);
        let mut stdin = connect.stdin.take().expect("piped");
        let typist = thread::spawn(move || {
            let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
            stdin.write_all(lines.as_bytes()).expect("the binary reads");
        });
        let (code, stdout, stderr) = connect.end();
        typist.join().expect("all was typed");
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stdout.lines().count(), 20_000);
        assert!(
            stdout
                .lines()
                .enumerate()
                .all(|(n, line)| line == format!("echo: line {n}"))
        );
    }
}

/// Longer than the heartbeat's timeout on both ends, in which stdout is not read.
#[test]
fn paused_stdout_loses_no_message() {
    let heartbeat = ["--heartbeat", "300ms", "--missed", "2"];
    let server = Serve::start(&heartbeat);
    let args = [&heartbeat[..], &["--tries", "1"]].concat();
    let mut child = Connect::command(server.addr(), &args)
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    const LINES: usize = 12_000;
    let typing = thread::spawn(move || {
        for n in 0..LINES {
            writeln!(stdin, "line {n} {}", "x".repeat(50)).expect("the binary reads");
        }
        stdin
    });
    thread::sleep(Duration::from_millis(2000));
    let mut line = String::new();
    for n in 0..LINES {
        line.clear();
        stdout.read_line(&mut line).expect("text");
        assert!(line.starts_with(&format!("echo: line {n} ")), "{line:?}");
    }
    drop(typing.join().expect("no panic"));
    assert!(child.wait().expect("it ends").success());
    let closes = server.wait_for_closes(1);
    assert_eq!(common::field(&closes[0], "reason"), "peer-closed");
}

#[test]
fn input_that_cannot_be_read_is_exit_1() {
    let server = Serve::start(&[]);
    let directory = std::fs::File::open("/").expect("a directory");
    let mut command = Connect::command(server.addr(), &[]);
    let output = command
        .stdin(directory)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(stderr.contains("cannot read stdin: "), "{stderr}");
}

#[test]
fn reply_may_be_longer_than_max_message_of_the_sender() {
    let server = Serve::start(&[]);
    let mut connect = Connect::start(server.addr(), &[]);
    let line = "x".repeat(65_536);
    connect.type_in(&format!("{line}\n"));
    connect.wait_for_stdout(&format!("echo: {line}\n"));
    connect.end_stdin();
    assert!(connect.child.wait().expect("it ends").success());
}

#[test]
fn listen_only_ignores_the_end_of_stdin() {
    let server = Serve::start(&["--app", "broadcast"]);
    let mut connect = Connect::start(server.addr(), &["--listen-only"]);
    connect.end_stdin();
    connect.wait_for_stderr("connected to ");
    let mut peer = server.connect();
    wait_until("the message arrives", || {
        peer.send("to all\n");
        thread::sleep(Duration::from_millis(20));
        connect.stdout.so_far().contains("to all\n")
    });
    let pid = Pid::from_child(&connect.child);
    kill_process(pid, Signal::TERM).expect("the process is ours");
    connect.child.wait().expect("it ends");
}
