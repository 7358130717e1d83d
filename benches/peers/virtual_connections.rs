//! Drives the engine and its wheel without socket and clock, in the process that `engine_alone.rs`
//! starts.

use std::hint::black_box;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::process;
use std::time::Instant;

use heartline::engine::budgets::{CHECKS_AT_ONCE, SLICES_PER_WRITE};
use heartline::engine::wheel::{SLOTS, Wheel};
use heartline::engine::{Engine, Work};
use heartline::time::{Timestamp, duration_to_ms};
use heartline::{Config, ConnId, Context, Handler};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::child::Failure;
use crate::proc;

/// Small sizes are repeated more often: the number of measured intervals per connection, or of
/// operations on the wheel, lies between these bounds.
const OPERATIONS: u32 = 4_000_000;
const MIN_REPETITIONS: u32 = 4;
const MAX_REPETITIONS: u32 = 400;

const WARM_UP_LINES: u32 = 100;

/// The last step that the wheel can tell from the others.
const HORIZON: u64 = SLOTS as u64 - 1;

#[derive(Serialize, Deserialize)]
pub struct Costs {
    /// Memory of the idle engine, without that of the process itself.
    pub resident_bytes: f64,
    pub insert_ns: f64,
    pub expiry_ns: f64,
    /// Of the whole engine, per line and heartbeat interval.
    pub interval_ns: f64,
    /// Share of the time in which the process, which never sleeps, had no core.
    pub waited: f64,
}

pub fn measure(lines: u32) -> Result<Costs, Failure> {
    let (start, start_ns) = (Instant::now(), cpu_ns());
    // The pages of the code are resident from its first use on, and no line's cost.
    Fleet::open(WARM_UP_LINES)?.live(1)?;
    let empty = proc::rss(process::id())?;
    let mut fleet = Fleet::open(lines)?;
    fleet.live(1)?;
    let intervals = repetitions(lines);
    let before = cpu_ns();
    fleet.live(intervals)?;
    let interval_ns = (cpu_ns() - before) / f64::from(lines) / f64::from(intervals);
    fleet.rest();
    let resident_bytes = proc::rss(process::id())? - empty;
    drop(fleet);
    let (insert_ns, expiry_ns) = turn_wheel(lines);
    let waited = 1.0 - (cpu_ns() - start_ns) / start.elapsed().as_nanos() as f64;
    Ok(Costs {
        resident_bytes,
        insert_ns,
        expiry_ns,
        interval_ns,
        waited,
    })
}

fn repetitions(lines: u32) -> u32 {
    (OPERATIONS / lines).clamp(MIN_REPETITIONS, MAX_REPETITIONS)
}

/// CPU of this thread, the only one, without that of others on the core.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Connections send nothing but heartbeats.
struct Silent;

impl Handler for Silent {
    fn on_message(&mut self, _: &mut Context<'_>, _: ConnId, _: &[u8]) {}
}

/// Lines that answer every ping a tick later, on sockets that take everything.
struct Fleet {
    engine: Engine,
    now: Timestamp,
    tick_ms: u64,
    ticks_per_interval: u64,
    asked: Vec<ConnId>,
}

impl Fleet {
    /// Opens the connections evenly over one heartbeat interval; the first are pinged meanwhile.
    fn open(lines: u32) -> Result<Self, Failure> {
        let config = Config::default();
        let interval_ms = config
            .heartbeat
            .as_ref()
            .map_or(0, |heartbeat| duration_to_ms(heartbeat.interval));
        let tick_ms = duration_to_ms(config.tick);
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let mut fleet = Fleet {
            engine,
            now: Timestamp::ZERO,
            tick_ms,
            ticks_per_interval: interval_ms / tick_ms,
            asked: Vec::new(),
        };
        let mut opened = 0;
        for tick in 1..=fleet.ticks_per_interval {
            let due = u64::from(lines) * tick / fleet.ticks_per_interval;
            (opened..due).try_for_each(|index| fleet.open_one(index as u32))?;
            opened = due;
            fleet.pass_tick();
        }
        Ok(fleet)
    }

    fn open_one(&mut self, index: u32) -> Result<(), Failure> {
        let peer = SocketAddr::from((
            Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + index),
            7,
        ));
        self.engine
            .handle_open(self.now, peer, &mut Silent)
            .map_err(|refusal| format!("a virtual connection was rejected: {refusal:?}"))?;
        Ok(())
    }

    /// Lets heartbeat intervals pass, and checks that each connection was pinged and answered in
    /// each.
    fn live(&mut self, intervals: u32) -> Result<(), Failure> {
        let before = self.engine.stats().pongs_received;
        (0..self.ticks_per_interval * u64::from(intervals)).for_each(|_| self.pass_tick());
        let (lines, answers) = (
            self.engine.connections() as u64,
            self.engine.stats().pongs_received - before,
        );
        if answers < lines * u64::from(intervals)
            || self.engine.poll_closed(self.now, &mut Silent).is_some()
        {
            return Err(Failure::Failed(format!(
                "{lines} virtual connections answered {answers} times \
                 in {intervals} intervals, or some were lost"
            )));
        }
        Ok(())
    }

    fn pass_tick(&mut self) {
        self.now = self.now.plus_ms(self.tick_ms);
        for id in self.asked.drain(..) {
            self.engine.handle_bytes(
                self.now,
                id,
                b"pong\n",
                &mut Work::new(u32::MAX),
                &mut Silent,
            );
        }
        while !self.engine.handle_timers(self.now, CHECKS_AT_ONCE) {
            self.flush();
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(id) = self
            .engine
            .poll_dirty()
            .or_else(|| self.engine.poll_broadcast_only())
        {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let filled = self.engine.outgoing(id, &mut slices);
            let written = black_box(&slices[..filled])
                .iter()
                .map(|slice| slice.len())
                .sum();
            self.engine
                .handle_written(self.now, id, written, &mut Silent);
            self.asked.push(id);
        }
    }

    /// No ping is outstanding, and the buffers for the pongs are not the engine's.
    fn rest(&mut self) {
        self.asked.drain(..).for_each(|id| {
            self.engine.handle_bytes(
                self.now,
                id,
                b"pong\n",
                &mut Work::new(u32::MAX),
                &mut Silent,
            )
        });
        self.asked = Vec::new();
    }
}

/// What it costs to put an entry elsewhere, as each ping and each pong does, and to take one that
/// is due; both with an entry for each line. Slots are random over the whole wheel, and keys
/// random, so that neighbours in a slot are none in memory.
fn turn_wheel(lines: u32) -> (f64, f64) {
    let (mut wheel, mut random, mut now) = (Wheel::new(), fastrand::Rng::with_seed(7), 0);
    let (mut insert_ns, mut expiry_ns) = (0.0, 0.0);
    let (keys, repetitions) = (lines as usize, repetitions(lines));
    for _ in 0..repetitions {
        (0..keys).for_each(|key| wheel.insert(key, now + random.u64(1..=HORIZON)));
        let start = cpu_ns();
        (0..keys).for_each(|_| wheel.insert(random.usize(0..keys), now + random.u64(1..=HORIZON)));
        let inserted = cpu_ns();
        for tick in now..=now + HORIZON {
            while let Some(key) = wheel.expire(tick) {
                black_box(key);
            }
        }
        insert_ns += inserted - start;
        expiry_ns += cpu_ns() - inserted;
        now += HORIZON;
    }
    let operations = f64::from(lines) * f64::from(repetitions);
    (insert_ns / operations, expiry_ns / operations)
}
