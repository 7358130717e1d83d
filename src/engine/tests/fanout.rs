use super::*;

/// More than a broadcast visits within the call.
const MANY: usize = 300;

/// Room for a few messages in each outbox.
fn many() -> (Rig, Vec<ConnId>) {
    let mut rig = Rig::new(&Config {
        heartbeat: None,
        ..config()
    });
    let ids = rig.open_many(MANY);
    (rig, ids)
}

impl Rig {
    fn pending(&mut self, message: &[u8], except: Option<ConnId>) -> BroadcastId {
        match self.engine.broadcast(message, except) {
            Ok(Broadcast::Pending(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn fan_out(&mut self, units: u32) {
        let mut work = Work::new(units);
        self.engine
            .handle_fanouts(self.now, &mut work, &mut self.handler);
    }

    fn completed(&self) -> Vec<usize> {
        let seen = self.handler.seen.iter();
        seen.filter_map(|seen| match seen {
            Seen::Broadcast(receivers) => Some(*receivers),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn broadcast_to_many_continues_across_turns_and_reports_once() {
    let (mut rig, ids) = many();
    rig.pending(b"all", Some(ids[7]));
    assert!(rig.engine.has_work());
    let mut turns = 0;
    while rig.engine.has_work() {
        rig.fan_out(10);
        let delivered = ids.iter().filter(|id| rig.engine.queued(**id) > 0).count();
        turns += 1;
        assert!(delivered <= turns * 10);
        while rig.engine.poll_broadcast_only().is_some() {}
    }
    // And a few for the vacant slots of the slab.
    assert!((30..33).contains(&turns), "{turns}");
    assert_eq!(rig.completed(), [MANY - 1]);
    assert_eq!(rig.engine.queued(ids[7]), 0);
    assert!(
        ids.iter()
            .all(|id| *id == ids[7] || rig.outgoing(*id) == "all\n")
    );
}

#[test]
fn later_connections_do_not_receive_the_broadcast() {
    let (mut rig, ids) = many();
    rig.pending(b"one", None);
    rig.fan_out(10);
    // Its slot is one that the sweep has not visited yet.
    rig.engine.close_on_request(ids[200], Close::Now);
    rig.reap();
    let later = rig.open();
    assert_eq!(later.slot(), ids[200].slot());
    rig.fan_out(u32::MAX);
    assert_eq!(
        (rig.outgoing(later), rig.completed()),
        (String::new(), vec![MANY - 1])
    );
}

#[test]
fn direct_message_does_not_overtake_a_broadcast() {
    let (mut rig, ids) = many();
    rig.pending(b"one", None);
    rig.pending(b"two", None);
    rig.fan_out(10);
    rig.engine.send(ids[250], &[b"direct"]).expect("room");
    rig.pending(b"three", None);
    rig.engine.send(ids[250], &[b"again"]).expect("room");
    rig.fan_out(u32::MAX);
    assert_eq!(rig.outgoing(ids[250]), "one\ntwo\ndirect\nthree\nagain\n");
    assert_eq!(rig.outgoing(ids[5]), "one\ntwo\nthree\n");
    assert_eq!(rig.completed(), [MANY; 3]);
}

#[test]
fn vacant_slots_cost_a_burst_next_to_nothing() {
    let (mut rig, ids) = many();
    assert!(rig.engine.conns.capacity() > MANY + 100);
    for _ in 0..100 {
        rig.pending(b"x", None);
    }
    let mut turns = 0;
    while rig.engine.has_work() {
        rig.fan_out(10);
        turns += 1;
        while rig.engine.poll_broadcast_only().is_some() {}
    }
    assert_eq!(rig.completed(), [MANY; 100]);
    assert!((30..33).contains(&turns), "{turns}");
    assert_eq!(rig.outgoing(ids[0]), "x\n".repeat(100));
}

#[test]
fn broadcast_after_most_connections_have_left_stays_within_the_budget() {
    let (mut rig, ids) = many();
    for id in &ids[10..] {
        rig.engine.close_on_request(*id, Close::Now);
    }
    rig.reasons();
    rig.pending(b"all", None);
    let mut work = Work::new(4);
    rig.engine
        .handle_fanouts(rig.now, &mut work, &mut rig.handler);
    assert!(work.is_spent() && rig.completed().is_empty());
    rig.fan_out(u32::MAX);
    assert_eq!(rig.completed(), [10]);
}

#[test]
fn pings_within_a_broadcast_delay_no_replies() {
    let mut rig = Rig::new(&Config {
        limits: Limits {
            max_outbox: 64 << 10,
            ..config().limits
        },
        ..config()
    });
    let ids = rig.open_many(MANY);
    for _ in 0..2 {
        rig.pending(&[b'x'; 10 << 10], None);
    }
    rig.fan_out(u32::MAX);
    assert_eq!(rig.engine.poll_dirty(), None, "they are broadcast-only");
    assert!(rig.outgoing(ids[0]).ends_with("x\nping\n"));
}

#[test]
fn burst_reaches_all_but_the_excluded_in_order() {
    let (mut rig, ids) = many();
    for (n, from) in ids[..20].iter().enumerate() {
        rig.pending(format!("m{n}").as_bytes(), Some(*from));
    }
    rig.fan_out(u32::MAX);
    for (of, id) in ids.iter().enumerate() {
        let expected = (0..20).filter(|n| *n != of);
        let expected: String = expected.map(|n| format!("m{n}\n")).collect();
        assert_eq!(rig.outgoing(*id), expected);
    }
    assert_eq!(rig.completed(), [MANY - 1; 20]);
}

#[test]
fn sender_is_paused_until_its_broadcast_is_complete() {
    let (mut rig, ids) = many();
    rig.receive(ids[0], "*one\n");
    assert!(!rig.engine.wants_read(ids[0]) && rig.engine.wants_read(ids[1]));
    rig.fan_out(10);
    assert_eq!(rig.engine.poll_readable(), None);
    rig.fan_out(u32::MAX);
    assert_eq!(rig.engine.poll_readable(), Some(ids[0]));
    assert!(rig.engine.wants_read(ids[0]));
}

#[test]
fn broadcasts_beyond_the_limit_are_refused() {
    let (mut rig, ids) = many();
    let accepted = (0..1000)
        .take_while(|_| rig.engine.broadcast(b"x", None).is_ok())
        .count();
    assert_eq!(accepted, 512);
    assert_eq!(rig.engine.broadcast(b"x", None), Err(SendError::Full));
    assert!(rig.engine.is_congested());
    // Nothing is decoded meanwhile, and nothing lost.
    rig.receive(ids[0], "hello\n");
    assert_eq!(rig.messages(), [""; 0]);
    while rig.engine.is_congested() {
        rig.fan_out(u32::MAX);
        rig.flush_dirty();
    }
    let mut work = Work::new(u32::MAX);
    rig.engine
        .resume_decoding(rig.now, ids[0], &mut work, &mut rig.handler);
    assert_eq!(rig.messages(), ["hello"]);
}

#[test]
fn closing_connection_gets_earlier_broadcasts_first() {
    let (mut rig, ids) = many();
    rig.pending(b"last words", None);
    rig.engine.close_on_request(ids[280], Close::AfterFlush);
    rig.engine.handle_eof(rig.now, ids[281]);
    assert_eq!(rig.outgoing(ids[280]), "last words\n");
    assert_eq!(rig.outgoing(ids[281]), "last words\n");
    rig.flush_dirty();
    assert_eq!(
        rig.reasons(),
        [CloseReason::Requested, CloseReason::PeerClosed]
    );
    rig.engine.handle_shutdown(rig.now, 10_000);
    while rig.engine.connections() > 0 {
        rig.pass_until(10_000, false);
        rig.flush_dirty();
        rig.reap();
    }
    assert_eq!(rig.engine.stats().bytes_out, 11 * MANY as u64);
}

#[test]
fn half_closed_connection_is_not_checked_before_its_last_broadcast_is_flushed() {
    let (mut rig, ids) = many();
    let id = ids[281];
    rig.now = Timestamp::from_ms(60_000);
    rig.engine.send(id, &[&[b'x'; 900]]).expect("room");
    rig.engine.handle_eof(rig.now, id);
    rig.pending(&[b'y'; 300], None);
    rig.flush(id);
    assert_eq!(rig.engine.queued(id), 301, "the broadcast found room");
    while !rig.engine.handle_timers(rig.now, 1) {}
    assert_eq!(rig.engine.oldest_due(rig.now), None);
    rig.flush(id);
    assert_eq!(rig.reasons(), [CloseReason::PeerClosed]);
}

#[test]
fn broadcasts_without_receivers_delay_no_reaping_after_a_drain() {
    let (mut rig, _) = many();
    for _ in 0..200 {
        rig.pending(b"late", None);
    }
    assert!(rig.engine.is_congested());
    rig.engine.handle_shutdown(rig.now, 0);
    rig.now = Timestamp::from_ms(TICK_MS);
    rig.engine.handle_timers(rig.now, 1);
    rig.fan_out(1);
    assert!(!rig.engine.is_congested());
    assert_eq!(rig.completed(), [0; 200]);
    assert_eq!(rig.reap().len(), MANY);
}

#[test]
fn broadcast_waits_for_unflushed_receivers_but_not_for_stuck_ones() {
    for (stuck, reasons) in [(false, vec![]), (true, vec![CloseReason::SlowReader])] {
        let (mut rig, ids) = many();
        rig.engine.send(ids[100], &[&[b'x'; 900]]).expect("room");
        if stuck {
            rig.write(ids[100], 0);
        }
        rig.pending(&[b'y'; 300], None);
        rig.fan_out(u32::MAX);
        assert_eq!(rig.completed().is_empty(), !stuck);
        rig.flush_dirty();
        rig.fan_out(u32::MAX);
        assert_eq!(rig.reasons(), reasons);
        assert_eq!(rig.completed(), [MANY - usize::from(stuck)]);
    }
}

#[test]
fn message_larger_than_every_outbox_closes_no_connection() {
    let (mut rig, _) = many();
    assert_eq!(
        rig.engine.broadcast(&[b'x'; 1000], None),
        Err(SendError::Full)
    );
    assert_eq!(rig.reasons(), []);
}

#[test]
fn message_for_a_list_visits_its_receivers_only_and_keeps_the_order() {
    let (mut rig, ids) = many();
    let more = rig.open_many(MANY);
    let list: Vec<ConnId> = ids.iter().chain(&more).copied().step_by(2).collect();
    let gone = rig.open();
    rig.engine.close_on_request(gone, Close::Now);
    rig.reap();
    let twice = [&list[..], &list[..], &[gone]].concat();
    assert_eq!(
        rig.engine.send_many(&list[..3], b"few"),
        Ok(Broadcast::Complete(3)),
        "few are served within the call"
    );
    let pending = rig.engine.send_many(&twice, b"list");
    assert!(matches!(pending, Ok(Broadcast::Pending(_))), "{pending:?}");
    rig.pending(b"all", None);
    rig.fan_out(1);
    // A later message does not overtake either of them.
    let (receiver, other) = (list[299], more[299]);
    assert!(!list.contains(&other));
    rig.engine.send(receiver, &[b"direct"]).expect("room");
    rig.engine.send(other, &[b"direct"]).expect("room");
    assert_eq!(rig.outgoing(receiver), "list\nall\ndirect\n");
    assert_eq!(rig.outgoing(other), "all\ndirect\n");
    while !rig.engine.fanouts.is_empty() {
        rig.fan_out(100);
    }
    assert_eq!(rig.completed(), [list.len(), 2 * MANY]);
    assert_eq!(rig.outgoing(list[1]), "few\nlist\nall\n");
    assert_eq!(rig.outgoing(ids[1]), "all\n");
    assert_eq!(rig.outgoing(receiver), "list\nall\ndirect\n");
}

#[test]
fn message_for_a_list_costs_work_for_its_receivers_only() {
    let (mut rig, _) = many();
    let more = rig.open_many(10 * MANY);
    let list: Vec<ConnId> = more.iter().copied().step_by(10).collect();
    rig.engine.send_many(&list, b"x").expect("room");
    let mut work = Work::new(u32::MAX);
    rig.engine
        .handle_fanouts(rig.now, &mut work, &mut rig.handler);
    assert!(u32::MAX - work.left() <= list.len() as u32);
    assert_eq!(rig.completed(), [list.len()]);
}
