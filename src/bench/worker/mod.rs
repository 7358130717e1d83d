//! `heartline bench worker`: thousands of connections on one thread and one poll loop, as the
//! coordinator's plan says.
//!
//! A turn is: orders, events, leftover reads, dials, messages that are due. Each step has a budget.
//! Latency is counted from the instant at which a message was meant to be sent, not from when this
//! loop got round to it: a harness that waits for a slow server before it sends would leave the
//! slowness out.

mod control;
mod dialing;
mod line;
mod origins;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::counters::Counters;
use super::messages::{WorkerCommand, WorkerReport};
use super::plan::{Plan, ProgressCounts, Role, WaitFor};
use super::scan::Matcher;
use crate::error::Error;
use crate::net::{self, PreciseTimer, monotonic_ns, reset_on_close};
use control::Control;
use line::LoadConnection;
use origins::Origins;

const CONTROL: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS_PER_TURN: usize = 1024;
/// Messages sent per turn. A storm has to come all at once, so this is the number of connections;
/// replies that arrive meanwhile wait.
const SENDS_PER_TURN: usize = 16_384;
/// Size of the one buffer that all connections are read into.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Time between two reports of progress.
const PROGRESS_NS: u64 = 100_000_000;

/// Runs until the coordinator closes stdin. Errors are reported to it as text.
pub(super) fn run() -> Result<ExitCode, Error> {
    let outcome = Worker::start().and_then(|mut worker| worker.run());
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let _ = report_to_coordinator(&WorkerReport::Failed(error.to_string()));
            Ok(ExitCode::FAILURE)
        }
    }
}

struct Worker {
    plan: Plan,
    poll: Poll,
    timer: PreciseTimer,
    control: Control,
    /// All connections of the plan; a connection's place is also its token.
    lines: Vec<LoadConnection>,
    matchers: Vec<Matcher>,
    /// For each group, the most that a turn of its closed loop writes.
    batches: Vec<Vec<u8>>,
    /// Messages to send: when, and on which connection.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    ready: VecDeque<u32>,
    dialing: dialing::Dialing,
    origins: Origins,
    stage: Stage,
    progress: ProgressCounts,
    /// What the end waits for: replies in flight, open mute connections, pushed messages that have
    /// not arrived.
    pending: u64,
    counters: Counters,
    scratch: Box<[u8]>,
    next_progress_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connections are opened and held.
    Before,
    /// Measuring, since this instant.
    Measuring(u64),
    /// Reported; connections are held until the coordinator hangs up.
    After,
}

impl Worker {
    fn start() -> io::Result<Self> {
        net::raise_descriptor_limit();
        let poll = Poll::new()?;
        let timer = PreciseTimer::register(poll.registry(), TIMER)?;
        let mut control = Control::from_stdin()?;
        let plan: Plan = control.first(poll.registry(), CONTROL)?;
        let mut lines = Vec::with_capacity(plan.connections() as usize);
        for (index, group) in (0..).zip(&plan.groups) {
            lines.extend((0..group.connections).map(|_| LoadConnection::of_group(index)));
        }
        let batch = |role: &Role| {
            if let Role::Loop { depth } = role {
                *depth as usize
            } else {
                1
            }
        };
        fastrand::seed(plan.seed);
        Ok(Worker {
            matchers: plan
                .groups
                .iter()
                .map(|group| Matcher::new(&group.expect))
                .collect(),
            batches: plan
                .groups
                .iter()
                .map(|group| group.message.repeat(batch(&group.role)))
                .collect(),
            counters: Counters::new(&plan),
            dialing: dialing::Dialing::default(),
            origins: Origins::new(&plan),
            poll,
            timer,
            control,
            lines,
            due: BinaryHeap::new(),
            ready: VecDeque::new(),
            stage: Stage::Before,
            progress: ProgressCounts::default(),
            pending: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            next_progress_ns: monotonic_ns() + PROGRESS_NS,
            plan,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            // Before the wait: bytes that were read together with the plan raise no event.
            while let Some(command) = self.control.take_line() {
                self.run_command(command?)?;
            }
            if self.control.has_ended() {
                self.release();
                return Ok(());
            }
            let wait = self.prepare_wait()?;
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            let began_ns = monotonic_ns();
            for event in &events {
                match event.token() {
                    CONTROL => self.control.handle_event()?,
                    TIMER => self.timer.handle_event(),
                    Token(index) => self.handle_event(index, event),
                }
            }
            self.read_ready();
            self.dial_due()?;
            self.send_due();
            self.end_turn(began_ns)?;
        }
    }

    /// Arms the timer for the next scheduled message, and returns how long the poll may wait
    /// without it.
    fn prepare_wait(&mut self) -> io::Result<Option<Duration>> {
        if !self.ready.is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        let deadline = match self.stage {
            Stage::Measuring(at_ns) => Some(at_ns + self.plan.duration_ns + self.plan.grace_ns),
            _ => None,
        };
        let send = self.due.peek().map(|Reverse((at_ns, _))| *at_ns);
        let dues = [
            send,
            self.dialing.next_ns(),
            deadline,
            Some(self.next_progress_ns),
        ];
        let Some(due_ns) = dues.into_iter().flatten().min() else {
            return Ok(None);
        };
        let wait_ns = due_ns.saturating_sub(monotonic_ns());
        if wait_ns == 0 {
            return Ok(Some(Duration::ZERO));
        }
        self.timer.arm(due_ns)?;
        // In case the timer is one that does nothing.
        Ok(Some(Duration::from_nanos(wait_ns)))
    }

    fn run_command(&mut self, command: WorkerCommand) -> io::Result<()> {
        match command {
            WorkerCommand::Connect { upto } => self
                .dialing
                .command(upto.min(self.plan.connections()), self.plan.ramp_per_s),
            WorkerCommand::Go { at_ns } => self.begin(at_ns),
            WorkerCommand::Stop => self.finish()?,
        }
        Ok(())
    }

    /// Makes the schedule of everything that happens by time alone.
    fn begin(&mut self, at_ns: u64) {
        if self.stage != Stage::Before {
            return;
        }
        self.stage = Stage::Measuring(at_ns);
        for (index, line) in (0..).zip(&self.lines) {
            let first_ns = match self.plan.groups[usize::from(line.group)].role {
                Role::Quiet | Role::Listen => continue,
                Role::Paced(pace) if pace.spread => at_ns + fastrand::u64(0..pace.every_ns.max(1)),
                Role::Paced(_) | Role::Loop { .. } | Role::Mute => at_ns,
            };
            let counted = if line.stream.is_some() {
                Some(first_ns)
            } else {
                None
            };
            self.due
                .extend(counted.map(|first_ns| Reverse((first_ns, index))));
        }
        let listening = |line: &&LoadConnection| {
            line.stream.is_some() && self.plan.groups[usize::from(line.group)].role == Role::Listen
        };
        self.pending = match self.plan.wait_for {
            WaitFor::Replies => 0,
            WaitFor::Pushes => {
                self.lines.iter().filter(listening).count() as u64 * u64::from(self.plan.pushes)
            }
            // Counted now, so that the measurement does not end before they have fallen silent.
            WaitFor::Closes => self
                .lines
                .iter()
                .filter(|line| line.stream.is_some() && self.is_mute_role(line))
                .count() as u64,
        };
    }

    fn is_mute_role(&self, line: &LoadConnection) -> bool {
        self.plan.groups[usize::from(line.group)].role == Role::Mute
    }

    fn end_turn(&mut self, began_ns: u64) -> io::Result<()> {
        let now_ns = monotonic_ns();
        if let Some(progress) = self.dialing.take_completion(self.progress) {
            report_to_coordinator(&WorkerReport::Connected(progress))?;
        }
        if let Stage::Measuring(at_ns) = self.stage {
            if began_ns >= at_ns {
                self.counters.longest_turn_ns =
                    self.counters.longest_turn_ns.max(now_ns - began_ns);
            }
            let end_ns = at_ns + self.plan.duration_ns;
            let settled = self.pending == 0
                || self.progress.open == 0
                || now_ns >= end_ns + self.plan.grace_ns;
            // Messages that are due before the end may not have been sent yet.
            let all_sent = self
                .due
                .peek()
                .is_none_or(|Reverse((due_ns, _))| *due_ns >= end_ns)
                || self.progress.open == 0;
            if now_ns >= end_ns && settled && all_sent {
                self.finish()?;
            }
        }
        if now_ns >= self.next_progress_ns {
            self.next_progress_ns = now_ns + PROGRESS_NS;
            if self.stage != Stage::After {
                report_to_coordinator(&WorkerReport::Progress(self.progress))?;
            }
        }
        Ok(())
    }

    /// Ends the measurement and reports.
    fn finish(&mut self) -> io::Result<()> {
        if self.stage == Stage::After {
            return Ok(());
        }
        if let Stage::Measuring(at_ns) = self.stage {
            self.counters.lasted_ns = monotonic_ns().saturating_sub(at_ns);
        }
        self.stage = Stage::After;
        self.due.clear();
        self.dialing.stop();
        for line in &self.lines {
            self.counters.groups[usize::from(line.group)].unanswered +=
                line.outstanding.len() as u64;
            self.counters.evictions.open += u64::from(line.mute && line.stream.is_some());
        }
        self.counters.progress = self.progress;
        self.counters.sources = self.origins.addrs().collect();
        report_to_coordinator(&WorkerReport::Done(Box::new(std::mem::take(
            &mut self.counters,
        ))))
    }

    /// Lets all connections go in such a way that their ports are free at once.
    fn release(&mut self) {
        self.lines
            .iter()
            .filter_map(|line| line.stream.as_ref())
            .for_each(reset_on_close);
    }
}

fn report_to_coordinator(report: &WorkerReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
