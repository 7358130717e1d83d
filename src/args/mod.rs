//! Flags that several subcommands share, and how their values are parsed.

pub(crate) mod token;
pub(crate) mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::Heartbeat;
use crate::framing::Framing;
use crate::keepalive::Keepalive;
use values::{DurationOrOff, OnOff, Size, duration};

#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
pub(crate) struct FramingArgs {
    /// How messages are separated
    #[arg(long, value_enum, default_value = "lines")]
    framing: FramingArg,
    /// Longest message; a longer one ends the connection
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    max_message: Size,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FramingArg {
    /// A line feed ends a message; one carriage return before it is dropped
    Lines,
    /// Four bytes of length, big-endian, then the message
    Length,
    /// Each read is a message
    Raw,
}

impl FramingArgs {
    pub(crate) fn framing(&self) -> Framing {
        match self.framing {
            FramingArg::Lines => Framing::Lines,
            FramingArg::Length => Framing::Length,
            FramingArg::Raw => Framing::Raw,
        }
    }

    pub(crate) fn max_message(&self) -> usize {
        self.max_message.0
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Liveness")]
pub(crate) struct HeartbeatArgs {
    /// Silence after which a ping is sent, or off
    #[arg(long, value_name = "TIME", default_value = "5s")]
    heartbeat: DurationOrOff,
    /// Time that each ping has to be answered [default: as --heartbeat]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    retry: Option<Duration>,
    /// Pings that may go unanswered: a silent peer is closed after heartbeat + retry * missed
    #[arg(long, value_name = "N", default_value_t = 3)]
    missed: u8,
}

impl HeartbeatArgs {
    /// The heartbeat, if it is on. `send_pings`: whether pings are sent.
    pub(crate) fn heartbeat(&self, send_pings: bool) -> Option<Heartbeat> {
        self.heartbeat.0.map(|interval| Heartbeat {
            interval,
            retry: self.retry,
            max_missed: self.missed,
            send_pings,
            ..Heartbeat::default()
        })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Operating system timeouts")]
pub(crate) struct OsTimeoutArgs {
    /// Whether the kernel probes idle connections
    #[arg(long, value_enum, default_value = "on")]
    keepalive: OnOff,
    /// Quiet time before the first probe, in whole seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    keepalive_idle: Duration,
    /// Time between probes, in whole seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    keepalive_interval: Duration,
    /// Unanswered probes after which the kernel closes the connection
    #[arg(long, value_name = "N", default_value_t = 3)]
    keepalive_count: u32,
    /// How long sent data may stay unacknowledged (TCP_USER_TIMEOUT), or off for the kernel's own
    /// timeout
    #[arg(long, value_name = "TIME", default_value = "off")]
    user_timeout: DurationOrOff,
}

impl OsTimeoutArgs {
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        let keepalive = Keepalive {
            idle: self.keepalive_idle,
            interval: self.keepalive_interval,
            count: self.keepalive_count,
        };
        (self.keepalive == OnOff::On).then_some(keepalive)
    }

    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        self.user_timeout.0
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogArgs {
    /// Least severe level that is logged
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// Append logs to this file instead of writing them to stderr
    #[arg(long, value_name = "PATH")]
    pub(crate) log_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
