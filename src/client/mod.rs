//! The other end of a line: a client that beats, notices silence, and comes back.
//!
//! ```no_run
//! use heartline::client::{Client, ClientConfig, ClientContext, ClientHandler};
//!
//! struct Print;
//!
//! impl ClientHandler for Print {
//!     fn on_message(&mut self, client: &mut ClientContext<'_>, message: &[u8]) {
//!         println!("{}", String::from_utf8_lossy(message));
//!         client.finish();
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("127.0.0.1:7878", ClientConfig::default())?;
//! client.send(b"hello")?;
//! println!("{}", client.run(&mut Print)?);
//! # Ok(())
//! # }
//! ```
//!
//! The bound: with a heartbeat interval `H`, retry `R` and `M` missed pings, a silent connection is
//! left no earlier than `H + R * M` after its last byte, and no later than that plus the lag of the
//! loop.
//!
//! Delivery is at most once: a message that the kernel took whole is never sent again, see
//! [`ClientContext::send`].
//!
//! A machine that wakes from suspension probes, or redials, at once on Linux; elsewhere at the
//! client's next wake-up.

mod backoff;
mod clock;
mod config;
mod event;
mod handle;
mod handler;
mod handshake;
mod link;
mod live_connection;
mod queue;
mod rtt;
mod session;
mod turn;

pub use backoff::Backoff;
pub use config::ClientConfig;
pub use event::{Attempt, ClientState, Event, Outcome};
pub use handle::ClientHandle;
pub use handler::{ClientContext, ClientHandler};
pub use handshake::ClientHello;
pub use rtt::RttStats;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use crate::error::{Error, SendError};
use crate::framing::inbox::Inbox;
use crate::framing::{Codec, Framing};
use crate::net::{ResumeAlarm, SocketOptions};
use clock::Clock;
use handle::ClientHandleState;
use link::{Addresses, Link};
use queue::SendQueue;
use session::Session;

/// Bytes read at a time: a whole socket buffer of an ordinary line.
const SCRATCH_BYTES: usize = 64 * 1024;

const WAKE: Token = Token(0);
const RESUME: Token = Token(1);
const FIRST_LINK: usize = 2;

/// Events that one poll may return: the socket's, an old socket's, the waker's and the alarm's.
const EVENTS: usize = 8;

/// A client with one line to one server, on the thread that turns it.
///
/// It does nothing between turns. In your own loop, wait for [`Client::as_fd`] to become
/// readable, no longer than [`Client::timeout`], and call [`Client::turn`] with no wait.
pub struct Client {
    addr: String,
    options: SocketOptions,
    framing: Framing,
    codec: Codec,
    session: Session,
    queue: SendQueue,
    /// The first message of each connection.
    hello: Option<Vec<u8>>,
    inbox: Inbox,
    scratch: Box<[u8]>,
    poll: Poll,
    events: Events,
    link: Option<Link>,
    addresses: Addresses,
    next_token: usize,
    clock: Clock,
    resume_alarm: ResumeAlarm,
    shared: Arc<ClientHandleState>,
    commands_left: bool,
    done_told: bool,
}

impl Client {
    /// A client of the server at `addr`, as `host:port`. It neither waits nor dials yet: turns do
    /// that. A name is resolved at each dial, which blocks the turn until the name server answers;
    /// all its addresses are tried in order.
    ///
    /// Fails if the configuration contradicts itself, if `addr` has no host or no port, or if the
    /// system refuses a poll.
    pub fn connect(addr: impl Into<String>, config: ClientConfig) -> Result<Self, Error> {
        let addr = addr.into();
        link::check_addr(&addr)?;
        config.check()?;
        for note in config.notes() {
            log::warn!("client-config note={note:?}");
        }
        let codec = config.codec()?;
        let poll = Poll::new().map_err(Error::io("make a poll"))?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(Error::io("make a waker"))?;
        let resume_alarm = ResumeAlarm::register(poll.registry(), RESUME)
            .map_err(Error::io("watch for resumes"))?;
        let session = Session::new(&config, fastrand::u64(..));
        let clock = Clock::start(session.stall_ms());
        Ok(Client {
            addr,
            options: SocketOptions {
                keepalive: config.keepalive.clone(),
                user_timeout: config.user_timeout,
            },
            framing: config.framing,
            session,
            queue: SendQueue::new(codec.clone(), config.max_queue, config.hello.is_some()),
            hello: config.hello.as_ref().map(|hello| {
                hello.encode(
                    config
                        .heartbeat
                        .as_ref()
                        .map(|heartbeat| heartbeat.interval),
                )
            }),
            inbox: Inbox::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            poll,
            events: Events::with_capacity(EVENTS),
            link: None,
            addresses: Addresses::default(),
            next_token: FIRST_LINK,
            resume_alarm,
            clock,
            shared: ClientHandleState::new(waker, codec.clone(), config.max_queue),
            codec,
            commands_left: false,
            done_told: false,
        })
    }

    /// Turns until the client is done: finished, stopped, or out of tries. Called again then, it
    /// returns the same at once.
    ///
    /// Fails only if the system refuses to poll.
    pub fn run<H: ClientHandler + ?Sized>(&mut self, handler: &mut H) -> Result<Outcome, Error> {
        loop {
            if let ClientState::Done(outcome) = self.turn(handler, None)? {
                return Ok(outcome);
            }
        }
    }

    /// One turn: waits for something to do, at most `max_wait` (`None`: no limit), and does it. A
    /// turn may return earlier without having done anything. Once the client is done it returns at
    /// once.
    ///
    /// Fails only if the system refuses to poll.
    pub fn turn<H: ClientHandler + ?Sized>(
        &mut self,
        handler: &mut H,
        max_wait: Option<Duration>,
    ) -> Result<ClientState, Error> {
        if self.done_told {
            return Ok(self.state());
        }
        let now = self.wait(max_wait)?;
        if self.clock.was_suspended() {
            log::info!("client-resumed addr={}", self.addr);
            self.session.handle_resumed(now);
        }
        self.take_commands();
        self.progress_dial(handler, now);
        self.read(handler, now);
        // The server may have granted another heartbeat.
        self.clock.set_stall_ms(self.session.stall_ms());
        self.obey(handler, now);
        self.write(handler, now);
        self.prepare_wait(handler, now);
        Ok(self.state())
    }

    /// How long your own loop may wait before the next turn if the descriptor does not become
    /// readable. `None`: no limit.
    pub fn timeout(&self) -> Option<Duration> {
        if self.done_told {
            return None;
        }
        let wait_ms = self.wait_ms(self.clock.last())?;
        Some(Duration::from_millis(
            wait_ms.saturating_sub(self.clock.since_last_ms()),
        ))
    }

    /// See [`ClientContext::send`]. The message is sent in the next turn.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.context().send(message)
    }

    /// As [`ClientContext::finish`].
    pub fn finish(&mut self) {
        self.context().finish();
    }

    /// As [`ClientContext::stop`]. The handler is called in the next turn.
    pub fn stop(&mut self) {
        self.context().stop();
    }

    /// As [`ClientContext::pause_reads`].
    pub fn pause_reads(&mut self) {
        self.context().pause_reads();
    }

    /// As [`ClientContext::resume_reads`].
    pub fn resume_reads(&mut self) {
        self.context().resume_reads();
    }

    /// The state of the client.
    pub fn state(&self) -> ClientState {
        self.session.state()
    }

    /// As [`ClientContext::epoch`].
    pub fn epoch(&self) -> u64 {
        self.session.epoch()
    }

    /// As [`ClientContext::rtt`].
    pub fn rtt(&self) -> RttStats {
        *self.session.rtt()
    }

    /// The way in from other threads.
    pub fn handle(&self) -> ClientHandle {
        self.shared.handle()
    }

    fn context(&mut self) -> ClientContext<'_> {
        ClientContext {
            session: &mut self.session,
            queue: &mut self.queue,
        }
    }

    fn emit<H: ClientHandler + ?Sized>(&mut self, handler: &mut H, event: &Event) {
        log::debug!("client server={} {event}", self.addr);
        handler.on_event(&mut self.context(), event);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

/// The poll descriptor: readable when a turn has something to do, [`Client::timeout`] aside. For
/// another poll, and for nothing else.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

/// As [`Client::as_fd`].
impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
