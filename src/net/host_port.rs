//! A host and a port as people write them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// `192.0.2.7:7878`, `name:7878`, `[2001:db8::7]:7878`, `[fe80::1%eth0]:7878`.
///
/// An IPv6 address is in brackets, since `::1:7878` could be the whole address (RFC 5952 section
/// 6); its zone is the name or the number of an interface (RFC 4007 section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort<'a> {
    /// Without brackets.
    host: &'a str,
    pub(crate) port: u16,
}

/// A sentence that names the fault of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotHostPort(String);

impl std::error::Error for NotHostPort {}

impl fmt::Display for NotHostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> HostPort<'a> {
    /// Whether the host exists is not known here.
    pub(crate) fn parse(text: &'a str) -> Result<Self, NotHostPort> {
        let wrong = |problem: &str| {
            Err(NotHostPort(format!(
                "{text:?} {problem}, such as 127.0.0.1:7878, [::1]:7878 or name:7878"
            )))
        };
        if text.contains("://") || text.contains('/') {
            return wrong("is a URL or a path, not an address; write HOST:PORT");
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("has no port; write HOST:PORT");
        };
        if host.is_empty() {
            return wrong(
                "has no host; write HOST:PORT (0.0.0.0 and [::] are all addresses of a machine)",
            );
        }
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_v6 = |host: &str| {
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            matches!(address.parse(), Ok(IpAddr::V6(_)))
        };
        let host = match bracketed {
            Some(inner) if is_v6(inner) => inner,
            Some(_) => return wrong("has no IPv6 address in its brackets; write [ADDRESS]:PORT"),
            None if host.contains(':') => {
                return wrong("is an IPv6 address without brackets; write [ADDRESS]:PORT");
            }
            None => host,
        };
        // Nothing but digits: `from_str` alone would take a plus sign.
        match port.parse() {
            Ok(port_number) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(HostPort {
                host,
                port: port_number,
            }),
            _ => wrong("has no port from 0 to 65535; write HOST:PORT"),
        }
    }

    /// The addresses of the host. Blocks on a name server if it is a name (getaddrinfo(3)).
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = (self.host, self.port).to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed() {
        for (text, host, port) in [
            ("127.0.0.1:7878", "127.0.0.1", 7878),
            ("name.example:1", "name.example", 1),
            ("localhost:0", "localhost", 0),
            ("[::1]:65535", "::1", 65_535),
            ("[fe80::1%eth0]:7878", "fe80::1%eth0", 7878),
        ] {
            assert_eq!(HostPort::parse(text), Ok(HostPort { host, port }), "{text}");
        }
    }

    #[test]
    fn wrong_addresses_are_rejected_with_an_example() {
        for (text, problem) in [
            ("", "has no port"),
            ("localhost", "has no port"),
            ("7878", "has no port"),
            (":7878", "has no host"),
            ("::1", "without brackets"),
            ("::1:7878", "without brackets"),
            ("fe80::1%eth0:7878", "without brackets"),
            ("[::1:7878", "without brackets"),
            ("[name]:7878", "no IPv6 address in its brackets"),
            ("[::1]", "without brackets"),
            ("name:", "has no port from 0 to 65535"),
            ("name:+1", "has no port from 0 to 65535"),
            ("name:65536", "has no port from 0 to 65535"),
            ("http://name:7878", "is a URL or a path"),
            ("unix:/run/heartline.sock", "a URL or a path"),
        ] {
            let error = HostPort::parse(text).expect_err(text).to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains("such as 127.0.0.1:7878"), "{error}");
        }
    }

    #[test]
    fn zone_may_be_an_interface_name() {
        let resolve = |text| HostPort::parse(text).expect("one").resolve();
        let found = resolve("[fe80::1%lo]:7878").expect("every machine has this interface");
        let SocketAddr::V6(addr) = found[0] else {
            panic!("{found:?} is not of IPv6");
        };
        assert!(addr.scope_id() > 0);
        assert_eq!(
            resolve("127.0.0.1:1").expect("no look-up"),
            ["127.0.0.1:1".parse().expect("an address")]
        );
    }
}
