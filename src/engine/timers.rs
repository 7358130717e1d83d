//! What happens by the passing of time alone: pings, verdicts and timeouts.

use super::Engine;
use super::conn::{Conn, PeerActivity, Phase, Reading};
use super::liveness::{Evidence, Verdict};
use crate::close::{CloseReason, RejectReason};
use crate::id::ConnId;
use crate::time::Timestamp;

/// A kernel delays an acknowledgement by up to 200 ms (RFC 9293 section 3.8.6.3 allows 500), and
/// retransmits a lost segment after 200 ms: only after that does a missing acknowledgement mean
/// anything.
const MIN_UNACKNOWLEDGED_MS: u64 = 600;

/// The result of a driver's final read.
#[derive(Clone, Copy, Debug, Default)]
pub struct FinalRead {
    /// Bytes, or the peer's FIN, wait to be read, and reading is stopped.
    pub unread: bool,
    /// How many milliseconds ago the kernel received the last bytes of the peer
    /// (`tcpi_last_data_recv` of tcp(7)'s `TCP_INFO`); `None` where the system does not report it.
    pub received_ms: Option<u64>,
    /// For how many milliseconds the peer's kernel has acknowledged nothing although something is
    /// outstanding; `None` if nothing is, and where the system does not report it.
    pub unacknowledged_ms: Option<u64>,
}

impl Engine {
    /// Judges connections whose check is due, at most `budget` of them. Returns whether that was
    /// all; if not, the others are due at the next call.
    pub fn handle_timers(&mut self, now: Timestamp, budget: usize) -> bool {
        self.advance(now);
        if self.end_drain_if_over() {
            return true;
        }
        self.handle_memory_limit();
        for _ in 0..budget {
            let due = self.wheel.next_step();
            let Some(slot) = self.wheel.expire(self.now.as_ms() / self.slot_ms) else {
                return true;
            };
            if let Some(conn) = self.conns.get(slot) {
                let due = due.map_or(self.now, |tick| Timestamp::from_ms(tick * self.slot_ms));
                self.check(ConnId::new(slot, conn.generation), due);
            }
        }
        false
    }

    /// Since when the oldest due check or final read has been due; `None` if none is.
    pub fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let check = self.next_check_at().filter(|at| *at <= now);
        let read = self.final_reads.front().map(|(_, due)| *due);
        check.into_iter().chain(read).min()
    }

    fn next_check_at(&self) -> Option<Timestamp> {
        let tick = self.wheel.next_step()?;
        Some(Timestamp::from_ms(tick * self.slot_ms))
    }

    fn check(&mut self, id: ConnId, due: Timestamp) {
        self.note_app_deadline(id);
        let Some(conn) = self.conn(id) else { return };
        match conn.phase {
            Phase::Open
                if self
                    .rate_limited_until(id, conn)
                    .is_some_and(|until| until <= self.now) =>
            {
                self.resume_reading(id, Reading::RATE_LIMITED);
                self.schedule_check(id);
            }
            Phase::Open if self.is_draining() => self.check_drain(id, due),
            Phase::Open
                if self.deadlines.overdue(self.now, conn).is_some()
                    || self.is_sample_due(conn)
                    || self.login_deadline(id).is_some_and(|at| at <= self.now) =>
            {
                self.final_reads.push_back((id, due))
            }
            Phase::Open => match self.judge(id, conn) {
                None => self.schedule_check(id),
                Some(Verdict::Alive { check_again }) => {
                    let at = self
                        .next_deadline(id, conn)
                        .map_or(check_again, |at| at.min(check_again));
                    self.insert(id, at);
                }
                Some(Verdict::Ping) => {
                    self.push_ping(id);
                    self.schedule_check(id);
                }
                Some(Verdict::Suspect) => self.final_reads.push_back((id, due)),
            },
            Phase::AwaitingProxyHeader if Self::proxy_header_deadline(conn) <= self.now => {
                self.final_reads.push_back((id, due))
            }
            Phase::HalfClosed | Phase::Flushing(_)
                if self.flush_check_at(conn).is_some_and(|at| at <= self.now) =>
            {
                self.final_reads.push_back((id, due))
            }
            Phase::HalfClosed | Phase::Flushing(_) | Phase::AwaitingProxyHeader => {
                self.schedule_check(id)
            }
            Phase::Closed(_) | Phase::Refused(_) => {}
        }
    }

    /// Whether the progress of a connection is to be measured again.
    pub(super) fn is_sample_due(&self, conn: &Conn) -> bool {
        let at = match conn.phase {
            Phase::Open => self.deadlines.next_sample(conn),
            _ => Some(self.deadlines.next_flush_sample(conn)),
        };
        at.is_some_and(|at| at <= self.now)
    }

    /// When a connection that is being flushed is checked next. `None` while its bytes wait for the
    /// driver's flush: the peer cannot take what it was not offered.
    fn flush_check_at(&self, conn: &Conn) -> Option<Timestamp> {
        let ends = self.deadlines.flush_ends(conn);
        (!conn.waits_for_flush()).then(|| ends.min(self.deadlines.next_flush_sample(conn)))
    }

    /// The next connection that needs a final read. The driver calls
    /// [`Engine::handle_progress`]; it writes, if [`Engine::is_blocked`], because an event about
    /// new room may still be unread; it reads until the read would block, if
    /// [`Engine::wants_read`]; and it calls [`Engine::handle_final_read`].
    pub fn poll_final_read(&mut self) -> Option<ConnId> {
        self.final_reads.pop_front().map(|(id, _)| id)
    }

    /// The final read has used up its budget and there is more to read. The connection is checked
    /// again in the next slot of the wheel: a turn makes no second final read of it.
    pub fn postpone_final_read(&mut self, id: ConnId) {
        let ended = |conn: &Conn| matches!(conn.phase, Phase::Closed(_) | Phase::Refused(_));
        if self.conn(id).is_some_and(|conn| !ended(conn)) {
            self.insert(id, self.now.plus_ms(1));
        }
    }

    /// Decides after a final read.
    ///
    /// Unread bytes are a sign of life, unless they wait behind a queue that the peer does not
    /// read: those may have come before it stopped. They count as of when they were received, where
    /// the system reports that.
    pub fn handle_final_read(&mut self, now: Timestamp, id: ConnId, found: FinalRead) {
        self.advance(now);
        let now = self.now;
        let draining = self.is_draining();
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        match conn.phase {
            Phase::AwaitingProxyHeader if Self::proxy_header_deadline(conn) <= now => {
                return self.refuse(id, RejectReason::ProxyHeader);
            }
            Phase::HalfClosed | Phase::Flushing(_) => return self.end_flush_if_stuck(id),
            Phase::Open => {}
            Phase::AwaitingProxyHeader | Phase::Closed(_) | Phase::Refused(_) => {
                return self.schedule_check(id);
            }
        }
        // A throttle that is not blocked began in this turn, before its first write.
        let stuck = conn.is_throttled() && conn.is_blocked();
        let received = found
            .received_ms
            .map(|ms| Timestamp::from_ms(now.as_ms().saturating_sub(ms)));
        match received {
            _ if !found.unread => {}
            _ if !stuck => drop(conn.seen(now)),
            Some(at) if at > conn.last_seen => conn.seen_at(at),
            _ => {}
        }
        let has_more = found.unread || conn.inbox().has_undecoded();
        let is_stopped = conn.is_throttled()
            || conn.reading.is_stopped_by(Reading::FANOUT)
            || (has_more && conn.reading.is_stopped_by(Reading::RATE_LIMITED));
        if draining && is_stopped {
            // Its requests are not all answered yet; the end of the drain is soon enough.
            self.insert(id, now.plus_ms(self.tick_ms));
        } else if draining {
            self.say_goodbye(id);
            self.close_after_flush(id, CloseReason::Shutdown);
        } else if let Some(reason) = self
            .conn(id)
            .and_then(|conn| self.deadlines.overdue(now, conn))
        {
            self.close(id, reason);
        } else if self.end_login_if_late(id) {
            // It is being closed.
        } else if self.conn(id).and_then(|conn| self.judge(id, conn)) == Some(Verdict::Suspect) {
            self.declare_dead(id, found.unacknowledged_ms);
        } else {
            self.schedule_check(id);
        }
    }

    /// Closes a connection that is only being flushed, if its peer takes nothing any more.
    fn end_flush_if_stuck(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.waits_for_flush() || self.now < self.deadlines.flush_ends(conn) {
            return self.schedule_check(id);
        }
        match conn.phase {
            Phase::Flushing(reason) => self.close(id, reason),
            _ => self.close(id, CloseReason::SlowReader),
        }
    }

    /// Closes a silent connection, for what its silence most likely is.
    fn declare_dead(&mut self, id: ConnId, unacknowledged_ms: Option<u64>) {
        let Some(conn) = self.conn(id) else { return };
        let Some(liveness) = self.liveness_of(id, conn) else {
            return;
        };
        let (overshoot_ms, blocked) = (
            self.now.ms_since(liveness.deadline(conn.last_seen)),
            conn.is_blocked(),
        );
        // What was sent just now may still be under way, or its acknowledgement delayed.
        let least_ms = MIN_UNACKNOWLEDGED_MS.max(liveness.retry_ms() / 2);
        let lost_ms = unacknowledged_ms.filter(|ms| *ms >= least_ms);
        let reason = match lost_ms {
            Some(_) => CloseReason::HalfOpen,
            None if blocked => CloseReason::SlowReader,
            None => CloseReason::HeartbeatTimeout,
        };
        self.evidence.extend(lost_ms.map(|ms| (id, ms)));
        self.stats.overshoot.record_ms(overshoot_ms);
        self.close(id, reason);
    }

    /// When [`Engine::handle_timers`] must be called next; `None` while nothing is due by time
    /// alone, as without connections.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let memory = self
            .memory
            .poll_timeout()
            .filter(|_| !self.conns.is_empty());
        let wake_at = self.app_timers.wake_at();
        [self.next_check_at(), self.drain_ends_at(), memory, wake_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Notes a sign of life. The wheel changes only for a peer that answers a ping: its entry there
    /// is for the next ping or the verdict, and the first ping of a new silence may be due earlier.
    pub(super) fn seen(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let round_trip_ms = conn.seen(now);
        let open = conn.phase == Phase::Open;
        if let Some(round_trip_ms) = round_trip_ms {
            self.stats.round_trip.record_ms(round_trip_ms);
            if open {
                self.schedule_check(id);
            }
        }
    }

    /// Puts the next check of a connection on the wheel, if it needs one.
    pub(super) fn schedule_check(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let at = match conn.phase {
            Phase::Open if self.is_draining() => {
                let rate_limited_until = self.rate_limited_until(id, conn);
                self.drain_at(id)
                    .into_iter()
                    .chain(rate_limited_until)
                    .chain(self.app_deadline(id, conn))
                    .min()
            }
            Phase::Open => {
                let liveness = self
                    .liveness_of(id, conn)
                    .map(|liveness| liveness.next_check(&evidence(id, conn)));
                liveness
                    .into_iter()
                    .chain(self.next_deadline(id, conn))
                    .min()
            }
            Phase::HalfClosed | Phase::Flushing(_) => self
                .flush_check_at(conn)
                .into_iter()
                .chain(self.app_deadline(id, conn))
                .min(),
            Phase::AwaitingProxyHeader => Some(Self::proxy_header_deadline(conn)),
            Phase::Closed(_) | Phase::Refused(_) => None,
        };
        match at {
            Some(at) => self.insert(id, at),
            None => self.wheel.remove(id.slot()),
        }
    }

    /// The next instant, but for the heartbeat's, at which something about an open connection may
    /// be due.
    fn next_deadline(&self, id: ConnId, conn: &Conn) -> Option<Timestamp> {
        let overdue = self.deadlines.next(conn).map(|(at, _)| at);
        let sample = self.deadlines.next_sample(conn);
        let login = self.login_deadline(id);
        let rate_limited_until = self.rate_limited_until(id, conn);
        let app_deadline = self.app_deadline(id, conn);
        [overdue, sample, login, rate_limited_until, app_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn rate_limited_until(&self, id: ConnId, conn: &Conn) -> Option<Timestamp> {
        let rate_limiter = self
            .rate_limiter
            .as_ref()
            .filter(|_| conn.reading.is_stopped_by(Reading::RATE_LIMITED))?;
        Some(rate_limiter.resumes_at(id.slot()))
    }

    fn insert(&mut self, id: ConnId, at: Timestamp) {
        self.wheel.catch_up(self.now.as_ms() / self.slot_ms);
        // Rounded up: a check that fires before its time would have to be repeated.
        self.wheel
            .insert(id.slot(), at.as_ms().div_ceil(self.slot_ms));
    }

    fn judge(&self, id: ConnId, conn: &Conn) -> Option<Verdict> {
        self.liveness_of(id, conn)
            .map(|liveness| liveness.judge(self.now, &evidence(id, conn)))
    }
}

fn evidence(id: ConnId, conn: &Conn) -> Evidence {
    Evidence {
        last_seen: conn.last_seen,
        pings_unanswered: conn.pings_unanswered,
        last_ping: conn.last_ping(),
        beats: conn.activity() == PeerActivity::Pinging,
        salt: id.as_u64(),
    }
}
