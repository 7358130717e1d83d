//! The application on top of the engine, with its own model of what must come in and go out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use heartline::framing::inbox::Inbox;
use heartline::framing::{Codec, Frame, FrameTooLarge};
use heartline::{
    Broadcast, BroadcastId, Close, CloseReason, Closed, Config, ConnId, Context, Handler, OnFull,
    SendError,
};

/// The goodbye of a drain; no other message is like it.
pub const GOODBYE: &[u8] = b"#bye";

/// What one connection has been through.
pub struct Line {
    pub id: ConnId,
    pub ip: IpAddr,
    /// From `on_open` to `on_close`.
    pub open: bool,
    pub paused: bool,
    pub peer_shut: bool,
    pub failed: bool,
    pub asked_to_close: bool,
    bytes_in: u64,
    bytes_out: u64,
    /// Decodes beside the engine, without pauses.
    inbox: Inbox,
    /// Messages that have arrived and were not handed over; `None` is one that is too long.
    incoming: VecDeque<Option<Vec<u8>>>,
    /// Queued messages as they are framed that were not sent whole, each with whether it may be
    /// missing: a broadcast that may not have fitted.
    outgoing: VecDeque<(Vec<u8>, bool)>,
    /// The part of the first of them, or of a heartbeat, that was sent.
    tapped: Vec<u8>,
}

pub struct App {
    config: Config,
    codec: Codec,
    pub lines: Vec<Line>,
    pub opened: u64,
    pub closed: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    /// Broadcasts that are not complete, and the connections that each had in view.
    pub broadcasts: BTreeMap<BroadcastId, usize>,
    pub draining: bool,
    /// The address of the connection that is being admitted.
    pub peer: SocketAddr,
    pub sends_when_empty: bool,
    pub broadcasts_on_close: bool,
    counter: u64,
}

impl App {
    pub fn new(config: &Config) -> Self {
        App {
            config: config.clone(),
            codec: Codec::new(
                config.framing,
                config.words.clone(),
                config.limits.max_message,
            )
            .expect("a valid configuration"),
            lines: Vec::new(),
            opened: 0,
            closed: 0,
            messages_in: 0,
            messages_out: 0,
            broadcasts: BTreeMap::new(),
            draining: false,
            peer: SocketAddr::from(([0; 4], 0)),
            sends_when_empty: false,
            broadcasts_on_close: false,
            counter: 0,
        }
    }

    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    pub fn line(&mut self, id: ConnId) -> &mut Line {
        self.lines
            .iter_mut()
            .find(|line| line.id == id)
            .expect("an id that on_open has told")
    }

    /// A message that is like no other, and like no heartbeat.
    pub fn message(&mut self, about: &[u8]) -> Vec<u8> {
        self.counter += 1;
        [format!("#{}:", self.counter).as_bytes(), about].concat()
    }

    /// What sending must return, given the engine's state of the connection before.
    pub fn predict(&self, open: bool, queued: usize, message: &[u8]) -> Result<(), SendError> {
        if !open {
            return Err(SendError::Closed);
        }
        let len = self.codec.encoded_len(&[message])?;
        if queued + len > self.config.limits.max_outbox {
            Err(SendError::Full)
        } else {
            Ok(())
        }
    }

    pub fn sent(&mut self, id: ConnId, message: &[u8]) {
        let mut wire = Vec::new();
        self.codec.encode(&[message], &mut wire);
        self.line(id).outgoing.push_back((wire, false));
        self.messages_out += 1;
    }

    /// The receivers of a broadcast.
    pub fn audience(
        &self,
        except: Option<ConnId>,
        is_open: impl Fn(ConnId) -> bool,
    ) -> Vec<ConnId> {
        self.lines
            .iter()
            .filter(|line| line.open)
            .map(|line| line.id)
            .filter(|id| Some(*id) != except && is_open(*id))
            .collect()
    }

    pub fn broadcast_called(
        &mut self,
        message: &[u8],
        audience: &[ConnId],
        result: Result<Broadcast, SendError>,
    ) {
        let framed = self.codec.encoded_len(&[message]).map(|_| ());
        match result {
            Ok(Broadcast::Complete(receivers)) => {
                assert!(receivers <= audience.len(), "{receivers} of {audience:?}");
                self.messages_out += receivers as u64;
            }
            Ok(Broadcast::Pending(id)) => {
                assert_eq!(self.broadcasts.insert(id, audience.len()), None);
            }
            Err(SendError::Full) => {
                let len = self
                    .codec
                    .encoded_len(&[message])
                    .expect("it can be framed");
                let never = len > self.config.limits.max_outbox;
                return assert!(never || !self.broadcasts.is_empty());
            }
            Err(_) => return assert_eq!(result.map(|_| ()), framed),
        }
        assert_eq!(framed, Ok(()));
        let mut wire = Vec::new();
        self.codec.encode(&[message], &mut wire);
        for id in audience {
            self.line(*id).outgoing.push_back((wire.clone(), true));
        }
    }

    /// Whether a send with this expected result may have that one: incomplete broadcasts come
    /// before it, and may leave it no room.
    pub fn may_end(&self, result: Result<(), SendError>, expected: Result<(), SendError>) -> bool {
        let no_room = matches!(result, Err(SendError::Full | SendError::Closed));
        result == expected || (no_room && !self.broadcasts.is_empty())
    }

    /// Bytes that the engine is about to be given.
    pub fn arrived(&mut self, id: ConnId, bytes: &[u8]) {
        let codec = self.codec.clone();
        let line = self.line(id);
        line.bytes_in += bytes.len() as u64;
        let mut input = bytes;
        loop {
            match codec.decode(&mut line.inbox, &mut input) {
                Ok(None) => break,
                Ok(Some(Frame::Message(message))) => {
                    line.incoming.push_back(Some(message.to_vec()))
                }
                Ok(Some(Frame::Heartbeats { .. })) => {}
                Err(FrameTooLarge) => return line.incoming.push_back(None),
            }
        }
        line.inbox.release_if_empty();
    }

    /// Bytes that were read from a connection whose input is discarded.
    pub fn wasted(&mut self, id: ConnId, bytes: &[u8]) {
        self.line(id).bytes_in += bytes.len() as u64;
    }

    /// Bytes that the engine has given out and the kernel has taken: whole heartbeats and messages,
    /// each in its turn.
    pub fn written(&mut self, id: ConnId, bytes: &[u8]) {
        let mut goodbye = Vec::new();
        self.codec.encode(&[GOODBYE], &mut goodbye);
        let (ping, pong) = (self.codec.ping().to_vec(), self.codec.pong().to_vec());
        let others = [&ping, &pong, &goodbye].map(Vec::as_slice);
        let others = if self.draining && self.config.goodbye.is_some() {
            &others[..]
        } else {
            &others[..2]
        };
        let line = self.line(id);
        line.bytes_out += bytes.len() as u64;
        line.tapped.extend_from_slice(bytes);
        let mut left = line.tapped.as_slice();
        while !left.is_empty() {
            let next = line.outgoing.iter().position(|(_, may_miss)| !may_miss);
            let candidates = next.map_or(line.outgoing.len(), |next| next + 1);
            let messages = line
                .outgoing
                .iter()
                .take(candidates)
                .map(|(wire, _)| wire.as_slice());
            let mut frames = messages.chain(others.iter().copied());
            let whole = frames
                .clone()
                .enumerate()
                .find(|(_, frame)| !frame.is_empty() && left.starts_with(frame));
            let Some((index, whole)) = whole else {
                let begun = frames.any(|frame| frame.starts_with(left));
                assert!(
                    begun,
                    "{id}: {} is neither a heartbeat nor the next message",
                    left.escape_ascii()
                );
                break;
            };
            left = &left[whole.len()..];
            if index < candidates {
                line.outgoing.drain(..=index);
            }
        }
        line.tapped = left.to_vec();
    }

    pub fn bytes(&self) -> (u64, u64) {
        (
            self.lines.iter().map(|line| line.bytes_in).sum(),
            self.lines.iter().map(|line| line.bytes_out).sum(),
        )
    }

    fn send(&mut self, cx: &mut Context<'_>, id: ConnId, about: &[u8]) {
        let message = self.message(about);
        let expected = self.predict(cx.is_open(id), cx.queued(id), &message);
        let result = cx.send_parts(id, &[&message[..1], &message[1..]]);
        assert!(
            self.may_end(result, expected),
            "{result:?}, not {expected:?}"
        );
        if result.is_ok() {
            self.sent(id, &message);
        }
    }

    fn broadcast(&mut self, cx: &mut Context<'_>, except: Option<ConnId>, about: &[u8]) {
        let message = self.message(about);
        let audience = self.audience(except, |id| cx.is_open(id));
        let result = cx.broadcast(&message, except);
        self.broadcast_called(&message, &audience, result);
    }

    fn close(&mut self, cx: &mut Context<'_>, id: ConnId, how: Close) {
        let open = cx.is_open(id);
        assert_eq!(cx.close(id, how), open);
        self.line(id).asked_to_close |= open;
    }

    fn assert_reason(&mut self, id: ConnId, closed: &Closed) {
        let config = self.config.clone();
        let (limits, draining) = (&config.limits, self.draining);
        let line = self.line(id);
        let possible = match closed.reason {
            CloseReason::PeerClosed => line.peer_shut && closed.unsent == 0,
            CloseReason::PeerReset => line.failed,
            CloseReason::Requested => line.asked_to_close,
            CloseReason::Shutdown => draining,
            CloseReason::FrameTooLarge => line.incoming.contains(&None),
            CloseReason::FrameTimeout => limits.frame_timeout.is_some(),
            CloseReason::FirstMessageTimeout => limits.first_message_timeout.is_some(),
            CloseReason::RateLimited => limits.max_message_rate.is_some(),
            CloseReason::MemoryLimit => limits.max_memory.is_some(),
            CloseReason::Evicted => limits.on_full == OnFull::EvictIdlest,
            CloseReason::HeartbeatTimeout | CloseReason::HalfOpen => {
                config.heartbeat.is_some_and(|heartbeat| {
                    let asked =
                        !heartbeat.send_pings || closed.pings_unanswered >= heartbeat.max_missed;
                    asked && closed.silence >= heartbeat.timeout()
                })
            }
            _ => true,
        };
        assert!(possible, "{id}: {closed:?} cannot be");
    }
}

impl Line {
    /// Whether all that has arrived was handed over.
    pub fn is_heard(&self) -> bool {
        self.incoming.is_empty()
    }
}

impl Handler for App {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        assert!(
            self.lines.iter().all(|line| line.id != id),
            "{id}: no id comes twice"
        );
        assert!(cx.is_open(id));
        assert_eq!(
            cx.peer_addr(id),
            Some(SocketAddr::new(
                self.peer.ip().to_canonical(),
                self.peer.port()
            ))
        );
        self.opened += 1;
        self.lines.push(Line {
            id,
            ip: self.peer.ip().to_canonical(),
            open: true,
            paused: false,
            peer_shut: false,
            failed: false,
            asked_to_close: false,
            bytes_in: 0,
            bytes_out: 0,
            inbox: Inbox::default(),
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            tapped: Vec::new(),
        });
        if id.generation().is_multiple_of(2) {
            self.send(cx, id, b"welcome");
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.messages_in += 1;
        let line = self.line(id);
        assert!(line.open, "{id}: a message outside of its life");
        let expected = line.incoming.pop_front().flatten();
        assert_eq!(
            Some(message),
            expected.as_deref(),
            "{id}: not the message whose turn it is"
        );
        self.send(cx, id, message);
        match message.first() {
            Some(b'b') => self.broadcast(cx, Some(id), message),
            Some(b'c') => self.close(cx, id, Close::AfterFlush),
            Some(b'x') => self.close(cx, id, Close::Now),
            Some(b'z') => {
                cx.pause_reads(id);
                self.line(id).paused = true;
            }
            Some(b'r') => {
                for line in &mut self.lines {
                    cx.resume_reads(line.id);
                    line.paused = false;
                }
            }
            _ => {}
        }
    }

    fn on_queue_empty(&mut self, cx: &mut Context<'_>, id: ConnId) {
        assert!(
            self.line(id).open && cx.is_open(id),
            "{id}: queue emptied outside of its life"
        );
        assert_eq!(cx.queued(id), 0);
        if self.sends_when_empty {
            self.send(cx, id, b"more");
        }
    }

    fn on_broadcast(&mut self, _: &mut Context<'_>, broadcast: BroadcastId, receivers: usize) {
        let most = self.broadcasts.remove(&broadcast);
        assert!(
            most.is_some_and(|most| receivers <= most),
            "{receivers} of {most:?}"
        );
        self.messages_out += receivers as u64;
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        self.closed += 1;
        self.assert_reason(id, closed);
        let line = self.line(id);
        assert!(
            std::mem::take(&mut line.open),
            "{id}: only the open close, and once"
        );
        assert_eq!(
            (closed.bytes_in, closed.bytes_out),
            (line.bytes_in, line.bytes_out)
        );
        let sure = line.outgoing.iter().filter(|(_, may_miss)| !may_miss);
        let missing: usize = sure.map(|(wire, _)| wire.len()).sum();
        if closed.unsent == 0 {
            assert!(
                missing == 0 && line.tapped.is_empty(),
                "{id}: nothing unsent, and {missing} bytes missing"
            );
        }
        assert!(
            closed.unsent + line.tapped.len() >= missing,
            "{id}: {missing} bytes missing, and {} unsent",
            closed.unsent
        );
        assert!(
            !cx.is_open(id)
                && cx.queued(id) == 0
                && cx.peer_addr(id).is_none()
                && !cx.close(id, Close::Now)
        );
        assert_eq!(cx.send(id, b"too late"), Err(SendError::Closed));
        if self.broadcasts_on_close {
            self.broadcast(cx, None, b"left");
        }
    }
}
