//! The simulated driver: what `src/server` does, on wires instead of sockets, step for step.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;

use heartline::engine::budgets::*;
use heartline::engine::wheel::SLOTS;
use heartline::engine::{Engine, FinalRead, Work};
use heartline::time::{AwakeClock, Timestamp, duration_to_ms};
use heartline::{Close, CloseReason, Config, ConnId, RejectReason};

use crate::app::App;
use crate::net::{Event, Net};
use crate::oracle::Oracle;

/// The budgets of a turn, here at random, and the faults of a kernel.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub events: usize,
    pub accepts: usize,
    pub commands: usize,
    pub read_bytes: usize,
    pub scratch_bytes: usize,
    pub checks: usize,
    /// Work on one connection, on all that have more to read, and on broadcasts.
    pub read_work: u32,
    pub leftover_work: u32,
    pub fanout_work: u32,
    pub flushes: usize,
    pub broadcast_flushes: usize,
    pub writes: usize,
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
    /// Those of `Server`.
    fn default() -> Self {
        Budgets {
            events: EVENTS_PER_TURN,
            accepts: ACCEPTS_PER_TURN,
            commands: COMMAND_WORK as usize,
            read_bytes: READ_BUDGET,
            scratch_bytes: SCRATCH_BYTES,
            checks: CHECKS_AT_ONCE,
            read_work: READ_WORK,
            leftover_work: LEFTOVER_WORK,
            fanout_work: FANOUT_WORK,
            flushes: FLUSHES_PER_TURN,
            broadcast_flushes: BROADCAST_FLUSHES_PER_TURN,
            writes: WRITES_PER_FLUSH,
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
    Shutdown(u64),
    Reconfigure(Box<Config>),
}

/// More rounds of checks than any run needs in one turn. Virtual time may stand still in them, so
/// the share of the turn does not end them.
const MAX_TIMER_ROUNDS: usize = 1_000_000;

#[derive(Clone, Copy, PartialEq)]
enum ReadUntil {
    Short,
    WouldBlock,
}

pub struct Driver {
    pub engine: Engine,
    pub oracle: Oracle,
    pub commands: VecDeque<Command>,
    /// What is in force.
    pub config: Config,
    budgets: Budgets,
    /// Most bytes that any queue may hold: the bound, or what it held already when the bound was
    /// lowered.
    most_queued: usize,
    rng: fastrand::Rng,
    /// The line of each slot, as the server keeps its sockets.
    sockets: Vec<Option<usize>>,
    ready: VecDeque<ConnId>,
    /// Slots that stand in `ready`.
    ready_slots: BTreeSet<usize>,
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
    /// Whether this turn has done anything but look.
    busy: bool,
}

impl Driver {
    pub fn new(config: &Config, budgets: Budgets, seed: u64) -> Self {
        Driver {
            engine: Engine::new(config).expect("a valid configuration"),
            oracle: Oracle::new(config),
            commands: VecDeque::new(),
            config: config.clone(),
            most_queued: config.limits.max_outbox,
            rng: fastrand::Rng::with_seed(seed),
            sockets: Vec::new(),
            ready: VecDeque::new(),
            ready_slots: BTreeSet::new(),
            scratch: vec![0; budgets.scratch_bytes],
            awake: AwakeClock::new(stall_ms(config)),
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

    /// One turn at `net.now_ms`; time may have moved on when it returns. Says whether it did
    /// anything but look.
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

        let due = self.engine.oldest_due(self.now);
        app.trace.note("turn", self.raw_ms, &[self.now.as_ms()]);
        let events = net.poll(self.budgets.events);
        self.run_commands(app);
        self.disturb_with_stale_ids(app);
        for event in &events {
            if let Some(id) = app.lines[event.line].id {
                self.handle_ready(id, event, net, app);
            }
        }
        self.accept_batch(net, app);
        self.read_ready(net, app);
        self.fan_out(app);
        let flushes_left = self.flush(net, app, self.budgets.flushes, Engine::poll_dirty);
        if let Some(due) = due {
            self.max_lag_ms = self.max_lag_ms.max(self.now.ms_since(due));
        }
        self.run_timers(net, app);
        self.flush(net, app, flushes_left, Engine::poll_dirty);
        self.flush(
            net,
            app,
            self.budgets.broadcast_flushes,
            Engine::poll_broadcast_only,
        );
        self.reap(net, app);
        self.read_clock();
        let turn_ms = self.raw_ms - self.turn_began_ms;
        self.longest_turn_ms = self.longest_turn_ms.max(turn_ms);
        if let Some(due) = self.engine.oldest_due(self.now) {
            self.max_lag_ms = self.max_lag_ms.max(self.now.ms_since(due));
        }
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

    fn count_socket(&mut self) {
        self.busy = true;
        self.spent_ns += self.budgets.call_ns;
        self.sockets_since_clock += 1;
        if self.sockets_since_clock >= self.budgets.sockets_per_clock_reading {
            self.raw_ms += self.rng.u64(0..=self.budgets.drift_ms);
            self.read_clock();
        }
    }

    /// Work takes time, and much work in one piece is followed by a reading of the clock.
    fn count_work(&mut self, units: u32) {
        self.spent_ns += u64::from(units) * self.budgets.unit_ns;
        if units > 64 && self.budgets.unit_ns > 0 {
            self.read_clock();
        }
    }

    fn read_clock(&mut self) {
        self.sockets_since_clock = 0;
        self.raw_ms += self.spent_ns / 1_000_000;
        self.spent_ns %= 1_000_000;
        let before = self.now;
        self.now = self.awake.read(Timestamp::from_ms(self.raw_ms), Some(0));
        self.engine.advance(self.now);
        self.oracle.late_ms(self.now.ms_since(before));
    }

    fn is_late(&self) -> bool {
        self.raw_ms - self.turn_began_ms >= TURN_LIMIT.as_millis() as u64
    }

    fn fan_out(&mut self, app: &mut App) {
        let mut work = Work::new(self.budgets.fanout_work);
        self.engine.handle_fanouts(self.now, &mut work, app);
        let units = self.budgets.fanout_work - work.left();
        self.busy |= units > 0;
        self.count_work(units);
    }

    fn run_commands(&mut self, app: &mut App) {
        // A shutdown does not wait in the queue.
        let is_shutdown = |command: &Command| matches!(command, Command::Shutdown(_));
        while let Some(index) = self.commands.iter().position(is_shutdown) {
            if let Some(Command::Shutdown(grace_ms)) = self.commands.remove(index) {
                self.busy = true;
                self.accepting = false;
                self.oracle.draining = true;
                self.engine.handle_shutdown(self.now, grace_ms);
            }
        }
        for _ in 0..self.budgets.commands {
            if self.engine.is_congested() {
                return;
            }
            let Some(command) = self.commands.pop_front() else {
                return;
            };
            self.busy = true;
            match command {
                Command::Send(id, message) => {
                    let result = self.engine.send(id, &[&message]);
                    app.sent(id, &message, result);
                }
                Command::Broadcast(message) => {
                    let audience = app.audience(|id| self.engine.is_open(id), None);
                    let result = self.engine.broadcast(&message, None);
                    app.broadcast_called(&message, &audience, result);
                }
                Command::Close(id, how) => {
                    let closed = self.engine.close_on_request(id, how);
                    if let Some(line) = self
                        .sockets
                        .get(id.slot())
                        .copied()
                        .flatten()
                        .filter(|line| self.oracle.is_half_in(*line))
                    {
                        app.lines[line].asked_to_close |= app.lines[line].id == Some(id);
                    }
                    if let Some(line) = app.line_of(id) {
                        app.lines[line].asked_to_close |= closed;
                        if !self.engine.is_open(id) {
                            self.oracle.flushing(line, self.now);
                        }
                    }
                }
                Command::Resume(id) => self.engine.pause_reads(id, false),
                Command::Shutdown(_) => unreachable!("taken before"),
                Command::Reconfigure(config) => self.reconfigure(*config, app),
            }
        }
    }

    /// As `Server::reconfigure` does it: framing, words and tick stay, and what is at fault changes
    /// nothing.
    fn reconfigure(&mut self, wanted: Config, app: &mut App) {
        let Config {
            framing,
            ref words,
            tick,
            ..
        } = self.config;
        let config = Config {
            framing,
            words: words.clone(),
            tick,
            ..wanted
        };
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
        self.awake.set_threshold_ms(stall_ms(&config));
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

    fn handle_ready(&mut self, id: ConnId, event: &Event, net: &mut Net, app: &mut App) {
        self.count_socket();
        if event.writable && self.engine.is_blocked(id) {
            self.write(id, net, app);
        }
        if self.ready_slots.contains(&id.slot()) {
            return;
        }
        if self.engine.wants_read(id) {
            if event.readable || event.read_closed {
                if self.is_late() || self.engine.is_congested() {
                    return self.read_again(id);
                }
                let ended = event.read_closed || event.error;
                let end = if ended {
                    ReadUntil::WouldBlock
                } else {
                    ReadUntil::Short
                };
                let mut work = Work::new(self.budgets.read_work);
                self.read(id, end, true, &mut work, net, app);
            }
        } else if event.error {
            self.engine
                .handle_failure(self.now, id, CloseReason::PeerReset);
        }
    }

    fn read(
        &mut self,
        id: ConnId,
        end: ReadUntil,
        faults: bool,
        work: &mut Work,
        net: &mut Net,
        app: &mut App,
    ) {
        let units = work.left();
        let is_unfinished = self.read_within(id, end, faults, work, net, app);
        self.count_work(units - work.left());
        if is_unfinished || self.engine.has_undecoded(id) {
            self.read_again(id);
        }
    }

    fn read_within(
        &mut self,
        id: ConnId,
        end: ReadUntil,
        faults: bool,
        work: &mut Work,
        net: &mut Net,
        app: &mut App,
    ) -> bool {
        let was_open = self.engine.is_open(id);
        self.engine.resume_decoding(self.now, id, work, app);
        let Some(line) = self.sockets.get(id.slot()).copied().flatten() else {
            return false;
        };
        if was_open && !self.engine.is_open(id) {
            self.oracle.flushing(line, self.now);
        }
        let mut budget = self.budgets.read_bytes;
        while self.engine.wants_read(id) {
            if budget == 0 || work.is_spent() {
                return true;
            }
            let max = if faults {
                self.kernel_takes(self.scratch.len())
            } else {
                usize::MAX
            };
            let read = if self.interrupts() {
                Err(ErrorKind::Interrupted.into())
            } else {
                net.read(line, &mut self.scratch, max)
            };
            match read {
                Ok(0) => {
                    self.oracle
                        .alive(line, self.now, self.engine.is_blocked(id));
                    self.oracle.flushing(line, self.now);
                    self.engine.handle_eof(self.now, id);
                    return false;
                }
                Ok(n) => {
                    self.oracle
                        .alive(line, self.now, self.engine.is_blocked(id));
                    self.oracle.read(line, self.now, &self.scratch[..n]);
                    let half_in = self.oracle.is_half_in(line);
                    let was_open = self.engine.is_open(id);
                    app.opening = half_in.then_some(line);
                    self.engine
                        .handle_bytes(self.now, id, &self.scratch[..n], work, app);
                    if was_open && !self.engine.is_open(id) {
                        self.oracle.flushing(line, self.now);
                    }
                    if half_in && app.opening.take().is_none() {
                        self.oracle.opened(line, self.now, &app.lines[line]);
                    }
                    if end == ReadUntil::Short && n < self.scratch.len() {
                        return false;
                    }
                    budget = budget.saturating_sub(n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = CloseReason::from_read_error(&error);
                    self.engine.handle_failure(self.now, id, reason);
                    return false;
                }
            }
        }
        false
    }

    fn read_again(&mut self, id: ConnId) {
        if self.ready_slots.insert(id.slot()) {
            self.ready.push_back(id);
        }
    }

    fn read_ready(&mut self, net: &mut Net, app: &mut App) {
        while let Some(id) = self.engine.poll_readable() {
            self.read_again(id);
        }
        let mut work = Work::new(self.budgets.leftover_work);
        let mut reads = 0;
        while !self.ready.is_empty() {
            let is_late = self.is_late() && reads >= MIN_LEFTOVER_READS;
            if work.is_spent() || is_late || self.engine.is_congested() {
                return;
            }
            let Some(id) = self.ready.pop_front() else {
                return;
            };
            reads += 1;
            self.ready_slots.remove(&id.slot());
            self.count_socket();
            let mut part = work.split(self.budgets.read_work);
            self.read(id, ReadUntil::WouldBlock, true, &mut part, net, app);
            work.refund(part);
            work.spend(SOCKET_WORK);
        }
    }

    fn run_timers(&mut self, net: &mut Net, app: &mut App) {
        let began_ms = self.raw_ms;
        let share_ms = (began_ms - self.turn_began_ms) / 3;
        for round in 0.. {
            assert!(
                round < MAX_TIMER_ROUNDS,
                "the timers of one turn do not end"
            );
            let all_done = self.engine.handle_timers(self.now, self.budgets.checks);
            self.spent_ns += self.budgets.checks as u64 * self.budgets.unit_ns;
            for _ in 0..self.budgets.checks {
                let Some(id) = self.engine.poll_final_read() else {
                    break;
                };
                self.final_read(id, net, app);
            }
            let all_done = all_done && self.engine.oldest_due(self.now).is_none();
            if all_done || self.raw_ms - began_ms >= share_ms {
                return;
            }
            self.read_clock();
        }
    }

    fn final_read(&mut self, id: ConnId, net: &mut Net, app: &mut App) {
        self.count_socket();
        self.measure_progress(id, net);
        if self.engine.is_blocked(id) {
            self.write(id, net, app);
        }
        let mut work = Work::new(self.budgets.read_work);
        self.read(id, ReadUntil::WouldBlock, false, &mut work, net, app);
        if self.ready_slots.contains(&id.slot()) {
            return self.engine.postpone_final_read(id);
        }
        let mut found = FinalRead::default();
        let wants_read = self.engine.wants_read(id);
        let line = self.sockets.get(id.slot()).copied().flatten();
        if let Some(line) = line
            && !wants_read
        {
            match net.peek(line) {
                Ok(_) => {
                    found.unread = true;
                    found.received_ms = Some(self.raw_ms - net.last_arrival_ms(line));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    let reason = CloseReason::from_read_error(&error);
                    return self.engine.handle_failure(self.now, id, reason);
                }
            }
        }
        let was_open = self.engine.is_open(id);
        self.engine.handle_final_read(self.now, id, found);
        if let Some(line) = app.line_of(id) {
            if found.unread || self.engine.is_draining() {
                self.oracle
                    .alive(line, self.now, self.engine.is_blocked(id));
            }
            if was_open && !self.engine.is_open(id) {
                self.oracle.judged(line, self.now, self.raw_ms, net);
                self.oracle.flushing(line, self.now);
            }
        }
    }

    fn measure_progress(&mut self, id: ConnId, net: &Net) {
        if let Some(line) = self.sockets.get(id.slot()).copied().flatten() {
            self.engine
                .handle_progress(self.now, id, Some(net.unacknowledged(line)));
        }
    }

    fn accept_batch(&mut self, net: &mut Net, app: &mut App) {
        for _ in 0..self.budgets.accepts {
            if self.engine.is_congested() {
                return;
            }
            let Some(line) = net.accept() else { return };
            self.count_socket();
            if self.rng.u32(0..1000) < self.budgets.faults / 4 {
                // Out of descriptors: turned away with the one in reserve.
                self.engine.handle_rejection(RejectReason::NoDescriptors);
                self.oracle.refused += 1;
                net.close(line);
                continue;
            }
            app.opening = Some(line);
            let (before, max_connections) = (
                self.engine.connections(),
                self.config.limits.max_connections.unwrap_or(usize::MAX),
            );
            let from = app.lines[line].origin.from;
            let admitted = if self.accepting {
                self.engine.handle_open(self.now, from, app)
            } else {
                Err(RejectReason::ShuttingDown)
            };
            let broadcast_flushes = app.opening.take().is_none();
            let id = match admitted {
                Ok(id) => id,
                Err(refusal) => {
                    assert!(
                        refusal != RejectReason::Full || before >= max_connections,
                        "there was room"
                    );
                    self.oracle.refused(line, refusal, &app.lines[line]);
                    self.oracle.refused += u64::from(self.accepting);
                    net.close(line);
                    continue;
                }
            };
            app.lines[line].id = Some(id);
            if broadcast_flushes {
                self.oracle.opened(line, self.now, &app.lines[line]);
            } else {
                self.oracle.half_in(line, self.now, &app.lines[line]);
            }
            net.watch(line, false);
            if self.sockets.len() <= id.slot() {
                self.sockets.resize(id.slot() + 1, None);
            }
            assert_eq!(
                self.sockets[id.slot()].replace(line),
                None,
                "one tenant to a slot"
            );
            if self.engine.is_over_full() {
                self.reap(net, app);
            }
            // Who was here before the limit was lowered may stay.
            assert!(
                self.engine.connections() <= before.max(max_connections),
                "more connections than the limit allows"
            );
            self.oracle.made_room += u64::from(before >= max_connections);
        }
    }

    fn flush(
        &mut self,
        net: &mut Net,
        app: &mut App,
        budget: usize,
        next: fn(&mut Engine) -> Option<ConnId>,
    ) -> usize {
        for left in (0..budget).rev() {
            let Some(id) = next(&mut self.engine) else {
                return left + 1;
            };
            self.count_socket();
            self.write(id, net, app);
        }
        0
    }

    fn write(&mut self, id: ConnId, net: &mut Net, app: &mut App) {
        let Some(line) = self.sockets.get(id.slot()).copied().flatten() else {
            return;
        };
        let was_blocked = self.engine.is_blocked(id);
        if was_blocked && self.engine.wants_progress(id) {
            self.measure_progress(id, net);
        }
        let mut edge_follows = false;
        for _ in 0..self.budgets.writes {
            let queued = self.engine.queued(id);
            assert!(
                queued <= self.most_queued,
                "{queued} bytes queued, over the bound of {}",
                self.most_queued
            );
            let interrupted = self.interrupts();
            let mut slices = [IoSlice::new(&[]); 16];
            let slices = &mut slices[..self.budgets.slices];
            let filled = self.engine.outgoing(id, slices);
            if filled == 0 {
                break;
            }
            let len: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            assert!(len > 0, "nothing to write is not worth a call");
            let max = self.rng.u32(0..1000) < self.budgets.faults;
            let max = if max {
                self.rng.usize(0..=len)
            } else {
                usize::MAX
            };
            let write = if interrupted {
                Err(ErrorKind::Interrupted.into())
            } else {
                net.write(line, &slices[..filled], max)
            };
            match write {
                Ok(taken) => {
                    self.oracle.written(
                        line,
                        self.now,
                        self.raw_ms,
                        &taken,
                        &mut app.lines[line].answered,
                    );
                    self.engine.handle_written(self.now, id, taken.len(), app);
                    if taken.len() < len {
                        edge_follows = true;
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    edge_follows = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.engine.handle_failure(
                        self.now,
                        id,
                        CloseReason::from_write_error(&error),
                    );
                }
            }
        }
        if edge_follows {
            self.engine.handle_blocked(id);
            if self.engine.wants_progress(id) {
                self.measure_progress(id, net);
            }
        } else {
            self.engine.handle_write_budget_spent(id);
        }
        let blocked = self.engine.is_blocked(id);
        if blocked != was_blocked {
            net.watch(line, blocked);
        }
        if blocked {
            self.oracle.blocked(line, self.now);
        }
    }

    fn reap(&mut self, net: &mut Net, app: &mut App) {
        while let Some((id, _, refusal)) = self.engine.poll_rejected() {
            self.busy = true;
            let line = self.sockets[id.slot()]
                .take()
                .expect("who is half in has a socket");
            self.oracle
                .refused_half_in(line, self.now, refusal, net, &app.lines[line]);
            net.close(line);
            self.stale.push(id);
        }
        loop {
            if self.engine.is_congested() && !self.engine.is_over_full() {
                return;
            }
            let Some((id, closed)) = self.engine.poll_closed(self.now, app) else {
                return;
            };
            self.busy = true;
            let line = self.sockets[id.slot()]
                .take()
                .expect("what closes has a socket");
            self.oracle
                .closed(line, self.now, &closed, &app.lines[line]);
            net.close(line);
            self.stale.push(id);
        }
    }

    /// Whether a signal comes just now.
    fn interrupts(&mut self) -> bool {
        self.rng.u32(0..1000) < self.budgets.faults / 4
    }

    /// How many bytes a read or write may move, at most: fewer than asked for now and then.
    fn kernel_takes(&mut self, len: usize) -> usize {
        if self.rng.u32(0..1000) < self.budgets.faults {
            self.rng.usize(0..=len.min(64))
        } else {
            usize::MAX
        }
    }
}

/// As the server's own.
fn stall_ms(config: &Config) -> u64 {
    config
        .heartbeat
        .as_ref()
        .map_or(u64::MAX, |heartbeat| duration_to_ms(heartbeat.interval) / 2)
}
