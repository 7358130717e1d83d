//! The interfaces between an application and the engine.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Broadcast, BroadcastId, ConnectionInfo, Engine, LoginDecision, LoginRequest, Stats};
use crate::close::{CloseReason, DenyReason};
use crate::directory::Name;
use crate::error::SendError;
use crate::id::ConnId;
use crate::time::Timestamp;

/// An application. Only [`Handler::on_message`] must be written.
///
/// Every call comes on the thread of the server, between two polls: whatever blocks here blocks
/// every connection. For each connection there is one `on_open`, then any number of the others,
/// then one `on_close`, and nothing after it.
pub trait Handler {
    /// A connection was admitted. Messages can be sent to it at once.
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let _ = (cx, id);
    }

    /// A peer has said `hello` and wants a name (`LoginMode::Optional`, `LoginMode::Required`).
    /// Denies by default, as [`DenyReason::Refused`].
    ///
    /// Until its login is accepted, nothing is read from the peer and no message reaches it. Where
    /// a login is required, `on_open` follows when it is; where it is optional, `on_open` came
    /// before. An accepted login is complete once the peer is welcomed: see
    /// [`Context::name_of`].
    fn on_login(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        let _ = (cx, id, request);
        LoginDecision::Deny(DenyReason::Refused)
    }

    /// A message arrived, without its framing; it may be empty. The bytes are borrowed from the
    /// read buffer: copy what must be kept. Heartbeats are not passed on.
    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]);

    /// Everything queued for this connection has gone out, after the queue had been stuck: the time
    /// to send more.
    fn on_queue_empty(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let _ = (cx, id);
    }

    /// The instant of [`Context::set_deadline`] has passed.
    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let _ = (cx, id);
    }

    /// The instant of [`Context::wake_at`] has passed.
    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// A broadcast that was [`Broadcast::Pending`] is complete: its message is queued for
    /// `receivers` connections.
    fn on_broadcast(&mut self, cx: &mut Context<'_>, broadcast: BroadcastId, receivers: usize) {
        let _ = (cx, broadcast, receivers);
    }

    /// A connection has ended before it logged in, where a login is required. `on_open` did not
    /// come for it, and `on_close` does not.
    fn on_login_failed(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        let _ = (cx, id, closed);
    }

    /// A connection has ended. Its id is stale already: sending to it returns
    /// [`SendError::Closed`].
    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        let _ = (cx, id, closed);
    }
}

/// The end of one connection, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// Why its login was denied, if it was.
    pub denied: Option<DenyReason>,
    /// The application's code, if it was closed with one ([`Context::close_with`]).
    pub code: Option<u16>,
    /// Its name, if it had one.
    pub name: Option<Name>,
    /// The peer's address.
    pub peer: SocketAddr,
    /// How long the connection was open.
    pub age: Duration,
    /// Time since the last sign of life: an inbound byte or the peer's FIN.
    pub silence: Duration,
    /// Pings that were not answered.
    pub pings_unanswered: u8,
    /// Bytes received from the peer.
    pub bytes_in: u64,
    /// Bytes that the kernel had taken for the peer.
    pub bytes_out: u64,
    /// Bytes that were still queued for the peer and are lost.
    pub unsent: usize,
    /// For how long the peer's kernel had acknowledged nothing although something was outstanding,
    /// at the final read. Zero if nothing was outstanding, without a final read, and where the
    /// system does not report it (`TCP_INFO` of tcp(7)).
    pub unacknowledged: Duration,
    /// Bytes of an unfinished message. They are dropped.
    pub unfinished: usize,
    /// How the driver closes the socket.
    pub close_mode: CloseMode,
}

/// How a driver closes the socket of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// Close the socket: a FIN, or a reset if unread bytes are left.
    Close,
    /// Shut the writing side, then read and discard until the peer has shut its side, or for a
    /// moment, before the socket is closed: unread bytes would cause a reset, which may overtake
    /// the last reply (RFC 1122 section 4.2.2.13).
    Linger,
    /// Reset the connection (the ABORT of RFC 9293 section 3.10.5). A peer that does not answer
    /// does not answer a FIN either: the kernel would keep its buffers and repeat the FIN for
    /// minutes.
    Reset,
}

impl CloseMode {
    pub(super) fn of(reason: CloseReason, unsent: usize) -> Self {
        match reason {
            CloseReason::HeartbeatTimeout
            | CloseReason::HalfOpen
            | CloseReason::SlowReader
            | CloseReason::MemoryLimit => CloseMode::Reset,
            // The peer was told, and did not take it: most often it is gone.
            CloseReason::Replaced if unsent > 0 => CloseMode::Reset,
            CloseReason::FrameTooLarge
            | CloseReason::HttpRequest
            | CloseReason::Malformed
            | CloseReason::LoginFailed
            | CloseReason::LoginTimeout
            | CloseReason::LoginExpired
            | CloseReason::Replaced
            | CloseReason::RateLimited
            | CloseReason::Requested
            | CloseReason::Shutdown
                if unsent == 0 =>
            {
                CloseMode::Linger
            }
            _ => CloseMode::Close,
        }
    }
}

/// How to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// At the end of this turn; what is queued is lost.
    Now,
    /// When what is queued was sent, or when the peer has acknowledged nothing of it for one
    /// heartbeat timeout.
    AfterFlush,
}

/// The server, as seen by a handler. All calls return at once; what they queue is sent at the end
/// of the turn.
pub struct Context<'a> {
    pub(crate) engine: &'a mut Engine,
}

impl Context<'_> {
    /// The instant of this turn, in awake time: see [`AwakeClock`](crate::time::AwakeClock).
    pub fn now(&self) -> Timestamp {
        self.engine.now
    }

    /// Queues a message. A message equal to a heartbeat word would be taken for a heartbeat by the
    /// peer.
    ///
    /// Fails if the connection is closed or closing, if the framing cannot carry the message, or if
    /// the outbox would pass its bound; the latter closes the connection as a slow reader.
    pub fn send(&mut self, id: ConnId, message: &[u8]) -> Result<(), SendError> {
        self.engine.send(id, &[message])
    }

    /// Queues one message made of `parts` joined together, as [`Context::send`] does, without the
    /// copy that joining them would take.
    pub fn send_parts(&mut self, id: ConnId, parts: &[&[u8]]) -> Result<(), SendError> {
        self.engine.send(id, parts)
    }

    /// Queues a message for every connection that is open now, but for `except`.
    ///
    /// With many connections this goes on in later turns, and [`Handler::on_broadcast`] tells when
    /// it is complete. Each connection gets its messages in the order of the calls of this and of
    /// [`Context::send`]. The peer whose message the handler has at present is not read until its
    /// broadcasts are complete. A connection whose outbox would pass its limit is closed as a slow
    /// reader, or does not get the message (`OnSlow::Drop`).
    ///
    /// Fails, for all alike, if the framing cannot carry the message
    /// ([`SendError::InvalidMessage`]), if no outbox has room for a message of its size
    /// ([`SendError::Full`]), and if 512 broadcasts are under way, or their messages hold a quarter
    /// of the memory limit ([`SendError::Full`]).
    pub fn broadcast(
        &mut self,
        message: &[u8],
        except: Option<ConnId>,
    ) -> Result<Broadcast, SendError> {
        self.engine.broadcast(message, except)
    }

    /// Closes a connection, for the reason [`CloseReason::Requested`]. Returns `false`, and does
    /// nothing, if it is closed or closing already; [`Close::Now`] still cuts a closing one short,
    /// under its first reason.
    pub fn close(&mut self, id: ConnId, how: Close) -> bool {
        self.engine.close_on_request(id, how)
    }

    /// As [`Context::close`], with a code of the application's: it is in [`Closed::code`], in the
    /// log, and in [`Stats::closed_by_code`].
    pub fn close_with(&mut self, id: ConnId, how: Close, code: u16) -> bool {
        self.engine.close_with(id, how, code)
    }

    /// Rejects a connection, in its `on_open` only: it is closed at the end of this turn, what is
    /// queued for it is sent only as far as its socket takes it at once, it counts as a rejection ([`RejectReason::Application`](crate::RejectReason)) and not
    /// as a connection, and `on_close` does not come. Returns `false`, and does nothing, at any
    /// other time.
    pub fn reject(&mut self, id: ConnId) -> bool {
        self.engine.reject(id)
    }

    /// Stops reading from a connection, at once: bytes that were read already are kept and decoded
    /// after [`Context::resume_reads`]. While it is paused, unread bytes count as life. Repeated
    /// calls do nothing.
    pub fn pause_reads(&mut self, id: ConnId) {
        self.engine.pause_reads(id, true);
    }

    /// Reads from the connection again. Early and repeated calls do nothing.
    pub fn resume_reads(&mut self, id: ConnId) {
        self.engine.pause_reads(id, false);
    }

    /// The peer's address; `None` if the connection is closed.
    pub fn peer_addr(&self, id: ConnId) -> Option<SocketAddr> {
        self.engine.peer_addr(id)
    }

    /// Bytes queued for the connection; 0 if it is closed.
    pub fn queued(&self, id: ConnId) -> usize {
        self.engine.queued(id)
    }

    /// Whether messages can be queued for the connection.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.engine.is_open(id)
    }

    /// The connections that messages can be queued for, in the order of their slots. Visits every
    /// slot: with very many connections, [`Context::ids_in_slots`] takes less time at once.
    pub fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.engine.open_ids()
    }

    /// The same in `slots` slots from `from` on; `None` if there is no such slot any more.
    pub fn ids_in_slots(
        &self,
        from: usize,
        slots: usize,
    ) -> Option<impl Iterator<Item = ConnId> + '_> {
        self.engine.open_ids_in(from, slots)
    }

    /// Connections held now, those included that are about to be closed at the end of the turn.
    pub fn connections(&self) -> usize {
        self.engine.connections()
    }

    /// Most connections at once, as the configuration and the descriptor limit have it.
    pub fn max_connections(&self) -> usize {
        self.engine.max_connections()
    }

    /// A snapshot of the connection; `None` if it is closed.
    pub fn snapshot(&self, id: ConnId) -> Option<ConnectionInfo> {
        self.engine.snapshot(id)
    }

    /// Snapshots of the connections in `slots` slots from `from` on, so that a long list can be
    /// read in parts; `None` if there is no such slot any more. A connection that opens or closes
    /// between two parts may be in none of them.
    pub fn snapshot_slots(
        &self,
        from: usize,
        slots: usize,
    ) -> Option<impl Iterator<Item = ConnectionInfo> + '_> {
        self.engine.snapshot_slots(from, slots)
    }

    /// Bytes held in all queues and unfinished messages together; what several connections share
    /// counts once.
    pub fn buffered(&self) -> usize {
        self.engine.buffered()
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.engine.is_draining()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        self.engine.stats()
    }
}
