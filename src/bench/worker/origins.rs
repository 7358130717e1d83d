//! The source address and port of a dial.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::bench::plan::{Plan, Ports};
use crate::bench::values::MAX_SOURCES;

/// Origins that are tried for one dial, should they be taken.
const TRIES_PER_DIAL: usize = 1024;
/// After this many taken ports in a row another address is used: there are millions of them, and
/// each try costs some microseconds.
const TRIES_PER_ADDR: usize = 64;
/// Where the kernel dials a loopback address from, if it is left the choice.
const KERNELS_CHOICE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Takes source addresses in turn, and on each of them one port after the other. Ports in use
/// or in TIME_WAIT are skipped.
pub(super) struct Origins {
    ports: Ports,
    /// None while the kernel chooses address and port.
    sources: Vec<SourceAddress>,
    turn: usize,
    /// Whether loopback addresses may be added.
    extensible: bool,
}

struct SourceAddress {
    addr: IpAddr,
    next_port: u16,
}

impl Origins {
    pub(super) fn new(plan: &Plan) -> Self {
        let ports = plan.ports;
        let sources = plan
            .sources
            .iter()
            .map(|addr| SourceAddress {
                addr: *addr,
                next_port: ports.first,
            })
            .collect();
        Origins {
            ports,
            sources,
            turn: 0,
            extensible: plan.more_sources,
        }
    }

    /// Dials from one origin after the other until one of them is free. Without an origin the
    /// kernel chooses.
    pub(super) fn dial<T>(
        &mut self,
        mut dial: impl FnMut(Option<SocketAddr>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut tries = 0;
        loop {
            let outcome = dial(self.next());
            tries += 1;
            match &outcome {
                Err(error) if is_taken(error) && tries < TRIES_PER_DIAL => {}
                _ => return outcome,
            }
            // The kernel has tried all ports itself.
            let kernels_choice = self.sources.is_empty();
            let added = (kernels_choice || tries % TRIES_PER_ADDR == 0) && self.add_source();
            if kernels_choice && !added {
                return outcome;
            }
        }
    }

    /// The addresses that were chosen here.
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.sources.iter().map(|source| source.addr)
    }

    fn next(&mut self) -> Option<SocketAddr> {
        let Ports { first, last, step } = self.ports;
        let source = self.sources.get_mut(self.turn)?;
        let origin = SocketAddr::new(source.addr, source.next_port);
        source.next_port = source
            .next_port
            .checked_add(step)
            .filter(|port| *port <= last)
            .unwrap_or(first);
        self.turn = (self.turn + 1) % self.sources.len();
        Some(origin)
    }

    /// Continues with the next loopback address, if that is allowed.
    fn add_source(&mut self) -> bool {
        let last = self
            .sources
            .last()
            .map_or(KERNELS_CHOICE, |source| source.addr);
        let IpAddr::V4(last) = last else { return false };
        let addr = Ipv4Addr::from(u32::from(last).saturating_add(1));
        if !self.extensible || self.sources.len() >= MAX_SOURCES as usize || !addr.is_loopback() {
            return false;
        }
        self.turn = self.sources.len();
        self.sources.push(SourceAddress {
            addr: addr.into(),
            next_port: self.ports.first,
        });
        true
    }
}

/// The kernel reports the first for a port that is bound, the second for a pair of addresses and
/// ports that is connected or was until a minute ago.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net::dial_from;

    const PORTS: Ports = Ports {
        first: 20_000,
        last: 20_009,
        step: 1,
    };

    fn origins(sources: &[&str], extensible: bool) -> Origins {
        let source = |addr: &&str| SourceAddress {
            addr: addr.parse().expect("an address"),
            next_port: PORTS.first,
        };
        Origins {
            ports: PORTS,
            sources: sources.iter().map(source).collect(),
            turn: 0,
            extensible,
        }
    }

    /// Dials `count` times where an origin can be used once, and not at all if it is `taken`.
    fn dial(
        origins: &mut Origins,
        count: usize,
        taken: impl Fn(SocketAddr) -> bool,
    ) -> Vec<io::Result<String>> {
        let mut used = Vec::new();
        let mut dial_one = || {
            origins.dial(|origin| match origin {
                Some(origin) if !taken(origin) && !used.contains(&origin) => {
                    used.push(origin);
                    Ok(origin.to_string())
                }
                Some(_) => Err(io::ErrorKind::AddrInUse.into()),
                None => Err(io::ErrorKind::AddrNotAvailable.into()),
            })
        };
        (0..count).map(|_| dial_one()).collect()
    }

    fn all_good(dials: Vec<io::Result<String>>) -> Vec<String> {
        dials
            .into_iter()
            .collect::<io::Result<_>>()
            .expect("every dial finds an origin")
    }

    #[test]
    fn addresses_take_turns_and_ports_follow_each_other() {
        let dialled = all_good(dial(
            &mut origins(&["127.0.0.1", "127.0.0.2"], true),
            4,
            |_| false,
        ));
        assert_eq!(
            dialled,
            [
                "127.0.0.1:20000",
                "127.0.0.2:20000",
                "127.0.0.1:20001",
                "127.0.0.2:20001"
            ]
        );
    }

    #[test]
    fn ports_that_are_taken_are_left_out() {
        let dialled = all_good(dial(&mut origins(&["127.0.0.1"], true), 3, |origin| {
            origin.port() % 2 == 0
        }));
        assert_eq!(
            dialled,
            ["127.0.0.1:20001", "127.0.0.1:20003", "127.0.0.1:20005"]
        );
    }

    #[test]
    fn exhausted_source_address_is_followed_by_the_next() {
        let mut origins = origins(&["127.0.0.1"], true);
        let taken =
            |origin: SocketAddr| origin.ip().to_string() == "127.0.0.1" && origin.port() != 20_004;
        let dialled = all_good(dial(&mut origins, 15, taken));
        assert_eq!(
            dialled[..3],
            ["127.0.0.1:20004", "127.0.0.2:20000", "127.0.0.2:20001"]
        );
        assert_eq!(dialled[10..12], ["127.0.0.2:20009", "127.0.0.3:20000"]);
        assert_eq!(
            origins
                .addrs()
                .map(|addr| addr.to_string())
                .collect::<Vec<_>>(),
            ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        );
    }

    #[test]
    fn kernel_choice_is_followed_by_loopback_addresses() {
        assert_eq!(
            all_good(dial(&mut origins(&[], true), 2, |_| false)),
            ["127.0.0.2:20000", "127.0.0.2:20001"]
        );
        assert!(dial(&mut origins(&[], false), 1, |_| false)[0].is_err());
    }

    #[test]
    fn extra_source_addresses_are_used_only_if_allowed() {
        let mut origins = origins(&["127.0.0.1", "127.0.0.2"], false);
        let dialled = dial(&mut origins, 12, |origin| {
            origin.ip().to_string() == "127.0.0.1"
        });
        assert_eq!(dialled.iter().filter(|dial| dial.is_ok()).count(), 10);
        assert_eq!(
            dialled[11].as_ref().expect_err("all are used").kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(origins.addrs().count(), 2);
    }

    #[test]
    fn dial_without_a_free_port_fails() {
        let mut origins = origins(&["127.0.0.1"], true);
        assert!(dial(&mut origins, 1, |_| true)[0].is_err());
        assert_eq!(origins.addrs().count(), TRIES_PER_DIAL / TRIES_PER_ADDR);
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        let mut tries = 0;
        let outcome: io::Result<()> = origins(&["127.0.0.1"], true).dial(|_| {
            tries += 1;
            Err(io::ErrorKind::ConnectionRefused.into())
        });
        assert!(outcome.is_err());
        assert_eq!(tries, 1);
    }

    #[test]
    fn taken_port_is_recognized() {
        // No other program uses these addresses.
        let taken: Vec<_> = (PORTS.first..=PORTS.last)
            .map(|port| TcpListener::bind(("127.81.0.1", port)).expect("a free port"))
            .collect();
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = server.local_addr().expect("bound");
        let _stream = origins(&["127.81.0.1"], true)
            .dial(|origin| dial_from(origin, addr))
            .expect("there are other addresses");
        assert_eq!(
            server.accept().expect("a connection").1.to_string(),
            "127.81.0.2:20000"
        );
        drop(taken);
    }
}
