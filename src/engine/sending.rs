//! From the handler to the wire: queueing, throttling, flushing.

use std::io::IoSlice;

use super::conn::{Conn, Phase, Reading, Speech, Writing};
use super::memory::TIGHT_THROTTLE;
use super::{Context, Engine, Handler, THROTTLE_ABOVE, THROTTLE_BELOW, live};
use crate::close::CloseReason;
use crate::config::OnSlow;
use crate::error::SendError;
use crate::id::ConnId;
use crate::time::Millis;

/// Broadcasts from this size on are queued as one shared piece instead of a copy for each peer. Below it, a copy into a buffer that is
/// there anyway costs less than the bookkeeping of sharing, and no more memory than that bookkeeping would take.
const SHARED_FROM: usize = 512;

impl Engine {
    /// Queues one message made of `parts`. See [`Context::send`].
    pub fn send(&mut self, id: ConnId, parts: &[&[u8]]) -> Result<(), SendError> {
        let Some(conn) = live(&mut self.conns, id).filter(|conn| conn.takes_messages()) else {
            return Err(SendError::Closed);
        };
        let len = self.codec.wire_len(parts)?;
        // Checked before anything is queued, and for one oversized message just as for the last of many.
        if conn.outbox.len() + len > self.max_outbox {
            // What cannot be framed is its sender's mistake, and the peer does not pay for it.
            self.codec.encoded_len(parts)?;
            self.has_no_room(id);
            return Err(SendError::Full);
        }
        let before = conn.outbox.charge();
        conn.outbox.append(&mut self.pool, |buffer| {
            self.codec.try_encode(parts, buffer)
        })?;
        self.stats.messages_out += 1;
        self.queued_more(id, before, Writing::Queued);
        Ok(())
    }

    /// Queues a message for all but `except`. See [`Context::broadcast`].
    pub fn broadcast(
        &mut self,
        message: &[u8],
        except: Option<ConnId>,
    ) -> Result<usize, SendError> {
        let len = self.codec.encoded_len(&[message])?;
        let shared = (len >= SHARED_FROM).then(|| {
            let mut wire = Vec::with_capacity(len);
            self.codec.encode(&[message], &mut wire);
            self.memory.share(wire)
        });
        let mut receivers = 0;
        for slot in 0..self.conns.capacity() {
            let Some(conn) = self.conns.get_mut(slot) else {
                continue;
            };
            let id = ConnId::new(slot, conn.generation);
            if Some(id) == except || !conn.takes_messages() {
                continue;
            }
            if conn.outbox.len() + len > self.max_outbox {
                self.has_no_room(id);
                continue;
            }
            let before = conn.outbox.charge();
            match &shared {
                Some(wire) => conn.outbox.append_shared(&mut self.pool, wire),
                None => conn.outbox.append(&mut self.pool, |buffer| {
                    self.codec.encode(&[message], buffer)
                }),
            }
            receivers += 1;
            self.queued_more(id, before, Writing::Told);
        }
        self.stats.messages_out += receivers as u64;
        Ok(receivers)
    }

    /// A message does not fit.
    fn has_no_room(&mut self, id: ConnId) {
        if self.on_slow == OnSlow::Drop && self.answering != Some(id) {
            self.stats.messages_dropped += 1;
        } else {
            self.close(id, CloseReason::SlowReader);
        }
    }

    /// Answers pings, and counts pongs. That they came was life already.
    pub(super) fn handle_heartbeats(&mut self, id: ConnId, pings: u32, pongs: u32) {
        self.stats.pings_in += u64::from(pings);
        self.stats.pongs_in += u64::from(pongs);
        let Some(conn) = live(&mut self.conns, id) else {
            return;
        };
        if pings == 0 {
            return;
        }
        conn.speech = Speech::Beating;
        if !conn.takes_messages() {
            return;
        }
        let pong = self.codec.pong();
        // Where there is no room for an answer, unread replies wait already, and they answer as well.
        let room = self.max_outbox.saturating_sub(conn.outbox.len()) / pong.len();
        let answers = room.min(pings as usize);
        let before = conn.outbox.charge();
        conn.outbox.append(&mut self.pool, |buffer| {
            (0..answers).for_each(|_| buffer.extend_from_slice(pong))
        });
        self.queued_more(id, before, Writing::Queued);
    }

    /// Asks a quiet peer. A queue that is stuck asks by itself: its unacknowledged bytes are the question, and a ping behind them would
    /// not be heard any sooner. The same goes for a queue without room for a ping.
    pub(super) fn push_ping(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = live(&mut self.conns, id) else {
            return;
        };
        conn.pinged(now);
        let ping = self.codec.ping();
        if !conn.is_blocked() && conn.outbox.len() + ping.len() <= self.max_outbox {
            let before = conn.outbox.charge();
            conn.outbox
                .append(&mut self.pool, |buffer| buffer.extend_from_slice(ping));
            self.stats.pings_out += 1;
            self.queued_more(id, before, Writing::Queued);
        }
    }

    /// After every append: see that it is flushed, that a peer which does not read is not read from, and that memory suffices. `charge` is that
    /// of the outbox before; `writing` is in which list it is to be flushed.
    fn queued_more(&mut self, id: ConnId, charge: usize, writing: Writing) {
        let Some(conn) = self.conns.get_mut(id.slot()) else {
            return;
        };
        self.memory.recount(charge, conn.outbox.charge());
        let most = self.max_outbox / THROTTLE_ABOVE;
        let most = if self.memory.is_tight() {
            most.min(TIGHT_THROTTLE)
        } else {
            most
        };
        // A blocked connection is flushed when the kernel says that it may be.
        let moves = conn.writing == Writing::Idle
            || (conn.writing == Writing::Told && writing == Writing::Queued);
        if moves && !conn.outbox.is_empty() {
            conn.writing = writing;
            let list = if writing == Writing::Told {
                &mut self.told
            } else {
                &mut self.dirty
            };
            list.push_back(id);
        }
        if conn.outbox.len() > most && conn.phase == Phase::Open && !conn.is_throttled() {
            conn.reading.stop(Reading::THROTTLED);
            self.stats.throttled += 1;
        }
        self.keep_within_memory();
    }

    /// The next connection that has something to write: an answer, a ping, a message for it alone, and whatever waits before that. Each comes once per
    /// turn at most, after everything of the turn was queued.
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        self.next_to_write(Writing::Queued)
    }

    /// The next of those that have nothing to write but what was broadcast. To be asked for some of them in each turn, after the others: a message to
    /// everybody then keeps no answer waiting, and answers do not keep it.
    pub fn poll_told(&mut self) -> Option<ConnId> {
        self.next_to_write(Writing::Told)
    }

    fn next_to_write(&mut self, writing: Writing) -> Option<ConnId> {
        loop {
            let list = if writing == Writing::Told {
                &mut self.told
            } else {
                &mut self.dirty
            };
            let id = list.pop_front()?;
            // It may have left its place, or be over.
            let Some(conn) = self.conn_mut(id).filter(|conn| conn.writing == writing) else {
                continue;
            };
            conn.writing = Writing::Idle;
            if !matches!(conn.phase, Phase::Closed(_)) {
                return Some(id);
            }
        }
    }

    /// Fills `slices` with the first bytes to write, for one vectored write; returns how many slices it filled. 0 if there is nothing.
    pub fn outgoing<'a>(&'a self, id: ConnId, slices: &mut [IoSlice<'a>]) -> usize {
        match self.conn(id) {
            Some(conn) if !matches!(conn.phase, Phase::Closed(_)) => conn.outbox.peek(slices),
            _ => 0,
        }
    }

    /// The kernel has taken `n` bytes of [`Engine::outgoing`].
    pub fn handle_written<H: Handler + ?Sized>(
        &mut self,
        now: Millis,
        id: ConnId,
        n: usize,
        handler: &mut H,
    ) {
        self.advance(now);
        let Some(conn) = live(&mut self.conns, id) else {
            return;
        };
        let charge = conn.outbox.charge();
        conn.outbox.advance(n, &mut self.pool);
        self.memory.recount(charge, conn.outbox.charge());
        conn.bytes_out += n as u64;
        self.stats.bytes_out += n as u64;
        let left = conn.outbox.len();
        let drained = left == 0;
        let was_blocked = conn.is_blocked();
        let was_throttled = conn.is_throttled();
        let resume_below = self.max_outbox / THROTTLE_BELOW;
        let resume_below = if self.memory.is_tight() {
            resume_below.min(TIGHT_THROTTLE / 2)
        } else {
            resume_below
        };
        if was_blocked && drained {
            conn.writing = Writing::Idle;
        }
        // Room in a full socket buffer comes from nothing but the peer's acknowledgements; and one that is ending is judged by its queue alone.
        if n > 0 && (was_blocked || conn.phase != Phase::Open) {
            conn.outbox.set_moved_at(self.now);
            self.seen(id);
        }
        if was_throttled && left <= resume_below {
            self.resume_reading(id, Reading::THROTTLED);
        }
        if drained {
            self.finish_if_flushed(id);
            if (was_blocked || was_throttled) && self.is_open(id) {
                handler.on_drained(&mut Context { engine: self }, id);
            }
        }
    }

    /// The kernel takes no more for now. The driver watches for room until [`Engine::is_blocked`] says `false`.
    pub fn handle_blocked(&mut self, id: ConnId) {
        let now = self.now;
        if let Some(conn) = self.conn_mut(id)
            && !conn.outbox.is_empty()
            && !conn.is_blocked()
        {
            conn.writing = Writing::Blocked;
            conn.outbox.set_moved_at(now);
            if conn.phase == Phase::Open {
                self.schedule_check(id);
            }
        }
    }

    /// Whether the kernel has taken less than it was given, and the rest waits for room.
    pub fn is_blocked(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(Conn::is_blocked)
    }

    /// Closes a connection that was only waiting for its queue to go out; otherwise sees to it that it does not wait for ever.
    pub(super) fn finish_if_flushed(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let reason = match conn.phase {
            Phase::PeerShut => CloseReason::PeerClosed,
            Phase::Flushing(reason) => reason,
            Phase::Greeting | Phase::Open | Phase::Closed(_) | Phase::Refused(_) => return,
        };
        if conn.outbox.is_empty() {
            self.close(id, reason);
        } else {
            self.schedule_check(id);
        }
    }
}
