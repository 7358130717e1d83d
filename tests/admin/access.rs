//! Who may use the endpoint.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::Client;
use crate::common::{Serve, wait_until};
use crate::{ids, serve};

const TOKEN: &str = "correct-horse-battery-staple";

struct TokenFile {
    dir: tempfile::TempDir,
}

impl TokenFile {
    fn new(text: &str) -> TokenFile {
        let file = TokenFile {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        fs::write(file.dir.path().join("token"), text).expect("written");
        file
    }

    fn path(&self) -> String {
        self.dir
            .path()
            .join("token")
            .to_str()
            .expect("text")
            .to_owned()
    }
}

fn refused(args: &[&str], culprit: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let output = command
        .args(["serve", "127.0.0.1:0"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(
        stderr.contains(culprit),
        "{args:?} should name {culprit}: {stderr}"
    );
    assert!(output.stdout.is_empty(), "{args:?}");
}

#[test]
fn unprotected_admin_address_is_rejected() {
    refused(&["--admin", "0.0.0.0:0"], "--admin:");
    refused(&["--admin", "[::]:0"], "--admin:");
    refused(&["--admin", "nowhere"], "--admin:");
    refused(&["--admin", "unix:"], "--admin:");
    let token = TokenFile::new("0123456789abcdef\n");
    refused(&["--admin-token-file", &token.path()], "--admin");
    for (text, problem) in [
        ("short\n", "16"),
        ("", "16"),
        ("two of sixteen characters\n", "ASCII"),
        ("0123456789abcdef\n0123456789abcdef\n", "ASCII"),
    ] {
        let file = TokenFile::new(text);
        refused(
            &["--admin", "127.0.0.1:0", "--admin-token-file", &file.path()],
            "--admin-token-file:",
        );
        refused(
            &["--admin", "127.0.0.1:0", "--admin-token-file", &file.path()],
            problem,
        );
    }
    refused(
        &["--admin", "127.0.0.1:0", "--admin-token-file", "/dev/zero"],
        "--admin-token-file:",
    );
}

#[test]
fn without_the_token_nothing_is_reachable() {
    let file = TokenFile::new(&format!("{TOKEN}\n"));
    let server = Serve::start(&["--admin", "0.0.0.0:0", "--admin-token-file", &file.path()]);
    let mut peer = server.served();
    let address = server.admin.replace("0.0.0.0", "127.0.0.1");
    let mut client = Client::to(&address);
    let wrong = [
        "X-Nothing: at all".to_owned(),
        "Authorization: Bearer correct-horse-battery-stapl".to_owned(),
        format!("Authorization: Bearer {TOKEN}x"),
        format!("Authorization: {TOKEN}"),
        // As a password it would be anybody:TOKEN, not TOKEN alone.
        "Authorization: Basic Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==".to_owned(),
    ];
    for authorization in &wrong {
        for request in [
            "GET /",
            "GET /healthz",
            "GET /metrics",
            "GET /status",
            "GET /connections",
            "GET /connections/0.1",
            "POST /connections/0.1/send",
            "POST /broadcast",
            "DELETE /connections/0.1?now=true",
            "GET /closed",
            "POST /drain?grace=0s",
            "GET /events",
            "GET /nowhere",
            "PUT /status",
            "HEAD /status",
        ] {
            client.ask(request, &[authorization]);
            if request.starts_with("HEAD") {
                assert_eq!(client.head().code, 401);
                continue;
            }
            let reply = client.reply();
            reply.expect(401);
            assert_eq!(
                reply.header("WWW-Authenticate"),
                Some("Basic realm=\"heartline\""),
                "a line of its own: {request}"
            );
        }
    }
    // The body of an unauthorized request is not waited for.
    client.ask("POST /broadcast", &["Content-Length: 5"]);
    client.reply().expect(401);

    let mut client = Client::to(&address);
    for right in [
        format!("Authorization: Bearer {TOKEN}"),
        "Authorization: Basic YW55Ym9keTpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl".to_owned(),
    ] {
        client.ask("GET /status", &[&right]);
        client.reply().expect(200);
        // With the token, any host name is accepted.
        client.send(format!(
            "GET /healthz HTTP/1.1\r\nHost: heartline.example\r\n{right}\r\n\r\n"
        ));
        assert_eq!(client.reply().code, 200);
        client.send(format!("GET /healthz HTTP/1.1\r\nHost: heartline.example\r\nOrigin: https://evil.example\r\n{right}\r\n\r\n"));
        client.reply().expect(403);
    }
    peer.send("ping\n");
    peer.expect("pong\n");
    assert!(!server.log().contains(TOKEN));
}

#[test]
fn pages_of_other_sites_and_names_that_may_be_rebound_are_refused() {
    let server = serve(&[]);
    let _peer = server.served();
    let id = &ids(&server)[0];
    let mut client = Client::connect(&server);
    let host = client.host().to_owned();
    let port = host.rsplit_once(':').expect("a port").1.to_owned();
    for (headers, expected) in [
        (format!("Host: {host}"), 202),
        (format!("Host: {host}\r\nOrigin: http://{host}"), 202),
        (
            format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}"),
            202,
        ),
        (
            format!("Host: {host}\r\nOrigin: http://localhost:{port}"),
            403,
        ),
        (format!("Host: {host}\r\nOrigin: http://evil.example"), 403),
        (format!("Host: {host}\r\nOrigin: null"), 403),
        (
            format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}"),
            403,
        ),
        (format!("Host: evil.example:{port}"), 403),
        ("X-No: host".to_owned(), 400),
    ] {
        client.send(format!(
            "POST /connections/{id}/send HTTP/1.1\r\n{headers}\r\n\r\n"
        ));
        client.reply().expect(expected);
        if expected == 400 {
            client.expect_end();
        }
    }
}

fn socket() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("admin.sock");
    let address = format!("unix:{}", path.display());
    (dir, path, address)
}

#[test]
fn unix_socket_is_private_and_removed_at_the_end() {
    let (_dir, path, address) = socket();
    let mut server = Serve::start(&["--admin", &address]);
    assert_eq!(server.admin, address);
    assert_eq!(
        fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/healthz").body, "ok\n");
    // curl sends the host of the address, which may be anything here.
    client.send("POST /broadcast HTTP/1.1\r\nHost: heartline\r\nContent-Length: 2\r\n\r\nhi");
    client.reply().expect(200);
    wait_until("it is logged", || {
        server
            .log()
            .contains("admin method=POST path=/broadcast status=200 peer=unix")
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    let (_dir, path, address) = socket();
    let mut killed = Serve::start(&["--admin", &address]);
    let mut second = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let output = second
        .args(["serve", "127.0.0.1:0", "--admin", &address])
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("cannot listen on {address}")),
        "{stderr}"
    );
    assert_eq!(
        Client::connect(&killed).get("/healthz").code,
        200,
        "the first goes on"
    );

    killed.signal(Signal::KILL);
    killed.wait();
    assert!(path.exists());
    let server = Serve::start(&["--admin", &address]);
    assert_eq!(Client::connect(&server).get("/healthz").code, 200);
}
