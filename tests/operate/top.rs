//! `heartline top`, on a terminal.

use std::time::Instant;

use rustix::process::Signal;

use crate::common::{DEADLINE, Serve, wait_until};
use crate::pty::Pty;
use crate::{heartline, output, refused, serve};

fn top(server: &Serve, columns: u16, rows: u16) -> Pty {
    Pty::start(
        heartline(&["top", &server.admin, "--interval", "200ms"]),
        columns,
        rows,
    )
}

#[test]
fn top_without_a_terminal_names_status() {
    let server = serve(&[]);
    refused(
        &mut heartline(&["top", &server.admin]),
        2,
        &["terminal", "heartline status"],
    );
    refused(
        &mut heartline(&["top", &server.admin, "--interval", "1ms"]),
        2,
        &["--interval", "200ms"],
    );
}

#[test]
fn top_reports_start_errors_without_the_terminal() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .to_string();
    let mut top = Pty::start(heartline(&["top", &gone]), 100, 24);
    top.wait_for(&format!("cannot connect to {gone}"));
    assert_eq!(top.end().code(), Some(1));
}

#[test]
fn top_shows_connections_and_closes() {
    let server = serve(&[]);
    let (one, mut two) = (server.served(), server.served());
    let addr =
        |peer: &crate::common::Peer| peer.stream.local_addr().expect("connected").to_string();
    let (first, second) = (addr(&one), addr(&two));
    let top = top(&server, 100, 30);
    for part in [
        "2 of ",
        &first,
        &second,
        "2 connections by silence, longest first",
        "None yet.",
        "q quit",
    ] {
        top.wait_for(part);
    }
    two.send("hello\n");
    two.expect("echo: hello\n");
    top.wait_for("11B");
    drop(one);
    top.wait_for("peer-closed");
    top.wait_until("the closed line is among the closes alone", |screen| {
        screen.matches(first.as_str()).count() == 1
    });
    top.wait_for("1 connection by silence");
}

#[test]
fn terminal_is_restored_on_every_exit() {
    let server = serve(&[]);
    for keys in [
        "q",
        "\x1b",
        "\x03",
        "?\x03",
        "bhello\x03",
        "\x1b[200~never\rended",
    ] {
        let mut top = top(&server, 80, 24);
        top.wait_for("q quit");
        assert!(top.is_taken());
        top.press(keys);
        if keys.ends_with("ended") {
            // A paste without an end is nothing yet, and no key is one.
            top.signal(Signal::TERM);
            assert_eq!(top.end().code(), Some(143));
        } else {
            assert_eq!(top.end().code(), Some(0), "{keys:?}");
        }
    }
    for (signal, code) in [
        (Signal::TERM, 143),
        (Signal::INT, 130),
        (Signal::HUP, 129),
        (Signal::QUIT, 131),
    ] {
        let mut top = top(&server, 80, 24);
        top.wait_for("q quit");
        top.signal(signal);
        assert_eq!(top.end().code(), Some(code));
    }
}

#[test]
fn top_exits_cleanly_when_its_terminal_is_closed() {
    let server = serve(&[]);
    let mut top = top(&server, 80, 24);
    top.wait_for("q quit");
    let status = top.close();
    // By SIGHUP, or because the terminal cannot be written any more, whichever comes first.
    assert!(matches!(status.code(), Some(129 | 1)), "{status:?}");
}

#[test]
fn top_draws_in_windows_of_any_size() {
    let server = serve(&[]);
    for (columns, rows) in [
        (1, 1),
        (0, 0),
        (3, 2),
        (65_535, 65_535),
        (65_535, 1),
        (1, 65_535),
    ] {
        let mut top = top(&server, columns, rows);
        wait_until("the terminal is taken", || top.is_taken());
        top.press("q");
        assert_eq!(top.end().code(), Some(0), "{columns}x{rows}");
    }
}

#[test]
fn connection_is_found_written_to_and_closed_in_top() {
    let server = serve(&["--heartbeat", "off"]);
    let (mut one, mut two) = (server.served(), server.served());
    let mut top = top(&server, 100, 30);
    top.wait_for("2 connections by silence");

    top.press("bto all\r");
    one.expect("to all\n");
    two.expect("to all\n");
    top.wait_for("message queued for 2 connections");

    let addr = two.stream.local_addr().expect("connected").to_string();
    top.press(&format!("/{addr}\r"));
    top.wait_for(&format!("1 connection at {addr}"));
    top.press("mjust you\r");
    two.expect("just you\n");

    top.press("k");
    top.wait_for(&format!("Close {addr} ("));
    top.press("n");
    top.wait_for("q quit");
    top.press("k");
    top.wait_for(&format!("Close {addr} ("));
    top.press("y");
    two.expect_end();
    top.wait_for("requested");
    top.wait_for("No connection matches");
    top.press("\x1b");
    top.wait_for("1 connection by silence");
    one.send("still here\n");
    one.expect("echo: still here\n");
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}

#[test]
fn failed_send_is_shown_in_top() {
    let server = serve(&["--max-message", "8"]);
    let mut peer = server.served();
    let mut top = top(&server, 100, 24);
    top.wait_for("1 connection by");
    top.press("blonger than eight\r");
    top.wait_for("not sent: the server says:");
    top.press("bshort\r");
    peer.expect("short\n");
}

#[test]
fn last_action_is_done_before_top_ends() {
    let server = serve(&[]);
    let mut peer = server.served();
    let mut top = top(&server, 100, 24);
    top.wait_for("1 connection by");
    top.press("bgoodbye\rq");
    peer.expect("goodbye\n");
    top.wait_for("queued for 1 connection");
    assert_eq!(top.end().code(), Some(0));
}

#[test]
fn top_redraws_at_another_size() {
    let server = serve(&[]);
    let _peer = server.served();
    let mut top = top(&server, 60, 15);
    top.wait_for("ADDRESS");
    assert!(!top.screen().contains("Last closes"));
    top.resize(120, 40);
    top.wait_for("Last closes");
    top.wait_for("PINGS                ID");
    top.resize(40, 5);
    top.wait_until("little is left", |screen| {
        screen.contains("ADDRESS") && !screen.contains("connections by")
    });
}

#[test]
fn hanging_server_does_not_block_keys() {
    let server = serve(&[]);
    let mut top = top(&server, 100, 24);
    top.wait_for("q quit");
    server.signal(Signal::STOP);
    top.wait_for("No answer for");
    let pressed = Instant::now();
    top.press("?");
    top.wait_for("Any key closes this page.");
    top.press("xq");
    assert_eq!(top.end().code(), Some(0));
    assert!(pressed.elapsed() < DEADLINE / 10, "{:?}", pressed.elapsed());
    server.signal(Signal::CONT);
}

#[test]
fn lost_server_is_shown_and_reconnected() {
    let server = serve(&[]);
    let mut top = top(&server, 100, 24);
    top.wait_for("q quit");
    let admin = server.admin.trim_start_matches("http://").to_owned();
    drop(server);
    top.wait_for("No answer for");
    top.wait_for("Connection refused");
    let server = Serve::start(&["--admin", &admin]);
    let _peer = server.served();
    top.wait_for("the server was restarted");
    top.wait_for("1 connection by");
    assert!(!top.screen().contains("No answer for"));
    server.signal(Signal::TERM);
    top.press("q");
    assert_eq!(top.end().code(), Some(0));
}

#[test]
fn draining_server_is_marked() {
    let server = serve(&["--drain", "20s"]);
    let _peer = server.served();
    let top = top(&server, 80, 24);
    top.wait_for("q quit");
    server.signal(Signal::TERM);
    top.wait_for("DRAINING");
}

#[test]
fn no_color_disables_colours() {
    let server = serve(&[]);
    let _peer = server.served();
    let args = ["top", server.admin.as_str()];
    for (value, coloured) in [("", true), ("1", false)] {
        let mut command = heartline(&args);
        command.env("NO_COLOR", value);
        let top = Pty::start(command, 80, 24);
        top.wait_for("SILENCE");
        // An empty value counts as none (no-color.org).
        wait_until("it is drawn", || top.is_coloured() == coloured);
    }
}

#[test]
fn help_names_every_flag() {
    let help = output(&["top", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    for flag in [
        "--interval",
        "--token-file",
        "HEARTLINE_ADMIN_TOKEN_FILE",
        "unix:PATH",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}
