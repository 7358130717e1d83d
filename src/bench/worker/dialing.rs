//! Opens connections at the rate of the plan.

use std::collections::VecDeque;
use std::io;

use mio::{Interest, Token};

use super::line::{TIMEOUT, cause};
use super::{Stage, Worker};
use crate::bench::plan::ProgressCounts;
use crate::net::{dial_from, monotonic_ns};

/// Dials begun per turn, so that those already connected are served meanwhile.
const DIALS_PER_TURN: u32 = 64;
/// Dials under way at once. More would only lengthen the server's queue, and beyond its backlog
/// they are lost and repeated a second later.
const MAX_PENDING_DIALS: u32 = 1024;
/// A dial that takes longer has failed: time enough for two repetitions of a lost SYN.
const DIAL_TIMEOUT_NS: u64 = 10_000_000_000;

/// The progress of the dials.
#[derive(Default)]
pub(super) struct Dialing {
    /// Connections to be dialled in all.
    upto: u32,
    /// The next one to dial.
    next: u32,
    under_way: u32,
    /// When this stretch began, with which connection, and how far apart its dials are.
    began_ns: u64,
    began_with: u32,
    every_ns: f64,
    /// An order has not been reported as carried out yet.
    owed: bool,
    /// Dials under way, oldest first, and some that are over.
    oldest: VecDeque<(u64, u32)>,
}

impl Dialing {
    pub(super) fn command(&mut self, upto: u32, per_s: Option<f64>) {
        self.upto = upto.max(self.next);
        (self.began_ns, self.began_with, self.owed) = (monotonic_ns(), self.next, true);
        self.every_ns = per_s.map_or(0.0, |per_s| 1e9 / per_s);
    }

    pub(super) fn stop(&mut self) {
        (self.upto, self.owed) = (self.next, false);
    }

    /// When there is something to do by time alone.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let dial =
            (self.next < self.upto && self.under_way < MAX_PENDING_DIALS).then(|| self.due_ns());
        let timeout = self
            .oldest
            .front()
            .map(|(dialled_ns, _)| dialled_ns + DIAL_TIMEOUT_NS);
        [dial, timeout].into_iter().flatten().min()
    }

    fn due_ns(&self) -> u64 {
        self.began_ns
            .saturating_add((f64::from(self.next - self.began_with) * self.every_ns) as u64)
    }

    /// Once per order: the counts when all its dials are over.
    pub(super) fn take_completion(&mut self, progress: ProgressCounts) -> Option<ProgressCounts> {
        let complete = self.owed && self.next == self.upto && self.under_way == 0;
        self.owed &= !complete;
        complete.then_some(progress)
    }
}

impl Worker {
    pub(super) fn dial_due(&mut self) -> io::Result<()> {
        let now_ns = monotonic_ns();
        for _ in 0..DIALS_PER_TURN {
            let dialing = &self.dialing;
            if dialing.next >= dialing.upto
                || dialing.under_way >= MAX_PENDING_DIALS
                || dialing.due_ns() > now_ns
            {
                break;
            }
            self.dial(dialing.next)?;
        }
        while let Some((dialled_ns, index)) = self.dialing.oldest.front().copied() {
            let line = &self.lines[index as usize];
            let over = line.established || line.stream.is_none();
            if !over && dialled_ns + DIAL_TIMEOUT_NS > now_ns {
                break;
            }
            self.dialing.oldest.pop_front();
            if !over {
                self.fail_dial(index, TIMEOUT);
            }
        }
        Ok(())
    }

    fn dial(&mut self, index: u32) -> io::Result<()> {
        self.dialing.next += 1;
        self.dialing.under_way += 1;
        self.progress.dialled += 1;
        let now_ns = monotonic_ns();
        let addr = self.plan.addr;
        match self.origins.dial(|origin| dial_from(origin, addr)) {
            Ok(mut stream) => {
                let token = Token(index as usize);
                self.poll.registry().register(
                    &mut stream,
                    token,
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                let line = &mut self.lines[index as usize];
                (line.stream, line.dialled_ns) = (Some(stream), now_ns);
                self.dialing.oldest.push_back((now_ns, index));
            }
            Err(error) => self.fail_dial(index, cause(&error)),
        }
        Ok(())
    }

    /// The socket of a dial is ready.
    pub(super) fn finish_dial(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        match line.finish_dial(self.plan.addr) {
            Ok(false) => {}
            Ok(true) => {
                self.dialing.under_way -= 1;
                self.progress.established += 1;
                self.progress.open += 1;
                if self.stage == Stage::Before {
                    self.counters
                        .connecting
                        .record(monotonic_ns().saturating_sub(line.dialled_ns));
                }
                let hello = &self.plan.groups[usize::from(line.group)].hello;
                if !hello.is_empty() {
                    line.last_sent_ns = monotonic_ns();
                    // A broken connection is found by its next read.
                    let _ = line.write(hello);
                }
            }
            Err(error) => self.fail_dial(index, cause(&error)),
        }
    }

    fn fail_dial(&mut self, index: u32, cause: &'static str) {
        self.lines[index as usize].stream = None;
        self.dialing.under_way -= 1;
        self.progress.failed += 1;
        *self.counters.failed.entry(cause.to_string()).or_default() += 1;
    }
}
