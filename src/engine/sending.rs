//! From the handler to the wire: queueing, throttling, flushing.

use std::io::IoSlice;

use super::conn::{Conn, PeerActivity, Phase, Reading, Writing};
use super::memory::PRESSURE_THROTTLE;
use super::{Context, Engine, Handler, THROTTLE_ABOVE, THROTTLE_BELOW, get_live_mut};
use crate::close::CloseReason;
use crate::config::OnSlow;
use crate::error::SendError;
use crate::id::ConnId;
use crate::progress::Progress;
use crate::time::Timestamp;

/// A ping follows the first message that ends this many bytes or more after the last ping. A peer
/// that reads a long answer slowly then meets a ping at least every so many bytes and one message,
/// and its pong is a sign of life, however many bytes are still queued behind it. A power of two,
/// in KiB at most 128: see `Conn::ping_mark`.
pub(super) const PING_EVERY_BYTES: usize = 16 << 10;

impl Engine {
    /// Queues one message made of `parts`. See [`Context::send`].
    pub fn send(&mut self, id: ConnId, parts: &[&[u8]]) -> Result<(), SendError> {
        if !self.fanouts.is_empty() && self.is_open(id) && !self.catch_up(id) {
            return Err(SendError::Full);
        }
        let Some(conn) = get_live_mut(&mut self.conns, id).filter(|conn| conn.takes_messages())
        else {
            return Err(SendError::Closed);
        };
        let escape = conn.is_extended() && self.codec.needs_escape(parts);
        let len = self.codec.wire_len(escape, parts)?;
        // Checked before anything is queued, so that one oversized message fails like the last of
        // many.
        if conn.outbox().len() + len > self.max_outbox {
            // What cannot be framed is its sender's mistake, and the peer does not pay for it.
            self.codec.encoded_len(parts)?;
            self.handle_full_outbox(id);
            return Err(SendError::Full);
        }
        let encoded = conn
            .outbox_mut(&mut self.memory)
            .append(&mut self.pool, |buffer| {
                buffer.reserve(len);
                self.codec.try_encode(escape, parts, buffer)
            });
        if let Err(error) = encoded {
            // The buffer has grown nevertheless.
            self.enforce_memory_limit();
            return Err(error);
        }
        self.stats.messages_queued += 1;
        self.after_enqueue(id, len, Writing::Queued);
        Ok(())
    }

    /// A message does not fit.
    pub(super) fn handle_full_outbox(&mut self, id: ConnId) {
        if self.on_slow == OnSlow::Drop && self.current_sender != Some(id) {
            self.stats.messages_dropped += 1;
        } else {
            self.close(id, CloseReason::SlowReader);
        }
    }

    /// Answers pings, and counts pongs. Their bytes have counted as a sign of life already.
    pub(super) fn handle_heartbeats(&mut self, id: ConnId, pings: u32, pongs: u32) {
        self.stats.pings_received += u64::from(pings);
        self.stats.pongs_received += u64::from(pongs);
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        if pings == 0 {
            return;
        }
        conn.set_activity(PeerActivity::Pinging);
        if !conn.is_live() {
            return;
        }
        let pong = self.codec.pong();
        // Without room for an answer, unread replies are queued, and those answer the ping as well.
        let room = self.max_outbox.saturating_sub(conn.outbox().len()) / pong.len();
        let answers = room.min(pings as usize);
        conn.outbox_mut(&mut self.memory)
            .append(&mut self.pool, |buffer| {
                (0..answers).for_each(|_| buffer.extend_from_slice(pong))
            });
        self.after_enqueue(id, answers * pong.len(), Writing::Queued);
    }

    /// Sends a ping to a quiet peer. Without room for it in the outbox the ping only counts as
    /// sent: the outbox holds pings already, one every [`PING_EVERY_BYTES`]. The same goes for a
    /// stuck outbox in raw framing, where a ping amid other bytes is not recognized.
    pub(super) fn push_ping(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        conn.pinged(now);
        if !(self.codec.is_raw() && conn.is_blocked()) {
            self.enqueue_ping(id, Writing::Queued);
        }
    }

    fn enqueue_ping(&mut self, id: ConnId, writing: Writing) {
        let Some(conn) = get_live_mut(&mut self.conns, id).filter(|conn| conn.is_live()) else {
            return;
        };
        let ping = self.codec.ping();
        if conn.outbox().len() + ping.len() <= self.max_outbox {
            conn.outbox_mut(&mut self.memory)
                .append(&mut self.pool, |buffer| buffer.extend_from_slice(ping));
            conn.mark_ping();
            self.stats.pings_sent += 1;
            self.after_enqueue(id, 0, writing);
        }
    }

    /// To be called after every append of `len` bytes: schedules the flush, adds a ping where one
    /// is due, stops reading from a peer that does not read, and enforces the memory limit.
    /// `writing` names the list in which the connection is flushed.
    pub(super) fn after_enqueue(&mut self, id: ConnId, len: usize, writing: Writing) {
        let pings = self.liveness.is_some_and(|liveness| liveness.pings()) && !self.codec.is_raw();
        let most = self.throttle_above();
        let Some(conn) = self.conns.get_mut(id.slot()) else {
            return;
        };
        // A blocked connection is flushed when the kernel reports room.
        let moves = conn.writing() == Writing::Idle
            || (conn.writing() == Writing::BroadcastOnly && writing == Writing::Queued);
        if moves && !conn.outbox().is_empty() {
            conn.set_writing(writing);
            let list = if writing == Writing::BroadcastOnly {
                &mut self.broadcast_only
            } else {
                &mut self.dirty
            };
            list.push_back(id);
        }
        if conn.outbox().len() > most && conn.phase == Phase::Open && !conn.is_throttled() {
            conn.reading.stop(Reading::THROTTLED);
            self.stats.throttled += 1;
        }
        let ping_due = pings
            && len > 0
            && conn.phase == Phase::Open
            && conn.bytes_since_ping(len) >= PING_EVERY_BYTES;
        self.enforce_memory_limit();
        if ping_due {
            // In the same list: pings within a broadcast must not delay replies to other peers.
            self.enqueue_ping(id, writing);
        }
    }

    /// Reading from a peer stops with more than this queued for it.
    fn throttle_above(&self) -> usize {
        let most = self.max_outbox / THROTTLE_ABOVE;
        if self.memory.is_under_pressure() {
            most.min(PRESSURE_THROTTLE)
        } else {
            most
        }
    }

    /// Reading resumes with at most this queued. In a large outbox that is soon, one ping and one
    /// message below the mark at which it stopped: the pongs of a slow reader come after what it
    /// sent before, and have to be read within the heartbeat timeout.
    fn resume_below(&self) -> usize {
        let most = self.throttle_above();
        let step = PING_EVERY_BYTES + self.codec.max_message();
        (most / THROTTLE_BELOW).max(most.saturating_sub(step))
    }

    /// The next connection that has something to write other than a broadcast alone. Each comes
    /// once per turn at most, after everything of the turn was queued.
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        self.pop_flush(Writing::Queued)
    }

    /// The next connection with only a broadcast queued. The driver flushes some of them in
    /// each turn, after the others, so that a broadcast does not delay replies, and replies do not
    /// stop it.
    pub fn poll_broadcast_only(&mut self) -> Option<ConnId> {
        self.pop_flush(Writing::BroadcastOnly)
    }

    fn pop_flush(&mut self, writing: Writing) -> Option<ConnId> {
        loop {
            let list = if writing == Writing::BroadcastOnly {
                &mut self.broadcast_only
            } else {
                &mut self.dirty
            };
            let id = list.pop_front()?;
            // It may have left its place, or be over.
            let Some(conn) = self.conn_mut(id).filter(|conn| conn.writing() == writing) else {
                continue;
            };
            conn.set_writing(Writing::Idle);
            if !matches!(conn.phase, Phase::Closed(_)) {
                return Some(id);
            }
        }
    }

    /// Fills `slices` with the first bytes to write, for one vectored write; returns how many
    /// slices it filled. 0 if there is nothing.
    pub fn outgoing<'a>(&'a self, id: ConnId, slices: &mut [IoSlice<'a>]) -> usize {
        match self.conn(id) {
            Some(conn) if !matches!(conn.phase, Phase::Closed(_)) => conn.outbox().peek(slices),
            _ => 0,
        }
    }

    /// The kernel has taken `n` bytes of [`Engine::outgoing`].
    pub fn handle_written<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        id: ConnId,
        n: usize,
        handler: &mut H,
    ) {
        self.advance(now);
        let resume_below = self.resume_below();
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        conn.outbox_mut(&mut self.memory).advance(n, &mut self.pool);
        conn.bytes_out += n as u64;
        self.stats.bytes_out += n as u64;
        let left = conn.outbox().len();
        let is_empty = left == 0;
        let was_blocked = conn.is_blocked();
        let was_throttled = conn.is_throttled();
        if was_blocked && is_empty {
            conn.set_writing(Writing::Idle);
        }
        if was_throttled && left <= resume_below {
            self.resume_reading(id, Reading::THROTTLED);
        }
        if is_empty {
            self.finish_if_flushed(id);
            if (was_blocked || was_throttled) && self.is_open(id) && self.queued(id) == 0 {
                handler.on_queue_empty(&mut Context { engine: self }, id);
            }
        }
    }

    /// The kernel takes no more for now. The driver watches for room until [`Engine::is_blocked`]
    /// returns `false`. If [`Engine::wants_progress`] then returns `true`, it calls
    /// [`Engine::handle_progress`].
    pub fn handle_blocked(&mut self, id: ConnId) {
        let now = self.now;
        // The server was late to flush: the peer has the whole timeout from here on. Once a refused
        // write was measured, the timeout has begun, however often writing is tried again.
        let is_late = self.conn(id).is_some_and(|conn| {
            conn.phase != Phase::Open && self.deadlines.flush_ends(conn) <= now
        });
        if let Some(conn) = self.conn_mut(id)
            && conn.waits_for_flush()
        {
            conn.set_writing(Writing::Blocked);
            let progress = conn.outbox().progress();
            if progress.is_none_or(|progress| is_late && !progress.is_measured()) {
                conn.set_progress(Progress::since(now));
            }
            self.schedule_check(id);
        }
    }

    /// The driver has used up its writes to one connection for this turn, and the kernel may have
    /// room for more: the connection goes to the end of the list of those to be flushed.
    pub fn handle_write_budget_spent(&mut self, id: ConnId) {
        if let Some(conn) = get_live_mut(&mut self.conns, id)
            && !conn.outbox().is_empty()
            && matches!(conn.writing(), Writing::Idle | Writing::Blocked)
        {
            conn.set_writing(Writing::Queued);
            self.dirty.push_back(id);
        }
    }

    /// Whether the driver is to call [`Engine::handle_progress`]: after [`Engine::handle_blocked`],
    /// from which the time without progress counts, and before it writes to a blocked connection
    /// that has not been measured for a while. After the write, bytes would be unacknowledged that
    /// the peer cannot have seen.
    pub fn wants_progress(&self, id: ConnId) -> bool {
        let Some((conn, progress)) = self
            .conn(id)
            .and_then(|conn| Some(conn).zip(conn.outbox().progress()))
        else {
            return false;
        };
        let is_bounded = conn.phase != Phase::Open || self.deadlines.bounds_writing();
        is_bounded && (!progress.is_measured() || self.is_sample_due(conn))
    }

    /// Reports how many of the bytes written to the connection its peer has not acknowledged
    /// (`SIOCOUTQ` of tcp(7)). `None` where the system does not report it: then a byte that the
    /// kernel takes is progress.
    pub fn handle_progress(&mut self, now: Timestamp, id: ConnId, unacknowledged: Option<u64>) {
        self.advance(now);
        let now = self.now;
        if let Some(conn) = get_live_mut(&mut self.conns, id)
            && let Some(mut progress) = conn.outbox().progress()
        {
            progress.measure(now, conn.bytes_out, unacknowledged);
            conn.set_progress(progress);
        }
    }

    /// Whether the kernel has taken less than it was given, and the rest waits for room.
    pub fn is_blocked(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(Conn::is_blocked)
    }

    /// Closes a connection whose queue was flushed for its close; otherwise schedules its flush
    /// timeout.
    pub(super) fn finish_if_flushed(&mut self, id: ConnId) {
        // There may be room now for broadcasts that the sweep has not brought it yet.
        if self
            .conn(id)
            .is_some_and(|conn| conn.phase == Phase::HalfClosed)
        {
            self.catch_up(id);
        }
        let now = self.now;
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let reason = match conn.phase {
            Phase::HalfClosed => CloseReason::PeerClosed,
            Phase::Flushing(reason) => reason,
            Phase::AwaitingProxyHeader | Phase::Open | Phase::Closed(_) | Phase::Refused(_) => {
                return;
            }
        };
        if conn.outbox().is_empty() {
            self.close(id, reason);
        } else {
            // A broadcast that has just found room is waited for from now on.
            if conn.outbox().progress().is_none() {
                conn.begin_flush(now);
            }
            self.schedule_check(id);
        }
    }
}
