//! Notifications to a service manager, which is a socket of the test.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{DEADLINE, Serve, field, wait_until};
use rustix::process::Signal;

/// Half of it is the interval that the server has to keep.
const WATCHDOG: Duration = Duration::from_millis(400);

struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        Manager { socket, dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        command
    }

    fn watching_command(&self) -> Command {
        let mut command = self.command();
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command
    }

    /// The next notification.
    fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("the server speaks");
        String::from_utf8(message[..length].to_vec()).expect("text")
    }

    /// Notifications that were not read yet.
    fn pending(&self) -> Vec<String> {
        let mut messages = Vec::new();
        self.socket.set_nonblocking(true).expect("an option");
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            messages.push(String::from_utf8(message[..length].to_vec()).expect("text"));
        }
        self.socket.set_nonblocking(false).expect("an option");
        messages
    }
}

fn is(message: &str, assignment: &str) -> bool {
    message.lines().next() == Some(assignment)
}

/// Whether it is stopped, by proc_pid_stat(5): a signal takes effect asynchronously.
fn is_stopped(server: &Serve) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid().as_raw_nonzero()))
        .expect("the process runs");
    stat.rsplit_once(") ")
        .expect("a name in parentheses")
        .1
        .starts_with('T')
}

#[test]
fn systemd_gets_ready_and_stopping() {
    let manager = Manager::start();
    let mut server = Serve::spawn(manager.command(), &["127.0.0.1:0"], &["--drain", "25s"]);
    let ready = manager.next();
    assert_eq!(ready, "READY=1\nSTATUS=serving, 0 open, 0 since start\n");
    TcpStream::connect(server.addr()).expect("who is ready listens");
    let peer = server.served();
    server.signal(Signal::TERM);
    assert!(
        manager.next().starts_with("STOPPING=1\nSTATUS=draining, "),
        "and nothing before it: nobody asked for a watchdog"
    );
    assert!(server.is_running(), "the drain has only begun");
    drop(peer);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(manager.pending(), [""; 0]);
}

/// The clock of sd_notify(3): microseconds of `CLOCK_MONOTONIC`.
fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

#[test]
fn systemd_gets_reloading_and_ready_around_a_reload() {
    let manager = Manager::start();
    let config = manager.dir.path().join("heartline.toml");
    fs::write(&config, "missed = 3").expect("room on the disk");
    let server = Serve::spawn(
        manager.command(),
        &["127.0.0.1:0"],
        &["--config", config.to_str().expect("text"), "--drain", "25s"],
    );
    assert!(is(&manager.next(), "READY=1"));
    let _peer = server.served();
    for (text, outcome) in [
        ("missed = 4", "] reload changed=missed kept=none"),
        ("missed = 'many'", "] reload failed="),
    ] {
        fs::write(&config, text).expect("room on the disk");
        let before = monotonic_usec();
        server.signal(Signal::HUP);
        let reloading = manager.next();
        let began = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.trim_end().parse().ok());
        // A service manager takes an instant before its own signal for that of an older reload.
        assert!(
            began.is_some_and(|began: u64| (before..=monotonic_usec()).contains(&began)),
            "{reloading:?}"
        );
        assert_eq!(
            manager.next(),
            "READY=1\nSTATUS=serving, 1 open, 1 since start\n"
        );
        wait_until("what came of it is logged", || {
            server.log().contains(outcome)
        });
    }
    server.signal(Signal::TERM);
    assert!(is(&manager.next(), "STOPPING=1"));
    server.signal(Signal::HUP);
    wait_until("it has reloaded", || {
        server.log().matches("] reload failed=").count() == 2
    });
    assert_eq!(
        manager.pending(),
        [""; 0],
        "who stops is not ready any more"
    );
}

#[test]
fn stopping_is_notified_without_a_drain() {
    let manager = Manager::start();
    let mut server = Serve::spawn(manager.command(), &["127.0.0.1:0"], &[]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let messages = manager.pending();
    assert!(
        messages.len() == 2 && is(&messages[0], "READY=1") && is(&messages[1], "STOPPING=1"),
        "{messages:?}"
    );
}

#[test]
fn watchdog_is_fed_only_while_the_loop_turns() {
    let manager = Manager::start();
    let server = Serve::spawn(manager.watching_command(), &["127.0.0.1:0"], &[]);
    assert!(is(&manager.next(), "READY=1"));
    let start = Instant::now();
    for _ in 0..5 {
        assert!(is(&manager.next(), "WATCHDOG=1"));
    }
    // Not much sooner than promised either; how much later is this machine's affair.
    assert!(start.elapsed() >= WATCHDOG / 2 * 4, "{:?}", start.elapsed());

    server.signal(Signal::STOP);
    wait_until("it has stopped", || is_stopped(&server));
    manager.pending();
    manager
        .socket
        .set_read_timeout(Some(WATCHDOG * 3))
        .expect("a timeout above zero");
    assert!(
        manager.socket.recv(&mut [0; 4096]).is_err(),
        "a process that stands feeds no watchdog"
    );
    manager
        .socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a timeout above zero");
    server.signal(Signal::CONT);
    assert!(is(&manager.next(), "WATCHDOG=1"));
}

#[test]
fn watchdog_is_fed_until_the_drain_ends() {
    let manager = Manager::start();
    let server = Serve::spawn(
        manager.watching_command(),
        &["127.0.0.1:0"],
        &["--drain", "25s", "--heartbeat", "off"],
    );
    // One of many leaves late.
    let peers: Vec<_> = (0..20).map(|_| server.served()).collect();
    server.signal(Signal::TERM);
    wait_until("the drain has begun", || {
        manager
            .pending()
            .iter()
            .any(|message| is(message, "STOPPING=1"))
    });
    for _ in 0..3 {
        let message = manager.next();
        assert!(
            message.starts_with("WATCHDOG=1\nSTATUS=draining, "),
            "{message:?}"
        );
    }
    drop(peers);
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let manager = Manager::start();
    let mut command = manager.watching_command();
    command.env("WATCHDOG_PID", "1");
    let server = Serve::spawn(command, &["127.0.0.1:0"], &[]);
    assert!(is(&manager.next(), "READY=1"));
    manager
        .socket
        .set_read_timeout(Some(WATCHDOG * 2))
        .expect("a timeout above zero");
    assert!(manager.socket.recv(&mut [0; 4096]).is_err());
    drop(server);
}

#[test]
fn abstract_notify_socket_works() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("heartline-notify-{}", std::process::id());
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&addr).expect("a socket");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("a timeout above zero");
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _server = Serve::spawn(command, &["127.0.0.1:0"], &[]);
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("the server speaks");
    assert!(message[..length].starts_with(b"READY=1\n"));
}

#[test]
fn missing_or_blocked_service_manager_does_not_stop_the_server() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
    command
        .env("NOTIFY_SOCKET", "/nowhere/notify")
        .env("WATCHDOG_USEC", "20000");
    let server = Serve::spawn(command, &["127.0.0.1:0"], &[]);
    server.served();
    let warning = server
        .log()
        .lines()
        .find(|line| line.contains("] notify "))
        .expect("it is logged")
        .to_owned();
    assert_eq!(field(&warning, "socket"), "\"/nowhere/notify\"");

    // The manager does not read: the socket's queue fills, and connections are served nevertheless.
    let manager = Manager::start();
    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "2000");
    let server = Serve::spawn(command, &["127.0.0.1:0"], &[]);
    wait_until("a message is not taken", || {
        server.log().contains("] notify error=")
    });
    let start = Instant::now();
    server.served();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        server.log().matches("] notify error=").count(),
        1,
        "once is enough"
    );
}
