//! The server at one instant, as the endpoint shows it.

use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::process::{Process, Usage};
use crate::close::{CloseReason, RejectReason};
use crate::config::Heartbeat;
use crate::engine::{Histogram, Stats};
use crate::framing::Framing;
use crate::server::Server;

/// What does not change while the server runs.
pub(super) struct Identity {
    app: String,
    started: SystemTime,
    since: Instant,
    process: Process,
}

impl Identity {
    pub(super) fn new(app: String) -> Self {
        Identity {
            app,
            started: SystemTime::now(),
            since: Instant::now(),
            process: Process::read(),
        }
    }

    /// Seconds of the Unix clock.
    pub(super) fn started_s(&self) -> f64 {
        self.started
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
    }

    /// `admin_connections`: those of this endpoint.
    pub(super) fn usage(&self, server: &Server, admin_connections: usize) -> Usage {
        self.process.usage(server.connections() + admin_connections)
    }
}

#[derive(Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    pid: u32,
    app: &'a str,
    framing: &'static str,
    listening: Vec<String>,
    started: String,
    uptime_s: f64,
    draining: bool,
    heartbeat_s: Option<f64>,
    missed: Option<u8>,
    bound_s: Option<f64>,
    connections: Connections,
    #[serde(serialize_with = "closed")]
    closed: &'a Stats,
    #[serde(serialize_with = "refused")]
    refused: &'a Stats,
    bytes: Flow,
    messages: Messages,
    heartbeats: Heartbeats,
    #[serde(serialize_with = "histogram")]
    round_trip: &'a Histogram,
    #[serde(serialize_with = "histogram")]
    overshoot: &'a Histogram,
    #[serde(serialize_with = "histogram")]
    lag: &'a Histogram,
    #[serde(serialize_with = "histogram")]
    turn: &'a Histogram,
    yields: u64,
    throttled: u64,
    rate_limited: u64,
    stalls: u64,
    stalled_s: f64,
    buffered_bytes: usize,
    max_buffered_bytes: Option<usize>,
    process: Usage,
}

#[derive(Serialize)]
struct Connections {
    open: usize,
    max: usize,
    opened: u64,
}

#[derive(Serialize)]
struct Flow {
    r#in: u64,
    out: u64,
}

#[derive(Serialize)]
struct Messages {
    r#in: u64,
    out: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct Heartbeats {
    pings_out: u64,
    pongs_in: u64,
    pings_in: u64,
}

impl<'a> Status<'a> {
    pub(super) fn of(
        server: &'a mut Server,
        identity: &'a Identity,
        admin_connections: usize,
    ) -> Self {
        let cx = server.context();
        let (draining, max, buffered_bytes) =
            (cx.is_draining(), cx.max_connections(), cx.buffered());
        let (server, config) = (&*server, server.config());
        let (stats, heartbeat) = (server.stats(), config.heartbeat.as_ref());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            app: &identity.app,
            framing: framing(config.framing),
            listening: server
                .local_addrs()
                .iter()
                .map(ToString::to_string)
                .collect(),
            started: humantime::format_rfc3339_millis(identity.started).to_string(),
            uptime_s: identity.since.elapsed().as_secs_f64(),
            draining,
            heartbeat_s: heartbeat.map(|heartbeat| heartbeat.interval.as_secs_f64()),
            missed: heartbeat.map(|heartbeat| heartbeat.max_missed),
            bound_s: bound(server).map(|bound| bound.as_secs_f64()),
            connections: Connections {
                open: server.connections(),
                max,
                opened: stats.opened,
            },
            closed: stats,
            refused: stats,
            bytes: Flow {
                r#in: stats.bytes_in,
                out: stats.bytes_out,
            },
            messages: Messages {
                r#in: stats.messages_in,
                out: stats.messages_out,
                dropped: stats.messages_dropped,
            },
            heartbeats: Heartbeats {
                pings_out: stats.pings_out,
                pongs_in: stats.pongs_in,
                pings_in: stats.pings_in,
            },
            round_trip: &stats.round_trip,
            overshoot: &stats.overshoot,
            lag: &stats.lag,
            turn: &stats.turn,
            yields: stats.yields,
            throttled: stats.throttled,
            rate_limited: stats.rate_limited,
            stalls: stats.stalls,
            stalled_s: stats.stalled_ms as f64 / 1e3,
            buffered_bytes,
            max_buffered_bytes: config.limits.max_memory,
            process: identity.usage(server, admin_connections),
        }
    }
}

/// How long a peer may be silent.
pub(super) fn bound(server: &Server) -> Option<Duration> {
    server.config().heartbeat.as_ref().map(Heartbeat::timeout)
}

fn framing(framing: Framing) -> &'static str {
    match framing {
        Framing::Lines => "lines",
        Framing::Length => "length",
        Framing::Raw => "raw",
    }
}

fn closed<S: Serializer>(stats: &Stats, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        CloseReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), stats.closed(*reason))),
    )
}

fn refused<S: Serializer>(stats: &Stats, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        RejectReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), stats.refused(*reason))),
    )
}

fn histogram<S: Serializer>(histogram: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct View {
        count: u64,
        sum_s: f64,
        max_s: f64,
        buckets: Vec<(f64, u64)>,
    }
    let view = View {
        count: histogram.count(),
        sum_s: histogram.sum().as_secs_f64(),
        max_s: histogram.max().as_secs_f64(),
        buckets: histogram
            .cumulated()
            .map(|(bound, count)| (bound.as_secs_f64(), count))
            .collect(),
    };
    view.serialize(serializer)
}
