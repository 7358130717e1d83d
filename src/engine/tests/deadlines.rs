use std::num::NonZeroU32;

use super::*;

/// No heartbeat and one limit, so that nothing else closes a connection.
fn with(change: impl FnOnce(&mut Limits)) -> Rig {
    let mut limits = Limits {
        write_timeout: None,
        frame_timeout: None,
        max_outbox: 1000,
        ..Limits::default()
    };
    change(&mut limits);
    Rig::new(&Config {
        heartbeat: None,
        limits,
        ..config()
    })
}

fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

#[test]
fn frame_timeout_counts_from_the_first_byte_of_each_frame() {
    let mut rig = with(|limits| limits.frame_timeout = seconds(3));
    let (trickles, talks) = (rig.open(), rig.open());
    for step in 1..=31 {
        rig.pass_until(step * 100, false);
        assert!(
            rig.engine.is_open(trickles),
            "its first byte came at 100 ms, and the end at {}",
            rig.now
        );
        rig.receive(trickles, "x");
        rig.receive(talks, "x\ny");
    }
    rig.pass_until(3200, false);
    assert_eq!(rig.reasons(), [CloseReason::FrameTimeout]);
    assert!(!rig.engine.is_open(trickles) && rig.engine.is_open(talks));
}

#[test]
fn frame_timeout_pauses_while_reading_is_paused() {
    let mut rig = with(|limits| limits.frame_timeout = seconds(3));
    let id = rig.open();
    rig.receive(id, "half");
    rig.engine.pause_reads(id, true);
    rig.pass_until(10_000, false);
    assert_eq!(rig.reasons(), []);
    rig.engine.pause_reads(id, false);
    rig.pass_until(12_900, false);
    assert_eq!(rig.reasons(), []);
    rig.pass_until(13_200, false);
    assert_eq!(rig.reasons(), [CloseReason::FrameTimeout]);
}

#[test]
fn first_message_timeout_accepts_heartbeats() {
    let mut rig = with(|limits| limits.first_message_timeout = seconds(3));
    let (mute, pongs, mumbles) = (rig.open(), rig.open(), rig.open());
    rig.pass_until(1000, false);
    rig.receive(pongs, "pong\n");
    rig.receive(mumbles, "no line feed");
    rig.pass_until(3000, false);
    assert_eq!(rig.reasons(), []);
    rig.pass_until(3200, false);
    assert_eq!(rig.reasons(), [CloseReason::FirstMessageTimeout; 2]);
    assert!(rig.engine.is_open(pongs) && !rig.engine.is_open(mute) && !rig.engine.is_open(mumbles));
}

#[test]
fn progress_is_wanted_before_the_first_write_after_a_stall() {
    let mut rig = with(|limits| limits.write_timeout = seconds(4));
    let id = rig.open();
    rig.engine.send(id, &[&[b'x'; 900]]).expect("room");
    rig.write(id, 800);
    assert!(rig.engine.wants_progress(id), "the first measurement");
    rig.engine.handle_progress(rig.now, id, Some(800));
    assert!(!rig.engine.wants_progress(id), "measured just now");

    rig.now = Timestamp::from_ms(30_000);
    rig.engine.advance(rig.now);
    assert!(rig.engine.wants_progress(id));
    rig.engine.handle_progress(rig.now, id, Some(0));
    rig.write(id, 50);
    rig.engine.handle_timers(rig.now, usize::MAX);
    assert_eq!(rig.engine.poll_final_read(), None, "it took everything");
}

/// Bytes that the peer acknowledges, by time in milliseconds, and when it is closed as a slow
/// reader.
fn closed_at(acknowledged: impl Fn(u64) -> u64) -> Option<u64> {
    let mut rig = with(|limits| limits.write_timeout = seconds(4));
    let id = rig.open();
    rig.engine.send(id, &[&[b'x'; 900]]).expect("room");
    rig.write(id, 800);
    let unacknowledged = |ms| 800 - acknowledged(ms).min(800);
    rig.engine
        .handle_progress(rig.now, id, Some(unacknowledged(0)));
    while rig.engine.is_open(id) && rig.now.as_ms() < 12_000 {
        rig.now = rig.engine.poll_timeout().expect("a check is due");
        rig.engine.handle_timers(rig.now, usize::MAX);
        rig.receive(id, "pong\n");
        while let Some(id) = rig.engine.poll_final_read() {
            let left = unacknowledged(rig.now.as_ms());
            rig.engine.handle_progress(rig.now, id, Some(left));
            rig.engine
                .handle_final_read(rig.now, id, FinalRead::default());
        }
    }
    let reasons = rig.reasons();
    assert!(reasons.is_empty() || reasons == [CloseReason::SlowReader]);
    (!reasons.is_empty()).then_some(rig.now.as_ms())
}

#[test]
fn peer_without_acknowledgements_is_closed_after_the_write_timeout() {
    let at = closed_at(|_| 0).expect("it is closed");
    assert!((4000..=4000 + TICK_MS).contains(&at), "{at} ms");
}

#[test]
fn stopped_peer_is_closed_within_5_4_of_the_write_timeout() {
    let at = closed_at(|ms| if ms < 3500 { ms / 5 } else { 700 }).expect("it is closed");
    assert!((7500..=8500 + 2 * TICK_MS).contains(&at), "{at} ms");
}

#[test]
fn peer_with_steady_acknowledgements_stays_open() {
    assert_eq!(closed_at(|ms| ms / 15), None);
}

#[test]
fn single_bytes_are_not_progress() {
    assert!(closed_at(|ms| ms / 900).is_some());
}

#[test]
fn an_empty_queue_has_no_write_timeout() {
    let mut rig = with(|limits| limits.write_timeout = seconds(3));
    let id = rig.open();
    rig.receive(id, "a message\n");
    rig.write(id, 2);
    rig.pass_until(1000, false);
    rig.flush(id);
    rig.pass_until(10_000, false);
    assert_eq!(rig.reasons(), []);
}

#[test]
fn flood_is_read_at_its_rate_then_closed() {
    let mut rig = with(|limits| limits.max_message_rate = NonZeroU32::new(10));
    let id = rig.open();
    rig.receive(id, &"m\n".repeat(2000));
    assert_eq!(rig.messages().len(), 10, "a second's worth at once");
    assert!(!rig.engine.wants_read(id));
    rig.pass_until(5000, false);
    assert!(
        (55..=65).contains(&rig.messages().len()),
        "{} messages in 5 s",
        rig.messages().len()
    );
    rig.pass_until(12_000, false);
    assert_eq!(rig.reasons(), [CloseReason::RateLimited]);
}

#[test]
fn heartbeats_count_against_the_rate() {
    let mut rig = with(|limits| limits.max_message_rate = NonZeroU32::new(10));
    let id = rig.open();
    rig.receive(id, &"ping\n".repeat(50));
    assert_eq!(rig.engine.stats().pings_received, 10);
}

#[test]
fn first_message_timeout_resumes_after_a_pause() {
    let mut rig = with(|limits| limits.first_message_timeout = seconds(3));
    let id = rig.open();
    rig.engine.pause_reads(id, true);
    rig.pass_until(10_000, false);
    assert_eq!(
        rig.reasons(),
        [],
        "while nothing is read from it, it owes nothing"
    );
    rig.engine.pause_reads(id, false);
    rig.pass_until(10_200, false);
    assert_eq!(rig.reasons(), [CloseReason::FirstMessageTimeout]);
}
