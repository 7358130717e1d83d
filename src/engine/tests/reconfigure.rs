//! Other settings for a live engine, and snapshots of its connections.

use std::num::NonZeroU32;

use super::*;

fn interval(ms: u64) -> Option<Heartbeat> {
    Some(Heartbeat {
        interval: Duration::from_millis(ms),
        retry: None,
        max_missed: 3,
        send_pings: true,
        ..Heartbeat::default()
    })
}

fn reconfigure(rig: &mut Rig, change: impl FnOnce(&mut Config)) {
    let mut config = config();
    change(&mut config);
    rig.engine
        .reconfigure(rig.now, &config)
        .expect("a valid configuration");
}

#[test]
fn shorter_heartbeat_pings_before_it_closes() {
    let mut rig = Rig::new(&Config {
        heartbeat: interval(60_000),
        ..config()
    });
    rig.open();
    rig.pass_until(30_000, false);
    reconfigure(&mut rig, |config| config.heartbeat = interval(1000));
    rig.pass_until(100_000, false);
    // Silent for longer than the new timeout already, it gets three pings, and as much time as a
    // peer that was seen just now.
    assert_eq!(
        (rig.engine.stats().pings_sent, rig.reasons()),
        (3, vec![CloseReason::HeartbeatTimeout])
    );
    assert!(
        (34_001..=34_000 + TICK_MS).contains(&rig.now.as_ms()),
        "{}",
        rig.now
    );
    let overshoot = rig.engine.stats().overshoot.max();
    assert!(
        overshoot <= Duration::from_millis(TICK_MS),
        "no verdict could be due before there was the bound: {overshoot:?}"
    );
}

#[test]
fn reload_without_pings_counts_the_bound_from_the_change() {
    for heartbeat in [
        Heartbeat {
            send_pings: false,
            ..interval(60_000).expect("one")
        },
        interval(60_000).expect("one"),
    ] {
        let unasked = Some(Heartbeat {
            send_pings: false,
            ..interval(1000).expect("one")
        });
        let mut rig = Rig::new(&Config {
            heartbeat: Some(heartbeat),
            ..config()
        });
        rig.open();
        rig.pass_until(30_000, false);
        reconfigure(&mut rig, |config| config.heartbeat = unasked.clone());
        rig.pass_until(33_000, false);
        // Other settings with the same heartbeat are no change of it.
        reconfigure(&mut rig, |config| {
            (config.heartbeat, config.limits.max_message) = (unasked.clone(), 5)
        });
        rig.pass_until(100_000, false);
        assert_eq!(rig.reasons(), [CloseReason::HeartbeatTimeout]);
        assert!(
            (34_001..=34_000 + TICK_MS).contains(&rig.now.as_ms()),
            "{}",
            rig.now
        );
    }
}

#[test]
fn reconfigure_turns_the_heartbeat_off_and_on() {
    let mut rig = Rig::new(&config());
    rig.open();
    reconfigure(&mut rig, |config| config.heartbeat = None);
    assert_eq!(rig.engine.poll_timeout(), None);
    rig.pass_until(60_000, false);
    reconfigure(&mut rig, |config| config.heartbeat = interval(INTERVAL_MS));
    rig.pass_until(70_000, false);
    assert_eq!(
        (rig.engine.stats().pings_sent, rig.reasons()),
        (3, vec![CloseReason::HeartbeatTimeout])
    );
}

#[test]
fn heartbeat_too_short_for_the_tick_is_rejected() {
    let mut rig = Rig::new(&config());
    rig.open();
    let before = rig.engine.poll_timeout();
    // The tick of this configuration is not the engine's, which stays.
    let config = Config {
        heartbeat: interval(150),
        tick: Duration::from_millis(1),
        ..config()
    };
    assert_eq!(
        rig.engine
            .reconfigure(rig.now, &config)
            .expect_err("refused")
            .field,
        "tick"
    );
    assert_eq!(rig.engine.poll_timeout(), before);
}

#[test]
fn reloaded_limits_count_open_connections() {
    let mut rig = Rig::new(&config());
    rig.open_many(3);
    reconfigure(&mut rig, |config| config.limits.max_connections_per_ip = 2);
    assert_eq!(rig.try_open(1), Err(RejectReason::PerIpLimit));
    assert_eq!(rig.engine.connections(), 3, "who is here may stay");
    reconfigure(&mut rig, |config| config.limits.max_connections = Some(3));
    assert_eq!(rig.try_open(2), Err(RejectReason::Full));
    reconfigure(&mut rig, |config| {
        config.access.deny = ["192.0.2.3".parse().expect("a network")]
            .into_iter()
            .collect()
    });
    assert_eq!(
        (rig.try_open(3), rig.try_open(1).is_ok()),
        (Err(RejectReason::Denied), true)
    );
}

#[test]
fn rejected_connection_evicts_none_after_a_lowered_limit() {
    let on_full = OnFull::EvictIdlest;
    let mut rig = Rig::new(&Config {
        limits: Limits {
            max_connections: Some(4),
            on_full,
            ..Limits::default()
        },
        ..config()
    });
    rig.open_many(4);
    reconfigure(&mut rig, |config| {
        (config.limits.max_connections, config.limits.on_full) = (Some(2), on_full)
    });
    assert_eq!(
        (rig.try_open(2), rig.reap().len()),
        (Err(RejectReason::Full), 0),
        "who is here may stay"
    );
}

#[test]
fn addresses_counted_after_a_reload_are_released() {
    let mut rig = Rig::new(&Config {
        limits: Limits {
            max_connections: Some(2),
            on_full: OnFull::EvictIdlest,
            ..Limits::default()
        },
        ..config()
    });
    let (first, second) = (rig.open(), rig.open());
    rig.now = Timestamp::from_ms(10);
    rig.receive(second, "here\n");
    let third = rig.open();
    // The first is evicted, and not reaped yet.
    reconfigure(&mut rig, |config| {
        config.limits = Limits {
            max_connections_per_ip: 3,
            ..Limits::default()
        }
    });
    rig.reap();
    assert!(!rig.engine.is_open(first));
    assert!(rig.try_open(1).is_ok(), "two are here");
    assert_eq!(rig.try_open(1), Err(RejectReason::PerIpLimit));
    rig.engine.close_on_request(third, Close::Now);
    rig.reap();
    assert!(rig.try_open(1).is_ok());
}

#[test]
fn removed_rate_limit_resumes_paused_peers() {
    let mut rig = Rig::new(&Config {
        limits: Limits {
            max_message_rate: NonZeroU32::new(1),
            ..Limits::default()
        },
        ..config()
    });
    let id = rig.open();
    rig.receive(id, "one\ntwo\nthree\n");
    assert_eq!(
        (rig.messages(), rig.engine.wants_read(id)),
        (vec!["one", "two"], false)
    );
    reconfigure(&mut rig, |_| ());
    assert_eq!(rig.engine.poll_readable(), Some(id));
    rig.engine
        .resume_decoding(rig.now, id, &mut Work::new(u32::MAX), &mut rig.handler);
    assert_eq!(
        (rig.messages(), rig.engine.wants_read(id)),
        (vec!["one", "two", "three"], true)
    );
    reconfigure(&mut rig, |config| {
        config.limits.max_message_rate = NonZeroU32::new(1)
    });
    rig.receive(id, "four\nfive\n");
    assert!(
        !rig.engine.wants_read(id),
        "the new rate holds for who was here before"
    );
}

#[test]
fn message_beyond_a_lowered_limit_closes_its_connection() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "a beginning");
    reconfigure(&mut rig, |config| config.limits.max_message = 5);
    assert!(rig.engine.is_open(id));
    rig.receive(id, "\n");
    assert_eq!(rig.reasons(), [CloseReason::FrameTooLarge]);
}

#[test]
fn lower_memory_limit_takes_effect_after_one_timeout() {
    let mut rig = Rig::new(&Config {
        heartbeat: None,
        ..config()
    });
    let ids = rig.open_many(3);
    rig.receive(ids[1], &"x".repeat(60_000));
    rig.receive(ids[2], &"x".repeat(50_000));
    reconfigure(&mut rig, |config| {
        config.heartbeat = None;
        config.limits.max_memory = Some(100_000);
        config.limits.max_outbox = 1000;
        config.limits.max_message = 60_000;
    });
    rig.receive(ids[0], "grows\n");
    rig.flush(ids[0]);
    rig.pass_until(19_999, false);
    assert_eq!(rig.reasons(), [], "the old limit is in force");
    rig.pass_until(20_001, false);
    assert_eq!(rig.reasons(), [CloseReason::MemoryLimit]);
    assert_eq!(
        ids.iter()
            .map(|id| rig.engine.is_open(*id))
            .collect::<Vec<_>>(),
        [true, false, true]
    );
}

/// A timeout that is turned on or shortened does not count time that had passed before.
#[test]
fn shorter_timeout_counts_from_the_reload() {
    type Change = fn(&mut Limits);
    let changes: [(Change, CloseReason); 3] = [
        (
            |limits| limits.first_message_timeout = Some(Duration::from_secs(3)),
            CloseReason::FirstMessageTimeout,
        ),
        (
            |limits| limits.frame_timeout = Some(Duration::from_secs(3)),
            CloseReason::FrameTimeout,
        ),
        (
            |limits| limits.write_timeout = Some(Duration::from_secs(3)),
            CloseReason::SlowReader,
        ),
    ];
    for (change, reason) in changes {
        let mut before = config();
        before.heartbeat = None;
        let mut rig = Rig::new(&before);
        let id = rig.open();
        match reason {
            CloseReason::FrameTimeout => rig.receive(id, "unfinished"),
            CloseReason::SlowReader => {
                rig.receive(id, "reply\n");
                rig.write(id, 1);
            }
            _ => {}
        }
        rig.now = Timestamp::from_ms(10_000);
        reconfigure(&mut rig, |config| {
            config.heartbeat = None;
            change(&mut config.limits);
        });
        rig.pass_until(12_999, false);
        assert_eq!(rig.reasons(), [], "{reason}");
        rig.pass_until(14_000 + TICK_MS, false);
        assert_eq!(rig.reasons(), [reason]);
    }
}

#[test]
fn connection_endpoint_shows_one_connection() {
    let mut rig = Rig::new(&config());
    let (quiet, busy) = (rig.open(), rig.open());
    rig.now = Timestamp::from_ms(300);
    rig.receive(busy, "hello\nunfini");
    rig.pass_until(1000, false);
    rig.now = Timestamp::from_ms(1005);
    rig.engine.advance(rig.now);
    let seen = rig.engine.snapshot(quiet).expect("it is here");
    assert_eq!(
        (seen.pings_unanswered, seen.round_trip, seen.silence),
        (1, None, Duration::from_millis(1005))
    );
    rig.receive(quiet, "pong\n");
    let seen = rig.engine.snapshot(quiet).expect("it is here");
    let round_trip = seen.round_trip.expect("a ping was answered");
    assert!(
        (5..=130).contains(&round_trip.as_millis()),
        "{round_trip:?}"
    );
    assert_eq!(
        (
            seen.pings_unanswered,
            seen.silence,
            seen.bytes_in,
            seen.bytes_out
        ),
        (0, Duration::ZERO, 5, 5)
    );
    assert_eq!(
        (
            rig.engine.stats().round_trip.count(),
            rig.engine.stats().round_trip.max()
        ),
        (1, round_trip)
    );

    let all: Vec<_> = rig
        .engine
        .snapshot_slots(0, 10)
        .expect("there are slots")
        .collect();
    assert_eq!(
        all.iter()
            .map(|connection| connection.id)
            .collect::<Vec<_>>(),
        [quiet, busy]
    );
    assert_eq!(
        (all[1].unfinished, all[1].bytes_in, all[1].closing),
        (6, 12, false)
    );
    assert_eq!(
        rig.engine
            .snapshot_slots(1, 1)
            .expect("a slot")
            .map(|connection| connection.id)
            .collect::<Vec<_>>(),
        [busy]
    );
    assert!(rig.engine.snapshot_slots(1_000_000, 1).is_none());
    rig.engine.close_on_request(busy, Close::Now);
    assert_eq!(rig.engine.snapshot(busy), None);
}
