//! From a request to its answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Admin;
use super::connection::NextStep;
use super::events::{self, Reported};
use super::http::{Failure, RequestHead, RequestInfo, Response};
use super::listing::{ListQuery, Listing, entry};
use super::metrics;
use super::names::{NameListing, NameQuery};
use super::routes::{Route, gone, name_gone};
use super::status::status;
use crate::admin::api::{ClosedList, Closing, Draining, Queued, Receivers};
use crate::config::OnSlow;
use crate::engine::{Broadcast, Context};
use crate::error::SendError;
use crate::framing::Framing;
use crate::server::Server;

/// Longest body of a request that needs none; some clients send one nevertheless.
const IDLE_BODY_BYTES: usize = 1024;
/// Bytes of messages that requests may hold together. A single request is always accepted, however
/// long the longest message is.
const BODY_BYTES: usize = 16 * 1024 * 1024;
/// Longer paths are cut short in the log.
const LOGGED_PATH: usize = 200;

const PAGE: &str = include_str!("page.html");
/// The page is one file and talks to this endpoint alone; and it may not be put in a frame, where
/// its buttons could be clicked unseen.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a request needs for its response: the time, the server, and the default length of a
/// shutdown.
pub(super) struct RequestContext<'a> {
    pub(super) now: Instant,
    pub(super) server: &'a mut Server,
    pub(super) drain: Duration,
}

/// The listings that were requested. They are made one after the other, so that a hundred cost no
/// more memory than one, and no more time per turn.
#[derive(Default)]
pub(super) struct Listings {
    current: Option<(usize, RequestInfo, CurrentListing)>,
    waiting: VecDeque<(usize, RequestInfo, AnyQuery)>,
}

enum AnyQuery {
    Connections(ListQuery),
    Names(NameQuery),
}

enum CurrentListing {
    Connections(Listing),
    Names(NameListing),
}

impl CurrentListing {
    fn new(query: AnyQuery) -> Self {
        match query {
            AnyQuery::Connections(query) => CurrentListing::Connections(Listing::new(query)),
            AnyQuery::Names(query) => CurrentListing::Names(NameListing::new(query)),
        }
    }

    fn advance(&mut self, cx: &Context<'_>) -> bool {
        match self {
            CurrentListing::Connections(listing) => listing.advance(cx),
            CurrentListing::Names(listing) => listing.advance(cx),
        }
    }

    fn finish(self, cx: &Context<'_>) -> Response {
        match self {
            CurrentListing::Connections(listing) => Response::json(200, &listing.finish(cx)),
            CurrentListing::Names(listing) => listing.finish(cx),
        }
    }
}

impl Listings {
    pub(super) fn is_active(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// That connection is gone.
    pub(super) fn forget(&mut self, key: usize) {
        self.waiting.retain(|(of, ..)| *of != key);
        self.current.take_if(|(of, ..)| *of == key);
    }
}

impl Admin {
    pub(super) fn step(&mut self, key: usize, cx: &mut RequestContext<'_>) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.queued = false;
        match connection.step(cx.now, &mut self.scratch) {
            NextStep::Wait => return,
            NextStep::Again => self.enqueue(key),
            NextStep::Gone => return self.remove(key),
            NextStep::Refuse(failure) => return self.refuse(key, cx.now, failure),
            NextStep::Whole => {}
            NextStep::Head(head) => self.authorize(key, cx.now, &head, cx.server),
        }
        if let Some(((request, route), body)) = self
            .connections
            .get_mut(key)
            .and_then(|connection| connection.take_request())
        {
            self.dispatch(key, request, route, &body, cx);
        }
    }

    /// Sees whether a request may be answered, before its body is read.
    fn authorize(&mut self, key: usize, now: Instant, head: &RequestHead, server: &Server) {
        let mut request = RequestInfo {
            method: head.method.clone(),
            path: head.path.clone(),
            head_only: head.is_head(),
            keep_alive: head.keep_alive,
            is_authorized: false,
        };
        let decided = self.access.check(head).and_then(|()| {
            request.is_authorized = true;
            let route = Route::find(head)?;
            let length = self.check_length(head.content_length, &route, server)?;
            Ok((route, length))
        });
        match decided {
            Ok((route, length)) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.admit((request, route), length, head.expects_continue);
                    self.enqueue(key);
                }
            }
            Err(failure) => {
                // The bytes after the head are an unwanted body, not another request.
                request.keep_alive &= head.content_length == 0;
                self.answer(key, now, &request, &failure.into());
            }
        }
    }

    fn check_length(&self, length: u64, route: &Route, server: &Server) -> Result<usize, Failure> {
        let most = if route.takes_message() {
            server.config().limits.max_message
        } else {
            IDLE_BODY_BYTES
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= most);
        let length = length.ok_or_else(|| {
            Failure::new(413, format!("body too long; the limit is {most} bytes"))
        })?;
        let held: usize = self
            .connections
            .iter()
            .map(|(_, connection)| connection.body())
            .sum();
        if held > 0 && held + length > BODY_BYTES {
            return Err(
                Failure::new(503, "other requests hold too many bytes; try again")
                    .with("Retry-After", "1"),
            );
        }
        Ok(length)
    }

    fn dispatch(
        &mut self,
        key: usize,
        request: RequestInfo,
        route: Route,
        body: &[u8],
        cx: &mut RequestContext<'_>,
    ) {
        let response = match route {
            Route::Connections(query) => {
                let query = AnyQuery::Connections(query);
                return self.listings.waiting.push_back((key, request, query));
            }
            Route::Names(query) => {
                let query = AnyQuery::Names(query);
                return self.listings.waiting.push_back((key, request, query));
            }
            Route::Events if !request.head_only => {
                return self.start_stream(key, cx.now, &request, cx.server);
            }
            Route::Events => Ok(events::response()),
            Route::Page => Ok(page()),
            Route::Health => Ok(health(cx.server)),
            Route::Metrics => {
                let text = metrics::render(
                    cx.server,
                    &self.identity,
                    &self.requests,
                    self.connections.len(),
                );
                Ok(Response::new(200, metrics::CONTENT_TYPE, text.into_bytes()))
            }
            Route::Status => Ok(Response::json(
                200,
                &status(cx.server, &self.identity, self.connections.len()),
            )),
            Route::Connection(id) => cx
                .server
                .context()
                .snapshot(id)
                .map(|connection| Response::json(200, &entry(&connection)))
                .ok_or_else(gone),
            Route::Send(id) => {
                let sent = cx.server.context().send(id, body);
                sent.map(|()| Response::json(202, &Queued { queued: true }))
                    .map_err(|error| cannot_send(error, cx.server))
            }
            Route::SendToName(name) => match cx.server.context().send_to(&name, body) {
                Ok(Broadcast::Complete(1)) => Ok(Response::json(202, &Queued { queued: true })),
                Err(SendError::Closed) => Err(name_gone()),
                // One connection: its own queue is full.
                Err(SendError::Full) if cx.server.context().connections_named(&name).len() <= 1 => {
                    Err(cannot_send(SendError::Full, cx.server))
                }
                sent => return self.answer_sent(key, &request, sent, cx),
            },
            Route::SendToGroup(group) => {
                let sent = cx.server.context().publish(&group, body);
                return self.answer_sent(key, &request, sent, cx);
            }
            Route::Broadcast => {
                let sent = cx.server.context().broadcast(body, None);
                return self.answer_sent(key, &request, sent, cx);
            }
            Route::CloseName(name, how) => {
                let ids = cx.server.context().connections_named(&name).to_vec();
                for id in &ids {
                    cx.server.context().close(*id, how);
                }
                if ids.is_empty() {
                    Err(name_gone())
                } else {
                    Ok(Response::json(202, &Closing { closing: true }))
                }
            }
            Route::Close(id, how) => match cx.server.context().snapshot(id) {
                Some(_) => {
                    cx.server.context().close(id, how);
                    Ok(Response::json(202, &Closing { closing: true }))
                }
                None => Err(gone()),
            },
            Route::Closed { limit } => Ok(Response::json(
                200,
                &ClosedList {
                    closed: self.closed.newest(limit),
                    displaced: self.closed.displaced(),
                },
            )),
            Route::Drain(grace) => {
                let grace = grace.unwrap_or(cx.drain);
                cx.server.handle().shutdown(grace);
                let grace = cx.server.drain_left().map_or(grace, |left| left.min(grace));
                Ok(Response::json(
                    202,
                    &Draining {
                        draining: true,
                        grace_s: grace.as_secs_f64(),
                    },
                ))
            }
        };
        self.answer(
            key,
            cx.now,
            &request,
            &response.unwrap_or_else(Response::from),
        );
    }

    /// Answers a message for many with the number of its receivers, now or when it is complete.
    fn answer_sent(
        &mut self,
        key: usize,
        request: &RequestInfo,
        sent: Result<Broadcast, SendError>,
        cx: &mut RequestContext<'_>,
    ) {
        let response = match sent {
            Ok(Broadcast::Pending(broadcast)) => {
                return self.broadcasts.wait(key, request.clone(), broadcast);
            }
            Ok(Broadcast::Complete(receivers)) => Ok(received_by(receivers)),
            Err(SendError::Full) => Err(Failure::new(
                503,
                "too many broadcasts are under way; try again",
            )
            .with("Retry-After", "1")),
            Err(error) => Err(cannot_send(error, cx.server)),
        };
        let response = response.unwrap_or_else(Response::from);
        self.answer(key, cx.now, request, &response);
    }

    fn start_stream(
        &mut self,
        key: usize,
        now: Instant,
        request: &RequestInfo,
        server: &mut Server,
    ) {
        let status = events::status(&status(server, &self.identity, self.connections.len()));
        let response = events::response();
        let reported = self.all_reported();
        self.record(key, request, response.code);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.start_stream(&response, &status, reported);
            self.next_events.get_or_insert(now + events::PERIOD);
            self.write_now(key, now);
        }
    }

    /// What a stream has reported that begins now.
    fn all_reported(&self) -> Reported {
        Reported {
            closed: self.closed.total(),
            opened: self.opened.total(),
        }
    }

    /// Sends the events of the last second to the streams.
    pub(super) fn send_events(&mut self, now: Instant, server: &mut Server) {
        if self.next_events.is_none_or(|at| now < at) {
            return;
        }
        self.next_events = Some(now + events::PERIOD);
        let status = events::status(&status(server, &self.identity, self.connections.len()));
        let now_reported = self.all_reported();
        let cx = server.context();
        // All streams that have kept up get the same events.
        let mut latest: Option<(Reported, Vec<u8>)> = None;
        for (key, connection) in &mut self.connections {
            let Some(reported) = connection.reported() else {
                continue;
            };
            if latest.as_ref().is_none_or(|(after, _)| *after != reported) {
                let opened = events::opened(&self.opened, reported.opened, &cx);
                let closed = events::closed(&self.closed, reported.closed);
                let news = opened.into_iter().chain(closed).flatten();
                latest = Some((reported, news.collect()));
            }
            let mut output = status.clone();
            output.extend(latest.iter().flat_map(|(_, news)| news));
            connection.push_events(output, now_reported);
            if !connection.queued {
                connection.queued = true;
                self.work.push_back(key);
            }
        }
    }

    /// Continues the current listing, or begins the next.
    pub(super) fn advance_listing(&mut self, now: Instant, server: &mut Server) {
        if self.listings.current.is_none() {
            let next = self.listings.waiting.pop_front();
            self.listings.current =
                next.map(|(key, request, query)| (key, request, CurrentListing::new(query)));
        }
        let Some((key, request, mut listing)) = self.listings.current.take() else {
            return;
        };
        let cx = server.context();
        if listing.advance(&cx) {
            let response = listing.finish(&cx);
            self.answer(key, now, &request, &response);
        } else {
            self.listings.current = Some((key, request, listing));
        }
    }

    /// Answers requests whose broadcast is complete.
    pub(super) fn answer_broadcasts(&mut self, now: Instant) {
        while let Some((key, request, receivers)) = self.broadcasts.poll() {
            self.answer(key, now, &request, &received_by(receivers));
        }
    }

    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if !is_due(self.due) {
            return;
        }
        let over: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_due(connection.poll_timeout()))
            .map(|(key, _)| key)
            .collect();
        for key in over {
            match self
                .connections
                .get_mut(key)
                .map(|connection| connection.handle_timeout())
            {
                Some(NextStep::Refuse(failure)) => self.refuse(key, now, failure),
                _ => self.remove(key),
            }
        }
    }

    /// Sends an error response and closes the connection: the start of the next request is unknown.
    fn refuse(&mut self, key: usize, now: Instant, failure: Failure) {
        let request = RequestInfo {
            method: "-".into(),
            path: "-".into(),
            head_only: false,
            keep_alive: false,
            is_authorized: false,
        };
        self.answer(key, now, &request, &failure.into());
    }

    fn answer(&mut self, key: usize, now: Instant, request: &RequestInfo, response: &Response) {
        self.record(key, request, response.code);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.respond(response, request.keep_alive, request.head_only);
            self.write_now(key, now);
        }
    }

    /// Writes what the socket takes of a response at once, so that it is sent even if the server is
    /// about to finish.
    fn write_now(&mut self, key: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.write(now) {
            self.remove(key);
        } else if connection.has_work() {
            self.enqueue(key);
        }
    }

    fn record(&mut self, key: usize, request: &RequestInfo, code: u16) {
        self.requests.count(code);
        // Info level for requests that changed something; probes and rejected requests cannot fill
        // the log.
        let is_change = !matches!(request.method.as_str(), "GET" | "HEAD");
        let level = if request.is_authorized && is_change && code < 300 {
            log::Level::Info
        } else {
            log::Level::Debug
        };
        let peer = self
            .connections
            .get(key)
            .map_or("", |connection| &connection.peer);
        // Control characters, which a terminal would obey, are escaped.
        let path: String = request
            .path
            .chars()
            .take(LOGGED_PATH)
            .flat_map(char::escape_debug)
            .collect();
        log::log!(
            level,
            "admin method={} path={path} status={code} peer={peer}",
            request.method
        );
    }
}

fn received_by(receivers: usize) -> Response {
    Response::json(
        200,
        &Receivers {
            receivers: receivers as u64,
        },
    )
}

fn page() -> Response {
    Response::new(200, "text/html; charset=utf-8", PAGE.as_bytes())
        .with("Content-Security-Policy", PAGE_POLICY)
}

fn health(server: &mut Server) -> Response {
    if server.context().is_draining() {
        Response::text(503, "draining\n")
    } else {
        Response::text(200, "ok\n")
    }
}

fn cannot_send(error: SendError, server: &Server) -> Failure {
    match error {
        SendError::Closed => gone(),
        SendError::Full if server.config().limits.on_slow == OnSlow::Drop => {
            Failure::new(409, "its queue is full; the message is dropped")
        }
        SendError::Full => Failure::new(
            409,
            "its queue is full; the connection is closed as a slow reader",
        ),
        SendError::InvalidMessage if server.config().framing == Framing::Lines => Failure::new(
            422,
            "a message in lines framing cannot contain a line feed; \
             printf %s sends none at the end, echo does",
        ),
        SendError::InvalidMessage => Failure::new(422, error.to_string()),
    }
}
