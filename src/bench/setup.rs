//! How many processes a load needs, and which addresses it comes from: descriptors and ports run
//! out first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::process::ephemeral_ports;
use super::values::Sources;
use crate::error::{ConfigError, Error};

/// Descriptors of a worker that are no connections: standard streams, poll, timer, and some to
/// spare.
const WORKER_RESERVE: u32 = 32;
/// How full a server of the harness's own may become. It reserves descriptors itself, and the
/// kernel does not spread connections evenly.
const SERVER_FILL: f64 = 0.85;
/// How many of its ports the kernel may be left to choose from: beyond half it tries every second
/// port in vain, for each dial.
const KERNEL_FILL: f64 = 0.45;
/// How many of a source address's ports may be used by choosing them here; others may use some,
/// too.
const PORT_FILL: f64 = 0.75;

/// Worker processes for this many connections, or the requested number, if that is enough.
pub(super) fn workers(
    connections: u32,
    descriptors: usize,
    asked: Option<u32>,
) -> Result<u32, Error> {
    let each = u32::try_from(descriptors)
        .unwrap_or(u32::MAX)
        .saturating_sub(WORKER_RESERVE)
        .max(1);
    let needed = connections.div_ceil(each).max(1);
    match asked {
        Some(asked) if asked < needed => {
            let problem = format!(
                "{connections} connections take {needed} processes with at most {each} each (ulimit -Hn)"
            );
            Err(ConfigError::new("workers", problem).into())
        }
        // A worker without a connection has nothing to do.
        Some(asked) => Ok(asked.min(connections.max(1))),
        None => Ok(needed),
    }
}

/// Server processes for this many connections.
pub(super) fn servers(connections: u32, descriptors: usize) -> u32 {
    (f64::from(connections) / (descriptors as f64 * SERVER_FILL))
        .ceil()
        .max(1.0) as u32
}

/// Addresses to dial from. None, for the kernel's choice, unless requested or if one address has
/// too few ports.
pub(super) fn sources(
    addr: SocketAddr,
    connections: u32,
    asked: Option<&Sources>,
) -> Result<Vec<IpAddr>, Error> {
    let wrong = |problem: String| Err(ConfigError::new("source", problem).into());
    let (first, last) = ephemeral_ports();
    let ports = u32::from(last) - u32::from(first) + 1;
    if let Some(Sources(asked)) = asked {
        for source in asked {
            if source.is_ipv4() != addr.is_ipv4() {
                return wrong(format!("{source} and {addr} are of different families"));
            }
            if let Err(error) = UdpSocket::bind((*source, 0)) {
                return wrong(format!(
                    "{source} is not an address of this machine: {error}"
                ));
            }
        }
        let most = (f64::from(ports) * PORT_FILL * asked.len() as f64) as u32;
        if connections > most {
            return wrong(format!(
                "{} addresses suffice for {most} connections, not for {connections}",
                asked.len()
            ));
        }
        return Ok(asked.clone());
    }
    let needed = (f64::from(connections) / (f64::from(ports) * PORT_FILL)).ceil() as u32;
    match addr.ip() {
        _ if f64::from(connections) <= f64::from(ports) * KERNEL_FILL => Ok(Vec::new()),
        IpAddr::V4(ip) if ip.is_loopback() => {
            Ok(Sources::range(Ipv4Addr::new(127, 0, 0, 1), needed).0)
        }
        // Slower and slower, but it can be done.
        _ if connections <= ports => Ok(Vec::new()),
        _ => wrong(format!(
            "{connections} connections to {addr} need the ports \
             of {needed} addresses of this machine; name them"
        )),
    }
}

/// Whether the harness may dial from further addresses if the ports of these are taken: all of
/// 127.0.0.0/8 are local.
pub(super) fn may_add_sources(addr: SocketAddr, asked: Option<&Sources>) -> bool {
    asked.is_none() && addr.is_ipv4() && addr.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_stay_within_their_descriptors() {
        assert_eq!(workers(15_000, 20_000, None).expect("a number"), 1);
        assert_eq!(workers(100_000, 20_000, None).expect("a number"), 6);
        assert_eq!(workers(100_000, 20_000, Some(8)).expect("a number"), 8);
        assert_eq!(workers(2, 20_000, Some(8)).expect("a number"), 2);
        assert!(
            workers(100_000, 20_000, Some(5))
                .expect_err("too few")
                .to_string()
                .contains("workers")
        );
        assert_eq!(workers(10, 0, None).expect("a number"), 10);
        assert_eq!((servers(10, 20_000), servers(95_000, 20_000)), (1, 6));
    }

    #[test]
    fn sources_are_as_many_as_the_ports_demand() {
        let loopback = "127.0.0.1:1".parse().expect("an address");
        assert_eq!(
            sources(loopback, 100, None).expect("none"),
            Vec::<IpAddr>::new()
        );
        let many = sources(loopback, 1_000_000, None).expect("a range");
        assert!(
            many.len() >= 1_000_000 / 65_536 && many[0] == IpAddr::from([127, 0, 0, 1]),
            "{many:?}"
        );
        let elsewhere = "192.0.2.1:1".parse().expect("an address");
        assert!(
            sources(elsewhere, 1_000_000, None)
                .expect_err("needs addresses")
                .to_string()
                .contains("source")
        );
    }

    #[test]
    fn source_addresses_must_be_local_and_sufficient() {
        let loopback = "127.0.0.1:1".parse().expect("an address");
        let ask = |text: &str, connections| {
            sources(loopback, connections, Some(&text.parse().expect("sources")))
        };
        assert_eq!(ask("127.0.0.2-127.0.0.3", 10).expect("fine").len(), 2);
        assert!(ask("192.0.2.1", 10).is_err());
        assert!(ask("::1", 10).is_err());
        assert!(ask("127.0.0.2", 70_000).is_err());
    }

    #[test]
    fn source_addresses_are_added_on_loopback_only() {
        let may_add = |addr: &str, asked| may_add_sources(addr.parse().expect("an address"), asked);
        assert!(may_add("127.0.0.1:1", None));
        assert!(!may_add("192.0.2.1:1", None) && !may_add("[::1]:1", None));
        assert!(!may_add(
            "127.0.0.1:1",
            Some(&"127.0.0.2".parse().expect("sources"))
        ));
    }
}
