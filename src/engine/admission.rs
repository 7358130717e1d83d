//! Who is let in.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::close::Refusal;

/// Counts connections, in all and per address, against their bounds.
pub(super) struct Admission {
    max_connections: usize,
    max_per_ip: usize,
    /// Connections per address; empty while there is no bound per address.
    per_ip: HashMap<IpAddr, usize>,
    open: usize,
}

impl Admission {
    /// `max_per_ip` of 0 means no bound per address.
    pub(super) fn new(max_connections: usize, max_per_ip: usize) -> Self {
        Admission { max_connections, max_per_ip, per_ip: HashMap::new(), open: 0 }
    }

    pub(super) fn enter(&mut self, ip: IpAddr) -> Result<(), Refusal> {
        if self.open >= self.max_connections {
            return Err(Refusal::Full);
        }
        if self.max_per_ip > 0 {
            let held = self.per_ip.entry(ip).or_default();
            if *held >= self.max_per_ip {
                return Err(Refusal::AddressFull);
            }
            *held += 1;
        }
        self.open += 1;
        Ok(())
    }

    /// Called once for each `enter` that succeeded.
    pub(super) fn leave(&mut self, ip: IpAddr) {
        self.open -= 1;
        if let Some(held) = self.per_ip.get_mut(&ip) {
            *held -= 1;
            if *held == 0 {
                self.per_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn bounds_hold_in_all_and_per_address() {
        let mut admission = Admission::new(3, 2);
        assert_eq!((admission.enter(A), admission.enter(A)), (Ok(()), Ok(())));
        assert_eq!(admission.enter(A), Err(Refusal::AddressFull));
        assert_eq!(admission.enter(B), Ok(()));
        assert_eq!(admission.enter(B), Err(Refusal::Full));
        admission.leave(A);
        assert_eq!(admission.enter(A), Ok(()));
    }

    #[test]
    fn addresses_that_left_leave_nothing_behind() {
        let mut admission = Admission::new(10, 1);
        admission.enter(A).expect("room");
        admission.leave(A);
        assert!(admission.per_ip.is_empty());
    }
}
