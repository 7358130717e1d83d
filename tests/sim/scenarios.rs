//! One promise each, at full size and without chance.

use std::time::Duration;

use heartline::{CloseReason, Config, Heartbeat, Limits};

use crate::driver::Command;
use crate::net::Link;
use crate::peer::{Fault, Plan, Talk};
use crate::world::{Action, Setup, World};

const INTERVAL_MS: u64 = 1000;
const BOUND_MS: u64 = 4000;
const TICK_MS: u64 = 100;

fn config() -> Config {
    let heartbeat = Heartbeat {
        interval: Duration::from_millis(INTERVAL_MS),
        retry: None,
        max_missed: 3,
        send_pings: true,
        ..Heartbeat::default()
    };
    Config {
        heartbeat: Some(heartbeat),
        tick: Duration::from_millis(TICK_MS),
        ..Config::default()
    }
}

fn beating() -> Plan {
    Plan {
        beat_ms: Some(INTERVAL_MS - 1),
        ..Plan::silent()
    }
}

fn answering() -> Plan {
    Plan {
        answer_ms: Some(5),
        ..Plan::silent()
    }
}

#[test]
fn five_thousand_silent_connections_are_closed_on_time() {
    let mut world = World::new(Setup::calm(config()));
    let lines: Vec<usize> = (0..5000)
        .map(|n| world.connect(if n % 2 == 0 { beating() } else { answering() }))
        .collect();
    world.run_until(20_000);
    assert_eq!(
        world.driver.engine.connections(),
        lines.len(),
        "nobody who lives is evicted"
    );
    for line in &lines {
        world.at(20_000, Action::Inject(*line, Fault::Vanish));
    }
    world.run_until(20_000 + 2 * BOUND_MS);
    assert_eq!(world.closed_for(CloseReason::HeartbeatTimeout), lines.len());
    for line in lines {
        let closed = world.app.lines[line].closed.as_ref().expect("closed");
        let silence_ms = closed.silence.as_millis() as u64;
        assert!(
            (BOUND_MS + 1..=BOUND_MS + TICK_MS).contains(&silence_ms),
            "line {line}: closed after {silence_ms} ms"
        );
    }
    assert!(world.driver.engine.stats().overshoot.max() < Duration::from_millis(TICK_MS));
}

#[test]
fn freeze_of_eight_seconds_closes_no_live_connection() {
    for (name, plan) in [("beating", beating()), ("answering", answering())] {
        let mut world = World::new(Setup::calm(config()));
        for n in 0..200 {
            // Frozen at any phase of their heartbeats.
            world.at(n * 7, Action::Connect(plan.clone()));
        }
        world.at(10_030, Action::Freeze(8000));
        world.run_until(40_000);
        assert_eq!(
            world.driver.engine.connections(),
            200,
            "{name}: {:?}",
            world.driver.engine.stats()
        );
    }
}

#[test]
fn freeze_delays_verdicts_by_no_more_than_its_length() {
    let mut world = World::new(Setup::calm(config()));
    for _ in 0..200 {
        world.connect(answering());
    }
    world.at(10_000, Action::Freeze(8000));
    world.run_until(10_001);
    for line in 0..200 {
        world.at(12_000, Action::Inject(line, Fault::Vanish));
    }
    world.run_until(18_000 + BOUND_MS + 2 * TICK_MS);
    assert_eq!(world.closed_for(CloseReason::HeartbeatTimeout), 200);
}

#[test]
fn drain_answers_flushes_and_spreads_its_closes() {
    let mut world = World::new(Setup::calm(config()));
    let talk = Talk {
        every_ms: 100,
        burst: 10,
        longest: 200,
    };
    let plan = Plan {
        talk: Some(talk),
        read_bytes: 4096,
        read_delay_ms: 1,
        ..Plan::silent()
    };
    for _ in 0..300 {
        world.connect(plan.clone());
    }
    world.run_until(1000);
    world.at(1000, Action::Command(Command::Shutdown(2000)));
    world.run_until(1000 + 2000 + 2);
    assert!(world.driver.engine.is_drained());
    assert_eq!(world.closed_for(CloseReason::Shutdown), 300);
    let mut ages_ms: Vec<u128> = Vec::new();
    for (line, books) in world.app.lines.iter().enumerate() {
        let closed = books.closed.as_ref().expect("drained");
        assert_eq!(closed.unsent, 0, "line {line} was cut off");
        assert!(books.answered.is_empty(), "line {line}");
        ages_ms.push(closed.age.as_millis() / u128::from(TICK_MS));
    }
    ages_ms.sort_unstable();
    ages_ms.dedup();
    assert!(
        ages_ms.len() >= 10,
        "closes in {} of 16 ticks",
        ages_ms.len()
    );
}

#[test]
fn twenty_thousand_pipelined_messages_come_back_through_a_tiny_outbox() {
    let config = Config {
        limits: Limits {
            max_outbox: 256,
            max_message: 64,
            ..Limits::default()
        },
        heartbeat: None,
        ..config()
    };
    let mut setup = Setup::calm(config);
    setup.outbound_capacity = 1000;
    let mut world = World::new(setup);
    let line = world.connect(Plan {
        read_bytes: 300,
        read_delay_ms: 1,
        ..Plan::silent()
    });
    world.say(line, 20_000, 40);
    world.at(1, Action::Inject(line, Fault::HalfClose));
    // One round for each buffer full, a millisecond each: if a wake-up were lost anywhere, nothing
    // would happen ever after.
    world.run_until(10_000);
    let books = &world.app.lines[line];
    assert_eq!(world.app.messages, 20_000);
    assert!(books.asked.is_empty() && books.answered.is_empty());
    assert_eq!(
        books
            .closed
            .as_ref()
            .map(|closed| (closed.reason, closed.unsent)),
        Some((CloseReason::PeerClosed, 0))
    );
}

#[test]
fn pipelined_messages_need_no_timer_to_go_on() {
    let config = Config {
        limits: Limits {
            max_outbox: 256,
            max_message: 64,
            ..Limits::default()
        },
        heartbeat: None,
        ..config()
    };
    let mut world = World::new(Setup::calm(config));
    let line = world.connect(Plan::silent());
    world.say(line, 20_000, 40);
    world.run_until(100);
    assert_eq!(
        world.app.messages, 20_000,
        "the socket always had room, so nothing was worth waiting for"
    );
}

#[test]
fn shutdown_with_a_stuck_peer_ends_at_its_deadline() {
    let mut setup = Setup::calm(config());
    setup.outbound_capacity = 512;
    let mut world = World::new(setup);
    let line = world.connect(Plan {
        beat_ms: Some(500),
        ..Plan::silent()
    });
    world.say(line, 100, 64);
    world.at(0, Action::Inject(line, Fault::Stall));
    world.run_until(1000);
    assert!(world.driver.engine.connections() == 1 && world.app.lines[line].closed.is_none());
    world.at(1000, Action::Command(Command::Shutdown(1500)));
    world.run_until(2500);
    assert!(!world.driver.engine.is_drained());
    world.run_until(2502);
    assert!(world.driver.engine.is_drained());
    let closed = world.app.lines[line].closed.as_ref().expect("cut off");
    assert!(closed.reason == CloseReason::Shutdown && closed.unsent > 0);
}

#[test]
fn idle_server_makes_no_turn() {
    let mut world = World::new(Setup::calm(config()));
    let line = world.connect(beating());
    world.at(5000, Action::Inject(line, Fault::HalfClose));
    world.run_until(10_000);
    let turns = world.turns;
    world.run_until(10_000_000);
    assert_eq!((world.driver.engine.connections(), world.turns), (0, turns));
}

#[test]
fn large_shared_backlog_is_written_without_further_events() {
    let config = Config {
        heartbeat: None,
        ..config()
    };
    let mut setup = Setup::calm(config);
    setup.outbound_capacity = 1 << 20;
    let mut world = World::new(setup);
    let line = world.connect(Plan {
        read_bytes: u64::MAX,
        read_delay_ms: 10,
        ..Plan::silent()
    });
    world.run_until(1);
    // Many small shared pieces: a turn's writes take them all but leave room in the socket, so that
    // no edge will ever come.
    let message = [b'X'; 600];
    for _ in 0..1000 {
        world.at(
            1,
            Action::Command(Command::Broadcast(message.as_slice().into())),
        );
    }
    world.run_until(60_000);
    assert!(
        world.app.lines[line].answered.is_empty(),
        "{} bytes are stuck",
        world
            .driver
            .engine
            .queued(world.app.lines[line].id.expect("open"))
    );
}

#[test]
fn final_read_saves_connections_whose_bytes_waited_out_a_lag() {
    let mut config = config();
    config.heartbeat = Some(Heartbeat {
        send_pings: false,
        ..config.heartbeat.expect("set above")
    });
    let mut setup = Setup::calm(config);
    setup.budgets.events = 2;
    let mut world = World::new(setup);
    for _ in 0..500 {
        world.connect(Plan {
            beat_ms: Some(BOUND_MS - 300),
            ..Plan::silent()
        });
    }
    // Too short for stalls: the deadlines of peers that beat meanwhile have passed when the server
    // reads again.
    for at_ms in (BOUND_MS..15 * BOUND_MS).step_by(700) {
        world.at(at_ms, Action::Freeze(INTERVAL_MS / 2 - 20));
    }
    world.run_until(16 * BOUND_MS);
    assert_eq!(
        (
            world.driver.engine.connections(),
            world.driver.engine.stats().stalls
        ),
        (500, 0)
    );
}

/// Work takes about as long as in the server: a unit 100 ns, a socket 2 us.
fn at_a_cost(config: Config) -> Setup {
    let mut setup = Setup::calm(config);
    (setup.budgets.unit_ns, setup.budgets.call_ns) = (100, 2000);
    setup
}

/// A: the pings that it answers are amid the reply, and before what is queued.
#[test]
fn slow_reader_that_answers_pings_stays_open() {
    let mut setup = Setup::calm(config());
    // 40 kB/s on the link, behind what a kernel takes without TCP_NOTSENT_LOWAT.
    for send_buffer in [64 * 1024, 4 << 20] {
        setup.link = Some(Link {
            bytes_per_ms: 40,
            send_buffer,
        });
        let mut world = World::new(setup.clone());
        let line = world.connect(Plan {
            answer_ms: Some(1),
            ..Plan::silent()
        });
        world.say(line, 1000, 900);
        world.run_until(60_000);
        let books = &world.app.lines[line];
        assert!(books.closed.is_none(), "{send_buffer}: {:?}", books.closed);
        assert!(books.asked.is_empty() && books.answered.is_empty());
    }
}

/// A, the other way round: a kernel that takes bytes is no program that reads them.
#[test]
fn hung_program_is_closed_while_its_kernel_acknowledges() {
    let mut setup = Setup::calm(config());
    setup.link = Some(Link {
        bytes_per_ms: 1,
        send_buffer: 64 * 1024,
    });
    let mut world = World::new(setup);
    let line = world.connect(answering());
    world.say(line, 300, 900);
    world.at(100, Action::Inject(line, Fault::Stall));
    world.run_until(2 * BOUND_MS);
    let closed = world.app.lines[line].closed.as_ref().expect("given up");
    assert!(
        matches!(
            closed.reason,
            CloseReason::SlowReader | CloseReason::HeartbeatTimeout
        ),
        "{closed:?}"
    );
}

/// A, after a FIN: a peer that acknowledges steadily is not cut off.
#[test]
fn steady_reader_gets_everything_after_its_fin() {
    let mut setup = Setup::calm(config());
    setup.link = Some(Link {
        bytes_per_ms: 10,
        send_buffer: 64 * 1024,
    });
    let mut world = World::new(setup);
    let line = world.connect(Plan::silent());
    world.say(line, 1000, 400);
    world.at(1, Action::Inject(line, Fault::HalfClose));
    world.run_until(60_000);
    let books = &world.app.lines[line];
    let closed = books.closed.as_ref().expect("it has ended");
    assert_eq!((closed.reason, closed.unsent), (CloseReason::PeerClosed, 0));
    assert!(books.answered.is_empty());
}

/// B and D: floods of the smallest messages, work that takes time, and dead peers among live ones.
#[test]
fn floods_of_empty_messages_delay_no_timeout_and_no_other_peer() {
    let mut setup = at_a_cost(config());
    // More than there is time for, though it is not many.
    setup.budgets.unit_ns = 5000;
    let mut world = World::new(setup);
    let floods: Vec<usize> = (0..5).map(|_| world.connect(Plan::silent())).collect();
    let living: Vec<usize> = (0..500).map(|_| world.connect(answering())).collect();
    let dead: Vec<usize> = (0..30).map(|_| world.connect(Plan::silent())).collect();
    for line in &dead {
        world.at(0, Action::Inject(*line, Fault::Vanish));
    }
    while world.now_ms() < BOUND_MS + 1000 {
        for line in &floods {
            world.say(*line, 200, 1);
        }
        world.run_until(world.now_ms() + 5);
    }
    for line in dead {
        let closed = world.app.lines[line].closed.as_ref().expect("given up");
        let silence_ms = closed.silence.as_millis() as u64;
        let latest_ms = BOUND_MS + TICK_MS + 50;
        assert!(
            (BOUND_MS..=latest_ms).contains(&silence_ms),
            "{silence_ms} ms"
        );
    }
    assert!(
        living
            .iter()
            .all(|line| world.app.lines[*line].closed.is_none())
    );
    assert!(
        world.app.messages > 100_000,
        "{} messages",
        world.app.messages
    );
    let (lag_ms, turn_ms) = (world.driver.max_lag_ms, world.driver.longest_turn_ms);
    assert!(
        lag_ms <= 100 && turn_ms <= 20,
        "lag {lag_ms} ms, turn {turn_ms} ms"
    );
}

/// Turns that events alone make too long still read what earlier turns have left over.
#[test]
fn busy_turns_do_not_starve_pipelined_messages() {
    let mut setup = at_a_cost(config());
    setup.budgets.call_ns = 100_000;
    let mut world = World::new(setup);
    let busy: Vec<usize> = (0..70).map(|_| world.connect(Plan::silent())).collect();
    let pipeline = world.connect(answering());
    world.run_until(100);
    world.say(pipeline, 2000, 1);
    while world.now_ms() < BOUND_MS {
        for line in &busy {
            world.say(*line, 1, 1);
        }
        world.run_until(world.now_ms() + 5);
    }
    assert!(world.driver.longest_turn_ms > 5, "every turn is late");
    assert!(world.app.lines[pipeline].asked.is_empty());
}

/// C: one segment of empty lines, each of them for everybody.
#[test]
fn segment_of_broadcasts_closes_and_delays_no_connection() {
    let mut setup = at_a_cost(config());
    setup.behavior.broadcast = 1000;
    let mut world = World::new(setup);
    let sender = world.connect(answering());
    let readers: Vec<usize> = (0..2000).map(|_| world.connect(answering())).collect();
    world.run_until(100);
    world.say(sender, 2000, 0);
    world.run_until(BOUND_MS * 2);
    assert!(readers.iter().all(|line| {
        let books = &world.app.lines[*line];
        books.closed.is_none() && books.answered.is_complete()
    }));
    let (lag_ms, turn_ms) = (world.driver.max_lag_ms, world.driver.longest_turn_ms);
    assert!(
        lag_ms <= 100 && turn_ms <= 20,
        "lag {lag_ms} ms, turn {turn_ms} ms"
    );
}

/// E: a peer that is held back by its rate is answered in a drain as before it.
#[test]
fn drain_answers_rate_limited_messages() {
    let mut config = config();
    config.limits.max_message_rate = std::num::NonZeroU32::new(5);
    let mut world = World::new(Setup::calm(config));
    let line = world.connect(answering());
    world.run_until(2000);
    world.say(line, 12, 10);
    world.at(2001, Action::Command(Command::Shutdown(30_000)));
    world.run_until(32_100);
    let books = &world.app.lines[line];
    assert!(books.asked.is_empty() && books.answered.is_empty());
    let closed = books.closed.as_ref().expect("drained");
    assert_eq!((closed.reason, closed.unsent), (CloseReason::Shutdown, 0));
}
