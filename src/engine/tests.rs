//! Each rule of the engine by itself.

mod accept;
mod admission_and_drain;
mod app_timers;
mod closing;
mod deadlines;
mod fanout;
mod heartbeat;
mod login;
mod memory;
mod queues;
mod reconfigure;

use std::io::IoSlice;
use std::time::Duration;

use super::*;
use crate::close::RejectReason;
use crate::config::{Heartbeat, Limits};
use crate::error::SendError;
use crate::framing::Framing;

const TICK_MS: u64 = 100;
const INTERVAL_MS: u64 = 1000;
const BOUND_MS: u64 = 4000;

/// Lines, a heartbeat of 1 s with 3 missed, ticks of 100 ms, and an outbox of 1,000 bytes.
fn config() -> Config {
    Config {
        heartbeat: Some(Heartbeat {
            interval: Duration::from_millis(INTERVAL_MS),
            retry: None,
            max_missed: 3,
            send_pings: true,
            ..Heartbeat::default()
        }),
        limits: Limits {
            max_outbox: 1000,
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// What a recording handler does with a message, by its first byte.
const PAUSE: u8 = b'!';
const CLOSE_NOW: u8 = b'#';
const CLOSE_AFTER_FLUSH: u8 = b'$';
const BROADCAST: u8 = b'*';

/// Echoes messages, unless they are orders, and writes down every callback.
#[derive(Default)]
struct Recorder {
    seen: Vec<Seen>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Open(ConnId),
    Message(ConnId, String),
    QueueEmpty(ConnId),
    Deadline(ConnId),
    Wake,
    Broadcast(usize),
    Close(ConnId, CloseReason),
}

impl Handler for Recorder {
    fn on_open(&mut self, _: &mut Context<'_>, id: ConnId) {
        self.seen.push(Seen::Open(id));
    }

    fn on_login(
        &mut self,
        _: &mut Context<'_>,
        _: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        login::decide(request)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.seen
            .push(Seen::Message(id, String::from_utf8_lossy(message).into()));
        match message.first() {
            Some(&PAUSE) => cx.pause_reads(id),
            Some(&BROADCAST) => drop(cx.broadcast(message, Some(id))),
            Some(&CLOSE_NOW) => assert!(cx.close(id, Close::Now)),
            first => {
                let _ = cx.send(id, message);
                if first == Some(&CLOSE_AFTER_FLUSH) {
                    assert!(cx.close(id, Close::AfterFlush));
                }
            }
        }
    }

    fn on_queue_empty(&mut self, _: &mut Context<'_>, id: ConnId) {
        self.seen.push(Seen::QueueEmpty(id));
    }

    fn on_deadline(&mut self, _: &mut Context<'_>, id: ConnId) {
        self.seen.push(Seen::Deadline(id));
    }

    fn on_wake(&mut self, _: &mut Context<'_>) {
        self.seen.push(Seen::Wake);
    }

    fn on_broadcast(&mut self, _: &mut Context<'_>, _: BroadcastId, receivers: usize) {
        self.seen.push(Seen::Broadcast(receivers));
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, closed: &Closed) {
        self.seen.push(Seen::Close(id, closed.reason));
    }
}

/// An engine, its handler and its clock, with a driver whose sockets take everything at once by
/// default.
struct Rig {
    engine: Engine,
    handler: Recorder,
    now: Timestamp,
}

impl Rig {
    fn new(config: &Config) -> Self {
        Rig {
            engine: Engine::new(config).expect("a valid configuration"),
            handler: Recorder::default(),
            now: Timestamp::ZERO,
        }
    }

    fn try_open(&mut self, ip: u8) -> Result<ConnId, RejectReason> {
        self.engine.handle_open(
            self.now,
            SocketAddr::from(([192, 0, 2, ip], 7)),
            &mut self.handler,
        )
    }

    fn open(&mut self) -> ConnId {
        self.try_open(1).expect("room")
    }

    fn open_many(&mut self, n: usize) -> Vec<ConnId> {
        (0..n).map(|_| self.open()).collect()
    }

    fn receive(&mut self, id: ConnId, bytes: &str) {
        self.engine.handle_bytes(
            self.now,
            id,
            bytes.as_bytes(),
            &mut Work::new(u32::MAX),
            &mut self.handler,
        );
    }

    fn outgoing(&self, id: ConnId) -> String {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = self.engine.outgoing(id, &mut slices);
        slices[..filled]
            .iter()
            .map(|slice| String::from_utf8_lossy(slice))
            .collect()
    }

    /// The kernel takes `n` bytes and is full.
    fn write(&mut self, id: ConnId, n: usize) {
        while self
            .engine
            .poll_dirty()
            .or_else(|| self.engine.poll_broadcast_only())
            .is_some()
        {}
        self.engine
            .handle_written(self.now, id, n, &mut self.handler);
        self.engine.handle_blocked(id);
    }

    /// Writes all that is queued, and returns it.
    fn flush(&mut self, id: ConnId) -> String {
        let written = self.outgoing(id);
        self.engine
            .handle_written(self.now, id, written.len(), &mut self.handler);
        written
    }

    fn flush_dirty(&mut self) {
        while let Some(id) = self
            .engine
            .poll_dirty()
            .or_else(|| self.engine.poll_broadcast_only())
        {
            self.flush(id);
        }
    }

    fn reap(&mut self) -> Vec<(ConnId, Closed)> {
        std::iter::from_fn(|| self.engine.poll_closed(self.now, &mut self.handler)).collect()
    }

    fn reasons(&mut self) -> Vec<CloseReason> {
        self.reap()
            .into_iter()
            .map(|(_, closed)| closed.reason)
            .collect()
    }

    /// Moves the clock to `ms` and stops at every timer; peers send nothing. `unread`: whether
    /// unread bytes wait at final reads.
    fn pass_until(&mut self, ms: u64, unread: bool) {
        while let Some(at) = self.engine.poll_timeout().filter(|at| at.as_ms() <= ms) {
            self.now = self.now.max(at);
            self.engine.handle_timers(self.now, usize::MAX);
            while let Some(id) = self.engine.poll_final_read() {
                let found = FinalRead {
                    unread,
                    ..FinalRead::default()
                };
                self.engine.handle_progress(self.now, id, None);
                self.engine.handle_final_read(self.now, id, found);
            }
            while let Some(id) = self.engine.poll_readable() {
                self.engine.resume_decoding(
                    self.now,
                    id,
                    &mut Work::new(u32::MAX),
                    &mut self.handler,
                );
            }
            self.flush_dirty();
            if self.engine.closed.front().is_some() {
                return;
            }
        }
        self.now = Timestamp::from_ms(ms);
    }

    fn messages(&self) -> Vec<&str> {
        self.handler
            .seen
            .iter()
            .filter_map(|seen| {
                if let Seen::Message(_, text) = seen {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect()
    }

    fn queue_empties(&self) -> usize {
        self.handler
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::QueueEmpty(_)))
            .count()
    }
}
