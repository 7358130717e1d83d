use super::*;
use crate::config::OnSlow;

/// Room for 4,000 bytes in all and 1,000 per connection, without timeouts.
fn small(on_slow: OnSlow) -> Rig {
    let limits = Limits {
        max_outbox: 1000,
        max_message: 900,
        max_memory: Some(4000),
        on_slow,
        ..Limits::default()
    };
    Rig::new(&Config {
        heartbeat: None,
        limits,
        ..config()
    })
}

#[test]
fn memory_limit_closes_the_largest_holders() {
    let mut rig = small(OnSlow::Close);
    let ids = rig.open_many(20);
    for (n, id) in ids[..10].iter().enumerate() {
        rig.engine
            .send(*id, &["x".repeat(260 + 10 * n).as_bytes()])
            .expect("room");
        rig.write(*id, 0);
    }
    assert!(rig.engine.buffered() <= 4000 && rig.reap().is_empty());
    for id in &ids[..2] {
        rig.receive(*id, &"y".repeat(300));
    }
    let closed = rig.reap();
    assert!(
        closed
            .iter()
            .all(|(_, closed)| closed.reason == CloseReason::MemoryLimit)
    );
    assert_eq!(
        closed[0].0, ids[1],
        "a queue and the beginning of a message make it the largest"
    );
    assert!(
        closed[0].1.unsent > 260 && closed[0].1.unfinished == 300,
        "what was lost is told"
    );
    assert!(!closed.is_empty() && rig.engine.buffered() <= 3500);
    assert!(ids[10..].iter().all(|id| rig.engine.is_open(*id)));
}

#[test]
fn shared_bytes_count_once_until_the_last_release() {
    let mut rig = small(OnSlow::Close);
    let ids = rig.open_many(20);
    rig.engine
        .broadcast("z".repeat(800).as_bytes(), None)
        .expect("it can be framed");
    assert!(rig.reap().is_empty());
    assert!(
        (801..801 + 20 * 60).contains(&rig.engine.buffered()),
        "{} bytes",
        rig.engine.buffered()
    );
    for id in &ids[1..] {
        rig.flush(*id);
    }
    assert!(rig.engine.buffered() > 800);
    rig.flush(ids[0]);
    assert_eq!(rig.engine.buffered(), 0);
}

#[test]
fn broadcast_waits_for_a_flush_instead_of_closing_receivers() {
    let mut rig = small(OnSlow::Close);
    let ids = rig.open_many(20);
    let sent = rig.engine.broadcast(&[b'z'; 400], None);
    assert!(matches!(sent, Ok(Broadcast::Pending(_))), "{sent:?}");
    assert!(rig.engine.buffered() <= 4000);
    let mut turns = 0;
    while rig.engine.has_work() {
        rig.flush_dirty();
        rig.engine
            .handle_fanouts(rig.now, &mut Work::new(100), &mut rig.handler);
        assert!(rig.engine.buffered() <= 4000);
        turns += 1;
    }
    assert!(turns < 10 && rig.reasons().is_empty());
    assert_eq!(rig.handler.seen.last(), Some(&Seen::Broadcast(20)));
    assert_eq!(rig.engine.stats().bytes_out, ids.len() as u64 * 401);
}

#[test]
fn stuck_connections_are_closed_before_unflushed_ones() {
    let mut rig = small(OnSlow::Close);
    let (stuck, fresh) = (rig.open_many(2), rig.open_many(3));
    for id in &stuck {
        rig.engine.send(*id, &[&[b'x'; 700]]).expect("room");
        rig.write(*id, 0);
    }
    for id in &fresh {
        rig.engine.send(*id, &[&[b'x'; 900]]).expect("room");
    }
    assert_eq!(rig.reasons(), [CloseReason::MemoryLimit; 2]);
    assert!(fresh.iter().all(|id| rig.engine.is_open(*id)));
}

#[test]
fn where_memory_is_tight_reading_stops_early() {
    let limits = Limits {
        max_outbox: 100_000,
        max_message: 900,
        max_memory: Some(110_000),
        ..Limits::default()
    };
    let mut rig = Rig::new(&Config {
        heartbeat: None,
        limits,
        ..config()
    });
    let (fills, asks) = (rig.open(), rig.open());
    rig.receive(asks, &"m\n".repeat(4000));
    assert!(
        rig.engine.wants_read(asks),
        "8,000 bytes are far below half of its bound"
    );
    rig.flush(asks);
    for _ in 0..100 {
        rig.engine.send(fills, &[&[b'x'; 700]]).expect("room");
    }
    rig.receive(asks, &"m\n".repeat(4000));
    assert!(!rig.engine.wants_read(asks) && rig.engine.queued(asks) < 5000);
    rig.flush(asks);
    assert!(rig.engine.has_undecoded(asks), "a message each turn");
}

#[test]
fn on_slow_drop_never_drops_a_reply() {
    let mut rig = small(OnSlow::Drop);
    let (slow, asks) = (rig.open(), rig.open());
    rig.engine.send(slow, &[&[b'x'; 800]]).expect("room");
    rig.write(slow, 0);
    assert_eq!(rig.engine.send(slow, &[&[b'x'; 800]]), Err(SendError::Full));
    assert_eq!(
        rig.engine.broadcast(&[b'x'; 300], None),
        Ok(Broadcast::Complete(1))
    );
    assert_eq!(
        (rig.reasons(), rig.engine.stats().messages_dropped),
        (vec![], 2)
    );
    rig.engine.send(asks, &[&[b'x'; 400]]).expect("room");
    rig.receive(asks, &format!("{}\n", "y".repeat(400)));
    assert_eq!(
        rig.reasons(),
        [CloseReason::SlowReader],
        "its own answer did not fit"
    );
}
