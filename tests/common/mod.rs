//! What the black-box tests share: the built binary as a process, and peers that never wait for
//! ever.
#![allow(dead_code, reason = "each test file uses its own part of this")]

mod pings;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

#[allow(unused_imports, reason = "not every suite has pings to leave out")]
pub use pings::without_pings;

/// Longer than anything here takes on the slowest machine; a wait that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A `heartline serve` of the test's own, ended when the test ends.
pub struct Serve {
    child: Child,
    pub addrs: Vec<SocketAddr>,
    /// The address of its admin endpoint, as printed: `http://ADDR` or `unix:PATH`; empty without
    /// one.
    pub admin: String,
    log: PathBuf,
    /// Where the log is, if it is nowhere else.
    dir: Option<tempfile::TempDir>,
}

impl Serve {
    /// Starts `heartline serve` on a free port of 127.0.0.1.
    pub fn start(args: &[&str]) -> Serve {
        Serve::start_on(&["127.0.0.1:0"], args)
    }

    pub fn start_on(addrs: &[&str], args: &[&str]) -> Serve {
        Serve::spawn(Command::new(env!("CARGO_BIN_EXE_heartline")), addrs, args)
    }

    /// Starts it by way of `command`, which ends in the binary: another program may come before it.
    pub fn spawn(command: Command, addrs: &[&str], args: &[&str]) -> Serve {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut serve = Serve::logging_to(dir.path().join("log"), command, addrs, args);
        serve.dir = Some(dir);
        serve
    }

    /// Like [`Serve::spawn`], with a given log target.
    pub fn logging_to(log: PathBuf, mut command: Command, addrs: &[&str], args: &[&str]) -> Serve {
        command
            .arg("serve")
            .args(addrs)
            .args(args)
            .arg("--log-file")
            .arg(&log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        // Ends it even if the test fails from here on.
        let mut serve = Serve {
            child,
            addrs: Vec::new(),
            admin: String::new(),
            log,
            dir: None,
        };
        let mut announced = |kind: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("stdout is text");
            line.trim_end()
                .strip_prefix(kind)
                .unwrap_or_else(|| panic!("{line:?}"))
                .to_owned()
        };
        for _ in addrs {
            serve
                .addrs
                .push(announced("listening ").parse().expect("an address"));
        }
        if args.contains(&"--admin") {
            serve.admin = announced("admin ");
        }
        serve
    }

    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is ours");
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.addr())
    }

    /// The log so far, if it goes to a file: another target might have no end. A thread of the
    /// server writes it, so it is read until it is stable.
    pub fn log(&self) -> String {
        if !fs::metadata(&self.log).is_ok_and(|log| log.is_file()) {
            return String::new();
        }
        let read = || fs::read_to_string(&self.log).unwrap_or_default();
        let mut log = read();
        loop {
            thread::sleep(Duration::from_millis(10));
            let later = read();
            if later.len() == log.len() {
                return later;
            }
            log = later;
        }
    }

    /// Lines of the log that report a close.
    pub fn closes(&self) -> Vec<String> {
        self.log()
            .lines()
            .filter_map(|line| {
                line.split_once("] close ")
                    .map(|(_, fields)| fields.to_owned())
            })
            .collect()
    }

    /// A peer that the server has admitted and answers.
    pub fn served(&self) -> Peer {
        let mut peer = self.connect();
        peer.send("ping\n");
        peer.expect("pong\n");
        peer
    }

    /// Lines of the log that report a refusal.
    pub fn refusals(&self) -> Vec<String> {
        self.log()
            .lines()
            .filter_map(|line| {
                line.split_once("] refuse ")
                    .map(|(_, fields)| fields.to_owned())
            })
            .collect()
    }

    /// Waits for this many logged closes and returns them.
    pub fn wait_for_closes(&self, count: usize) -> Vec<String> {
        wait_until("the closes are logged", || self.closes().len() >= count);
        self.closes()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().expect("the process is ours");
            status.is_some()
        });
        status.expect("waited for")
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the process is ours")
            .is_none()
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the process runs")
            .count()
    }

    /// Processor time that it has used, its own and the kernel's for it (proc_pid_stat(5)): Linux
    /// shows it in hundredths of a second.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the process runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let hundredths: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a figure"))
            .sum();
        Duration::from_millis(hundredths * 10)
    }

    /// A figure of `/proc/PID/status`, as `VmRSS` in kB.
    pub fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the process runs");
        let line = status
            .lines()
            .find(|line| line.split(':').next() == Some(field))
            .unwrap_or_else(|| panic!("no {field}"));
        line.split_whitespace()
            .nth(1)
            .and_then(|figure| figure.parse().ok())
            .expect("a figure")
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended already, which is no concern of a test that is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            eprintln!("--- log of the server, last lines ---");
            for line in log
                .lines()
                .rev()
                .take(30)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                eprintln!("{line}");
            }
        }
    }
}

/// A server with an admin endpoint on a free port of 127.0.0.1.
pub fn serve_with_admin(args: &[&str]) -> Serve {
    let mut all = vec!["--admin", "127.0.0.1:0"];
    all.extend(args);
    Serve::start(&all)
}

/// A plain TCP peer. Every read has a deadline.
pub struct Peer {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect_timeout(&addr, DEADLINE).expect("the server accepts"))
    }

    /// From an address of its own: each has its own ports, and all of 127.0.0.0/8 is local.
    pub fn connect_from(source: SocketAddr, addr: SocketAddr) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&source.into()).expect("a free port");
        socket
            .connect_timeout(&addr.into(), DEADLINE)
            .expect("the server accepts");
        Peer::over(socket.into())
    }

    fn over(stream: TcpStream) -> Peer {
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        stream.set_nodelay(true).expect("an option of TCP");
        Peer::from_stream(stream)
    }

    /// A peer on a connection that the test has made itself.
    pub fn from_stream(stream: TcpStream) -> Peer {
        Peer {
            stream,
            read: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the server reads");
    }

    pub fn finish(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }

    /// Reads exactly this. Pings may come between its lines, as the server sends them on a quiet
    /// connection and amid long replies; unless a ping is expected.
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let mut more = vec![0; expected.len() - got.len()];
            self.stream.read_exact(&mut more).unwrap_or_else(|error| {
                let expected = String::from_utf8_lossy(&expected[..expected.len().min(200)]);
                panic!("{error}, expecting {expected:?}")
            });
            got.extend(more);
            if !expected.starts_with(b"ping\n") {
                got = without_pings(got);
            }
        }
        let differs = got
            .iter()
            .zip(expected)
            .position(|(got, expected)| got != expected);
        if let Some(at) = differs {
            let around = |bytes: &[u8]| {
                let end = bytes.len().min(at + 60);
                String::from_utf8_lossy(&bytes[at.saturating_sub(60)..end]).into_owned()
            };
            panic!("got {:?}, expected {:?}", around(&got), around(expected));
        }
    }

    /// Reads to the end, which a reset is not.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).expect("an orderly end");
        all
    }

    pub fn expect_end(&mut self) {
        let rest = without_pings(self.read_to_end());
        assert!(
            rest.is_empty(),
            "{:?} before the end",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Waits for a reset, which throws nothing away that had arrived before it; returns that.
    pub fn expect_reset(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let error = self
            .stream
            .read_to_end(&mut all)
            .expect_err("a reset, not an orderly end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        all
    }

    /// Reads one line, without its LF; `None` at the end, orderly or by a reset.
    pub fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Some(String::from_utf8(line).expect("text"));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits for the connection to end, discarding what comes before, and returns the instant.
    pub fn time_of_end(&mut self) -> Instant {
        while self.read_line().is_some() {}
        Instant::now()
    }

    /// Whether the server has ended the connection by now. What it sent is discarded.
    pub fn has_ended(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("an option");
        let ended = loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).expect("an option");
        ended
    }
}

/// Polls until `done`, and fails after [`DEADLINE`].
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The value of `key=` in a line of the log.
pub fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let start = line
        .find(&format!("{key}="))
        .unwrap_or_else(|| panic!("no {key} in {line:?}"))
        + key.len()
        + 1;
    line[start..].split(' ').next().unwrap_or_default()
}
