//! `heartline serve`.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::apps::App;
use super::args::{FramingArgs, HeartbeatArgs, LogArgs, LogLevel, OsTimeoutArgs};
use super::values::{Size, duration};
use super::{logging, status};
use crate::close::CloseReason;
use crate::config::{Config, Limits};
use crate::engine::Stats;
use crate::error::{ConfigError, Error};
use crate::framing::HeartbeatWords;
use crate::server::{Handle, Server};

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
    obey_signals(server.handle(), args.drain)?;
    announce(&server.local_addrs());
    server.run(&mut app)?;
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

/// The first SIGTERM or SIGINT begins the drain, the second ends the process. A thread of its own waits for them, so that the second is
/// obeyed whatever the loop is doing.
fn obey_signals(server: Handle, drain: Duration) -> Result<(), Error> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::io("watch for signals"))?;
    let watch = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            server.shutdown(drain);
        }
        if let Some(signal) = signals.next() {
            status("ended by a second signal");
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map_err(Error::io("start a thread"))?;
    Ok(())
}
