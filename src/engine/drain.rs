//! The drain: a shutdown that answers, flushes, and spreads its closes over time.

use super::Engine;
use super::conn::Phase;
use crate::close::{CloseReason, RejectReason};
use crate::id::ConnId;
use crate::time::Timestamp;

/// The share of a drain over which closes are spread; the rest is left for flushing.
const SPREAD_NUMERATOR: u64 = 4;
const SPREAD_DENOMINATOR: u64 = 5;

/// A shutdown under way.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    from: Timestamp,
    until: Timestamp,
    /// `until` has passed, and every connection that was left has been closed.
    is_over: bool,
}

impl Engine {
    /// Begins a shutdown: no connection is admitted any more, and each connection is closed at a
    /// random instant within the first four fifths of `grace_ms`, after a final read and the
    /// replies to it. At the end of `grace_ms` the remaining ones are cut off.
    ///
    /// A repeated call can only bring the end forward.
    pub fn handle_shutdown(&mut self, now: Timestamp, grace_ms: u64) {
        self.advance(now);
        let until = self.now.plus_ms(grace_ms);
        if self.drain.is_some_and(|drain| drain.until <= until) {
            return;
        }
        self.drain = Some(Drain {
            from: self.now,
            until,
            is_over: false,
        });
        for slot in 0..self.conns.capacity() {
            let Some(conn) = self.conns.get(slot) else {
                continue;
            };
            let id = ConnId::new(slot, conn.generation);
            match conn.phase {
                Phase::Open => self.check_drain(id, self.now),
                Phase::AwaitingProxyHeader => self.refuse(id, RejectReason::ShuttingDown),
                Phase::HalfClosed | Phase::Flushing(_) | Phase::Closed(_) | Phase::Refused(_) => {}
            }
        }
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether a shutdown has begun and no connection is left.
    pub fn is_drained(&self) -> bool {
        self.is_draining() && self.conns.is_empty()
    }

    /// When the drain ends at the latest.
    pub fn drain_deadline(&self) -> Option<Timestamp> {
        self.drain.map(|drain| drain.until)
    }

    /// During a drain: the final read, at the connection's own instant. That may lie beyond the
    /// wheel's horizon.
    pub(super) fn check_drain(&mut self, id: ConnId, due: Timestamp) {
        match self.drain_at(id) {
            Some(at) if self.now < at => self.schedule_check(id),
            _ => {
                self.wheel.remove(id.slot());
                self.final_reads.push_back((id, due));
            }
        }
    }

    /// When a drain closes this connection: at an instant that is random, so that the clients do
    /// not all reconnect at once, and the same for every call.
    pub(super) fn drain_at(&self, id: ConnId) -> Option<Timestamp> {
        let Drain { from, until, .. } = self.drain?;
        let grace_ms = until.ms_since(from);
        // Two ticks are left: one for the wheel's lateness, one to flush.
        let spread_ms = (grace_ms / SPREAD_DENOMINATOR * SPREAD_NUMERATOR)
            .min(grace_ms.saturating_sub(2 * self.tick_ms));
        Some(from.plus_ms(fastrand::Rng::with_seed(id.as_u64()).u64(0..=spread_ms)))
    }

    pub(super) fn say_goodbye(&mut self, id: ConnId) {
        let Some(goodbye) = self.goodbye.take() else {
            return;
        };
        // If it does not fit the outbox, the connection closes without it.
        if self.queued(id) + self.codec.encoded_len(&[&goodbye]).unwrap_or(usize::MAX)
            <= self.max_outbox
        {
            let _ = self.send(id, &[&goodbye]);
        }
        self.goodbye = Some(goodbye);
    }

    /// Closes the remaining connections once the grace has passed. Returns whether the drain is
    /// over.
    pub(super) fn end_drain_if_over(&mut self) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        if self.now <= drain.until {
            return false;
        }
        if !std::mem::replace(&mut drain.is_over, true) {
            self.close_all(CloseReason::Shutdown);
        }
        true
    }

    /// Whether the grace has passed and every connection is closed.
    pub(super) fn is_drain_over(&self) -> bool {
        self.drain.is_some_and(|drain| drain.is_over)
    }

    /// When [`Engine::end_drain_if_over`] has something to do.
    pub(super) fn drain_ends_at(&self) -> Option<Timestamp> {
        let drain = self.drain.filter(|drain| !drain.is_over)?;
        (!self.conns.is_empty()).then(|| drain.until.plus_ms(1))
    }

    /// Closes every connection. Nothing is due any more after that.
    fn close_all(&mut self, reason: CloseReason) {
        for slot in 0..self.conns.capacity() {
            if let Some(conn) = self.conns.get(slot) {
                self.close(ConnId::new(slot, conn.generation), reason);
                self.wheel.remove(slot);
            }
        }
        self.final_reads.clear();
    }
}
