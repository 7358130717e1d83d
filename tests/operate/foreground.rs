//! `heartline serve` in the foreground of a terminal.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Peer, wait_until};
use crate::heartline;
use crate::pty::Pty;

#[test]
fn closed_terminal_ends_the_server_and_sighup_reloads_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let path = log.to_str().expect("a path in UTF-8");
    let mut pty = Pty::start(
        heartline(&["serve", "127.0.0.1:0", "--log-file", path]),
        80,
        24,
    );
    pty.wait_for("listening 127.0.0.1:");
    let logged = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    pty.signal(Signal::HUP);
    wait_until("the settings are read again", || {
        logged("reload changed=none")
    });
    assert_eq!(pty.close().code(), Some(0));
    assert!(logged("terminal closed") && logged("] shutdown ") && logged("] finished "));
}

#[test]
fn server_started_with_sighup_ignored_survives_its_terminal() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let path = log.to_str().expect("a path in UTF-8");
    // As nohup(1) does it.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_heartline"));
    command.args(["serve", "127.0.0.1:0", "--log-file", path]);
    let logged = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    let mut pty = Pty::start(command, 80, 24);
    wait_until("it listens", || logged("listening"));
    pty.hang_up();
    wait_until("it lives on", || logged("reload changed=none"));
    pty.signal(Signal::TERM);
    assert_eq!(pty.wait().code(), Some(0));
}

#[test]
fn ctrl_s_does_not_stop_the_server() {
    let args = ["serve", "127.0.0.1:0", "--log-level", "debug"];
    let mut pty = Pty::start(heartline(&args), 200, 24);
    pty.wait_for("listening 127.0.0.1:");
    let screen = pty.screen();
    let addr = screen
        .lines()
        .find_map(|line| line.strip_prefix("listening "))
        .and_then(|addr| addr.trim().parse().ok())
        .expect("it says where");
    pty.press("\x13");
    // More lines than a terminal and the server's own buffer hold: two for each connection.
    for _ in 0..1500 {
        let mut peer = Peer::connect(addr);
        peer.send("x\n");
        peer.expect("echo: x\n");
    }
    pty.press("\x11");
    pty.wait_for("log-dropped n=");
    pty.signal(Signal::TERM);
    assert_eq!(pty.end().code(), Some(0));
}
