//! Allow and deny lists of networks: which addresses may connect.
//!
//! ```
//! use heartline::access_list::{AccessList, NetworkError};
//!
//! # fn main() -> Result<(), NetworkError> {
//! let list = AccessList {
//!     allow: ["10.0.0.0/8", "::1"].into_iter().map(str::parse).collect::<Result<_, _>>()?,
//!     deny: ["10.66.0.0/16"].into_iter().map(str::parse).collect::<Result<_, _>>()?,
//! };
//! assert!(list.admits([10, 1, 2, 3].into()));
//! assert!(!list.admits([10, 66, 2, 3].into()));
//! assert!(!list.admits([192, 0, 2, 7].into()));
//! # Ok(())
//! # }
//! ```
//!
//! A socket that listens on `::` reports an IPv4 peer as an IPv4-mapped IPv6 address,
//! `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2). Here it is always IPv4: mapped addresses and
//! networks are turned into IPv4 before they are compared. So `0.0.0.0/0` holds them and `::/0`
//! does not.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// The prefix of `::ffff:0:0/96`, which holds the IPv4-mapped addresses.
const MAPPED_PREFIX: u8 = 96;

/// One network: an address and the number of its leading bits that count (CIDR, RFC 4632 section
/// 3.1; RFC 4291 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// The network of `ip` with one of these prefixes; IPv4-mapped addresses have that of IPv4.
    pub(crate) fn of(ip: IpAddr, prefix_v4: u8, prefix_v6: u8) -> Self {
        let ip = ip.to_canonical();
        let prefix = if ip.is_ipv4() { prefix_v4 } else { prefix_v6 };
        let network = IpNet::new(ip, prefix).expect("the callers' prefixes fit");
        Network(network.trunc())
    }

    /// Whether the address lies in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a bare address, which is a network of its own (/32
    /// or /128).
    ///
    /// Strict, because a lenient reading could admit the wrong peers: octets and prefixes have no
    /// leading zeros, and an address with bits set beyond its prefix, such as `10.1.2.3/8`, is an
    /// error that names the network which was probably meant.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = |problem: String| NetworkError {
            text: text.to_string(),
            problem,
        };
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        // Not by ipnet's own parser: that one takes leading zeros, which others read as octal.
        let ip: IpAddr = address.parse().map_err(|_| {
            error("write an address, as 192.0.2.7, or a network, as 10.0.0.0/8".into())
        })?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) => prefix_len(digits, longest)
                .ok_or_else(|| error(format!("the prefix must be a number from 0 to {longest}")))?,
        };
        let network = unmapped(ip, prefix);
        if network != network.trunc() {
            return Err(error(format!(
                "bits are set beyond the prefix; write {} for the network, or {} for the address alone",
                network.trunc(),
                network.addr()
            )));
        }
        Ok(Network(network))
    }
}

fn prefix_len(digits: &str, longest: u8) -> Option<u8> {
    // Back to text and compared, because the standard parser takes a plus sign and leading zeros.
    digits
        .parse()
        .ok()
        .filter(|prefix: &u8| *prefix <= longest && prefix.to_string() == digits)
}

/// The network as IPv4 if it lies within the IPv4-mapped ones. The prefix must not be too long for
/// the address.
fn unmapped(ip: IpAddr, prefix: u8) -> IpNet {
    let (ip, prefix) = match ip.to_canonical() {
        // A prefix that was converted from IPv4 is never that long.
        v4 @ IpAddr::V4(_) if prefix >= MAPPED_PREFIX => (v4, prefix - MAPPED_PREFIX),
        _ => (ip, prefix),
    };
    IpNet::new(ip, prefix).expect("the caller has checked the prefix")
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a network: {}", self.text, self.problem)
    }
}

impl std::error::Error for NetworkError {}

/// Networks, which may overlap.
///
/// A look-up is a binary search in sorted ranges: about 20 comparisons for a million networks.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Networks(Arc<Sorted>);

#[derive(Debug, Default)]
struct Sorted {
    /// In the order in which they were given.
    given: Vec<Network>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Ranges from a first to a last address, in ascending order, none of which touches another.
#[derive(Debug, Default)]
struct Ranges<A>(Vec<(A, A)>);

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut ranges: Vec<(A, A)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(A, A)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                // Networks are disjoint, or one holds the other.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        merged.shrink_to_fit();
        Ranges(merged)
    }

    fn contains(&self, address: A) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

impl Networks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.given.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.given.len()
    }

    /// Whether the address lies in any of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.0.v4.contains(ip.to_bits()),
            IpAddr::V6(ip) => self.0.v6.contains(ip.to_bits()),
        }
    }

    /// The networks, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.given.iter()
    }
}

impl PartialEq for Networks {
    fn eq(&self, other: &Self) -> bool {
        self.0.given == other.0.given
    }
}

impl Eq for Networks {}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let given: Vec<Network> = networks.into_iter().collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Network(network) in &given {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Networks(Arc::new(Sorted {
            given,
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }))
    }
}

/// Which addresses may connect. The default allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// If the list is not empty, an address must be in one of these networks.
    pub allow: Networks,
    /// An address must be in none of these networks, even if it is allowed.
    pub deny: Networks,
}

impl AccessList {
    /// Whether the address is admitted: it is not denied, and it is allowed or `allow` is empty.
    pub fn admits(&self, ip: IpAddr) -> bool {
        !self.deny.contains(ip) && (self.allow.is_empty() || self.allow.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| network(text)).collect()
    }

    fn problem(text: &str) -> String {
        text.parse::<Network>().expect_err(text).problem
    }

    #[test]
    fn bare_address_is_a_host_network() {
        assert_eq!(network("192.0.2.7"), network("192.0.2.7/32"));
        assert_eq!(network("::1"), network("::1/128"));
        assert!(network("192.0.2.7").contains(ip("192.0.2.7")));
        assert!(!network("192.0.2.7").contains(ip("192.0.2.6")));
    }

    #[test]
    fn network_contains_its_first_and_last_address_only() {
        for (text, first, last, before, after) in [
            (
                "10.0.0.0/8",
                "10.0.0.0",
                "10.255.255.255",
                "9.255.255.255",
                "11.0.0.0",
            ),
            (
                "2001:db8::/33",
                "2001:db8::",
                "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff",
                "2001:db7:ffff::",
                "2001:db8:8000::",
            ),
        ] {
            let seen =
                [first, last, before, after].map(|address| network(text).contains(ip(address)));
            assert_eq!(seen, [true, true, false, false], "{text}");
        }
        assert!(network("0.0.0.0/0").contains(ip("255.255.255.255")));
        assert!(network("::/0").contains(ip("ffff::")));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.2.3")));
        assert!(!network("::/0").contains(ip("::ffff:10.1.2.3")));
        for (mapped, plain) in [
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/95", "::/95"),
        ] {
            assert_eq!(network(mapped), network(plain), "{mapped}");
            assert_eq!(network(mapped).to_string().parse(), Ok(network(mapped)));
        }
    }

    #[test]
    fn host_bits_beyond_the_prefix_are_rejected_with_a_suggestion() {
        for (text, meant, alone) in [
            ("10.1.2.3/8", "10.0.0.0/8", "10.1.2.3"),
            ("2001:db8::1/32", "2001:db8::/32", "2001:db8::1"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8", "10.1.2.3"),
        ] {
            assert_eq!(
                problem(text),
                format!(
                    "bits are set beyond the prefix; write {meant} for the network, or {alone} for the address alone"
                )
            );
        }
    }

    #[test]
    fn invalid_network_is_named() {
        for bad in [
            "",
            "/8",
            "localhost",
            "010.0.0.0/8",
            "10.0.0/8",
            "10.0.0.0.0",
            " 10.0.0.0/8",
            "fe80::1%eth0",
            "::g",
        ] {
            assert!(problem(bad).starts_with("write an address"), "{bad:?}");
        }
        for bad in [
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
            "10.0.0.0/255.0.0.0",
        ] {
            assert_eq!(
                problem(bad),
                "the prefix must be a number from 0 to 32",
                "{bad:?}"
            );
        }
        let error = "::/129".parse::<Network>().expect_err("refused");
        assert_eq!(
            error.to_string(),
            r#""::/129" is not a network: the prefix must be a number from 0 to 128"#
        );
    }

    #[test]
    fn deny_wins_over_allow() {
        let everybody = AccessList::default();
        assert!(everybody.admits(ip("192.0.2.7")) && everybody.admits(ip("::1")));
        let list = AccessList {
            deny: networks(&["10.66.0.0/16"]),
            ..AccessList::default()
        };
        assert!(
            list.admits(ip("192.0.2.7"))
                && !list.admits(ip("10.66.1.1"))
                && !list.admits(ip("::ffff:10.66.1.1"))
        );
        let list = AccessList {
            allow: networks(&["10.0.0.0/8", "::1"]),
            ..list
        };
        assert!(list.admits(ip("10.1.1.1")) && list.admits(ip("::1")));
        assert!(
            !list.admits(ip("10.66.1.1"))
                && !list.admits(ip("192.0.2.7"))
                && !list.admits(ip("::2"))
        );
    }

    /// An address bit by bit, most significant first, as the family it is compared as.
    fn bits(ip: IpAddr) -> (bool, Vec<bool>) {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => return bits(ip.into()),
                None => ip.octets().to_vec(),
            },
        };
        (
            octets.len() == 4,
            octets
                .iter()
                .flat_map(|octet| (0..8).map(move |bit| octet << bit & 0x80 != 0))
                .collect(),
        )
    }

    /// Addresses that meet often: few bits are set, some are mapped.
    fn any_ip() -> impl Strategy<Value = IpAddr> {
        let sparse = |width: u32| {
            (0..width, 0..width, any::<bool>())
                .prop_map(|(a, b, both)| (1u128 << a) | (u128::from(both) << b))
        };
        prop_oneof![
            sparse(32).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
            sparse(32)
                .prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits as u32).to_ipv6_mapped())),
            sparse(128).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            any::<IpAddr>(),
        ]
    }

    /// An address and its number of significant leading bits, in its own family.
    fn any_network() -> impl Strategy<Value = (IpAddr, usize)> {
        (any_ip(), any::<prop::sample::Index>()).prop_map(|(ip, prefix)| {
            let longest = bits(ip).1.len();
            (ip.to_canonical(), prefix.index(longest + 1))
        })
    }

    /// The network as text, its bits beyond the prefix cleared.
    fn text(&(ip, prefix): &(IpAddr, usize)) -> String {
        let clear = |width: usize| u128::MAX.checked_shl((width - prefix) as u32).unwrap_or(0);
        match ip {
            IpAddr::V4(ip) => format!(
                "{}/{prefix}",
                Ipv4Addr::from_bits((u128::from(ip.to_bits()) & clear(32)) as u32)
            ),
            IpAddr::V6(ip) => format!(
                "{}/{prefix}",
                Ipv6Addr::from_bits(ip.to_bits() & clear(128))
            ),
        }
    }

    fn naively_contained(networks: &[(IpAddr, usize)], ip: IpAddr) -> bool {
        let (v4, bits_of_ip) = bits(ip);
        networks.iter().any(|(network, prefix)| {
            let (network_v4, bits_of_network) = bits(*network);
            v4 == network_v4 && bits_of_ip[..*prefix] == bits_of_network[..*prefix]
        })
    }

    proptest! {
        #[test]
        fn access_list_agrees_with_bitwise_comparison(
            allow in prop::collection::vec(any_network(), 0..6),
            deny in prop::collection::vec(any_network(), 0..6),
            ips in prop::collection::vec(any_ip(), 1..20),
        ) {
            let parsed = |list: &[(IpAddr, usize)]| list.iter().map(|entry| network(&text(entry))).collect();
            let list = AccessList { allow: parsed(&allow), deny: parsed(&deny) };
            for ip in ips.into_iter().chain(allow.iter().chain(&deny).map(|(ip, _)| *ip)) {
                let admitted = !naively_contained(&deny, ip) && (allow.is_empty() || naively_contained(&allow, ip));
                prop_assert_eq!(list.admits(ip), admitted, "{}", ip);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-f:./+ ]{0,24}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
    }

    fn overlapping_network() -> impl Strategy<Value = Network> {
        let v4 = (0u32..256, 24u8..=32)
            .prop_map(|(low, prefix)| (IpAddr::from(low.to_be_bytes()), prefix));
        let v6 = (0u128..256, 120u8..=128)
            .prop_map(|(low, prefix)| (IpAddr::from(low.to_be_bytes()), prefix));
        prop_oneof![v4, v6, Just((ip("0.0.0.0"), 0))]
            .prop_map(|(ip, prefix)| Network(IpNet::new(ip, prefix).expect("a prefix").trunc()))
    }

    proptest! {
        #[test]
        fn binary_search_agrees_with_linear_search(
            given in prop::collection::vec(overlapping_network(), 0..12),
            low in 0u32..300,
        ) {
            let networks: Networks = given.iter().copied().collect();
            for ip in [IpAddr::from(low.to_be_bytes()), IpAddr::from(u128::from(low).to_be_bytes())] {
                let expected = given.iter().any(|network| network.contains(ip));
                prop_assert_eq!(networks.contains(ip), expected);
            }
        }
    }
}
