//! The engine: every decision about every connection, and no descriptor, no clock, no thread.
//!
//! A driver tells it what happened (`handle_*`) and asks what to do (`poll_*`). One turn, in this
//! order:
//!
//! 1. [`Engine::advance`], then commands from other threads: [`Engine::send`],
//!    [`Engine::broadcast`], [`Engine::close_on_request`], [`Engine::handle_shutdown`];
//! 2. readiness: [`Engine::handle_open`] for what was accepted (or [`Engine::handle_rejection`]),
//!    [`Engine::handle_bytes`], [`Engine::handle_eof`], [`Engine::handle_failure`] for what was
//!    read;
//! 3. connections left over from earlier turns, and those of [`Engine::poll_readable`], each after
//!    [`Engine::resume_decoding`]; then [`Engine::handle_fanouts`];
//! 4. [`Engine::handle_timers`], then a final read of each [`Engine::poll_final_read`] and
//!    [`Engine::handle_final_read`];
//! 5. [`Engine::poll_dirty`], and some of [`Engine::poll_broadcast_only`]: write
//!    [`Engine::outgoing`], report with [`Engine::handle_written`] and [`Engine::handle_blocked`];
//! 6. [`Engine::poll_closed`] and [`Engine::poll_rejected`]: drop the sockets.
//!
//! Calls that decode or deliver take a budget of [`Work`], so that a turn is short whatever peers
//! send. While [`Engine::is_congested`], nothing is read or accepted and no close is reported.
//!
//! [`Engine::poll_timeout`] says when to be back at the latest, and [`Engine::has_work`] whether
//! that is at once, because a budget ran out. Calls with a stale [`ConnId`] do nothing. A time
//! before that of an earlier call counts as equal to it.
//!
//! [`driver::Driver`] has these steps, with their budgets, for real sockets; the server and the
//! simulation of `tests/sim` implement it.
//!
//! A driver for one peer, whose socket is two buffers:
//!
//! ```
//! use std::io::IoSlice;
//!
//! use heartline::engine::{Engine, FinalRead, Work, budgets};
//! use heartline::time::Timestamp;
//! use heartline::{Config, ConnId, Context, Handler};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
//!         let _ = cx.send_parts(id, &[b"echo: ", message]);
//!     }
//! }
//!
//! /// One turn; `received` is what the peer sent, `sent` what it is sent.
//! fn turn(
//!     engine: &mut Engine,
//!     now: Timestamp,
//!     id: ConnId,
//!     received: &mut Vec<u8>,
//!     sent: &mut Vec<u8>,
//! ) {
//!     engine.advance(now);
//!     // 1. Commands of other threads come here.  2. What the socket is ready for.
//!     if !received.is_empty() && engine.wants_read(id) {
//!         let mut work = Work::new(budgets::READ_WORK);
//!         engine.handle_bytes(now, id, &received[..], &mut work, &mut Echo);
//!         received.clear();
//!     }
//!     // 3. What earlier turns have left over.
//!     while let Some(id) = engine.poll_readable() {
//!         engine.resume_decoding(now, id, &mut Work::new(budgets::READ_WORK), &mut Echo);
//!     }
//!     engine.handle_fanouts(now, &mut Work::new(budgets::FANOUT_WORK), &mut Echo);
//!     // 4. Pings and verdicts, each after a final read.
//!     engine.handle_timers(now, budgets::CHECKS_AT_ONCE);
//!     while let Some(id) = engine.poll_final_read() {
//!         let found = FinalRead { unread: !received.is_empty(), ..FinalRead::default() };
//!         engine.handle_final_read(now, id, found);
//!     }
//!     // 5. Output. A socket that takes less than all is reported by handle_blocked().
//!     while let Some(id) = engine.poll_dirty().or_else(|| engine.poll_broadcast_only()) {
//!         let mut slices = [IoSlice::new(&[]); budgets::SLICES_PER_WRITE];
//!         let filled = engine.outgoing(id, &mut slices);
//!         let before = sent.len();
//!         slices[..filled].iter().for_each(|slice| sent.extend_from_slice(slice));
//!         engine.handle_written(now, id, sent.len() - before, &mut Echo);
//!     }
//!     // 6. The ends.
//!     while let Some((_, closed)) = engine.poll_closed(now, &mut Echo) {
//!         println!("closed: {}", closed.reason);
//!     }
//! }
//!
//! let mut engine = Engine::new(&Config::default())?;
//! let peer = "192.0.2.7:5000".parse().expect("an address");
//! let id = engine.handle_open(Timestamp::ZERO, peer, &mut Echo).expect("there is room");
//!
//! let (mut received, mut sent) = (b"hello\n".to_vec(), Vec::new());
//! turn(&mut engine, Timestamp::from_ms(10), id, &mut received, &mut sent);
//! assert_eq!(sent, b"echo: hello\n");
//!
//! // The peer says nothing more: three pings, then the end, 20 s after its last byte.
//! let mut now = Timestamp::ZERO;
//! while let Some(at) = engine.poll_timeout() {
//!     now = at;
//!     turn(&mut engine, now, id, &mut received, &mut sent);
//! }
//! assert_eq!(sent, b"echo: hello\nping\nping\nping\n");
//! assert!((20_010..20_120).contains(&now.as_ms()));
//! # Ok::<(), heartline::Error>(())
//! ```

mod accept;
mod admission;
mod app_timers;
pub mod budgets;
mod closing;
mod conn;
mod control;
mod deadlines;
mod drain;
pub mod driver;
mod failure_limiter;
mod fanout;
mod handler;
mod liveness;
mod login;
mod memory;
mod memory_limit;
mod names;
mod snapshot;
// Public for benches and fuzzing; not part of the API.
#[doc(hidden)]
pub mod outbox;
mod rate_limiter;
mod ready_set;
mod receiving;
mod reconfigure;
mod sending;
mod stats;
mod timers;
#[doc(hidden)]
pub mod wheel;
mod work;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use slab::Slab;

pub use fanout::{Broadcast, BroadcastId};
pub use handler::{Close, CloseMode, Closed, Context, Handler};
pub use login::{Identity, LoginDecision, LoginRequest};
pub use names::NameCounts;
pub use ready_set::ReadySet;
pub use snapshot::ConnectionInfo;
pub use stats::{Histogram, Stats};
pub use timers::FinalRead;
pub use work::Work;

use crate::access_list::Networks;
use crate::close::CloseReason;
use crate::config::{Config, Heartbeat, OnFull, OnSlow};
use crate::directory::Directory;
use crate::error::ConfigError;
use crate::framing::Codec;
use crate::id::ConnId;
use crate::time::{Timestamp, duration_to_ms};
use admission::Admission;
use app_timers::AppTimers;
use conn::Conn;
use control::OwnInterval;
use deadlines::Deadlines;
use drain::Drain;
use fanout::Fanouts;
use liveness::Liveness;
use login::Logins;
use memory::Memory;
use outbox::Pool;
use rate_limiter::RateLimiter;
use wheel::Wheel;

/// All connections of one server, and everything decided about them.
pub struct Engine {
    now: Timestamp,
    conns: Slab<Conn>,
    /// That of the connection that was opened last.
    generation: u32,
    wheel: Wheel,
    tick_ms: u64,
    /// What one step of the wheel lasts: see [`SLOTS_PER_TICK`].
    slot_ms: u64,
    codec: Codec,
    liveness: Option<Liveness>,
    /// The settings that `liveness` was made of.
    heartbeat: Option<Heartbeat>,
    /// The heartbeats of connections that were granted one of their own.
    beats: HashMap<ConnId, OwnInterval>,
    /// The shortest interval or retry that was ever granted.
    shortest_beat_ms: u64,
    app_timers: AppTimers,
    /// The codes of connections that the application closes with one.
    codes: HashMap<ConnId, u16>,
    /// The connection that `on_open` is called for, and whether it is rejected there.
    opening: Option<(ConnId, bool)>,
    logins: Logins,
    directory: Directory,
    deadlines: Deadlines,
    max_outbox: usize,
    on_slow: OnSlow,
    memory: Memory,
    /// The connection whose message is with the handler: what the handler sends to it is a reply.
    current_sender: Option<ConnId>,
    admission: Admission,
    on_full: OnFull,
    /// The idlest connections when they were final readed for, with when they were last seen; the
    /// idlest is last.
    idlest: Vec<(Timestamp, ConnId)>,
    /// Balancers, whose connections begin with a PROXY header.
    proxies: Networks,
    rate_limiter: Option<RateLimiter>,
    pool: Pool,
    stats: Stats,
    goodbye: Option<Box<[u8]>>,
    /// Once a shutdown has begun.
    drain: Option<Drain>,
    /// Connections with something to write, each once (`Writing::Queued`).
    dirty: VecDeque<ConnId>,
    /// Connections with only a broadcast queued (`Writing::BroadcastOnly`). A connection that
    /// moves to `dirty` leaves a stale entry here; it is skipped.
    broadcast_only: VecDeque<ConnId>,
    fanouts: Fanouts,
    /// Units of work that callbacks have spent and no budget has paid for yet.
    spent: u32,
    /// Connections that may be read again after a pause.
    readable: VecDeque<ConnId>,
    /// Connections that are off the wheel and wait for a final read, and since when each has been
    /// due.
    final_reads: VecDeque<(ConnId, Timestamp)>,
    closed: VecDeque<ConnId>,
    /// For how many milliseconds connections that were closed for it had acknowledged nothing, in
    /// the order of the closes.
    evidence: VecDeque<(ConnId, u64)>,
    /// Connections that were rejected before their PROXY header was complete.
    refused: VecDeque<ConnId>,
}

/// Reading from a peer stops above this share of `max_outbox`, and resumes at this share of that
/// mark. The upper half of the outbox is room for messages of others.
const THROTTLE_ABOVE: usize = 2;
const THROTTLE_BELOW: usize = 2;

/// Slots of the wheel per tick. Pings to many connections, and closes of connections that fell
/// silent together, are spread over a tick instead of a burst at its end.
const SLOTS_PER_TICK: u64 = 8;

/// How long a connection that is being closed may make no progress where there is no heartbeat: the
/// default heartbeat's timeout.
const FLUSH_TIMEOUT_MS: u64 = 20_000;

impl Engine {
    /// An engine without connections, at time zero, that admits as many as a poll token can name.
    ///
    /// Fails as [`Config::check`] does. The configuration's socket options, listen and descriptor
    /// limits are the driver's business.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let tick_ms = duration_to_ms(config.tick);
        let liveness = config
            .heartbeat
            .as_ref()
            .map(|heartbeat| Liveness::new(heartbeat, tick_ms, Timestamp::ZERO));
        Ok(Engine {
            now: Timestamp::ZERO,
            conns: Slab::new(),
            generation: 0,
            wheel: Wheel::new(),
            tick_ms,
            slot_ms: (tick_ms / SLOTS_PER_TICK).max(1),
            codec: config.codec()?,
            liveness,
            heartbeat: config.heartbeat.clone(),
            beats: HashMap::new(),
            shortest_beat_ms: u64::MAX,
            app_timers: AppTimers::default(),
            codes: HashMap::new(),
            opening: None,
            logins: Logins::new(&config.login),
            directory: Directory::default(),
            deadlines: Deadlines::new(&config.limits, flush_timeout_ms(liveness)),
            max_outbox: config.limits.max_outbox,
            on_slow: config.limits.on_slow,
            memory: Memory::new(config.limits.max_memory),
            current_sender: None,
            admission: Admission::new(
                max_connections(config),
                &config.limits,
                config.access.clone(),
            ),
            on_full: config.limits.on_full,
            idlest: Vec::new(),
            proxies: config.proxies.clone(),
            rate_limiter: config.limits.max_message_rate.map(RateLimiter::new),
            pool: Pool::default(),
            stats: Stats::default(),
            goodbye: config.goodbye.as_deref().map(Into::into),
            drain: None,
            dirty: VecDeque::new(),
            broadcast_only: VecDeque::new(),
            fanouts: Fanouts::default(),
            spent: 0,
            readable: VecDeque::new(),
            final_reads: VecDeque::new(),
            closed: VecDeque::new(),
            evidence: VecDeque::new(),
            refused: VecDeque::new(),
        })
    }

    /// The generation of the first connection is `generation`, not 1, so that ids of another
    /// engine, such as that of an earlier process, do not match. To be called before the first
    /// connection.
    pub fn set_first_generation(&mut self, generation: u32) {
        debug_assert!(self.conns.is_empty());
        self.generation = generation.wrapping_sub(1);
    }

    /// Sets the time at the beginning of a turn, for the calls that do not take it: those of
    /// commands. Without it, timeouts after a long quiet would begin in the past.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Reading or writing has failed: the connection is over, and what was queued is lost.
    pub fn handle_failure(&mut self, now: Timestamp, id: ConnId, reason: CloseReason) {
        self.advance(now);
        self.close(id, reason);
    }

    /// Whether anything that [`Engine::poll_readable`] and the other polls return is left over:
    /// then the next turn may not wait.
    pub fn has_work(&self) -> bool {
        self.can_release_senders()
            || !(self.dirty.is_empty()
                && self.broadcast_only.is_empty()
                && self.fanouts.is_empty()
                && self.readable.is_empty()
                && self.final_reads.is_empty()
                && self.closed.is_empty()
                && self.refused.is_empty()
                && !self.logins.is_work_left()
                && !self.app_timers.is_due())
    }

    /// The connection that a poll token names, if it still lives.
    pub(crate) fn conn_by_token(&self, token: usize) -> Option<ConnId> {
        let slot = ConnId::slot_of_token(token);
        let id = ConnId::new(slot, self.conns.get(slot)?.generation);
        (id.token() == token).then_some(id)
    }

    /// The peer's address; `None` if the connection is gone.
    pub fn peer_addr(&self, id: ConnId) -> Option<SocketAddr> {
        self.conn(id).map(Conn::peer)
    }

    /// Bytes queued for the connection; 0 if it is gone.
    pub fn queued(&self, id: ConnId) -> usize {
        self.conn(id).map_or(0, |conn| conn.outbox().len())
    }

    /// Whether messages can be queued for the connection.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(Conn::takes_messages)
    }

    /// Connections held, those included that wait to be reaped.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Most connections at once.
    pub fn max_connections(&self) -> usize {
        self.admission.max_connections()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Units of work that callbacks have spent and no budget has paid for yet.
    pub(crate) fn take_spent(&mut self) -> u32 {
        std::mem::take(&mut self.spent)
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns
            .get(id.slot())
            .filter(|conn| conn.generation == id.generation())
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        get_live_mut(&mut self.conns, id)
    }

    /// See [`Context::ids`].
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        let open = self.conns.iter().filter(|(_, conn)| conn.takes_messages());
        open.map(|(slot, conn)| ConnId::new(slot, conn.generation))
    }

    /// See [`Context::ids_in_slots`].
    pub(crate) fn open_ids_in(
        &self,
        from: usize,
        slots: usize,
    ) -> Option<impl Iterator<Item = ConnId> + '_> {
        let end = self.conns.capacity();
        let open = |slot: usize| {
            let conn = self.conns.get(slot).filter(|conn| conn.takes_messages())?;
            Some(ConnId::new(slot, conn.generation))
        };
        (from < end).then(|| (from..from.saturating_add(slots).min(end)).filter_map(open))
    }

    /// A longer gap between two readings of the clock is a stall: half of the shortest interval or
    /// retry in force. Without a heartbeat there is no verdict that a stall could forge.
    #[doc(hidden)]
    pub fn stall_ms(&self) -> u64 {
        self.heartbeat.as_ref().map_or(u64::MAX, |heartbeat| {
            duration_to_ms(heartbeat.shortest()).min(self.shortest_beat_ms) / 2
        })
    }
}

/// With a heartbeat, its timeout.
fn flush_timeout_ms(liveness: Option<Liveness>) -> u64 {
    liveness.map_or(FLUSH_TIMEOUT_MS, |liveness| liveness.bound_ms())
}

/// As many as are wanted, and no more than a poll token can name.
fn max_connections(config: &Config) -> usize {
    config
        .limits
        .max_connections
        .unwrap_or(usize::MAX)
        .min(ConnId::MAX_SLOTS)
}

/// The connection of that id, if it still lives; the engine's other fields stay free to be
/// borrowed.
fn get_live_mut(conns: &mut Slab<Conn>, id: ConnId) -> Option<&mut Conn> {
    conns
        .get_mut(id.slot())
        .filter(|conn| conn.generation == id.generation())
}

#[cfg(test)]
mod tests;
