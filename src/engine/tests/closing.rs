use super::*;

#[test]
fn first_close_reason_wins() {
    let mut rig = Rig::new(&config());
    let (reset, asked, flushing) = (rig.open(), rig.open(), rig.open());
    rig.engine
        .handle_failure(rig.now, reset, CloseReason::PeerReset);
    assert!(!rig.engine.close_on_request(reset, Close::Now));
    assert!(rig.engine.close_on_request(asked, Close::Now));
    rig.engine
        .handle_failure(rig.now, asked, CloseReason::PeerReset);
    rig.receive(flushing, "$bye\n");
    rig.engine
        .handle_failure(rig.now, flushing, CloseReason::PeerReset);
    assert_eq!(
        rig.reasons(),
        [
            CloseReason::PeerReset,
            CloseReason::Requested,
            CloseReason::Requested
        ]
    );
    assert_eq!(rig.reasons(), [], "each closes once");
}

#[test]
fn close_now_drops_the_queue_and_close_after_flush_sends_it() {
    let mut rig = Rig::new(&config());
    let (now, later) = (rig.open(), rig.open());
    rig.receive(now, "one\n#\ntwo\n");
    rig.receive(later, "one\n$\ntwo\n");
    let closed = rig.reap();
    assert_eq!((closed.len(), closed[0].0, closed[0].1.unsent), (1, now, 4));
    assert_eq!(rig.engine.send(later, &[b"more"]), Err(SendError::Closed));
    assert_eq!(
        rig.flush(later),
        "one\n$\n",
        "and what came after it is not looked at"
    );
    let closed = rig.reap();
    assert_eq!((closed[0].0, closed[0].1.unsent), (later, 0));
}

#[test]
fn stuck_flush_ends_after_its_timeout() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "$bye\n");
    rig.write(id, 2);
    rig.pass_until(u64::MAX, false);
    assert!((BOUND_MS..=BOUND_MS + TICK_MS).contains(&rig.now.as_ms()));
    assert_eq!(rig.reap()[0].1.unsent, 3);
}

#[test]
fn final_write_that_was_interrupted_does_not_renew_the_flush_timeout() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "$bye\n");
    rig.write(id, 2);
    rig.engine.handle_progress(rig.now, id, None);
    rig.now = Timestamp::from_ms(BOUND_MS + TICK_MS);
    rig.engine.handle_timers(rig.now, usize::MAX);
    assert_eq!(rig.engine.poll_final_read(), Some(id));
    rig.engine.handle_progress(rig.now, id, None);
    rig.engine.handle_write_budget_spent(id);
    rig.engine
        .handle_final_read(rig.now, id, FinalRead::default());
    assert_eq!(rig.reasons(), [], "the bytes were not offered yet");
    rig.write(id, 0);
    rig.pass_until(u64::MAX, false);
    assert!(rig.now.as_ms() <= BOUND_MS + 2 * TICK_MS, "{}", rig.now);
    assert_eq!(rig.reasons(), [CloseReason::Requested]);
}

#[test]
fn frame_too_large_closes_after_earlier_replies() {
    let mut rig = Rig::new(&Config {
        limits: Limits {
            max_message: 10,
            ..Limits::default()
        },
        ..config()
    });
    let id = rig.open();
    rig.receive(id, "one\n01234567890\ntwo\n");
    assert_eq!(rig.flush(id), "one\n");
    assert_eq!(rig.reasons(), [CloseReason::FrameTooLarge]);
}

#[test]
fn half_closed_peer_gets_every_reply_then_the_close() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "one\ntwo\nunfin");
    rig.engine.handle_eof(rig.now, id);
    assert!(!rig.engine.wants_read(id));
    assert_eq!(rig.reasons(), []);
    assert_eq!(rig.flush(id), "one\ntwo\n");
    let (_, closed) = rig.reap().pop().expect("a close");
    assert_eq!(
        (closed.reason, closed.unfinished),
        (CloseReason::PeerClosed, 5),
        "what did not end is dropped, and told"
    );
    assert_eq!(
        rig.messages(),
        ["one", "two"],
        "the unfinished frame is dropped"
    );
}

#[test]
fn half_closed_peer_that_does_not_read_is_a_slow_reader() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "one\n");
    rig.write(id, 1);
    rig.engine.handle_eof(rig.now, id);
    rig.pass_until(u64::MAX, false);
    assert_eq!(rig.reasons(), [CloseReason::SlowReader]);
}

#[test]
fn half_closed_peer_is_not_closed_before_its_replies_are_offered() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "one\n");
    rig.engine.handle_eof(rig.now, id);
    // A server so busy that it does not flush.
    rig.pass_until(10 * BOUND_MS, false);
    assert_eq!(rig.reasons(), []);
    rig.write(id, 1);
    rig.pass_until(10 * BOUND_MS + BOUND_MS - TICK_MS, false);
    assert_eq!(rig.reasons(), [], "the timeout begins with the first write");
    rig.pass_until(u64::MAX, false);
    assert_eq!(rig.reasons(), [CloseReason::SlowReader]);
}

#[test]
fn stale_id_does_not_affect_the_reused_slot() {
    let mut rig = Rig::new(&config());
    let old = rig.open();
    rig.engine
        .handle_failure(rig.now, old, CloseReason::PeerReset);
    rig.reap();
    let new = rig.open();
    assert_eq!(
        (
            old.slot(),
            rig.engine.conn_by_token(old.token()),
            rig.engine.conn_by_token(new.token())
        ),
        (new.slot(), None, Some(new))
    );
    rig.receive(old, "ghost\n");
    rig.engine.handle_eof(rig.now, old);
    rig.engine
        .handle_failure(rig.now, old, CloseReason::PeerReset);
    rig.engine.pause_reads(old, true);
    rig.engine
        .handle_final_read(rig.now, old, FinalRead::default());
    assert_eq!(rig.engine.send(old, &[b"late"]), Err(SendError::Closed));
    assert!(rig.engine.wants_read(new) && rig.engine.is_open(new) && !rig.engine.has_work());
    assert_eq!(
        (
            rig.engine.stats().bytes_in,
            rig.messages().len(),
            rig.reap().len()
        ),
        (0, 0, 0)
    );
}

#[test]
fn requested_close_after_long_silence_flushes() {
    let mut rig = Rig::new(&Config {
        heartbeat: None,
        ..config()
    });
    let id = rig.open();
    rig.now = Timestamp::from_ms(3_600_000);
    rig.engine.advance(rig.now);
    rig.engine.send(id, &[b"the last word"]).expect("room");
    assert!(rig.engine.close_on_request(id, Close::AfterFlush));
    rig.engine.handle_timers(rig.now, usize::MAX);
    assert_eq!(rig.reasons(), [], "its patience begins now");
    assert_eq!(rig.flush(id), "the last word\n");
    assert_eq!(rig.reasons(), [CloseReason::Requested]);
}

#[test]
fn code_of_the_application_is_reported_and_counted() {
    let mut rig = Rig::new(&config());
    let ids = rig.open_many(3);
    assert!(rig.engine.close_with(ids[0], Close::Now, 7));
    assert!(
        !rig.engine.close_with(ids[0], Close::Now, 8),
        "the first counts"
    );
    rig.receive(ids[1], "one\n");
    assert!(rig.engine.close_with(ids[1], Close::AfterFlush, 7));
    rig.engine.close_on_request(ids[2], Close::Now);
    rig.flush(ids[1]);
    let codes: Vec<Option<u16>> = rig.reap().iter().map(|(_, closed)| closed.code).collect();
    assert_eq!(codes, [Some(7), None, Some(7)]);
    let (codes, others) = rig.engine.stats().closed_by_code();
    assert_eq!((codes.collect::<Vec<_>>(), others), (vec![(7, 2)], 0));
    for code in 100..200 {
        let id = rig.open();
        rig.engine.close_with(id, Close::Now, code);
        rig.reap();
    }
    let (codes, others) = rig.engine.stats().closed_by_code();
    assert_eq!((codes.count(), others), (64, 37), "memory is bounded");
}
