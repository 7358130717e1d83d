//! What there is to see of a connection from outside, without touching it.

use std::net::SocketAddr;
use std::time::Duration;

use super::Engine;
use super::conn::{Conn, Phase};
use crate::directory::Name;
use crate::id::ConnId;

/// One connection at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its name.
    pub id: ConnId,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// How long it may be silent; `None` without a heartbeat.
    pub timeout: Option<Duration>,
    /// Whether its login is still to come: the handler does not know it, and no message reaches it.
    pub awaits_login: bool,
    /// How long it has been open.
    pub age: Duration,
    /// Time since the last sign of life.
    pub silence: Duration,
    /// Bytes received from the peer.
    pub bytes_in: u64,
    /// Bytes that the kernel has taken for the peer.
    pub bytes_out: u64,
    /// Bytes that wait for the kernel to take them.
    pub queued: usize,
    /// Bytes of a message that has not ended yet.
    pub unfinished: usize,
    /// Pings that wait for an answer.
    pub pings_unanswered: u8,
    /// The round trip of the last answered ping, in whole milliseconds; `None` before the first
    /// answer and while a ping is outstanding.
    pub round_trip: Option<Duration>,
    /// Whether it is closing: the peer has shut its side, or what is queued is sent first.
    pub closing: bool,
}

impl Engine {
    /// The connection, if it is in the engine and was admitted.
    pub fn snapshot(&self, id: ConnId) -> Option<ConnectionInfo> {
        self.view(id, self.conn(id)?)
    }

    /// The connections in `slots` slots from `from` on, so that a long list can be read in parts.
    /// `None` if there is no such slot any more.
    pub fn snapshot_slots(
        &self,
        from: usize,
        slots: usize,
    ) -> Option<impl Iterator<Item = ConnectionInfo> + '_> {
        let end = self.conns.capacity();
        let view = |slot: usize| {
            let conn = self.conns.get(slot)?;
            self.view(ConnId::new(slot, conn.generation), conn)
        };
        (from < end).then(|| (from..from.saturating_add(slots).min(end)).filter_map(view))
    }

    fn view(&self, id: ConnId, conn: &Conn) -> Option<ConnectionInfo> {
        let closing = match conn.phase {
            Phase::Open => false,
            Phase::HalfClosed | Phase::Flushing(_) => true,
            Phase::AwaitingProxyHeader | Phase::Refused(_) | Phase::Closed(_) => return None,
        };
        Some(ConnectionInfo {
            id,
            peer: conn.peer(),
            name: self.directory.name(id).cloned(),
            timeout: self
                .liveness_of(id, conn)
                .map(|liveness| Duration::from_millis(liveness.bound_ms())),
            awaits_login: !conn.is_announced(),
            age: Duration::from_millis(self.now.ms_since(conn.opened)),
            silence: Duration::from_millis(self.now.ms_since(conn.last_seen)),
            bytes_in: conn.bytes_in,
            bytes_out: conn.bytes_out,
            queued: conn.outbox().len(),
            unfinished: conn.inbox().unfinished(),
            pings_unanswered: conn.pings_unanswered,
            round_trip: conn.round_trip_ms().map(Duration::from_millis),
            closing,
        })
    }
}
