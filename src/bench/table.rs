//! The results for people: a few lines and a table.

use std::fmt::Write;

use super::histogram::Summary;
use super::results::{GroupFigures, Results};
use crate::humanize::duration;

/// The results as text.
pub(super) fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(results, &mut text);
    text
}

fn write(results: &Results, out: &mut String) -> std::fmt::Result {
    let run = &results.run;
    let own = if run.own_server {
        " (started for this)"
    } else {
        ""
    };
    let early = if results.interrupted {
        ", ended early"
    } else {
        ""
    };
    writeln!(
        out,
        "{} on {}{own}, {:.1} s{early}",
        results.scenario, run.addr, results.measured_s
    )?;
    writeln!(out)?;
    for (name, value) in facts(results) {
        writeln!(out, "  {name:<22} {value}")?;
    }
    let rows = rows(results);
    if !rows.is_empty() {
        writeln!(out)?;
        writeln!(
            out,
            "  {:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
            "", "p50", "p90", "p99", "p99.9", "max", "count"
        )?;
        for (name, summary) in rows {
            let figures = [
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p99_9,
                summary.max,
            ]
            .map(duration);
            let [p50, p90, p99, p99_9, max] = figures;
            writeln!(
                out,
                "  {name:<22} {p50:>9} {p90:>9} {p99:>9} {p99_9:>9} {max:>9} {:>10}",
                summary.count
            )?;
        }
    }
    for note in &results.notes {
        writeln!(out)?;
        writeln!(out, "  ! {note}")?;
    }
    Ok(())
}

/// One figure each: a name and a value.
pub(super) fn facts(results: &Results) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_string(), value));
    let connecting = &results.connecting;
    fact(
        "connected",
        format!(
            "{} of {} in {:.2} s, {:.0} per second",
            connecting.established,
            connecting.asked,
            connecting.lasted_s,
            connecting.established_per_s
        ),
    );
    fact("open at the end", results.connections.open.to_string());
    if let Some(memory) = &results.memory {
        fact(
            "memory per connection",
            format!(
                "{:.0} bytes of the server's resident memory",
                memory.bytes_per_connection
            ),
        );
    }
    let lost = |group: &GroupFigures| group.lost.values().sum::<u64>();
    for group in results
        .groups
        .iter()
        .filter(|group| group.sent + group.questions_answered + group.answered + lost(group) > 0)
    {
        fact(&group.name, exchanged(group));
    }
    if let Some(storm) = &results.storm {
        fact(
            "last answer",
            format!(
                "{:.1} ms after all were due; {:.1} ms had passed when the client had written all pings",
                storm.last_answer_ms, storm.last_written_ms
            ),
        );
    }
    if let Some(push) = &results.push {
        fact(
            "delivered",
            format!("{} messages, {} missing", push.delivered, push.missing),
        );
    }
    if let Some(dead) = &results.dead {
        fact(
            "closed",
            format!(
                "{} silent connections, {} still open",
                dead.closed, dead.open
            ),
        );
        if let (Some(bound), Some(early)) = (dead.bound_s, dead.early) {
            fact(
                "before the bound",
                format!("{early}; the bound is {bound:.3} s of silence"),
            );
        }
        if let (Some(shortest), Some(longest)) = (dead.shortest_silence_s, dead.longest_silence_s) {
            fact(
                "silence until closed",
                format!("{shortest:.3} s to {longest:.3} s"),
            );
        }
        fact("live ones lost", dead.alive_lost.to_string());
    }
    if let Some(server) = &results.server {
        let unit = server.cpu_us_per_unit.map_or(String::new(), |us| {
            format!(", {us:.2} µs per {}", server.unit)
        });
        fact(
            "server CPU",
            format!(
                "{:.3} s, {:.1} % of a core{unit}",
                server.cpu_s,
                server.cpu_cores * 100.0
            ),
        );
        if let Some(us) = connecting.server_cpu_us_per_connection {
            fact("", format!("{us:.2} µs per connection while connecting"));
        }
        fact(
            "server memory",
            format!(
                "{:.1} MiB resident",
                server.rss_bytes as f64 / f64::from(1 << 20)
            ),
        );
        fact(
            "server switches",
            format!(
                "{} voluntary, {} involuntary",
                server.voluntary_switches, server.involuntary_switches
            ),
        );
    }
    let busiest = results
        .client
        .workers
        .iter()
        .flatten()
        .map(|worker| worker.cpu_cores)
        .fold(0.0, f64::max);
    let workers = results.client.workers.len();
    if workers > 0 {
        let which = if workers == 1 {
            "one worker".to_string()
        } else {
            format!("busiest of {workers} workers")
        };
        fact(
            "client CPU",
            format!("{which}, {:.1} % of a core", busiest * 100.0),
        );
    }
    facts
}

fn exchanged(group: &GroupFigures) -> String {
    let mut words = vec![counted(
        u64::from(group.connections),
        "connection",
        "connections",
    )];
    // Connections that only listen send nothing and get no answers.
    let answered = if group.sent == 0 {
        "received"
    } else {
        "answered"
    };
    for (count, what) in [
        (group.lost.values().sum(), "lost"),
        (group.sent, "sent"),
        (group.answered, answered),
        (group.unanswered, "unanswered"),
        (group.unsent, "not sent"),
        (group.questions_answered, "pings of the server answered"),
    ] {
        if count > 0 {
            words.push(format!("{count} {what}"));
        }
    }
    if group.answered > 0 && group.answered_per_s < 1e9 {
        words.push(format!("{:.0} per second", group.answered_per_s));
    }
    words.join(", ")
}

/// A distribution: a name and percentiles.
pub(super) fn rows(results: &Results) -> Vec<(String, &Summary)> {
    let mut rows: Vec<(String, &Summary)> = Vec::new();
    for group in &results.groups {
        // In a storm the client writes first and reads then, so an early answer is as old as the
        // writing was long.
        let name = if results.storm.is_some() {
            "latency incl. writing".to_string()
        } else {
            format!("latency, {}", group.name)
        };
        rows.extend(group.latency_us.as_ref().map(|summary| (name, summary)));
    }
    rows.extend(
        results
            .push
            .as_ref()
            .and_then(|push| push.first_to_last_us.as_ref())
            .map(|summary| ("first to last".to_string(), summary)),
    );
    if let Some(dead) = &results.dead {
        rows.extend(
            dead.overshoot_us
                .as_ref()
                .map(|summary| ("beyond the bound".to_string(), summary)),
        );
        rows.extend(
            dead.silence_us
                .as_ref()
                .map(|summary| ("silence".to_string(), summary)),
        );
    }
    for group in &results.groups {
        rows.extend(
            group
                .send_lag_us
                .as_ref()
                .map(|summary| (format!("sent late, {}", group.name), summary)),
        );
    }
    rows.extend(
        results
            .connecting
            .latency_us
            .as_ref()
            .map(|summary| ("connecting".to_string(), summary)),
    );
    rows
}

/// A count with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
