//! The application's timers: a deadline for each connection, and one wake-up for itself.

use std::collections::{HashMap, VecDeque};

use super::conn::Conn;
use super::{Context, Engine, Handler};
use crate::id::ConnId;
use crate::time::Timestamp;

#[derive(Default)]
pub(super) struct AppTimers {
    deadlines: HashMap<ConnId, Timestamp>,
    /// Connections whose deadline has passed, and the handler was not called yet. Their deadlines
    /// are in the table until then.
    due: VecDeque<ConnId>,
    wake_at: Option<Timestamp>,
}

impl AppTimers {
    /// When the application is to be woken.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Whether a deadline has passed and the handler was not called yet.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn forget(&mut self, id: ConnId) {
        self.deadlines.remove(&id);
        if self.deadlines.is_empty() {
            // A table keeps the capacity of its busiest time.
            self.deadlines = HashMap::new();
        }
    }
}

impl Engine {
    /// Sets or clears the deadline of a connection. See [`Context::set_deadline`].
    pub fn set_deadline(&mut self, id: ConnId, at: Option<Timestamp>) -> bool {
        if !self.is_open(id) {
            return false;
        }
        match at {
            Some(at) => drop(self.app_timers.deadlines.insert(id, at)),
            None => self.app_timers.forget(id),
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.set_has_deadline(at.is_some());
        }
        self.schedule_check(id);
        true
    }

    /// Sets or clears the wake-up of the application. See [`Context::wake_at`].
    pub fn wake_at(&mut self, at: Option<Timestamp>) {
        self.app_timers.wake_at = at;
    }

    /// The application's deadline of a connection.
    pub(super) fn app_deadline(&self, id: ConnId, conn: &Conn) -> Option<Timestamp> {
        // Nearly every connection ends here.
        if !conn.has_deadline() {
            return None;
        }
        self.app_timers.deadlines.get(&id).copied()
    }

    /// Notes that a deadline has passed, if it has.
    pub(super) fn note_app_deadline(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conn(id) else { return };
        if self.app_deadline(id, conn).is_none_or(|at| at > now) {
            return;
        }
        self.app_timers.due.push_back(id);
        if let Some(conn) = self.conn_mut(id) {
            conn.set_has_deadline(false);
        }
    }

    /// Calls the handler for `budget` of the deadlines that have passed, and for its wake-up.
    /// Returns whether no deadline is left.
    pub fn handle_app_timers<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        budget: usize,
        handler: &mut H,
    ) -> bool {
        self.advance(now);
        if self.app_timers.wake_at.is_some_and(|at| at <= self.now) {
            self.app_timers.wake_at = None;
            handler.on_wake(&mut Context { engine: self });
        }
        for _ in 0..budget.min(self.app_timers.due.len()) {
            let Some(id) = self.app_timers.due.pop_front() else {
                break;
            };
            // It may have been replaced, or cleared, since it passed.
            let at = self.app_timers.deadlines.get(&id);
            if at.is_some_and(|at| *at <= self.now) {
                self.app_timers.forget(id);
                if self.is_open(id) {
                    handler.on_deadline(&mut Context { engine: self }, id);
                }
            }
        }
        self.app_timers.due.is_empty()
    }

    /// A connection has left the engine.
    pub(super) fn forget_app_deadline(&mut self, id: ConnId) {
        self.app_timers.forget(id);
    }
}

impl Context<'_> {
    /// Asks for [`Handler::on_deadline`](super::Handler::on_deadline) at this instant, or no longer
    /// (`None`). One deadline per connection: a later call replaces it.
    ///
    /// It comes once, not before `at`, and no later than one tick and the lag of the loop after it;
    /// for an instant that has passed it comes in this turn or the next. It does not come once the
    /// connection is closed or closing. Returns `false`, and does nothing, if that is so already.
    /// Costs a table entry while it is set.
    pub fn set_deadline(&mut self, id: ConnId, at: Option<Timestamp>) -> bool {
        self.engine.set_deadline(id, at)
    }

    /// Asks for [`Handler::on_wake`](super::Handler::on_wake) at this instant, or no longer
    /// (`None`), also without any connection. There is one wake-up: a later call replaces it. It
    /// comes once, not before `at`.
    pub fn wake_at(&mut self, at: Option<Timestamp>) {
        self.engine.wake_at(at);
    }
}
