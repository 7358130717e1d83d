//! The connections that opened last, for the events.

use std::collections::VecDeque;

use crate::admin::api::OpenedEntry;
use crate::engine::Context;
use crate::id::ConnId;

/// Closes or openings in one event: more than a person can read in a second. The rest are counted.
pub(super) const MAX_REPORTED: usize = 50;

/// The last connections that opened, and how many there ever were.
#[derive(Default)]
pub(crate) struct OpenedRing {
    recent: VecDeque<ConnId>,
    total: u64,
}

impl OpenedRing {
    pub(super) fn push(&mut self, id: ConnId) {
        if self.recent.len() == MAX_REPORTED {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        self.total += 1;
    }

    /// How many there ever were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Those of the last `limit` that are still open, newest first.
    pub(super) fn newest(&self, limit: usize, cx: &Context<'_>) -> Vec<OpenedEntry> {
        let newest = self.recent.iter().rev().take(limit);
        newest
            .filter_map(|id| cx.snapshot(*id))
            .map(|connection| OpenedEntry {
                id: connection.id.to_string(),
                name: connection.name.map(|name| name.to_string()),
                address: connection.peer.to_string(),
            })
            .collect()
    }
}
