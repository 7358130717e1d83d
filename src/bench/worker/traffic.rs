//! Traffic on the connections: scheduled messages, replies, pings, pushed messages, ends.

use std::cmp::Reverse;

use mio::event::Event;

use super::line::{LineRead, cause};
use super::{SENDS_PER_TURN, Stage, Worker};
use crate::bench::plan::{Role, WaitFor};
use crate::bench::scan::ScanResult;
use crate::net::monotonic_ns;

/// Reads of one connection per turn; the rest waits until the others had theirs.
const READS_PER_TURN: usize = 4;

impl Worker {
    pub(super) fn handle_event(&mut self, index: usize, event: &Event) {
        // An event of a connection that ended in this same turn finds no stream.
        let Some(line) = self
            .lines
            .get_mut(index)
            .filter(|line| line.stream.is_some())
        else {
            return;
        };
        let key = index as u32;
        line.end_in_sight |= event.is_read_closed() || event.is_error();
        if !line.established {
            self.finish_dial(key);
        } else if event.is_writable() && line.is_stuck() {
            // A broken connection is found by its next read.
            let _ = line.flush();
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(key);
        }
    }

    /// Reads on where a budget had run out.
    pub(super) fn read_ready(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else {
                return;
            };
            self.lines[index as usize].ready = false;
            self.read(index);
        }
    }

    fn read(&mut self, index: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut more = self.lines[index as usize].established;
        for _ in 0..READS_PER_TURN {
            if !more {
                break;
            }
            match self.lines[index as usize].read(&mut scratch) {
                LineRead::Nothing => more = false,
                LineRead::End(cause) => {
                    self.end(index, cause);
                    more = false;
                }
                LineRead::Bytes(n, maybe_more) => {
                    self.handle_bytes(index, &scratch[..n]);
                    more = maybe_more;
                }
            }
        }
        self.scratch = scratch;
        let line = &mut self.lines[index as usize];
        if more && line.stream.is_some() && !line.ready {
            line.ready = true;
            self.ready.push_back(index);
        }
    }

    fn handle_bytes(&mut self, index: u32, bytes: &[u8]) {
        let now_ns = monotonic_ns();
        let line = &mut self.lines[index as usize];
        let group = usize::from(line.group);
        let ScanResult { replies, asks } =
            line.scan
                .feed(bytes, &self.matchers[group], self.plan.answer.as_ref());
        if asks > 0 && !line.mute {
            self.answer(index, asks, now_ns);
        }
        if replies == 0 {
            return;
        }
        match self.plan.groups[group].role {
            Role::Listen => self.handle_pushed(index, replies, now_ns),
            _ => self.handle_replies(index, replies, now_ns),
        }
    }

    fn answer(&mut self, index: u32, asks: u32, now_ns: u64) {
        let Some(answer) = &self.plan.answer else {
            return;
        };
        let line = &mut self.lines[index as usize];
        // A server that pings again because it got no answer gets one answer.
        if !line.is_stuck() {
            line.last_sent_ns = now_ns;
            let _ = line.write(&answer.reply);
        }
        if matches!(self.stage, Stage::Measuring(_)) {
            self.counters.groups[usize::from(line.group)].asks += u64::from(asks);
        }
    }

    fn handle_replies(&mut self, index: u32, replies: u32, now_ns: u64) {
        let line = &mut self.lines[index as usize];
        let group = usize::from(line.group);
        let load = &mut self.counters.groups[group];
        let mut matched = 0;
        for _ in 0..replies {
            // More than is outstanding: a greeting, or a message of the server's own.
            let Some(intended_ns) = line.outstanding.pop_front() else {
                break;
            };
            load.latency.record(now_ns.saturating_sub(intended_ns));
            matched += 1;
        }
        load.answered += u64::from(matched);
        self.progress.answered += u64::from(matched);
        if self.plan.wait_for == WaitFor::Replies {
            self.pending -= u64::from(matched);
        }
        if let (Role::Loop { .. }, Stage::Measuring(at_ns)) =
            (self.plan.groups[group].role, self.stage)
            && now_ns < at_ns + self.plan.duration_ns
            && matched > 0
        {
            self.send(index, matched, now_ns);
        }
    }

    fn handle_pushed(&mut self, index: u32, messages: u32, now_ns: u64) {
        let Stage::Measuring(at_ns) = self.stage else {
            return;
        };
        let line = &mut self.lines[index as usize];
        let load = &mut self.counters.groups[usize::from(line.group)];
        for _ in 0..messages {
            // TCP keeps the order, so the n-th to arrive is the n-th that was sent.
            let Some(push) = self.counters.pushes.get_mut(line.received as usize) else {
                return;
            };
            let intended_ns = at_ns + u64::from(line.received) * self.plan.push_every_ns;
            let ns = now_ns.saturating_sub(intended_ns);
            push.record(ns);
            load.latency.record(ns);
            load.answered += 1;
            self.progress.answered += 1;
            line.received += 1;
            self.pending -= 1;
        }
    }

    /// Sends the scheduled messages that are due.
    pub(super) fn send_due(&mut self) {
        let Stage::Measuring(at_ns) = self.stage else {
            return;
        };
        for _ in 0..SENDS_PER_TURN {
            let now_ns = monotonic_ns();
            let Some(Reverse((due_ns, index))) = self
                .due
                .peek()
                .copied()
                .filter(|Reverse((due_ns, _))| *due_ns <= now_ns)
            else {
                return;
            };
            self.due.pop();
            let line = &self.lines[index as usize];
            let group = usize::from(line.group);
            let load = &mut self.counters.groups[group];
            if line.stream.is_none() {
                load.unsent += 1;
            } else if line.is_stuck() {
                // The connection takes nothing; unsent messages are counted apart from
                // unanswered ones.
                load.unsent += 1;
            } else {
                let count = match self.plan.groups[group].role {
                    // All of a closed loop that is ever due is its beginning.
                    Role::Loop { depth } => depth,
                    _ => {
                        load.send_lag.record(now_ns - due_ns);
                        1
                    }
                };
                load.last_sent_ns = now_ns - at_ns;
                self.send(index, count, due_ns);
            }
            match self.plan.groups[group].role {
                Role::Paced(pace) if due_ns + pace.every_ns < at_ns + pace.until_ns => {
                    self.due.push(Reverse((due_ns + pace.every_ns, index)));
                }
                Role::Mute => self.lines[index as usize].mute = true,
                _ => {}
            }
        }
    }

    /// Writes this many messages of the connection's group, which were scheduled for `intended_ns`.
    fn send(&mut self, index: u32, count: u32, intended_ns: u64) {
        let line = &mut self.lines[index as usize];
        let group = usize::from(line.group);
        let bytes = &self.batches[group][..self.plan.groups[group].message.len() * count as usize];
        if line.outstanding.is_empty() {
            line.scan.restart_reply();
        }
        line.last_sent_ns = monotonic_ns();
        if let Err(error) = line.write(bytes) {
            // Bytes from before the close can still be read, but are not waited for.
            self.end(index, cause(&error));
            return;
        }
        self.counters.groups[group].sent += u64::from(count);
        self.progress.sent += u64::from(count);
        let replies = match self.plan.groups[group].role {
            Role::Paced(pace) => pace.replies,
            Role::Loop { .. } => true,
            Role::Quiet | Role::Listen | Role::Mute => false,
        };
        if replies {
            let line = &mut self.lines[index as usize];
            line.outstanding.extend((0..count).map(|_| intended_ns));
            if self.plan.wait_for == WaitFor::Replies {
                self.pending += u64::from(count);
            }
        }
    }

    /// A connection is over. Its outstanding replies are written off.
    fn end(&mut self, index: u32, cause: &'static str) {
        let now_ns = monotonic_ns();
        let line = &mut self.lines[index as usize];
        line.stream = None;
        self.progress.open -= 1;
        let group = usize::from(line.group);
        let unanswered = std::mem::take(&mut line.outstanding).len() as u64;
        if self.stage == Stage::After {
            return;
        }
        self.counters.groups[group].unanswered += unanswered;
        match self.plan.wait_for {
            WaitFor::Replies => self.pending -= unanswered,
            WaitFor::Pushes
                if self.plan.groups[group].role == Role::Listen && self.stage != Stage::Before =>
            {
                self.pending -= u64::from(self.plan.pushes - line.received);
            }
            WaitFor::Closes
                if self.plan.groups[group].role == Role::Mute && self.stage != Stage::Before =>
            {
                self.pending -= 1
            }
            WaitFor::Pushes | WaitFor::Closes => {}
        }
        if line.mute {
            self.counters
                .evictions
                .record(now_ns - line.last_sent_ns, self.plan.bound_ns);
        } else {
            *self.counters.groups[group]
                .lost
                .entry(cause.to_string())
                .or_default() += 1;
        }
    }
}
