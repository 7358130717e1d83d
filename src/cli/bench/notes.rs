//! What the reader should know before believing a figure: above all, whether it is the harness that was measured.

use super::results::Results;

/// Share of a core from which a worker is busy all the time.
const BUSY: f64 = 0.9;
/// How late the harness may send at its worst hundredth: that much of the latency, or so many microseconds.
const LAG_SHARE: f64 = 0.25;
const LAG_US: f64 = 500.0;
/// Share of the measured time that a process may have waited for a core.
const WAITING: f64 = 0.1;

/// Fills in the notes, and whether the client is the bottleneck.
pub(super) fn take(results: &mut Results) {
    let mut notes = Vec::new();
    client(results, &mut notes);
    results.client.is_bottleneck = !notes.is_empty();
    cores(results, &mut notes);
    memory(results, &mut notes);
    losses(results, &mut notes);
    results.notes = notes;
}

fn client(results: &Results, notes: &mut Vec<String>) {
    if is_server_busy(results) {
        return;
    }
    for (index, worker) in results.client.workers.iter().enumerate() {
        if let Some(worker) = worker.filter(|worker| worker.cpu_cores > BUSY) {
            notes.push(format!(
                "The client is the bottleneck, not the server: worker {} of {} was busy for {:.0} % of the time. The server can do more than \
                 this shows; use more --workers, on more cores.",
                index + 1,
                results.client.workers.len(),
                worker.cpu_cores * 100.0
            ));
        }
    }
    if let Some(storm) = &results.storm {
        if storm.last_written_ms > BUSY * storm.last_answer_ms {
            notes.push(format!(
                "The client is the bottleneck, not the server: it took {:.1} ms to send the last ping, and the last answer came at {:.1} ms.",
                storm.last_written_ms, storm.last_answer_ms
            ));
        }
        return;
    }
    for group in &results.groups {
        let (Some(lag), Some(latency)) = (&group.send_lag_us, &group.latency_us) else { continue };
        if lag.p99 > LAG_US && lag.p99 > LAG_SHARE * latency.p99 {
            notes.push(format!(
                "The client, not the server, made part of the latency of the connections \"{}\": one message in a hundred was sent {:.1} ms late or \
                 more, and latency is counted from when they were due (p99 {:.1} ms).",
                group.name,
                lag.p99 / 1e3,
                latency.p99 / 1e3
            ));
        }
    }
}

/// Then it is the server that was measured, however busy the client was with it.
fn is_server_busy(results: &Results) -> bool {
    results.server.as_ref().is_some_and(|server| server.cpu_cores > BUSY * results.run.pids.len() as f64)
}

fn cores(results: &Results, notes: &mut Vec<String>) {
    if is_server_busy(results) {
        notes.push("The server was busy almost all the time: this is as much as it can do here.".to_string());
    }
    let much = |wait_s: f64, processes: usize| wait_s > WAITING * results.measured_s * processes as f64 && wait_s > 0.01;
    if let Some(server) = results.server.as_ref().filter(|server| much(server.cpu_wait_s, results.run.pids.len())) {
        notes.push(format!(
            "The server had to wait for a core for {:.2} s in all: something else runs there. Give it a core of its own (taskset), and the client another.",
            server.cpu_wait_s
        ));
    }
    let waited: f64 = results.client.workers.iter().flatten().map(|worker| worker.cpu_wait_s).sum();
    if much(waited, results.client.workers.len()) {
        notes.push(format!("The client had to wait for a core for {waited:.2} s in all, so its latencies are longer than the server's."));
    }
}

/// Memory comes in pages: with fewer connections, the pages show more than the connections.
const ENOUGH_FOR_MEMORY: u32 = 1000;

fn memory(results: &Results, notes: &mut Vec<String>) {
    let most = results.memory.iter().flat_map(|memory| &memory.points).map(|point| point.connections).max();
    if let Some(most) = most.filter(|most| *most < ENOUGH_FOR_MEMORY) {
        notes.push(format!("Memory per connection is coarse: {most} connections are few, and memory comes in pages."));
    }
}

fn losses(results: &Results, notes: &mut Vec<String>) {
    let list = |causes: &std::collections::BTreeMap<String, u64>| {
        causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
    };
    if !results.connecting.failed.is_empty() {
        notes.push(format!("Connections failed: {}.", list(&results.connecting.failed)));
    }
    if !results.connections.lost.is_empty() {
        notes.push(format!("Connections were lost: {}.", list(&results.connections.lost)));
    }
    let unanswered: u64 = results.groups.iter().map(|group| group.unanswered + group.unsent).sum();
    if unanswered > 0 {
        notes.push(format!("{unanswered} messages were not sent or not answered; latencies are of the others."));
    }
    if let Some(dead) = &results.dead {
        if let Some(early) = dead.early.filter(|early| *early > 0) {
            notes.push(format!("{early} connections were closed before the bound."));
        }
        if dead.open > 0 {
            notes.push(format!("{} silent connections were still open at the end.", dead.open));
        }
    }
}
