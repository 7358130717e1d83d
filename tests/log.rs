//! A log whose reader stands still delays nothing.
#![cfg(feature = "cli")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use common::{DEADLINE, Peer, without_pings};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

/// More lines than a pipe and the server's own buffer hold: two for each connection.
const CONNECTIONS: usize = 1500;

/// A server whose log goes to a pipe, which is read only when the test does.
struct Unread {
    child: Child,
    addr: String,
    admin: String,
}

impl Unread {
    fn start(configure: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartline"));
        command.args(["serve", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--log-level", "debug", "--drain", "1s"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        configure(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = stdout.lines();
        let mut announced = |kind: &str| {
            let line = lines.next().expect("a line").expect("text");
            line.strip_prefix(kind).expect("it says where").to_owned()
        };
        let (addr, admin) = (announced("listening "), announced("admin http://"));
        Unread { child, addr, admin }
    }

    /// Opens and closes connections, each with lines in the log.
    fn make_log(&self) {
        for _ in 0..CONNECTIONS {
            let mut peer = self.connect();
            peer.send("x\n");
            peer.expect("echo: x\n");
        }
    }

    fn connect(&self) -> Peer {
        Peer::connect(self.addr.parse().expect("an address"))
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn dropped(&self) -> u64 {
        let metrics = self.ask("/metrics");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("heartline_log_lines_dropped_total "));
        line.expect("the metric").parse().expect("a number")
    }

    fn end(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the process is ours");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // A test that fails must not leave its server behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the line that says how many were dropped.
fn log_dropped(log: impl Read) -> u64 {
    let mut lines = BufReader::new(log).lines();
    loop {
        let line = lines.next().expect("it comes").expect("text");
        if let Some((_, number)) = line.split_once("] log-dropped n=") {
            return number.parse().expect("a number");
        }
    }
}

#[test]
fn connections_are_served_while_stderr_is_not_read() {
    let mut server = Unread::start(|command| command.stderr(Stdio::piped()));
    let stderr: ChildStderr = server.child.stderr.take().expect("piped");
    let mut witness = server.connect();
    server.make_log();
    witness.send("hello\n");
    witness.expect("echo: hello\n");
    assert!(server.ask("/healthz").ends_with("\r\n\r\nok\n"));
    let dropped = server.dropped();
    assert!(dropped > 0);
    let said = log_dropped(stderr);
    assert!(said >= dropped, "{said} were dropped, and {dropped} before");
    server.end();
}

#[test]
fn server_ends_while_its_log_is_not_read() {
    let mut server = Unread::start(|command| command.stderr(Stdio::piped()));
    let _stderr = server.child.stderr.take().expect("piped");
    server.make_log();
    server.end();
}

#[test]
fn connections_are_served_while_the_log_fifo_is_not_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fifo = dir.path().join("log");
    make_fifo(&fifo);
    // A reader has to be there when the server starts.
    let reader = File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("a FIFO");
    let server = Unread::start(|command| command.arg("--log-file").arg(&fifo));
    server.make_log();
    let dropped = server.dropped();
    assert!(dropped > 0);
    assert!(log_dropped(reader) >= dropped);
    server.end();
}

/// Its reader takes a close for the end of the log.
#[test]
fn log_fifo_is_not_closed_before_the_server_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fifo = dir.path().join("log");
    make_fifo(&fifo);
    let _reader = File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("a FIFO");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify(7)");
    inotify::add_watch(&watch, &fifo, inotify::WatchFlags::CLOSE_WRITE).expect("it is there");
    let is_closed = || rustix::io::read(&watch, &mut [0; 64]).is_ok();
    let server = Unread::start(|command| command.arg("--log-file").arg(&fifo));
    assert!(!is_closed(), "opened and closed at the start");
    server.end();
    assert!(is_closed());
}

#[test]
fn log_file_gets_every_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let server = Unread::start(|command| command.arg("--log-file").arg(&path));
    server.make_log();
    assert_eq!(server.dropped(), 0);
    server.end();
    let log = without_pings(std::fs::read(&path).expect("a file"));
    let log = String::from_utf8(log).expect("text");
    // Beyond a thousand in a second they are only counted.
    let closes = log.matches("] close ").count();
    assert!((1000..=CONNECTIONS).contains(&closes), "{closes}");
    assert!(log.ends_with('\n') && log.contains("] finished "));
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo(1) is there").success());
}
