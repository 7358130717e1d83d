//! The worker processes: starting them, giving them orders, hearing their reports.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::messages::{WorkerCommand, WorkerReport};
use super::plan::Plan;
use crate::error::Error;

/// The workers of one measurement. They end with this value, or when this process does, because
/// then their pipes end.
pub(super) struct Workers {
    workers: Vec<WorkerProcess>,
    news: Receiver<WorkerEvent>,
}

struct WorkerProcess {
    child: Child,
    orders: Option<ChildStdin>,
}

/// An event for the coordinator.
pub(super) enum WorkerEvent {
    WorkerReport(usize, WorkerReport),
    /// A worker is gone, and how it ended.
    Gone(usize),
    /// Ctrl-C.
    Interrupt,
}

impl Workers {
    /// Starts one worker per plan, and takes over SIGINT and SIGTERM.
    pub(super) fn spawn(plans: &[Plan]) -> Result<Self, Error> {
        // Workers report ten times a second at most, and the coordinator does little else than to
        // listen.
        let (sender, news) = mpsc::channel();
        let mut signals =
            Signals::new([SIGINT, SIGTERM]).map_err(Error::io("watch for signals"))?;
        let interrupts = sender.clone();
        let watch = move || {
            let mut signals = signals.forever();
            if signals.next().is_some() {
                let _ = interrupts.send(WorkerEvent::Interrupt);
            }
            // A second interrupt ends at once, without figures. The children end with this
            // process.
            if signals.next().is_some() {
                std::process::exit(super::EXIT_INTERRUPTED.into());
            }
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(watch)
            .map_err(Error::io("start a thread"))?;
        let mut workers = Workers {
            workers: Vec::new(),
            news,
        };
        for (index, plan) in plans.iter().enumerate() {
            workers
                .spawn_one(index, plan, sender.clone())
                .map_err(Error::io("start a worker"))?;
        }
        Ok(workers)
    }

    fn spawn_one(
        &mut self,
        index: usize,
        plan: &Plan,
        sender: Sender<WorkerEvent>,
    ) -> io::Result<()> {
        let mut child = own_command("worker")?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (orders, stdout) = (child.stdin.take(), child.stdout.take());
        self.workers.push(WorkerProcess { child, orders });
        let listen = move || {
            for line in stdout
                .into_iter()
                .flat_map(|stdout| BufReader::new(stdout).lines())
                .map_while(Result::ok)
            {
                // A worker that sends an invalid report counts as failed.
                let Ok(report) = serde_json::from_str(&line) else {
                    break;
                };
                if sender
                    .send(WorkerEvent::WorkerReport(index, report))
                    .is_err()
                {
                    return;
                }
            }
            let _ = sender.send(WorkerEvent::Gone(index));
        };
        thread::Builder::new().name("worker".into()).spawn(listen)?;
        self.write(index, &serde_json::to_string(plan)?)
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.workers
            .iter()
            .map(|worker| worker.child.id())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn command(&mut self, worker: usize, command: WorkerCommand) -> Result<(), Error> {
        let tell = serde_json::to_string(&command)
            .map_err(io::Error::from)
            .and_then(|line| self.write(worker, &line));
        tell.map_err(Error::io("talk to a worker"))
    }

    pub(super) fn command_all(&mut self, command: WorkerCommand) -> Result<(), Error> {
        (0..self.len()).try_for_each(|worker| self.command(worker, command))
    }

    fn write(&mut self, worker: usize, line: &str) -> io::Result<()> {
        match &mut self.workers[worker].orders {
            Some(orders) => orders.write_all(format!("{line}\n").as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The next event, or `None` after a timeout.
    pub(super) fn next(&mut self, wait: Duration) -> Option<WorkerEvent> {
        match self.news.recv_timeout(wait) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            // The signal thread holds a sender for as long as the process lives.
            Err(RecvTimeoutError::Disconnected) => Some(WorkerEvent::Interrupt),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All pipes first, so that they end side by side.
        self.workers
            .iter_mut()
            .for_each(|worker| drop(worker.orders.take()));
        for worker in &mut self.workers {
            let _ = worker.child.wait();
        }
    }
}

/// This program with `bench SUBCOMMAND`, in a process group of its own, so that only the
/// coordinator gets the terminal's Ctrl-C.
pub(super) fn own_command(subcommand: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", subcommand]).process_group(0);
    Ok(command)
}
