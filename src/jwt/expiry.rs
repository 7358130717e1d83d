//! When the proofs of connections end.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::id::ConnId;

/// The connections whose name a token proves, by the end of its time. Costs two table entries for
/// each.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    by_time: BTreeSet<(Duration, ConnId)>,
    by_id: HashMap<ConnId, Duration>,
}

impl Expiries {
    pub(crate) fn insert(&mut self, id: ConnId, at: Duration) {
        self.remove(id);
        self.by_time.insert((at, id));
        self.by_id.insert(id, at);
    }

    /// Calls for other connections do nothing.
    pub(crate) fn remove(&mut self, id: ConnId) {
        if let Some(at) = self.by_id.remove(&id) {
            self.by_time.remove(&(at, id));
        }
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// When the first one ends.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Removes one that has ended.
    pub(crate) fn pop_ended(&mut self, now: Duration) -> Option<ConnId> {
        let (_, id) = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.remove(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_end_in_their_order_and_once() {
        let mut ids = slab::Slab::new();
        let mut id = || ConnId::from_u64(ids.insert(()) as u64);
        let (a, b, c) = (id(), id(), id());
        let at = Duration::from_secs;
        let mut expiries = Expiries::default();
        for (id, seconds) in [(a, 30), (b, 10), (c, 20), (a, 15)] {
            expiries.insert(id, at(seconds));
        }
        expiries.remove(c);
        expiries.remove(c);
        assert_eq!(expiries.first(), Some(at(10)));
        assert_eq!(expiries.pop_ended(at(9)), None);
        assert_eq!(expiries.pop_ended(at(20)), Some(b));
        assert!(!expiries.contains(b) && expiries.contains(a));
        assert_eq!(expiries.pop_ended(at(20)), Some(a));
        assert_eq!((expiries.pop_ended(at(99)), expiries.first()), (None, None));
    }
}
