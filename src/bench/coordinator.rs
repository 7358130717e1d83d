//! Runs a measurement: opens connections step by step, begins, samples the server, and collects the
//! counters of the workers.

use std::time::Duration;

use super::counters::Counters;
use super::job::Job;
use super::messages::{WorkerCommand, WorkerReport};
use super::plan::ProgressCounts;
use super::process::{self, Cpu, Usage, Watched};
use super::progress::Display;
use super::workers::{WorkerEvent, Workers};
use crate::error::Error;
use crate::net::monotonic_ns;

/// Time between two samples, until there are [`MAX_SAMPLES`]; then twice as long, and so on.
const SAMPLE_NS: u64 = 100_000_000;
/// More would not show in a plot.
const MAX_SAMPLES: usize = 1200;
/// From the command to begin to the beginning: by then every worker has received it.
const LEAD_NS: u64 = 50_000_000;
/// A server is at rest when it uses less than this share of a core; the longest wait for that.
const AT_REST: f64 = 0.05;
const REST_LOOK: Duration = Duration::from_millis(150);
const MAX_SAMPLE_PAUSE: Duration = Duration::from_secs(3);
/// Workers that do not report within this time after a stop command have hung.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Record {
    pub(super) counters: Counters,
    pub(super) interrupted: bool,
    /// From the first dial to the last connection, without the rests between steps.
    pub(super) connecting_s: f64,
    /// Resources that the server used in this span.
    pub(super) connecting_cpu_ns: Option<u64>,
    /// Connections open, and the server's resident memory at rest with them.
    pub(super) memory: Vec<(u32, u64)>,
    /// Resources that the server used during the measurement.
    pub(super) server: Option<Usage>,
    /// What that thread of it used which used most.
    pub(super) busiest_thread: Option<Cpu>,
    /// Cores that the server may run on.
    pub(super) server_cores: usize,
    /// What each worker used.
    pub(super) workers: Vec<Option<Usage>>,
    pub(super) measured_s: f64,
    /// When the measurement began, from the start of the whole.
    pub(super) began_s: Option<f64>,
    pub(super) samples: Vec<Sample>,
}

/// The state at an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at_s: f64,
    pub(super) progress: ProgressCounts,
    pub(super) rss_bytes: Option<u64>,
    /// Of one core, since the sample before.
    pub(super) server_cpu: Option<f64>,
    pub(super) workers_cpu: Option<f64>,
}

/// Why a wait ended early.
enum Stop {
    Interrupted,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

pub(super) struct Coordinator<'a> {
    job: &'a Job,
    workers: Workers,
    server: &'a Watched,
    crew_watched: Watched,
    display: Display,
    started_ns: u64,
    /// For each worker: its counts, whether its last order to connect is carried out, and its
    /// tally.
    states: Vec<WorkerState>,
    sampling: Sampling,
    record: Record,
}

#[derive(Default)]
struct WorkerState {
    progress: ProgressCounts,
    connected: bool,
    counters: Option<Counters>,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(job: &'a Job, workers: Workers, server: &'a Watched) -> Self {
        let started_ns = monotonic_ns();
        Coordinator {
            states: (0..workers.len()).map(|_| WorkerState::default()).collect(),
            crew_watched: Watched {
                pids: workers.pids(),
            },
            display: Display::new(),
            sampling: Sampling {
                every_ns: SAMPLE_NS,
                next_ns: started_ns,
                last: None,
            },
            record: Record::default(),
            job,
            workers,
            server,
            started_ns,
        }
    }

    /// Fails only if there can be no figures at all. An interruption is noted in the record.
    pub(super) fn run(mut self) -> Result<Record, Error> {
        match self.measure() {
            Ok(()) => {}
            Err(Stop::Interrupted) => self.stop_early()?,
            Err(Stop::Failed(error)) => return Err(error),
        }
        self.display.finish();
        for counters in self.states.iter().filter_map(|seat| seat.counters.as_ref()) {
            match self.record.counters.groups.len() {
                0 => self.record.counters = counters.clone(),
                _ => self.record.counters.merge(counters),
            }
        }
        Ok(self.record)
    }

    fn measure(&mut self) -> Result<(), Stop> {
        self.connect()?;
        if self.progress().established == 0 {
            // Nothing can be measured: the workers' reports say why.
            self.workers.command_all(WorkerCommand::Stop)?;
            return self.wait_for_all(|seat| seat.counters.is_some());
        }
        self.display.stage("living", self.job.before.as_secs_f64());
        self.pause(self.job.before)?;

        let (server, threads, workers) = (
            self.server.usage(),
            self.server.threads(),
            self.workers_usage(),
        );
        let at_ns = monotonic_ns() + LEAD_NS;
        self.record.began_s = Some((at_ns - self.started_ns) as f64 / 1e9);
        self.workers.command_all(WorkerCommand::Go { at_ns })?;
        let plan = &self.job.plan;
        let wait_ns = if plan.bound_ns.is_some() {
            plan.bound_ns.unwrap_or(0)
        } else {
            plan.duration_ns
        };
        self.display.stage(self.job.scenario, wait_ns as f64 / 1e9);
        let outcome = self.wait_for_all(|seat| seat.counters.is_some());

        self.sample(monotonic_ns());
        self.record.measured_s = monotonic_ns().saturating_sub(at_ns) as f64 / 1e9;
        // Within the measured span, so that it is a part of it.
        self.record.busiest_thread = process::busiest(&self.server.threads(), &threads);
        self.record.server = self
            .server
            .usage()
            .zip(server)
            .map(|(now, before)| now.since(before));
        self.record.server_cores = self.server.cores();
        let used = |(now, before): (Option<Usage>, &Option<Usage>)| Some(now?.since((*before)?));
        self.record.workers = self
            .workers_usage()
            .into_iter()
            .zip(&workers)
            .map(used)
            .collect();
        outcome
    }

    /// Opens all connections, in steps, and samples the server's memory before and after each if
    /// there is more than one.
    fn connect(&mut self) -> Result<(), Stop> {
        self.display
            .stage("connecting", f64::from(self.job.plan.connections()));
        let steps = if self.server.is_empty() {
            1
        } else {
            self.job.steps
        };
        let memory = steps > 1;
        let cpu_before = self.server.cpu_ns();
        if memory {
            self.note_memory();
        }
        for step in 1..=steps {
            let began_ns = monotonic_ns();
            for worker in 0..self.states.len() {
                let all: u32 = self
                    .job
                    .plan
                    .share(worker as u32, self.states.len() as u32)
                    .connections();
                let upto = (u64::from(all) * u64::from(step) / u64::from(steps)) as u32;
                self.states[worker].connected = false;
                self.workers
                    .command(worker, WorkerCommand::Connect { upto })?;
            }
            self.wait_for_all(|seat| seat.connected)?;
            self.record.connecting_s += (monotonic_ns() - began_ns) as f64 / 1e9;
            self.rest()?;
            if memory {
                self.note_memory();
            }
        }
        self.record.connecting_cpu_ns = self
            .server
            .cpu_ns()
            .zip(cpu_before)
            .map(|(now, before)| now.saturating_sub(before));
        Ok(())
    }

    fn note_memory(&mut self) {
        if let Some(rss) = self.server.exact_rss_bytes() {
            let open = self.progress().open;
            self.record.memory.push((open, rss));
        }
    }

    /// Waits until the server is at rest: connections that its kernel has accepted may still be
    /// accepted by the server.
    fn rest(&mut self) -> Result<(), Stop> {
        let until_ns = monotonic_ns() + MAX_SAMPLE_PAUSE.as_nanos() as u64;
        loop {
            let before = self.server.cpu_ns();
            self.pause(REST_LOOK)?;
            let used = self
                .server
                .cpu_ns()
                .zip(before)
                .map_or(0, |(now, before)| now.saturating_sub(before));
            if used as f64 <= AT_REST * REST_LOOK.as_nanos() as f64 || monotonic_ns() >= until_ns {
                return Ok(());
            }
        }
    }

    /// Has the workers report what there is.
    fn stop_early(&mut self) -> Result<(), Error> {
        self.record.interrupted = true;
        self.workers.command_all(WorkerCommand::Stop)?;
        let until_ns = monotonic_ns() + STOP_PATIENCE.as_nanos() as u64;
        while self.states.iter().any(|seat| seat.counters.is_none()) && monotonic_ns() < until_ns {
            match self.turn(until_ns) {
                Ok(()) | Err(Stop::Interrupted) => {}
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn pause(&mut self, pause: Duration) -> Result<(), Stop> {
        let until_ns = monotonic_ns() + u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX / 2);
        while monotonic_ns() < until_ns {
            self.turn(until_ns)?;
        }
        Ok(())
    }

    fn wait_for_all(&mut self, done: impl Fn(&WorkerState) -> bool) -> Result<(), Stop> {
        while !self.states.iter().all(&done) {
            self.turn(u64::MAX)?;
        }
        Ok(())
    }

    /// Takes a sample if one is due, waits for worker events until the next sample or `until_ns`,
    /// and handles all that have arrived.
    fn turn(&mut self, until_ns: u64) -> Result<(), Stop> {
        let now_ns = monotonic_ns();
        if now_ns >= self.sampling.next_ns {
            self.sample(now_ns);
        }
        let wait_ns = until_ns.min(self.sampling.next_ns).saturating_sub(now_ns);
        let mut wait = Duration::from_nanos(wait_ns);
        while let Some(news) = self.workers.next(wait) {
            self.update(news)?;
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn update(&mut self, news: WorkerEvent) -> Result<(), Stop> {
        let ended = |worker: usize, how: &str| {
            Stop::Failed(Error::io(format!("measure: worker {worker}"))(
                std::io::Error::other(how),
            ))
        };
        match news {
            WorkerEvent::Interrupt => return Err(Stop::Interrupted),
            WorkerEvent::WorkerReport(worker, WorkerReport::Progress(progress)) => {
                self.states[worker].progress = progress
            }
            WorkerEvent::WorkerReport(worker, WorkerReport::Connected(progress)) => {
                (self.states[worker].progress, self.states[worker].connected) = (progress, true);
            }
            WorkerEvent::WorkerReport(worker, WorkerReport::Done(counters)) => {
                self.states[worker].progress = counters.progress;
                self.states[worker].counters = Some(*counters);
            }
            WorkerEvent::WorkerReport(worker, WorkerReport::Failed(how)) => {
                return Err(ended(worker, &how));
            }
            WorkerEvent::Gone(worker) => return Err(ended(worker, "it has ended")),
        }
        Ok(())
    }

    fn progress(&self) -> ProgressCounts {
        self.states
            .iter()
            .fold(ProgressCounts::default(), |sum, seat| {
                sum.plus(seat.progress)
            })
    }

    fn workers_usage(&self) -> Vec<Option<Usage>> {
        self.crew_watched
            .pids
            .iter()
            .map(|pid| process::usage(*pid).ok())
            .collect()
    }

    fn sample(&mut self, now_ns: u64) {
        let (server, workers) = (self.server.usage(), self.crew_watched.usage());
        let elapsed_ns = |before_ns: u64| (now_ns - before_ns).max(1) as f64;
        let share = |now: Option<Usage>, before: fn(&LastSample) -> Option<Usage>| {
            let last = self.sampling.last.as_ref()?;
            Some(now?.since(before(last)?).cpu_ns as f64 / elapsed_ns(last.at_ns))
        };
        let sample = Sample {
            at_s: (now_ns - self.started_ns) as f64 / 1e9,
            progress: self.progress(),
            rss_bytes: server.map(|usage| usage.rss_bytes),
            server_cpu: share(server, |last| last.server),
            workers_cpu: share(workers, |last| last.workers),
        };
        self.sampling.last = Some(LastSample {
            at_ns: now_ns,
            server,
            workers,
        });
        // Counted from the end of the sample, so that a slow one leaves time for worker events.
        self.sampling.next_ns = monotonic_ns() + self.sampling.every_ns;
        self.record.samples.push(sample);
        if self.record.samples.len() >= MAX_SAMPLES {
            let mut index = 0;
            self.record.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.sampling.every_ns *= 2;
        }
        let evicted = u64::from(sample.progress.established - sample.progress.open);
        self.display
            .show(sample.at_s, self.record.began_s, &sample.progress, evicted);
    }
}

struct Sampling {
    every_ns: u64,
    next_ns: u64,
    last: Option<LastSample>,
}

struct LastSample {
    at_ns: u64,
    server: Option<Usage>,
    workers: Option<Usage>,
}
