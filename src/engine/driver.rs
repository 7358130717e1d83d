//! The driver: the steps of one turn, in their order and within their budgets, over sockets and a
//! clock that its implementer provides. The server and the simulation run the same steps.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::budgets::{self, SOCKET_WORK, TurnBudgets};
use super::ready_set::ReadySet;
use super::{Closed, Engine, FinalRead, Handler, Work};
use crate::close::{CloseReason, RejectReason};
use crate::id::ConnId;
use crate::time::Timestamp;

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUntil {
    /// Until a read returns less than it could: the socket was empty then, and whatever comes later
    /// brings an event of its own (epoll(7), "Possible pitfalls"). It saves the second read that
    /// nearly always would block.
    Short,
    /// Until a read would block: where the event reported an end of stream, which only another read
    /// finds, and where no event was reported.
    WouldBlock,
}

/// The readiness that an event reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer has shut its writing side.
    pub read_closed: bool,
    /// The socket has failed.
    pub error: bool,
}

/// One write: what the kernel took of what it was offered, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// At most `offered`.
    pub taken: usize,
    /// More than zero.
    pub offered: usize,
}

/// One read: bytes taken from the socket, and the size of the buffer that they were read into.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// 0 at the end of the stream.
    pub taken: usize,
    /// More than zero.
    pub room: usize,
}

/// The sockets and the clock of a driver. The provided methods are the driver itself: call
/// [`Driver::run_turn`] after each wait for readiness, with the clock read, then
/// [`Driver::end_turn`].
///
/// No method may wait. Methods about a connection whose socket is gone do nothing and return what
/// they return for a socket without readiness.
pub trait Driver {
    /// The application.
    type Handler: Handler + ?Sized;

    /// The engine, and the handler that its calls take.
    fn parts(&mut self) -> (&mut Engine, &mut Self::Handler);

    /// The engine.
    fn engine(&self) -> &Engine;

    /// Connections to read again without an event.
    fn ready(&mut self) -> &mut ReadySet;

    /// The budgets of a turn.
    fn budgets(&self) -> &TurnBudgets {
        &TurnBudgets::DEFAULT
    }

    /// The engine's time.
    fn now(&self) -> Timestamp;

    /// Reads the clock, without setting [`Driver::now`].
    fn elapsed(&mut self) -> Duration;

    /// Reads the clock and sets [`Driver::now`] by it.
    fn read_clock(&mut self);

    /// The last reading of the clock that set [`Driver::now`].
    fn reading(&self) -> Duration;

    /// The reading with which the turn began.
    fn turn_began(&self) -> Duration;

    /// Counts work that was done, and reads the clock when much has been done since the last
    /// reading.
    fn count_work(&mut self, units: u32);

    /// Counts the system calls that one socket needs.
    fn count_socket(&mut self) {
        self.count_work(SOCKET_WORK);
    }

    /// Counts checks of timers. Does nothing by default: a check costs less than reading the clock.
    fn count_checks(&mut self, _checks: usize) {}

    /// Begins a shutdown if one was asked for since the last turn.
    fn begin_shutdown(&mut self);

    /// Runs the next command of another thread. `false` if there is none.
    fn run_command(&mut self) -> bool;

    /// Commands are left over: the next turn may not wait.
    fn wake(&mut self);

    /// Hands the events of the last wait to [`Driver::handle_ready`].
    fn handle_events(&mut self);

    /// Accepts a connection. `false` if none can be accepted now.
    fn accept_next(&mut self) -> bool;

    /// Reads once, into a buffer of the implementer's. `None` without a socket.
    fn read_once(&mut self, id: ConnId) -> Option<io::Result<Received>>;

    /// Hands the first `len` bytes of that buffer to [`Engine::handle_bytes`].
    fn handle_bytes(&mut self, id: ConnId, len: usize, work: &mut Work);

    /// Calls [`Engine::resume_decoding`].
    fn resume_decoding(&mut self, id: ConnId, work: &mut Work) {
        let now = self.now();
        let (engine, handler) = self.parts();
        engine.resume_decoding(now, id, work, handler);
    }

    /// Writes [`Engine::outgoing`] once. `None` if nothing is queued, and without a socket.
    fn write_once(&mut self, id: ConnId) -> Option<io::Result<Written>>;

    /// Watches a socket for room to write, or no longer.
    fn watch_writable(&mut self, id: ConnId, watch: bool) -> io::Result<()>;

    /// Reports to [`Engine::handle_progress`] how many bytes the peer has not acknowledged.
    fn measure_progress(&mut self, id: ConnId);

    /// The pending error of a socket, if there is one.
    fn take_error(&mut self, id: ConnId) -> Option<io::Error>;

    /// What the kernel reports about a silent peer. If `may_peek` is set, also whether bytes are
    /// unread that the engine does not read now.
    fn find_unread(&mut self, id: ConnId, may_peek: bool) -> io::Result<FinalRead>;

    /// Calls [`Engine::handle_final_read`].
    fn handle_final_read(&mut self, id: ConnId, found: FinalRead) {
        let now = self.now();
        self.parts().0.handle_final_read(now, id, found);
    }

    /// A connection was rejected before its PROXY header was complete: drops its socket.
    fn handle_rejected(&mut self, id: ConnId, peer: SocketAddr, reason: RejectReason);

    /// A connection is over: closes its socket as [`Closed::close_mode`] says.
    fn handle_closed(&mut self, id: ConnId, closed: Closed);

    /// The steps of a turn. Returns for how long the oldest check or final read had been due when
    /// the timers were reached.
    fn run_turn(&mut self) -> Option<u64> {
        let due = self.engine().oldest_due(self.now());
        self.run_commands();
        self.handle_events();
        self.accept_batch();
        self.read_ready();
        self.log_in();
        self.fan_out();
        // Replies first: they do not wait for pings and verdicts.
        let flushes_left = self.flush(self.budgets().flushes, Engine::poll_dirty);
        let late_ms = due.map(|due| self.now().ms_since(due));
        self.run_timers();
        self.run_app_timers();
        let flushes_left = self.flush(flushes_left, Engine::poll_dirty);
        let broadcasts = self.budgets().broadcast_flushes;
        let broadcasts_left = self.flush(broadcasts, Engine::poll_broadcast_only);
        if flushes_left == 0 {
            self.count_yield();
        }
        if broadcasts_left == 0 {
            self.count_yield();
        }
        self.reap(self.budgets().reaps);
        late_ms
    }

    /// Reads the clock at the end of a turn. Returns the lag of the turn in milliseconds: the
    /// longest that a check or final read was late, or is by now. `late_ms` is what
    /// [`Driver::run_turn`] returned.
    fn end_turn(&mut self, late_ms: Option<u64>) -> Option<u64> {
        self.parts().0.take_spent();
        self.read_clock();
        let now = self.now();
        let left_ms = self.engine().oldest_due(now).map(|due| now.ms_since(due));
        late_ms.max(left_ms)
    }

    /// Whether the turn has taken so long that what can wait is left to the next.
    fn is_late(&self) -> bool {
        self.reading().saturating_sub(self.turn_began()) >= budgets::TURN_LIMIT
    }

    /// Counts a budget that ran out.
    fn count_yield(&mut self) {
        self.parts().0.stats_mut().yields += 1;
    }

    /// Runs commands of other threads.
    fn run_commands(&mut self) {
        self.begin_shutdown();
        let mut work = Work::new(self.budgets().command_work);
        while !work.is_spent() && !self.engine().is_congested() {
            if !self.run_command() {
                return;
            }
            work.spend(1 + self.parts().0.take_spent());
        }
        self.count_yield();
        self.wake();
    }

    /// Reads from and writes to a connection after an event.
    fn handle_ready(&mut self, id: ConnId, readiness: Readiness) {
        self.count_socket();
        if readiness.writable && self.engine().is_blocked(id) {
            self.write(id);
        }
        if self.ready().contains(id) {
            return;
        }
        if self.engine().wants_read(id) {
            if readiness.readable || readiness.read_closed {
                if self.is_late() || self.engine().is_congested() {
                    return self.ready().insert(id);
                }
                let until = if readiness.read_closed || readiness.error {
                    ReadUntil::WouldBlock
                } else {
                    ReadUntil::Short
                };
                let mut work = Work::new(self.budgets().read_work);
                self.read(id, until, &mut work);
            }
        } else if readiness.error
            && let Some(error) = self.take_error(id)
        {
            // It is not read at present, so no read would return the error.
            self.fail(id, CloseReason::from_read_error(&error));
        }
    }

    /// Accepts connections.
    fn accept_batch(&mut self) {
        for _ in 0..self.budgets().accepts {
            if self.engine().is_congested() {
                break;
            }
            if !self.accept_next() {
                return;
            }
        }
        self.count_yield();
    }

    /// Reads on where a budget ran out or a pause has ended.
    fn read_ready(&mut self) {
        while let Some(id) = self.parts().0.poll_readable() {
            self.ready().insert(id);
        }
        let mut work = Work::new(self.budgets().leftover_work);
        let mut reads = 0;
        // Each costs work, if only that of the system call.
        while !self.ready().is_empty() {
            let is_late = self.is_late() && reads >= budgets::MIN_LEFTOVER_READS;
            if work.is_spent() || is_late || self.engine().is_congested() {
                return self.count_yield();
            }
            let Some(id) = self.ready().pop() else { return };
            reads += 1;
            let mut part = work.split(self.budgets().read_work);
            self.read_again(id, &mut part);
            work.refund(part);
            work.spend(SOCKET_WORK);
        }
    }

    /// Welcomes connections whose login was accepted.
    fn log_in(&mut self) {
        let (now, budget) = (self.now(), self.budgets().accepts);
        let (engine, handler) = self.parts();
        if !engine.handle_logins(now, budget, handler) {
            self.count_yield();
        }
    }

    /// Delivers broadcasts.
    fn fan_out(&mut self) {
        let (units, now) = (self.budgets().fanout_work, self.now());
        let mut work = Work::new(units);
        let (engine, handler) = self.parts();
        engine.handle_fanouts(now, &mut work, handler);
        self.count_work(units - work.left());
    }

    /// Writes once to each connection that `next` has something queued for, to `budget` of them at
    /// most. Returns what is left of the budget.
    fn flush(&mut self, budget: usize, next: fn(&mut Engine) -> Option<ConnId>) -> usize {
        for left in (0..budget).rev() {
            let Some(id) = next(self.parts().0) else {
                return left + 1;
            };
            self.write(id);
            self.count_socket();
            if self.is_late() && budget - left >= budgets::MIN_FLUSHES {
                return 0;
            }
        }
        0
    }

    /// Makes the checks that are due and the final reads, for at least a quarter of the turn's
    /// time.
    fn run_timers(&mut self) {
        let began = self.elapsed();
        let share = began.saturating_sub(self.turn_began()) / 3;
        loop {
            let (now, checks) = (self.now(), self.budgets().checks);
            let mut all_done = self.parts().0.handle_timers(now, checks);
            self.count_checks(checks);
            for _ in 0..checks {
                let Some(id) = self.parts().0.poll_final_read() else {
                    break;
                };
                self.final_read(id);
            }
            all_done &= self.engine().oldest_due(self.now()).is_none();
            if all_done {
                return;
            }
            if self.elapsed().saturating_sub(began) >= share {
                return self.count_yield();
            }
        }
    }

    /// Calls the handler for its own timers.
    fn run_app_timers(&mut self) {
        let (now, budget) = (self.now(), self.budgets().checks);
        let (engine, handler) = self.parts();
        if !engine.handle_app_timers(now, budget, handler) {
            self.count_yield();
        }
    }

    /// Drops the sockets of at most `budget` connections that are over. Stops early while
    /// broadcasts pile up, which `on_close` may add to.
    fn reap(&mut self, budget: usize) {
        while let Some((id, peer, reason)) = self.parts().0.poll_rejected() {
            self.handle_rejected(id, peer, reason);
        }
        for _ in 0..budget {
            if self.engine().is_congested() && !self.engine().is_over_full() {
                return;
            }
            let now = self.now();
            let (engine, handler) = self.parts();
            let Some((id, closed)) = engine.poll_closed(now, handler) else {
                return;
            };
            self.handle_closed(id, closed);
        }
    }

    /// Reads what a connection has sent, within its budgets. What was read and not decoded comes
    /// first. If a budget runs out, the connection is read again in a later turn.
    fn read(&mut self, id: ConnId, until: ReadUntil, work: &mut Work) {
        let units = work.left();
        let is_unfinished = self.read_within(id, until, work);
        self.count_work(units - work.left());
        if is_unfinished || self.engine().has_undecoded(id) {
            self.count_yield();
            self.ready().insert(id);
        }
    }

    /// As [`Driver::read`], but returns whether there may be more to read.
    fn read_within(&mut self, id: ConnId, until: ReadUntil, work: &mut Work) -> bool {
        self.resume_decoding(id, work);
        let mut budget = self.budgets().read_bytes;
        while self.engine().wants_read(id) {
            if budget == 0 || work.is_spent() {
                return true;
            }
            match self.read_once(id) {
                None => return false,
                Some(Ok(Received { taken: 0, .. })) => {
                    let now = self.now();
                    self.parts().0.handle_eof(now, id);
                    return false;
                }
                Some(Ok(Received { taken, room })) => {
                    self.handle_bytes(id, taken, work);
                    if until == ReadUntil::Short && taken < room {
                        return false;
                    }
                    budget = budget.saturating_sub(taken);
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => {
                    self.fail(id, CloseReason::from_read_error(&error));
                    return false;
                }
            }
        }
        false
    }

    /// Reads from a connection without an event that says so.
    fn read_again(&mut self, id: ConnId, work: &mut Work) {
        self.count_socket();
        self.read(id, ReadUntil::WouldBlock, work);
    }

    /// See [`final_read`].
    fn final_read(&mut self, id: ConnId) {
        final_read(self, id);
    }

    /// Writes what is queued for a connection, and schedules the rest.
    fn write(&mut self, id: ConnId) {
        let was_blocked = self.engine().is_blocked(id);
        if was_blocked && self.engine().wants_progress(id) {
            self.measure_progress(id);
        }
        // The kernel reports new room only for a socket that it found full.
        let mut is_full = false;
        for _ in 0..self.budgets().writes {
            match self.write_once(id) {
                None => break,
                Some(Ok(Written { taken, offered })) => {
                    let now = self.now();
                    let (engine, handler) = self.parts();
                    engine.handle_written(now, id, taken, handler);
                    is_full = taken < offered;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => is_full = true,
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return self.fail(id, CloseReason::from_write_error(&error)),
            }
            if is_full {
                break;
            }
        }
        if is_full {
            self.parts().0.handle_blocked(id);
            if self.engine().wants_progress(id) {
                self.measure_progress(id);
            }
        } else {
            self.parts().0.handle_write_budget_spent(id);
        }
        let is_blocked = self.engine().is_blocked(id);
        if is_blocked != was_blocked
            && let Err(error) = self.watch_writable(id, is_blocked)
        {
            self.fail(id, CloseReason::from_write_error(&error));
        }
    }

    /// Reports a failed socket to the engine.
    fn fail(&mut self, id: ConnId, reason: CloseReason) {
        let now = self.now();
        self.parts().0.handle_failure(now, id, reason);
    }
}

/// The final read: decides whether a silent peer is dead, and during a drain answers what it has
/// sent.
pub fn final_read<D: Driver + ?Sized>(driver: &mut D, id: ConnId) {
    driver.measure_progress(id);
    if driver.engine().is_blocked(id) {
        driver.write(id);
    }
    let mut work = Work::new(driver.budgets().read_work);
    driver.read_again(id, &mut work);
    if driver.ready().contains(id) {
        return driver.parts().0.postpone_final_read(id);
    }
    let may_peek = !driver.engine().wants_read(id);
    match driver.find_unread(id, may_peek) {
        Ok(found) => driver.handle_final_read(id, found),
        Err(error) => driver.fail(id, CloseReason::from_read_error(&error)),
    }
}
