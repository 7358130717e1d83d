//! Names proven by tokens: `heartline token`, `serve --tokens`, `connect --token-file`.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Peer, Serve, field, wait_until};
use rustix::process::Signal;

fn heartline(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let output = command.args(args).stdin(Stdio::null()).output();
    output.expect("the binary starts")
}

fn token(what: &[&str], file: &Path, args: &[&str]) -> Output {
    let file = file.to_str().expect("UTF-8");
    heartline(&[&["token"], what, &["--tokens", file], args].concat())
}

/// A new token for a name.
fn add(file: &Path, args: &[&str]) -> String {
    let output = token(&["add"], file, args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let token = text.strip_suffix('\n').expect("one line");
    assert_eq!(token.len(), 22, "128 bits in base64url");
    token.to_owned()
}

fn list(file: &Path) -> Vec<String> {
    let output = token(&["list"], file, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line[13..].to_owned()).collect()
}

fn serve(file: &Path, mode: &str) -> Serve {
    let file = file.to_str().expect("UTF-8");
    Serve::start(&["--login", mode, "--tokens", file])
}

fn hello(serve: &Serve, fields: &str) -> Peer {
    let mut peer = serve.connect();
    peer.send(format!("hello version=1 {fields}\n"));
    peer
}

#[test]
fn file_of_tokens_is_private_and_has_no_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    let first = add(&file, &["dev-17"]);
    let second = add(&file, &["dev-18", "--groups", "fleet,red"]);
    let again = add(&file, &["dev-17"]);
    assert!(first != second && first != again);
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("readable");
    assert!(!text.contains(&first) && !text.contains(&second));
    assert_eq!(list(&file), ["dev-17", "dev-18 fleet red", "dev-17"]);
    assert_eq!(
        token(&["remove"], &file, &["dev-17"]).status.code(),
        Some(0)
    );
    assert_eq!(list(&file), ["dev-18 fleet red"]);
    let missing = token(&["remove"], &file, &["dev-17"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("dev-17 has no token"));
    let others: Vec<_> = fs::read_dir(dir.path()).expect("readable").collect();
    assert_eq!(others.len(), 1, "nothing is left beside it");
}

#[test]
fn tokens_that_are_added_at_the_same_time_are_all_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let file = &file;
            scope.spawn(move || add(file, &[&format!("dev-{n}")]));
        }
    });
    assert_eq!(list(&file).len(), 8);
}

#[test]
fn token_proves_its_name_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    let token = add(&file, &["dev-17"]);
    let serve = serve(&file, "required");
    for (fields, answer) in [
        (format!("token={token}"), "welcome version=1 name=dev-17 "),
        (
            format!("name=dev-17 token={token}"),
            "welcome version=1 name=dev-17 ",
        ),
        (
            format!("name=dev-18 token={token}"),
            "denied reason=name-mismatch\n",
        ),
        (format!("token={token}x"), "denied reason=bad-token\n"),
        ("name=dev-17".into(), "denied reason=token-missing\n"),
    ] {
        hello(&serve, &fields).expect(answer);
    }
    // Not a byte of the token is in the log.
    assert!(!serve.log().contains(&token[..8]));
    let token_file = dir.path().join("token");
    fs::write(&token_file, format!("{token}\n")).expect("room");
    let addr = serve.addr().to_string();
    let token_file = token_file.to_str().expect("UTF-8");
    let welcome = heartline(&["connect", &addr, "--token-file", token_file]);
    assert_eq!(welcome.status.code(), Some(0), "{welcome:?}");
    assert!(String::from_utf8_lossy(&welcome.stderr).contains("welcome as dev-17"));
    let name = ["--name", "dev-18"];
    let denied = heartline(&[&["connect", &addr, "--token-file", token_file][..], &name].concat());
    assert_eq!(denied.status.code(), Some(3), "{denied:?}");
}

#[test]
fn reload_closes_connections_whose_token_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tokens");
    let (gone, stays) = (add(&file, &["gone"]), add(&file, &["stays"]));
    let serve = serve(&file, "optional");
    let mut unnamed = serve.connect();
    unnamed.send("hi\n");
    unnamed.expect("echo: hi\n");
    let mut peers = [
        hello(&serve, &format!("token={gone}")),
        hello(&serve, &format!("token={stays}")),
    ];
    let beat = "beat=5s retry=5s missed=3\n";
    peers[0].expect(format!("welcome version=1 name=gone {beat}"));
    peers[1].expect(format!("welcome version=1 name=stays {beat}"));
    // A file that is wrong changes nothing.
    let good = fs::read(&file).expect("readable");
    fs::write(&file, "nonsense\n").expect("room");
    serve.signal(Signal::HUP);
    wait_until("the reload fails", || {
        let problem = "tokens:1: a line begins with a SHA-256 of 64 hexadecimal digits";
        serve.log().contains("reload failed=") && serve.log().contains(problem)
    });
    fs::write(&file, good).expect("room");
    assert_eq!(token(&["remove"], &file, &["gone"]).status.code(), Some(0));
    serve.signal(Signal::HUP);
    peers[0].expect("bye reason=login-expired\n");
    peers[0].expect_end();
    let close = &serve.wait_for_closes(1)[0];
    assert_eq!(field(close, "reason"), "login-expired");
    assert_eq!(field(close, "name"), "gone");
    peers[1].send("still here\n");
    peers[1].expect("echo: still here\n");
    unnamed.send("me too\n");
    unnamed.expect("echo: me too\n");
    hello(&serve, &format!("token={gone}")).expect("denied reason=bad-token\n");
}

#[test]
fn wrong_token_settings_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let refused = |args: &[&str], culprit: &str| {
        let output = heartline(&[&["serve", "127.0.0.1:0"], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(culprit), "{args:?}: {stderr}");
        output.status.code()
    };
    let usage = Some(2);
    assert_eq!(refused(&["--login", "required"], "--tokens"), usage);
    let wrong = path("wrong");
    fs::write(&wrong, "# fine\n\nabc dev\n").expect("room");
    assert_eq!(refused(&["--tokens", &wrong], "--tokens"), usage);
    let required = ["--login", "required", "--tokens"];
    let with = |file: &str| {
        [&required[..], &[file]]
            .concat()
            .iter()
            .map(|arg| (*arg).to_owned())
            .collect::<Vec<_>>()
    };
    let wrong_args = with(&wrong);
    let args: Vec<&str> = wrong_args.iter().map(String::as_str).collect();
    assert_eq!(refused(&args, "wrong:3: a line begins with"), usage);
    for unreadable in [
        path("missing"),
        dir.path().to_str().expect("UTF-8").to_owned(),
    ] {
        let args = with(&unreadable);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(refused(&args, "cannot read the tokens in"), Some(1));
    }
    let file = path("tokens");
    let blank = heartline(&["token", "add", "--tokens", &file, "a b"]);
    assert_eq!(blank.status.code(), usage);
    let many = (0..65)
        .map(|n| format!("g{n}"))
        .collect::<Vec<_>>()
        .join(",");
    let many = heartline(&["token", "add", "--tokens", &file, "a", "--groups", &many]);
    assert_eq!(many.status.code(), usage);
    assert!(!Path::new(&file).exists(), "nothing was made");
}
