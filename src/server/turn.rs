//! One turn of the loop: its wait and its clock. Its steps are those of [`Driver`].

use std::io;
use std::time::Duration;

use super::io::ServerTurn;
use super::sockets::Sockets;
use super::{Server, Turn};
use crate::engine::Handler;
use crate::engine::budgets::WORK_PER_CLOCK_READING;
use crate::engine::driver::Driver;
use crate::error::Error;
use crate::time::Timestamp;

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

        self.in_turn = true;
        let mut turn = ServerTurn {
            server: self,
            handler,
        };
        let late_ms = turn.run_turn();
        turn.server.handle_own_timers();
        let lag_ms = turn.end_turn(late_ms);
        self.record_turn(lag_ms);
        self.in_turn = false;
        Ok(self.state_after_turn())
    }

    /// How long the next turn may wait for readiness: zero if there is work left over, `None` if
    /// nothing is due by time alone, as without connections.
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

    /// How long after the last reading of the clock the next one is expected; `None` if nothing is
    /// ever due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.engine.poll_timeout().map(|at| at.ms_since(self.now))
    }

    /// Arms the timer that ends the poll in time, and returns the timeout that the poll needs
    /// besides.
    fn arm_wake_timer(&mut self, max_wait: Option<Duration>) -> Option<Duration> {
        let next = self.next_wait();
        // Without a wait, or with a shorter one, no timer is needed.
        if next == Some(Duration::ZERO)
            || max_wait.is_some_and(|max_wait| next.is_none_or(|next| max_wait <= next))
        {
            return [next, max_wait].into_iter().flatten().min();
        }
        // Deadlines are whole milliseconds; rounding must not change a deadline from turn to turn.
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

    /// The timers of lingering sockets and of the log.
    fn handle_own_timers(&mut self) {
        self.lingering.handle_timers(self.now);
        self.log_limiter.handle_timers(self.now);
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

    fn record_turn(&mut self, lag_ms: Option<u64>) {
        let turn = self.reading.saturating_sub(self.turn_began);
        let stats = self.engine.stats_mut();
        if let Some(lag_ms) = lag_ms {
            stats.lag.record_ms(lag_ms);
        }
        stats.turn.record(turn);
        // A peer may have been granted a shorter heartbeat.
        self.awake.set_threshold_ms(self.engine.stall_ms());
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
