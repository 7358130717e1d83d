//! How connections end, and what is reported of it.

use std::time::Duration;

use super::conn::{Conn, Phase};
use super::{Close, CloseMode, Closed, Context, Engine, Handler, get_live_mut};
use crate::close::{CloseReason, Origin, RejectReason};
use crate::id::ConnId;
use crate::time::Timestamp;

impl Engine {
    /// The next closed connection. It has left the engine, and the handler was called; the
    /// caller drops the socket.
    pub fn poll_closed<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        handler: &mut H,
    ) -> Option<(ConnId, Closed)> {
        self.advance(now);
        let id = self.closed.pop_front()?;
        let conn = self.conns.remove(id.slot());
        let Phase::Closed(reason) = conn.phase else {
            unreachable!("only closed connections are in the list of the closed")
        };
        let peer = conn.peer();
        let unsent = conn.outbox().len();
        self.wheel.remove(id.slot());
        if reason != CloseReason::Evicted {
            self.admission.leave(Some(peer.ip()));
        }
        self.stats.count_close(reason);
        let code = self.codes.remove(&id);
        if let Some(code) = code {
            self.stats.count_code(code);
        }
        let name = self.directory.name(id).cloned();
        let is_announced = conn.is_announced();
        let closed = Closed {
            reason,
            denied: self.logins.remove(id),
            code,
            name,
            peer,
            age: Duration::from_millis(self.now.ms_since(conn.opened)),
            silence: Duration::from_millis(self.now.ms_since(conn.last_seen)),
            pings_unanswered: conn.pings_unanswered,
            bytes_in: conn.bytes_in,
            bytes_out: conn.bytes_out,
            unsent,
            unacknowledged: Duration::from_millis(self.take_evidence(id)),
            unfinished: conn.inbox().unfinished(),
            close_mode: CloseMode::of(reason, unsent),
        };
        conn.release(&mut self.memory, &mut self.pool);
        let mut cx = Context { engine: self };
        if is_announced {
            handler.on_close(&mut cx, id, &closed);
        } else {
            handler.on_login_failed(&mut cx, id, &closed);
        }
        self.directory.remove(id);
        self.beats.remove(&id);
        self.forget_app_deadline(id);
        Some((id, closed))
    }

    fn take_evidence(&mut self, id: ConnId) -> u64 {
        match self.evidence.front() {
            Some((of, unacknowledged_ms)) if *of == id => {
                let unacknowledged_ms = *unacknowledged_ms;
                self.evidence.pop_front();
                unacknowledged_ms
            }
            _ => 0,
        }
    }

    /// Closes a connection. Every close goes through here. The first reason wins; a connection that
    /// is being flushed keeps the reason of the flush.
    pub(super) fn close(&mut self, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        conn.phase = match conn.phase {
            Phase::Open | Phase::HalfClosed => Phase::Closed(reason),
            Phase::Flushing(first) => Phase::Closed(first),
            Phase::AwaitingProxyHeader if reason.origin() == Origin::Peer => {
                return self.reject_cut_short(id);
            }
            Phase::AwaitingProxyHeader => return self.refuse(id, RejectReason::ProxyHeader),
            Phase::Closed(_) | Phase::Refused(_) => return,
        };
        self.closed.push_back(id);
    }

    /// Closes a connection when what is queued for it was sent. Does nothing if it is closing
    /// already.
    pub(super) fn close_after_flush(&mut self, id: ConnId, reason: CloseReason) {
        let now = self.now;
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        if conn.takes_messages() {
            // Earlier broadcasts come before the close.
            self.catch_up(id);
        }
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        if conn.is_live() {
            conn.phase = Phase::Flushing(reason);
            conn.begin_flush(now);
            conn.inbox_mut(&mut self.memory).drop_bytes();
            let was_reading = conn.reading.is_flowing();
            conn.reading.let_all_go();
            if !was_reading {
                self.readable.push_back(id);
            }
            self.finish_if_flushed(id);
        }
    }

    /// See [`Context::close`].
    pub fn close_on_request(&mut self, id: ConnId, how: Close) -> bool {
        let open = self.conn(id).is_some_and(Conn::is_live);
        match how {
            Close::Now => self.close(id, CloseReason::Requested),
            Close::AfterFlush => self.close_after_flush(id, CloseReason::Requested),
        }
        open
    }

    /// See [`Context::close_with`].
    pub fn close_with(&mut self, id: ConnId, how: Close, code: u16) -> bool {
        let is_live = self.conn(id).is_some_and(Conn::is_live);
        if is_live {
            self.codes.insert(id, code);
        }
        self.close_on_request(id, how)
    }
}
