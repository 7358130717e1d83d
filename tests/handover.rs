//! A server is replaced by the next one without a failed dial.
#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::Serve;
use rustix::io::FdFlags;
use rustix::process::Signal;

/// Dials without a break from several threads, and sends one message on each connection.
struct Dialers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Dialers {
    fn start(addr: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..4).map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match dial(addr) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            })
        });
        Dialers {
            threads: threads.collect(),
            stop,
            answered,
        }
    }

    fn wait_for_answers(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        common::wait_until("dials are answered", || {
            self.answered.load(Ordering::Relaxed) >= goal
        });
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    }
}

fn dial(addr: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(addr).map_err(|error| format!("dial: {error}"))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(|error| error.to_string())?;
    stream
        .write_all(b"ping\n")
        .map_err(|error| format!("write: {error}"))?;
    let mut line = String::new();
    match BufReader::new(&stream).read_line(&mut line) {
        Ok(_) if line == "pong\n" => Ok(()),
        Ok(_) => Err(format!("answered {line:?}")),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Err("reset".into()),
        Err(error) => Err(format!("read: {error}")),
    }
}

/// A server on a socket that it was given as descriptor 3, as a service manager does
/// (sd_listen_fds(3)).
fn serve_on(listener: &TcpListener) -> Serve {
    let mut command = Command::new("bash");
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&{}",
        listener.as_raw_fd()
    );
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_heartline")]);
    // The socket replaces the address, which is not even resolved.
    Serve::spawn(command, &["name.invalid:1"], &["--drain", "300ms"])
}

#[test]
fn passed_socket_loses_no_dial_between_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    rustix::io::fcntl_setfd(&listener, FdFlags::empty()).expect("to be inherited");
    let addr = listener.local_addr().expect("bound");
    let mut old = serve_on(&listener);
    assert_eq!(old.addr(), addr);
    let dialers = Dialers::start(addr);
    for _ in 0..3 {
        dialers.wait_for_answers(200);
        old.signal(Signal::TERM);
        // No process accepts for a while; the kernel queues the dials.
        assert_eq!(old.wait().code(), Some(0));
        old = serve_on(&listener);
    }
    dialers.wait_for_answers(200);
    assert_eq!(dialers.finish(), [""; 0]);
}

const IN_NAMESPACE: &str = "HEARTLINE_IN_NAMESPACE";
const SET_UP: &str =
    "ip link set lo up && echo 1 > /proc/sys/net/ipv4/tcp_migrate_req && exec \"$@\"";

/// In a network namespace, because `tcp_migrate_req` is a setting of the namespace: with it the
/// kernel hands those whom the old server had not accepted at its very end to the new one. Without
/// it they would be reset, in the microseconds between the last accept and the close.
#[test]
#[ignore = "needs root, for a network namespace of its own"]
fn second_server_takes_over_the_port() {
    if std::env::var_os(IN_NAMESPACE).is_none() {
        let this = std::env::current_exe().expect("the test's own path");
        let mut command = Command::new("unshare");
        command
            .args(["--net", "bash", "-c", SET_UP, "bash"])
            .arg(this)
            .env(IN_NAMESPACE, "1");
        let status = command
            .args(["--ignored", "--exact", "second_server_takes_over_the_port"])
            .status();
        assert!(status.expect("unshare(1) starts").success());
        return;
    }
    let serve = |addr: &str| Serve::start_on(&[addr], &["--reuse-port", "--drain", "300ms"]);
    let mut old = serve("127.0.0.1:0");
    let addr = old.addr();
    let dialers = Dialers::start(addr);
    for _ in 0..10 {
        dialers.wait_for_answers(100);
        let new = serve(&addr.to_string());
        old.signal(Signal::TERM);
        assert_eq!(old.wait().code(), Some(0));
        old = new;
    }
    dialers.wait_for_answers(100);
    assert_eq!(dialers.finish(), [""; 0]);
}
