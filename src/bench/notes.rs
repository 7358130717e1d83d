//! Warnings to read before the figures: above all, whether the harness was the bottleneck.

use super::results::{CpuShare, Results, ServerFigures, StormFigures};

/// Share of a core from which a worker is busy all the time.
const BUSY: f64 = 0.9;
/// How late the harness may send at its 99th percentile: this share of the latency, or this many
/// microseconds.
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
    let workers = &results.client.workers;
    if let Some(storm) = &results.storm {
        let awake = |share: &CpuShare| awake(share, results.measured_s);
        let client = workers.iter().flatten().map(awake).fold(0.0, f64::max);
        let server = results
            .server
            .as_ref()
            .and_then(|server| server.busiest_thread.as_ref())
            .map_or(0.0, awake);
        notes.extend(storm_of_client(storm, client, server));
        return;
    }
    let busy = |(index, worker): (usize, &Option<CpuShare>)| {
        busy_worker(index + 1, workers.len(), worker.as_ref()?.cpu_cores)
    };
    notes.extend(workers.iter().enumerate().filter_map(busy));
    for group in &results.groups {
        // The lateness of a sender shows in the latency of its listeners.
        let heard = results.push.as_ref().and_then(|_| {
            results
                .groups
                .iter()
                .find_map(|group| group.latency_us.as_ref())
        });
        if let (Some(lag), Some(latency)) =
            (&group.send_lag_us, group.latency_us.as_ref().or(heard))
        {
            notes.extend(late_sender(&group.name, lag.p99, latency.p99));
        }
    }
}

/// Share of the time in which it had something to do, whether it had a core to do it on or not.
fn awake(share: &CpuShare, measured_s: f64) -> f64 {
    share.cpu_cores
        + if measured_s > 0.0 {
            share.cpu_wait_s / measured_s
        } else {
            0.0
        }
}

/// A worker that had no time left might have made more load with more time.
fn busy_worker(number: usize, of: usize, cpu_cores: f64) -> Option<String> {
    (cpu_cores > BUSY).then(|| {
        format!(
            "The client is the bottleneck, not the server: worker {number} of {of} was busy for {:.0} % of the time. The server can do more than \
             this shows; use more --workers, on more cores.",
            cpu_cores * 100.0
        )
    })
}

/// A storm is bound by the client while it still writes, and if replies were there at every read:
/// then the server was always ahead of it.
fn storm_of_client(storm: &StormFigures, client_awake: f64, server_awake: f64) -> Option<String> {
    let waited_for = client_awake > BUSY && server_awake <= BUSY;
    (storm.last_written_ms > BUSY * storm.last_answer_ms || waited_for).then(|| {
        format!(
            "The client is the bottleneck, not the server: it took {:.1} ms to send the last ping, it read the last answer at {:.1} ms, and it was \
             hardly ever waiting for one. Use more --workers, on more cores.",
            storm.last_written_ms, storm.last_answer_ms
        )
    })
}

/// Lateness is part of the latency, which counts from when a message was due.
fn late_sender(group: &str, lag_p99_us: f64, latency_p99_us: f64) -> Option<String> {
    (lag_p99_us > LAG_US && lag_p99_us > LAG_SHARE * latency_p99_us).then(|| {
        format!(
            "The client, not the server, made part of the latency: of the messages of the connections \"{group}\", one in a hundred was sent {:.1} ms \
             late or more, and latency is counted from when they were due (p99 {:.1} ms).",
            lag_p99_us / 1e3,
            latency_p99_us / 1e3
        )
    })
}

fn is_server_busy(results: &Results) -> bool {
    let busy = |server: &ServerFigures| {
        is_busy(
            server.busiest_thread.map_or(0.0, |thread| thread.cpu_cores),
            server.cpu_cores,
            server.cores,
        )
    };
    results.server.as_ref().is_some_and(busy)
}

/// Then it is the server that was measured, however busy the client was with it: one of its threads
/// can do no more, or all of them together have no core left.
fn is_busy(busiest_thread: f64, all: f64, cores: usize) -> bool {
    busiest_thread > BUSY || (cores > 0 && all > BUSY * cores as f64)
}

fn cores(results: &Results, notes: &mut Vec<String>) {
    if is_server_busy(results) {
        notes.push(
            "The server was busy almost all the time: this is its limit on this machine."
                .to_string(),
        );
    }
    let much = |wait_s: f64, threads: usize| {
        wait_s > WAITING * results.measured_s * threads as f64 && wait_s > 0.01
    };
    let thread = results
        .server
        .as_ref()
        .and_then(|server| server.busiest_thread);
    if let Some(thread) = thread.filter(|thread| much(thread.cpu_wait_s, 1)) {
        notes.push(format!(
            "The server had to wait for a core for {:.2} s: something else runs there. Give it a core of its own (taskset), and the client another.",
            thread.cpu_wait_s
        ));
    }
    let waited: f64 = results
        .client
        .workers
        .iter()
        .flatten()
        .map(|worker| worker.cpu_wait_s)
        .sum();
    if much(waited, results.client.workers.len()) {
        notes.push(format!("The client had to wait for a core for {waited:.2} s in all, so its latencies are longer than the server's."));
    }
}

/// Memory is allocated in pages: with fewer connections the measured growth is dominated by pages.
const ENOUGH_FOR_MEMORY: u32 = 1000;

fn memory(results: &Results, notes: &mut Vec<String>) {
    let most = results
        .memory
        .iter()
        .flat_map(|memory| &memory.points)
        .map(|point| point.connections)
        .max();
    if let Some(most) = most.filter(|most| *most < ENOUGH_FOR_MEMORY) {
        notes.push(format!(
            "Memory per connection is coarse: {most} connections are too few, since memory is \
             allocated in pages."
        ));
    }
}

fn losses(results: &Results, notes: &mut Vec<String>) {
    let list = |causes: &std::collections::BTreeMap<String, u64>| {
        causes
            .iter()
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !results.connecting.failed.is_empty() {
        notes.push(format!(
            "Connections failed: {}.",
            list(&results.connecting.failed)
        ));
    }
    if !results.connections.lost.is_empty() {
        notes.push(format!(
            "Connections were lost: {}.",
            list(&results.connections.lost)
        ));
    }
    let unanswered: u64 = results
        .groups
        .iter()
        .map(|group| group.unanswered + group.unsent)
        .sum();
    if unanswered > 0 {
        notes.push(format!(
            "{unanswered} messages were not sent or not answered; latencies are of the others."
        ));
    }
    if let Some(dead) = &results.dead {
        if let Some(early) = dead.early.filter(|early| *early > 0) {
            notes.push(format!("{early} connections were closed before the bound."));
        }
        if dead.open > 0 {
            notes.push(format!(
                "{} silent connections were still open at the end.",
                dead.open
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_worker_is_noted_as_bottleneck() {
        assert_eq!(busy_worker(1, 1, 0.9), None);
        let note = busy_worker(2, 3, 0.97).expect("a note");
        assert!(
            note.starts_with("The client is the bottleneck")
                && note.contains("worker 2 of 3")
                && note.contains("97 %"),
            "{note}"
        );
    }

    #[test]
    fn late_sending_is_noted_if_it_affects_latency() {
        assert_eq!(
            late_sender("beating", 400.0, 450.0),
            None,
            "too little to speak of"
        );
        assert_eq!(
            late_sender("beating", 2000.0, 9000.0),
            None,
            "most of it is the server's"
        );
        let note = late_sender("beating", 2000.0, 5000.0).expect("a note");
        assert!(
            note.contains("\"beating\"")
                && note.contains("2.0 ms late")
                && note.contains("p99 5.0 ms"),
            "{note}"
        );
    }

    #[test]
    fn storm_is_client_bound_if_it_never_waits() {
        let storm = |last_written_ms| StormFigures {
            last_written_ms,
            last_answer_ms: 100.0,
        };
        assert_eq!(storm_of_client(&storm(50.0), 0.6, 0.6), None);
        assert!(
            storm_of_client(&storm(95.0), 0.6, 0.6).is_some(),
            "it wrote until the end"
        );
        assert!(
            storm_of_client(&storm(50.0), 0.95, 0.6).is_some(),
            "it wrote and read all the time"
        );
        assert_eq!(
            storm_of_client(&storm(50.0), 0.95, 0.95),
            None,
            "nobody waited for the other"
        );
        // Half of the time on a core, and the other half waiting for it.
        assert!(
            awake(
                &CpuShare {
                    cpu_cores: 0.5,
                    cpu_wait_s: 0.15
                },
                0.3
            ) > 0.99
        );
    }

    #[test]
    fn server_is_busy_if_one_thread_or_all_cores_are() {
        assert!(is_busy(0.95, 0.95, 8));
        assert!(is_busy(0.4, 0.95, 1), "many threads on one core");
        assert!(
            !is_busy(0.4, 0.95, 2),
            "many threads that could have done more"
        );
        assert!(!is_busy(0.5, 0.5, 0), "nobody said how many cores");
    }
}
