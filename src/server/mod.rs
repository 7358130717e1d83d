//! The server's driver: one mio poll loop around the [`Engine`]. It owns sockets and clock, and holds no policy.

mod handle;
mod linger;
mod listener;
mod report;
mod sleep;
mod sockets;
mod traffic;
mod turn;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Poll, Token, Waker};

pub use handle::Handle;

use crate::config::Config;
use crate::engine::{Context, Engine, Stats};
use crate::error::{ConfigError, Error};
use crate::net::{self, MonotonicClock, SocketOptions};
use crate::time::{AwakeClock, Millis, duration_to_ms};
use handle::Commands;
use linger::Lingering;
use listener::Listeners;
use report::Report;
use sleep::Sleep;
use sockets::{ReadySet, Sockets};
use turn::EVENTS_PER_TURN;

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
/// Tokens from here up to the alarm's are listeners'. No connection's token comes near (see `ConnId::MAX_SLOTS`).
const FIRST_LISTENER: usize = ALARM.0 - 64;
const MAX_LISTENERS: usize = 64;
/// Tokens from here up to the first listener's are guests': what else the binary watches on the same loop.
const FIRST_GUEST: usize = FIRST_LISTENER - 1024;

/// Size of the one buffer that all connections are read into.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Descriptors that are not connections: poll, waker, spare, listeners, standard streams, a log, signals, and some of the embedder's.
const RESERVED_DESCRIPTORS: usize = 32;
/// At most this share of all descriptors lingers.
const LINGER_SHARE: usize = 32;
const MAX_LINGERING: usize = 512;

/// Whether a server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more to do, now or later.
    Running,
    /// A shutdown has ended: no connection is left and nothing will happen any more.
    Finished,
}

/// Very many long-lived TCP connections on the thread that calls [`Server::run`] or [`Server::turn`].
pub struct Server {
    poll: Poll,
    events: Events,
    engine: Engine,
    sockets: Sockets,
    listeners: Listeners,
    lingering: Lingering,
    /// Connections that have, or may have, more to read than their budget allowed.
    ready: ReadySet,
    /// Guests with readiness in the last turn.
    ready_guests: Vec<usize>,
    scratch: Box<[u8]>,
    handle: Handle,
    commands: Commands,
    /// What is in force, but for `max_connections`, which is as it was asked for.
    config: Config,
    /// As many connections as there can be descriptors for.
    most_connections: usize,
    options: SocketOptions,
    report: Report,
    clock: MonotonicClock,
    /// The clock's last reading, from which `now` was made.
    reading: Duration,
    sleep: Sleep,
    awake: AwakeClock,
    now: Millis,
    /// Sockets and units of work since the clock was read.
    since_clock: u32,
    /// When the turn began, by the clock of `reading`.
    turn_began: Duration,
    /// The last poll filled its batch, so the kernel may hold more events: an outer poll would not say so again.
    more_events: bool,
    finished: bool,
    /// A turn has begun and not ended.
    in_turn: bool,
}

impl Server {
    /// Listens on every address that `addrs` resolves to, with port 0 for a free port, and raises the soft limit on descriptors to the hard
    /// one (setrlimit(2)). Nobody is accepted before the first turn.
    ///
    /// Fails on a configuration at fault, on an address that does not resolve or cannot be bound, and on more than 64 addresses.
    pub fn bind(addrs: impl ToSocketAddrs, config: Config) -> Result<Self, Error> {
        config.check()?;
        let sockets = listen(addrs, &config, &socket_options(&config))?;
        Server::with(sockets, config)
    }

    /// As [`Server::bind`], but on sockets that listen already, such as those that systemd passes to a service (sd_listen_fds(3)). Their backlog
    /// and address options stay as they are; what concerns connections is set. Whoever else holds such a socket keeps it: a shutdown here
    /// closes no more than our own descriptor, and who dials meanwhile waits for the next to accept.
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
        let descriptors = net::raise_descriptor_limit();
        let max_lingering = (descriptors / LINGER_SHARE).min(MAX_LINGERING);
        let most_connections = descriptors
            .saturating_sub(RESERVED_DESCRIPTORS + max_lingering)
            .max(1);
        let options = socket_options(&config);
        let mut listeners = Listeners::new(sockets);

        let poll = Poll::new().map_err(Error::io("make a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(Error::io("make a waker"))?;
        let sleep = Sleep::register(poll.registry(), ALARM).map_err(Error::io("make a timer"))?;
        listeners.register(poll.registry(), |index| Token(FIRST_LISTENER + index))?;
        let (handle, commands) = handle::channel(waker, config.codec()?);
        let mut engine = Engine::new(&within_descriptors(&config, most_connections))?;
        engine.begin_at(fastrand::u32(..));
        Ok(Server {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            engine,
            awake: AwakeClock::new(stall_ms(&config)),
            sockets: Sockets::default(),
            listeners,
            lingering: Lingering::new(max_lingering),
            ready: ReadySet::default(),
            ready_guests: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            handle,
            commands,
            config,
            most_connections,
            options,
            report: Report::new(),
            clock: MonotonicClock::start(),
            reading: Duration::ZERO,
            sleep,
            now: Millis::ZERO,
            since_clock: 0,
            turn_began: Duration::ZERO,
            more_events: false,
            finished: false,
            in_turn: false,
        })
    }

    /// The addresses listened on, in the order in which they were given; none once a shutdown has begun.
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

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.engine.is_draining()
    }

    /// The server as a handler sees it, between two turns, for those who own the loop. What is sent by it goes out in the next turn, which
    /// [`Server::next_wait`] then says is due at once.
    pub fn context(&mut self) -> Context<'_> {
        self.read_clock(self.due_ms());
        Context {
            engine: &mut self.engine,
        }
    }

    /// Puts other settings in force, for the connections that are open as well; OS keepalive and user timeout, which the kernel keeps for each
    /// connection, for those that come from now on. Nobody is closed by it at once: who is over a bound in number may stay, and who may not
    /// connect any more is not let in again.
    ///
    /// Returns the names of the fields that a live server cannot change and that were meant to: framing, words, tick, backlog, `reuse_port`. They
    /// stay as they are. Fails, and changes nothing, if the rest is at fault.
    pub fn reconfigure(&mut self, mut config: Config) -> Result<Vec<&'static str>, Error> {
        let kept = config.keep_fixed(&self.config);
        config.check()?;
        let options = socket_options(&config);
        self.listeners.apply(&options)?;
        self.read_clock(self.due_ms());
        self.engine.reconfigure(
            self.now,
            &within_descriptors(&config, self.most_connections),
        )?;
        self.awake.set_threshold_ms(stall_ms(&config));
        (self.options, self.config) = (options, config);
        Ok(kept)
    }

    /// How long a shutdown that has begun may still take.
    #[cfg(feature = "cli")]
    pub(crate) fn drain_left(&self) -> Option<Duration> {
        self.engine
            .drain_deadline()
            .map(|end| Duration::from_millis(end.ms_since(self.now)))
    }

    /// What is in force, but for `max_connections`: see [`Context::max_connections`].
    #[cfg(feature = "cli")]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Keeps so many descriptors more from connections, for what the binary opens while the server runs. For the time before the first turn.
    #[cfg(feature = "cli")]
    pub(crate) fn reserve_descriptors(&mut self, number: usize) -> Result<(), Error> {
        self.most_connections = self.most_connections.saturating_sub(number).max(1);
        self.engine.reconfigure(
            self.now,
            &within_descriptors(&self.config, self.most_connections),
        )?;
        Ok(())
    }

    /// Where the binary registers what else it watches on this loop, each under a [`Server::guest_token`] of its own.
    #[cfg(feature = "cli")]
    pub(crate) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// The token of the guest of that index, below 1024.
    #[cfg(feature = "cli")]
    pub(crate) fn guest_token(index: usize) -> Token {
        Token(FIRST_GUEST + index)
    }

    /// The guests that became ready in the last turn.
    #[cfg(feature = "cli")]
    pub(crate) fn ready_guests(&self) -> &[usize] {
        &self.ready_guests
    }
}

/// The descriptor that becomes readable when a turn has something to do, for another poll loop to watch. Do not read from it, and do not
/// close it.
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
    addrs: impl ToSocketAddrs,
    config: &Config,
    options: &SocketOptions,
) -> Result<Vec<TcpListener>, Error> {
    let addrs: Vec<SocketAddr> = addrs
        .to_socket_addrs()
        .map_err(Error::io("resolve the address to listen on"))?
        .collect();
    check_listeners(addrs.len())?;
    let listen = |addr| {
        net::listen(addr, options, config.backlog, config.reuse_port)
            .map_err(Error::io(format!("listen on {addr}")))
    };
    addrs.into_iter().map(listen).collect()
}

fn check_listeners(number: usize) -> Result<(), ConfigError> {
    if (1..=MAX_LISTENERS).contains(&number) {
        Ok(())
    } else {
        Err(ConfigError::new(
            "addr",
            format!("needs 1 to {MAX_LISTENERS} addresses, not {number}"),
        ))
    }
}

/// A longer gap than this is a stall. Without a heartbeat there is no verdict that one could forge.
fn stall_ms(config: &Config) -> u64 {
    config
        .heartbeat
        .as_ref()
        .map_or(u64::MAX, |heartbeat| duration_to_ms(heartbeat.interval) / 2)
}

fn socket_options(config: &Config) -> SocketOptions {
    SocketOptions {
        keepalive: config.keepalive.clone(),
        user_timeout: config.user_timeout,
    }
}

/// The same configuration with no more connections than there can be descriptors for.
fn within_descriptors(config: &Config, most: usize) -> Config {
    let wanted = config.limits.max_connections.unwrap_or(most);
    if wanted > most {
        log::warn!(
            "max-connections wanted={wanted} lowered_to={most} reason=\"the descriptor limit leaves no more (ulimit -Hn)\""
        );
    }
    let mut within = config.clone();
    within.limits.max_connections = Some(wanted.min(most));
    within
}
