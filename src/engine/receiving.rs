//! From the wire to the handler: decoding, rate limiting, pausing.

use super::conn::{Handshake, PeerActivity, Phase, Reading};
use super::rate_limiter::RateDecision;
use super::work::frame_units;
use super::{Context, Engine, Handler, Work, get_live_mut};
use crate::close::CloseReason;
use crate::framing::inbox::Undecoded;
use crate::framing::{Frame, FrameTooLarge};
use crate::id::ConnId;
use crate::time::Timestamp;

/// The source of the bytes to decode.
#[derive(Clone, Copy)]
enum DecodeInput<'a> {
    /// They were read just now.
    Read(&'a [u8]),
    /// The inbox kept them.
    Kept,
}

impl Engine {
    /// Takes bytes that were read, decodes them, answers heartbeats and hands messages to the
    /// handler.
    ///
    /// If `work` is spent or reading is stopped in the middle, the bytes not yet decoded are kept,
    /// and [`Engine::wants_read`] says `false` until [`Engine::resume_decoding`] has decoded them.
    /// If [`Engine::has_undecoded`] says so, the driver calls that in a later turn; where reading
    /// was stopped, [`Engine::poll_readable`] tells when it goes on.
    pub fn handle_bytes<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        id: ConnId,
        bytes: &[u8],
        work: &mut Work,
        handler: &mut H,
    ) {
        self.advance(now);
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        conn.bytes_in += bytes.len() as u64;
        let phase = conn.phase;
        self.stats.bytes_in += bytes.len() as u64;
        match phase {
            Phase::Open => {
                self.seen(id);
                self.decode(id, DecodeInput::Read(bytes), work, handler);
            }
            Phase::AwaitingProxyHeader => {
                if let Some(header) = self.handle_proxy_header(id, bytes, handler) {
                    self.decode(id, DecodeInput::Read(&bytes[header..]), work, handler);
                }
            }
            Phase::HalfClosed | Phase::Flushing(_) | Phase::Closed(_) | Phase::Refused(_) => {}
        }
    }

    /// Decodes bytes that were kept. Does nothing if there are none, or while reading is stopped.
    pub fn resume_decoding<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        id: ConnId,
        work: &mut Work,
        handler: &mut H,
    ) {
        self.advance(now);
        if self.has_undecoded(id) && !work.is_spent() {
            self.decode(id, DecodeInput::Kept, work, handler);
        }
    }

    /// Whether bytes wait that [`Engine::resume_decoding`] would decode.
    pub fn has_undecoded(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(|conn| {
            conn.phase == Phase::Open && conn.reading.is_flowing() && conn.inbox().has_undecoded()
        })
    }

    fn decode<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        input: DecodeInput<'_>,
        work: &mut Work,
        handler: &mut H,
    ) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let is_announced = conn.is_announced();
        let mut lent = conn.lend_inbox();
        let inbox = &mut lent.inbox;
        let kept = match input {
            DecodeInput::Read(_) => Undecoded::default(),
            DecodeInput::Kept => inbox.take_undecoded(),
        };
        let mut left = match input {
            DecodeInput::Read(bytes) => bytes,
            DecodeInput::Kept => kept.bytes(),
        };
        let mut began = inbox.frame_since();
        let mut handshake = conn.handshake();
        let max_frame = |engine: &Engine, handshake| engine.max_frame(handshake, is_announced);
        let mut is_first = true;
        self.fanouts.has_broadcast = false;
        while !work.is_spent()
            && !self.is_congested()
            && (is_first || !self.memory.is_under_pressure())
        {
            is_first = false;
            let max = max_frame(self, handshake);
            let (frames, bytes) = match self.codec.decode_within(max, inbox, &mut left) {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => {
                    let len = message.len();
                    match handshake {
                        Handshake::Plain => self.deliver_message(id, message, handler),
                        Handshake::Extended => self.handle_extended_message(id, message, handler),
                        Handshake::Awaited => self.handle_first_message(id, message, handler),
                    }
                    (1, len)
                }
                Ok(Some(Frame::Heartbeats { pings, pongs })) => {
                    self.handle_heartbeats(id, pings, pongs);
                    (pings.saturating_add(pongs), 0)
                }
                Err(FrameTooLarge) => {
                    self.close_after_flush(id, CloseReason::FrameTooLarge);
                    (0, 0)
                }
            };
            work.spend(frame_units(bytes).saturating_add(std::mem::take(&mut self.spent)));
            self.limit_rate(id, frames);
            began = None;
            match self.conn_mut(id).filter(|conn| conn.phase == Phase::Open) {
                Some(conn) => {
                    handshake = conn.handshake();
                    if conn.activity() == PeerActivity::None {
                        conn.set_activity(PeerActivity::Active);
                    }
                    if !conn.reading.is_flowing() {
                        break;
                    }
                }
                None => return self.memory.forget(lent),
            }
        }
        match input {
            DecodeInput::Read(_) => inbox.keep_undecoded(left),
            DecodeInput::Kept => {
                let left = left.len();
                inbox.return_undecoded(kept, left);
            }
        }
        inbox.release_if_empty();
        self.hold_sender(id);
        let now = self.now;
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return self.memory.forget(lent);
        };
        conn.return_inbox(lent, &mut self.memory);
        if conn.inbox().frame_len() > 0 && began.is_none() {
            conn.set_frame_since(now);
            self.schedule_check(id);
        }
        self.enforce_memory_limit();
    }

    pub(super) fn deliver_message<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        message: &[u8],
        handler: &mut H,
    ) {
        self.stats.messages_received += 1;
        self.current_sender = Some(id);
        handler.on_message(&mut Context { engine: self }, id, message);
        self.current_sender = None;
    }

    /// Counts frames against the message rate.
    #[inline]
    fn limit_rate(&mut self, id: ConnId, frames: u32) {
        if self.rate_limiter.is_some() {
            self.count_frames(id, frames);
        }
    }

    fn count_frames(&mut self, id: ConnId, frames: u32) {
        let Some(rate_limiter) = &mut self.rate_limiter else {
            return;
        };
        let Some(conn) = get_live_mut(&mut self.conns, id).filter(|conn| conn.phase == Phase::Open)
        else {
            return;
        };
        match rate_limiter.count(self.now, id.slot(), frames) {
            RateDecision::Allowed => {}
            RateDecision::Paused => {
                conn.reading.stop(Reading::RATE_LIMITED);
                self.stats.rate_limited += 1;
                self.schedule_check(id);
            }
            RateDecision::Exceeded => self.close_after_flush(id, CloseReason::RateLimited),
        }
    }

    /// The peer has shut its writing side: it gets what is queued, then it is closed. An
    /// unfinished frame is dropped.
    pub fn handle_eof(&mut self, now: Timestamp, id: ConnId) {
        self.advance(now);
        let now = self.now;
        if self.is_open(id) {
            self.catch_up(id);
        }
        let Some(conn) = get_live_mut(&mut self.conns, id) else {
            return;
        };
        match conn.phase {
            // What its login would lead to cannot be said any more.
            Phase::Open if !conn.is_announced() => self.close(id, CloseReason::PeerClosed),
            Phase::Open => {
                conn.seen(now);
                conn.phase = Phase::HalfClosed;
                conn.begin_flush(now);
                conn.inbox_mut(&mut self.memory).drop_bytes();
                self.finish_if_flushed(id);
            }
            Phase::AwaitingProxyHeader => self.reject_cut_short(id),
            Phase::HalfClosed | Phase::Flushing(_) | Phase::Closed(_) | Phase::Refused(_) => {}
        }
    }

    /// Whether the driver may read from this connection now. After `false`,
    /// [`Engine::poll_readable`] names it when it may.
    pub fn wants_read(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(|conn| match conn.phase {
            // Bytes that were read before come first: see resume_decoding().
            Phase::Open => conn.reading.is_flowing() && !conn.inbox().has_undecoded(),
            // Inbound bytes are read and discarded, so that they do not turn the close into a
            // reset.
            Phase::Flushing(_) | Phase::AwaitingProxyHeader => true,
            Phase::HalfClosed | Phase::Closed(_) | Phase::Refused(_) => false,
        })
    }

    /// The next connection that was paused and may be read again: until the read would block, for
    /// its readiness is long past.
    pub fn poll_readable(&mut self) -> Option<ConnId> {
        self.release_senders();
        self.readable.pop_front()
    }

    /// Stops reading from a connection, or goes on. See [`Context::pause_reads`].
    pub fn pause_reads(&mut self, id: ConnId, paused: bool) {
        if !paused {
            self.resume_reading(id, Reading::PAUSED);
        } else if let Some(conn) = self.conn_mut(id) {
            conn.reading.stop(Reading::PAUSED);
        }
    }

    /// Ends one cause for which reading was stopped; without another one, reading resumes, and the
    /// timeouts for what the peer sends begin anew.
    pub(super) fn resume_reading(&mut self, id: ConnId, stopped_by: Reading) {
        let now = self.now;
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if !conn.reading.is_stopped_by(stopped_by) {
            return;
        }
        conn.reading.let_go(stopped_by);
        if conn.reading.is_flowing() {
            conn.set_frame_since(now);
            let open = conn.phase == Phase::Open;
            self.readable.push_back(id);
            if open {
                self.schedule_check(id);
            }
        }
    }
}
