//! A network that swallows packets: no FIN, no RST, nothing, ever. Three network namespaces in a row, server - router - client; the
//! router stops forwarding.
//!
//! It needs root and iproute2, so these tests run only with `cargo test --test blackhole -- --ignored`.
#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Serve, field};

/// The namespaces of one test, gone with it. The addresses are those that RFC 5737 reserves for examples.
struct Network {
    name: String,
}

const SERVER: &str = "192.0.2.1:7878";

impl Network {
    fn new() -> Network {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let network = Network { name: format!("heartline-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) };
        let [s, r, c] = ["s", "r", "c"].map(|host| network.host(host));
        for host in [&s, &r, &c] {
            run(&format!("ip netns add {host}"));
            run(&format!("ip -n {host} link set lo up"));
        }
        run(&format!("ip -n {s} link add eth0 type veth peer name eth0 netns {r}"));
        run(&format!("ip -n {c} link add eth0 type veth peer name eth1 netns {r}"));
        for (host, link, addr) in [
            (&s, "eth0", "192.0.2.1/24"),
            (&r, "eth0", "192.0.2.254/24"),
            (&r, "eth1", "198.51.100.254/24"),
            (&c, "eth0", "198.51.100.1/24"),
        ] {
            run(&format!("ip -n {host} addr add {addr} dev {link}"));
            run(&format!("ip -n {host} link set {link} up"));
        }
        run(&format!("ip -n {s} route add default via 192.0.2.254"));
        run(&format!("ip -n {c} route add default via 198.51.100.254"));
        network.forward(true);
        network
    }

    fn host(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Whether packets pass. A router that does not forward drops them without a word.
    fn forward(&self, on: bool) {
        run(&format!("ip netns exec {} sh -c 'echo {} > /proc/sys/net/ipv4/ip_forward'", self.host("r"), u8::from(on)));
    }

    fn command(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host), env!("CARGO_BIN_EXE_heartline")]);
        command
    }

    fn serve(&self, args: &[&str]) -> Serve {
        Serve::spawn(self.command("s"), &[SERVER], args)
    }

    fn connect(&self, host: &str, args: &[&str]) -> Connect {
        let mut child = self
            .command(host)
            .args(["connect", SERVER])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip starts the binary");
        let (stdout, stderr) = (lines(child.stdout.take().expect("piped")), lines(child.stderr.take().expect("piped")));
        Connect { child, stdout, stderr }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ["s", "r", "c"] {
            // One that was never made is not there to be deleted.
            let _ = Command::new("ip").args(["netns", "del", &self.host(host)]).stderr(Stdio::null()).status();
        }
    }
}

fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Connect {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Connect {
    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{line}").expect("it reads its stdin");
    }

    fn expect(&self, message: &str) {
        assert_eq!(self.stdout.recv_timeout(DEADLINE).expect("a message"), message);
    }

    /// Waits for a status that says this.
    fn wait_for(&self, what: &str) -> Instant {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if self.stderr.recv_timeout(DEADLINE).expect("a status").contains(what) {
                return Instant::now();
            }
        }
        panic!("no status says {what:?}");
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn both_ends_find_the_other_gone_and_meet_again() {
    let network = Network::new();
    let server = network.serve(&["--heartbeat", "500ms", "--missed", "2"]);
    let mut client = network
        .connect("c", &["--heartbeat", "500ms", "--missed", "2", "--tries", "forever", "--retry-delay", "300ms", "--dial-timeout", "1s"]);
    client.say("hello");
    client.expect("echo: hello");

    network.forward(false);
    let cut = Instant::now();
    let noticed = client.wait_for("lost the connection");
    let close = &server.wait_for_closes(1)[0];
    // The bound of either end is 1.5 s of silence, and the last byte came up to a heartbeat before the cut.
    assert!(noticed - cut > Duration::from_millis(900) && cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    assert_eq!(field(close, "reason"), "heartbeat-lost");
    let silence_ms: u64 = field(close, "silence_ms").parse().expect("a number");
    assert!((1501..3000).contains(&silence_ms), "{silence_ms}");

    // Said while the line is down, delivered when it is back.
    client.say("are you there?");
    network.forward(true);
    client.expect("echo: are you there?");
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn keepalive_alone_finds_a_host_that_vanished() {
    let network = Network::new();
    let args = ["--heartbeat", "off", "--keepalive-idle", "1s", "--keepalive-interval", "1s", "--keepalive-count", "2"];
    let server = network.serve(&args);
    let mut client = network.connect("c", &["--heartbeat", "off"]);
    client.say("hello");
    client.expect("echo: hello");
    network.forward(false);
    let cut = Instant::now();
    let close = &server.wait_for_closes(1)[0];
    assert_eq!(field(close, "reason"), "network-timeout");
    assert!(cut.elapsed() > Duration::from_millis(1500) && cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
}

#[test]
#[ignore = "makes network namespaces: needs root and iproute2"]
fn a_peer_that_vanishes_behind_a_full_queue_is_found_within_the_bound() {
    let network = Network::new();
    let server = network.serve(&["--app", "broadcast", "--heartbeat", "1s", "--missed", "2", "--max-outbox", "64MiB"]);
    let listener = network.connect("c", &["--heartbeat", "300ms"]);
    listener.wait_for("connected");
    // Beside the server, so that the cut does not concern it.
    let mut talker = network.connect("s", &["--heartbeat", "300ms"]);
    talker.say("before");
    listener.expect("before");
    network.forward(false);
    // More than the kernel takes for one connection, so the rest waits in the outbox and no ping could get past it.
    let message = "m".repeat(10_000);
    for _ in 0..1500 {
        talker.say(&message);
    }
    let closes = server.wait_for_closes(1);
    assert_eq!(field(&closes[0], "reason"), "heartbeat-lost");
    assert!(field(&closes[0], "addr").starts_with("198.51.100.1:"), "{closes:?}");
    assert!(field(&closes[0], "unsent").parse::<u64>().expect("a number") > 1_000_000, "{closes:?}");
    let silence_ms: u64 = field(&closes[0], "silence_ms").parse().expect("a number");
    assert!((3001..4500).contains(&silence_ms), "{silence_ms}");
    assert_eq!(server.closes().len(), 1, "the talker is none the worse");
}
