//! Three network namespaces in a row, server - router - client, whose router can drop packets.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::Serve;
use crate::connect::Connect;

/// The namespaces of one test, removed with it. The addresses are those that RFC 5737 reserves for
/// examples.
pub struct Network {
    name: String,
}

/// Where the packets get lost, as the links on which the router sends them.
pub const TO_SERVER: &[&str] = &["eth0"];
pub const TO_CLIENT: &[&str] = &["eth1"];
pub const BOTH_WAYS: &[&str] = &["eth0", "eth1"];

pub const SERVER: &str = "192.0.2.1:7878";

impl Network {
    pub fn new() -> Network {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let network = Network {
            name: format!(
                "heartline-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        let [s, r, c] = ["s", "r", "c"].map(|host| network.host(host));
        for host in [&s, &r, &c] {
            run(&format!("ip netns add {host}"));
            run(&format!("ip -n {host} link set lo up"));
        }
        run(&format!(
            "ip -n {s} link add eth0 type veth peer name eth0 netns {r}"
        ));
        run(&format!(
            "ip -n {c} link add eth0 type veth peer name eth1 netns {r}"
        ));
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
        run(&format!(
            "ip netns exec {r} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
        ));
        network
    }

    fn host(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// From now on packets in these directions vanish: no FIN, no RST, no ICMP, nothing.
    pub fn cut(&self, links: &[&str]) {
        self.queue(links, 0);
    }

    pub fn heal(&self) {
        self.queue(BOTH_WAYS, 1000);
    }

    /// A queue without room drops every packet without a word, and needs no module that a kernel
    /// might lack.
    fn queue(&self, links: &[&str], packets: u32) {
        for link in links {
            run(&format!(
                "tc -n {} qdisc replace dev {link} root pfifo limit {packets}",
                self.host("r")
            ));
        }
    }

    fn command(&self, host: &str) -> Command {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.host(host),
            env!("CARGO_BIN_EXE_heartline"),
        ]);
        command
    }

    pub fn serve(&self, addr: &str, args: &[&str]) -> Serve {
        Serve::spawn(self.command("s"), &[addr], args)
    }

    /// A client on host `c`, behind the router, or on `s`, beside the server.
    pub fn connect(&self, host: &str, addr: &str, args: &[&str]) -> Connect {
        Connect::spawn(self.command(host), addr, args)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in ["s", "r", "c"] {
            // One that was never made is not there to be deleted.
            let _ = Command::new("ip")
                .args(["netns", "del", &self.host(host)])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn run(command: &str) {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
