//! The counters in Prometheus' text format, version 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{Display, Write};

use super::http::CODES;
use super::status::{self, ProcessIdentity};
use crate::close::{CloseReason, RejectReason};
use crate::engine::Histogram;
use crate::logging;
use crate::server::Server;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What this endpoint has done itself.
#[derive(Default)]
pub(super) struct Requests {
    /// Answers, by the position of their code in [`CODES`].
    by_code: [u64; CODES.len()],
}

impl Requests {
    pub(super) fn count(&mut self, code: u16) {
        if let Ok(index) = CODES.binary_search(&code) {
            self.by_code[index] += 1;
        }
    }

    fn by_code(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        CODES
            .iter()
            .copied()
            .zip(self.by_code)
            .filter(|(_, count)| *count > 0)
    }
}

pub(super) fn render(
    server: &mut Server,
    identity: &ProcessIdentity,
    requests: &Requests,
    admin_connections: usize,
) -> String {
    let cx = server.context();
    let (draining, max, buffered) = (cx.is_draining(), cx.max_connections(), cx.buffered());
    let server = &*server;
    let stats = server.stats();
    let mut text = MetricsText::default();

    text.one(
        "heartline_build_info",
        "gauge",
        "The version of this server.",
        [("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    text.plain(
        "heartline_connections",
        "gauge",
        "Connections open now.",
        server.connections(),
    );
    text.plain(
        "heartline_connections_max",
        "gauge",
        "Most connections at once.",
        max,
    );
    text.plain(
        "heartline_connections_opened_total",
        "counter",
        "Connections opened.",
        stats.opened,
    );
    text.family(
        "heartline_connections_closed_total",
        "counter",
        "Connections closed, by reason.",
    );
    for reason in CloseReason::ALL {
        text.sample(
            "heartline_connections_closed_total",
            [("reason", reason.as_str())],
            stats.closed(*reason),
        );
    }
    text.family(
        "heartline_connections_refused_total",
        "counter",
        "Connections refused, by cause.",
    );
    for cause in RejectReason::ALL {
        text.sample(
            "heartline_connections_refused_total",
            [("cause", cause.as_str())],
            stats.refused(*cause),
        );
    }
    let logins = status::logins(server);
    text.plain(
        "heartline_names",
        "gauge",
        "Different names of open connections.",
        logins.names,
    );
    text.plain(
        "heartline_groups",
        "gauge",
        "Groups with members.",
        logins.groups,
    );
    text.plain(
        "heartline_group_memberships",
        "gauge",
        "Members of all groups together.",
        logins.memberships,
    );
    text.plain(
        "heartline_logins_pending",
        "gauge",
        "Logins that wait for a decision.",
        logins.pending,
    );
    text.plain(
        "heartline_logins_accepted_total",
        "counter",
        "Logins accepted.",
        logins.accepted,
    );
    text.family(
        "heartline_logins_denied_total",
        "counter",
        "Logins denied, by reason.",
    );
    for (reason, denied) in &logins.denied {
        text.sample(
            "heartline_logins_denied_total",
            [("reason", reason.as_str())],
            *denied,
        );
    }
    text.plain(
        "heartline_received_bytes_total",
        "counter",
        "Bytes received from peers.",
        stats.bytes_in,
    );
    text.plain(
        "heartline_sent_bytes_total",
        "counter",
        "Bytes that the kernel has taken for peers.",
        stats.bytes_out,
    );
    text.plain(
        "heartline_messages_received_total",
        "counter",
        "Messages received, heartbeats not counted.",
        stats.messages_received,
    );
    text.plain(
        "heartline_messages_queued_total",
        "counter",
        "Messages queued for peers, once per receiver.",
        stats.messages_queued,
    );
    text.plain(
        "heartline_messages_dropped_total",
        "counter",
        "Messages dropped because a queue was full.",
        stats.messages_dropped,
    );
    text.plain(
        "heartline_pings_sent_total",
        "counter",
        "Pings sent to quiet peers.",
        stats.pings_sent,
    );
    text.plain(
        "heartline_pings_received_total",
        "counter",
        "Pings received.",
        stats.pings_received,
    );
    text.plain(
        "heartline_pongs_received_total",
        "counter",
        "Pongs received.",
        stats.pongs_received,
    );
    text.histogram(
        "heartline_heartbeat_round_trip_seconds",
        "From a ping to the next sign of life of its peer.",
        &stats.round_trip,
    );
    text.histogram(
        "heartline_eviction_overshoot_seconds",
        "Delay of heartbeat timeouts past their deadline.",
        &stats.overshoot,
    );
    text.histogram(
        "heartline_loop_lag_seconds",
        "Delay of due timers.",
        &stats.lag,
    );
    text.histogram(
        "heartline_turn_seconds",
        "Duration of turns of the loop, without their wait.",
        &stats.turn,
    );
    text.plain(
        "heartline_buffered_bytes",
        "gauge",
        "Bytes held in queues and unfinished messages.",
        buffered,
    );
    if let Some(max) = server.config().limits.max_memory {
        text.plain(
            "heartline_buffered_bytes_max",
            "gauge",
            "Most bytes held for all peers together.",
            max,
        );
    }
    text.plain(
        "heartline_yields_total",
        "counter",
        "Times that a budget of the loop ran out.",
        stats.yields,
    );
    text.plain(
        "heartline_throttled_total",
        "counter",
        "Times that reading from a peer stopped because it did not read itself.",
        stats.throttled,
    );
    text.plain(
        "heartline_rate_limited_total",
        "counter",
        "Times that reading from a peer stopped because of its message rate.",
        stats.rate_limited,
    );
    text.plain(
        "heartline_stalls_total",
        "counter",
        "Stalls: spells in which this process did not run.",
        stats.stalls,
    );
    text.plain(
        "heartline_stalled_seconds_total",
        "counter",
        "Total length of stalls.",
        stats.stalled_ms as f64 / 1e3,
    );
    text.plain(
        "heartline_log_lines_dropped_total",
        "counter",
        "Log lines dropped because the log's reader stood still.",
        logging::dropped(),
    );
    text.plain(
        "heartline_draining",
        "gauge",
        "Whether a shutdown has begun.",
        u8::from(draining),
    );
    if let Some(bound) = status::bound(server) {
        text.plain(
            "heartline_heartbeat_bound_seconds",
            "gauge",
            "How long a peer may be silent.",
            bound.as_secs_f64(),
        );
    }
    text.plain(
        "heartline_admin_connections",
        "gauge",
        "Connections of this endpoint.",
        admin_connections,
    );
    text.family(
        "heartline_admin_requests_total",
        "counter",
        "Requests answered by this endpoint, by code.",
    );
    for (code, count) in requests.by_code() {
        text.sample("heartline_admin_requests_total", [("code", code)], count);
    }

    let usage = identity.usage(server, admin_connections);
    text.plain(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        usage.resident_bytes,
    );
    text.plain(
        "process_open_fds",
        "gauge",
        "Number of open file descriptors.",
        usage.descriptors,
    );
    text.plain(
        "process_max_fds",
        "gauge",
        "Maximum number of open file descriptors.",
        usage.max_descriptors,
    );
    text.plain(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        usage.cpu_s,
    );
    text.plain(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since the Unix epoch in seconds.",
        identity.started_s(),
    );
    text.0
}

/// The text, family by family. Writing to memory does not fail, and no label here needs escaping.
#[derive(Default)]
struct MetricsText(String);

impl MetricsText {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample<V: Display>(
        &mut self,
        name: &str,
        [(label, value)]: [(&str, V); 1],
        figure: impl Display,
    ) {
        let _ = writeln!(self.0, "{name}{{{label}=\"{value}\"}} {figure}");
    }

    fn one(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: [(&str, &str); 1],
        figure: impl Display,
    ) {
        self.family(name, kind, help);
        self.sample(name, label, figure);
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, figure: impl Display) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {figure}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulated() {
            self.sample(&bucket, [("le", bound.as_secs_f64())], count);
        }
        self.sample(&bucket, [("le", "+Inf")], histogram.count());
        let _ = write!(
            self.0,
            "{name}_sum {}\n{name}_count {}\n",
            histogram.sum().as_secs_f64(),
            histogram.count()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Limits};

    fn rendered(config: Config) -> String {
        let mut server = Server::bind("127.0.0.1:0", config).expect("a free port");
        let mut requests = Requests::default();
        requests.count(200);
        render(
            &mut server,
            &ProcessIdentity::new("echo".into()),
            &requests,
            3,
        )
    }

    #[test]
    fn metric_samples_follow_their_family_and_are_unique() {
        let text = rendered(Config::default());
        let (mut family, mut kind, mut families, mut samples) =
            ("", "", BTreeSet::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                (family, _) = rest.split_once(' ').expect("a help text");
                assert!(families.insert(family), "{family} comes twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').expect("a type");
                assert_eq!(name, family);
                kind = of;
            } else {
                let (name, figure) = line.rsplit_once(' ').expect("a figure");
                assert!(figure.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(name, figure).is_none(), "{name} comes twice");
                let base = name.split('{').next().expect("a name");
                let suffix = base
                    .strip_prefix(family)
                    .unwrap_or_else(|| panic!("{line} under {family}"));
                assert_eq!(
                    matches!(suffix, "_bucket" | "_sum" | "_count"),
                    kind == "histogram",
                    "{line}"
                );
                assert_eq!(base.ends_with("_total"), kind == "counter", "{line}");
            }
        }
        assert_eq!(samples["heartline_heartbeat_bound_seconds"], "20");
        assert_eq!(samples["heartline_admin_connections"], "3");
        assert_eq!(samples["heartline_admin_requests_total{code=\"200\"}"], "1");
        assert_eq!(
            samples["heartline_connections_closed_total{reason=\"heartbeat-timeout\"}"],
            "0"
        );
    }

    #[test]
    fn bounds_that_are_off_are_absent() {
        let limits = Limits {
            max_memory: None,
            ..Limits::default()
        };
        let text = rendered(Config {
            heartbeat: None,
            limits,
            ..Config::default()
        });
        assert!(
            !text.contains("heartline_heartbeat_bound_seconds")
                && !text.contains("heartline_buffered_bytes_max"),
            "{text}"
        );
        assert!(text.contains("\nheartline_buffered_bytes 0\n"));
    }

    #[test]
    fn histogram_is_cumulative_in_seconds_and_ends_with_inf() {
        let mut histogram = Histogram::default();
        for ms in [1, 3, 20_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut text = MetricsText::default();
        text.histogram("h", "Of a test.", &histogram);
        assert!(
            text.0.starts_with(
                "# HELP h Of a test.\n# TYPE h histogram\nh_bucket{le=\"0.00001\"} 0\n"
            ),
            "{}",
            text.0
        );
        assert!(
            text.0.contains(
                "h_bucket{le=\"0.001\"} 1\nh_bucket{le=\"0.002\"} 1\nh_bucket{le=\"0.005\"} 2\n"
            ),
            "{}",
            text.0
        );
        assert!(
            text.0.ends_with(
                "h_bucket{le=\"10\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 20.004\nh_count 3\n"
            ),
            "{}",
            text.0
        );
    }
}
