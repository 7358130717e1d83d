//! Control messages of the handshake, to and from one connection, and the heartbeat that it is
//! granted. What a login decides is in `login`.

use std::time::Duration;

use super::conn::{Conn, Handshake, Writing};
use super::liveness::Liveness;
use super::{Engine, Handler, get_live_mut};
use crate::close::{CloseReason, DenyReason};
use crate::framing::handshake::{self, GrantedBeat, MAX_HELLO, Welcome, encode_end};
use crate::id::ConnId;
use crate::time::{Timestamp, duration_to_ms};

/// The heartbeat interval that a connection was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnInterval {
    interval_ms: u64,
    /// When it was granted. Silence before that was judged by another.
    since: Timestamp,
}

impl Engine {
    /// Longest frame that may be decoded from a connection.
    pub(super) fn max_frame(&self, handshake: Handshake, is_announced: bool) -> usize {
        let max_message = self.codec.max_message();
        match handshake {
            Handshake::Plain => max_message,
            // The escape does not count.
            Handshake::Extended => max_message.saturating_add(1),
            Handshake::Awaited if !is_announced => MAX_HELLO,
            Handshake::Awaited if !self.logins.is_on() => max_message,
            Handshake::Awaited => max_message.max(MAX_HELLO),
        }
    }

    /// Takes the first message of a connection: a `hello`, or one of the application.
    pub(super) fn handle_first_message<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        message: &[u8],
        handler: &mut H,
    ) {
        if self.codec.is_http_request(message) {
            return self.close_after_flush(id, CloseReason::HttpRequest);
        }
        if !self.codec.is_raw() && handshake::is_hello(message) {
            return self.handle_hello(id, message, handler);
        }
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if !conn.is_announced() {
            return self.deny(id, DenyReason::LoginRequired);
        }
        conn.set_handshake(Handshake::Plain);
        if message.len() > self.codec.max_message() {
            return self.close_after_flush(id, CloseReason::FrameTooLarge);
        }
        self.deliver_message(id, message, handler);
    }

    /// Takes a later message of a connection that has said `hello`.
    pub(super) fn handle_extended_message<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        message: &[u8],
        handler: &mut H,
    ) {
        if handshake::is_control(message) {
            self.say_bye(id, CloseReason::Malformed);
            return self.close_after_flush(id, CloseReason::Malformed);
        }
        let message = handshake::unescape(message);
        if message.len() > self.codec.max_message() {
            return self.close_after_flush(id, CloseReason::FrameTooLarge);
        }
        self.deliver_message(id, message, handler);
    }

    /// Answers a `hello`. From here on the connection is judged by the interval that its peer
    /// wants, as far as that is granted.
    pub(super) fn welcome(&mut self, id: ConnId, wanted_beat: Option<Duration>) {
        if let Some(wanted) = wanted_beat {
            self.grant_beat(id, wanted);
        }
        let Some(conn) = self.conn(id) else { return };
        let liveness = self.liveness_of(id, conn);
        let welcome = Welcome {
            name: self.directory.name(id).map(|name| name.as_str().into()),
            beat: liveness.map(|liveness| GrantedBeat {
                interval: Duration::from_millis(liveness.interval_ms()),
                retry: Duration::from_millis(liveness.retry_ms()),
                max_missed: liveness.max_missed(),
            }),
        };
        self.send_control(id, &welcome.encode());
    }

    /// Tells a peer that knows the handshake why it is closed.
    pub(super) fn say_bye(&mut self, id: ConnId, reason: CloseReason) {
        if !self.conn(id).is_some_and(Conn::is_extended) {
            return;
        }
        self.send_control(id, &encode_end("bye", reason.as_str(), None));
    }

    /// Queues a control message, which is not escaped. It may exceed the bound of the outbox: it is
    /// short, and each kind comes once.
    pub(super) fn send_control(&mut self, id: ConnId, message: &[u8]) {
        if self.is_open(id) {
            // Earlier broadcasts come before it.
            self.catch_up(id);
        }
        let Some(conn) = get_live_mut(&mut self.conns, id).filter(|conn| conn.is_live()) else {
            return;
        };
        let before = conn.outbox().len();
        conn.outbox_mut(&mut self.memory)
            .append(&mut self.pool, |buffer| {
                self.codec.encode(&[message], buffer);
            });
        let len = conn.outbox().len() - before;
        self.after_enqueue(id, len, Writing::Queued);
    }

    fn grant_beat(&mut self, id: ConnId, wanted: Duration) {
        let Some(rules) = &self.heartbeat else { return };
        let tick = Duration::from_millis(self.tick_ms);
        let granted = rules.granted(wanted, tick);
        let interval_ms = duration_to_ms(granted.interval);
        self.shortest_beat_ms = self
            .shortest_beat_ms
            .min(duration_to_ms(granted.shortest()));
        let since = self.now;
        self.beats.insert(id, OwnInterval { interval_ms, since });
        self.schedule_check(id);
    }

    /// The rules by which a connection is judged.
    pub(super) fn liveness_of(&self, id: ConnId, conn: &Conn) -> Option<Liveness> {
        let liveness = self.liveness?;
        let beat = if conn.is_extended() {
            self.beats.get(&id)
        } else {
            None
        };
        Some(beat.map_or(liveness, |beat| {
            liveness.with_interval(beat.interval_ms, beat.since)
        }))
    }
}
