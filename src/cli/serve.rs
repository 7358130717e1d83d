//! `heartline serve`.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use mio::Interest;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook_mio::v1_0::Signals;

use super::apps::App;
use super::args::{FramingArgs, HeartbeatArgs, LogArgs, LogLevel, OsTimeoutArgs};
use super::logging;
use super::values::{DurationOrOff, Size, duration};
use crate::close::CloseReason;
use crate::config::{Config, Limits};
use crate::engine::Stats;
use crate::error::{ConfigError, Error};
use crate::framing::HeartbeatWords;
use crate::server::{Server, Turn};

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Addresses to listen on, as HOST:PORT; port 0 picks a free one
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7878")]
    addrs: Vec<String>,
    /// What is done with messages
    #[arg(long, value_enum, default_value = "echo")]
    app: App,
    #[command(flatten)]
    framing: FramingArgs,
    #[command(flatten)]
    heartbeat: HeartbeatArgs,
    /// Never push pings: a peer must speak by itself within heartbeat * (missed + 1)
    #[arg(long, help_heading = "Liveness")]
    no_ping: bool,
    /// Resolution of the timers; a verdict comes at most one tick late
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, help_heading = "Liveness")]
    tick: Duration,
    #[command(flatten)]
    os_timeouts: OsTimeoutArgs,
    /// Most connections at once [default: as many as the descriptor limit allows]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    max_connections: Option<usize>,
    /// Most connections at once from one IP address; 0 means no bound
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Bounds")]
    max_connections_per_ip: usize,
    /// Most bytes queued for one peer; from half of it on the peer is not read, and what would pass it ends the connection
    #[arg(long, value_name = "SIZE", default_value = "1MiB", help_heading = "Bounds")]
    max_outbox: Size,
    /// How long a peer may read nothing while something waits for it, or off
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Bounds")]
    write_timeout: DurationOrOff,
    /// How long a message may take from its first byte to its last, or off
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Bounds")]
    frame_timeout: DurationOrOff,
    /// How long a connection may be without its first message or heartbeat, or off
    #[arg(long, value_name = "TIME", default_value = "off", help_heading = "Bounds")]
    first_message_timeout: DurationOrOff,
    /// Most messages that one peer may send per second; who sends faster is not read from, and closed after ten seconds of it
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    max_message_rate: Option<NonZeroU32>,
    /// Connections that the kernel may hold ready to be accepted; somaxconn caps it
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Listening")]
    backlog: u32,
    /// Let several processes listen on one address, and the kernel spread connections over them
    #[arg(long, help_heading = "Listening")]
    reuse_port: bool,
    /// On SIGTERM or SIGINT: how long to take over closing the connections; a second signal ends at once
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Listening")]
    drain: Duration,
    #[command(flatten)]
    log: LogArgs,
}

impl ServeArgs {
    pub(super) fn config(&self) -> Config {
        Config {
            framing: self.framing.framing(),
            words: HeartbeatWords::default(),
            heartbeat: self.heartbeat.heartbeat(!self.no_ping),
            keepalive: self.os_timeouts.keepalive(),
            user_timeout: self.os_timeouts.user_timeout(),
            limits: Limits {
                max_message: self.framing.max_message(),
                max_outbox: self.max_outbox.0,
                write_timeout: self.write_timeout.0,
                frame_timeout: self.frame_timeout.0,
                first_message_timeout: self.first_message_timeout.0,
                max_message_rate: self.max_message_rate,
                max_connections: self.max_connections,
                max_connections_per_ip: self.max_connections_per_ip,
            },
            tick: self.tick,
            backlog: self.backlog,
            reuse_port: self.reuse_port,
        }
    }
}

/// Serves until a signal ends it. Only the addresses listened on go to stdout, one `listening ADDR` per line.
pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, Error> {
    logging::start(&args.log, LogLevel::Info)?;
    let config = args.config();
    let notes = config.notes();
    let mut app = args.app;
    let mut server = Server::bind(&resolve(&args.addrs)?[..], config)?;
    for note in notes {
        log::warn!("config note=\"{note}\"");
    }
    let mut termination = Termination::watch(&server)?;
    announce(&server.local_addrs());
    while server.turn(&mut app, None)? == Turn::Running {
        if termination.has_come(&server) {
            server.handle().shutdown(args.drain);
        }
    }
    log_end(server.stats());
    Ok(ExitCode::SUCCESS)
}

fn log_end(stats: &Stats) {
    log::info!(
        "finished opened={} closed={} heartbeat_lost={} worst_overshoot_ms={} stalls={} stalled_ms={}",
        stats.opened,
        stats.closed_in_all(),
        stats.closed(CloseReason::HeartbeatLost),
        stats.worst_overshoot_ms,
        stats.stalls,
        stats.stalled_ms,
    );
}

fn resolve(addrs: &[String]) -> Result<Vec<SocketAddr>, Error> {
    let mut resolved = Vec::new();
    for addr in addrs {
        let found = addr.to_socket_addrs().map_err(|error| ConfigError::new("addr", format!("{addr}: {error}")))?;
        resolved.extend(found);
    }
    Ok(resolved)
}

fn announce(addrs: &[SocketAddr]) {
    // Who starts a server with its stdout closed does not want to know.
    let mut stdout = std::io::stdout().lock();
    for addr in addrs {
        let _ = writeln!(stdout, "listening {addr}");
        log::info!("listening addr={addr}");
    }
    let _ = stdout.flush();
}

/// Readiness of the signals.
const SIGNALS: usize = 0;

/// SIGTERM and SIGINT. They are waited for on the server's own loop: a thread of their own would cost every system call of the server, as the
/// kernel and the C library take care of threads where there are several.
struct Termination(Signals);

impl Termination {
    fn watch(server: &Server) -> Result<Self, Error> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the first signal must find it false. The second ends the process whatever the loop is doing.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
            flag::register(signal, Arc::clone(&seen)).map_err(Error::io(WATCH_SIGNALS))?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::io(WATCH_SIGNALS))?;
        server.registry().register(&mut signals, Server::guest_token(SIGNALS), Interest::READABLE).map_err(Error::io(WATCH_SIGNALS))?;
        Ok(Termination(signals))
    }

    fn has_come(&mut self, server: &Server) -> bool {
        server.ready_guests().contains(&SIGNALS) && self.0.pending().next().is_some()
    }
}

const WATCH_SIGNALS: &str = "watch for signals";
