//! Requests for a broadcast that wait for the number of its receivers.

use super::http::RequestInfo;
use crate::engine::BroadcastId;

/// At most one for each admin connection, which has one request at a time.
#[derive(Default)]
pub(crate) struct Broadcasts {
    waiting: Vec<Waiting>,
}

struct Waiting {
    key: usize,
    request: RequestInfo,
    broadcast: BroadcastId,
    /// Once it is complete.
    receivers: Option<usize>,
}

impl Broadcasts {
    pub(super) fn wait(&mut self, key: usize, request: RequestInfo, broadcast: BroadcastId) {
        self.waiting.push(Waiting {
            key,
            request,
            broadcast,
            receivers: None,
        });
    }

    /// A broadcast is complete, of this endpoint or another sender.
    pub(super) fn complete(&mut self, broadcast: BroadcastId, receivers: usize) {
        let mut waiting = self.waiting.iter_mut();
        if let Some(waiting) = waiting.find(|waiting| waiting.broadcast == broadcast) {
            waiting.receivers = Some(receivers);
        }
    }

    /// The next request that can be answered: its connection, and the number of receivers.
    pub(super) fn poll(&mut self) -> Option<(usize, RequestInfo, usize)> {
        let index = self
            .waiting
            .iter()
            .position(|waiting| waiting.receivers.is_some())?;
        let Waiting {
            key,
            request,
            receivers,
            ..
        } = self.waiting.swap_remove(index);
        Some((key, request, receivers?))
    }

    /// That connection is gone.
    pub(super) fn forget(&mut self, key: usize) {
        self.waiting.retain(|waiting| waiting.key != key);
    }
}
