//! Admission: by number and by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::access_list::AccessList;
use crate::close::RejectReason;
use crate::config::Limits;

/// Counts connections, in all and per address, against their limits, and checks access lists.
pub(super) struct Admission {
    max_connections: usize,
    max_per_ip: usize,
    /// The bits of an IPv6 address that do not count.
    host_bits_v6: u128,
    access: AccessList,
    /// Connections per address, or per prefix of IPv6; empty while there is no bound per address.
    per_ip: HashMap<IpAddr, usize>,
    open: usize,
}

impl Admission {
    /// `max_connections` is what there can be at most.
    pub(super) fn new(max_connections: usize, limits: &Limits, access: AccessList) -> Self {
        Admission {
            max_connections,
            max_per_ip: limits.max_connections_per_ip,
            host_bits_v6: host_bits(limits.per_ip_prefix_v6),
            access,
            per_ip: HashMap::new(),
            open: 0,
        }
    }

    /// What counts as one address.
    pub(super) fn key(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !self.host_bits_v6).into(),
        }
    }

    /// Replaces the rules for new connections. `named` has the address of each open connection
    /// that counts.
    pub(super) fn reconfigure(
        &mut self,
        max_connections: usize,
        limits: &Limits,
        access: AccessList,
        named: impl Iterator<Item = IpAddr>,
    ) {
        let open = self.open;
        *self = Admission::new(max_connections, limits, access);
        self.open = open;
        if self.max_per_ip > 0 {
            for ip in named {
                *self.per_ip.entry(self.key(ip)).or_default() += 1;
            }
        }
    }

    pub(super) fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Whether there are more than the bound allows, because it was lowered.
    pub(super) fn is_over_full(&self) -> bool {
        self.open > self.max_connections
    }

    /// Without an address, because it is not known yet, only the bound on all counts;
    /// [`Admission::name`] follows.
    pub(super) fn enter(&mut self, ip: Option<IpAddr>) -> Result<(), RejectReason> {
        // The access lists come first: a denied address evicts no connection.
        if let Some(ip) = ip {
            self.check(ip)?;
        }
        if self.open >= self.max_connections {
            return Err(RejectReason::Full);
        }
        if let Some(ip) = ip {
            self.name(ip)?;
        }
        self.open += 1;
        Ok(())
    }

    /// Counts a connection under its address.
    pub(super) fn name(&mut self, ip: IpAddr) -> Result<(), RejectReason> {
        self.check(ip)?;
        if self.max_per_ip > 0 {
            *self.per_ip.entry(self.key(ip)).or_default() += 1;
        }
        Ok(())
    }

    fn check(&self, ip: IpAddr) -> Result<(), RejectReason> {
        if !self.access.admits(ip) {
            Err(RejectReason::Denied)
        } else if self.max_per_ip > 0
            && self
                .per_ip
                .get(&self.key(ip))
                .is_some_and(|held| *held >= self.max_per_ip)
        {
            Err(RejectReason::PerIpLimit)
        } else {
            Ok(())
        }
    }

    /// Called once for each `enter` that succeeded; with the address if it was counted under one.
    pub(super) fn leave(&mut self, ip: Option<IpAddr>) {
        self.open -= 1;
        self.forget_address(ip);
    }

    /// Counts a connection no longer under its address.
    pub(super) fn forget_address(&mut self, ip: Option<IpAddr>) {
        let key = ip.map(|ip| self.key(ip));
        if let Some(key) = key
            && let Some(held) = self.per_ip.get_mut(&key)
        {
            *held -= 1;
            if *held == 0 {
                self.per_ip.remove(&key);
            }
        }
    }
}

/// The bits beyond a prefix of this length.
fn host_bits(prefix: u8) -> u128 {
    u128::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn per_ip(max: usize) -> Limits {
        Limits {
            max_connections_per_ip: max,
            ..Limits::default()
        }
    }

    #[test]
    fn one_prefix_of_ipv6_counts_as_one_address() {
        let ip = |text: &str| Some(text.parse().expect("an address"));
        let mut admission = Admission::new(100, &per_ip(1), AccessList::default());
        admission.enter(ip("2001:db8::1")).expect("room");
        assert_eq!(
            admission.enter(ip("2001:db8::ffff:1")),
            Err(RejectReason::PerIpLimit)
        );
        admission.enter(ip("2001:db8:0:1::1")).expect("another /64");
        admission.leave(ip("2001:db8::2"));
        admission.enter(ip("2001:db8::3")).expect("room again");
        assert_eq!((host_bits(128), host_bits(1)), (0, u128::MAX >> 1));
    }

    #[test]
    fn addresses_are_counted_only_with_a_limit_per_address() {
        let mut admission = Admission::new(9, &per_ip(2), AccessList::default());
        admission.enter(Some(A)).expect("room");
        assert_eq!(admission.per_ip.len(), 1);
        admission.reconfigure(9, &per_ip(0), AccessList::default(), [A].into_iter());
        assert!(admission.per_ip.is_empty());
        admission.reconfigure(9, &per_ip(2), AccessList::default(), [A].into_iter());
        assert_eq!(admission.per_ip.len(), 1);
    }

    #[test]
    fn bounds_hold_in_all_and_per_address() {
        let mut admission = Admission::new(3, &per_ip(2), AccessList::default());
        assert_eq!(
            (admission.enter(Some(A)), admission.enter(Some(A))),
            (Ok(()), Ok(()))
        );
        assert_eq!(admission.enter(Some(A)), Err(RejectReason::PerIpLimit));
        assert_eq!(admission.enter(Some(B)), Ok(()));
        assert_eq!(admission.enter(Some(B)), Err(RejectReason::Full));
        admission.leave(Some(A));
        assert_eq!(admission.enter(Some(A)), Ok(()));
    }

    #[test]
    fn per_address_counts_are_released() {
        let mut admission = Admission::new(10, &per_ip(1), AccessList::default());
        admission.enter(Some(A)).expect("room");
        admission.leave(Some(A));
        assert!(admission.per_ip.is_empty());
    }

    #[test]
    fn late_address_counts_against_the_per_ip_limit() {
        let mut admission = Admission::new(3, &per_ip(1), AccessList::default());
        admission.enter(Some(A)).expect("room");
        admission.enter(None).expect("nobody knows who it is");
        assert_eq!(admission.name(A), Err(RejectReason::PerIpLimit));
        admission.leave(None);
        assert_eq!(
            admission.enter(Some(A)),
            Err(RejectReason::PerIpLimit),
            "who was never counted under an address frees none"
        );
    }

    #[test]
    fn denied_address_is_rejected_as_denied_when_full() {
        let deny = ["192.0.2.1"]
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        let mut admission = Admission::new(
            1,
            &per_ip(0),
            AccessList {
                deny,
                ..AccessList::default()
            },
        );
        admission.enter(Some(B)).expect("room");
        assert_eq!(admission.enter(Some(A)), Err(RejectReason::Denied));
        assert_eq!(admission.name(A), Err(RejectReason::Denied));
    }
}
