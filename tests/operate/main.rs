//! What operators do at a terminal: `heartline status` and `heartline top` against real servers,
//! and `heartline serve` in the foreground.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod foreground;
mod pty;
mod status;
mod top;

use std::process::{Command, Output, Stdio};

use common::serve_with_admin as serve;

/// `heartline` with these arguments, and without the token of the user who runs the tests.
fn heartline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command
        .args(args)
        .env_remove("HEARTLINE_ADMIN_TOKEN_FILE")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn output(args: &[&str]) -> Output {
    heartline(args).output().expect("the binary starts")
}

/// Runs it, and expects this exit code, nothing on stdout, and all of these words on stderr.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    for word in words {
        assert!(
            stderr.contains(word),
            "{command:?} should speak of {word:?}: {stderr}"
        );
    }
}
