use super::*;

#[test]
fn pings_are_answered_and_not_delivered() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "ping\none\npong\nping\r\n");
    assert_eq!(rig.flush(id), "pong\none\npong\n");
    assert_eq!(rig.messages(), ["one"]);
    assert_eq!(
        (
            rig.engine.stats().pings_received,
            rig.engine.stats().pongs_received,
            rig.engine.stats().messages_received
        ),
        (2, 1, 1)
    );
}

#[test]
fn quiet_peers_are_pinged_and_silent_ones_closed_within_a_tick() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.pass_until(INTERVAL_MS, false);
    assert_eq!(rig.engine.stats().pings_sent, 1);
    rig.pass_until(u64::MAX, false);
    assert_eq!(rig.engine.stats().pings_sent, 3);
    assert!(
        (BOUND_MS + 1..=BOUND_MS + TICK_MS).contains(&rig.now.as_ms()),
        "{}",
        rig.now
    );
    let closed = rig.reap();
    assert_eq!(
        (
            closed[0].0,
            closed[0].1.reason,
            closed[0].1.pings_unanswered
        ),
        (id, CloseReason::HeartbeatTimeout, 3)
    );
    assert!(rig.engine.stats().overshoot.max() <= Duration::from_millis(TICK_MS));
    assert_eq!(
        rig.engine.poll_timeout(),
        None,
        "nothing is due when nobody is connected"
    );
}

#[test]
fn timeout_counts_from_the_last_answered_ping() {
    for answered_ms in (0..3 * BOUND_MS / 4).step_by(130) {
        let mut rig = Rig::new(&config());
        let id = rig.open();
        rig.pass_until(answered_ms, false);
        rig.receive(id, "pong\n");
        rig.pass_until(u64::MAX, false);
        let silence_ms = rig.now.as_ms() - answered_ms;
        assert!(
            (BOUND_MS + 1..=BOUND_MS + TICK_MS).contains(&silence_ms),
            "{silence_ms} ms after an answer at {answered_ms} ms"
        );
    }
}

#[test]
fn byte_of_an_unfinished_frame_is_a_sign_of_life() {
    let mut config = config();
    config.limits.frame_timeout = None;
    let mut rig = Rig::new(&config);
    let id = rig.open();
    for second in 1..20 {
        rig.pass_until(second * (BOUND_MS - 1), false);
        rig.receive(id, "x");
    }
    assert_eq!(rig.reasons(), []);
    assert!(rig.messages().is_empty());
}

#[test]
fn client_without_pings_sends_none() {
    let mut config = config();
    config.heartbeat = Some(Heartbeat {
        send_pings: false,
        ..config.heartbeat.expect("set above")
    });
    let mut rig = Rig::new(&config);
    rig.open();
    rig.pass_until(u64::MAX, false);
    assert_eq!(rig.engine.stats().pings_sent, 0);
    assert!(rig.now.as_ms() > BOUND_MS);
    assert_eq!(rig.reasons(), [CloseReason::HeartbeatTimeout]);
}

#[test]
fn no_timer_is_due_without_heartbeat() {
    let mut rig = Rig::new(&Config {
        heartbeat: None,
        ..config()
    });
    rig.open();
    assert_eq!(rig.engine.poll_timeout(), None);
}

#[test]
fn raw_framing_queues_no_ping_behind_stuck_bytes() {
    let mut rig = Rig::new(&Config {
        framing: Framing::Raw,
        ..config()
    });
    let id = rig.open();
    rig.receive(id, "stuck\n");
    rig.write(id, 0);
    rig.pass_until(BOUND_MS, false);
    assert_eq!(
        (rig.outgoing(id).as_str(), rig.engine.stats().pings_sent),
        ("stuck\n", 0)
    );
    rig.pass_until(u64::MAX, false);
    assert_eq!(
        rig.reasons(),
        [CloseReason::SlowReader],
        "it neither read nor spoke"
    );
}

#[test]
fn missing_acknowledgements_mean_half_open() {
    for (unacknowledged_ms, reason) in [
        (None, CloseReason::HeartbeatTimeout),
        (Some(10), CloseReason::HeartbeatTimeout),
        (Some(3000), CloseReason::HalfOpen),
    ] {
        let mut rig = Rig::new(&config());
        let (other, id) = (rig.open(), rig.open());
        while rig.engine.is_open(id) {
            rig.now = rig.engine.poll_timeout().expect("a check is due");
            rig.engine.handle_timers(rig.now, usize::MAX);
            rig.receive(other, "pong\n");
            while let Some(suspect) = rig.engine.poll_final_read() {
                let found = FinalRead {
                    unacknowledged_ms,
                    ..FinalRead::default()
                };
                rig.engine.handle_final_read(rig.now, suspect, found);
            }
        }
        let evidence = unacknowledged_ms
            .filter(|_| reason == CloseReason::HalfOpen)
            .map_or(Duration::ZERO, Duration::from_millis);
        let (_, closed) = rig.reap().pop().expect("a close");
        assert_eq!((closed.reason, closed.unacknowledged), (reason, evidence));
    }
}

#[test]
fn pings_respect_the_outbox_limit() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.now = Timestamp::from_ms(INTERVAL_MS);
    rig.engine.send(id, &[&[b'x'; 999]]).expect("exactly full");
    rig.engine.handle_timers(rig.now, 10);
    assert_eq!(rig.engine.queued(id), 1000);
}

#[test]
fn bytes_accepted_by_the_local_kernel_are_no_sign_of_life() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, &format!("{}\n", "x".repeat(700)));
    rig.write(id, 1);
    rig.pass_until(BOUND_MS - 1, false);
    rig.write(id, 10);
    rig.pass_until(BOUND_MS + TICK_MS, false);
    assert_eq!(
        rig.reasons(),
        [CloseReason::SlowReader],
        "what stops a throttled peer is that it does not read"
    );
}

#[test]
fn unread_bytes_behind_a_stuck_queue_count_from_their_arrival() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, &format!("{}\n", "x".repeat(700)));
    rig.write(id, 1);
    let mut final_reads = 0;
    while rig.engine.is_open(id) {
        rig.now = rig.engine.poll_timeout().expect("a check is due");
        rig.engine.handle_timers(rig.now, usize::MAX);
        while let Some(id) = rig.engine.poll_final_read() {
            final_reads += 1;
            let found = FinalRead {
                unread: true,
                received_ms: Some(rig.now.as_ms() - 3000),
                ..FinalRead::default()
            };
            rig.engine.handle_final_read(rig.now, id, found);
        }
    }
    let due_ms = 3000 + BOUND_MS;
    assert!(
        (due_ms..=due_ms + TICK_MS).contains(&rig.now.as_ms()),
        "{}",
        rig.now
    );
    assert_eq!(
        (final_reads, rig.reasons()),
        (2, vec![CloseReason::SlowReader])
    );
}

#[test]
fn postponed_final_read_comes_in_the_next_slot_and_not_in_the_same_turn() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    let suspect = loop {
        rig.now = rig.engine.poll_timeout().expect("a check is due");
        while !rig.engine.handle_timers(rig.now, 1) {}
        if let Some(id) = rig.engine.poll_final_read() {
            break id;
        }
    };
    assert_eq!(suspect, id);
    rig.engine.postpone_final_read(id);
    assert!(rig.engine.handle_timers(rig.now, 1));
    assert_eq!(rig.engine.poll_final_read(), None);
    assert_eq!(rig.engine.oldest_due(rig.now), None);

    let next = rig.engine.poll_timeout().expect("the check is due again");
    assert!((1..=TICK_MS / 8 + 1).contains(&next.ms_since(rig.now)));
    rig.engine.handle_timers(next, 1);
    assert_eq!(rig.engine.poll_final_read(), Some(id));
}

#[test]
fn ping_follows_every_16_kib_of_output() {
    let mut config = config();
    config.limits.max_outbox = 1 << 20;
    let mut rig = Rig::new(&config);
    let id = rig.open();
    let message = "x".repeat(999);
    for _ in 0..100 {
        rig.receive(id, &format!("{message}\n"));
    }
    let wire = rig.outgoing(id);
    let between: Vec<usize> = wire.split("ping\n").map(str::len).collect();
    let (last, between) = between.split_last().expect("a first part");
    assert_eq!(between.len(), 5);
    assert!(
        between.iter().all(|len| (16_000..=18_500).contains(len)) && *last < 18_500,
        "{between:?}"
    );
    assert_eq!(rig.engine.stats().pings_sent, 5);
}

#[test]
fn peer_that_answers_pings_within_a_long_reply_stays_open() {
    let mut config = config();
    config.limits.max_outbox = 1 << 20;
    let mut rig = Rig::new(&config);
    let id = rig.open();
    rig.engine.send(id, &[&[b'x'; 400]]).expect("room");
    for _ in 0..40 {
        rig.engine.send(id, &[&vec![b'x'; 10_000]]).expect("room");
    }
    rig.write(id, 1000);
    // It reads 10 kB per second, and answers each ping that it meets.
    for second in 1..40 {
        rig.pass_until(second * 1000, false);
        let taken = rig.outgoing(id)[..10_000].to_string();
        rig.write(id, taken.len());
        for _ in taken.matches("ping\n") {
            rig.receive(id, "pong\n");
        }
        assert_eq!(rig.reasons(), [], "after {second} s");
    }
}

#[test]
fn throttle_within_a_turn_closes_no_connection() {
    for (unread, reasons) in [(true, vec![]), (false, vec![CloseReason::HeartbeatTimeout])] {
        let mut rig = Rig::new(&config());
        let id = rig.open();
        rig.pass_until(BOUND_MS, false);
        rig.engine.send(id, &[&[b'x'; 600]]).expect("room");
        rig.pass_until(BOUND_MS + TICK_MS, unread);
        assert_eq!(rig.reasons(), reasons);
    }
}

#[test]
fn unread_bytes_of_a_paused_connection_are_a_sign_of_life() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "!\n");
    rig.pass_until(3 * BOUND_MS, true);
    assert_eq!(rig.reasons(), []);
    rig.pass_until(u64::MAX, false);
    assert_eq!(rig.reasons(), [CloseReason::HeartbeatTimeout]);
    assert!(!rig.engine.is_open(id));
}

#[test]
fn timer_budget_leaves_the_rest_due() {
    let mut rig = Rig::new(&config());
    rig.open_many(10);
    rig.now = Timestamp::from_ms(INTERVAL_MS);
    assert!(!rig.engine.handle_timers(rig.now, 4));
    assert!(rig.engine.poll_timeout().is_some_and(|at| at <= rig.now));
    assert!(rig.engine.handle_timers(rig.now, 100));
    assert_eq!(rig.engine.stats().pings_sent, 10);
}

#[test]
fn pings_beyond_the_queue_limit_close_no_connection() {
    let mut config = config();
    config.framing = Framing::Raw;
    let mut rig = Rig::new(&config);
    let id = rig.open();
    rig.receive(id, &"ping".repeat(300));
    assert_eq!(rig.flush(id), "pong".repeat(250));
    assert_eq!(rig.reasons(), []);
}

#[test]
fn first_connection_after_an_idle_month_is_checked_on_time() {
    let mut rig = Rig::new(&config());
    rig.open();
    rig.pass_until(u64::MAX, false);
    rig.reap();
    rig.now = rig.now.plus_ms(30 * 86_400_000);
    rig.open();
    assert!(rig.engine.handle_timers(rig.now, 8), "nothing is due yet");
    assert!(rig.engine.poll_timeout().is_some_and(|at| at > rig.now));
}
