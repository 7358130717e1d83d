//! The flags of `heartline bench`.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::server::ServerArgs;
use super::values::{EscapedText, Expect, PingAnswerOrOff, Ramp, Sources};
use crate::args::values::{DurationOrOff, Size, duration};
use crate::error::{ConfigError, Error};
use crate::net::HostPort;

#[derive(Subcommand, Debug)]
pub(super) enum BenchCommand {
    /// How many connections can be held, and what each costs
    Hold(HoldArgs),
    /// Closed loop: the next message leaves when a reply arrives; throughput and latency
    Echo(EchoArgs),
    /// Open loop: heartbeats at fixed instants, whatever the server does; latency
    Beat(BeatArgs),
    /// One ping on all connections at once: time to the last answer
    Storm(StormArgs),
    /// Fan-out: one connection sends, all others listen; first to last arrival
    Push(PushArgs),
    /// Connections fall silent without closing: when is each of them closed
    Dead(DeadArgs),
    /// Run a plan from stdin
    #[command(hide = true)]
    Worker,
    /// `heartline serve` that ends with its stdin
    #[command(hide = true)]
    Server(ServerArgs),
}

#[derive(Args, Debug)]
pub(super) struct CommonArgs {
    /// The server, as HOST:PORT [default: a heartline of its own, in a child process]
    #[arg(value_name = "ADDR")]
    pub(super) addr: Option<String>,
    /// After `--`: options of `heartline serve`, for the server of its own
    #[arg(last = true, value_name = "SERVE-OPTIONS", conflicts_with = "addr")]
    pub(super) serve: Vec<String>,
    /// Connections opened per second, as 5000/s, or max [default: 5000/s, for storm max]
    #[arg(long, value_name = "RATE")]
    pub(super) ramp: Option<Ramp>,
    #[command(flatten)]
    pub(super) wire: WireArgs,
    /// Process of the server, for its memory and CPU; once for each if there are several
    #[arg(long, value_name = "PID", help_heading = "Measuring")]
    pub(super) pid: Vec<u32>,
    /// Write all results to this file
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    pub(super) json: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    pub(super) html: Option<PathBuf>,
    /// Seed of all random choices
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "Measuring"
    )]
    pub(super) seed: u64,
    /// Processes that make the load [default: as many as the descriptor limit demands]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Measuring")]
    pub(super) workers: Option<u32>,
    /// Addresses to dial from, one or a range as 127.0.0.2-127.0.0.9 [default: as many of 127.0.0.x
    /// as the ports demand]
    #[arg(long, value_name = "ADDRS", help_heading = "Measuring")]
    pub(super) source: Option<Sources>,
}

/// Set for each flag, because `next_help_heading` would also apply to the flags of the groups that
/// follow.
const WIRE: &str = "What goes over the wire";

#[derive(Args, Debug)]
pub(super) struct WireArgs {
    /// What a connection sends; \r, \n, \t, \0, \\ and \xNN are understood, here and below
    /// [default: ping\n; echo and push: a line of --size bytes]
    #[arg(long, value_name = "TEXT", help_heading = WIRE)]
    pub(super) send: Option<EscapedText>,
    /// When a reply is complete: after N lines (lines:N), or when TEXT has arrived
    #[arg(long, value_name = "lines:N|TEXT", default_value = "lines:1", help_heading = WIRE)]
    pub(super) expect: Expect,
    /// A line that the server may send at any time, and the answer to it, or off [default:
    /// ping\n=pong\n, with --send off]
    #[arg(long, value_name = "ASK=REPLY", help_heading = WIRE)]
    pub(super) answer: Option<PingAnswerOrOff>,
    /// Sent once on each connection when it is established, except push's sender
    #[arg(long, value_name = "TEXT", help_heading = WIRE)]
    pub(super) hello: Option<EscapedText>,
}

#[derive(Args, Debug)]
pub(super) struct HoldArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections to hold
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    pub(super) connections: u32,
    /// How long to hold them
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = above_zero)]
    pub(super) duration: Duration,
    /// Time between two heartbeats of a connection, or off to answer pings only
    #[arg(long, value_name = "TIME", default_value = "off", value_parser = interval_or_off)]
    pub(super) beat: DurationOrOff,
}

#[derive(Args, Debug)]
pub(super) struct EchoArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections that exchange messages
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = connections())]
    pub(super) active: u32,
    /// Further connections that only send heartbeats
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=MAX_CONNECTIONS))]
    pub(super) idle: u32,
    /// Time between two heartbeats of an idle connection, or off
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval_or_off)]
    pub(super) beat: DurationOrOff,
    /// Messages in flight on each active connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) depth: u32,
    /// Length of a message, its line feed included
    #[arg(long, value_name = "SIZE", default_value = "32", conflicts_with = "send", value_parser = message_size)]
    pub(super) size: Size,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = above_zero)]
    pub(super) duration: Duration,
}

#[derive(Args, Debug)]
pub(super) struct BeatArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections that send heartbeats
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    pub(super) connections: u32,
    /// Time between two heartbeats of a connection
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = above_zero)]
    pub(super) beat: Duration,
    /// How long to measure
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = above_zero)]
    pub(super) duration: Duration,
}

#[derive(Args, Debug)]
pub(super) struct StormArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections that ping at once
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = connections())]
    pub(super) connections: u32,
}

#[derive(Args, Debug)]
pub(super) struct PushArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections that listen, beside the one that sends
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = connections())]
    pub(super) connections: u32,
    /// Messages
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) messages: u32,
    /// Time from one message to the next
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = above_zero)]
    pub(super) every: Duration,
    /// Length of a message, its line feed included
    #[arg(long, value_name = "SIZE", default_value = "32", conflicts_with = "send", value_parser = message_size)]
    pub(super) size: Size,
}

#[derive(Args, Debug)]
pub(super) struct DeadArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections that fall silent
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = connections())]
    pub(super) connections: u32,
    /// Connections that keep answering and must not be closed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=MAX_CONNECTIONS))]
    pub(super) alive: u32,
    /// Time between two heartbeats of a live connection, or off to answer pings only
    #[arg(long, value_name = "TIME", default_value = "off", value_parser = interval_or_off)]
    pub(super) beat: DurationOrOff,
    /// How long all of them are live before
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(super) before: Duration,
    /// Silence after which the server closes, and not before [default: the timeout of its own
    /// server]
    #[arg(long, value_name = "TIME", value_parser = above_zero)]
    pub(super) bound: Option<Duration>,
    /// How long to wait for the last of them to be closed [default: half as long again as the
    /// bound, and 5s; without a bound 60s]
    #[arg(long = "for", value_name = "TIME", value_parser = above_zero)]
    pub(super) duration: Option<Duration>,
}

/// More than one machine can hold, and few enough for every sum to fit.
const MAX_CONNECTIONS: i64 = 10_000_000;

fn connections() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=MAX_CONNECTIONS)
}

/// A year: far from where sums of nanoseconds would end.
const MAX_RUN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be above zero".to_string()),
        duration if duration > MAX_RUN => Err("is longer than a year".to_string()),
        duration => Ok(duration),
    }
}

fn interval_or_off(text: &str) -> Result<DurationOrOff, String> {
    if text == "off" {
        Ok(DurationOrOff(None))
    } else {
        above_zero(text).map(|duration| DurationOrOff(Some(duration)))
    }
}

fn message_size(text: &str) -> Result<Size, String> {
    match text.parse()? {
        Size(size @ 1..=0x100_0000) => Ok(Size(size)),
        _ => Err("a message has 1 byte to 16 MiB".to_string()),
    }
}

/// How long an address of a name may take to answer before the next one is tried.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// One address of `addr`: the first that can be connected to, or else the first.
pub(super) fn resolve(addr: &str) -> Result<SocketAddr, Error> {
    let parsed =
        HostPort::parse(addr).map_err(|error| ConfigError::new("addr", error.to_string()))?;
    let addrs = parsed
        .resolve()
        .map_err(Error::io(format!("look up {addr}")))?;
    Ok(first_to_answer(&addrs))
}

/// The first address that accepts a connection, or else the first one. A single address is not
/// tried.
fn first_to_answer(addrs: &[SocketAddr]) -> SocketAddr {
    let answers = |addr: &&SocketAddr| TcpStream::connect_timeout(addr, ANSWER_TIME).is_ok();
    match addrs {
        [only] => *only,
        several => *several.iter().find(answers).unwrap_or(&several[0]),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    #[test]
    fn bench_uses_the_first_address_that_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let live = listener.local_addr().expect("bound");
        let mut dead = live;
        dead.set_ip([127, 0, 0, 2].into());
        assert_eq!(first_to_answer(&[dead, live]), live);
        assert_eq!(first_to_answer(&[live, dead]), live);
        assert_eq!(first_to_answer(&[dead]), dead, "whose error is shown");
    }

    #[test]
    fn help_heading_ends_with_its_group() {
        let hold = HoldArgs::augment_args(Command::new("hold"));
        let under_wire: Vec<&str> = hold
            .get_arguments()
            .filter(|arg| arg.get_help_heading() == Some(WIRE))
            .filter_map(clap::Arg::get_long)
            .collect();
        assert_eq!(under_wire, ["send", "expect", "answer", "hello"]);
    }
}
