//! The simulated server: the driver of `src/engine/driver.rs` on wires instead of sockets, watched
//! by the oracle.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use heartline::engine::budgets::{
    EVENTS_PER_TURN, SCRATCH_BYTES, SLICES_PER_WRITE, SOCKET_WORK, TurnBudgets,
    WORK_PER_CLOCK_READING,
};
use heartline::engine::driver::{self, Driver, Readiness, Received, Written};
use heartline::engine::wheel::SLOTS;
use heartline::engine::{Engine, FinalRead, ReadySet, Work};
use heartline::time::{AwakeClock, Timestamp, duration_to_ms};
use heartline::{
    Close, CloseReason, Closed, Config, ConnId, DenyReason, LoginDecision, Name, OnDuplicate,
    RejectReason,
};

use crate::app::{self, App};
use crate::net::{Event, Net};
use crate::oracle::Oracle;

/// The budgets of a turn, here at random, and the faults of a kernel.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// The budgets of the driver.
    pub turn: TurnBudgets,
    pub events: usize,
    pub scratch_bytes: usize,
    pub slices: usize,
    pub sockets_per_clock_reading: u32,
    /// Virtual time that passes between two readings of the clock in one turn, at most.
    pub drift_ms: u64,
    /// Virtual time that a unit of work takes, and a socket, a check or a write.
    pub unit_ns: u64,
    pub call_ns: u64,
    /// Chances in a thousand: a read or write that is interrupted, finds nothing, or takes less
    /// than it could.
    pub faults: u32,
}

impl Default for Budgets {
    /// The budgets of `Server`.
    fn default() -> Self {
        Budgets {
            turn: TurnBudgets::DEFAULT,
            events: EVENTS_PER_TURN,
            scratch_bytes: SCRATCH_BYTES,
            slices: SLICES_PER_WRITE,
            sockets_per_clock_reading: WORK_PER_CLOCK_READING / SOCKET_WORK,
            drift_ms: 0,
            unit_ns: 0,
            call_ns: 0,
            faults: 0,
        }
    }
}

pub enum Command {
    Send(ConnId, Rc<[u8]>),
    Broadcast(Rc<[u8]>),
    Close(ConnId, Close),
    Resume(ConnId),
    Login(ConnId, bool),
    ExpireLogin(ConnId),
    Shutdown(u64),
    Reconfigure(Box<Config>),
}

/// More rounds of checks than any run needs in one turn. Virtual time may stand still in them, so
/// the share of the turn does not end them.
const MAX_TIMER_ROUNDS: usize = 1_000_000;

pub struct SimServer {
    pub engine: Engine,
    pub oracle: Oracle,
    pub commands: VecDeque<Command>,
    /// The settings in force.
    pub config: Config,
    budgets: Budgets,
    /// Most bytes that any queue may hold: the limit, or what it held already when the limit was
    /// lowered.
    most_queued: usize,
    rng: fastrand::Rng,
    /// The line of each slot, as the server keeps its sockets.
    sockets: Vec<Option<usize>>,
    ready: ReadySet,
    /// Faults are off during a final read: the kernel does not hide bytes.
    in_final_read: bool,
    timer_rounds: usize,
    /// Events of this turn that were not handled yet.
    events: Vec<Event>,
    scratch: Vec<u8>,
    awake: AwakeClock,
    pub now: Timestamp,
    raw_ms: u64,
    /// Virtual time that work has taken and the clock does not show yet.
    spent_ns: u64,
    turn_began_ms: u64,
    /// The longest that a check or final read was late.
    pub max_lag_ms: u64,
    pub longest_turn_ms: u64,
    /// Most memory that may be held, where a reload has lowered the limit, and until when.
    memory_allowance: (usize, Timestamp),
    sockets_since_clock: u32,
    pub accepting: bool,
    /// Ids of connections that are gone.
    stale: Vec<ConnId>,
    /// Whether this turn has done any work.
    busy: bool,
}

impl SimServer {
    pub fn new(config: &Config, budgets: Budgets, seed: u64) -> Self {
        let engine = Engine::new(config).expect("a valid configuration");
        let stall_ms = engine.stall_ms();
        SimServer {
            engine,
            oracle: Oracle::new(config),
            commands: VecDeque::new(),
            config: config.clone(),
            most_queued: config.limits.max_outbox,
            rng: fastrand::Rng::with_seed(seed),
            sockets: Vec::new(),
            ready: ReadySet::default(),
            in_final_read: false,
            timer_rounds: 0,
            events: Vec::new(),
            scratch: vec![0; budgets.scratch_bytes],
            awake: AwakeClock::new(stall_ms),
            now: Timestamp::ZERO,
            raw_ms: 0,
            spent_ns: 0,
            turn_began_ms: 0,
            max_lag_ms: 0,
            longest_turn_ms: 0,
            memory_allowance: (0, Timestamp::ZERO),
            sockets_since_clock: 0,
            accepting: true,
            stale: Vec::new(),
            busy: false,
            budgets,
        }
    }

    /// How far ahead the wheel sees: its steps are an eighth of a tick.
    pub fn horizon_ms(&self) -> u64 {
        SLOTS as u64 * (duration_to_ms(self.config.tick) / 8).max(1)
    }

    /// One turn at `net.now_ms`; time may have moved on when it returns. Returns whether it did any
    /// work.
    pub fn turn(&mut self, net: &mut Net, app: &mut App) -> bool {
        self.busy = false;
        let due_ms = self.engine.poll_timeout().map(|at| at.ms_since(self.now));
        let expected = self.next_wait_ms().map(|wait_ms| self.now.plus_ms(wait_ms));
        self.raw_ms = net.now_ms;
        self.turn_began_ms = self.raw_ms;
        self.now = self.awake.read(Timestamp::from_ms(self.raw_ms), due_ms);
        self.engine.advance(self.now);
        self.sockets_since_clock = 0;
        self.oracle
            .late_ms(expected.map_or(0, |expected| self.now.ms_since(expected)));

        app.trace.note("turn", self.raw_ms, &[self.now.as_ms()]);
        self.events = net.poll(self.budgets.events);
        self.timer_rounds = 0;
        let mut turn = SimTurn {
            server: self,
            net,
            app,
        };
        let late_ms = turn.run_turn();
        let lag_ms = turn.end_turn(late_ms);
        self.awake.set_threshold_ms(self.engine.stall_ms());
        self.max_lag_ms = self.max_lag_ms.max(lag_ms.unwrap_or(0));
        let turn_ms = self.raw_ms - self.turn_began_ms;
        self.longest_turn_ms = self.longest_turn_ms.max(turn_ms);
        let max_memory = self.config.limits.max_memory.unwrap_or(usize::MAX);
        let max_memory = match self.memory_allowance {
            (allowed, until) if self.now <= until => max_memory.max(allowed),
            _ => max_memory,
        };
        assert!(
            self.engine.buffered() <= max_memory,
            "{} bytes held, over the bound of {max_memory}",
            self.engine.buffered()
        );
        assert!(
            self.engine.buffered() == 0 || self.engine.connections() > 0 || self.engine.has_work(),
            "nobody is here, and something is held"
        );
        net.now_ms = self.raw_ms;
        self.busy
    }

    /// Milliseconds until the next turn without an event; `None` for ever.
    pub fn next_wait_ms(&self) -> Option<u64> {
        if !self.ready.is_empty() || self.engine.has_work() || !self.commands.is_empty() {
            return Some(0);
        }
        self.engine.poll_timeout().map(|at| at.ms_since(self.now))
    }

    /// Removes the socket of a connection that has left the engine, and returns its line.
    fn remove_socket(&mut self, id: ConnId) -> usize {
        self.busy = true;
        self.stale.push(id);
        let line = self.sockets[id.slot()].take();
        line.expect("a connection has a socket until it leaves the engine")
    }

    fn line_of(&self, id: ConnId) -> Option<usize> {
        self.sockets.get(id.slot()).copied().flatten()
    }

    /// The work that was done moves the clock.
    fn spend_time(&mut self) {
        self.raw_ms += self.spent_ns / 1_000_000;
        self.spent_ns %= 1_000_000;
    }

    fn read_clock(&mut self) {
        self.sockets_since_clock = 0;
        self.spend_time();
        let before = self.now;
        self.now = self.awake.read(Timestamp::from_ms(self.raw_ms), Some(0));
        self.engine.advance(self.now);
        self.oracle.late_ms(self.now.ms_since(before));
    }

    /// As `Server::reconfigure` does it: framing, words and tick stay, and invalid settings change
    /// nothing.
    fn reconfigure(&mut self, wanted: Config, app: &mut App) {
        let Config {
            framing,
            ref words,
            tick,
            ..
        } = self.config;
        let mode = self.config.login.mode;
        let mut config = Config {
            framing,
            words: words.clone(),
            tick,
            ..wanted
        };
        config.login.mode = mode;
        let before = (
            self.engine.stats().clone(),
            self.engine.has_work(),
            self.engine.poll_timeout(),
            self.engine.max_connections(),
        );
        if self.engine.reconfigure(self.now, &config).is_err() {
            let after = (
                self.engine.stats().clone(),
                self.engine.has_work(),
                self.engine.poll_timeout(),
                self.engine.max_connections(),
            );
            return assert_eq!(before, after, "settings at fault changed something");
        }
        self.awake.set_threshold_ms(self.engine.stall_ms());
        let flush_ms = config
            .heartbeat
            .as_ref()
            .map_or(20_000, |heartbeat| duration_to_ms(heartbeat.timeout()));
        let max = |config: &Config| config.limits.max_memory.unwrap_or(usize::MAX);
        if self.engine.buffered() > max(&config) {
            let (allowed, until) = self.memory_allowance;
            let before = if self.now <= until {
                allowed.max(max(&self.config))
            } else {
                max(&self.config)
            };
            // A tick, because the wheel may be late by one; more, because the loop may.
            self.memory_allowance = (before, self.now.plus_ms(flush_ms + 10_000));
        }
        self.most_queued = app
            .live_ids()
            .map(|(id, _)| self.engine.queued(id))
            .max()
            .unwrap_or(0)
            .max(config.limits.max_outbox);
        self.oracle.reconfigured(self.now, &config);
        app.trace.note("reconfigure", self.now.as_ms(), &[]);
        self.config = config;
    }

    /// Events of connections that are gone must change nothing at all.
    fn disturb_with_stale_ids(&mut self, app: &mut App) {
        if self.stale.is_empty() || self.budgets.faults == 0 {
            return;
        }
        let id = self.stale[self.rng.usize(0..self.stale.len())];
        let before = (
            self.engine.stats().clone(),
            self.engine.connections(),
            self.engine.has_work(),
            self.engine.poll_timeout(),
        );
        let mut work = Work::new(u32::MAX);
        self.engine
            .handle_bytes(self.now, id, b"ghost\n", &mut work, app);
        self.engine.resume_decoding(self.now, id, &mut work, app);
        self.engine.handle_progress(self.now, id, None);
        self.engine.handle_write_budget_spent(id);
        self.engine.handle_eof(self.now, id);
        self.engine
            .handle_failure(self.now, id, CloseReason::PeerReset);
        self.engine.handle_written(self.now, id, 0, app);
        self.engine.handle_blocked(id);
        self.engine
            .handle_final_read(self.now, id, FinalRead::default());
        self.engine.pause_reads(id, true);
        self.engine.pause_reads(id, false);
        assert!(!self.engine.decide_login(id, LoginDecision::Pending));
        assert!(
            !self.engine.wants_read(id)
                && !self.engine.is_blocked(id)
                && self.engine.outgoing(id, &mut [IoSlice::new(&[])]) == 0
        );
        let after = (
            self.engine.stats().clone(),
            self.engine.connections(),
            self.engine.has_work(),
            self.engine.poll_timeout(),
        );
        assert_eq!(before, after, "a stale id changed something");
    }

    /// Whether a signal interrupts the call.
    fn interrupts(&mut self) -> bool {
        self.rng.u32(0..1000) < self.budgets.faults / 4
    }

    /// Most bytes that a read may return: few of them now and then.
    fn kernel_takes(&mut self, len: usize) -> usize {
        if self.rng.u32(0..1000) < self.budgets.faults {
            self.rng.usize(0..=len.min(64))
        } else {
            usize::MAX
        }
    }
}

/// A simulated server in a turn.
struct SimTurn<'a> {
    server: &'a mut SimServer,
    net: &'a mut Net,
    app: &'a mut App,
}

impl Driver for SimTurn<'_> {
    type Handler = App;

    fn parts(&mut self) -> (&mut Engine, &mut App) {
        (&mut self.server.engine, self.app)
    }

    fn engine(&self) -> &Engine {
        &self.server.engine
    }

    fn ready(&mut self) -> &mut ReadySet {
        &mut self.server.ready
    }

    fn budgets(&self) -> &TurnBudgets {
        &self.server.budgets.turn
    }

    fn now(&self) -> Timestamp {
        self.server.now
    }

    fn elapsed(&mut self) -> Duration {
        self.server.timer_rounds += 1;
        assert!(
            self.server.timer_rounds < MAX_TIMER_ROUNDS,
            "the timers of one turn do not end"
        );
        self.server.spend_time();
        Duration::from_millis(self.server.raw_ms)
    }

    fn read_clock(&mut self) {
        self.server.read_clock();
    }

    fn reading(&self) -> Duration {
        Duration::from_millis(self.server.raw_ms)
    }

    fn turn_began(&self) -> Duration {
        Duration::from_millis(self.server.turn_began_ms)
    }

    /// Work takes time, and much work in one piece is followed by a reading of the clock.
    fn count_work(&mut self, units: u32) {
        let server = &mut *self.server;
        server.busy |= units > 0;
        server.spent_ns += u64::from(units) * server.budgets.unit_ns;
        if units > 64 && server.budgets.unit_ns > 0 {
            server.read_clock();
        }
    }

    fn count_socket(&mut self) {
        let server = &mut *self.server;
        server.busy = true;
        server.spent_ns += server.budgets.call_ns;
        server.sockets_since_clock += 1;
        if server.sockets_since_clock >= server.budgets.sockets_per_clock_reading {
            server.raw_ms += server.rng.u64(0..=server.budgets.drift_ms);
            server.read_clock();
        }
    }

    fn count_checks(&mut self, checks: usize) {
        self.server.spent_ns += checks as u64 * self.server.budgets.unit_ns;
    }

    fn begin_shutdown(&mut self) {
        let server = &mut *self.server;
        // A shutdown does not wait in the queue.
        let is_shutdown = |command: &Command| matches!(command, Command::Shutdown(_));
        while let Some(index) = server.commands.iter().position(is_shutdown) {
            if let Some(Command::Shutdown(grace_ms)) = server.commands.remove(index) {
                server.busy = true;
                server.accepting = false;
                server.oracle.draining = true;
                server.engine.handle_shutdown(server.now, grace_ms);
            }
        }
    }

    fn run_command(&mut self) -> bool {
        let (server, app) = (&mut *self.server, &mut *self.app);
        let Some(command) = server.commands.pop_front() else {
            return false;
        };
        server.busy = true;
        match command {
            Command::Send(id, message) => {
                let result = server.engine.send(id, &[&message]);
                app.sent(id, &message, result);
            }
            Command::Broadcast(message) => {
                let audience = app.audience(|id| server.engine.is_open(id), None);
                let result = server.engine.broadcast(&message, None);
                app.broadcast_called(&message, &audience, result);
            }
            Command::Close(id, how) => {
                let closed = server.engine.close_on_request(id, how);
                if let Some(line) = server
                    .line_of(id)
                    .filter(|line| server.oracle.is_awaiting_header(*line))
                {
                    app.lines[line].asked_to_close |= app.lines[line].id == Some(id);
                }
                if let Some(line) = app.line_of(id) {
                    app.lines[line].asked_to_close |= closed;
                    if !server.engine.is_open(id) {
                        server.oracle.flushing(line, server.now);
                    }
                }
            }
            Command::Login(id, accepts) => {
                let line = server.line_of(id);
                let hello = line.and_then(|line| app.lines[line].hello.as_ref());
                let name = hello.and_then(|hello| hello.name.as_deref());
                let name = name.map(|name| Name::new(name).expect("a name"));
                let was_live = is_live(&server.engine, id);
                let decision = app::decision(name.as_ref(), accepts);
                server.engine.decide_login(id, decision);
                if let Some(line) = line.filter(|_| was_live && !is_live(&server.engine, id)) {
                    server.oracle.flushing(line, server.now);
                }
            }
            Command::ExpireLogin(id) => {
                let info = server.engine.snapshot(id);
                let is_named = info.is_some_and(|info| info.name.is_some());
                let expires = is_named && is_live(&server.engine, id);
                assert_eq!(server.engine.expire_login(id), expires);
                if let Some(line) = server.line_of(id).filter(|_| expires) {
                    server.oracle.flushing(line, server.now);
                }
            }
            Command::Resume(id) => server.engine.pause_reads(id, false),
            Command::Shutdown(_) => unreachable!("taken before"),
            Command::Reconfigure(config) => server.reconfigure(*config, app),
        }
        true
    }

    /// The command queue is checked before each wait.
    fn wake(&mut self) {}

    fn handle_events(&mut self) {
        self.server.disturb_with_stale_ids(self.app);
        for event in std::mem::take(&mut self.server.events) {
            if let Some(id) = self.app.lines[event.line].id {
                let readiness = Readiness {
                    readable: event.readable,
                    writable: event.writable,
                    read_closed: event.read_closed,
                    error: event.error,
                };
                self.handle_ready(id, readiness);
            }
        }
    }

    fn accept_next(&mut self) -> bool {
        let Some(line) = self.net.accept() else {
            return false;
        };
        self.count_socket();
        let server = &mut *self.server;
        if server.rng.u32(0..1000) < server.budgets.faults / 4 {
            // Out of descriptors: turned away with the one in reserve.
            server.engine.handle_rejection(RejectReason::NoDescriptors);
            server.oracle.refused += 1;
            self.net.close(line);
            return true;
        }
        self.app.opening = Some(line);
        let max_connections = server.config.limits.max_connections.unwrap_or(usize::MAX);
        let before = server.engine.connections();
        let from = self.app.lines[line].origin.from;
        let opened = server.engine.stats().opened;
        let admitted = if server.accepting {
            server.engine.handle_open(server.now, from, self.app)
        } else {
            Err(RejectReason::ShuttingDown)
        };
        self.app.opening = None;
        let is_open = server.engine.stats().opened > opened;
        let id = match admitted {
            Ok(id) => id,
            Err(refusal) => {
                assert!(
                    refusal != RejectReason::Full || before >= max_connections,
                    "there was room"
                );
                server.oracle.refused(line, refusal, &self.app.lines[line]);
                server.oracle.refused += u64::from(server.accepting);
                self.net.close(line);
                return true;
            }
        };
        self.app.lines[line].id = Some(id);
        if !self.app.lines[line].is_known {
            self.app.accepted.insert(id, line);
        }
        if is_open {
            server
                .oracle
                .opened(line, server.now, &self.app.lines[line]);
        } else {
            server
                .oracle
                .awaiting_header(line, server.now, &self.app.lines[line]);
        }
        self.net.watch(line, false);
        if server.sockets.len() <= id.slot() {
            server.sockets.resize(id.slot() + 1, None);
        }
        assert_eq!(
            server.sockets[id.slot()].replace(line),
            None,
            "one tenant to a slot"
        );
        if server.engine.is_over_full() {
            self.reap(usize::MAX);
        }
        let server = &mut *self.server;
        // Connections from before the limit was lowered may stay.
        assert!(
            server.engine.connections() <= before.max(max_connections),
            "more connections than the limit allows"
        );
        server.oracle.made_room += u64::from(before >= max_connections);
        true
    }

    fn read_once(&mut self, id: ConnId) -> Option<io::Result<Received>> {
        let server = &mut *self.server;
        let line = server.line_of(id)?;
        let room = server.scratch.len();
        let max = if server.in_final_read {
            usize::MAX
        } else {
            server.kernel_takes(room)
        };
        if server.interrupts() {
            return Some(Err(ErrorKind::Interrupted.into()));
        }
        let read = self.net.read(line, &mut server.scratch, max);
        if let Ok(taken) = read {
            let is_blocked = server.engine.is_blocked(id);
            server.oracle.alive(line, server.now, is_blocked);
            if taken == 0 {
                server.oracle.flushing(line, server.now);
            } else {
                let bytes = &server.scratch[..taken];
                server.oracle.read(line, server.now, bytes);
            }
        }
        Some(read.map(|taken| Received { taken, room }))
    }

    fn handle_bytes(&mut self, id: ConnId, len: usize, work: &mut Work) {
        let (server, app) = (&mut *self.server, &mut *self.app);
        let Some(line) = server.line_of(id) else {
            return;
        };
        let awaiting_header = server.oracle.is_awaiting_header(line);
        let was_open = is_live(&server.engine, id);
        let opened = server.engine.stats().opened;
        server
            .engine
            .handle_bytes(server.now, id, &server.scratch[..len], work, app);
        if awaiting_header && server.engine.stats().opened > opened {
            server.oracle.opened(line, server.now, &app.lines[line]);
        }
        let is_over = !server.oracle.is_awaiting_header(line) && !is_live(&server.engine, id);
        if is_over && (was_open || awaiting_header) {
            server.oracle.flushing(line, server.now);
        }
    }

    fn log_in(&mut self) {
        let (server, app) = (&mut *self.server, &mut *self.app);
        app.allows_duplicates |= server.config.login.on_duplicate == OnDuplicate::Allow;
        let denials = |engine: &Engine| engine.stats().denied(DenyReason::NameInUse);
        let before = denials(&server.engine);
        let logins = server.engine.stats().logins;
        let budget = server.budgets.turn.accepts;
        server.engine.handle_logins(server.now, budget, app);
        if server.engine.stats().logins > logins {
            server.oracle.logged_in(server.now);
        }
        if denials(&server.engine) > before {
            for (id, line) in app.accepted.clone() {
                if !is_live(&server.engine, id) && !server.oracle.is_awaiting_header(line) {
                    server.oracle.flushing(line, server.now);
                }
            }
            for (id, line) in app.live_ids() {
                if !is_live(&server.engine, id) {
                    server.oracle.flushing(line, server.now);
                }
            }
        }
    }

    fn resume_decoding(&mut self, id: ConnId, work: &mut Work) {
        let server = &mut *self.server;
        let was_open = is_live(&server.engine, id);
        server
            .engine
            .resume_decoding(server.now, id, work, self.app);
        if was_open
            && !is_live(&server.engine, id)
            && let Some(line) = server.line_of(id)
        {
            server.oracle.flushing(line, server.now);
        }
    }

    fn write_once(&mut self, id: ConnId) -> Option<io::Result<Written>> {
        let server = &mut *self.server;
        let line = server.line_of(id)?;
        let queued = server.engine.queued(id);
        // Control messages do not count.
        let controls = if self.app.lines[line].hello.is_some() {
            512
        } else {
            0
        };
        assert!(
            queued <= server.most_queued + controls,
            "{queued} bytes queued, over the bound of {}",
            server.most_queued
        );
        let interrupted = server.interrupts();
        let faulty = server.rng.u32(0..1000) < server.budgets.faults;
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let slices = &mut slices[..server.budgets.slices];
        let filled = server.engine.outgoing(id, slices);
        if filled == 0 {
            return None;
        }
        let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        assert!(offered > 0, "nothing to write is not worth a call");
        if interrupted {
            return Some(Err(ErrorKind::Interrupted.into()));
        }
        let max = if faulty {
            server.rng.usize(0..=offered)
        } else {
            usize::MAX
        };
        let write = self.net.write(line, &slices[..filled], max);
        if let Ok(bytes) = &write {
            server.oracle.written(
                line,
                server.now,
                server.raw_ms,
                bytes,
                &mut self.app.lines[line].answered,
            );
        }
        let write = write.map(|bytes| Written {
            taken: bytes.len(),
            offered,
        });
        let is_full = match &write {
            Ok(written) => written.taken < offered,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if is_full {
            server.oracle.blocked(line, server.now);
        }
        Some(write)
    }

    fn watch_writable(&mut self, id: ConnId, watch: bool) -> io::Result<()> {
        if let Some(line) = self.server.line_of(id) {
            self.net.watch(line, watch);
        }
        Ok(())
    }

    fn measure_progress(&mut self, id: ConnId) {
        let server = &mut *self.server;
        if let Some(line) = server.line_of(id) {
            let unacknowledged = self.net.unacknowledged(line);
            server
                .engine
                .handle_progress(server.now, id, Some(unacknowledged));
        }
    }

    fn take_error(&mut self, _id: ConnId) -> Option<io::Error> {
        Some(ErrorKind::ConnectionReset.into())
    }

    fn final_read(&mut self, id: ConnId) {
        self.server.in_final_read = true;
        driver::final_read(self, id);
        self.server.in_final_read = false;
    }

    fn find_unread(&mut self, id: ConnId, may_peek: bool) -> io::Result<FinalRead> {
        let mut found = FinalRead::default();
        let server = &*self.server;
        if may_peek && let Some(line) = server.line_of(id) {
            match self.net.peek(line) {
                Ok(_) => {
                    found.unread = true;
                    found.received_ms = Some(server.raw_ms - self.net.last_arrival_ms(line));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn handle_final_read(&mut self, id: ConnId, found: FinalRead) {
        let server = &mut *self.server;
        let was_open = is_live(&server.engine, id);
        let claimed = server.engine.snapshot(id).and_then(|info| info.timeout);
        server.engine.handle_final_read(server.now, id, found);
        if let Some(line) = server.line_of(id).filter(|_| was_open) {
            if found.unread || server.engine.is_draining() {
                let is_blocked = server.engine.is_blocked(id);
                server.oracle.alive(line, server.now, is_blocked);
            }
            if !is_live(&server.engine, id) {
                server
                    .oracle
                    .judged(line, server.now, server.raw_ms, self.net, claimed);
                server.oracle.flushing(line, server.now);
            }
        }
    }

    fn handle_rejected(&mut self, id: ConnId, _peer: SocketAddr, reason: RejectReason) {
        let line = self.server.remove_socket(id);
        self.app.accepted.remove(&id);
        let (server, books) = (&mut *self.server, &self.app.lines[line]);
        server
            .oracle
            .rejected_awaiting_header(line, server.now, reason, self.net, books);
        self.net.close(line);
    }

    fn handle_closed(&mut self, id: ConnId, closed: Closed) {
        let line = self.server.remove_socket(id);
        let server = &mut *self.server;
        server
            .oracle
            .closed(line, server.now, &closed, &self.app.lines[line]);
        self.net.close(line);
    }
}

/// Whether a connection is neither closing nor awaiting its PROXY header.
fn is_live(engine: &Engine, id: ConnId) -> bool {
    engine.is_open(id) || engine.snapshot(id).is_some_and(|info| !info.closing)
}
