//! One turn of the loop: its order, its budgets and its clock.

use std::io;
use std::time::Duration;

use super::handle::Command;
use super::log_limiter::Kind;
use super::sockets::Sockets;
use super::{Server, Turn};
use crate::engine::budgets::{
    BROADCAST_FLUSHES_PER_TURN, CHECKS_AT_ONCE, COMMAND_WORK, FANOUT_WORK, FLUSHES_PER_TURN,
    LEFTOVER_WORK, MIN_LEFTOVER_READS, READ_WORK, REAPS_PER_TURN, SOCKET_WORK, TURN_LIMIT,
    WORK_PER_CLOCK_READING,
};
use crate::engine::{Engine, Handler, Work};
use crate::error::Error;
use crate::time::{Timestamp, duration_to_ms};

impl Server {
    /// Turns until a shutdown has ended. Fails only if the poll itself does, or if a handler has
    /// panicked in an earlier turn; what happens to a connection never ends the loop.
    pub fn run<H: Handler + ?Sized>(&mut self, handler: &mut H) -> Result<(), Error> {
        while self.turn(handler, None)? == Turn::Running {}
        Ok(())
    }

    /// One turn: waits until something is to be done, at most `max_wait` (`None`: for as long as it
    /// takes), and does it.
    ///
    /// In your own loop: wait for the server's descriptor to be readable, at most for
    /// [`Server::next_wait`], then call this with `Some(Duration::ZERO)`. An early call does
    /// nothing; a late one makes up for the delay; after [`Turn::Finished`] nothing happens.
    pub fn turn<H: Handler + ?Sized>(
        &mut self,
        handler: &mut H,
        max_wait: Option<Duration>,
    ) -> Result<Turn, Error> {
        if self.finished {
            return Ok(Turn::Finished);
        }
        if self.in_turn {
            return Err(self.abandon());
        }
        if std::mem::take(&mut self.shortage_unsaid)
            && let Some(shortage) = self.descriptors.shortage(&self.config)
        {
            log::warn!("{shortage}");
        }
        let due_ms = self.due_ms();
        let wait = self.arm_wake_timer(max_wait);
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            // A signal: no events, and the turn ends so that its handler can act.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(source) => {
                return Err(Error::Io {
                    doing: "poll".into(),
                    source,
                });
            }
        }
        self.turn_began = self.clock.elapsed();
        self.read_clock_at(self.turn_began, due_ms);
        let due = self.engine.oldest_due(self.now);

        self.in_turn = true;
        self.run_commands(handler);
        self.handle_events(handler);
        self.accept_batch(handler);
        self.read_ready(handler);
        let mut work = Work::new(FANOUT_WORK);
        self.engine.handle_fanouts(self.now, &mut work, handler);
        // Replies first: they do not wait for pings and verdicts.
        let flushes_left = self.flush(handler, FLUSHES_PER_TURN, Engine::poll_dirty);
        let late_ms = due.map(|due| self.now.ms_since(due));
        self.run_timers(handler);
        let flushes_left = self.flush(handler, flushes_left, Engine::poll_dirty);
        let broadcasts_left = self.flush(
            handler,
            BROADCAST_FLUSHES_PER_TURN,
            Engine::poll_broadcast_only,
        );
        self.engine.stats_mut().yields +=
            u64::from(flushes_left == 0) + u64::from(broadcasts_left == 0);
        self.reap(handler, REAPS_PER_TURN);
        self.lingering.handle_timers(self.now);
        self.log_limiter.handle_timers(self.now);
        self.end_turn(late_ms);
        self.in_turn = false;
        Ok(self.state_after_turn())
    }

    /// How long the next turn may wait for readiness: zero if there is work left over, `None`
    /// if nothing will be due by time alone, as without connections.
    pub fn next_wait(&self) -> Option<Duration> {
        let leftovers = self.more_events
            || !self.ready.is_empty()
            || self.engine.has_work()
            || self.listeners.is_pending();
        if leftovers {
            return Some(Duration::ZERO);
        }
        let timeouts = [
            self.engine.poll_timeout(),
            self.listeners.poll_timeout(),
            self.lingering.poll_timeout(),
            self.log_limiter.poll_timeout(),
            // What lingers does not outlive the drain.
            self.engine
                .drain_deadline()
                .filter(|_| self.engine.is_drained()),
        ];
        timeouts
            .into_iter()
            .flatten()
            .min()
            .map(|at| Duration::from_millis(at.ms_since(self.now)))
    }

    /// How long after the last reading of the clock the next one may come without being late;
    /// `None` if nothing is ever due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.engine.poll_timeout().map(|at| at.ms_since(self.now))
    }

    /// Sees to it that the poll ends in time, and returns the timeout that it needs for that.
    fn arm_wake_timer(&mut self, max_wait: Option<Duration>) -> Option<Duration> {
        let next = self.next_wait();
        // Without a wait, or with a shorter one, no timer is needed.
        if next == Some(Duration::ZERO)
            || max_wait.is_some_and(|max_wait| next.is_none_or(|next| max_wait <= next))
        {
            return [next, max_wait].into_iter().flatten().min();
        }
        // Deadlines are whole milliseconds, and the same one must come out the same in each turn.
        let reading = Duration::from_millis(Timestamp::from_duration(self.reading).as_ms());
        let clock = &self.clock;
        let timeout = self
            .wake_timer
            .until(self.reading, next.map(|next| reading + next), || {
                clock.elapsed()
            });
        [timeout, max_wait].into_iter().flatten().min()
    }

    pub(super) fn read_clock(&mut self, waited_ms: Option<u64>) {
        self.read_clock_at(self.clock.elapsed(), waited_ms);
    }

    fn read_clock_at(&mut self, reading: Duration, waited_ms: Option<u64>) {
        self.reading = reading;
        self.now = self
            .awake
            .read(Timestamp::from_duration(reading), waited_ms);
        self.since_clock = 0;
        self.engine.advance(self.now);
        let stats = self.engine.stats_mut();
        if stats.stalls != self.awake.stalls() {
            log::warn!(
                "stall stalled_ms={} in_all_ms={}",
                self.awake.stalled_ms() - stats.stalled_ms,
                self.awake.stalled_ms()
            );
            (stats.stalls, stats.stalled_ms) = (self.awake.stalls(), self.awake.stalled_ms());
        }
    }

    /// Called for each socket that is worked on, and for work done on it.
    pub(super) fn count_work(&mut self, units: u32) {
        self.since_clock = self.since_clock.saturating_add(units);
        if self.since_clock >= WORK_PER_CLOCK_READING {
            self.read_clock(Some(0));
        }
    }

    /// Whether the turn has taken so long that what can wait is left to the next.
    pub(super) fn is_late(&self) -> bool {
        self.reading.saturating_sub(self.turn_began) >= TURN_LIMIT
    }

    fn run_commands<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        self.commands.clear_wake_flag();
        if let Some(grace) = self.commands.take_shutdown() {
            self.accept_backlog(handler);
            let connections = self.engine.connections();
            self.listeners.close();
            self.engine.handle_shutdown(self.now, duration_to_ms(grace));
            // An earlier one may leave less.
            let grace_ms = self
                .engine
                .drain_deadline()
                .map_or(0, |end| end.ms_since(self.now));
            log::info!("shutdown connections={connections} grace_ms={grace_ms}");
        }
        let mut work = Work::new(COMMAND_WORK);
        while !work.is_spent() && !self.engine.is_congested() {
            let Some(command) = self.commands.next() else {
                return;
            };
            match command {
                // A closed connection is reported by `on_close`.
                Command::Send(id, message) => drop(self.engine.send(id, &[&message])),
                Command::Broadcast(message) => {
                    if let Err(error) = self.engine.broadcast(&message, None)
                        && self.log_limiter.allow(self.now, Kind::Dropped)
                    {
                        log::warn!("dropped-broadcast error=\"{error}\"");
                    }
                }
                Command::Close(id, how) => drop(self.engine.close_on_request(id, how)),
            }
            work.spend(1 + self.engine.take_spent());
        }
        self.engine.stats_mut().yields += 1;
        self.handle.wake();
    }

    /// Reads on where a budget ran out or a pause has ended.
    fn read_ready<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        while let Some(id) = self.engine.poll_readable() {
            self.ready.insert(id);
        }
        let mut work = Work::new(LEFTOVER_WORK);
        let mut reads = 0;
        // Each costs work, if only that of the system call.
        while !self.ready.is_empty() {
            let is_late = self.is_late() && reads >= MIN_LEFTOVER_READS;
            if work.is_spent() || is_late || self.engine.is_congested() {
                self.engine.stats_mut().yields += 1;
                return;
            }
            let Some(id) = self.ready.pop() else { return };
            reads += 1;
            let mut part = work.split(READ_WORK);
            self.read_again(id, &mut part, handler);
            work.refund(part);
            work.spend(SOCKET_WORK);
        }
    }

    /// Makes the checks that are due and the final reads, for at least a quarter of the turn's
    /// time.
    fn run_timers<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        let began = self.clock.elapsed();
        let share = began.saturating_sub(self.turn_began) / 3;
        loop {
            let mut all_done = self.engine.handle_timers(self.now, CHECKS_AT_ONCE);
            for _ in 0..CHECKS_AT_ONCE {
                let Some(id) = self.engine.poll_final_read() else {
                    break;
                };
                self.final_read(id, handler);
            }
            all_done &= self.engine.oldest_due(self.now).is_none();
            if all_done {
                return;
            }
            if self.clock.elapsed().saturating_sub(began) >= share {
                self.engine.stats_mut().yields += 1;
                return;
            }
        }
    }

    /// A handler has panicked in an earlier turn, and the caller has caught it: the state is
    /// not consistent. Closes every socket.
    fn abandon(&mut self) -> Error {
        self.sockets = Sockets::default();
        self.listeners.close();
        self.lingering.clear();
        self.commands.close();
        Error::Poisoned
    }

    /// `late_ms` says how late the oldest check or final read of this turn came.
    fn end_turn(&mut self, late_ms: Option<u64>) {
        self.engine.take_spent();
        self.read_clock(Some(0));
        let left_ms = self
            .engine
            .oldest_due(self.now)
            .map(|due| self.now.ms_since(due));
        let turn = self.reading.saturating_sub(self.turn_began);
        let stats = self.engine.stats_mut();
        if let Some(lag_ms) = late_ms.max(left_ms) {
            stats.lag.record_ms(lag_ms);
        }
        stats.turn.record(turn);
    }

    fn state_after_turn(&mut self) -> Turn {
        if self.engine.is_drained() {
            if self
                .engine
                .drain_deadline()
                .is_some_and(|deadline| deadline <= self.now)
            {
                self.lingering.clear();
            }
            self.finished = self.lingering.is_empty();
        }
        if self.finished {
            self.commands.close();
        }
        if self.finished {
            Turn::Finished
        } else {
            Turn::Running
        }
    }
}
