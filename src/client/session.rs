//! The client as a pure state machine: when to dial, to ping, to close and to stop. It has no
//! socket and no clock.
//!
//! Calling order: `handle_*` for each event, then [`Session::poll`] until it returns `None`, then a
//! wait of at most [`Session::poll_timeout`]. A `handle_*` that does not fit the state (a late
//! event of an earlier connection) does nothing.

use std::time::Duration;

use super::backoff::Backoff;
use super::config::ClientConfig;
use super::event::{Attempt, ClientState, Outcome};
use super::handshake::{HandshakeState, WELCOME_MS};
use super::live_connection::{Beat, LiveConnection, Probe, Question};
use super::rtt::RttStats;
use crate::close::{CloseReason, DenyReason};
use crate::framing::Framing;
use crate::framing::handshake::GrantedBeat;
use crate::time::{Timestamp, duration_to_ms};

/// Every decision of a client.
///
/// Invariants: an epoch is never used twice; all that belongs to one connection is in its
/// [`LiveConnection`], so that an old connection cannot affect a new one; a connection is left for
/// silence only after the whole bound and all its pings; `Done` is final.
#[derive(Debug)]
pub(crate) struct Session {
    heartbeat: Option<Beat>,
    /// Whether each connection begins with a handshake.
    says_hello: bool,
    /// The server has ended the client: the outcome once the connection is gone.
    ended: Option<Outcome>,
    /// Whether pings can stand between messages.
    pings_amid: bool,
    write_timeout_ms: Option<u64>,
    /// The handler has paused reading.
    paused: bool,
    dial_timeout_ms: u64,
    backoff: Backoff,
    tries: Option<u32>,
    rng: fastrand::Rng,
    state: SessionState,
    /// Dials since the last connection that received anything: they count against `max_attempts`.
    tries_used: u32,
    /// Dials since the last connection that lasted: they make the waits grow. One received byte
    /// does not reset this count: else all clients of a server that greets and dies would dial it
    /// at the pace of the first wait, for ever.
    failures: u32,
    /// The number of connections so far.
    epoch: u64,
    finishing: bool,
    last_loss: Option<CloseReason>,
    rtt: RttStats,
}

#[derive(Debug)]
enum SessionState {
    Waiting { until: Timestamp },
    Dialing { deadline: Timestamp },
    Connected(LiveConnection),
    Done(Outcome),
}

/// A command to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial, and report `handle_dialled` or `handle_dial_failed`.
    Dial(Attempt),
    /// The address being dialled has had its time: dial the next one and report
    /// `handle_next_address`, or report `handle_dial_failed`.
    AbandonDial,
    /// Send a ping. `ping` is off in raw framing when bytes are stuck in the queue: a ping amid
    /// other bytes is not recognized there. `silence` is set when an earlier ping got no answer.
    Ping {
        ping: bool,
        silence: Option<Duration>,
    },
    /// Report [`Session::handle_progress`].
    Measure,
    /// A verdict is due. Read and write once more, then call [`Session::verdict`].
    FinalRead,
}

/// What follows a failed dial or a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Retry { next: Attempt, delay_ms: u64 },
    Done(Outcome),
}

impl Session {
    /// A session whose first dial is due at once. `seed` decides every random choice.
    pub(crate) fn new(config: &ClientConfig, seed: u64) -> Self {
        Session {
            heartbeat: config.heartbeat.as_ref().map(Beat::new),
            says_hello: config.hello.is_some(),
            ended: None,
            pings_amid: config.framing != Framing::Raw,
            paused: false,
            write_timeout_ms: config.write_timeout.map(duration_to_ms),
            dial_timeout_ms: duration_to_ms(config.dial_timeout),
            backoff: config.backoff.clone(),
            tries: config.tries,
            rng: fastrand::Rng::with_seed(seed),
            state: SessionState::Waiting {
                until: Timestamp::ZERO,
            },
            tries_used: 0,
            failures: 0,
            epoch: 0,
            finishing: false,
            last_loss: None,
            rtt: RttStats::default(),
        }
    }

    /// The next command at `now`, if any. Call until `None`.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Option<Action> {
        if self.verdict(now).is_some() {
            return Some(Action::FinalRead);
        }
        if self.sample_at().is_some_and(|at| at <= now) {
            return Some(Action::Measure);
        }
        match &mut self.state {
            SessionState::Waiting { until } if *until <= now => {
                self.tries_used = self.tries_used.saturating_add(1);
                self.failures = self.failures.saturating_add(1);
                self.state = SessionState::Dialing {
                    deadline: now.plus_ms(self.dial_timeout_ms),
                };
                Some(Action::Dial(Attempt {
                    number: self.tries_used,
                    of: self.tries,
                }))
            }
            SessionState::Dialing { deadline } if *deadline <= now => Some(Action::AbandonDial),
            SessionState::Connected(line) => {
                let beat = line.granted.as_ref().or(self.heartbeat.as_ref())?.clone();
                let Question { ping, silence } = line.poll(now, &beat, self.pings_amid)?;
                Some(Action::Ping { ping, silence })
            }
            _ => None,
        }
    }

    /// When [`Session::poll`] will return a command if nothing happens meanwhile. `None`: never.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            SessionState::Waiting { until } => Some(*until),
            SessionState::Dialing { deadline } => Some(*deadline),
            SessionState::Connected(line) => {
                let ask_at = self.beat_of(line).and_then(|beat| line.ask_at(beat));
                let ends = self.ends_of(line).map(|(at, _)| at);
                ends.chain(ask_at).chain(self.sample_at()).min()
            }
            SessionState::Done(_) => None,
        }
    }

    /// The dial goes on with the next address, which has a timeout of its own.
    pub(crate) fn handle_next_address(&mut self, now: Timestamp) {
        if let SessionState::Dialing { deadline } = &mut self.state {
            *deadline = now.plus_ms(self.dial_timeout_ms);
        }
    }

    /// The dial succeeded: returns the epoch of the new connection. `None` if no dial was in
    /// progress.
    pub(crate) fn handle_dialled(&mut self, now: Timestamp) -> Option<u64> {
        let SessionState::Dialing { .. } = self.state else {
            return None;
        };
        self.epoch += 1;
        let handshake = if self.says_hello {
            HandshakeState::AwaitingWelcome
        } else {
            HandshakeState::None
        };
        self.state = SessionState::Connected(LiveConnection::new(now, handshake));
        Some(self.epoch)
    }

    /// The dial failed at its last address.
    pub(crate) fn handle_dial_failed(&mut self, now: Timestamp) -> Option<Next> {
        let SessionState::Dialing { .. } = self.state else {
            return None;
        };
        Some(self.retry(now))
    }

    /// Bytes arrived.
    pub(crate) fn handle_received(&mut self, now: Timestamp) {
        if let SessionState::Connected(line) = &mut self.state {
            line.handle_sign_of_life(now);
            self.tries_used = 0;
        }
    }

    /// `pongs` answers arrived. Returns the round-trip time of the last one that is known.
    pub(crate) fn handle_pongs(&mut self, now: Timestamp, pongs: u32) -> Option<Duration> {
        let SessionState::Connected(line) = &mut self.state else {
            return None;
        };
        (0..pongs).fold(None, |last, _| {
            line.outstanding.handle_pong(now, &mut self.rtt).or(last)
        })
    }

    /// A message arrived that may have had a pong in it, which only raw framing lets happen.
    pub(crate) fn handle_pongs_unclear(&mut self) {
        if let SessionState::Connected(line) = &mut self.state {
            line.outstanding.forget();
        }
    }

    /// When the server's progress in reading is to be measured next.
    fn sample_at(&self) -> Option<Timestamp> {
        let SessionState::Connected(line) = &self.state else {
            return None;
        };
        Some(line.stuck?.next_sample(self.write_timeout_ms?))
    }

    /// How many of the bytes that the kernel took the server has not acknowledged (`SIOCOUTQ` of
    /// tcp(7)); `None` where the system does not report it.
    pub(crate) fn handle_progress(&mut self, now: Timestamp, unacknowledged: Option<u64>) {
        if let SessionState::Connected(line) = &mut self.state
            && let Some(progress) = &mut line.stuck
        {
            progress.measure(now, line.written, unacknowledged);
        }
    }

    /// Whether [`Session::handle_progress`] is to be called: when the kernel has just found no more
    /// room, and before a write to it if the last measurement is a while ago. After the write,
    /// bytes would be unacknowledged that the server cannot have seen.
    pub(crate) fn wants_progress(&self, now: Timestamp) -> bool {
        let (SessionState::Connected(line), Some(sample_at)) = (&self.state, self.sample_at())
        else {
            return false;
        };
        sample_at <= now || line.stuck.is_some_and(|progress| !progress.is_measured())
    }

    /// A ping was sent between messages, because enough bytes were sent since the last one.
    pub(crate) fn handle_ping_amid(&mut self, now: Timestamp) {
        if let SessionState::Connected(line) = &mut self.state {
            line.outstanding.handle_ping(now);
        }
    }

    /// Whether pings are to go out between messages.
    pub(crate) fn pings_amid(&self) -> bool {
        self.pings_amid && self.heartbeat.as_ref().is_some_and(|beat| beat.send_pings)
    }

    pub(crate) fn pause_reads(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The kernel took `sent` bytes. `stuck`: it had no room for the rest of the queue.
    pub(crate) fn handle_sent(&mut self, now: Timestamp, sent: usize, stuck: bool) {
        if let SessionState::Connected(line) = &mut self.state {
            line.handle_sent(now, sent, stuck);
        }
    }

    /// The connection is gone. `unsent`: messages are still in the queue. `unacknowledged`: bytes
    /// that the server's kernel has not acknowledged, which may or may not have arrived.
    pub(crate) fn handle_lost(
        &mut self,
        now: Timestamp,
        reason: CloseReason,
        unsent: bool,
        unacknowledged: u64,
    ) -> Option<Next> {
        let SessionState::Connected(line) = &self.state else {
            return None;
        };
        let half_closed = line.half_closed;
        if now.ms_since(line.since) >= self.backoff.longest_ms(self.failures) {
            self.failures = 0;
        }
        self.last_loss = Some(reason);
        if let Some(outcome) = self.ended {
            return Some(self.done(outcome));
        }
        if self.finishing && !unsent {
            let waited_out = half_closed && reason == CloseReason::HeartbeatTimeout;
            return Some(self.done(if unacknowledged > 0 {
                Outcome::Unacknowledged {
                    bytes: unacknowledged,
                    reason,
                }
            } else if waited_out {
                Outcome::Finished
            } else {
                Outcome::after_everything_sent(reason)
            }));
        }
        Some(self.retry(now))
    }

    /// No more messages will come: see [`Session::handle_all_sent`].
    pub(crate) fn handle_finish(&mut self) {
        self.finishing = true;
    }

    /// Whether [`Session::handle_all_sent`] would change anything now.
    pub(crate) fn wants_to_finish(&self) -> bool {
        self.finishing
            && match &self.state {
                SessionState::Connected(line) => {
                    !line.half_closed && line.handshake != HandshakeState::AwaitingWelcome
                }
                // A client that was never connected still connects: the server may have something
                // to send.
                SessionState::Waiting { .. } | SessionState::Dialing { .. } => {
                    self.last_loss.is_some()
                }
                SessionState::Done(_) => false,
            }
    }

    /// The kernel has taken everything and no further message will be queued. Returns whether the
    /// connection is to be half-closed, after which it is only read. Without a connection the
    /// client is done.
    pub(crate) fn handle_all_sent(&mut self) -> bool {
        match (&self.state, self.last_loss) {
            _ if !self.wants_to_finish() => false,
            (SessionState::Connected(_), _) => true,
            (_, last_loss) => {
                let reason = last_loss.expect("between two lines, one was lost");
                self.done(Outcome::after_everything_sent(reason));
                false
            }
        }
    }

    /// The client's writing side was shut: no ping can be sent any more, and the server has one
    /// heartbeat timeout from now to send more.
    pub(crate) fn handle_half_closed(&mut self, now: Timestamp) {
        if let SessionState::Connected(line) = &mut self.state {
            line.handle_sign_of_life(now);
            line.half_closed = true;
        }
    }

    /// The machine was suspended. The server or the network may be gone: pings at once, or dials at
    /// once.
    pub(crate) fn handle_resumed(&mut self, now: Timestamp) {
        match &mut self.state {
            SessionState::Waiting { until } => *until = now.min(*until),
            SessionState::Connected(line)
                if self.heartbeat.as_ref().is_some_and(|beat| beat.send_pings)
                    && !line.half_closed =>
            {
                line.probe = Probe::Due;
            }
            _ => {}
        }
    }

    /// Ends the client now, whatever its state.
    pub(crate) fn handle_stop(&mut self) {
        self.done(Outcome::Stopped);
    }

    /// Why the connection is to be left, if it is: the server has been silent for too long, or has
    /// not read for too long.
    pub(crate) fn verdict(&self, now: Timestamp) -> Option<CloseReason> {
        let SessionState::Connected(line) = &self.state else {
            return None;
        };
        self.ends_of(line)
            .find(|(at, _)| *at <= now)
            .map(|(_, reason)| reason)
    }

    /// When the connection is left, and for which reason, if nothing happens before.
    fn ends_of(
        &self,
        line: &LiveConnection,
    ) -> impl Iterator<Item = (Timestamp, CloseReason)> + use<> {
        let silent_at = self.beat_of(line).and_then(|beat| line.verdict_at(beat));
        let slow_at = line.slow_at(self.write_timeout_ms);
        let unwelcome_at = (line.handshake == HandshakeState::AwaitingWelcome)
            .then(|| line.since.plus_ms(WELCOME_MS + 1));
        let ends = [
            (silent_at, CloseReason::HeartbeatTimeout),
            (slow_at, CloseReason::SlowReader),
            (unwelcome_at, CloseReason::LoginTimeout),
        ];
        ends.into_iter()
            .filter_map(|(at, reason)| Some((at?, reason)))
    }

    /// The heartbeat of a connection: that which the server has granted, if it has.
    fn beat_of<'a>(&'a self, line: &'a LiveConnection) -> Option<&'a Beat> {
        line.granted.as_ref().or(self.heartbeat.as_ref())
    }

    /// A longer gap between two readings of the clock is a stall: half of the shorter of interval
    /// and retry. Without a heartbeat there is no verdict that a stall could forge.
    pub(crate) fn stall_ms(&self) -> u64 {
        let beat = match &self.state {
            SessionState::Connected(line) => self.beat_of(line),
            _ => self.heartbeat.as_ref(),
        };
        beat.map_or(u64::MAX, |beat| beat.interval_ms.min(beat.retry_ms) / 2)
    }

    /// How far the handshake is.
    pub(crate) fn handshake(&self) -> HandshakeState {
        match &self.state {
            SessionState::Connected(line) => line.handshake,
            _ => HandshakeState::None,
        }
    }

    /// The server has answered the `hello`. Its heartbeat counts from now on, if both sides have
    /// one. Returns the silence after which the connection is left.
    pub(crate) fn handle_welcome(&mut self, granted: Option<GrantedBeat>) -> Option<Duration> {
        let SessionState::Connected(line) = &mut self.state else {
            return None;
        };
        line.handshake = HandshakeState::Welcomed;
        let own = self.heartbeat.as_ref()?;
        line.granted = granted.map(|granted| own.granted(&granted));
        Some(line.granted.as_ref().unwrap_or(own).timeout())
    }

    /// The server has denied the login: the client ends, unless it tries for ever.
    pub(crate) fn handle_denied(&mut self, reason: DenyReason) {
        if self.tries.is_some() {
            self.ended = Some(Outcome::Denied(reason));
        }
    }

    /// Another client has the name: the client ends.
    pub(crate) fn handle_replaced(&mut self) {
        self.ended = Some(Outcome::Replaced);
    }

    /// Time since the last sign of life; zero without a connection.
    pub(crate) fn silence(&self, now: Timestamp) -> Duration {
        if let SessionState::Connected(line) = &self.state {
            line.silence(now)
        } else {
            Duration::ZERO
        }
    }

    /// Whether bytes may be written.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&self.state, SessionState::Connected(line) if !line.half_closed)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, SessionState::Done(_))
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing
    }

    pub(crate) fn state(&self) -> ClientState {
        match &self.state {
            SessionState::Waiting { .. } => ClientState::Waiting,
            SessionState::Dialing { .. } => ClientState::Dialing,
            SessionState::Connected(_) => ClientState::Connected,
            SessionState::Done(outcome) => ClientState::Done(*outcome),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn rtt(&self) -> &RttStats {
        &self.rtt
    }

    fn retry(&mut self, now: Timestamp) -> Next {
        if let Some(tries) = self.tries
            && self.tries_used >= tries
        {
            return self.done(Outcome::GaveUp { tries });
        }
        let delay_ms = self.backoff.delay_ms(self.failures, &mut self.rng);
        self.state = SessionState::Waiting {
            until: now.plus_ms(delay_ms),
        };
        Next::Retry {
            next: Attempt {
                number: self.tries_used.saturating_add(1),
                of: self.tries,
            },
            delay_ms,
        }
    }

    fn done(&mut self, outcome: Outcome) -> Next {
        if let SessionState::Done(first) = self.state {
            return Next::Done(first);
        }
        self.state = SessionState::Done(outcome);
        Next::Done(outcome)
    }
}

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod random;
#[cfg(test)]
mod slow_server;
#[cfg(test)]
mod tests;
