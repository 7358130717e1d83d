//! A run at full size: a million connections for hours, with options, plans and faults from its
//! seed, as in the small ones.

use heartline::{CloseReason, Config, Heartbeat};

use crate::driver::Command;
use crate::generator::{self, Scale};
use crate::world::{Action, World};

const LINES: usize = 1_000_000;
const CONNECTS_PER_MS: usize = 4;
const MINUTE_MS: u64 = 60_000;
const HOURS: u64 = 3;

/// Takes minutes and a few gigabytes. `HEARTLINE_SIM_SEED` chooses the seed; without it each run
/// has another.
#[test]
#[ignore = "takes minutes"]
fn one_million_connections_for_hours() {
    let seed = std::env::var("HEARTLINE_SIM_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    let _replay = Replay(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let scale = Scale::of_hours(&mut rng, LINES);
    let setup = generator::setup(&mut rng, seed, &scale);
    println!("seed {seed}: {setup:?}");
    let changes: Vec<Config> = (0..rng.u8(0..4))
        .map(|_| generator::config(&mut rng, &scale))
        .collect();
    let strictest = strictest(changes.iter().chain([&setup.config]));
    let generator::Rhythm {
        interval_ms,
        bound_ms,
        ..
    } = generator::rhythm(&strictest);
    let mut world = World::new(setup);
    for line in 0..LINES {
        if line % CONNECTS_PER_MS == 0 {
            world.run_until(world.now_ms() + 1);
        }
        world.connect(generator::plan(&mut rng, &strictest, &scale));
    }
    let (begin_ms, end_ms) = (world.now_ms(), HOURS * 60 * MINUTE_MS);
    for _ in 0..rng.u8(1..=3) {
        world.at(
            rng.u64(begin_ms..end_ms),
            Action::Freeze(rng.u64(1..=interval_ms * 2)),
        );
        world.at(
            rng.u64(begin_ms..end_ms),
            Action::Split(rng.u64(1..=bound_ms * 2)),
        );
    }
    for config in changes {
        println!("later: {config:?}");
        world.at(
            rng.u64(begin_ms..end_ms),
            Action::Command(Command::Reconfigure(Box::new(config))),
        );
    }
    if rng.u8(0..3) == 0 {
        world.at(rng.u64(end_ms / 2..end_ms), Action::Blackout);
    }
    world.at(
        rng.u64(begin_ms..end_ms),
        Action::Command(Command::Broadcast(b"EVERYBODY".as_slice().into())),
    );

    while world.now_ms() < end_ms {
        world.run_until(world.now_ms() + 30 * MINUTE_MS);
        for _ in 0..1000 {
            let command = world.random_command(false);
            world.at(world.now_ms(), Action::Command(command));
        }
        print_progress(&world);
    }
    world.driver.oracle.assert_nobody_overdue(world.driver.now);
    assert!(
        world.closed_for(CloseReason::HeartbeatTimeout) > 1000,
        "the vanished are found"
    );
    assert_the_living_are_spared(&world, &strictest);
    world.end(true, 30 * MINUTE_MS);
    print_progress(&world);
}

/// A heartbeat that satisfies the strictest settings of the run satisfies each of them.
fn strictest<'a>(configs: impl Iterator<Item = &'a Config>) -> Config {
    configs
        .cloned()
        .reduce(stricter)
        .expect("there are settings from the beginning")
}

fn stricter(mut one: Config, other: Config) -> Config {
    one.heartbeat = one
        .heartbeat
        .zip(other.heartbeat)
        .map(|(one, other)| Heartbeat {
            interval: one.interval.min(other.interval),
            retry: Some(one.retry().min(other.retry())),
            max_missed: one.max_missed.min(other.max_missed),
            send_pings: one.send_pings && other.send_pings,
            ..Heartbeat::default()
        });
    one
}

fn print_progress(world: &World) {
    let stats = world.driver.engine.stats();
    let closed: Vec<String> = CloseReason::ALL
        .iter()
        .filter(|reason| stats.closed(**reason) > 0)
        .map(|reason| format!("{reason} {}", stats.closed(*reason)))
        .collect();
    println!(
        "{} min: {} lines, {} opened, {} messages, {} pings, overshoot {} ms, lag {} ms in all; closed: {}",
        world.now_ms() / MINUTE_MS,
        world.driver.engine.connections(),
        stats.opened,
        stats.messages_received,
        stats.pings_sent,
        stats.overshoot.max().as_millis(),
        world.driver.oracle.lag_ms(),
        closed.join(", ")
    );
}

/// A peer without faults that beats more often than the timeout, or reads and answers at once, was
/// not closed for silence.
fn assert_the_living_are_spared(world: &World, strictest: &Config) {
    let pushes = strictest
        .heartbeat
        .as_ref()
        .is_some_and(|heartbeat| heartbeat.send_pings);
    let mut living = 0;
    for (line, books) in world.app.lines.iter().enumerate() {
        if !books.is_known {
            continue;
        }
        let peer = &world.peers[line];
        let plan = &peer.plan;
        let answers = pushes && plan.answer_ms.is_some() && plan.read_delay_ms == 0;
        if plan.fault_every_ms.is_some()
            || peer.ever_cut_off
            || peer.vanished
            || !(plan.beat_ms.is_some() || answers)
        {
            continue;
        }
        living += 1;
        let reason = books.closed.as_ref().map(|closed| closed.reason);
        assert!(
            !matches!(
                reason,
                Some(CloseReason::HeartbeatTimeout | CloseReason::HalfOpen)
            ),
            "line {line} lived: {:?}",
            books.closed
        );
    }
    assert!(
        living > LINES / 20,
        "{living} lived: too few to say anything"
    );
    println!("{living} lived through it all, and none of them was given up");
}

/// Prints how to replay a failure.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay with: HEARTLINE_SIM_SEED={} cargo test --release --test sim million -- --ignored --nocapture",
                self.0
            );
        }
    }
}
