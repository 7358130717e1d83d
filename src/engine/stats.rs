//! Counters.

use crate::close::{CloseReason, Refusal};

/// What a server has done since it started. All counts only grow; none is ever reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections opened. Those open now are `opened` less the sum of all closes.
    pub opened: u64,
    closed: [u64; CloseReason::ALL.len()],
    refused: [u64; Refusal::ALL.len()],
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel has taken for sending.
    pub bytes_out: u64,
    /// Messages received, heartbeats not counted.
    pub messages_in: u64,
    /// Messages queued for peers, heartbeats not counted; a broadcast counts once per receiver.
    pub messages_out: u64,
    /// Pings received. Each was answered, unless the outbox had no room left.
    pub pings_in: u64,
    /// Pongs received.
    pub pongs_in: u64,
    /// Pings pushed to quiet peers.
    pub pings_out: u64,
    /// How far past its deadline the latest of all verdicts of silence came, in milliseconds.
    pub worst_overshoot_ms: u64,
    /// Times that a budget ran out, so that others had their turn first.
    pub yields: u64,
    /// Times that reading from a peer was stopped because it did not read what was queued for it.
    pub throttled: u64,
    /// Times that reading from a peer was stopped because it had sent as many messages as it may.
    pub rationed: u64,
    /// Spells in which this process did not run: stopped, paused, or blocked in a handler.
    pub stalls: u64,
    /// Total length of those spells in milliseconds.
    pub stalled_ms: u64,
}

impl Stats {
    /// Connections closed for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Connections refused for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason.index()]
    }

    /// Connections closed, for whatever reason.
    pub fn closed_in_all(&self) -> u64 {
        self.closed.iter().sum()
    }

    pub(crate) fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    pub(crate) fn count_refusal(&mut self, reason: Refusal) {
        self.refused[reason.index()] += 1;
    }
}
