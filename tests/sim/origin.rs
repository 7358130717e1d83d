//! Origins of peers: direct, or through a balancer, whose PROXY header names the client, or none,
//! or is invalid, or never ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use heartline::access_list::{AccessList, Networks};

/// Where balancers are.
pub const BALANCERS: &str = "10.255.0.0/16";

/// How one connection reaches the server.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The address that accept(2) returns.
    pub from: SocketAddr,
    /// The address under which the application knows it, if it ever does.
    pub name: SocketAddr,
    pub header: Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A direct connection.
    None,
    /// So long.
    Whole(usize),
    /// Does not begin as a header does.
    Broken,
    /// The beginning of a header, and nothing after it.
    Torn,
}

impl Origin {
    /// A random origin, and the bytes that are sent before anything else.
    pub fn draw(rng: &mut fastrand::Rng, addresses: u32, balancers: bool) -> (Self, Vec<u8>) {
        let client = client(rng, addresses);
        if !balancers || rng.bool() {
            return (
                Origin {
                    from: client,
                    name: canonical(client),
                    header: Header::None,
                },
                Vec::new(),
            );
        }
        let from = SocketAddr::from((Ipv4Addr::new(10, 255, 0, rng.u8(1..=4)), rng.u16(1..)));
        let named = rng.u8(0..8) > 0;
        let mut bytes = if rng.bool() {
            version_1(client, named)
        } else {
            version_2(rng, client, named)
        };
        let name = if named { canonical(client) } else { from };
        let header = match rng.u8(0..8) {
            0 => {
                bytes[rng.usize(0..5)] ^= 0x20;
                Header::Broken
            }
            1 => {
                bytes.truncate(rng.usize(0..bytes.len()));
                Header::Torn
            }
            _ => Header::Whole(bytes.len()),
        };
        (Origin { from, name, header }, bytes)
    }
}

/// IPv4 as it is and as a dual-stack listener reports it, and IPv6.
fn client(rng: &mut fastrand::Rng, addresses: u32) -> SocketAddr {
    let number = rng.u32(0..addresses);
    let ip = match rng.u8(0..8) {
        0 => v6(number).into(),
        1 => v4(number).to_ipv6_mapped().into(),
        _ => IpAddr::from(v4(number)),
    };
    SocketAddr::new(ip, rng.u16(1..))
}

fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(10 << 24 | number)
}

fn v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number))
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn version_1(client: SocketAddr, named: bool) -> Vec<u8> {
    let (family, to) = if client.is_ipv4() {
        ("TCP4", "10.9.9.9")
    } else {
        ("TCP6", "2001:db8::9")
    };
    match named {
        true => format!(
            "PROXY {family} {} {to} {} 443\r\n",
            client.ip(),
            client.port()
        )
        .into(),
        false => b"PROXY UNKNOWN\r\n".to_vec(),
    }
}

fn version_2(rng: &mut fastrand::Rng, client: SocketAddr, named: bool) -> Vec<u8> {
    let (family, addresses) = match client.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [10, 9, 9, 9]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), v6(9).octets()].concat()),
    };
    let ports = [client.port().to_be_bytes(), 443u16.to_be_bytes()].concat();
    // What follows the addresses is skipped.
    let more = vec![b'M'; if rng.bool() { rng.usize(0..300) } else { 0 }];
    let block = if named {
        [addresses, ports, more].concat()
    } else {
        more
    };
    let fixed = if named { [0x21, family] } else { [0x20, 0x00] };
    [
        b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
        &fixed,
        &(block.len() as u16).to_be_bytes(),
        &block,
    ]
    .concat()
}

/// Random lists that reject some of this many addresses.
pub fn access(rng: &mut fastrand::Rng, addresses: u32) -> AccessList {
    let mut deny = part_of(rng, addresses, 3);
    deny.extend(part_of(rng, addresses, 3));
    let mut allow = Vec::new();
    if rng.u8(0..3) == 0 {
        allow = part_of(rng, addresses, 1);
        allow.extend((rng.u8(0..4) > 0).then(|| BALANCERS.to_string()));
    }
    AccessList {
        allow: networks(&allow),
        deny: networks(&deny),
    }
}

/// A network of each family, of one in `2^share_bits` of the addresses.
fn part_of(rng: &mut fastrand::Rng, addresses: u32, share_bits: u32) -> Vec<String> {
    let bits = (u32::BITS - addresses.leading_zeros()).saturating_sub(share_bits);
    let first = rng.u32(0..addresses) >> bits << bits;
    vec![
        format!("{}/{}", v4(first), 32 - bits),
        format!("{}/{}", v6(first), 128 - bits),
    ]
}

pub fn networks(texts: &[String]) -> Networks {
    texts
        .iter()
        .map(|text| text.parse().expect("a network"))
        .collect()
}

/// Access lists once more, by arithmetic of our own.
pub struct Rules {
    allow: Vec<(u128, u32)>,
    deny: Vec<(u128, u32)>,
}

impl Rules {
    pub fn of(list: &AccessList) -> Self {
        let parsed = |networks: &Networks| {
            networks
                .iter()
                .map(|network| parse(&network.to_string()))
                .collect()
        };
        Rules {
            allow: parsed(&list.allow),
            deny: parsed(&list.deny),
        }
    }

    pub fn admits(&self, ip: IpAddr) -> bool {
        let bits = bits(ip);
        let within = |(network, free): &(u128, u32)| (bits ^ network) >> free == 0;
        !self.deny.iter().any(within) && (self.allow.is_empty() || self.allow.iter().any(within))
    }
}

/// The network's first address, and how many of its last bits are free.
fn parse(network: &str) -> (u128, u32) {
    let (address, prefix) = network.split_once('/').expect("an address and a prefix");
    let (ip, prefix): (IpAddr, u32) = (
        address.parse().expect("an address"),
        prefix.parse().expect("a prefix"),
    );
    (bits(ip), if ip.is_ipv4() { 32 } else { 128 } - prefix)
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}
