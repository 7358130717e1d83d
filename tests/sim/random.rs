//! Whole runs at random.

use std::num::NonZeroU32;
use std::time::Duration;

use heartline::{CloseReason, Config, Framing, Heartbeat, Limits, OnFull, OnSlow, Stats};

use crate::app::Habits;
use crate::driver::{Budgets, Command};
use crate::peer::{Plan, Talk};
use crate::world::{Action, Setup, World};

/// Runs that every `cargo test` makes, always the same.
const FIXED_SEEDS: u64 = 50;
/// Runs that every `cargo test` makes, each time others. `HEARTLINE_SIM_RUNS` asks for more.
const FRESH_RUNS: u64 = 20;

#[test]
fn fixed_seeds() {
    let mut closed = [0; CloseReason::ALL.len()];
    for seed in 0..FIXED_SEEDS {
        let (_, stats) = play(seed);
        CloseReason::ALL.iter().for_each(|reason| closed[reason.index()] += stats.closed(*reason));
    }
    // What never happens is not tested. These take a kernel: it alone knows of timeouts of its own and of what is unacknowledged.
    let beyond = [CloseReason::NetworkTimeout, CloseReason::ReadFailed, CloseReason::WriteFailed, CloseReason::HalfOpen];
    let never = |reason: &&CloseReason| closed[reason.index()] == 0 && !beyond.contains(reason);
    assert_eq!(CloseReason::ALL.iter().filter(never).collect::<Vec<_>>(), [&CloseReason::Shutdown; 0]);
}

#[test]
fn fresh_seeds() {
    let runs = std::env::var("HEARTLINE_SIM_RUNS").map_or(FRESH_RUNS, |runs| runs.parse().expect("HEARTLINE_SIM_RUNS is a number"));
    for _ in 0..runs {
        run(fastrand::u64(..));
    }
}

/// The one that a failure tells to run; without a seed it shows that the smallest one leads to the same trace twice.
#[test]
fn replay() {
    let seed = std::env::var("HEARTLINE_SIM_SEED").map_or(0, |seed| seed.parse().expect("HEARTLINE_SIM_SEED is a number"));
    assert_eq!(run(seed), run(seed), "the same seed, another trace");
}

#[test]
fn the_same_seed_leads_to_the_same_trace() {
    for seed in 20..26 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: HEARTLINE_SIM_TRACE=1 HEARTLINE_SIM_SEED={} cargo test --test sim -- --nocapture replay", self.0);
        }
    }
}

/// One run from its seed; returns the hash of its trace.
fn run(seed: u64) -> u64 {
    play(seed).0
}

fn play(seed: u64) -> (u64, Stats) {
    let _replay = Replay(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let setup = setup(&mut rng, seed);
    if std::env::var_os("HEARTLINE_SIM_TRACE").is_some() {
        println!("{setup:#?}");
    }
    let interval_ms = setup.config.heartbeat.as_ref().map_or(500, |heartbeat| heartbeat.interval.as_millis() as u64);
    let bound_ms = setup.config.heartbeat.as_ref().map_or(2000, |heartbeat| heartbeat.bound().as_millis() as u64);
    let peers = match rng.u8(0..50) {
        0..=24 => rng.usize(1..=4),
        25..=44 => rng.usize(5..=60),
        45..=48 => rng.usize(61..=400),
        _ => rng.usize(401..=3000),
    };
    let end_ms = bound_ms * if peers > 400 { 3 } else { rng.u64(3..=8) };
    let mut world = World::new(setup);
    for _ in 0..peers {
        let plan = plan(&mut rng, &world.setup.config, interval_ms, bound_ms, peers);
        let at_ms = if rng.bool() { 0 } else { rng.u64(0..=bound_ms) };
        world.at(at_ms, Action::Connect(plan));
    }
    if rng.u8(0..4) == 0 {
        world.at(rng.u64(0..=end_ms), Action::Blackout);
    }
    for _ in 0..rng.u8(0..4) {
        world.at(rng.u64(0..=end_ms), Action::Freeze(rng.u64(1..=interval_ms * 8)));
    }
    for _ in 0..rng.u8(0..40) {
        world.at(rng.u64(0..=end_ms), Action::Wake);
    }
    let commands = if rng.bool() { rng.u64(0..30) } else { 0 };
    for _ in 0..commands {
        world.run_until(world.now_ms() + end_ms / commands);
        let command = world.random_command();
        world.at(world.now_ms(), Action::Command(command));
    }
    world.run_until(end_ms);

    let by_shutdown = rng.bool() || world.setup.config.heartbeat.is_none();
    let grace_ms = if rng.u8(0..4) == 0 { 0 } else { rng.u64(0..=bound_ms) };
    if by_shutdown && rng.u8(0..4) == 0 {
        world.at(world.now_ms() + grace_ms / 2, Action::Command(Command::Shutdown(grace_ms / 4)));
    }
    world.end(by_shutdown, grace_ms);
    assert_eq!(world.driver.engine.poll_timeout(), None, "nothing is due when nobody is connected");
    (world.app.trace.hash, world.driver.engine.stats().clone())
}

fn setup(rng: &mut fastrand::Rng, seed: u64) -> Setup {
    let tick_ms = 1 << rng.u32(0..8);
    let interval_ms = tick_ms * rng.u64(2..=30) + rng.u64(0..tick_ms);
    let heartbeat = Heartbeat { interval: Duration::from_millis(interval_ms), missed: rng.u8(1..=4), push: rng.u8(0..4) > 0 };
    let max_message = rng.usize(64..=8192);
    // Room for one reply more than what stops reading, but now and then not.
    let max_outbox = if rng.u8(0..8) > 0 { 256 + 2 * max_message + rng.usize(0..=64 * 1024) } else { rng.usize(256..=max_message + 256) };
    let max_memory = max_outbox + max_message + rng.usize(0..=16 * 1024);
    let config = Config {
        framing: [Framing::Lines, Framing::Length, Framing::Raw][rng.usize(0..3)],
        heartbeat: (rng.u8(0..10) > 0).then_some(heartbeat),
        tick: Duration::from_millis(tick_ms),
        limits: Limits {
            max_message,
            max_outbox,
            on_slow: if rng.u8(0..3) > 0 { OnSlow::Close } else { OnSlow::Drop },
            max_memory: (rng.u8(0..3) == 0).then_some(max_memory),
            write_timeout: timeout(rng, interval_ms * 6),
            frame_timeout: timeout(rng, interval_ms * 6),
            first_message_timeout: timeout(rng, interval_ms * 6),
            max_message_rate: NonZeroU32::new(if rng.u8(0..4) == 0 { 1 << rng.u32(0..9) } else { 0 }),
            max_connections: (rng.u8(0..6) == 0).then(|| rng.usize(1..=100)),
            max_connections_per_ip: if rng.u8(0..6) == 0 { rng.usize(1..=20) } else { 0 },
            on_full: if rng.bool() { OnFull::Refuse } else { OnFull::EvictIdlest },
        },
        ..Config::default()
    };
    let wild = rng.bool();
    let budgets = Budgets {
        events: rng.usize(1..=256),
        accepts: rng.usize(1..=128),
        commands: rng.usize(1..=16),
        read_bytes: rng.usize(1..=64 * 1024),
        scratch_bytes: rng.usize(16..=32 * 1024),
        checks: rng.usize(1..=256),
        flushes: rng.usize(64..=1024),
        writes: rng.usize(1..=4),
        slices: rng.usize(1..=16),
        sockets_per_clock_reading: rng.u32(1..=64),
        drift_ms: if wild { rng.u64(0..=2) } else { 0 },
        faults: if wild { rng.u32(0..=200) } else { 0 },
        addresses: rng.u32(1..=20),
    };
    let mut rarely = |most: u32| if rng.bool() { 0 } else { rng.u32(0..=most) };
    // Answers alone hardly ever use up the memory: those who do not read are not read from.
    let crowds_memory = config.limits.max_memory.is_some();
    let habits = Habits {
        broadcast: if crowds_memory { 200 } else { rarely(10) },
        close_after_flush: rarely(10),
        close_now: rarely(10),
        pause: rarely(100),
        resume_another: rarely(100),
        send_when_drained: rarely(500),
        broadcast_on_close: rarely(20),
        longest_pause_ms: rarely(1000).into(),
    };
    Setup {
        seed,
        config,
        budgets,
        habits,
        inbound_capacity: 1 << rng.u32(8..18),
        outbound_capacity: 1 << if crowds_memory { 6 } else { rng.u32(6..18) },
    }
}

fn timeout(rng: &mut fastrand::Rng, most_ms: u64) -> Option<Duration> {
    rng.bool().then(|| Duration::from_millis(rng.u64(1..=most_ms)))
}

fn plan(rng: &mut fastrand::Rng, config: &Config, interval_ms: u64, bound_ms: u64, peers: usize) -> Plan {
    let burst = if peers > 400 { 2 } else { [1, 4, 200][rng.usize(0..3)] };
    let talk = Talk { every_ms: rng.u64(1..=bound_ms * 2), burst, longest: config.limits.max_message };
    let slow = rng.u8(0..8) == 0;
    Plan {
        talk: rng.bool().then_some(talk),
        beat_ms: rng.bool().then(|| rng.u64(interval_ms / 2..=bound_ms - 1).max(1)),
        answer_ms: rng.bool().then(|| rng.u64(0..=interval_ms / 2)),
        piece: if rng.bool() { usize::MAX } else { 1 << rng.u32(3..12) },
        piece_gap_ms: rng.u64(0..=interval_ms / 4).min(20),
        read_bytes: if slow { rng.u64(16..=4096) } else { u64::MAX },
        read_delay_ms: if slow { rng.u64(0..=interval_ms / 2) } else { 0 },
        fate_ms: (rng.u8(0..3) > 0).then(|| bound_ms * 4),
        reconnect_ms: rng.bool().then(|| rng.u64(bound_ms / 8 + 1..=bound_ms)),
    }
}
