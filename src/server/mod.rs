//! The server's driver: one mio poll loop around the [`Engine`]. It owns sockets and clock, and
//! holds no policy.

mod descriptors;
mod handle;
mod io;
mod linger;
mod listener;
mod log_limiter;
mod sockets;
mod turn;
mod wake_timer;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

pub(crate) use descriptors::Descriptors;
pub use handle::Handle;
#[cfg(feature = "cli")]
pub(crate) use listener::{check_addrs, covers};

use crate::config::Config;
use crate::engine::budgets::{EVENTS_PER_TURN, SCRATCH_BYTES};
use crate::engine::{Context, Engine, NameCounts, ReadySet, Stats};
use crate::error::Error;
use crate::net::{self, MonotonicClock, SocketOptions};
use crate::time::{AwakeClock, Timestamp};
use handle::Commands;
use linger::Lingering;
use listener::{Listeners, MAX_LISTENERS, check_listeners};
use log_limiter::LogLimiter;
use sockets::Sockets;
use wake_timer::WakeTimer;

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
/// Tokens from here up to the alarm's are listeners'. Tokens of connections are far below (see
/// `ConnId::MAX_SLOTS`).
const FIRST_LISTENER: usize = ALARM.0 - MAX_LISTENERS;
/// Tokens from here up to the first listener's are those of other event sources.
const FIRST_EVENT_SOURCE: usize = FIRST_LISTENER - MAX_EVENT_SOURCES;
const MAX_EVENT_SOURCES: usize = 1024;

/// Whether a server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to do, now or later.
    Running,
    /// A shutdown has ended: no connection is left and nothing will happen any more.
    Finished,
}

/// Very many long-lived TCP connections on the thread that calls [`Server::run`] or
/// [`Server::turn`].
pub struct Server {
    poll: Poll,
    events: Events,
    engine: Engine,
    sockets: Sockets,
    listeners: Listeners,
    lingering: Lingering,
    /// Connections that have, or may have, more to read than their budget allowed.
    ready: ReadySet,
    /// Event sources that became ready in the last turn.
    ready_event_sources: Vec<usize>,
    scratch: Box<[u8]>,
    handle: Handle,
    commands: Commands,
    /// The configuration in force, except `max_connections`, which is as it was requested.
    config: Config,
    /// Limits the number of connections.
    descriptors: Descriptors,
    /// The next turn logs a shortage of descriptors, if there is one.
    shortage_unsaid: bool,
    options: SocketOptions,
    log_limiter: LogLimiter,
    clock: MonotonicClock,
    /// The clock's last reading, from which `now` was made.
    reading: Duration,
    wake_timer: WakeTimer,
    awake: AwakeClock,
    now: Timestamp,
    /// Sockets and units of work since the clock was read.
    since_clock: u32,
    /// When the turn began, by the clock of `reading`.
    turn_began: Duration,
    /// The last poll filled its batch, so the kernel may hold more events, which an outer poll
    /// would not report again.
    more_events: bool,
    finished: bool,
    /// A turn has begun and not ended.
    in_turn: bool,
}

impl Server {
    /// Listens on every address that `addrs` resolves to, with port 0 for a free port, and
    /// raises the soft limit on descriptors to the hard one (setrlimit(2)). No connection is
    /// accepted before the first turn.
    ///
    /// Fails on a configuration at fault, on an address that does not resolve or cannot be bound,
    /// and on more than 64 addresses.
    pub fn bind(addrs: impl ToSocketAddrs, config: Config) -> Result<Self, Error> {
        config.check()?;
        let addrs: Vec<SocketAddr> = addrs
            .to_socket_addrs()
            .map_err(Error::io("resolve the address to listen on"))?
            .collect();
        check_listeners(addrs.len())?;
        let options = socket_options(&config);
        let listen = |addr| listen(addr, &config, &options);
        let sockets = addrs.into_iter().map(listen).collect::<Result<_, _>>()?;
        Server::with(sockets, config)
    }

    /// As [`Server::bind`], with the addresses of several names: for each name at least one address
    /// must be bound; the failures of others are logged.
    #[cfg(feature = "cli")]
    pub(crate) fn bind_names(names: &[Vec<SocketAddr>], config: Config) -> Result<Self, Error> {
        config.check()?;
        check_listeners(names.iter().map(Vec::len).sum())?;
        let options = socket_options(&config);
        let mut sockets = Vec::new();
        for addrs in names {
            let mut failure = None;
            let before = sockets.len();
            for addr in addrs {
                match listen(*addr, &config, &options) {
                    Ok(socket) => sockets.push(socket),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) if sockets.len() == before => return Err(error),
                Some(error) => log::warn!("listen error=\"{error}\""),
                None => {}
            }
        }
        Server::with(sockets, config)
    }

    /// As [`Server::bind`], but on sockets that listen already, such as those that systemd passes
    /// to a service (sd_listen_fds(3)). Their backlog and address options stay; options of
    /// connections are set. Another process that holds such a socket keeps it: a shutdown closes
    /// only this descriptor, and new dials wait for the next server.
    pub fn from_listeners(
        listeners: impl IntoIterator<Item = std::net::TcpListener>,
        config: Config,
    ) -> Result<Self, Error> {
        config.check()?;
        let options = socket_options(&config);
        let take_over = |listener| {
            net::take_over(listener, &options).map_err(Error::io("take over a listening socket"))
        };
        let sockets = listeners
            .into_iter()
            .map(take_over)
            .collect::<Result<Vec<_>, _>>()?;
        check_listeners(sockets.len())?;
        Server::with(sockets, config)
    }

    fn with(sockets: Vec<TcpListener>, config: Config) -> Result<Self, Error> {
        let limit = net::raise_descriptor_limit();
        if let Some(socket) = sockets.first() {
            net::grow_descriptor_table(socket, limit);
        }
        let descriptors = Descriptors::share(limit);
        let options = socket_options(&config);
        let mut listeners = Listeners::new(sockets);

        let poll = Poll::new().map_err(Error::io("make a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(Error::io("make a waker"))?;
        let wake_timer =
            WakeTimer::register(poll.registry(), ALARM).map_err(Error::io("make a timer"))?;
        listeners.register(poll.registry(), |index| Token(FIRST_LISTENER + index))?;
        let (handle, commands) = handle::channel(waker, config.codec()?);
        let mut engine = Engine::new(&descriptors.within(&config))?;
        engine.set_first_generation(fastrand::u32(..));
        Ok(Server {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            awake: AwakeClock::new(engine.stall_ms()),
            engine,
            sockets: Sockets::default(),
            listeners,
            lingering: Lingering::new(descriptors.max_lingering),
            ready: ReadySet::default(),
            ready_event_sources: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            handle,
            commands,
            config,
            descriptors,
            shortage_unsaid: true,
            options,
            log_limiter: LogLimiter::new(),
            clock: MonotonicClock::start(),
            reading: Duration::ZERO,
            wake_timer,
            now: Timestamp::ZERO,
            since_clock: 0,
            turn_began: Duration::ZERO,
            more_events: false,
            finished: false,
            in_turn: false,
        })
    }

    /// The addresses listened on, in the order in which they were given; none once a shutdown has
    /// begun.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.local_addrs().collect()
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        self.engine.stats()
    }

    /// Connections held now.
    pub fn connections(&self) -> usize {
        self.engine.connections()
    }

    /// Numbers of names, groups and logins under way.
    pub fn name_counts(&self) -> NameCounts {
        self.engine.name_counts()
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.engine.is_draining()
    }

    /// The server, as seen by a handler, between two turns of your own loop. What it sends is
    /// written in the next turn, which [`Server::next_wait`] then says is due at once.
    pub fn context(&mut self) -> Context<'_> {
        self.read_clock(self.due_ms());
        Context {
            engine: &mut self.engine,
        }
    }

    /// Applies another configuration, also to open connections. OS keepalive and user timeout,
    /// which the kernel keeps for each connection, apply to new connections. It closes no
    /// connection at once: open ones above a lowered limit, or with an address that may not connect
    /// any more, stay.
    ///
    /// Returns the names of the fields that differ and that a running server cannot change:
    /// framing, words, tick, backlog, `reuse_port`. They stay as they are. Fails, and changes
    /// nothing, if the rest is invalid.
    pub fn reconfigure(&mut self, mut config: Config) -> Result<Vec<&'static str>, Error> {
        let kept = config.keep_fixed(&self.config);
        config.check()?;
        let options = socket_options(&config);
        self.listeners.apply(&options)?;
        self.read_clock(self.due_ms());
        self.engine
            .reconfigure(self.now, &self.descriptors.within(&config))?;
        self.shortage_unsaid = true;
        self.awake.set_threshold_ms(self.engine.stall_ms());
        (self.options, self.config) = (options, config);
        Ok(kept)
    }

    /// The time until the end of a shutdown that has begun; `None` before that.
    pub fn drain_left(&self) -> Option<Duration> {
        self.engine
            .drain_deadline()
            .map(|end| Duration::from_millis(end.ms_since(self.now)))
    }

    /// The configuration in force. [`Context::max_connections`] may be lower than the limit in it,
    /// where descriptors are short.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reserves `number` descriptors for other uses of this process: the connection limit is
    /// lowered by as many, to 1 at least. To be called before the first turn; later calls lower the
    /// limit for connections that come after them.
    pub fn reserve_descriptors(&mut self, number: usize) -> Result<(), Error> {
        self.descriptors.reserve(number);
        self.engine
            .reconfigure(self.now, &self.descriptors.within(&self.config))?;
        Ok(())
    }

    /// Watches `source`, a socket or pipe of the caller's, on the server's loop: it ends the wait
    /// of a turn, and [`Server::ready_event_sources`] then names it by `index`.
    ///
    /// Register it once; it is forgotten when it is closed. Fails with
    /// [`std::io::ErrorKind::InvalidInput`] for an index from 1,024 on, else as epoll_ctl(2) does.
    pub fn register_event_source<S: mio::event::Source + ?Sized>(
        &self,
        source: &mut S,
        index: usize,
        interest: Interest,
    ) -> std::io::Result<()> {
        if index >= MAX_EVENT_SOURCES {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let token = Token(FIRST_EVENT_SOURCE + index);
        self.poll.registry().register(source, token, interest)
    }

    /// The indices of the event sources that became ready in the last turn, in the order of the
    /// events. mio is edge-triggered: a source is not reported again before it was read or written
    /// until that would block.
    pub fn ready_event_sources(&self) -> &[usize] {
        &self.ready_event_sources
    }
}

/// The descriptor that becomes readable when a turn has something to do, for another poll loop to
/// watch. Do not read from it, and do not close it.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

/// As for [`AsFd`].
impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addrs", &self.local_addrs())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

fn listen(
    addr: SocketAddr,
    config: &Config,
    options: &SocketOptions,
) -> Result<TcpListener, Error> {
    net::listen(addr, options, config.backlog, config.reuse_port)
        .map_err(Error::io(format!("listen on {addr}")))
}

fn socket_options(config: &Config) -> SocketOptions {
    SocketOptions {
        keepalive: config.keepalive.clone(),
        user_timeout: config.user_timeout,
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn name_needs_one_address_that_can_be_bound() {
        let local: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        // TEST-NET-1 (RFC 5737), which no machine has.
        let foreign: SocketAddr = "192.0.2.1:0".parse().expect("an address");
        let bind = |names: &[Vec<SocketAddr>]| {
            let server = Server::bind_names(names, Config::default());
            server.map(|server| server.local_addrs().len())
        };
        for name in [vec![foreign, local], vec![local, foreign]] {
            assert_eq!(bind(&[name]).expect("one of them is ours"), 1);
        }
        assert_eq!(bind(&[vec![local], vec![local]]).expect("both are"), 2);
        let error = bind(&[vec![local], vec![foreign]]).expect_err("the second is not");
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }
}
