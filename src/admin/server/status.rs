//! The server at one instant, as the endpoint shows it.

use std::time::{Duration, Instant, SystemTime};

use super::process::Process;
use crate::admin::api::{
    Bytes, ConnectionCounts, Heartbeats, LoginCounts, Messages, ProcessUsage, Status,
};
use crate::close::{CloseReason, DenyReason, RejectReason};
use crate::config::Heartbeat;
use crate::framing::Framing;
use crate::server::Server;

/// What does not change while the server runs.
pub(super) struct ProcessIdentity {
    app: String,
    started: SystemTime,
    since: Instant,
    process: Process,
}

impl ProcessIdentity {
    pub(super) fn new(app: String) -> Self {
        ProcessIdentity {
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

    /// `admin_connections`: connections of this endpoint.
    pub(super) fn usage(&self, server: &Server, admin_connections: usize) -> ProcessUsage {
        self.process.usage(server.connections() + admin_connections)
    }
}

/// The state of the server in `/status`. `admin_connections`: connections of this endpoint.
pub(super) fn status(
    server: &mut Server,
    identity: &ProcessIdentity,
    admin_connections: usize,
) -> Status {
    let cx = server.context();
    let (draining, max, buffered_bytes) = (cx.is_draining(), cx.max_connections(), cx.buffered());
    let (server, config) = (&*server, server.config());
    let (stats, heartbeat) = (server.stats(), config.heartbeat.as_ref());
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        app: identity.app.clone(),
        framing: framing(config.framing).into(),
        listening: server
            .local_addrs()
            .iter()
            .map(ToString::to_string)
            .collect(),
        started: humantime::format_rfc3339_millis(identity.started).to_string(),
        uptime_s: identity.since.elapsed().as_secs_f64(),
        draining,
        heartbeat_s: heartbeat.map(|heartbeat| heartbeat.interval.as_secs_f64()),
        retry_s: heartbeat.map(|heartbeat| heartbeat.retry().as_secs_f64()),
        missed: heartbeat.map(|heartbeat| heartbeat.max_missed),
        bound_s: bound(server).map(|bound| bound.as_secs_f64()),
        connections: ConnectionCounts {
            open: server.connections() as u64,
            max: max as u64,
            opened: stats.opened,
        },
        closed: CloseReason::ALL
            .iter()
            .map(|reason| (reason.to_string(), stats.closed(*reason)))
            .collect(),
        refused: RejectReason::ALL
            .iter()
            .map(|reason| (reason.to_string(), stats.refused(*reason)))
            .collect(),
        logins: logins(server),
        bytes: Bytes {
            received: stats.bytes_in,
            sent: stats.bytes_out,
        },
        messages: Messages {
            received: stats.messages_received,
            queued: stats.messages_queued,
            dropped: stats.messages_dropped,
        },
        heartbeats: Heartbeats {
            pings_sent: stats.pings_sent,
            pongs_received: stats.pongs_received,
            pings_received: stats.pings_received,
        },
        round_trip: (&stats.round_trip).into(),
        overshoot: (&stats.overshoot).into(),
        lag: (&stats.lag).into(),
        turn: (&stats.turn).into(),
        yields: stats.yields,
        throttled: stats.throttled,
        rate_limited: stats.rate_limited,
        stalls: stats.stalls,
        stalled_s: stats.stalled_ms as f64 / 1e3,
        buffered_bytes: buffered_bytes as u64,
        max_buffered_bytes: config.limits.max_memory.map(|max| max as u64),
        process: identity.usage(server, admin_connections),
    }
}

pub(super) fn logins(server: &Server) -> LoginCounts {
    let (counts, stats) = (server.name_counts(), server.stats());
    LoginCounts {
        names: counts.names as u64,
        groups: counts.groups as u64,
        memberships: counts.memberships as u64,
        accepted: stats.logins,
        pending: counts.pending_logins as u64,
        denied: DenyReason::ALL
            .iter()
            .map(|reason| (reason.to_string(), stats.denied(*reason)))
            .collect(),
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
