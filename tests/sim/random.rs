//! Whole runs at random.

use heartline::{CloseReason, RejectReason, Stats};

use crate::driver::Command;
use crate::generator::{self, Scale};
use crate::world::{Action, World};

/// Runs that every `cargo test` makes, always the same.
const FIXED_SEEDS: u64 = 180;
/// Runs that every `cargo test` makes, with fresh seeds each time. `HEARTLINE_SIM_RUNS` asks for
/// more.
const FRESH_RUNS: u64 = 20;

#[test]
fn fixed_seeds() {
    let mut closed = [0; CloseReason::ALL.len()];
    let mut refused = [0; RejectReason::ALL.len()];
    for seed in 0..FIXED_SEEDS {
        let (_, stats) = play(seed);
        CloseReason::ALL
            .iter()
            .for_each(|reason| closed[reason.index()] += stats.closed(*reason));
        RejectReason::ALL
            .iter()
            .for_each(|refusal| refused[refusal.index()] += stats.refused(*refusal));
    }
    // Close reasons that never occur are not tested. These need a kernel, which alone has timeouts
    // of its own and knows what is unacknowledged.
    let beyond = [
        CloseReason::NetworkTimeout,
        CloseReason::ReadFailed,
        CloseReason::WriteFailed,
        CloseReason::HalfOpen,
        // No peer here sends HTTP.
        CloseReason::HttpRequest,
    ];
    let never = |reason: &&CloseReason| closed[reason.index()] == 0 && !beyond.contains(reason);
    assert_eq!(
        CloseReason::ALL.iter().filter(never).collect::<Vec<_>>(),
        [&CloseReason::Shutdown; 0]
    );
    // The application here rejects no connection: unit tests of the engine do.
    let is_tested = |refusal: &&RejectReason| **refusal != RejectReason::Application;
    assert_eq!(
        RejectReason::ALL
            .iter()
            .filter(is_tested)
            .filter(|refusal| refused[refusal.index()] == 0)
            .collect::<Vec<_>>(),
        [&RejectReason::Full; 0]
    );
}

#[test]
fn fresh_seeds() {
    let runs = std::env::var("HEARTLINE_SIM_RUNS").map_or(FRESH_RUNS, |runs| {
        runs.parse().expect("HEARTLINE_SIM_RUNS is a number")
    });
    for _ in 0..runs {
        run(fastrand::u64(..));
    }
}

/// The command that a failure prints runs this; without a seed it replays the smallest seed twice
/// and compares the traces.
#[test]
fn replay() {
    let seed = std::env::var("HEARTLINE_SIM_SEED").map_or(0, |seed| {
        seed.parse().expect("HEARTLINE_SIM_SEED is a number")
    });
    assert_eq!(run(seed), run(seed), "the same seed, another trace");
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 20..26 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

/// Prints how to replay a failure.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay with: HEARTLINE_SIM_TRACE=1 HEARTLINE_SIM_SEED={} cargo test --test sim -- --nocapture replay",
                self.0
            );
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
    let scale = Scale::of_seconds(&mut rng);
    let setup = generator::setup(&mut rng, seed, &scale);
    if std::env::var_os("HEARTLINE_SIM_TRACE").is_some() {
        println!("{setup:#?}");
    }
    let generator::Rhythm {
        interval_ms,
        bound_ms,
        ..
    } = generator::rhythm(&setup.config);
    let end_ms = bound_ms * if scale.peers > 400 { 3 } else { rng.u64(3..=8) };
    let mut world = World::new(setup);
    for _ in 0..scale.peers {
        let plan = generator::plan(&mut rng, &world.setup.config, &scale);
        let at_ms = if rng.bool() { 0 } else { rng.u64(0..=bound_ms) };
        world.at(at_ms, Action::Connect(plan));
    }
    for _ in 0..rng.u8(0..3) {
        world.at(
            rng.u64(0..=end_ms),
            Action::Split(rng.u64(1..=bound_ms * 2)),
        );
    }
    if rng.u8(0..4) == 0 {
        world.at(rng.u64(0..=end_ms), Action::Blackout);
    }
    for _ in 0..rng.u8(0..4) {
        world.at(
            rng.u64(0..=end_ms),
            Action::Freeze(rng.u64(1..=interval_ms * 8)),
        );
    }
    for _ in 0..rng.u8(0..40) {
        world.at(rng.u64(0..=end_ms), Action::Wake);
    }
    let mut always_a_heartbeat = world.setup.config.heartbeat.is_some();
    for _ in 0..if rng.bool() { rng.u8(1..5) } else { 0 } {
        let mut config = generator::config(&mut rng, &scale);
        if rng.u8(0..8) == 0 {
            config.limits.max_outbox = 0;
        }
        always_a_heartbeat &= config.heartbeat.is_some();
        world.at(
            rng.u64(0..=end_ms),
            Action::Command(Command::Reconfigure(Box::new(config))),
        );
    }
    let commands = if rng.bool() { rng.u64(0..30) } else { 0 };
    for _ in 0..commands {
        world.run_until(world.now_ms() + end_ms / commands);
        let command = world.random_command(true);
        world.at(world.now_ms(), Action::Command(command));
    }
    world.run_until(end_ms);

    let by_shutdown = rng.bool() || !always_a_heartbeat;
    let grace_ms = if rng.u8(0..4) == 0 {
        0
    } else {
        rng.u64(0..=bound_ms)
    };
    if by_shutdown && rng.u8(0..4) == 0 {
        world.at(
            world.now_ms() + grace_ms / 2,
            Action::Command(Command::Shutdown(grace_ms / 4)),
        );
    }
    world.end(by_shutdown, grace_ms);
    assert_eq!(
        world.driver.engine.poll_timeout(),
        None,
        "nothing is due when nobody is connected"
    );
    (world.app.trace.hash, world.driver.engine.stats().clone())
}
