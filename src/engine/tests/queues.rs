use super::*;

#[test]
fn reading_stops_above_half_the_outbox_and_resumes_at_a_quarter() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    let line = format!("{}\n", "x".repeat(99));
    rig.receive(id, &line.repeat(7));
    assert_eq!(
        (rig.engine.queued(id), rig.engine.stats().throttled),
        (600, 1),
        "the seventh waits"
    );
    assert!(!rig.engine.wants_read(id));
    rig.write(id, 349);
    assert_eq!(
        rig.engine.poll_readable(),
        None,
        "251 bytes are more than a quarter"
    );
    rig.write(id, 1);
    assert_eq!(rig.engine.poll_readable(), Some(id));
    assert!(!rig.engine.wants_read(id), "the seventh comes first");
    rig.engine
        .resume_decoding(rig.now, id, &mut Work::new(u32::MAX), &mut rig.handler);
    assert_eq!(
        (rig.engine.queued(id), rig.engine.wants_read(id)),
        (350, true)
    );
}

#[test]
fn one_message_over_the_bound_closes_a_slow_reader_and_queues_nothing() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    assert_eq!(rig.engine.send(id, &[&[b'x'; 1000]]), Err(SendError::Full));
    assert_eq!(rig.engine.queued(id), 0);
    assert_eq!(rig.reasons(), [CloseReason::SlowReader]);
}

#[test]
fn unframeable_message_closes_no_connection() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    assert_eq!(
        rig.engine.send(id, &[b"two\nlines"]),
        Err(SendError::InvalidMessage)
    );
    assert_eq!(
        rig.engine.broadcast(b"two\nlines", None),
        Err(SendError::InvalidMessage)
    );
    assert!(rig.engine.is_open(id));
}

#[test]
fn pause_within_a_read_keeps_later_messages_in_order() {
    for (framing, max_message) in [(Framing::Lines, 10), (Framing::Raw, 4)] {
        let mut rig = Rig::new(&Config {
            framing,
            limits: Limits {
                max_message,
                ..Limits::default()
            },
            ..config()
        });
        let id = rig.open();
        rig.receive(id, "one\n!23\ntwo\nthr");
        assert!(!rig.engine.wants_read(id));
        let before = rig.messages().len();
        rig.engine
            .resume_decoding(rig.now, id, &mut Work::new(u32::MAX), &mut rig.handler);
        assert_eq!(
            (before, rig.messages().len()),
            (2, 2),
            "an early call does nothing"
        );
        rig.engine.pause_reads(id, false);
        assert!(rig.engine.has_work());
        assert_eq!(rig.engine.poll_readable(), Some(id));
        rig.engine
            .resume_decoding(rig.now, id, &mut Work::new(u32::MAX), &mut rig.handler);
        rig.receive(id, "ee\n");
        assert_eq!(rig.messages().concat().replace('\n', ""), "one!23twothree");
    }
}

#[test]
fn on_queue_empty_comes_only_after_the_queue_was_stuck() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "one\n");
    rig.flush(id);
    assert_eq!(rig.queue_empties(), 0);
    rig.receive(id, "two\n");
    rig.write(id, 1);
    assert!(rig.engine.is_blocked(id));
    rig.flush(id);
    assert!(!rig.engine.is_blocked(id));
    assert_eq!(rig.queue_empties(), 1);
}

#[test]
fn connection_is_dirty_once_per_flush() {
    let mut rig = Rig::new(&config());
    let (a, b) = (rig.open(), rig.open());
    rig.receive(a, "one\ntwo\n");
    rig.receive(b, "one\n");
    rig.receive(a, "three\n");
    assert_eq!(
        (
            rig.engine.poll_dirty(),
            rig.engine.poll_dirty(),
            rig.engine.poll_dirty()
        ),
        (Some(a), Some(b), None)
    );
}

#[test]
fn replies_do_not_wait_for_broadcasts() {
    let mut rig = Rig::new(&config());
    let [a, b, c] = std::array::from_fn(|_| rig.open());
    rig.engine.broadcast(b"to all", None).expect("room");
    assert_eq!(rig.engine.poll_dirty(), None);
    rig.receive(b, "one\n");
    assert_eq!(rig.engine.poll_dirty(), Some(b));
    assert_eq!(rig.flush(b), "to all\none\n");
    assert_eq!(
        [(); 3].map(|()| rig.engine.poll_broadcast_only()),
        [Some(a), Some(c), None],
        "it has left them"
    );
    assert!(!rig.engine.has_work());

    // The next connection is named all the same, and once, although a stale entry was left behind.
    rig.engine.broadcast(b"again", None).expect("room");
    rig.receive(b, "two\n");
    assert_eq!(rig.engine.poll_dirty(), Some(b));
    rig.flush(b);
    rig.engine.broadcast(b"and again", None).expect("room");
    assert_eq!(
        [(); 4].map(|()| rig.engine.poll_broadcast_only()),
        [Some(a), Some(b), Some(c), None]
    );
    assert!(!rig.engine.has_work());
}

#[test]
fn broadcast_reaches_all_except_one_copied_or_shared() {
    for len in [3, 900] {
        let mut rig = Rig::new(&config());
        let (from, a, b) = (rig.open(), rig.open(), rig.open());
        let message = format!("*{}", "x".repeat(len));
        rig.receive(from, &format!("{message}\n"));
        assert_eq!(
            (rig.engine.queued(from), rig.flush(a), rig.flush(b)),
            (0, format!("{message}\n"), format!("{message}\n"))
        );
        assert_eq!(rig.engine.stats().messages_queued, 2);
    }
}

#[test]
fn broadcast_closes_only_receivers_with_full_queues() {
    let mut rig = Rig::new(&config());
    let (slow, quick) = (rig.open(), rig.open());
    rig.engine.send(slow, &[&[b'x'; 600]]).expect("room");
    rig.write(slow, 0);
    assert_eq!(
        rig.engine.broadcast(&[b'y'; 600], None),
        Ok(Broadcast::Complete(1))
    );
    assert_eq!(rig.engine.queued(quick), 601);
    let closed = rig.reap();
    assert_eq!(
        (closed[0].0, closed[0].1.reason, closed[0].1.unsent),
        (slow, CloseReason::SlowReader, 601)
    );
}

#[test]
fn invalid_message_changes_nothing() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    assert_eq!(
        rig.engine.send(id, &[b"a\nb"]),
        Err(SendError::InvalidMessage)
    );
    assert_eq!((rig.engine.queued(id), rig.engine.buffered()), (0, 0));
    assert_eq!(
        rig.engine.broadcast(&[b'x'; 600], None),
        Ok(Broadcast::Complete(1))
    );
    assert_eq!(
        rig.engine.send(id, &[b"a", b"\n"]),
        Err(SendError::InvalidMessage)
    );
    // It would not fit either.
    assert_eq!(
        rig.engine.send(id, &[&[b'\n'; 600]]),
        Err(SendError::InvalidMessage)
    );
    assert_eq!(
        (rig.engine.queued(id), rig.engine.send(id, &[b"end"])),
        (601, Ok(()))
    );
    assert!(rig.flush(id).ends_with("x\nend\n"));
    assert_eq!(
        (
            rig.engine.stats().messages_queued,
            rig.engine.buffered(),
            rig.reasons()
        ),
        (2, 0, vec![])
    );
}
