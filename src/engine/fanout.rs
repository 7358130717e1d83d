//! Broadcasts: one message for many connections, for all of a moment or for a list of them,
//! delivered across turns.
//!
//! A broadcast costs work for each receiver, so a few bytes from one peer are a lot of work for the
//! server. With many connections it is therefore a sweep over the slab that stops when the budget
//! of a turn is spent. One sweep delivers all broadcasts that were called for before it began, so a
//! burst costs each receiver one visit. The peer whose messages led to them is not read until they
//! are complete.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::conn::{Conn, Reading, Writing};
use super::outbox::{Outbox, Pool, SharedBytes};
use super::sending::PING_EVERY_BYTES;
use super::{Context, Engine, Handler, Work, get_live_mut};
use crate::error::SendError;
use crate::id::ConnId;
use crate::time::Timestamp;

/// Broadcasts under way at most; the next one is [`SendError::Full`].
const MAX_BROADCASTS: usize = 512;
/// From this number on, no connection is read or accepted and no close is reported: all of these
/// can lead to more broadcasts.
const CONGESTED_FROM: usize = 128;
/// With at most this many slots in the slab, or receivers in a list, a broadcast is complete within
/// the call. Vacant slots count: a slab keeps those of its busiest time.
const INLINE_SLOTS: usize = 256;
/// Vacant slots of the slab skipped per unit of work.
const VACANT_SLOTS_PER_UNIT: usize = 16;
/// Audience per unit of work.
const RECEIVERS_PER_UNIT: u32 = 4;
/// Messages from this size on are queued as one shared segment instead of a copy for each receiver.
/// A smaller copy costs less than a segment.
const SHARED_FROM: usize = 512;

/// Names one broadcast of a server; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BroadcastId(u64);

impl fmt::Display for BroadcastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What became of a broadcast within the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// It is complete: the message is queued for this many connections.
    Complete(usize),
    /// It goes on in later turns. [`Handler::on_broadcast`] gets the id and the number of
    /// receivers when it is complete.
    Pending(BroadcastId),
}

struct Fanout {
    id: BroadcastId,
    wire: Arc<SharedBytes>,
    /// For peers that know the handshake, if they would misunderstand the other.
    escaped: Option<Arc<SharedBytes>>,
    receivers: Audience,
    /// The peer that is not read until this is complete.
    sender: Option<ConnId>,
    /// Connections that the message was queued for.
    delivered: usize,
}

/// Who gets a broadcast.
enum Audience {
    /// All but `except`. `generation` is the last one given out before the call: later connections
    /// are no receivers.
    All {
        except: Option<ConnId>,
        generation: u32,
    },
    /// These, in ascending order.
    List(Box<[ConnId]>),
}

impl Audience {
    fn contains(&self, id: ConnId) -> bool {
        match self {
            Audience::All { except, generation } => {
                Some(id) != *except && !is_later(id.generation(), *generation)
            }
            Audience::List(ids) => ids.binary_search(&id).is_ok(),
        }
    }

    /// The first slot of a receiver from `slot` on.
    fn next_slot(&self, slot: usize) -> Option<usize> {
        match self {
            Audience::All { .. } => Some(slot),
            Audience::List(ids) => {
                let next = ids.partition_point(|id| id.slot() < slot);
                ids.get(next).map(|id| id.slot())
            }
        }
    }

    /// Memory of a list.
    fn held(&self) -> usize {
        match self {
            Audience::All { .. } => 0,
            Audience::List(ids) => size_of_val::<[ConnId]>(ids),
        }
    }
}

impl Fanout {
    fn held(&self) -> usize {
        let escaped = self.escaped.as_ref().map_or(0, |wire| wire.bytes().len());
        self.wire.bytes().len() + escaped + self.receivers.held()
    }

    /// The bytes for a connection that knows the handshake, or does not.
    fn wire(&self, is_extended: bool) -> &Arc<SharedBytes> {
        match &self.escaped {
            Some(escaped) if is_extended => escaped,
            _ => &self.wire,
        }
    }
}

/// All broadcasts of a sweep in one piece: most connections get all of them.
struct Burst {
    wire: Arc<SharedBytes>,
    /// Connections that are no receivers of one or another.
    excepts: Vec<ConnId>,
    /// The last generation assigned before the first of the calls.
    generation: u32,
    receivers: usize,
}

/// All broadcasts under way, in the order of the calls.
#[derive(Default)]
pub(super) struct Fanouts {
    queue: VecDeque<Fanout>,
    /// What their messages hold in memory.
    bytes: usize,
    /// How many of them the sweep delivers, and the next slot that it visits.
    sweep: usize,
    cursor: usize,
    burst: Option<Burst>,
    /// Slots that have received every broadcast with a lower id, although the sweep has not passed
    /// them.
    ahead: HashMap<usize, u64>,
    next_id: u64,
    /// The handler has broadcast during the present message.
    pub(super) has_broadcast: bool,
    /// Peers whose broadcasts are complete and that are not read before memory is below half.
    waiting: Vec<ConnId>,
}

impl Fanouts {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn pop(&mut self) -> Option<Fanout> {
        let fanout = self.queue.pop_front()?;
        self.bytes -= fanout.held();
        Some(fanout)
    }

    /// Whether the sweep has delivered the broadcast of that index to the slot.
    fn has_passed(&self, index: usize, slot: usize) -> bool {
        index < self.sweep && slot < self.cursor
    }
}

impl Engine {
    /// Queues a message for all but `except`. See [`Context::broadcast`].
    pub fn broadcast(
        &mut self,
        message: &[u8],
        except: Option<ConnId>,
    ) -> Result<Broadcast, SendError> {
        let generation = self.generation;
        self.begin_fanout(message, Audience::All { except, generation })
    }

    /// Queues a message for each of `ids`. See [`Context::send_many`].
    pub fn send_many(&mut self, ids: &[ConnId], message: &[u8]) -> Result<Broadcast, SendError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        self.begin_fanout(message, Audience::List(ids.into()))
    }

    fn begin_fanout(
        &mut self,
        message: &[u8],
        receivers: Audience,
    ) -> Result<Broadcast, SendError> {
        let len = self.codec.encoded_len(&[message])?;
        let is_first = self.fanouts.is_empty();
        if len > self.max_outbox
            || self.fanouts.queue.len() >= MAX_BROADCASTS
            || (!is_first
                && self.fanouts.bytes + len + receivers.held() > self.memory.max_pending())
        {
            return Err(SendError::Full);
        }
        let inline = match &receivers {
            Audience::All { .. } if self.conns.capacity() <= INLINE_SLOTS => self.conns.len(),
            Audience::List(ids) if ids.len() <= INLINE_SLOTS => ids.len(),
            Audience::All { .. } | Audience::List(_) => usize::MAX,
        };
        let escape = self.codec.needs_escape(&[message]);
        let escaped = escape.then(|| self.share_wire(true, message));
        let id = BroadcastId(self.fanouts.next_id);
        self.fanouts.next_id += 1;
        self.fanouts.has_broadcast = true;
        let fanout = Fanout {
            id,
            wire: self.share_wire(false, message),
            escaped,
            receivers,
            sender: self.current_sender,
            delivered: 0,
        };
        self.fanouts.bytes += fanout.held();
        self.fanouts.queue.push_back(fanout);
        self.enforce_memory_limit();
        // Half of what one read of a peer may cause then stays below the limit that stops all
        // reading.
        self.spent = self.spent.saturating_add(1);
        if is_first && inline <= INLINE_SLOTS {
            let receivers = inline as u32;
            self.spent = self.spent.saturating_add(receivers / RECEIVERS_PER_UNIT);
            if self.sweep(&mut Work::new(u32::MAX)) {
                let complete = self.fanouts.pop();
                self.fanouts.sweep = 0;
                return Ok(Broadcast::Complete(
                    complete.map_or(0, |fanout| fanout.delivered),
                ));
            }
        }
        Ok(Broadcast::Pending(id))
    }

    fn share_wire(&mut self, escape: bool, message: &[u8]) -> Arc<SharedBytes> {
        let mut wire = Vec::new();
        self.codec.encode_escaped(escape, &[message], &mut wire);
        self.memory.share(wire)
    }

    /// Continues the broadcasts under way, until they are complete, the budget is spent, or a
    /// receiver has to be flushed first.
    pub fn handle_fanouts<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        work: &mut Work,
        handler: &mut H,
    ) {
        self.advance(now);
        while !self.fanouts.is_empty() && self.sweep(work) {
            for _ in 0..std::mem::take(&mut self.fanouts.sweep) {
                let Some(fanout) = self.fanouts.pop() else {
                    break;
                };
                self.release_sender(fanout.sender);
                let mut cx = Context { engine: self };
                handler.on_broadcast(&mut cx, fanout.id, fanout.delivered);
            }
            if self.fanouts.is_empty() {
                self.fanouts.ahead = HashMap::new();
            }
        }
    }

    /// Whether there are so many broadcasts that nothing may be done that can lead to more:
    /// reading, accepting, reporting closes.
    pub fn is_congested(&self) -> bool {
        self.fanouts.queue.len() >= CONGESTED_FROM
    }

    /// Whether peers whose broadcasts are complete may be read again: memory is below half, or what
    /// is queued is stuck, which the senders did not cause.
    pub(super) fn can_release_senders(&self) -> bool {
        !self.fanouts.waiting.is_empty() && !self.must_wait_for_flush()
    }

    /// Whether memory is above half while connections wait to be flushed.
    fn must_wait_for_flush(&self) -> bool {
        self.memory.is_under_pressure() && self.is_flush_due()
    }

    fn is_flush_due(&self) -> bool {
        !(self.dirty.is_empty() && self.broadcast_only.is_empty())
    }

    /// Lets those peers be read again.
    pub(super) fn release_senders(&mut self) {
        if self.can_release_senders() {
            for id in std::mem::take(&mut self.fanouts.waiting) {
                self.resume_reading(id, Reading::FANOUT);
            }
        }
    }

    /// Delivers all broadcasts under way to one connection, so that the next message keeps the
    /// order of the calls. `false` if it has no room for them before it is flushed.
    pub(super) fn catch_up(&mut self, id: ConnId) -> bool {
        for index in 0..self.fanouts.queue.len() {
            if !self.fanouts.has_passed(index, id.slot()) && !self.deliver(id.slot(), index) {
                return false;
            }
        }
        self.skip_fanouts(id);
        true
    }

    /// The sweep does not deliver the broadcasts under way to this connection: it has them already,
    /// or was not open at the time of the calls.
    pub(super) fn skip_fanouts(&mut self, id: ConnId) {
        if !self.fanouts.is_empty() {
            self.fanouts.ahead.insert(id.slot(), self.fanouts.next_id);
        }
    }

    /// Continues the sweep, or begins one that delivers all that is queued. Returns whether it is
    /// complete.
    fn sweep(&mut self, work: &mut Work) -> bool {
        if self.fanouts.sweep == 0 {
            (self.fanouts.sweep, self.fanouts.cursor) = (self.fanouts.queue.len(), 0);
            self.fanouts.burst = self.burst();
        }
        if self.is_drain_over() {
            // No connection is open. Closed ones wait to be reaped until this is complete.
            self.fanouts.cursor = self.conns.capacity();
        }
        while self.fanouts.cursor < self.conns.capacity() {
            if work.is_spent() || self.must_flush_first() {
                return false;
            }
            let Some(slot) = self.next_receiver() else {
                self.fanouts.cursor = self.conns.capacity();
                break;
            };
            self.fanouts.cursor = slot;
            // A slab may have as many vacant slots as connections.
            if !self.conns.contains(slot) {
                self.fanouts.cursor += 1;
                work.spend(u32::from(slot.is_multiple_of(VACANT_SLOTS_PER_UNIT)));
                continue;
            }
            let mut units = 1;
            if !self.deliver_burst(slot) {
                for index in 0..self.fanouts.sweep {
                    if !self.deliver(slot, index) {
                        return false;
                    }
                }
                units += self.fanouts.sweep as u32 / RECEIVERS_PER_UNIT;
            }
            self.fanouts.cursor += 1;
            work.spend(units);
        }
        if let Some(burst) = self.fanouts.burst.take() {
            for fanout in self.fanouts.queue.iter_mut().take(self.fanouts.sweep) {
                fanout.delivered += burst.receivers;
            }
        }
        true
    }

    /// The next slot that the sweep has to visit.
    fn next_receiver(&self) -> Option<usize> {
        let queue = self.fanouts.queue.iter().take(self.fanouts.sweep);
        let mut next = None;
        for fanout in queue {
            let slot = fanout.receivers.next_slot(self.fanouts.cursor);
            if slot == Some(self.fanouts.cursor) {
                return slot;
            }
            next = next.into_iter().chain(slot).min();
        }
        next.filter(|slot| *slot < self.conns.capacity())
    }

    /// The broadcasts of the sweep in one piece, if there are several, all are for everybody, and
    /// they are small.
    fn burst(&self) -> Option<Burst> {
        let queue = &self.fanouts.queue;
        let len: usize = queue.iter().map(|fanout| fanout.wire.bytes().len()).sum();
        if queue.len() <= 1 || len >= PING_EVERY_BYTES || !self.memory.has_space_for(len) {
            return None;
        }
        let mut wire = Vec::with_capacity(len);
        let mut excepts = Vec::new();
        let mut first_generation = None;
        for fanout in queue {
            let Audience::All { except, generation } = &fanout.receivers else {
                return None;
            };
            if fanout.escaped.is_some() {
                return None;
            }
            wire.extend_from_slice(fanout.wire.bytes());
            excepts.extend(*except);
            first_generation.get_or_insert(*generation);
        }
        excepts.sort_unstable();
        excepts.dedup();
        Some(Burst {
            wire: self.memory.share(wire),
            excepts,
            generation: first_generation?,
            receivers: 0,
        })
    }

    /// Queues all broadcasts of the sweep at once, if the connection in the slot gets every one of
    /// them and has room.
    fn deliver_burst(&mut self, slot: usize) -> bool {
        let Fanouts { burst, ahead, .. } = &mut self.fanouts;
        let (Some(burst), Some(conn)) = (burst, self.conns.get_mut(slot)) else {
            return false;
        };
        let id = ConnId::new(slot, conn.generation);
        let len = burst.wire.bytes().len();
        let is_receiver = !is_later(conn.generation, burst.generation)
            && conn.takes_messages()
            && conn.outbox().len() + len <= self.max_outbox
            && (ahead.is_empty() || !ahead.contains_key(&slot))
            && burst.excepts.binary_search(&id).is_err();
        if is_receiver {
            append(
                &mut conn.outbox_mut(&mut self.memory),
                &mut self.pool,
                &burst.wire,
            );
            burst.receivers += 1;
            self.stats.messages_queued += self.fanouts.sweep as u64;
            self.after_enqueue(id, len, Writing::BroadcastOnly);
        }
        is_receiver
    }

    /// Whether memory is short while connections wait to be flushed: writing frees memory
    /// without closing a connection.
    fn must_flush_first(&self) -> bool {
        self.memory.is_short() && self.is_flush_due()
    }

    /// Queues one of the broadcasts for the connection in a slot, if it is a receiver that has not
    /// got it yet and has room. `false` if there will be room after a flush.
    fn deliver(&mut self, slot: usize, index: usize) -> bool {
        let Fanouts { queue, ahead, .. } = &mut self.fanouts;
        let (Some(fanout), Some(conn)) = (queue.get_mut(index), self.conns.get_mut(slot)) else {
            return true;
        };
        let id = ConnId::new(slot, conn.generation);
        let is_receiver = fanout.receivers.contains(id) && conn.takes_messages();
        let has_it = !ahead.is_empty() && ahead.get(&slot).is_some_and(|to| fanout.id.0 < *to);
        if !is_receiver || has_it {
            return true;
        }
        let wire = fanout.wire(conn.is_extended());
        let len = wire.bytes().len();
        if conn.outbox().len() + len > self.max_outbox {
            if conn.waits_for_flush() {
                // It has all earlier ones, and must not get them again.
                ahead.insert(slot, fanout.id.0);
                return false;
            }
            self.handle_full_outbox(id);
            return true;
        }
        append(&mut conn.outbox_mut(&mut self.memory), &mut self.pool, wire);
        fanout.delivered += 1;
        self.stats.messages_queued += 1;
        self.after_enqueue(id, len, Writing::BroadcastOnly);
        true
    }

    /// Stops reading from a peer whose messages have led to broadcasts that are not complete.
    pub(super) fn hold_sender(&mut self, id: ConnId) {
        if !std::mem::take(&mut self.fanouts.has_broadcast) {
            return;
        }
        let must_wait = self.must_wait_for_flush();
        let is_pending = self.has_broadcasts(id);
        if (is_pending || must_wait)
            && let Some(conn) = get_live_mut(&mut self.conns, id)
        {
            conn.reading.stop(Reading::FANOUT);
            if !is_pending {
                self.fanouts.waiting.push(id);
            }
        }
    }

    /// Whether a broadcast that the peer's messages led to is not complete.
    fn has_broadcasts(&self, id: ConnId) -> bool {
        let mut queue = self.fanouts.queue.iter();
        queue.any(|fanout| fanout.sender == Some(id))
    }

    /// Reads from the sender again once its last broadcast is complete and memory is below half.
    fn release_sender(&mut self, sender: Option<ConnId>) {
        let Some(id) = sender.filter(|id| !self.has_broadcasts(*id)) else {
            return;
        };
        let is_held = |conn: &Conn| conn.reading.is_stopped_by(Reading::FANOUT);
        if !self.must_wait_for_flush() {
            self.resume_reading(id, Reading::FANOUT);
        } else if self.conn(id).is_some_and(is_held) {
            self.fanouts.waiting.push(id);
        }
    }
}

fn append(outbox: &mut Outbox, pool: &mut Pool, wire: &Arc<SharedBytes>) {
    if wire.bytes().len() >= SHARED_FROM {
        outbox.append_shared(pool, wire);
    } else {
        outbox.append(pool, |buffer| buffer.extend_from_slice(wire.bytes()));
    }
}

/// Whether a connection of that generation was opened after `last` was the last one.
fn is_later(generation: u32, last: u32) -> bool {
    generation.wrapping_sub(last).cast_signed() > 0
}
