//! `heartline status`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{DEADLINE, Serve, wait_until};
use crate::{heartline, output, refused, serve};

/// A server on a free port that does this with one client, and its address.
fn scripted_server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            stream
                .set_read_timeout(Some(DEADLINE))
                .expect("a timeout above zero");
            serve(stream);
        }
    });
    addr
}

#[test]
fn people_get_a_table_and_scripts_the_json_of_the_server() {
    let server = serve(&["--heartbeat", "2s"]);
    let mut peer = server.served();
    peer.send("hello\n");
    peer.expect("echo: hello\n");
    // As it is printed, and without what may be left out.
    for addr in [
        server.admin.as_str(),
        server.admin.trim_start_matches("http://"),
    ] {
        let shown = output(&["status", addr]);
        let text = String::from_utf8(shown.stdout).expect("text");
        assert_eq!(shown.status.code(), Some(0), "{text}");
        for part in [
            &format!(
                "heartline {}, process {}: echo over lines on {}\n",
                env!("CARGO_PKG_VERSION"),
                server.pid().as_raw_nonzero(),
                server.addr()
            ),
            "\n  connections    1 open of ",
            "\n  closed         none\n",
            "\n  messages       1 received, 1 queued\n",
            "\n  heartbeats     every 2.0s, dead after 8.0s; 0 pings sent, 0 pongs and 1 pings received\n",
            "\n  round trip ",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    let shown = output(&["status", "--json", &server.admin]);
    assert_eq!((shown.status.code(), shown.stderr.len()), (Some(0), 0));
    let json: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(
        (&json["connections"]["open"], &json["messages"]["received"]),
        (&1.into(), &1.into())
    );
    // Fields that the table does not show are there too: it is the server's own JSON.
    assert!(
        json["turn"]["buckets"].is_array() && json["rate_limited"].is_number(),
        "{json}"
    );
}

#[test]
fn status_of_a_draining_server_exits_with_3() {
    let server = serve(&["--drain", "20s"]);
    let _peer = server.served();
    server.signal(Signal::TERM);
    let mut shown = output(&["status", &server.admin]);
    wait_until("it drains", || {
        shown = output(&["status", &server.admin]);
        shown.status.code() != Some(0)
    });
    assert_eq!(shown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\nDRAINING, up "));
    let help = output(&["status", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("\n  3  it is draining\n"));
}

#[test]
fn status_works_over_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let addr = format!("unix:{}", dir.path().join("admin").display());
    let server = Serve::start(&["--admin", &addr]);
    assert_eq!(server.admin, addr);
    let shown = output(&["status", &addr]);
    assert_eq!(
        shown.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    drop(server);
    refused(
        &mut heartline(&["status", &addr]),
        1,
        &["cannot connect to", &addr],
    );
}

#[test]
fn status_reads_the_token_from_a_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, token: &str| {
        let path = dir.path().join(name).display().to_string();
        std::fs::write(&path, token).expect("it is ours");
        path
    };
    let (right, wrong) = (
        file("right", "0123456789abcdef\n"),
        file("wrong", "0123456789abcdeg\n"),
    );
    let server = serve(&["--admin-token-file", &right]);
    refused(
        &mut heartline(&["status", &server.admin]),
        1,
        &["requires a token", "--token-file"],
    );
    refused(
        &mut heartline(&["status", &server.admin, "--token-file", &wrong]),
        1,
        &["rejected the token", "--token-file"],
    );
    refused(
        &mut heartline(&["status", &server.admin, "--token-file", "/nowhere"]),
        1,
        &["cannot read the token in /nowhere"],
    );
    assert_eq!(
        output(&["status", &server.admin, "--token-file", &right])
            .status
            .code(),
        Some(0)
    );
    let by_environment = heartline(&["status", &server.admin])
        .env("HEARTLINE_ADMIN_TOKEN_FILE", &right)
        .output()
        .expect("the binary starts");
    assert_eq!(by_environment.status.code(), Some(0));
}

#[test]
fn other_http_server_differs_from_an_unreachable_one() {
    refused(
        &mut heartline(&["status", "nowhere"]),
        2,
        &["ADDR", "HOST:PORT"],
    );
    let gone = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .to_string();
    refused(
        &mut heartline(&["status", &gone]),
        1,
        &["cannot connect to", &gone],
    );

    let server = serve(&[]);
    let lines = server.addr().to_string();
    refused(
        &mut heartline(&["status", &lines]),
        1,
        &[
            &lines,
            "is not an admin endpoint",
            "closes the connection without a response",
        ],
    );

    let answer = |answer: &'static str| {
        scripted_server(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        })
    };
    let other = answer("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope");
    refused(
        &mut heartline(&["status", &other]),
        1,
        &["is not an admin endpoint", "404"],
    );
    let other = answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    refused(
        &mut heartline(&["status", &other, "--json"]),
        1,
        &["is not an admin endpoint", "not valid"],
    );
    let short = answer("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}");
    refused(
        &mut heartline(&["status", &short]),
        1,
        &["the connection to", "failed"],
    );
}

#[test]
fn silent_or_endless_admin_server_times_out() {
    let silent = scripted_server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    // Each byte comes in time, but the response never ends.
    let endless = scripted_server(|mut stream| {
        while stream.write_all(b"H").is_ok() && stream.write_all(b"TTP/1.1 200 OK\r\nX: y").is_ok()
        {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let asked = [silent, endless].map(|addr| {
        thread::spawn(move || refused(&mut heartline(&["status", &addr]), 1, &[&addr]))
    });
    for asked in asked {
        asked.join().expect("it is given up");
    }
}
