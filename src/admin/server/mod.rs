//! The admin endpoint of `heartline serve`: HTTP for operators, on the server's own loop.
//!
//! Every turn does a bounded part of the work, so that connections are not delayed. Everything that
//! a client can make the endpoint hold or wait for is bounded. Without a client there is no timer.
//! docs/admin.md describes the requests.

mod access;
mod args;
mod broadcasts;
mod closed;
mod connection;
mod events;
mod http;
mod listener;
mod listing;
mod metrics;
mod names;
mod opened;
mod process;
mod recording;
mod requests;
mod routes;
mod status;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;

pub(crate) use args::AdminArgs;
pub(crate) use recording::RecordingHandler;

use crate::engine::Handler;
use crate::error::Error;
use crate::net;
use crate::server::Server;
use access::Access;
use broadcasts::Broadcasts;
use closed::ClosedRing;
use connection::{HttpConnection, READ_BYTES};
use http::{Failure, RequestInfo, Response};
use listener::AdminListener;
use metrics::Requests;
use opened::OpenedRing;
use recording::RecordedEvents;
use requests::{Listings, RequestContext};
use routes::Route;
use status::ProcessIdentity;

/// Event sources of the server's loop: 0 is for the signals.
const LISTENER: usize = 1;
/// Connections are event sources from here on, each by its key.
const FIRST_CONNECTION: usize = 16;

/// Clients at once, with room to spare for a hundred.
const MAX_CONNECTIONS: usize = 128;
/// At most this share of all descriptors is reserved for the endpoint: if there are few, peers need
/// them more.
const DESCRIPTOR_SHARE: usize = 8;
/// Clients accepted per turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Connections worked on per turn, each of which reads once, has one request answered at most, and
/// writes once or twice.
const STEPS_PER_TURN: usize = 16;
/// No step begins later in a turn than this: as long as the server's own turns take when they do
/// nothing but close connections.
const TURN_TIME: Duration = Duration::from_micros(500);
/// How long accepting pauses when the system has no descriptor or memory left: see
/// `server/listener.rs`.
const PAUSE: Duration = Duration::from_millis(100);

/// The endpoint, as the loop of `serve` turns it.
pub(crate) struct Admin {
    listener: AdminListener,
    access: Access,
    identity: ProcessIdentity,
    connections: Slab<HttpConnection<(RequestInfo, Route)>>,
    max_connections: usize,
    /// Connections that have something to do, each once (`HttpConnection::queued`).
    work: VecDeque<usize>,
    listings: Listings,
    broadcasts: Broadcasts,
    closed: ClosedRing,
    opened: OpenedRing,
    requests: Requests,
    /// A client may wait to be accepted.
    accepting: bool,
    paused_until: Option<Instant>,
    /// When the event streams get their next event, if there are any.
    next_events: Option<Instant>,
    /// When the time of a client is over, or the event streams are due.
    due: Option<Instant>,
    /// What all connections are read into.
    scratch: Box<[u8]>,
}

/// Maximum number of admin connections under the current descriptor limit.
fn max_connections() -> usize {
    (net::descriptor_limit() / DESCRIPTOR_SHARE).clamp(1, MAX_CONNECTIONS)
}

impl Admin {
    /// Listens if `--admin` is set, and reserves descriptors. No client is accepted before the
    /// first turn.
    pub(crate) fn open(
        args: &AdminArgs,
        app: &str,
        server: &mut Server,
    ) -> Result<Option<Self>, Error> {
        let Some((address, access)) = args.endpoint()? else {
            return Ok(None);
        };
        let mut listener = AdminListener::open(address, &access)?;
        listener
            .register(server, LISTENER)
            .map_err(Error::io("poll the admin socket"))?;
        let max_connections = max_connections();
        server.reserve_descriptors(max_connections)?;
        Ok(Some(Admin {
            listener,
            access,
            identity: ProcessIdentity::new(app.to_owned()),
            connections: Slab::new(),
            max_connections,
            work: VecDeque::new(),
            listings: Listings::default(),
            broadcasts: Broadcasts::default(),
            closed: ClosedRing::default(),
            opened: OpenedRing::default(),
            requests: Requests::default(),
            accepting: true,
            paused_until: None,
            next_events: None,
            due: None,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
        }))
    }

    /// Checks the settings without listening. Returns the TCP addresses; [`Admin::open`] listens on
    /// one.
    pub(crate) fn check(args: &AdminArgs) -> Result<Vec<SocketAddr>, Error> {
        match args.endpoint()? {
            Some((address, access)) => address.check(&access),
            None => Ok(Vec::new()),
        }
    }

    /// Descriptors reserved for the endpoint; 0 if it is off.
    pub(crate) fn descriptors(args: &AdminArgs) -> usize {
        if args.is_on() { max_connections() } else { 0 }
    }

    /// Where it listens, as `http://ADDR` or `unix:PATH`.
    pub(crate) fn address(&self) -> String {
        self.listener.to_string()
    }

    /// A handler that passes its calls to `handler` and records closes and complete broadcasts for
    /// requests.
    pub(crate) fn remembering<'a, H: Handler>(
        admin: Option<&'a mut Self>,
        handler: &'a mut H,
    ) -> RecordingHandler<'a, H> {
        RecordingHandler {
            handler,
            memory: admin.map(|admin| RecordedEvents {
                closed: &mut admin.closed,
                opened: &mut admin.opened,
                broadcasts: &mut admin.broadcasts,
            }),
        }
    }

    /// How long the server's next turn may wait: `None` if nothing is due by time alone, as without
    /// a client.
    pub(crate) fn next_wait(&self) -> Option<Duration> {
        if !self.work.is_empty()
            || self.listings.is_active()
            || (self.accepting && self.paused_until.is_none())
        {
            return Some(Duration::ZERO);
        }
        let due = [self.due, self.paused_until].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// One turn, after one of the server's. `drain` is the default length of a shutdown.
    pub(crate) fn turn(&mut self, server: &mut Server, drain: Duration) {
        for source in server.ready_event_sources() {
            match *source {
                LISTENER => self.accepting = true,
                source if source >= FIRST_CONNECTION => {
                    self.handle_event(source - FIRST_CONNECTION)
                }
                _ => {}
            }
        }
        if !self.accepting && self.connections.is_empty() {
            return;
        }
        let now = Instant::now();
        self.accept(server, now);
        let mut cx = RequestContext { now, server, drain };
        for _ in 0..self.work.len().min(STEPS_PER_TURN) {
            if let Some(key) = self.work.pop_front() {
                self.step(key, &mut cx);
            }
            if now.elapsed() >= TURN_TIME {
                break;
            }
        }
        self.answer_broadcasts(now);
        self.advance_listing(now, server);
        self.send_events(now, server);
        self.handle_timeouts(now);
        self.next_events = self.next_events.filter(|_| {
            self.connections
                .iter()
                .any(|(_, connection)| connection.is_streaming())
        });
        let timeouts = self
            .connections
            .iter()
            .filter_map(|(_, connection)| connection.poll_timeout());
        self.due = timeouts.chain(self.next_events).min();
    }

    fn handle_event(&mut self, key: usize) {
        // An event may outlive its connection by one turn; the next of that key takes no harm.
        if let Some(connection) = self.connections.get_mut(key) {
            connection.handle_event();
            self.enqueue(key);
        }
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            self.work.push_back(key);
        }
    }

    fn accept(&mut self, server: &Server, now: Instant) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let rested = self.paused_until.take().is_some();
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.accepting {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.take_in(stream, peer, server, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accepting = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Logged once, not at every retry.
                    if !rested {
                        log::warn!("admin accept-error error=\"{error}\"");
                    }
                    self.paused_until = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    fn take_in(
        &mut self,
        mut stream: listener::Stream,
        peer: String,
        server: &Server,
        now: Instant,
    ) {
        if self.connections.len() >= self.max_connections && !self.make_room() {
            let full = Failure::new(
                503,
                format!(
                    "all {} admin connections are in use; try again later",
                    self.max_connections
                ),
            );
            self.requests.count(full.code);
            log::debug!("admin refuse peer={peer} reason=full");
            return turn_away(stream, &full.into(), &mut self.scratch);
        }
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        if let Err(error) = stream.register(server, FIRST_CONNECTION + key) {
            return log::warn!("admin accept-error error=\"{error}\"");
        }
        entry.insert(HttpConnection::new(stream, peer, now));
        self.enqueue(key);
    }

    /// Closes the first idle connection in the eviction order, if there is one, so that idle
    /// clients cannot block a health check.
    fn make_room(&mut self) -> bool {
        let first = self
            .connections
            .iter()
            .filter_map(|(key, connection)| Some((connection.eviction_order()?, key)))
            .min();
        if let Some((_, key)) = first {
            let peer = &self.connections[key].peer;
            log::debug!("admin evict peer={peer} reason=full");
            self.remove(key);
        }
        first.is_some()
    }

    fn remove(&mut self, key: usize) {
        self.connections.remove(key);
        self.work.retain(|queued| *queued != key);
        self.listings.forget(key);
        self.broadcasts.forget(key);
    }
}

/// Sends a response to a client that there is no room for, as far as its socket takes it at once.
fn turn_away(mut stream: listener::Stream, response: &Response, scratch: &mut [u8]) {
    use std::io::{Read, Write};

    let mut output = Vec::new();
    response.encode(false, false, &mut output);
    // Unread bytes would reset the connection, and the reset might overtake the answer.
    let _ = stream.read(scratch);
    let _ = stream.write(&output);
    stream.finish();
}
