//! The state of one connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::memory::{Counted, LentInbox, Memory};
use super::outbox::{Outbox, Pool};
use crate::close::{CloseReason, RejectReason};
use crate::framing::inbox::Inbox;
use crate::progress::Progress;
use crate::time::Timestamp;

/// Everything that the engine keeps per connection.
///
/// 80 bytes here, 8 on the timer wheel and 4 for the descriptor are the whole price of an idle
/// connection.
pub(super) struct Conn {
    pub(super) opened: Timestamp,
    /// The last sign of life: an inbound byte or the FIN.
    pub(super) last_seen: Timestamp,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    inbox: Inbox,
    outbox: Outbox,
    peer_ip: [u8; 16],
    pub(super) generation: u32,
    /// While pings are out: when the last of them was sent, in milliseconds after `last_seen`.
    /// Otherwise: how long the last one that was answered had been out, in milliseconds, or
    /// [`NEVER_ASKED`].
    ping_ms: u32,
    peer_port: u16,
    /// Pings sent since the last sign of life.
    pub(super) pings_unanswered: u8,
    /// Where the last ping ended in all that was queued, in KiB and modulo 256.
    ping_mark: u8,
    pub(super) phase: Phase,
    pub(super) reading: Reading,
    status: StatusBits,
}

/// No ping of a connection was answered yet.
const NEVER_ASKED: u32 = u32::MAX;

const _: () = assert!(
    size_of::<Conn>() <= 80,
    "an idle connection must stay cheap: see the memory goal in docs/architecture.md"
);

/// The state of a connection. Transitions only go down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The PROXY header of a balancer is still to come. The handler does not know of the
    /// connection.
    AwaitingProxyHeader,
    /// Rejected before its PROXY header was complete. Reaped at the end of the turn.
    Refused(RejectReason),
    /// Both directions work.
    Open,
    /// The peer has shut its writing side; what is queued is sent, then the connection is closed.
    HalfClosed,
    /// The server closes the connection for this reason as soon as what is queued was sent; inbound
    /// bytes are discarded.
    Flushing(CloseReason),
    /// Over. It waits to be reaped at the end of the turn.
    Closed(CloseReason),
}

/// Whether bytes may be read from a connection: only while nothing stops it. The upper bits hold
/// its [`PeerActivity`], for which the 80 bytes have no byte left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading(u8);

const STOPS: u8 = 0x1f;
const ACTIVE: u8 = 0x20;
const BEATING: u8 = 0x40;

/// [`Writing`], [`Handshake`], whether the handler knows the connection, and whether it has set a
/// deadline, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StatusBits(u8);

const WRITING: u8 = 0x03;
const HANDSHAKE: u8 = 0x0c;
const PLAIN: u8 = 0x04;
const EXTENDED: u8 = 0x08;
const UNANNOUNCED: u8 = 0x10;
const DEADLINE: u8 = 0x20;

/// What the first message has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// No message has come yet. Heartbeats do not count.
    Awaited,
    /// The first message was one of the application: the peer does not know the handshake.
    Plain,
    /// The first message was a `hello`.
    Extended,
}

/// What the peer has sent of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerActivity {
    /// Not one whole frame yet.
    None,
    /// A message or a heartbeat at least.
    Active,
    /// A ping: the peer sends pings by itself, and has not been silent for so long since that it
    /// had to be pinged.
    Pinging,
}

/// The state of queued bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Writing {
    /// Nothing is queued, or the driver is writing it.
    Idle = 0,
    /// The connection is in the engine's list of those to flush.
    Queued = 1,
    /// The connection is in the list of those with only a broadcast to flush.
    BroadcastOnly = 2,
    /// The kernel has taken less than it was given; the rest waits until it has room.
    Blocked = 3,
}

impl Reading {
    /// By the handler.
    pub(super) const PAUSED: Reading = Reading(1);
    /// By the engine: more than the high-water mark is queued for this peer.
    pub(super) const THROTTLED: Reading = Reading(2);
    /// By the engine: the peer has sent more messages than it may for now.
    pub(super) const RATE_LIMITED: Reading = Reading(4);
    /// By the engine: a broadcast of this peer's is not complete.
    pub(super) const FANOUT: Reading = Reading(8);
    /// By the engine: the peer's login is not decided.
    pub(super) const LOGIN: Reading = Reading(16);

    /// Nothing stops it any more.
    pub(super) fn let_all_go(&mut self) {
        self.0 &= !STOPS;
    }

    pub(super) fn stop(&mut self, by: Reading) {
        self.0 |= by.0;
    }

    pub(super) fn let_go(&mut self, by: Reading) {
        self.0 &= !by.0;
    }

    pub(super) fn is_stopped_by(self, by: Reading) -> bool {
        self.0 & by.0 != 0
    }

    pub(super) fn is_flowing(self) -> bool {
        self.0 & STOPS == 0
    }
}

impl Conn {
    pub(super) fn new(now: Timestamp, peer: SocketAddr, generation: u32) -> Self {
        Conn {
            opened: now,
            last_seen: now,
            bytes_in: 0,
            bytes_out: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            peer_ip: octets(peer.ip()),
            generation,
            ping_ms: NEVER_ASKED,
            peer_port: peer.port(),
            pings_unanswered: 0,
            ping_mark: 0,
            phase: Phase::Open,
            reading: Reading::default(),
            status: StatusBits::default(),
        }
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The inbox with write access: `memory` counts the change of what it holds.
    pub(super) fn inbox_mut<'a>(&'a mut self, memory: &'a mut Memory) -> Counted<'a, Inbox> {
        memory.counted_inbox(&mut self.inbox)
    }

    /// The outbox with write access: `memory` counts the change of what it holds.
    pub(super) fn outbox_mut<'a>(&'a mut self, memory: &'a mut Memory) -> Counted<'a, Outbox> {
        memory.counted_outbox(&mut self.outbox)
    }

    /// Takes the inbox out while frames that borrow from it are with the handler. `memory` counts
    /// it as held until [`Conn::return_inbox`] or [`Memory::forget`].
    pub(super) fn lend_inbox(&mut self) -> LentInbox {
        LentInbox::new(std::mem::take(&mut self.inbox))
    }

    /// Puts the inbox back in the place of the empty one that [`Conn::lend_inbox`] left.
    pub(super) fn return_inbox(&mut self, lent: LentInbox, memory: &mut Memory) {
        self.inbox = memory.recount(lent);
    }

    /// Drops the buffers of a connection that leaves the engine.
    pub(super) fn release(mut self, memory: &mut Memory, pool: &mut Pool) {
        *self.inbox_mut(memory) = Inbox::default();
        self.outbox_mut(memory).clear(pool);
    }

    /// Sets the time at which the unfinished frame began. Does nothing without one.
    pub(super) fn set_frame_since(&mut self, since: Timestamp) {
        self.inbox.set_frame_since(since);
    }

    /// Sets the progress of the outbox. Does nothing if nothing is queued.
    pub(super) fn set_progress(&mut self, progress: Progress) {
        self.outbox.set_progress(progress);
    }

    pub(super) fn writing(&self) -> Writing {
        match self.status.0 & WRITING {
            0 => Writing::Idle,
            1 => Writing::Queued,
            2 => Writing::BroadcastOnly,
            _ => Writing::Blocked,
        }
    }

    pub(super) fn set_writing(&mut self, writing: Writing) {
        self.status.0 = (self.status.0 & !WRITING) | writing as u8;
    }

    pub(super) fn handshake(&self) -> Handshake {
        match self.status.0 & HANDSHAKE {
            0 => Handshake::Awaited,
            PLAIN => Handshake::Plain,
            _ => Handshake::Extended,
        }
    }

    pub(super) fn set_handshake(&mut self, handshake: Handshake) {
        let bits = match handshake {
            Handshake::Awaited => 0,
            Handshake::Plain => PLAIN,
            Handshake::Extended => EXTENDED,
        };
        self.status.0 = (self.status.0 & !HANDSHAKE) | bits;
    }

    /// Whether the peer has said `hello`.
    pub(super) fn is_extended(&self) -> bool {
        self.status.0 & EXTENDED != 0
    }

    /// Whether the handler knows of the connection.
    pub(super) fn is_announced(&self) -> bool {
        self.status.0 & UNANNOUNCED == 0
    }

    pub(super) fn set_announced(&mut self, announced: bool) {
        if announced {
            self.status.0 &= !UNANNOUNCED;
        } else {
            self.status.0 |= UNANNOUNCED;
        }
    }

    /// Whether the application has set a deadline.
    pub(super) fn has_deadline(&self) -> bool {
        self.status.0 & DEADLINE != 0
    }

    pub(super) fn set_has_deadline(&mut self, has_deadline: bool) {
        if has_deadline {
            self.status.0 |= DEADLINE;
        } else {
            self.status.0 &= !DEADLINE;
        }
    }

    pub(super) fn activity(&self) -> PeerActivity {
        match self.reading.0 & (ACTIVE | BEATING) {
            0 => PeerActivity::None,
            ACTIVE => PeerActivity::Active,
            _ => PeerActivity::Pinging,
        }
    }

    pub(super) fn set_activity(&mut self, activity: PeerActivity) {
        let bits = match activity {
            PeerActivity::None => 0,
            PeerActivity::Active => ACTIVE,
            PeerActivity::Pinging => ACTIVE | BEATING,
        };
        self.reading.0 = (self.reading.0 & STOPS) | bits;
    }

    /// The number of bytes ever queued, in KiB and modulo 256.
    fn position(&self, less: usize) -> u8 {
        ((self.bytes_out + self.outbox.len() as u64 - less as u64) >> 10) as u8
    }

    /// Marks the end of what is queued as the position of the last ping.
    pub(super) fn mark_ping(&mut self) {
        self.ping_mark = self.position(0);
    }

    /// Bytes queued since the last ping, give or take a KiB, where the last append was of `len`
    /// bytes and the number before it was below 256 KiB.
    pub(super) fn bytes_since_ping(&self, len: usize) -> usize {
        let before = self.position(len).wrapping_sub(self.ping_mark);
        (usize::from(before) << 10) + len
    }

    /// The peer's address. IPv6 scope and flow label are not kept: they would take 8 bytes per
    /// connection.
    pub(super) fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.peer_ip).to_canonical(), self.peer_port)
    }

    pub(super) fn set_peer(&mut self, peer: SocketAddr) {
        (self.peer_ip, self.peer_port) = (octets(peer.ip()), peer.port());
    }

    /// Notes a sign of life, which answers every outstanding ping. Returns for how many
    /// milliseconds the last ping had been outstanding, if there was one.
    pub(super) fn seen(&mut self, now: Timestamp) -> Option<u64> {
        let round_trip_ms = self.last_ping().map(|asked| now.ms_since(asked));
        if let Some(ms) = round_trip_ms {
            self.ping_ms = u32::try_from(ms).unwrap_or(NEVER_ASKED - 1);
        }
        self.last_seen = now;
        self.pings_unanswered = 0;
        round_trip_ms
    }

    /// Notes a sign of life at an earlier instant. It answers no ping.
    pub(super) fn seen_at(&mut self, at: Timestamp) {
        if let Some(last_ping) = self.last_ping() {
            self.ping_ms = u32::try_from(last_ping.ms_since(at)).unwrap_or(u32::MAX);
        }
        self.last_seen = at;
    }

    /// The round trip of the last answered ping; `None` before the first answer and while a ping is
    /// outstanding.
    pub(super) fn round_trip_ms(&self) -> Option<u64> {
        (self.pings_unanswered == 0 && self.ping_ms != NEVER_ASKED).then_some(self.ping_ms.into())
    }

    pub(super) fn pinged(&mut self, now: Timestamp) {
        if self.activity() == PeerActivity::Pinging {
            self.set_activity(PeerActivity::Active);
        }
        self.pings_unanswered = self.pings_unanswered.saturating_add(1);
        self.ping_ms = u32::try_from(now.ms_since(self.last_seen)).unwrap_or(u32::MAX);
    }

    pub(super) fn last_ping(&self) -> Option<Timestamp> {
        (self.pings_unanswered > 0).then(|| self.last_seen.plus_ms(u64::from(self.ping_ms)))
    }

    /// The flush timeout begins: the connection is closed when its peer makes no progress for that
    /// long.
    pub(super) fn begin_flush(&mut self, now: Timestamp) {
        self.set_progress(Progress::since(now));
    }

    pub(super) fn was_active(&self) -> bool {
        self.reading.0 & ACTIVE != 0
    }

    pub(super) fn is_throttled(&self) -> bool {
        self.reading.is_stopped_by(Reading::THROTTLED)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.writing() == Writing::Blocked
    }

    /// Whether what is queued waits for the driver, and not for the kernel.
    pub(super) fn waits_for_flush(&self) -> bool {
        !self.outbox.is_empty() && !self.is_blocked()
    }

    /// Whether the connection is neither closing nor awaiting its PROXY header.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::HalfClosed)
    }

    /// Whether messages may still be queued for the peer.
    pub(super) fn takes_messages(&self) -> bool {
        self.is_live() && self.is_announced()
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_address_round_trips() {
        for addr in ["192.0.2.7:80", "[2001:db8::1]:443", "[::1]:1"] {
            let addr: SocketAddr = addr.parse().expect("an address");
            assert_eq!(Conn::new(Timestamp::ZERO, addr, 0).peer(), addr);
        }
    }

    #[test]
    fn reading_resumes_only_when_all_have_let_go() {
        let mut reading = Reading::default();
        reading.stop(Reading::PAUSED);
        reading.stop(Reading::THROTTLED);
        reading.let_go(Reading::PAUSED);
        assert!(reading.is_stopped_by(Reading::THROTTLED) && !reading.is_flowing());
        reading.let_go(Reading::THROTTLED);
        assert!(reading.is_flowing());
    }

    #[test]
    fn any_byte_answers_every_outstanding_ping() {
        let mut conn = Conn::new(
            Timestamp::from_ms(100),
            "192.0.2.7:80".parse().expect("an address"),
            0,
        );
        conn.pinged(Timestamp::from_ms(5100));
        assert_eq!(conn.last_ping(), Some(Timestamp::from_ms(5100)));
        assert_eq!(conn.round_trip_ms(), None, "the answer is still to come");
        assert_eq!(conn.seen(Timestamp::from_ms(5200)), Some(100));
        assert_eq!(
            (
                conn.last_ping(),
                conn.pings_unanswered,
                conn.round_trip_ms()
            ),
            (None, 0, Some(100))
        );
        assert_eq!(
            conn.seen(Timestamp::from_ms(5300)),
            None,
            "nothing was asked"
        );
        assert_eq!(conn.round_trip_ms(), Some(100));
    }
}
