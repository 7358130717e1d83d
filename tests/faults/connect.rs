//! `heartline connect` as a peer that can be frozen, killed, and put into a namespace.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{DEADLINE, wait_until};

/// Ended when the test ends.
pub struct Connect {
    child: Child,
    stdout: Receiver<(Instant, String)>,
    stderr: Receiver<(Instant, String)>,
}

impl Connect {
    /// Connects to `addr`, and is connected when this returns.
    pub fn start(addr: SocketAddr, args: &[&str]) -> Connect {
        Connect::spawn(
            Command::new(env!("CARGO_BIN_EXE_heartline")),
            &addr.to_string(),
            args,
        )
    }

    /// The same by way of `command`, which ends in the binary: another program may come before it.
    pub fn spawn(mut command: Command, addr: &str, args: &[&str]) -> Connect {
        command.args(["connect", addr]).args(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (stdout, stderr) = (
            lines(child.stdout.take().expect("piped")),
            lines(child.stderr.take().expect("piped")),
        );
        let connect = Connect {
            child,
            stdout,
            stderr,
        };
        connect.wait_for("connected to");
        connect
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("it reads its stdin");
    }

    /// Waits for the next message, which must be this one.
    pub fn expect(&self, message: &str) {
        assert_eq!(
            self.stdout.recv_timeout(DEADLINE).expect("a message").1,
            message
        );
    }

    /// Whether the line carries a message to an echo server and back.
    pub fn is_served(&mut self, message: &str) {
        self.say(message);
        self.expect(&format!("echo: {message}"));
    }

    /// Waits for this status, and returns when it came.
    pub fn wait_for(&self, what: &str) -> Instant {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let (at, status) = self
                .stderr
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|_| panic!("no status says {what:?}"));
            if status.contains(what) {
                return at;
            }
        }
        panic!("no status says {what:?}");
    }

    /// Every status that has come and has not been waited for.
    pub fn statuses(&self) -> Vec<String> {
        self.stderr.try_iter().map(|(_, status)| status).collect()
    }

    /// Ends its input, and waits for it to end.
    pub fn end_of_input(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().expect("the process is ours");
            status.is_some()
        });
        status.expect("waited for")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        // It may have ended already, which is no concern of a test that is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send((Instant::now(), line));
        }
    });
    receiver
}
