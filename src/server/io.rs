//! Sockets in, sockets out: the steps of a turn that touch descriptors.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Token};

use super::listener::Accepted;
use super::log_limiter::Kind;
use super::sockets::ReadUntil;
use super::{ALARM, FIRST_EVENT_SOURCE, FIRST_LISTENER, Server, WAKER};
use crate::close::{CloseReason, RejectReason};
use crate::engine::budgets::{
    ACCEPTS_PER_TURN, EVENTS_PER_TURN, MIN_FLUSHES, READ_BUDGET, READ_WORK, SLICES_PER_WRITE,
    SOCKET_WORK, WRITES_PER_FLUSH,
};
use crate::engine::{CloseMode, Closed, Engine, FinalRead, Handler, Work};
use crate::id::ConnId;
use crate::net;
use crate::time::duration_to_ms;

/// More than any kernel queues for a listener, so that a storm of dials cannot hold up the end for
/// ever.
const MAX_BACKLOG: usize = 65_536;

impl Server {
    pub(super) fn handle_events<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.more_events = events.iter().count() >= EVENTS_PER_TURN;
        self.ready_event_sources.clear();
        for event in &events {
            match event.token() {
                WAKER | ALARM => {}
                Token(token) if token >= FIRST_LISTENER => {
                    self.listeners.handle_readable(token - FIRST_LISTENER)
                }
                Token(token) if token >= FIRST_EVENT_SOURCE => {
                    self.ready_event_sources.push(token - FIRST_EVENT_SOURCE)
                }
                Token(token) => match self.engine.conn_by_token(token) {
                    Some(id) => self.handle_ready(id, event, handler),
                    None => self.lingering.handle_readable(token, &mut self.scratch),
                },
            }
        }
        self.events = events;
    }

    fn handle_ready<H: Handler + ?Sized>(&mut self, id: ConnId, event: &Event, handler: &mut H) {
        self.count_work(SOCKET_WORK);
        if event.is_writable() && self.engine.is_blocked(id) {
            self.write(id, handler);
        }
        if self.ready.contains(id) {
            return;
        }
        if self.engine.wants_read(id) {
            if event.is_readable() || event.is_read_closed() {
                if self.is_late() || self.engine.is_congested() {
                    return self.ready.insert(id);
                }
                let ended = event.is_read_closed() || event.is_error();
                let end = if ended {
                    ReadUntil::WouldBlock
                } else {
                    ReadUntil::Short
                };
                self.read(id, end, &mut Work::new(READ_WORK), handler);
            }
        } else if event.is_error()
            && let Some(stream) = self.sockets.get_mut(id)
            && let Ok(Some(error)) = stream.take_error()
        {
            // It is not read at present, so no read would return the error.
            self.engine
                .handle_failure(self.now, id, CloseReason::from_read_error(&error));
        }
    }

    /// Reads what a connection has sent, within its budgets. What was read and not decoded comes
    /// first. If a budget runs out, the connection is read again in a later turn.
    fn read<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        end: ReadUntil,
        work: &mut Work,
        handler: &mut H,
    ) {
        let units = work.left();
        let is_unfinished = self.read_within(id, end, work, handler);
        self.count_work(units - work.left());
        if is_unfinished || self.engine.has_undecoded(id) {
            self.engine.stats_mut().yields += 1;
            self.ready.insert(id);
        }
    }

    /// Returns whether there may be more to read.
    fn read_within<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        end: ReadUntil,
        work: &mut Work,
        handler: &mut H,
    ) -> bool {
        self.engine.resume_decoding(self.now, id, work, handler);
        let Some(stream) = self.sockets.get_mut(id) else {
            return false;
        };
        let mut budget = READ_BUDGET;
        while self.engine.wants_read(id) {
            if budget == 0 || work.is_spent() {
                return true;
            }
            match stream.read(&mut self.scratch) {
                Ok(0) => {
                    self.engine.handle_eof(self.now, id);
                    return false;
                }
                Ok(n) => {
                    let bytes = &self.scratch[..n];
                    self.engine.handle_bytes(self.now, id, bytes, work, handler);
                    if end == ReadUntil::Short && n < self.scratch.len() {
                        return false;
                    }
                    budget = budget.saturating_sub(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = CloseReason::from_read_error(&error);
                    self.engine.handle_failure(self.now, id, reason);
                    return false;
                }
            }
        }
        false
    }

    /// Reads from a connection without an event that says so.
    pub(super) fn read_again<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        work: &mut Work,
        handler: &mut H,
    ) {
        self.count_work(SOCKET_WORK);
        self.read(id, ReadUntil::WouldBlock, work, handler);
    }

    /// The final read, which decides whether a silent peer is dead, and answers what a leaving one
    /// has sent.
    pub(super) fn final_read<H: Handler + ?Sized>(&mut self, id: ConnId, handler: &mut H) {
        self.measure_progress(id);
        if self.engine.is_blocked(id) {
            self.write(id, handler);
        }
        self.read_again(id, &mut Work::new(READ_WORK), handler);
        if self.ready.contains(id) {
            return self.engine.postpone_final_read(id);
        }
        let wants_read = self.engine.wants_read(id);
        let Some(stream) = self.sockets.get_mut(id) else {
            return self
                .engine
                .handle_final_read(self.now, id, FinalRead::default());
        };
        let mut found = FinalRead {
            unacknowledged_ms: net::unacknowledged_for(stream).map(duration_to_ms),
            ..FinalRead::default()
        };
        if !wants_read {
            // A FIN that waits is as good as bytes: the peer may only be waiting for its replies.
            match stream.peek(&mut self.scratch[..1]) {
                Ok(_) => {
                    found.unread = true;
                    found.received_ms = net::received_before(stream).map(duration_to_ms);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    let reason = CloseReason::from_read_error(&error);
                    return self.engine.handle_failure(self.now, id, reason);
                }
            }
        }
        self.engine.handle_final_read(self.now, id, found);
    }

    fn measure_progress(&mut self, id: ConnId) {
        if let Some(stream) = self.sockets.get_mut(id) {
            let unacknowledged = net::unacknowledged_bytes(stream).map(|bytes| bytes as u64);
            self.engine.handle_progress(self.now, id, unacknowledged);
        }
    }

    pub(super) fn accept_batch<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.engine.is_congested() {
                break;
            }
            match self.listeners.accept(self.now) {
                Accepted::Stream(stream, peer) => self.open(stream, peer, handler),
                Accepted::Refused(peer) => {
                    self.engine.handle_rejection(RejectReason::NoDescriptors);
                    self.log_refusal(peer, RejectReason::NoDescriptors);
                }
                Accepted::Paused(error) => {
                    if self.log_limiter.allow(self.now, Kind::AcceptError) {
                        log::warn!(
                            "accept-error error=\"{error}\" connections={}",
                            self.engine.connections()
                        );
                    }
                    return;
                }
                Accepted::Nobody => return,
            }
        }
        self.engine.stats_mut().yields += 1;
    }

    /// Accepts the connections that the kernel has completed before the shutdown. Closing the
    /// listeners would reset them.
    pub(super) fn accept_backlog<H: Handler + ?Sized>(&mut self, handler: &mut H) {
        self.listeners.look_again();
        for _ in 0..MAX_BACKLOG / ACCEPTS_PER_TURN {
            if !self.listeners.is_pending() {
                return;
            }
            self.accept_batch(handler);
        }
    }

    fn open<H: Handler + ?Sized>(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        handler: &mut H,
    ) {
        self.count_work(SOCKET_WORK);
        let id = match self.engine.handle_open(self.now, peer, handler) {
            Ok(id) => id,
            Err(refusal) => return self.log_refusal(peer, refusal),
        };
        let set_up = self.options.apply_to_accepted(&stream).and_then(|()| {
            self.poll
                .registry()
                .register(&mut stream, Token(id.token()), Interest::READABLE)
        });
        if let Err(error) = set_up {
            self.engine
                .handle_failure(self.now, id, CloseReason::from_read_error(&error));
        }
        self.sockets.insert(id, stream);
        if self.engine.is_over_full() {
            self.reap(handler, usize::MAX);
        }
        if self.log_limiter.allow(self.now, Kind::Open) {
            log::debug!("open id={id} addr={peer}");
        }
    }

    fn log_refusal(&mut self, peer: SocketAddr, refusal: RejectReason) {
        let (kind, level) = match refusal {
            RejectReason::Probe => (Kind::Probe, log::Level::Debug),
            _ => (Kind::Refuse, log::Level::Warn),
        };
        let (reason, ip) = (refusal.as_str(), peer.ip());
        if self.log_limiter.allow_about(self.now, kind, reason, ip) {
            log::log!(
                level,
                "refuse addr={peer} reason={refusal} connections={}",
                self.engine.connections()
            );
        }
    }

    /// Writes once to each connection that `next` has something queued for, to `budget` of them at
    /// most. Returns what is left of the budget.
    pub(super) fn flush<H: Handler + ?Sized>(
        &mut self,
        handler: &mut H,
        budget: usize,
        next: fn(&mut Engine) -> Option<ConnId>,
    ) -> usize {
        for left in (0..budget).rev() {
            let Some(id) = next(&mut self.engine) else {
                return left + 1;
            };
            self.write(id, handler);
            self.count_work(SOCKET_WORK);
            if self.is_late() && budget - left >= MIN_FLUSHES {
                return 0;
            }
        }
        0
    }

    fn write<H: Handler + ?Sized>(&mut self, id: ConnId, handler: &mut H) {
        let was_blocked = self.engine.is_blocked(id);
        if was_blocked && self.engine.wants_progress(id) {
            self.measure_progress(id);
        }
        let Some(stream) = self.sockets.get_mut(id) else {
            return;
        };
        // Only a socket that was found full tells when it has room again.
        let mut full = false;
        for _ in 0..WRITES_PER_FLUSH {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let filled = self.engine.outgoing(id, &mut slices);
            let len: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let result = match filled {
                0 => break,
                1 => stream.write(&slices[0]),
                _ => stream.write_vectored(&slices[..filled]),
            };
            match result {
                Ok(written) => {
                    self.engine.handle_written(self.now, id, written, handler);
                    full = written < len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.engine.handle_failure(
                        self.now,
                        id,
                        CloseReason::from_write_error(&error),
                    );
                }
            }
            if full {
                break;
            }
        }
        if full {
            self.engine.handle_blocked(id);
            if self.engine.wants_progress(id) {
                self.measure_progress(id);
            }
        } else {
            self.engine.handle_write_budget_spent(id);
        }
        let blocked = self.engine.is_blocked(id);
        if blocked != was_blocked
            && let Some(stream) = self.sockets.get_mut(id)
        {
            let interest = if blocked {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            if let Err(error) = self
                .poll
                .registry()
                .reregister(stream, Token(id.token()), interest)
            {
                self.engine
                    .handle_failure(self.now, id, CloseReason::from_write_error(&error));
            }
        }
    }

    /// Drops the sockets of at most `budget` connections that are over. Stops early while
    /// broadcasts pile up, which `on_close` may add to.
    pub(super) fn reap<H: Handler + ?Sized>(&mut self, handler: &mut H, budget: usize) {
        while let Some((id, peer, refusal)) = self.engine.poll_rejected() {
            self.sockets.remove(id);
            self.log_refusal(peer, refusal);
        }
        for _ in 0..budget {
            if self.engine.is_congested() && !self.engine.is_over_full() {
                return;
            }
            let Some((id, closed)) = self.engine.poll_closed(self.now, handler) else {
                return;
            };
            let stream = self.sockets.remove(id);
            let (reason, ip) = (closed.reason.as_str(), closed.peer.ip());
            if self
                .log_limiter
                .allow_about(self.now, Kind::Close, reason, ip)
            {
                log_close(id, &closed);
            }
            let Some(stream) = stream else { continue };
            match closed.close_mode {
                CloseMode::Close => drop(stream),
                CloseMode::Linger => {
                    self.lingering
                        .insert(self.now, id.token(), stream, &mut self.scratch)
                }
                CloseMode::Reset => net::reset_on_close(&stream),
            }
        }
    }
}

fn log_close(id: ConnId, closed: &Closed) {
    log::info!(
        "close id={id} addr={} reason={} age_ms={} silence_ms={} pings_unanswered={} bytes_in={} bytes_out={} unsent={} unfinished={} unacknowledged_ms={}",
        closed.peer,
        closed.reason,
        closed.age.as_millis(),
        closed.silence.as_millis(),
        closed.pings_unanswered,
        closed.bytes_in,
        closed.bytes_out,
        closed.unsent,
        closed.unfinished,
        closed.unacknowledged.as_millis(),
    );
}
