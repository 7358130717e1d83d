//! The clients of docs/examples/clients against a server: they answer pings, leave a server that
//! hangs, and come back.
//!
//! Ignored by default: they need python3, a C compiler and Go. `cargo test --test clients --
//! --ignored` runs them; if only some of the three are there, name the tests.
#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::Serve;
use rustix::process::Signal;

/// The bound is 900 ms.
const HEARTBEAT: [&str; 4] = ["--heartbeat", "300ms", "--missed", "2"];
const BOUND: Duration = Duration::from_millis(900);
const DEADLINE: Duration = Duration::from_secs(60);

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/examples/clients")
        .join(name)
}

fn build(mut command: Command) {
    let status = command.status().expect("the compiler is installed");
    assert!(status.success(), "{command:?}");
}

struct Client {
    child: Child,
    lines: Receiver<String>,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Client { child, lines }
    }

    /// Each connection begins with a greeting of the client's, which the server echoes.
    fn is_served(&self) {
        let line = self.lines.recv_timeout(DEADLINE);
        assert_eq!(line.as_deref(), Ok("echo: hello"));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn holds_and_comes_back(client: impl FnOnce(SocketAddr) -> Command) {
    let server = Serve::start(&HEARTBEAT);
    let addr = server.addr();
    let client = Client::start(client(addr));
    client.is_served();
    thread::sleep(3 * BOUND);
    assert_eq!(server.closes(), Vec::<String>::new(), "it answers pings");

    server.signal(Signal::STOP);
    // It leaves the server, and its kernel lets it in again.
    thread::sleep(3 * BOUND);
    server.signal(Signal::CONT);
    client.is_served();

    drop(server);
    let _again = Serve::start_on(&[&addr.to_string()], &HEARTBEAT);
    client.is_served();
}

#[test]
#[ignore = "needs python3"]
fn python_client_answers_pings_and_reconnects() {
    holds_and_comes_back(|addr| {
        let mut command = Command::new("python3");
        command.arg(source("client.py"));
        command.args([addr.ip().to_string(), addr.port().to_string(), "0.9".into()]);
        command
    });
}

#[test]
#[ignore = "needs a C compiler"]
fn c_client_answers_pings_and_reconnects() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let binary = dir.path().join("client");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-o"]);
    build({
        cc.arg(&binary).arg(source("client.c"));
        cc
    });
    holds_and_comes_back(|addr| {
        let mut command = Command::new(&binary);
        command.args([addr.ip().to_string(), addr.port().to_string(), "0.9".into()]);
        command
    });
}

#[test]
#[ignore = "needs Go"]
fn go_client_answers_pings_and_reconnects() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let binary = dir.path().join("client");
    let mut go = Command::new("go");
    go.env("GOCACHE", dir.path().join("cache"));
    build({
        go.args(["build", "-o"])
            .arg(&binary)
            .arg(source("client.go"));
        go
    });
    holds_and_comes_back(|addr| {
        let mut command = Command::new(&binary);
        command.args([addr.to_string(), "900ms".into()]);
        command
    });
}
