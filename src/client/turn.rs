//! One turn of the client, step by step, in the order in which
//! [`Client::turn`](super::Client::turn) takes them.

use std::borrow::Cow;
use std::io::{self, IoSlice};
use std::time::Duration;

use mio::Token;

use super::event::{ClientState, Event};
use super::handler::{ClientContext, ClientHandler};
use super::handshake::Incoming;
use super::link::{Addresses, Link, LinkRead};
use super::queue::{PING_EVERY_BYTES, SLICES, SendQueue};
use super::session::{Action, Next, Session};
use super::{Client, FIRST_LINK, RESUME, WAKE};
use crate::close::{CloseReason, DenyReason};
use crate::error::Error;
use crate::framing::handshake::Welcome;
use crate::framing::inbox::Inbox;
use crate::framing::{Frame, Framing};
use crate::time::{Timestamp, duration_to_ms};

/// Reads in one turn before timers and writes have their turn: 1 MiB, a few milliseconds of a
/// handler's work.
const READS_PER_TURN: usize = 16;

/// Writes in one turn before reads have their turn; each offers the kernel everything that is
/// queued.
const WRITES_PER_TURN: usize = 16;

impl Client {
    /// Polls, and returns the awake time after it.
    pub(super) fn wait(&mut self, max_wait: Option<Duration>) -> Result<Timestamp, Error> {
        // Between turns the embedder may have waited as long as we would have.
        let before = self.clock.read(self.wait_ms(self.clock.last()));
        let timeout_ms = [self.wait_ms(before), max_wait.map(duration_to_ms)]
            .into_iter()
            .flatten()
            .min();
        match self
            .poll
            .poll(&mut self.events, timeout_ms.map(Duration::from_millis))
        {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(Error::io("poll")(error)),
        }
        for event in &self.events {
            match &mut self.link {
                _ if event.token() == WAKE => self.commands_left = true,
                _ if event.token() == RESUME => self.resume_alarm.rearm(),
                Some(link) => link.handle_event(event),
                None => {}
            }
        }
        Ok(self.clock.read(timeout_ms))
    }

    /// Milliseconds from `now` until the client has something to do; `None` if only an event can
    /// cause it.
    pub(super) fn wait_ms(&self, now: Timestamp) -> Option<u64> {
        let at_once = self.session.is_done()
            || (self.session.wants_to_finish() && self.queue.unsent() == 0 && !self.commands_left)
            || self.link.as_ref().is_some_and(|link| {
                link.is_established()
                    && ((link.readable && !self.session.is_paused())
                        || self.has_undecoded()
                        || (link.writable && (self.queue.unsent() > 0 || self.commands_left)))
            });
        if at_once {
            Some(0)
        } else {
            self.session.poll_timeout().map(|due| due.ms_since(now))
        }
    }

    pub(super) fn take_commands(&mut self) {
        if self.commands_left {
            let mail = self.shared.take(&mut self.queue);
            self.commands_left = mail.left;
            if mail.stop {
                self.session.handle_stop();
            } else if mail.finish {
                self.session.handle_finish();
            }
        }
    }

    pub(super) fn progress_dial<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        now: Timestamp,
    ) {
        let Some(link) = self.link.as_mut().filter(|link| !link.is_established()) else {
            return;
        };
        match link.finish_dial() {
            Ok(false) => {}
            Ok(true) => {
                let addr = link.addr();
                if let Some(epoch) = self.session.handle_dialled(now) {
                    if let Some(hello) = &self.hello {
                        self.queue.push_hello(hello);
                    }
                    self.emit(handler, &Event::Connected { epoch, addr });
                }
            }
            Err(error) => self.dial_next(handler, now, error),
        }
    }

    /// Whether bytes that were kept while reading was paused can be decoded now.
    fn has_undecoded(&self) -> bool {
        self.inbox.has_undecoded() && !self.session.is_paused()
    }

    pub(super) fn read<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, now: Timestamp) {
        for _ in 0..READS_PER_TURN {
            if self.has_undecoded() {
                let kept = self.inbox.take_undecoded();
                self.decode(handler, now, kept.bytes());
            }
            if self.session.is_paused() || self.session.is_done() {
                return;
            }
            let Some(link) = self
                .link
                .as_mut()
                .filter(|link| link.is_established() && link.readable)
            else {
                return;
            };
            match link.read(&mut self.scratch) {
                Ok(LinkRead::Bytes(n)) => {
                    self.session.handle_received(now);
                    let scratch = std::mem::take(&mut self.scratch);
                    self.decode(handler, now, &scratch[..n]);
                    self.scratch = scratch;
                }
                Ok(LinkRead::Nothing) => return,
                Ok(LinkRead::End) => self.disconnect(handler, now, CloseReason::PeerClosed),
                Err(error) => self.disconnect(handler, now, CloseReason::from_read_error(&error)),
            }
            if self.session.is_done() {
                return;
            }
        }
    }

    /// Decodes bytes that were read. If the handler pauses reading, the rest is kept.
    fn decode<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, now: Timestamp, bytes: &[u8]) {
        let Client {
            addr,
            session,
            queue,
            codec,
            inbox,
            framing,
            ..
        } = self;
        let mut input = bytes;
        let max_message = codec.max_message();
        let end = loop {
            let handshake = session.handshake();
            let mut tell = |session: &mut Session, queue: &mut SendQueue, event: Event| {
                log::info!("client server={addr} {event}");
                handler.on_event(&mut ClientContext { session, queue }, &event);
            };
            match codec.decode_within(handshake.max_frame(max_message), inbox, &mut input) {
                Ok(Some(Frame::Message(message))) => {
                    if *framing == Framing::Raw {
                        session.handle_pongs_unclear();
                    }
                    match handshake.classify(max_message, message) {
                        Incoming::Message(message) => {
                            handler.on_message(&mut ClientContext { session, queue }, message);
                        }
                        Incoming::Welcome(Welcome { name, beat }) => {
                            let timeout = session.handle_welcome(beat);
                            queue.release();
                            let name = name.map(Cow::into_owned);
                            tell(session, queue, Event::Welcomed { name, timeout });
                        }
                        Incoming::Denied(reason) => {
                            let known = DenyReason::from_text(&reason);
                            session.handle_denied(known.unwrap_or(DenyReason::Refused));
                            let reason = reason.into_owned();
                            tell(session, queue, Event::Denied { reason });
                            break Some(CloseReason::LoginFailed);
                        }
                        Incoming::Bye(reason) if reason == CloseReason::Replaced.as_str() => {
                            session.handle_replaced();
                            break Some(CloseReason::Replaced);
                        }
                        // The server closes next.
                        Incoming::Bye(_) => {}
                        Incoming::Malformed => break Some(CloseReason::Malformed),
                        Incoming::TooLarge => break Some(CloseReason::FrameTooLarge),
                    }
                }
                Ok(Some(Frame::Heartbeats { pings, pongs })) => {
                    if session.is_open() {
                        (0..pings).for_each(|_| queue.push_pong());
                    }
                    if let Some(rtt) = session.handle_pongs(now, pongs) {
                        let event = Event::RoundTrip(rtt);
                        log::debug!("client server={addr} {event}");
                        handler.on_event(&mut ClientContext { session, queue }, &event);
                    }
                }
                Ok(None) => break None,
                Err(_) => break Some(CloseReason::FrameTooLarge),
            }
            if session.is_done() {
                break None;
            }
            if session.is_paused() {
                inbox.keep_undecoded(input);
                break None;
            }
        };
        inbox.release_if_empty();
        if let Some(reason) = end {
            self.disconnect(handler, now, reason);
        }
    }

    /// Runs the commands of the session that are due.
    pub(super) fn obey<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, now: Timestamp) {
        while let Some(action) = self.session.poll(now) {
            match action {
                Action::Dial(next) => {
                    self.emit(handler, &Event::Dialing(next));
                    match Addresses::resolve(&self.addr) {
                        Ok(addresses) => {
                            self.addresses = addresses;
                            self.dial_next(
                                handler,
                                now,
                                io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
                            );
                        }
                        Err(error) => self.fail_dial(handler, now, error),
                    }
                }
                Action::AbandonDial => self.dial_next(
                    handler,
                    now,
                    io::Error::new(io::ErrorKind::TimedOut, "the dial timed out"),
                ),
                Action::Ping { ping, silence } => {
                    if ping {
                        self.queue.push_ping();
                    }
                    if let Some(silence) = silence {
                        self.emit(handler, &Event::Silent(silence));
                    }
                }
                Action::Measure => self.measure(now),
                Action::FinalRead => {
                    self.measure(now);
                    // Unread bytes prove that the server is alive, even if this process reads them
                    // late, or has paused reading.
                    if let Some(link) = &mut self.link {
                        (link.readable, link.writable) = (true, true);
                        if self.session.is_paused() && link.has_unread() {
                            self.session.handle_received(now);
                        }
                    }
                    self.read(handler, now);
                    self.write(handler, now);
                    if let Some(reason) = self.session.verdict(now) {
                        self.disconnect(handler, now, reason);
                    }
                }
            }
        }
    }

    fn measure(&mut self, now: Timestamp) {
        if let Some(link) = &self.link {
            self.session.handle_progress(now, link.unacknowledged());
        }
    }

    fn measure_if_due(&mut self, now: Timestamp) {
        if self.session.wants_progress(now) {
            self.measure(now);
        }
    }

    /// Dials the next address, if the session still wants that; `error` is why the address before
    /// it failed.
    fn dial_next<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        now: Timestamp,
        mut error: io::Error,
    ) {
        self.link = None;
        if self.state() != ClientState::Dialing {
            return;
        }
        while let Some(addr) = self.addresses.next() {
            let token = Token(self.next_token);
            self.next_token = self.next_token.wrapping_add(1).max(FIRST_LINK);
            match Link::dial(addr, &self.options, self.poll.registry(), token) {
                Ok(link) => {
                    self.link = Some(link);
                    self.session.handle_next_address(now);
                    return;
                }
                Err(refusal) => error = refusal,
            }
        }
        self.fail_dial(handler, now, error);
    }

    fn fail_dial<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        now: Timestamp,
        error: io::Error,
    ) {
        if let Some(next) = self.session.handle_dial_failed(now) {
            self.emit(handler, &Event::DialFailed(error));
            self.announce(handler, next);
        }
    }

    /// Ends the connection. Every connection ends here.
    fn disconnect<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        now: Timestamp,
        reason: CloseReason,
    ) {
        let link = self.link.take();
        let unacknowledged = link.and_then(|link| link.unacknowledged()).unwrap_or(0);
        self.inbox = Inbox::default();
        self.queue.handle_line_lost();
        let (epoch, silence) = (self.session.epoch(), self.session.silence(now));
        let unsent = self.queue.has_messages() || self.commands_left;
        if let Some(next) = self
            .session
            .handle_lost(now, reason, unsent, unacknowledged)
        {
            self.emit(
                handler,
                &Event::Disconnected {
                    epoch,
                    reason,
                    silence,
                },
            );
            self.announce(handler, next);
        }
    }

    fn announce<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, next: Next) {
        // The handler may have stopped the client in its callback.
        if let (Next::Retry { next, delay_ms }, ClientState::Waiting) = (next, self.state()) {
            self.emit(
                handler,
                &Event::Reconnecting {
                    next,
                    delay: Duration::from_millis(delay_ms),
                },
            );
        }
    }

    pub(super) fn write<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, now: Timestamp) {
        for _ in 0..WRITES_PER_TURN {
            self.take_commands();
            self.measure_if_due(now);
            let total = self.queue.unsent();
            let Some(link) = self
                .link
                .as_mut()
                .filter(|link| link.is_established() && link.writable && total > 0)
            else {
                break;
            };
            if self.session.is_done() {
                break;
            }
            let pings_amid = self.session.pings_amid();
            let max = if pings_amid {
                PING_EVERY_BYTES
            } else {
                usize::MAX
            };
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (filled, offered) = self.queue.peek(&mut slices, max);
            match link.write(&slices[..filled], offered) {
                Ok(n) => {
                    self.queue.advance(n);
                    self.session.handle_sent(now, n, !link.writable);
                    if pings_amid && self.queue.is_ping_due() && self.queue.unsent() > 0 {
                        self.queue.push_ping();
                        self.session.handle_ping_amid(now);
                    }
                    if !link.writable {
                        self.measure_if_due(now);
                    }
                }
                Err(error) => {
                    // The server may have sent its reason before it closed.
                    link.readable = true;
                    self.read(handler, now);
                    self.disconnect(handler, now, CloseReason::from_write_error(&error));
                }
            }
        }
    }

    /// Leaves everything as the next wait needs it: half-closes, watches for room, ends.
    pub(super) fn prepare_wait<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        now: Timestamp,
    ) {
        if self.session.is_finishing() {
            self.shared.shut();
            // Messages that handles queued before the queue was closed are still sent.
            self.commands_left = true;
            self.take_commands();
            let half_close =
                self.queue.unsent() == 0 && !self.commands_left && self.session.handle_all_sent();
            if let Some(link) = self.link.as_mut().filter(|_| half_close) {
                match link.shut_write() {
                    Ok(()) => self.session.handle_half_closed(now),
                    Err(error) => {
                        self.disconnect(handler, now, CloseReason::from_write_error(&error))
                    }
                }
            }
        }
        let stuck = self.queue.unsent() > 0;
        if let Some(link) = self.link.as_mut().filter(|link| link.is_established()) {
            let watch = stuck && !link.writable;
            if let Err(error) = link.watch_writes(watch, self.poll.registry()) {
                log::error!("client-register-failed addr={} error={error:?}", self.addr);
                self.disconnect(handler, now, CloseReason::WriteFailed);
            }
        }
        if let ClientState::Done(outcome) = self.state()
            && !self.done_told
        {
            self.link = None;
            self.shared.shut();
            self.done_told = true;
            self.emit(handler, &Event::Done(outcome));
        }
    }
}
