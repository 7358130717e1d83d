//! The socket calls of a server's [`Driver`].

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Token};

use super::handle::Command;
use super::listener::Accepted;
use super::log_limiter::Kind;
use super::{ALARM, FIRST_EVENT_SOURCE, FIRST_LISTENER, Server, WAKER};
use crate::close::{CloseReason, RejectReason};
use crate::engine::budgets::{ACCEPTS_PER_TURN, EVENTS_PER_TURN, SLICES_PER_WRITE, SOCKET_WORK};
use crate::engine::driver::{Driver, Readiness, Received, Written};
use crate::engine::{CloseMode, Closed, Context, Engine, FinalRead, Handler, ReadySet, Work};
use crate::id::ConnId;
use crate::net;
use crate::time::{Timestamp, duration_to_ms};

/// More than any kernel queues for a listener: bounds the final accept during a storm of dials.
const MAX_BACKLOG: usize = 65_536;

/// A server in a turn, with the handler that the turn was called with.
pub(super) struct ServerTurn<'a, H: ?Sized> {
    pub(super) server: &'a mut Server,
    pub(super) handler: &'a mut H,
}

impl<H: Handler + ?Sized> Driver for ServerTurn<'_, H> {
    type Handler = H;

    fn parts(&mut self) -> (&mut Engine, &mut H) {
        (&mut self.server.engine, self.handler)
    }

    fn engine(&self) -> &Engine {
        &self.server.engine
    }

    fn ready(&mut self) -> &mut ReadySet {
        &mut self.server.ready
    }

    fn now(&self) -> Timestamp {
        self.server.now
    }

    fn elapsed(&mut self) -> Duration {
        self.server.clock.elapsed()
    }

    fn read_clock(&mut self) {
        self.server.read_clock(Some(0));
    }

    fn reading(&self) -> Duration {
        self.server.reading
    }

    fn turn_began(&self) -> Duration {
        self.server.turn_began
    }

    fn count_work(&mut self, units: u32) {
        self.server.count_work(units);
    }

    fn begin_shutdown(&mut self) {
        self.server.commands.clear_wake_flag();
        let Some(grace) = self.server.commands.take_shutdown() else {
            return;
        };
        self.accept_backlog();
        let server = &mut *self.server;
        let connections = server.engine.connections();
        server.listeners.close();
        server
            .engine
            .handle_shutdown(server.now, duration_to_ms(grace));
        // An earlier one may leave less.
        let grace_ms = server
            .engine
            .drain_deadline()
            .map_or(0, |end| end.ms_since(server.now));
        log::info!("shutdown connections={connections} grace_ms={grace_ms}");
    }

    fn run_command(&mut self) -> bool {
        let server = &mut *self.server;
        let Some(command) = server.commands.next() else {
            return false;
        };
        match command {
            // A closed connection is reported by `on_close`.
            Command::Send(id, message) => drop(server.engine.send(id, &[&message])),
            Command::Broadcast(message) => {
                if let Err(error) = server.engine.broadcast(&message, None)
                    && server.log_limiter.allow(server.now, Kind::Dropped)
                {
                    log::warn!("dropped-broadcast error=\"{error}\"");
                }
            }
            Command::Close(id, how) => drop(server.engine.close_on_request(id, how)),
            Command::Run(task) => task(&mut Context {
                engine: &mut server.engine,
            }),
        }
        true
    }

    fn wake(&mut self) {
        self.server.handle.wake();
    }

    fn handle_events(&mut self) {
        let events = std::mem::replace(&mut self.server.events, Events::with_capacity(0));
        self.server.more_events = events.iter().count() >= EVENTS_PER_TURN;
        self.server.ready_event_sources.clear();
        for event in &events {
            match event.token() {
                WAKER | ALARM => {}
                Token(token) if token >= FIRST_LISTENER => self
                    .server
                    .listeners
                    .handle_readable(token - FIRST_LISTENER),
                Token(token) if token >= FIRST_EVENT_SOURCE => self
                    .server
                    .ready_event_sources
                    .push(token - FIRST_EVENT_SOURCE),
                Token(token) => match self.server.engine.conn_by_token(token) {
                    Some(id) => {
                        let readiness = Readiness {
                            readable: event.is_readable(),
                            writable: event.is_writable(),
                            read_closed: event.is_read_closed(),
                            error: event.is_error(),
                        };
                        self.handle_ready(id, readiness);
                    }
                    None => {
                        let Server {
                            lingering, scratch, ..
                        } = &mut *self.server;
                        lingering.handle_readable(token, scratch);
                    }
                },
            }
        }
        self.server.events = events;
    }

    fn accept_next(&mut self) -> bool {
        let server = &mut *self.server;
        match server.listeners.accept(server.now) {
            Accepted::Stream(stream, peer) => self.open(stream, peer),
            Accepted::Refused(peer) => {
                server.engine.handle_rejection(RejectReason::NoDescriptors);
                server.log_refusal(peer, RejectReason::NoDescriptors);
            }
            Accepted::Paused(error) => {
                if server.log_limiter.allow(server.now, Kind::AcceptError) {
                    log::warn!(
                        "accept-error error=\"{error}\" connections={}",
                        server.engine.connections()
                    );
                }
                return false;
            }
            Accepted::Nobody => return false,
        }
        true
    }

    fn read_once(&mut self, id: ConnId) -> Option<io::Result<Received>> {
        let stream = self.server.sockets.get_mut(id)?;
        let room = self.server.scratch.len();
        let read = stream.read(&mut self.server.scratch);
        Some(read.map(|taken| Received { taken, room }))
    }

    fn handle_bytes(&mut self, id: ConnId, len: usize, work: &mut Work) {
        let Server {
            engine,
            scratch,
            now,
            ..
        } = &mut *self.server;
        engine.handle_bytes(*now, id, &scratch[..len], work, self.handler);
    }

    fn write_once(&mut self, id: ConnId) -> Option<io::Result<Written>> {
        let Server {
            engine, sockets, ..
        } = &mut *self.server;
        let stream = sockets.get_mut(id)?;
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let filled = engine.outgoing(id, &mut slices);
        let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        let write = match filled {
            0 => return None,
            1 => stream.write(&slices[0]),
            _ => stream.write_vectored(&slices[..filled]),
        };
        Some(write.map(|taken| Written { taken, offered }))
    }

    fn watch_writable(&mut self, id: ConnId, watch: bool) -> io::Result<()> {
        let interest = if watch {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        match self.server.sockets.get_mut(id) {
            Some(stream) => {
                let registry = self.server.poll.registry();
                registry.reregister(stream, Token(id.token()), interest)
            }
            None => Ok(()),
        }
    }

    fn measure_progress(&mut self, id: ConnId) {
        let server = &mut *self.server;
        if let Some(stream) = server.sockets.get_mut(id) {
            let unacknowledged = net::unacknowledged_bytes(stream).map(|bytes| bytes as u64);
            server
                .engine
                .handle_progress(server.now, id, unacknowledged);
        }
    }

    fn take_error(&mut self, id: ConnId) -> Option<io::Error> {
        self.server.sockets.get_mut(id)?.take_error().ok()?
    }

    fn find_unread(&mut self, id: ConnId, may_peek: bool) -> io::Result<FinalRead> {
        let Some(stream) = self.server.sockets.get_mut(id) else {
            return Ok(FinalRead::default());
        };
        let mut found = FinalRead {
            unacknowledged_ms: net::unacknowledged_for(stream).map(duration_to_ms),
            ..FinalRead::default()
        };
        if may_peek {
            // A pending FIN counts like bytes: the peer may only be waiting for its replies.
            match stream.peek(&mut self.server.scratch[..1]) {
                Ok(_) => {
                    found.unread = true;
                    found.received_ms = net::received_before(stream).map(duration_to_ms);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn handle_rejected(&mut self, id: ConnId, peer: SocketAddr, reason: RejectReason) {
        self.server.sockets.remove(id);
        self.server.log_refusal(peer, reason);
    }

    fn handle_closed(&mut self, id: ConnId, closed: Closed) {
        let server = &mut *self.server;
        let stream = server.sockets.remove(id);
        let (reason, ip) = (closed.reason.as_str(), closed.peer.ip());
        if server
            .log_limiter
            .allow_about(server.now, Kind::Close, reason, ip)
        {
            log_close(id, &closed);
        }
        let Some(stream) = stream else { return };
        match closed.close_mode {
            CloseMode::Close => drop(stream),
            CloseMode::Linger => {
                server
                    .lingering
                    .insert(server.now, id.token(), stream, &mut server.scratch)
            }
            CloseMode::Reset => net::reset_on_close(&stream),
        }
    }
}

impl<H: Handler + ?Sized> ServerTurn<'_, H> {
    /// Accepts the connections that the kernel has completed before the shutdown. Closing the
    /// listeners would reset them.
    fn accept_backlog(&mut self) {
        self.server.listeners.mark_all_pending();
        for _ in 0..MAX_BACKLOG / ACCEPTS_PER_TURN {
            if !self.server.listeners.is_pending() {
                return;
            }
            self.accept_batch();
        }
    }

    fn open(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.count_work(SOCKET_WORK);
        let server = &mut *self.server;
        let id = match server.engine.handle_open(server.now, peer, self.handler) {
            Ok(id) => id,
            Err(refusal) => return server.log_refusal(peer, refusal),
        };
        let set_up = server.options.apply_to_accepted(&stream).and_then(|()| {
            let registry = server.poll.registry();
            registry.register(&mut stream, Token(id.token()), Interest::READABLE)
        });
        if let Err(error) = set_up {
            let reason = CloseReason::from_read_error(&error);
            server.engine.handle_failure(server.now, id, reason);
        }
        server.sockets.insert(id, stream);
        if server.engine.is_over_full() {
            self.reap(usize::MAX);
        }
        let server = &mut *self.server;
        if server.log_limiter.allow(server.now, Kind::Open) {
            log::debug!("open id={id} addr={peer}");
        }
    }
}

impl Server {
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
}

fn log_close(id: ConnId, closed: &Closed) {
    let name = closed.name.as_ref();
    let name = name.map_or_else(String::new, |name| format!(" name={name}"));
    let code = closed.code;
    let code = code.map_or_else(String::new, |code| format!(" code={code}"));
    let denied = closed.denied;
    let denied = denied.map_or_else(String::new, |denied| format!(" denied={denied}"));
    log::info!(
        "close id={id} addr={}{name} reason={}{denied}{code} age_ms={} silence_ms={} \
         pings_unanswered={} bytes_in={} bytes_out={} unsent={} unfinished={} \
         unacknowledged_ms={}",
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
