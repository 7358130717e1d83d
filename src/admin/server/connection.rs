//! One client of the endpoint: its bytes in, its bytes out, and how long it may take over either.
//! What its requests mean is not known here.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::events::Reported;
use super::http::{self, Failure, HEADER_BYTES, RequestHead, Response};
use super::listener::Stream;

/// How long a request may take to arrive, the first one from the connection on: slow and silent
/// clients are closed.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be quiet between two requests: no shorter than a scraper waits, which
/// so needs one dial only.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How long a client may read nothing of what waits for it.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long the rest of a request that was refused is thrown away, so that the refusal is read:
/// unread bytes would reset the connection.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// Bytes read from a connection per turn, at most.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// Bytes written to a connection per turn, at most.
const WRITE_BYTES: usize = 64 * 1024;

/// The next step of a connection.
pub(super) enum NextStep {
    /// An event, or time.
    Wait,
    /// Another step, when others had theirs.
    Again,
    /// A decision on this request, before its body.
    Head(RequestHead),
    /// The admitted request is whole: take it.
    Whole,
    /// This answer, for what came is not to be understood.
    Refuse(Failure),
    /// To be dropped.
    Gone,
}

/// How far the output has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    All,
    /// This turn's share has.
    Some,
    /// The kernel takes no more.
    Full,
    Failed,
}

enum ConnectionState<R> {
    /// Waits for a request head.
    Head,
    /// Waits for a body of this length.
    Body(R, usize),
    /// Waits for the response.
    Busy,
    /// Events are sent until the client leaves; these were.
    Streaming(Reported),
    /// The output is sent, then the connection closes.
    Ending,
    /// All is sent; the client is read until it leaves.
    Lingering,
}

/// One HTTP connection. `R` is the request whose body is awaited.
pub(super) struct HttpConnection<R> {
    stream: Stream,
    /// The client's name in the log.
    pub(super) peer: String,
    /// Read and not yet used: a head and a read beyond it at most, or a body and a read beyond it.
    input: Vec<u8>,
    /// Bytes of it that were searched and hold no end of a head.
    searched: usize,
    /// One answer, or the events of one second.
    output: Vec<u8>,
    written: usize,
    state: ConnectionState<R>,
    /// Whether a request of it was authorized: only such a client may be idle.
    is_known: bool,
    /// Whether a read may find something: an event was reported, and no read would have blocked
    /// since.
    readable: bool,
    /// When the state has lasted too long, while nothing is to be written.
    due: Option<Instant>,
    /// When the client has read nothing for too long, while something is.
    write_due: Option<Instant>,
    /// Whether it is in the list of connections to work on.
    pub(super) queued: bool,
}

impl<R> HttpConnection<R> {
    pub(super) fn new(stream: Stream, peer: String, now: Instant) -> Self {
        HttpConnection {
            stream,
            peer,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            written: 0,
            state: ConnectionState::Head,
            is_known: false,
            readable: true,
            due: Some(now + REQUEST_TIME),
            write_due: None,
            queued: false,
        }
    }

    /// Order in which idle connections are closed for new ones, smallest first: connections without
    /// an admitted request, then connections between two requests, each by its timeout. `None`
    /// while a request is served. RFC 9112 section 9.5 allows a server to close an idle connection
    /// at any time.
    pub(super) fn eviction_order(&self) -> Option<(bool, Option<Instant>)> {
        let is_idle = match self.state {
            ConnectionState::Head => !self.is_known || self.input.is_empty(),
            ConnectionState::Lingering => true,
            ConnectionState::Body(..)
            | ConnectionState::Busy
            | ConnectionState::Streaming(_)
            | ConnectionState::Ending => false,
        };
        (is_idle && self.write_due.is_none()).then_some((self.is_known, self.due))
    }

    /// There may be something to read, or room to write.
    pub(super) fn handle_event(&mut self) {
        self.readable = true;
    }

    /// Writes what waits, and if nothing does reads on: one of each at most.
    pub(super) fn step(&mut self, now: Instant, scratch: &mut [u8]) -> NextStep {
        match self.flush(now) {
            Flushed::All => {}
            Flushed::Some => return NextStep::Again,
            // Nothing is read meanwhile: a client that does not read one answer gets no other.
            Flushed::Full => return NextStep::Wait,
            Flushed::Failed => return NextStep::Gone,
        }
        if let Some(step) = self.next_request() {
            return step;
        }
        if !self.readable || matches!(self.state, ConnectionState::Busy) {
            return NextStep::Wait;
        }
        match self.stream.read(scratch) {
            Ok(0) => NextStep::Gone,
            Ok(n) => {
                self.take_in(&scratch[..n], now);
                self.next_request().unwrap_or(NextStep::Again)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                NextStep::Wait
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => NextStep::Again,
            Err(_) => NextStep::Gone,
        }
    }

    fn take_in(&mut self, bytes: &[u8], now: Instant) {
        match self.state {
            ConnectionState::Head if self.input.is_empty() => {
                // The time of an unauthorized client is not renewed.
                if self.is_known {
                    self.due = Some(now + REQUEST_TIME);
                }
                self.input.extend_from_slice(bytes);
            }
            ConnectionState::Head | ConnectionState::Body(..) => {
                self.input.extend_from_slice(bytes)
            }
            // The client has closed.
            ConnectionState::Busy
            | ConnectionState::Streaming(_)
            | ConnectionState::Ending
            | ConnectionState::Lingering => {}
        }
    }

    /// The next step that the buffered input allows, if any.
    fn next_request(&mut self) -> Option<NextStep> {
        match &self.state {
            ConnectionState::Head => {}
            ConnectionState::Body(_, length) => {
                return (self.input.len() >= *length).then_some(NextStep::Whole);
            }
            _ => return None,
        }
        if self.searched == 0 {
            // Empty lines before a request are ignored (RFC 9112 section 2.2).
            let blank = self
                .input
                .iter()
                .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                .count();
            self.input.drain(..blank);
        }
        if self.input.is_empty() {
            return None;
        }
        let is_new = self.searched == 0;
        let end = http::end_of_head(&self.input, self.searched);
        self.searched = self.input.len();
        if end.unwrap_or(self.input.len()) > HEADER_BYTES {
            return Some(NextStep::Refuse(Failure::new(
                431,
                format!("request head too long; the limit is {HEADER_BYTES} bytes"),
            )));
        }
        // Parsed when it is complete, so that a head that arrives byte by byte is parsed once; and
        // at its beginning, to reject what is not HTTP.
        if end.is_none() && !is_new {
            return None;
        }
        match (http::parse(&self.input), end) {
            (Ok(Some(head)), Some(end)) => {
                self.consume(end);
                Some(NextStep::Head(head))
            }
            (Ok(None), None) => None,
            (Ok(_), _) => Some(NextStep::Refuse(Failure::new(
                400,
                "not an HTTP request: its head has no clear end",
            ))),
            (Err(failure), _) => Some(NextStep::Refuse(failure)),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.input.drain(..bytes);
        self.searched = 0;
        if self.input.is_empty() {
            // Idle connections own no buffers.
            self.input = Vec::new();
        }
    }

    /// Accepts the request whose head came last. It is answered when its body of that length has
    /// arrived.
    pub(super) fn admit(&mut self, request: R, length: usize, expects_continue: bool) {
        if expects_continue && self.input.len() < length {
            self.output.extend_from_slice(http::CONTINUE);
        }
        self.state = ConnectionState::Body(request, length);
        self.is_known = true;
    }

    /// The request that was admitted, once it is whole.
    pub(super) fn take_request(&mut self) -> Option<(R, Vec<u8>)> {
        match std::mem::replace(&mut self.state, ConnectionState::Busy) {
            ConnectionState::Body(request, length) if self.input.len() >= length => {
                let body = self.input[..length].to_vec();
                self.consume(length);
                self.due = None;
                Some((request, body))
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Bytes of a body that it will hold.
    pub(super) fn body(&self) -> usize {
        if let ConnectionState::Body(_, length) = self.state {
            length
        } else {
            0
        }
    }

    /// Queues an answer. Without `keep_alive` it is the last.
    pub(super) fn respond(&mut self, response: &Response, keep_alive: bool, head_only: bool) {
        response.encode(keep_alive, head_only, &mut self.output);
        self.state = if keep_alive {
            ConnectionState::Head
        } else {
            ConnectionState::Ending
        };
    }

    /// Queues the beginning of a stream of events, which goes on after those.
    pub(super) fn start_stream(&mut self, response: &Response, events: &[u8], reported: Reported) {
        response.encode_endless(&mut self.output);
        self.output.extend_from_slice(events);
        self.state = ConnectionState::Streaming(reported);
    }

    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.state, ConnectionState::Streaming(_))
    }

    /// What this stream has reported, if it can take another event: nothing is added for a slow
    /// client.
    pub(super) fn reported(&self) -> Option<Reported> {
        match self.state {
            ConnectionState::Streaming(reported) if self.output.is_empty() => Some(reported),
            _ => None,
        }
    }

    /// Queues events, with which that is reported.
    pub(super) fn push_events(&mut self, events: Vec<u8>, reported: Reported) {
        self.output = events;
        self.state = ConnectionState::Streaming(reported);
    }

    /// Writes one share of what waits. `false` if the connection is over.
    pub(super) fn write(&mut self, now: Instant) -> bool {
        self.flush(now) != Flushed::Failed
    }

    fn flush(&mut self, now: Instant) -> Flushed {
        if self.output.is_empty() {
            return Flushed::All;
        }
        let rest = &self.output[self.written..];
        match self.stream.write(&rest[..rest.len().min(WRITE_BYTES)]) {
            Ok(0) => return Flushed::Failed,
            Ok(n) => self.written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_due.get_or_insert(now + WRITE_TIME);
                return Flushed::Full;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Flushed::Failed,
        }
        if self.written < self.output.len() {
            self.write_due = Some(now + WRITE_TIME);
            return Flushed::Some;
        }
        (self.output, self.written, self.write_due) = (Vec::new(), 0, None);
        self.handle_written(now);
        Flushed::All
    }

    /// All output is written: moves to the next state.
    fn handle_written(&mut self, now: Instant) {
        match self.state {
            // The time of an unauthenticated client is not renewed by a response.
            ConnectionState::Head if !self.is_known => {}
            ConnectionState::Head if self.input.is_empty() => self.due = Some(now + IDLE_TIME),
            ConnectionState::Head => self.due = Some(now + REQUEST_TIME),
            ConnectionState::Streaming(_) => self.due = None,
            ConnectionState::Ending => {
                self.stream.finish();
                self.state = ConnectionState::Lingering;
                self.input = Vec::new();
                self.due = Some(now + LINGER_TIME);
            }
            ConnectionState::Body(..) | ConnectionState::Busy | ConnectionState::Lingering => {}
        }
    }

    /// Whether a step would find something to do without another event.
    pub(super) fn has_work(&self) -> bool {
        // After the output is written, a request may be buffered already; before that, the kernel
        // may not have been offered all of it.
        !self.output.is_empty() || self.readable || !self.input.is_empty()
    }

    /// When the connection has to be checked, whatever it does.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.output.is_empty() {
            self.due
        } else {
            self.write_due
        }
    }

    /// Its time is over: what becomes of it.
    pub(super) fn handle_timeout(&mut self) -> NextStep {
        let waits_for_request = match self.state {
            ConnectionState::Head => !self.input.is_empty(),
            ConnectionState::Body(..) => true,
            _ => false,
        };
        if waits_for_request && self.output.is_empty() {
            NextStep::Refuse(Failure::new(
                408,
                format!(
                    "request timeout; a request must arrive completely within {} s",
                    REQUEST_TIME.as_secs()
                ),
            ))
        } else {
            NextStep::Gone
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::net::UnixStream;

    use super::*;

    struct Fixture {
        client: UnixStream,
        connection: HttpConnection<&'static str>,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Fixture {
            let (client, server) = UnixStream::pair().expect("a pair of sockets");
            let now = Instant::now();
            Fixture {
                client,
                connection: HttpConnection::new(Stream::Unix(server), "test".into(), now),
                now,
            }
        }

        /// A connection whose first request was answered.
        fn known() -> Fixture {
            let mut line = Fixture::new();
            line.say(REQUEST);
            assert!(matches!(line.step(), NextStep::Head(_)));
            line.connection.admit("health", 0, false);
            line.connection.take_request().expect("it is whole");
            line.connection
                .respond(&Response::text(200, "ok\n"), true, false);
            assert!(matches!(line.step(), NextStep::Wait));
            line
        }

        fn say(&mut self, text: &str) {
            self.client
                .write_all(text.as_bytes())
                .expect("there is room");
            self.connection.handle_event();
        }

        /// Steps until it waits for an event or returns a request.
        fn step(&mut self) -> NextStep {
            for _ in 0..10_000 {
                match self.connection.step(self.now, &mut [0; READ_BYTES]) {
                    NextStep::Again => {}
                    step => return step,
                }
            }
            panic!("it never waits");
        }

        fn left(&self) -> Option<Duration> {
            self.connection.poll_timeout().map(|due| due - self.now)
        }
    }

    const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[test]
    fn unauthenticated_client_has_the_time_of_one_request() {
        let mut stranger = Fixture::new();
        assert!(matches!(stranger.step(), NextStep::Wait));
        assert_eq!(stranger.left(), Some(REQUEST_TIME));
        stranger.now += REQUEST_TIME / 2;
        stranger.say("GET");
        assert!(matches!(stranger.step(), NextStep::Wait));
        assert_eq!(
            stranger.left(),
            Some(REQUEST_TIME / 2),
            "each byte more does not bring more time"
        );
        assert!(
            matches!(stranger.connection.handle_timeout(), NextStep::Refuse(failure) if failure.code == 408)
        );
        assert!(
            matches!(Fixture::new().connection.handle_timeout(), NextStep::Gone),
            "who has not begun is owed no answer"
        );

        let mut refused = Fixture::new();
        refused.now += REQUEST_TIME / 2;
        refused.say(REQUEST);
        assert!(matches!(refused.step(), NextStep::Head(_)));
        refused
            .connection
            .respond(&Failure::new(401, "who are you?").into(), true, false);
        assert!(matches!(refused.step(), NextStep::Wait));
        assert_eq!(
            refused.left(),
            Some(REQUEST_TIME / 2),
            "nor does each refusal"
        );

        let mut known = Fixture::known();
        assert_eq!(known.left(), Some(IDLE_TIME));
        known.now += IDLE_TIME / 2;
        known.say("GET");
        assert!(matches!(known.step(), NextStep::Wait));
        assert_eq!(known.left(), Some(REQUEST_TIME));
    }

    #[test]
    fn request_timeout_includes_the_body() {
        let mut line = Fixture::known();
        line.say("POST /broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel");
        assert!(matches!(line.step(), NextStep::Head(head) if head.content_length == 5));
        line.connection.admit("broadcast", 5, false);
        assert!(line.connection.take_request().is_none());
        line.now += Duration::from_secs(3);
        assert!(matches!(line.step(), NextStep::Wait));
        assert_eq!(line.left(), Some(REQUEST_TIME - Duration::from_secs(3)));
        line.say("lo");
        assert!(matches!(line.step(), NextStep::Whole));
        let (request, body) = line.connection.take_request().expect("it is whole");
        assert_eq!(
            (request, body.as_slice(), line.left()),
            ("broadcast", &b"hello"[..], None)
        );
    }

    #[test]
    fn event_stream_of_a_slow_client_is_bounded() {
        let mut line = Fixture::known();
        line.say(REQUEST);
        assert!(matches!(line.step(), NextStep::Head(_)));
        line.connection.start_stream(
            &Response::text(200, ""),
            &vec![b'x'; 1 << 20],
            Reported::default(),
        );
        assert!(matches!(line.step(), NextStep::Wait));
        assert_eq!(
            (line.connection.reported(), line.left()),
            (None, Some(WRITE_TIME))
        );
        line.now += WRITE_TIME / 2;
        assert!(matches!(line.step(), NextStep::Wait));
        assert_eq!(
            line.left(),
            Some(WRITE_TIME / 2),
            "to try again is no progress"
        );
        assert!(matches!(line.connection.handle_timeout(), NextStep::Gone));

        // Once the client reads, it has time again, and in the end gets more events.
        let mut scratch = vec![0; 1 << 20];
        let mut read = 0;
        for _ in 0..1000 {
            read += line.client.read(&mut scratch).unwrap_or(0);
            line.connection.handle_event();
            line.step();
            if line.connection.reported().is_some() {
                break;
            }
        }
        assert!(read > 0);
        assert_eq!(
            (line.connection.reported(), line.left()),
            (Some(Reported::default()), None)
        );
    }

    #[test]
    fn final_response_is_followed_by_a_fin() {
        let mut line = Fixture::new();
        line.say("nonsense\r\n\r\nand much more of it");
        assert!(matches!(line.step(), NextStep::Refuse(failure) if failure.code == 400));
        line.connection
            .respond(&Response::text(503, "no\n"), false, false);
        assert!(matches!(line.step(), NextStep::Wait));
        let mut answer = String::new();
        line.client
            .read_to_string(&mut answer)
            .expect("an orderly end");
        assert!(answer.ends_with("no\n"), "{answer}");
        assert_eq!(line.left(), Some(LINGER_TIME));
        line.say(REQUEST);
        assert!(
            matches!(line.step(), NextStep::Wait),
            "nothing is asked any more"
        );
        assert!(matches!(line.connection.handle_timeout(), NextStep::Gone));
        drop(line.client);
        line.connection.handle_event();
        assert!(matches!(
            line.connection.step(line.now, &mut [0; READ_BYTES]),
            NextStep::Gone
        ));
    }
}
