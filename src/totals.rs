//! Event counts by reason and by peer network, in bounded memory. They summarize log lines and
//! history entries that were dropped.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::access_list::Network;

/// Networks counted separately; events of further networks share one count.
const MAX_NETWORKS: usize = 256;
/// Networks named in a log line, largest first.
const NAMED: usize = 5;
/// Prefix length of a site, whose peers commonly fail together: /24, or /48 (RFC 6177).
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 48;

/// Sums by reason and by network. As a text it is `reasons=REASON:COUNT,… networks=NETWORK:COUNT,…
/// other_networks=COUNT`, largest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    sum: u64,
    reasons: Vec<(&'static str, u64)>,
    networks: HashMap<Network, u64>,
    other_networks: u64,
}

impl Totals {
    pub(crate) fn count(&mut self, reason: &'static str, ip: IpAddr) {
        self.sum += 1;
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.reasons.push((reason, 1)),
        }
        let network = Network::of(ip, PREFIX_V4, PREFIX_V6);
        let is_full = self.networks.len() >= MAX_NETWORKS;
        match self.networks.get_mut(&network) {
            Some(count) => *count += 1,
            None if is_full => self.other_networks += 1,
            None => drop(self.networks.insert(network, 1)),
        }
    }

    /// Of all.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Each reason with its count, largest first.
    pub(crate) fn reasons(&self) -> Vec<(&'static str, u64)> {
        let mut reasons = self.reasons.clone();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        reasons
    }

    /// The `most` networks with the largest counts, and the count of all others together.
    pub(crate) fn networks(&self, most: usize) -> (Vec<(Network, u64)>, u64) {
        let mut networks: Vec<(Network, u64)> = self
            .networks
            .iter()
            .map(|(network, count)| (*network, *count))
            .collect();
        networks.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let others = networks.iter().skip(most).map(|(_, count)| count);
        let others = self.other_networks + others.sum::<u64>();
        networks.truncate(most);
        (networks, others)
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (networks, others) = self.networks(NAMED);
        f.write_str("reasons=")?;
        list(f, &self.reasons())?;
        f.write_str(" networks=")?;
        list(f, &networks)?;
        write!(f, " other_networks={others}")
    }
}

fn list(f: &mut fmt::Formatter<'_>, counts: &[(impl fmt::Display, u64)]) -> fmt::Result {
    for (index, (name, count)) in counts.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(f, "{comma}{name}:{count}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_listed_largest_first() {
        let mut totals = Totals::default();
        for (reason, ip, times) in [
            ("peer-reset", "192.0.2.7", 1),
            ("heartbeat-timeout", "192.0.2.8", 2),
            ("heartbeat-timeout", "198.51.100.1", 4),
            ("heartbeat-timeout", "2001:db8:1:2::3", 1),
            ("heartbeat-timeout", "::ffff:198.51.100.9", 1),
        ] {
            for _ in 0..times {
                totals.count(reason, ip.parse().expect("an address"));
            }
        }
        assert_eq!(totals.sum(), 9);
        assert_eq!(
            totals.to_string(),
            "reasons=heartbeat-timeout:8,peer-reset:1 \
             networks=198.51.100.0/24:5,192.0.2.0/24:3,2001:db8:1::/48:1 other_networks=0"
        );
        assert_eq!(totals.networks(1).1, 4);
    }

    #[test]
    fn networks_are_counted_in_bounded_memory() {
        let mut totals = Totals::default();
        for address in 0..10_000_u32 {
            let ip = std::net::Ipv4Addr::from(address << 8);
            totals.count("heartbeat-timeout", ip.into());
        }
        let (networks, others) = totals.networks(usize::MAX);
        assert_eq!(networks.len(), MAX_NETWORKS);
        assert_eq!(others, 10_000 - MAX_NETWORKS as u64);
        assert_eq!(totals.sum(), 10_000);
    }
}
