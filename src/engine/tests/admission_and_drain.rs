use super::*;

#[test]
fn rejections_have_a_reason_and_no_callback() {
    let limits = Limits {
        max_connections: Some(3),
        max_connections_per_ip: 2,
        ..Limits::default()
    };
    let mut rig = Rig::new(&Config { limits, ..config() });
    let ids = [
        rig.try_open(1),
        rig.try_open(1),
        rig.try_open(1),
        rig.try_open(2),
        rig.try_open(3),
    ];
    assert_eq!(
        (ids[2], ids[4]),
        (Err(RejectReason::PerIpLimit), Err(RejectReason::Full))
    );
    rig.engine.handle_shutdown(rig.now, 1000);
    assert_eq!(rig.try_open(4), Err(RejectReason::ShuttingDown));
    assert_eq!((rig.handler.seen.len(), rig.engine.connections()), (3, 3));
    let refused = [
        RejectReason::Full,
        RejectReason::PerIpLimit,
        RejectReason::ShuttingDown,
    ]
    .map(|refusal| rig.engine.stats().refused(refusal));
    assert_eq!(refused, [1, 1, 1]);
}

#[test]
fn drain_spreads_closes_over_four_fifths_of_its_grace() {
    let mut rig = Rig::new(&config());
    rig.open_many(100);
    rig.engine.handle_shutdown(rig.now, 10_000);
    let mut instants = std::collections::BTreeSet::new();
    while !rig.engine.is_drained() {
        rig.pass_until(10_000, false);
        instants.insert(rig.now.as_ms());
        assert!(
            rig.reasons()
                .iter()
                .all(|reason| *reason == CloseReason::Shutdown)
        );
    }
    assert!(
        instants.len() > 40 && rig.now.as_ms() <= 8000 + TICK_MS,
        "{} instants until {}",
        instants.len(),
        rig.now
    );
}

#[test]
fn drain_longer_than_the_wheel_horizon_is_spread() {
    let tick = Duration::from_millis(1);
    let mut rig = Rig::new(&Config { tick, ..config() });
    rig.open_many(100);
    rig.engine.handle_shutdown(rig.now, 100_000);
    rig.pass_until(20_000, false);
    let mut gone = 0;
    while rig.now.as_ms() < 20_000 {
        gone += rig.reap().len();
        rig.pass_until(20_000, false);
    }
    assert!(
        (5..60).contains(&gone),
        "{gone} of 100 gone after a fifth of the grace"
    );
}

#[test]
fn short_drain_makes_one_final_read_of_each_connection() {
    let mut rig = Rig::new(&config());
    let ids = rig.open_many(100);
    rig.now = Timestamp::from_ms(50);
    rig.engine.handle_shutdown(rig.now, 100);
    let mut looked = 0;
    while rig.engine.connections() > 0 {
        rig.engine.handle_timers(rig.now, usize::MAX);
        while let Some(id) = rig.engine.poll_final_read() {
            looked += 1;
            rig.engine
                .handle_final_read(rig.now, id, FinalRead::default());
        }
        rig.reap();
        rig.now = rig.engine.poll_timeout().unwrap_or(rig.now);
    }
    assert_eq!(looked, ids.len());
}

#[test]
fn drain_without_grace_makes_one_final_read_of_each_connection() {
    let mut rig = Rig::new(&config());
    let (idle, stuck) = (rig.open(), rig.open());
    rig.receive(stuck, "never read\n");
    rig.write(stuck, 3);
    rig.engine.handle_shutdown(rig.now, 0);
    rig.pass_until(0, false);
    assert_eq!(
        (rig.engine.poll_final_read(), rig.engine.poll_final_read()),
        (Some(idle), Some(stuck))
    );
    rig.engine
        .handle_final_read(rig.now, idle, FinalRead::default());
    rig.engine
        .handle_final_read(rig.now, stuck, FinalRead::default());
    assert_eq!(rig.reap().len(), 1, "nothing keeps the idle one");
    rig.pass_until(1, false);
    let closed = rig.reap();
    assert_eq!(
        (closed[0].1.reason, closed[0].1.unsent),
        (CloseReason::Shutdown, 8)
    );
    assert!(rig.engine.is_drained());
}

#[test]
fn nothing_is_due_after_the_end_of_a_drain() {
    let mut rig = Rig::new(&config());
    let _ = (rig.open(), rig.open());
    rig.engine.handle_shutdown(rig.now, 0);
    rig.engine.handle_timers(rig.now, 1);
    rig.now = Timestamp::from_ms(TICK_MS * 2);
    assert!(rig.engine.handle_timers(rig.now, 1));
    assert_eq!(rig.engine.poll_final_read(), None);
    assert_eq!(rig.engine.oldest_due(rig.now), None);
    assert_eq!(rig.engine.poll_timeout(), None);
    assert_eq!(rig.reasons(), [CloseReason::Shutdown; 2]);
}

#[test]
fn second_shutdown_only_shortens_the_drain() {
    let mut rig = Rig::new(&config());
    rig.open();
    rig.engine.handle_shutdown(rig.now, 5000);
    rig.engine.handle_shutdown(rig.now, 9000);
    assert_eq!(rig.engine.drain_deadline(), Some(Timestamp::from_ms(5000)));
    rig.engine.handle_shutdown(rig.now, 100);
    assert_eq!(rig.engine.drain_deadline(), Some(Timestamp::from_ms(100)));
}

#[test]
fn traffic_does_not_put_off_a_drain() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.pass_until(INTERVAL_MS, false);
    rig.engine.handle_shutdown(rig.now, 500);
    rig.receive(id, "pong\n");
    rig.pass_until(INTERVAL_MS + 500, false);
    assert!(rig.now.as_ms() <= INTERVAL_MS + 400 + TICK_MS);
    assert_eq!(rig.reasons(), [CloseReason::Shutdown]);
}

#[test]
fn goodbye_follows_the_replies_of_each_connection() {
    let mut rig = Rig::new(&Config {
        goodbye: Some(b"bye".to_vec()),
        ..config()
    });
    let ids = rig.open_many(20);
    rig.engine.handle_shutdown(rig.now, 10_000);
    let mut said = Vec::new();
    while rig.now.as_ms() < 10_000 {
        let at = rig
            .engine
            .poll_timeout()
            .unwrap_or(Timestamp::from_ms(10_000));
        rig.now = rig.now.max(at);
        rig.engine.handle_timers(rig.now, usize::MAX);
        while let Some(id) = rig.engine.poll_final_read() {
            rig.receive(id, "last words\n");
            rig.engine
                .handle_final_read(rig.now, id, FinalRead::default());
            assert_eq!(rig.flush(id), "last words\nbye\n");
            said.push((rig.now, id));
        }
        rig.reap();
    }
    assert_eq!(said.len(), ids.len());
    assert!(
        said.last()
            > said
                .first()
                .map(|(at, id)| (at.plus_ms(4000), *id))
                .as_ref(),
        "spread over the drain: {said:?}"
    );
}

#[test]
fn goodbye_that_does_not_fit_is_skipped() {
    let mut rig = Rig::new(&Config {
        goodbye: Some(b"bye".to_vec()),
        ..config()
    });
    let id = rig.open();
    rig.engine.send(id, &[&[b'x'; 996]]).expect("room");
    rig.engine.handle_shutdown(rig.now, 0);
    rig.pass_until(0, false);
    assert_eq!(rig.outgoing(id).len(), 997);
}
