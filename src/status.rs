//! `heartline status`: how a server is, once, for people and for scripts.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use crate::admin::api::{DurationHistogram, Status};
use crate::admin::client::{AdminClient, AdminClientArgs, AdminError, printable};
use crate::error::Error;
use crate::humanize::{bound, bytes, duration, grouped, span};

/// Exit code for a draining server; 2 means wrong usage.
const DRAINING: u8 = 3;

#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
  0  the server is running
  1  it cannot be reached, or is not heartline
  2  wrong usage
  3  it is draining")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminClientArgs,
    /// The server's own JSON, as of GET /status
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: StatusArgs) -> Result<ExitCode, Error> {
    let client = AdminClient::new(&args.admin)?;
    let (text, server) = match ask(&client) {
        Ok(answer) => answer,
        Err(error) => {
            crate::console::notice(&error.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    let shown = if args.json { text } else { render(&server) };
    crate::console::print(shown.as_bytes())?;
    Ok(if server.draining {
        ExitCode::from(DRAINING)
    } else {
        ExitCode::SUCCESS
    })
}

fn ask(client: &AdminClient) -> Result<(String, Status), AdminError> {
    let text = client.get("/status")?;
    let server = client.understand(&text)?;
    Ok((text, server))
}

fn render(server: &Status) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(server, &mut out);
    out
}

fn write(server: &Status, out: &mut String) -> std::fmt::Result {
    let [version, app, framing, started, listening] = [
        &server.version,
        &server.app,
        &server.framing,
        &server.started,
        &server.listening.join(", "),
    ]
    .map(|text| printable(text));
    writeln!(
        out,
        "heartline {version}, process {}: {app} over {framing} on {listening}",
        server.pid
    )?;
    let state = if server.draining { "DRAINING, " } else { "" };
    writeln!(out, "{state}up {} since {started}", span(server.uptime_s))?;
    writeln!(out)?;
    for (name, value) in facts(server) {
        writeln!(out, "  {name:<14} {value}")?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "  {:<14} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "p50", "p90", "p99", "max", "count"
    )?;
    let rows = [
        ("round trip", &server.round_trip),
        ("overshoot", &server.overshoot),
        ("loop lag", &server.lag),
        ("turn", &server.turn),
    ];
    for (name, histogram) in rows {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| at_most(histogram, part));
        let max = match histogram.count {
            0 => "-".to_string(),
            _ if histogram.max_s == 0.0 => bound(0.0),
            _ => duration(histogram.max_s * 1e6),
        };
        writeln!(
            out,
            "  {name:<14} {p50:>10} {p90:>10} {p99:>10} {max:>10} {:>10}",
            grouped(histogram.count)
        )?;
    }
    Ok(())
}

/// One figure, or a few of one kind: a name and a value.
fn facts(server: &Status) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let held = &server.connections;
    facts.push((
        "connections",
        format!(
            "{} open of {}, {} opened",
            grouped(held.open),
            grouped(held.max),
            grouped(held.opened)
        ),
    ));
    facts.push(("closed", counts(&server.closed)));
    facts.push(("refused", counts(&server.refused)));
    let (volume, messages) = (&server.bytes, &server.messages);
    facts.push((
        "bytes",
        format!("{} in, {} out", bytes(volume.received), bytes(volume.sent)),
    ));
    let dropped = if messages.dropped > 0 {
        format!(", {} dropped", grouped(messages.dropped))
    } else {
        String::new()
    };
    facts.push((
        "messages",
        format!(
            "{} received, {} queued{dropped}",
            grouped(messages.received),
            grouped(messages.queued)
        ),
    ));
    let logins = &server.logins;
    let denied: u64 = logins.denied.values().sum();
    if logins.accepted + logins.pending + denied > 0 {
        let [names, accepted, denied] = [logins.names, logins.accepted, denied].map(grouped);
        facts.push((
            "names",
            format!("{names} present; {accepted} logins accepted, {denied} denied"),
        ));
    }
    let beats = &server.heartbeats;
    let rule = match (server.heartbeat_s, server.bound_s) {
        (Some(interval), Some(bound)) => {
            format!("every {}, dead after {}", span(interval), span(bound))
        }
        _ => "off".to_string(),
    };
    let [pings_sent, pongs_received, pings_received] =
        [beats.pings_sent, beats.pongs_received, beats.pings_received].map(grouped);
    facts.push((
        "heartbeats",
        format!(
            "{rule}; {pings_sent} pings sent, \
             {pongs_received} pongs and {pings_received} pings received"
        ),
    ));
    if server.stalls > 0 {
        facts.push((
            "stalls",
            format!(
                "{}, {} in all",
                grouped(server.stalls),
                duration(server.stalled_s * 1e6)
            ),
        ));
    }
    let most = server
        .max_buffered_bytes
        .map_or(String::new(), |most| format!(" of {}", bytes(most)));
    facts.push(("buffers", format!("{}{most}", bytes(server.buffered_bytes))));
    let process = &server.process;
    facts.push((
        "memory",
        format!("{} resident", bytes(process.resident_bytes)),
    ));
    facts.push((
        "descriptors",
        format!(
            "{} of {}",
            grouped(process.descriptors),
            grouped(process.max_descriptors)
        ),
    ));
    facts.push(("processor", format!("{:.2} s", process.cpu_s)));
    facts
}

/// Nonzero totals, most frequent first.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let mut seen: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    seen.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each: Vec<_> = seen
        .iter()
        .map(|(name, count)| format!("{} {}", grouped(**count), printable(name)))
        .collect();
    match each.len() {
        0 => "none".to_string(),
        1 => each.concat(),
        _ => format!(
            "{} ({})",
            grouped(seen.iter().map(|(_, count)| **count).sum()),
            each.join(", ")
        ),
    }
}

/// A percentile, as exact as its bucket.
fn at_most(histogram: &DurationHistogram, part: f64) -> String {
    histogram.at_most(part).map_or("-".to_string(), bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(change: impl FnOnce(&mut serde_json::Value)) -> Status {
        let histogram = serde_json::json!({"count": 4, "sum_s": 0.004, "max_s": 0.003, "buckets": [[0.001, 2], [0.002, 3], [0.005, 4]]});
        let none =
            serde_json::json!({"count": 0, "sum_s": 0.0, "max_s": 0.0, "buckets": [[0.001, 0]]});
        let mut json = serde_json::json!({
            "version": "0.1.0", "pid": 42, "app": "echo", "framing": "lines", "listening": ["127.0.0.1:7878", "[::1]:7878"],
            "started": "2026-11-24T22:27:20Z", "uptime_s": 11520.0, "draining": false, "heartbeat_s": 5.0, "retry_s": 5.0, "missed": 3, "bound_s": 20.0,
            "connections": {"open": 3, "max": 65000, "opened": 12010},
            "closed": {"peer-closed": 4, "heartbeat-timeout": 12000, "rate-limited": 0}, "refused": {"full": 0},
            "logins": {
                "names": 0, "groups": 0, "memberships": 0, "accepted": 0, "pending": 0,
                "denied": {"bad-token": 0}
            },
            "bytes": {"in": 1536, "out": 10}, "messages": {"received": 1000, "queued": 2, "dropped": 0},
            "heartbeats": {"pings_sent": 5, "pongs_received": 4, "pings_received": 0},
            "round_trip": histogram, "overshoot": none, "lag": none, "turn": none,
            "yields": 0, "throttled": 0, "rate_limited": 0, "stalls": 0, "stalled_s": 0.0, "buffered_bytes": 0, "max_buffered_bytes": 268435456,
            "process": {"resident_bytes": 4089446, "descriptors": 15, "max_descriptors": 65536, "cpu_s": 0.1}
        });
        change(&mut json);
        serde_json::from_value(json).expect("a status")
    }

    #[test]
    fn status_fits_one_screen() {
        let expected = "\
heartline 0.1.0, process 42: echo over lines on 127.0.0.1:7878, [::1]:7878
up 3h12m since 2026-11-24T22:27:20Z

  connections    3 open of 65,000, 12,010 opened
  closed         12,004 (12,000 heartbeat-timeout, 4 peer-closed)
  refused        none
  bytes          1.5 KiB in, 10 B out
  messages       1,000 received, 2 queued
  heartbeats     every 5.0s, dead after 20.0s; 5 pings sent, 4 pongs and 0 pings received
  buffers        0 B of 256.0 MiB
  memory         3.9 MiB resident
  descriptors    15 of 65,536
  processor      0.10 s

                        p50        p90        p99        max      count
  round trip       ≤ 1.0 ms   ≤ 3.0 ms   ≤ 3.0 ms     3.0 ms          4
  overshoot               -          -          -          -          0
  loop lag                -          -          -          -          0
  turn                    -          -          -          -          0
";
        assert_eq!(render(&server(|_| ())), expected);
    }

    #[test]
    fn unusual_state_is_shown() {
        let text = render(&server(|json| {
            json["draining"] = true.into();
            json["heartbeat_s"] = serde_json::Value::Null;
            json["max_buffered_bytes"] = serde_json::Value::Null;
            json["messages"]["dropped"] = 7.into();
            json["stalls"] = 2.into();
            json["stalled_s"] = 1.5.into();
            json["app"] = "\u{1b}[31mred".into();
        }));
        for part in [
            "DRAINING, up",
            "heartbeats     off;",
            "buffers        0 B\n",
            ", 7 dropped",
            "stalls         2, 1.50 s in all",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
