//! One established connection of a client, as a pure state machine: when to send a ping, and when
//! to close.

use std::time::Duration;

use super::handshake::HandshakeState;
use super::rtt::Outstanding;
use crate::config::Heartbeat;
use crate::framing::handshake::GrantedBeat;
use crate::progress::Progress;
use crate::time::{Timestamp, duration_to_ms};

/// The heartbeat in the units of the machine.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) interval_ms: u64,
    pub(super) retry_ms: u64,
    pub(super) max_missed: u32,
    pub(super) send_pings: bool,
}

impl Beat {
    pub(super) fn new(heartbeat: &Heartbeat) -> Self {
        Beat {
            interval_ms: duration_to_ms(heartbeat.interval),
            retry_ms: duration_to_ms(heartbeat.retry()),
            max_missed: u32::from(heartbeat.max_missed),
            send_pings: heartbeat.send_pings,
        }
    }

    /// The heartbeat that a server grants.
    pub(super) fn granted(&self, granted: &GrantedBeat) -> Self {
        Beat {
            interval_ms: duration_to_ms(granted.interval),
            retry_ms: duration_to_ms(granted.retry),
            max_missed: u32::from(granted.max_missed),
            send_pings: self.send_pings,
        }
    }

    /// The silence after which the connection is left.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms())
    }

    fn timeout_ms(&self) -> u64 {
        let retries_ms = self.retry_ms.saturating_mul(u64::from(self.max_missed));
        self.interval_ms.saturating_add(retries_ms)
    }

    /// The first instant at which a silence since `start` has surely lasted for the whole timeout:
    /// instants are rounded down, hence the one more.
    fn timeout_after(&self, start: Timestamp) -> Timestamp {
        start.plus_ms(self.timeout_ms()).plus_ms(1)
    }

    /// The first instant at which a ping sent at `at` has surely had its time to be answered.
    fn retry_after(&self, at: Timestamp) -> Timestamp {
        at.plus_ms(self.retry_ms).plus_ms(1)
    }
}

/// A check of the server that is due.
pub(super) struct Question {
    /// Whether it sends a ping.
    pub(super) ping: bool,
    /// Time since the last sign of life, if an earlier ping was not answered.
    pub(super) silence: Option<Duration>,
}

/// One established connection, from dial to loss.
#[derive(Debug)]
pub(super) struct LiveConnection {
    pub(super) since: Timestamp,
    /// The last sign of life of the server: an inbound byte.
    pub(super) last_activity: Timestamp,
    /// When the local kernel last took bytes.
    pub(super) last_out: Timestamp,
    /// When the last ping was sent, and the number of pings since the last sign of life.
    pub(super) last_asked: Timestamp,
    pub(super) asked: u32,
    /// When the last ping was sent that the server sent.
    pub(super) all_asked: Option<Timestamp>,
    /// Bytes that the kernel has taken.
    pub(super) written: u64,
    /// Set once the kernel has no room for what is queued: how the server takes what was written.
    pub(super) stuck: Option<Progress>,
    pub(super) half_closed: bool,
    pub(super) handshake: HandshakeState,
    /// The heartbeat that the server has granted.
    pub(super) granted: Option<Beat>,
    pub(super) probe: Probe,
    pub(super) outstanding: Outstanding,
}

/// The ping after a suspension of the machine. It is separate: the machine was asleep and could not
/// receive answers to earlier pings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    None,
    Due,
    Asked { at: Timestamp },
}

impl LiveConnection {
    pub(super) fn new(now: Timestamp, handshake: HandshakeState) -> Self {
        LiveConnection {
            since: now,
            last_activity: now,
            last_out: now,
            last_asked: now,
            asked: 0,
            all_asked: None,
            written: 0,
            stuck: None,
            half_closed: false,
            handshake,
            granted: None,
            probe: Probe::None,
            outstanding: Outstanding::default(),
        }
    }

    pub(super) fn poll(
        &mut self,
        now: Timestamp,
        beat: &Beat,
        pings_amid: bool,
    ) -> Option<Question> {
        if self.ask_at(beat)? > now {
            return None;
        }
        let silence = (self.asked > 0).then(|| self.silence(now));
        self.last_asked = now;
        self.asked += 1;
        if self.asked == beat.max_missed {
            self.all_asked = Some(now);
        }
        if self.probe == Probe::Due {
            self.probe = Probe::Asked { at: now };
        }
        let ping = self.stuck.is_none() || pings_amid;
        if ping {
            self.outstanding.handle_ping(now);
        }
        Some(Question { ping, silence })
    }

    /// When the next ping is due: an interval after either direction was last busy and after the
    /// last ping, or a retry after a ping that was not answered. `None` if no ping can be sent, or
    /// if all were sent and the verdict is next.
    pub(super) fn ask_at(&self, beat: &Beat) -> Option<Timestamp> {
        if !beat.send_pings || self.half_closed {
            return None;
        }
        match self.probe {
            Probe::Due => Some(Timestamp::ZERO),
            Probe::Asked { .. } => None,
            Probe::None if self.asked >= beat.max_missed => None,
            Probe::None if self.asked > 0 => Some(self.last_asked.plus_ms(beat.retry_ms)),
            Probe::None => Some(
                self.last_activity
                    .min(self.last_out)
                    .max(self.last_asked)
                    .plus_ms(beat.interval_ms),
            ),
        }
    }

    /// When the connection is closed if nothing arrives before. `None` while pings are still to be
    /// sent.
    ///
    /// A client that wakes from a freeze has sent no ping, so `max_missed` pings are still to be
    /// sent, and the last of them has a retry to be answered.
    pub(super) fn verdict_at(&self, beat: &Beat) -> Option<Timestamp> {
        let bound = beat.timeout_after(self.last_activity);
        match self.probe {
            _ if self.half_closed || !beat.send_pings => Some(bound),
            Probe::Due => None,
            Probe::Asked { at } => Some(beat.retry_after(at)),
            Probe::None => self.all_asked.map(|at| bound.max(beat.retry_after(at))),
        }
    }

    /// When the connection is left if the server has read nothing before.
    pub(super) fn slow_at(&self, write_timeout_ms: Option<u64>) -> Option<Timestamp> {
        // Instants are rounded down, hence the one more.
        Some(self.stuck?.at().plus_ms(write_timeout_ms?).plus_ms(1))
    }

    pub(super) fn handle_sign_of_life(&mut self, now: Timestamp) {
        self.last_activity = now;
        self.asked = 0;
        self.all_asked = None;
        self.probe = Probe::None;
    }

    /// Bytes taken by the local kernel are no sign of life.
    pub(super) fn handle_sent(&mut self, now: Timestamp, sent: usize, stuck: bool) {
        if sent > 0 {
            self.last_out = now;
            self.written += sent as u64;
        }
        self.stuck = stuck.then(|| self.stuck.unwrap_or(Progress::since(now)));
    }

    pub(super) fn silence(&self, now: Timestamp) -> Duration {
        Duration::from_millis(now.ms_since(self.last_activity))
    }
}
