//! Settings from flags, environment and file; `--check`; SIGHUP; completions and manual pages.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Serve, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

fn heartline(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command
        .args(args)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("heartline.toml");
    fs::write(&path, text).expect("room on the disk");
    path.to_str().expect("text").to_owned()
}

/// Sends SIGHUP and returns the line that the log then has of it.
fn reload(serve: &Serve) -> String {
    let reloads = || {
        serve
            .log()
            .lines()
            .filter(|line| line.contains("] reload changed=") || line.contains("] reload failed="))
            .count()
    };
    let before = reloads();
    serve.signal(Signal::HUP);
    wait_until("it has reloaded", || reloads() > before);
    serve
        .log()
        .lines()
        .rfind(|line| line.contains("] reload changed=") || line.contains("] reload failed="))
        .expect("counted")
        .to_owned()
}

#[test]
fn check_prints_a_valid_configuration_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = file(
        dir.path(),
        "heartbeat = '2s'\nmissed = 2\nallow = ['127.0.0.0/8', '::1']\nno-ping = true",
    );
    let args = [
        "serve",
        "--check",
        "127.0.0.1:0",
        "--tick",
        "50ms",
        "--goodbye",
        "so \"long\"",
        "--log-file",
        "007",
        "--config",
        &first,
    ];
    let checked = heartline(&args, &[("HEARTLINE_MISSED", "4")]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    for line in [
        "addr = [\"127.0.0.1:0\"]  # flag",
        "heartbeat = \"2s\"  # file",
        "missed = 4  # environment",
        "no-ping = true  # file",
        "tick = \"50ms\"  # flag",
        "allow = [\"127.0.0.0/8\", \"::1\"]  # file",
        "max-outbox = \"1MiB\"  # default",
        "# max-connections is not set",
        "goodbye = \"so \\\"long\\\"\"  # flag",
        "log-file = \"007\"  # flag",
    ] {
        assert!(
            text(&checked.stdout).lines().any(|printed| printed == line),
            "{line:?} is not in\n{}",
            text(&checked.stdout)
        );
    }
    let again = heartline(
        &[
            "serve",
            "--check",
            "--config",
            &file(dir.path(), text(&checked.stdout)),
        ],
        &[],
    );
    let values = |output: &Output| -> Vec<String> {
        text(&output.stdout)
            .lines()
            .map(|line| line.split("  # ").next().unwrap_or_default().to_owned())
            .collect()
    };
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(values(&again), values(&checked));
}

#[test]
fn check_reports_the_errors_of_a_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let refused = |args: &[&str], said: &str| {
        let output = heartline(&[&["serve", "--check"], args].concat(), &[]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(2), ""),
            "{args:?}"
        );
        assert!(
            text(&output.stderr).contains(said),
            "{args:?}: {}",
            text(&output.stderr)
        );
    };
    refused(&["--tick", "4s"], "--tick");
    refused(&["nowhere"], "ADDR");
    refused(&["--admin", "0.0.0.0:0"], "--admin");
    refused(&["--config", "/dev/zero"], "not a regular file");
    refused(
        &["--config", &file(dir.path(), "\nmised = 3")],
        "heartline.toml:2: mised: no such key; did you mean missed?",
    );
    refused(
        &["--config", &file(dir.path(), "max-message = 'lots'")],
        "heartline.toml:1: max-message: invalid value 'lots'",
    );
    refused(
        &[
            "--config",
            &file(dir.path(), "\naddr = ['127.0.0.1:0', 'nowhere']"),
        ],
        "heartline.toml:2: addr: \"nowhere\" has no port",
    );
    refused(
        &["--config", &file(dir.path(), "admin = '0.0.0.0:0'")],
        "heartline.toml:1: admin: 0.0.0.0 is not a loopback address",
    );
    refused(
        &["--config", &file(dir.path(), "admin-token-file = '/x'")],
        "heartline.toml:1: admin-token-file: has no effect without an admin endpoint",
    );
    let many: Vec<String> = (1..=71).map(|n| format!("127.0.1.{n}:7878")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(&many, "ADDR: must be 1 to 64 addresses, not 71");
    let twice = ["127.0.0.1:7878", "127.0.0.1:7878"];
    refused(&twice, "127.0.0.1:7878 is given twice");
    let admin = ["0.0.0.0:7878", "--admin", "127.0.0.1:7878"];
    refused(&admin, "is already an address for connections");
    refused(&["--goodbye", "ping"], "--goodbye: is a heartbeat word");
    let wrong = heartline(&["serve"], &[("HEARTLINE_HEARTBEAT", "soon")]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong.stderr).contains("HEARTLINE_HEARTBEAT: invalid value 'soon'"),
        "{}",
        text(&wrong.stderr)
    );
}

#[test]
fn start_reports_the_errors_of_a_check() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("it can be made");
    for (config, code, said) in [
        (
            "heartbeat = '100ms'",
            2,
            "heartline: --tick (default): 100ms is too coarse",
        ),
        ("tick = '4s'", 2, "heartline.toml:1: tick: 4s is too coarse"),
        (
            "addr = ['nowhere']",
            2,
            "heartline.toml:1: addr: \"nowhere\" has no port",
        ),
        (
            "log-file = '/no/such/directory/log'",
            1,
            "cannot open the log file /no/such/directory/log (",
        ),
        ("log-file = '/'", 1, "heartline.toml:1: log-file): "),
        // What may be right at the next start is no fault of the settings:
        // RestartPreventExitStatus=2.
        (
            "addr = 'name.invalid:7878'",
            1,
            "heartline: cannot look up name.invalid:7878: ",
        ),
        (
            "admin = 'name.invalid:7879'",
            1,
            "heartline: cannot look up name.invalid:7879 for --admin: ",
        ),
        (
            "admin = '127.0.0.1:0'\nadmin-token-file = '/no/such/token'",
            1,
            "heartline: cannot read the token in /no/such/token: ",
        ),
        (
            "admin = 'unix:/no/such/directory/admin.sock'",
            1,
            "heartline: cannot listen on unix:/no/such/directory/admin.sock for --admin: ",
        ),
        (
            "admin = 'unix:/etc/passwd'",
            1,
            "heartline: cannot listen on unix:/etc/passwd for --admin: ",
        ),
        (
            &format!("log-file = '{}'", fifo.display()),
            1,
            "heartline.toml:1: log-file): this FIFO has no reader",
        ),
    ] {
        for args in [&["serve"][..], &["serve", "--check"]] {
            let output = heartline(
                &[args, &["--config", &file(dir.path(), config)]].concat(),
                &[],
            );
            assert_eq!(
                (output.status.code(), text(&output.stdout)),
                (Some(code), ""),
                "{args:?} {config}"
            );
            assert!(
                text(&output.stderr).contains(said),
                "{args:?} {config}: {}",
                text(&output.stderr)
            );
        }
    }
    let flag = heartline(&["serve", "--log-file", "/no/such/directory/log"], &[]);
    assert!(
        text(&flag.stderr).contains("(--log-file): "),
        "{}",
        text(&flag.stderr)
    );
    let variable = heartline(
        &["serve", "127.0.0.1:0"],
        &[("HEARTLINE_LOG_FILE", "/no/such/directory/log")],
    );
    assert!(
        text(&variable.stderr).contains("(HEARTLINE_LOG_FILE): "),
        "{}",
        text(&variable.stderr)
    );
}

#[test]
fn missing_config_file_exits_with_1() {
    for args in [&["serve"][..], &["serve", "--check"]] {
        let args = [args, &["--config", "/nowhere/at/all"]].concat();
        let output = heartline(&args, &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("cannot read /nowhere/at/all: "), "{said}");
    }
}

#[test]
fn all_config_errors_are_reported_in_file_order() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let said = |config: &str| {
        let config = file(dir.path(), config);
        let output = heartline(&["serve", "--check", "--config", &config], &[]);
        assert_eq!(output.status.code(), Some(2));
        let stderr = text(&output.stderr).to_owned();
        let place = |line: &str| {
            let (_, place) = line.split_once("heartline.toml:").expect("a place");
            let mut parts = place.split(": ");
            let place = (parts.next(), parts.next());
            (
                place.0.expect("a line").to_owned(),
                place.1.expect("a key").to_owned(),
            )
        };
        stderr.lines().map(place).collect::<Vec<_>>()
    };
    let owned = |places: &[(&str, &str)]| -> Vec<(String, String)> {
        let places = places.iter();
        places
            .map(|(line, key)| ((*line).to_owned(), (*key).to_owned()))
            .collect()
    };
    assert_eq!(
        said("missed = 'many'\nhartbeat = '5s'\ntick = 5.5\n\naddr = []"),
        owned(&[
            ("1", "missed"),
            ("2", "hartbeat"),
            ("3", "tick"),
            ("5", "addr")
        ])
    );
    assert_eq!(
        said("addr = ['nowhere', 'neither']\ntick = '4s'\nmax-outbox = 1\ngoodbye = 'pong'"),
        owned(&[
            ("1", "addr"),
            ("1", "addr"),
            ("2", "tick"),
            ("3", "max-outbox"),
            ("4", "goodbye"),
        ])
    );
}

#[test]
fn token_from_the_environment_without_endpoint_is_a_warning() {
    let shared = [("HEARTLINE_ADMIN_TOKEN_FILE", "/no/such/token")];
    let checked = heartline(&["serve", "--check"], &shared);
    assert!(checked.status.success());
    let said = text(&checked.stderr);
    assert!(
        said.contains("no effect without an admin endpoint"),
        "{said}"
    );
}

#[test]
fn kubernetes_service_variables_cause_no_warnings() {
    let links = [
        ("HEARTLINE_SERVICE_HOST", "10.96.0.12"),
        ("HEARTLINE_SERVICE_PORT", "7878"),
        ("HEARTLINE_PORT", "tcp://10.96.0.12:7878"),
        ("HEARTLINE_PORT_7878_TCP", "tcp://10.96.0.12:7878"),
        ("HEARTLINE_PORT_7878_TCP_PROTO", "tcp"),
        ("HEARTLINE_PORT_7878_TCP_PORT", "7878"),
        ("HEARTLINE_PORT_7878_TCP_ADDR", "10.96.0.12"),
    ];
    let checked = heartline(&["serve", "--check"], &links);
    assert!(checked.status.success());
    assert_eq!(text(&checked.stderr), "");
}

#[test]
fn full_stdout_is_an_error_and_closed_stdout_is_not() {
    let printed = |stdout: Stdio, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
        command.args(args).stdin(Stdio::null()).stdout(stdout);
        command.output().expect("the binary starts")
    };
    for args in [
        &["serve", "--check"][..],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["serve", "--help"],
        &["--version"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full");
        let output = printed(full.expect("it is there").into(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains("cannot write"), "{args:?}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = printed(writer.into(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn check_does_not_touch_the_log_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let check = || {
        heartline(
            &[
                "serve",
                "--check",
                "--log-file",
                log.to_str().expect("text"),
            ],
            &[],
        )
        .status
        .code()
    };
    assert_eq!(check(), Some(0), "it could be made");
    assert!(!log.exists());
    fs::write(&log, "old\n").expect("room on the disk");
    assert_eq!(check(), Some(0));
    assert_eq!(fs::read_to_string(&log).expect("it is there"), "old\n");
}

#[test]
fn failed_reload_names_the_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&["--config", &file(dir.path(), "missed = 3")]);
    file(dir.path(), "\nheartbeat = '100ms'");
    assert!(reload(&serve).contains("heartline.toml:2"));
    // Valid by itself, and invalid for a server that keeps its tick.
    file(dir.path(), "heartbeat = '100ms'\ntick = '10ms'");
    let failed = reload(&serve);
    assert!(
        failed.contains("tick: 100ms is too coarse")
            && failed.contains("settings that need a restart are unchanged"),
        "{failed}"
    );
    assert!(!failed.contains("heartline.toml"), "{failed}");
}

#[test]
fn example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/heartline.toml");
    let checked = heartline(&["serve", "--check", "--config", example], &[]);
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{}",
        text(&checked.stderr)
    );
    assert!(text(&checked.stdout).contains("deny = [\"10.66.0.0/16\"]  # file"));
}

#[test]
fn reload_applies_to_open_connections() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = file(dir.path(), "heartbeat = '10m'\nframing = 'lines'");
    let serve = Serve::start(&["--config", &path, "--log-level", "info"]);
    let mut here = serve.served();
    file(
        dir.path(),
        "heartbeat = '200ms'\nmissed = 1\ntick = '50ms'\nframing = 'length'\nmax-connections = 1",
    );
    let said = reload(&serve);
    assert!(
        said.contains("changed=heartbeat,missed,max-connections kept=framing,tick"),
        "{said}"
    );
    // The new heartbeat holds for the line that was open before, and so does the old framing.
    here.expect("ping\n");
    here.send("pong\nhello\n");
    loop {
        match here.read_line().as_deref() {
            Some("ping") => here.send("pong\n"),
            line => break assert_eq!(line, Some("echo: hello")),
        }
    }
    assert_eq!(
        serve.connect().read_line(),
        None,
        "one is as many as there may be now"
    );

    file(
        dir.path(),
        "heartbeat = '10m'\nframing = 'length'\ndeny = ['127.0.0.1']",
    );
    let said = reload(&serve);
    assert!(
        said.contains("deny") && said.contains("kept=framing"),
        "what waits for a restart is named each time: {said}"
    );
    file(
        dir.path(),
        "heartbeat = '10m'\nframing = 'lines'\ndeny = ['127.0.0.1']",
    );
    assert!(
        reload(&serve).contains("changed=none kept=none"),
        "what was never in force has not changed"
    );
    assert_eq!(serve.connect().read_line(), None);
    wait_until("the refusal is logged", || {
        serve
            .refusals()
            .iter()
            .any(|refusal| refusal.contains("reason=denied"))
    });
    here.send("still here\n");
    while here.read_line().expect("it may stay") != "echo: still here" {}
}

#[test]
fn reload_of_an_invalid_file_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = file(dir.path(), "max-connections-per-ip = 1");
    let serve = Serve::start(&["--config", &path]);
    let mut here = serve.served();
    for broken in ["", "\nheartbeet = 1", "\nmissed = 0"] {
        let per_ip = if broken.is_empty() { "" } else { "2" };
        file(
            dir.path(),
            &format!("max-connections-per-ip = {per_ip}{broken}"),
        );
        let said = reload(&serve);
        assert!(said.contains("[ERROR] reload failed="), "{said}");
        assert_eq!(serve.connect().read_line(), None, "the old bound holds");
    }
    here.send("hello\n");
    here.expect("echo: hello\n");
}

#[test]
fn reload_reopens_the_log_at_the_new_level() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = file(dir.path(), "log-level = 'warn'");
    let log = dir.path().join("log");
    let command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let serve = Serve::logging_to(log.clone(), command, &["127.0.0.1:0"], &["--config", &path]);
    let mut peer = serve.served();
    peer.finish();
    peer.expect_end();
    fs::rename(&log, dir.path().join("log.1")).expect("it can be renamed");
    file(dir.path(), "log-level = 'info'");
    serve.signal(Signal::HUP);
    wait_until("there is a new log", || {
        serve.log().contains("] reload changed=log-level kept=none")
    });
    serve.served().finish();
    wait_until("closes are logged now", || serve.closes().len() == 1);
    let old = fs::read_to_string(dir.path().join("log.1")).expect("it is there");
    assert!(
        !old.contains("] close ") && !old.contains("] reload "),
        "{old}"
    );
}

#[test]
fn reload_with_an_unwritable_log_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = file(dir.path(), "max-connections-per-ip = 2");
    let (logs, moved) = (dir.path().join("logs"), dir.path().join("moved"));
    fs::create_dir(&logs).expect("room on the disk");
    let command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let serve = Serve::logging_to(
        logs.join("log"),
        command,
        &["127.0.0.1:0"],
        &["--config", &path],
    );
    let _here = serve.served();
    fs::rename(&logs, &moved).expect("it can be renamed");
    file(dir.path(), "max-connections-per-ip = 1");
    serve.signal(Signal::HUP);
    let log = || fs::read_to_string(moved.join("log")).expect("it is there");
    wait_until("it is said in the log that there is", || {
        log().contains("[ERROR] reload failed=") && log().contains("cannot open the log file")
    });
    // The old limit is in force: a second connection is admitted.
    serve.served();
}

#[test]
fn measured_servers_ignore_the_environment() {
    let args = [
        "bench",
        "hold",
        "--connections",
        "5",
        "--for",
        "10ms",
        "--ramp",
        "max",
    ];
    let output = heartline(
        &args,
        &[
            ("HEARTLINE_MAX_CONNECTIONS", "1"),
            ("HEARTLINE_HEARTBEAT", "nonsense"),
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        !text(&output.stdout).contains("lost"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn completions_and_manual_pages_cover_all_visible_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = heartline(&["completions", shell], &[]);
        assert!(
            output.status.success() && text(&output.stdout).contains("max-connections-per-ip"),
            "{shell}"
        );
        // A hidden subcommand of `bench`. `--workers` is a flag of the others.
        let mut words = text(&output.stdout).split(|c: char| !c.is_ascii_alphanumeric());
        assert!(!words.any(|word| word == "worker"), "{shell}");
        assert!(
            text(&output.stdout).contains("no-ping") && !text(&output.stdout).contains("true"),
            "no value is offered: {shell}"
        );
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(
        heartline(&["man", dir.path().to_str().expect("text")], &[])
            .status
            .success()
    );
    let mut pages: Vec<String> = fs::read_dir(dir.path())
        .expect("it is there")
        .map(|page| {
            page.expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    pages.sort_unstable();
    for page in [
        "heartline.1",
        "heartline-serve.1",
        "heartline-connect.1",
        "heartline-bench-hold.1",
    ] {
        assert!(
            pages.iter().any(|name| name == page),
            "{page} is not among {pages:?}"
        );
    }
    assert!(
        !pages
            .iter()
            .any(|name| name.contains("worker") || name.contains("bench-server")),
        "{pages:?}"
    );
    let serve = fs::read_to_string(dir.path().join("heartline-serve.1")).expect("text");
    assert!(serve.contains(".TH") && serve.contains("HEARTLINE_MAX_CONNECTIONS"));
    assert_eq!(
        heartline(&["man"], &[]).stdout,
        fs::read(dir.path().join("heartline.1")).expect("it is there")
    );
}

#[test]
fn sigusr1_reopens_the_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    let command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    let serve = Serve::logging_to(log.clone(), command, &["127.0.0.1:0"], &[]);
    let old = dir.path().join("log.1");
    fs::rename(&log, &old).expect("as who rotates logs does it");
    serve.signal(Signal::USR1);
    wait_until("there is a new log", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("log reopened"))
    });
    let mut peer = serve.served();
    peer.send("ping\n");
    peer.expect("pong\n");
    let old = fs::read_to_string(&old).expect("it is there");
    assert!(
        old.contains("listening") && !old.contains("reopened"),
        "{old}"
    );
}
