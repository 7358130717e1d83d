//! What came out, as `--json` writes it. docs/bench.md explains every field; names end in their
//! unit.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::coordinator::Record;
use super::counters;
use super::histogram::{Durations, Summary};
use super::job::Job;
use super::plan::WaitFor;
use super::process::Machine;

/// Incremented when a field changes its meaning or is removed; new fields may appear without it.
const FORMAT: u32 = 1;

#[derive(Serialize)]
pub(super) struct Results {
    pub(super) format: u32,
    pub(super) scenario: &'static str,
    pub(super) interrupted: bool,
    /// Warnings to read before the figures.
    pub(super) notes: Vec<String>,
    pub(super) run: Run,
    pub(super) connecting: Connecting,
    pub(super) connections: ConnectionFigures,
    pub(super) measured_s: f64,
    pub(super) groups: Vec<GroupFigures>,
    pub(super) server: Option<ServerFigures>,
    pub(super) memory: Option<MemoryFigures>,
    pub(super) storm: Option<StormFigures>,
    pub(super) push: Option<Push>,
    pub(super) dead: Option<DeadFigures>,
    pub(super) client: ClientFigures,
    pub(super) series: SeriesFigures,
}

/// The circumstances: enough to do it again.
#[derive(Clone, Serialize)]
pub(super) struct Run {
    pub(super) heartline: &'static str,
    pub(super) command: Vec<String>,
    /// Wall-clock time, in UTC.
    pub(super) started: String,
    pub(super) machine: Machine,
    pub(super) addr: SocketAddr,
    pub(super) own_server: bool,
    pub(super) serve_options: Vec<String>,
    pub(super) pids: Vec<u32>,
    pub(super) workers: u32,
    pub(super) sources: Vec<IpAddr>,
    pub(super) seed: u64,
}

#[derive(Serialize)]
pub(super) struct Connecting {
    pub(super) asked: u32,
    pub(super) established: u32,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) lasted_s: f64,
    pub(super) established_per_s: f64,
    pub(super) latency_us: Option<Summary>,
    pub(super) server_cpu_us_per_connection: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct ConnectionFigures {
    pub(super) open: u32,
    pub(super) lost: BTreeMap<String, u64>,
}

#[derive(Serialize)]
pub(super) struct GroupFigures {
    pub(super) name: String,
    pub(super) connections: u32,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) unanswered: u64,
    pub(super) unsent: u64,
    pub(super) questions_answered: u64,
    pub(super) answered_per_s: f64,
    pub(super) latency_us: Option<Summary>,
    pub(super) send_lag_us: Option<Summary>,
    /// A percentage, and the latency that it did not exceed.
    pub(super) latency_percentiles_us: Vec<(f64, f64)>,
}

#[derive(Serialize)]
pub(super) struct ServerFigures {
    pub(super) cpu_s: f64,
    pub(super) cpu_cores: f64,
    /// What `cpu_us_per_unit` is counted by.
    pub(super) unit: &'static str,
    pub(super) units: u64,
    pub(super) cpu_us_per_unit: Option<f64>,
    pub(super) cpu_wait_s: f64,
    pub(super) busiest_thread: Option<CpuShare>,
    /// That it may run on.
    pub(super) cores: usize,
    pub(super) voluntary_switches: u64,
    pub(super) involuntary_switches: u64,
    pub(super) rss_bytes: u64,
    pub(super) threads: u64,
    pub(super) descriptors: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct MemoryFigures {
    pub(super) bytes_per_connection: f64,
    pub(super) points: Vec<MemoryPoint>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct MemoryPoint {
    pub(super) connections: u32,
    pub(super) rss_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct StormFigures {
    pub(super) last_answer_ms: f64,
    pub(super) last_written_ms: f64,
}

#[derive(Serialize)]
pub(super) struct Push {
    pub(super) delivered: u64,
    pub(super) missing: u64,
    pub(super) first_to_last_us: Option<Summary>,
    pub(super) messages: Vec<Message>,
}

#[derive(Serialize)]
pub(super) struct Message {
    pub(super) received: u64,
    pub(super) first_us: f64,
    pub(super) last_us: f64,
}

#[derive(Serialize)]
pub(super) struct DeadFigures {
    pub(super) bound_s: Option<f64>,
    pub(super) closed: u64,
    pub(super) open: u64,
    pub(super) early: Option<u64>,
    pub(super) shortest_silence_s: Option<f64>,
    pub(super) longest_silence_s: Option<f64>,
    pub(super) overshoot_us: Option<Summary>,
    pub(super) silence_us: Option<Summary>,
    /// Seconds of silence, and how many connections were closed by then.
    pub(super) closed_after: Vec<(f64, u64)>,
    pub(super) alive_lost: u64,
}

#[derive(Serialize)]
pub(super) struct ClientFigures {
    pub(super) is_bottleneck: bool,
    pub(super) workers: Vec<Option<CpuShare>>,
    pub(super) longest_turn_ms: f64,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct CpuShare {
    pub(super) cpu_cores: f64,
    pub(super) cpu_wait_s: f64,
}

impl CpuShare {
    fn new(used_ns: u64, wait_ns: u64, record: &Record) -> Self {
        CpuShare {
            cpu_cores: used_ns as f64 / 1e9 / record.measured_s,
            cpu_wait_s: wait_ns as f64 / 1e9,
        }
    }
}

/// How things went, from the first dial on. Same length all.
#[derive(Default, Serialize)]
pub(super) struct SeriesFigures {
    /// When the measurement began.
    pub(super) began_s: Option<f64>,
    pub(super) at_s: Vec<f64>,
    pub(super) open: Vec<u32>,
    pub(super) failed: Vec<u32>,
    pub(super) ended: Vec<u32>,
    pub(super) answered: Vec<u64>,
    pub(super) server_rss_bytes: Vec<Option<u64>>,
    pub(super) server_cpu_cores: Vec<Option<f64>>,
    pub(super) workers_cpu_cores: Vec<Option<f64>>,
}

impl Results {
    /// Whether replies were expected, and none came.
    pub(super) fn is_all_unanswered(&self) -> bool {
        let sum = |count: fn(&GroupFigures) -> u64| self.groups.iter().map(count).sum::<u64>();
        sum(|group| group.answered) == 0 && sum(|group| group.unanswered + group.unsent) > 0
    }

    pub(super) fn new(job: &Job, run: Run, record: &Record) -> Self {
        let counters = &record.counters;
        let measured_s = if counters.lasted_ns > 0 {
            counters.lasted_ns as f64 / 1e9
        } else {
            record.measured_s
        };
        let mut results = Results {
            format: FORMAT,
            scenario: job.scenario,
            interrupted: record.interrupted,
            notes: Vec::new(),
            run,
            connecting: connecting(job, record),
            connections: ConnectionFigures {
                open: counters.progress.open,
                lost: counters.lost(),
            },
            measured_s,
            groups: job
                .plan
                .groups
                .iter()
                .zip(&counters.groups)
                .map(|(plan, load)| group(plan, load, measured_s))
                .collect(),
            server: server(job, record),
            memory: memory(&record.memory),
            storm: None,
            push: None,
            dead: None,
            client: client(record),
            series: series(record),
        };
        match job.plan.wait_for {
            WaitFor::Replies if job.scenario == "storm" => results.storm = storm(counters),
            WaitFor::Replies => {}
            WaitFor::Pushes => results.push = Some(push(job, counters)),
            WaitFor::Closes => results.dead = Some(dead(job, counters)),
        }
        results
    }
}

fn connecting(job: &Job, record: &Record) -> Connecting {
    let established = record.counters.progress.established;
    let per = |all: f64, count: f64| if count > 0.0 { all / count } else { 0.0 };
    Connecting {
        asked: job.plan.connections(),
        established,
        failed: record.counters.failed.clone(),
        lasted_s: record.connecting_s,
        established_per_s: per(f64::from(established), record.connecting_s),
        latency_us: record.counters.connecting.summary(),
        server_cpu_us_per_connection: record
            .connecting_cpu_ns
            .map(|ns| per(ns as f64 / 1e3, f64::from(established))),
    }
}

fn group(plan: &super::plan::Group, load: &counters::Load, measured_s: f64) -> GroupFigures {
    GroupFigures {
        name: plan.name.clone(),
        connections: plan.connections,
        lost: load.lost.clone(),
        sent: load.sent,
        answered: load.answered,
        unanswered: load.unanswered,
        unsent: load.unsent,
        questions_answered: load.asks,
        answered_per_s: if measured_s > 0.0 {
            load.answered as f64 / measured_s
        } else {
            0.0
        },
        latency_us: load.latency.summary(),
        send_lag_us: load.send_lag.summary(),
        latency_percentiles_us: percentiles(&load.latency),
    }
}

/// Steps per tenfold rarity: enough for a smooth line.
const STEPS_PER_NINE: u32 = 20;

/// Percentiles ever closer to 100, as far as there are enough values to tell them apart.
fn percentiles(durations: &Durations) -> Vec<(f64, f64)> {
    let rarest = (durations.len().max(1) as f64).log10();
    let step = |n: u32| f64::from(n) / f64::from(STEPS_PER_NINE);
    let nines = (0..)
        .map(step)
        .take_while(|nines| *nines < rarest)
        .chain([rarest]);
    let point = |nines: f64| {
        let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
        (percent, durations.percentile_ns(percent) as f64 / 1e3)
    };
    if durations.len() == 0 {
        Vec::new()
    } else {
        nines.map(point).collect()
    }
}

fn server(job: &Job, record: &Record) -> Option<ServerFigures> {
    let used = record.server?;
    let primary = record.counters.groups.get(job.primary)?;
    let units = match job.scenario {
        // A heartbeat costs the server a read and a write, whichever side sends the ping.
        "hold" | "beat" => primary.answered + primary.asks,
        "dead" => 0,
        _ => primary.answered,
    };
    Some(ServerFigures {
        cpu_s: used.cpu_ns as f64 / 1e9,
        cpu_cores: used.cpu_ns as f64 / 1e9 / record.measured_s,
        unit: job.unit,
        units,
        cpu_us_per_unit: (units > 0).then(|| used.cpu_ns as f64 / 1e3 / units as f64),
        cpu_wait_s: used.cpu_wait_ns as f64 / 1e9,
        busiest_thread: record
            .busiest_thread
            .map(|cpu| CpuShare::new(cpu.used_ns, cpu.wait_ns, record)),
        cores: record.server_cores,
        voluntary_switches: used.voluntary_switches,
        involuntary_switches: used.involuntary_switches,
        rss_bytes: used.rss_bytes,
        threads: used.threads,
        descriptors: used.descriptors,
    })
}

/// The slope of the line that fits the points best, by least squares.
fn memory(points: &[(u32, u64)]) -> Option<MemoryFigures> {
    let count = points.len() as f64;
    let mean = |sum: f64| sum / count;
    let (mean_x, mean_y) = (
        mean(points.iter().map(|(x, _)| f64::from(*x)).sum()),
        mean(points.iter().map(|(_, y)| *y as f64).sum()),
    );
    let covariance: f64 = points
        .iter()
        .map(|(x, y)| (f64::from(*x) - mean_x) * (*y as f64 - mean_y))
        .sum();
    let variance: f64 = points
        .iter()
        .map(|(x, _)| (f64::from(*x) - mean_x).powi(2))
        .sum();
    (points.len() > 1 && variance > 0.0).then(|| MemoryFigures {
        bytes_per_connection: covariance / variance,
        points: points
            .iter()
            .map(|(connections, rss_bytes)| MemoryPoint {
                connections: *connections,
                rss_bytes: *rss_bytes,
            })
            .collect(),
    })
}

fn storm(counters: &counters::Counters) -> Option<StormFigures> {
    let load = counters.groups.first()?;
    Some(StormFigures {
        last_answer_ms: load.latency.summary()?.max / 1e3,
        last_written_ms: load.last_sent_ns as f64 / 1e6,
    })
}

fn push(job: &Job, counters: &counters::Counters) -> Push {
    let mut first_to_last = Durations::default();
    counters
        .pushes
        .iter()
        .filter(|push| push.received > 0)
        .for_each(|push| first_to_last.record(push.last_ns - push.first_ns));
    let us = |ns: u64| ns as f64 / 1e3;
    let messages = counters.pushes.iter();
    let messages: Vec<Message> = messages
        .map(|push| Message {
            received: push.received,
            first_us: us(push.first_ns),
            last_us: us(push.last_ns),
        })
        .collect();
    let delivered = messages.iter().map(|message| message.received).sum();
    let sent = counters.groups.first().map_or(0, |speaker| speaker.sent);
    let all = sent * u64::from(job.plan.groups[job.primary].connections);
    Push {
        delivered,
        missing: all.saturating_sub(delivered),
        first_to_last_us: first_to_last.summary(),
        messages,
    }
}

fn dead(job: &Job, counters: &counters::Counters) -> DeadFigures {
    let evictions = &counters.evictions;
    let s = |ns: u64| ns as f64 / 1e9;
    let mut closed = 0;
    let mut count = |(ns, count): (u64, u64)| {
        closed += count;
        (s(ns), closed)
    };
    DeadFigures {
        bound_s: job.plan.bound_ns.map(s),
        closed: evictions.silence.len(),
        open: evictions.open,
        early: job.plan.bound_ns.map(|_| evictions.early),
        shortest_silence_s: evictions.shortest_ns.map(s),
        longest_silence_s: evictions.longest_ns.map(s),
        overshoot_us: evictions.overshoot.summary(),
        silence_us: evictions.silence.summary(),
        closed_after: match job.plan.bound_ns {
            // The excess over the timeout is recorded more finely than the whole.
            Some(bound_ns) if evictions.early == 0 => evictions
                .overshoot
                .buckets()
                .map(|(ns, closed)| count((bound_ns.saturating_add(ns), closed)))
                .collect(),
            _ => evictions.silence.buckets().map(count).collect(),
        },
        alive_lost: counters.lost().values().sum(),
    }
}

fn client(record: &Record) -> ClientFigures {
    let worker =
        |usage: &super::process::Usage| CpuShare::new(usage.cpu_ns, usage.cpu_wait_ns, record);
    ClientFigures {
        is_bottleneck: false,
        workers: record
            .workers
            .iter()
            .map(|usage| usage.as_ref().map(worker))
            .collect(),
        longest_turn_ms: record.counters.longest_turn_ns as f64 / 1e6,
    }
}

fn series(record: &Record) -> SeriesFigures {
    let mut series = SeriesFigures {
        began_s: record.began_s,
        ..SeriesFigures::default()
    };
    for sample in &record.samples {
        series.at_s.push(sample.at_s);
        series.open.push(sample.progress.open);
        series.failed.push(sample.progress.failed);
        series
            .ended
            .push(sample.progress.established - sample.progress.open);
        series.answered.push(sample.progress.answered);
        series.server_rss_bytes.push(sample.rss_bytes);
        series.server_cpu_cores.push(sample.server_cpu);
        series.workers_cpu_cores.push(sample.workers_cpu);
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_per_connection_is_a_slope() {
        let points = [
            (0, 1_000_000),
            (5000, 1_500_000),
            (10_000, 2_000_000),
            (15_000, 2_500_000),
        ];
        assert!((memory(&points).expect("a slope").bytes_per_connection - 100.0).abs() < 1e-9);
        assert!(memory(&points[..1]).is_none());
        assert!(memory(&[(5, 1), (5, 2)]).is_none());
        assert!(memory(&[]).is_none());
    }

    #[test]
    fn percentiles_end_at_the_maximum() {
        let mut durations = Durations::default();
        (1..=1000).for_each(|n| durations.record(n * 1000));
        let points = percentiles(&durations);
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1),
            "{points:?}"
        );
        assert!(
            (points.last().expect("points").1 - 1000.0).abs() < 2.0,
            "{points:?}"
        );
        assert_eq!(percentiles(&Durations::default()), []);
    }
}
