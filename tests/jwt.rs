//! Names proven by JSON Web Tokens: `serve --jwt-key`, `connect --jwt-file`.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Peer, Serve, wait_until};
use ring::hmac;
use rustix::process::Signal;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn jwt(header: &str, payload: &str) -> String {
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn token(name: &str, exp: u64, more: &str) -> String {
    let payload = format!(r#"{{"sub":"{name}","exp":{exp}{more}}}"#);
    jwt(r#"{"alg":"HS256"}"#, &payload)
}

fn secret_in(dir: &Path) -> PathBuf {
    let file = dir.join("secret");
    fs::write(&file, format!("{SECRET}\n")).expect("room");
    file
}

fn serve(key: &Path, more: &[&str]) -> Serve {
    let key = key.to_str().expect("UTF-8");
    Serve::start(&[&["--login", "required", "--jwt-key", key], more].concat())
}

fn hello(serve: &Serve, fields: &str) -> Peer {
    let mut peer = serve.connect();
    peer.send(format!("hello version=1 {fields}\n"));
    peer
}

#[test]
fn signed_token_proves_its_name_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let serve = serve(&secret_in(dir.path()), &[]);
    let later = unix_now() + 3600;
    let good = token("dev-17", later, "");
    let none = jwt(r#"{"alg":"none"}"#, r#"{"sub":"dev-17","exp":99999999999}"#);
    let unsigned = format!("{}.", good.rsplit_once('.').expect("parts").0);
    let early = token("dev-17", later, &format!(r#","nbf":{}"#, later - 60));
    for (fields, answer) in [
        (format!("token={good}"), "welcome version=1 name=dev-17 "),
        (
            format!("name=dev-17 token={good}"),
            "welcome version=1 name=dev-17 ",
        ),
        (
            format!("name=dev-18 token={good}"),
            "denied reason=name-mismatch\n",
        ),
        (format!("token={none}"), "denied reason=wrong-algorithm\n"),
        (format!("token={unsigned}"), "denied reason=bad-token\n"),
        (format!("token={good}x"), "denied reason=bad-token\n"),
        (
            "token=0123456789012345678901".into(),
            "denied reason=bad-token\n",
        ),
        (
            format!("token={}", token("dev-17", 5, "")),
            "denied reason=token-expired\n",
        ),
        (
            format!("token={early}"),
            "denied reason=token-not-yet-valid\n",
        ),
        (
            format!("token={}", token("dev-17", later, r#","aud":"others""#)),
            "denied reason=wrong-audience\n",
        ),
        (
            format!("token={}", token("dev%2017", later, "")),
            "welcome version=1 name=dev%252017 ",
        ),
        (
            format!("token={}", token("dev 17", later, "")),
            "denied reason=bad-name\n",
        ),
        ("name=dev-17".into(), "denied reason=token-missing\n"),
    ] {
        hello(&serve, &fields).expect(answer);
    }
    assert!(!serve.log().contains(&good[..20]), "no token is in the log");
}

#[test]
fn connection_ends_with_its_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = secret_in(dir.path());
    let serve = serve(&key, &["--jwt-leeway", "1s", "--jwt-audience", "hl"]);
    let now = unix_now();
    let aud = r#","aud":["hl","other"]"#;
    let mut staying = hello(&serve, &format!("token={}", token("b", now + 3600, aud)));
    staying.expect("welcome version=1 name=b ");
    staying.read_line();
    let mut ending = hello(&serve, &format!("token={}", token("a", now + 1, aud)));
    ending.expect("welcome version=1 name=a ");
    ending.read_line();
    // A reload does not close a connection whose name no file lists.
    serve.signal(Signal::HUP);
    wait_until("the reload is done", || {
        serve.log().contains("reload changed=none")
    });
    ending.expect("bye reason=login-expired\n");
    assert!(unix_now() > now + 1, "not before its end and the leeway");
    wait_until("the close is logged", || {
        serve.log().contains("reason=login-expired")
    });
    staying.send("hi\n");
    staying.expect("echo: hi\n");
}

#[test]
fn keys_and_flags_that_cannot_work_are_rejected() {
    let dir = tempfile::tempdir().expect("a directory");
    let short = dir.path().join("short");
    fs::write(&short, "short\n").expect("room");
    let pem = dir.path().join("pem");
    fs::write(
        &pem,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .expect("room");
    let missing = dir.path().join("missing");
    let good = secret_in(dir.path());
    let required: &[&str] = &["--login", "required"];
    for (key, flags, code, problem) in [
        (&short, required, 2, "at least 32 bytes"),
        (&pem, required, 2, "private key"),
        (&missing, required, 1, "read the key"),
        (&dir.path().to_path_buf(), required, 1, "read the key"),
        (&good, &[], 2, "has no effect with --login off"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartline"))
            .args(["serve", "127.0.0.1:0", "--check", "--jwt-key"])
            .arg(key)
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(
            error.contains(problem) && !error.contains(SECRET),
            "{error}"
        );
    }
}

#[test]
fn client_sends_the_token_of_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let serve = serve(&secret_in(dir.path()), &[]);
    let file = dir.path().join("jwt");
    let connect = |exp: u64| {
        // Longer than a token of `heartline token` may be.
        let groups: Vec<String> = (0..50).map(|n| format!(r#""group-{n:020}""#)).collect();
        let more = format!(r#","groups":[{}]"#, groups.join(","));
        fs::write(&file, token("dev-17", exp, &more) + "\n").expect("room");
        let output = Command::new(env!("CARGO_BIN_EXE_heartline"))
            .args(["connect", &serve.addr().to_string(), "--jwt-file"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), error)
    };
    let (code, error) = connect(unix_now() + 3600);
    assert!(error.contains("welcome as dev-17"), "{error}");
    assert_eq!(code, Some(0), "{error}");
    let (code, error) = connect(5);
    assert!(error.contains("token-expired"), "{error}");
    assert_eq!(code, Some(3), "{error}");
}
