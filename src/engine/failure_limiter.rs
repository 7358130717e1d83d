//! A bound on failed logins per address. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::time::Timestamp;

const WINDOW_MS: u64 = 60_000;

/// Addresses that are counted at once. Failures of further addresses are not counted until the
/// window is over.
const MAX_ADDRESSES: usize = 65_536;

/// Counts failures within fixed windows of a minute.
pub(super) struct FailureLimiter {
    /// 0: no limit.
    max: u32,
    window: u64,
    counts: HashMap<IpAddr, u32>,
}

impl FailureLimiter {
    pub(super) fn new(max: u32) -> Self {
        FailureLimiter {
            max,
            window: 0,
            counts: HashMap::new(),
        }
    }

    /// Replaces the limit. Failures that were counted stay.
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Counts a failure.
    pub(super) fn count(&mut self, now: Timestamp, address: IpAddr) {
        if self.max == 0 {
            return;
        }
        let window = now.as_ms() / WINDOW_MS;
        if window != self.window {
            self.window = window;
            self.counts = HashMap::new();
        }
        if self.counts.len() < MAX_ADDRESSES || self.counts.contains_key(&address) {
            let count = self.counts.entry(address).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Whether the address has had as many failures as it may.
    pub(super) fn is_limited(&self, now: Timestamp, address: IpAddr) -> bool {
        self.max > 0
            && self.window == now.as_ms() / WINDOW_MS
            && self
                .counts
                .get(&address)
                .is_some_and(|count| *count >= self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn address_is_limited_until_the_minute_is_over() {
        let mut limiter = FailureLimiter::new(2);
        let at = Timestamp::from_ms;
        limiter.count(at(59_000), address(1));
        assert!(!limiter.is_limited(at(59_000), address(1)));
        limiter.count(at(59_999), address(1));
        assert!(limiter.is_limited(at(59_999), address(1)));
        assert!(!limiter.is_limited(at(59_999), address(2)));
        assert!(!limiter.is_limited(at(60_000), address(1)));
        limiter.count(at(60_000), address(1));
        assert!(!limiter.is_limited(at(60_000), address(1)), "counted anew");
    }

    #[test]
    fn zero_means_no_limit() {
        let mut limiter = FailureLimiter::new(0);
        (0..100).for_each(|_| limiter.count(Timestamp::ZERO, address(1)));
        assert!(!limiter.is_limited(Timestamp::ZERO, address(1)));
        assert!(limiter.counts.is_empty());
    }

    #[test]
    fn addresses_are_counted_in_bounded_memory() {
        let mut limiter = FailureLimiter::new(2);
        limiter.count(Timestamp::ZERO, address(0));
        for n in 0..2 * MAX_ADDRESSES as u32 {
            limiter.count(Timestamp::ZERO, address(n));
        }
        assert_eq!(limiter.counts.len(), MAX_ADDRESSES);
        assert!(limiter.is_limited(Timestamp::ZERO, address(0)));
    }
}
