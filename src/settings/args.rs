//! The flags of `heartline serve`, and the configuration made from them.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::login::LoginArgs;
use crate::access_list::{AccessList, Network};
use crate::admin::server::AdminArgs;
use crate::apps::App;
use crate::args::values::{DurationOrOff, Size, SizeOrOff, duration};
use crate::args::{FramingArgs, HeartbeatArgs, LogArgs, OsTimeoutArgs};
use crate::config::{Config, Heartbeat, Limits, OnFull, OnSlow};
use crate::framing::HeartbeatWords;

/// A switch may have a value, so that a flag can turn off what file or environment have turned on.
const SWITCH: &str = "true|false";

/// What `heartline serve` takes: where its settings are, and the settings.
#[derive(Args, Debug)]
#[command(
    after_help = "Every flag can also be set as an environment variable, as \
                  HEARTLINE_MAX_CONNECTIONS=20000, and in the file of --config, as \
                  max-connections = 20000. Flags override the environment, which overrides the \
                  file. SIGHUP reads all of them again."
)]
pub(crate) struct Options {
    /// Read settings from this file, in TOML: each flag under its name, without its hyphens
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,
    /// Do not serve: check the settings, and print each with its source
    #[arg(long, help_heading = "Settings")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Addresses to listen on, as HOST:PORT; port 0 picks a free one, and [::]:PORT is IPv6 only.
    /// Sockets passed in LISTEN_FDS (systemd) take their place
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7878")]
    pub(crate) addrs: Vec<String>,
    /// What the server does with messages
    #[arg(long, value_enum, default_value = "echo")]
    pub(crate) app: App,
    #[command(flatten)]
    framing: FramingArgs,
    #[command(flatten)]
    heartbeat: HeartbeatArgs,
    /// Send no pings: a peer must send something itself within heartbeat + retry * missed
    #[arg(long, help_heading = "Liveness", value_name = SWITCH, action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(
        default_value_t = false,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    no_ping: bool,
    /// Resolution of the timers; a dead peer is closed at most one tick late
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration, help_heading = "Liveness")]
    tick: Duration,
    /// Shortest heartbeat that a peer is granted when it asks for one of its own
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = duration,
        help_heading = "Liveness"
    )]
    beat_min: Duration,
    /// Longest heartbeat that a peer is granted
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10m",
        value_parser = duration,
        help_heading = "Liveness"
    )]
    beat_max: Duration,
    #[command(flatten)]
    os_timeouts: OsTimeoutArgs,
    /// Most connections at once [default: as many as the descriptor limit allows]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    max_connections: Option<usize>,
    /// Most connections at once from one IP address; 0 means no bound
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Bounds")]
    max_connections_per_ip: usize,
    /// Leading bits of an IPv6 address that count as one address there
    #[arg(long, value_name = "BITS", default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=128), help_heading = "Bounds")]
    per_ip_prefix_v6: u8,
    /// What happens to a new connection at --max-connections
    #[arg(long, value_enum, default_value = "refuse", help_heading = "Bounds")]
    on_full: OnFullArg,
    /// Most bytes queued for one peer; above half of it the peer is not read, and a message beyond
    /// it closes the connection
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        help_heading = "Bounds"
    )]
    max_outbox: Size,
    /// What happens when a message of other peers would exceed it
    #[arg(long, value_enum, default_value = "close", help_heading = "Bounds")]
    on_slow: OnSlowArg,
    /// Most bytes in all buffers together, or off; at it the largest holders are closed
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256MiB",
        help_heading = "Bounds"
    )]
    max_memory: SizeOrOff,
    /// How long a peer may read nothing while bytes are queued for it, or off
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        help_heading = "Bounds"
    )]
    write_timeout: DurationOrOff,
    /// How long a message may take from its first byte to its last, or off
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        help_heading = "Bounds"
    )]
    frame_timeout: DurationOrOff,
    /// How long a connection may be without its first message or heartbeat, or off
    #[arg(
        long,
        value_name = "TIME",
        default_value = "off",
        help_heading = "Bounds"
    )]
    first_message_timeout: DurationOrOff,
    /// Most messages per second from one peer; a faster peer is paused, and closed after ten
    /// seconds
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    max_message_rate: Option<NonZeroU32>,
    /// Networks that may connect, as 10.0.0.0/8 or an address, separated by commas; 0.0.0.0/0 is
    /// all of IPv4 [default: all]
    #[arg(
        long,
        value_name = "NET",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    allow: Vec<Network>,
    /// Networks that may not connect, even if they are allowed
    #[arg(
        long,
        value_name = "NET",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    deny: Vec<Network>,
    /// Balancers: their connections begin with a PROXY protocol header (v1 or v2) with the address
    /// of the peer
    #[arg(
        long,
        value_name = "NET",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    proxy_protocol: Vec<Network>,
    #[command(flatten)]
    pub(crate) login: Box<LoginArgs>,
    /// Connections that the kernel may hold ready to be accepted; somaxconn caps it
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4096,
        help_heading = "Listening"
    )]
    backlog: u32,
    /// Let several processes listen on one address; the kernel spreads connections over them
    #[arg(long, help_heading = "Listening", value_name = SWITCH, action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(
        default_value_t = false,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    reuse_port: bool,
    /// On SIGTERM or SIGINT: how long to take over closing the connections; a second signal ends at
    /// once
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Listening")]
    pub(crate) drain: Duration,
    /// On SIGTERM or SIGINT: the last message to each peer before it is closed
    #[arg(long, value_name = "TEXT", help_heading = "Listening")]
    goodbye: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnFullArg {
    /// It is closed at once
    Refuse,
    /// It replaces the connection that has been silent for longest
    EvictIdlest,
}

impl From<OnFullArg> for OnFull {
    fn from(arg: OnFullArg) -> Self {
        match arg {
            OnFullArg::Refuse => OnFull::Refuse,
            OnFullArg::EvictIdlest => OnFull::EvictIdlest,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnSlowArg {
    /// The peer is closed as a slow reader
    Close,
    /// The message is dropped
    Drop,
}

impl From<OnSlowArg> for OnSlow {
    fn from(arg: OnSlowArg) -> Self {
        match arg {
            OnSlowArg::Close => OnSlow::Close,
            OnSlowArg::Drop => OnSlow::Drop,
        }
    }
}

impl ServeArgs {
    fn heartbeat(&self) -> Option<Heartbeat> {
        let heartbeat = self.heartbeat.heartbeat(!self.no_ping)?;
        Some(Heartbeat {
            beat_min: self.beat_min,
            beat_max: self.beat_max,
            ..heartbeat
        })
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            framing: self.framing.framing(),
            words: HeartbeatWords::default(),
            heartbeat: self.heartbeat(),
            keepalive: self.os_timeouts.keepalive(),
            user_timeout: self.os_timeouts.user_timeout(),
            limits: Limits {
                max_message: self.framing.max_message(),
                max_outbox: self.max_outbox.0,
                on_slow: self.on_slow.into(),
                max_memory: self.max_memory.0,
                write_timeout: self.write_timeout.0,
                frame_timeout: self.frame_timeout.0,
                first_message_timeout: self.first_message_timeout.0,
                max_message_rate: self.max_message_rate,
                max_connections: self.max_connections,
                max_connections_per_ip: self.max_connections_per_ip,
                per_ip_prefix_v6: self.per_ip_prefix_v6,
                on_full: self.on_full.into(),
            },
            login: self.login.login(),
            access: AccessList {
                allow: self.allow.iter().copied().collect(),
                deny: self.deny.iter().copied().collect(),
            },
            proxies: self.proxy_protocol.iter().copied().collect(),
            tick: self.tick,
            backlog: self.backlog,
            goodbye: self.goodbye.clone().map(String::into_bytes),
            reuse_port: self.reuse_port,
        }
    }
}
