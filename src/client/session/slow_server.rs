//! Servers that read slowly or not at all.

use super::tests::{BOUND, I, at, config, run_silent, up_at};
use super::*;
use crate::config::Heartbeat;

#[test]
fn partial_writes_of_a_stuck_queue_are_not_a_sign_of_life() {
    let mut session = up_at(0, |config| config.write_timeout = None);
    session.handle_sent(at(10), 100, true);
    let seen = run_silent(&mut session, 10, 3 * I);
    assert!(
        seen.iter()
            .all(|(_, action)| matches!(action, Action::Ping { ping: true, .. })),
        "pings go out before messages that are not begun: {seen:?}"
    );
    session.handle_sent(at(3 * I), 5000, true);
    session.handle_progress(at(3 * I), Some(0));
    let seen = run_silent(&mut session, 3 * I + 1, BOUND + 1);
    assert_eq!(seen.last(), Some(&(BOUND + 1, Action::FinalRead)));
}

#[test]
fn raw_framing_sends_no_ping_into_a_stuck_queue() {
    let mut session = up_at(0, |config| {
        (config.framing, config.write_timeout) = (Framing::Raw, None);
    });
    session.handle_sent(at(10), 100, true);
    let seen = run_silent(&mut session, 10, 3 * I);
    assert!(
        seen.iter()
            .all(|(_, action)| matches!(action, Action::Ping { ping: false, .. })),
        "{seen:?}"
    );
}

/// When the client closes the connection to a server that pings all the while and has acknowledged
/// this many bytes.
fn given_up_at(heartbeat: Option<Heartbeat>, acknowledged: impl Fn(u64) -> u64) -> Option<u64> {
    let mut session = up_at(0, |config| {
        (config.heartbeat, config.write_timeout) = (heartbeat, Some(Duration::from_millis(4 * I)))
    });
    session.handle_sent(at(0), 1 << 20, true);
    let unacknowledged = |now| Some((1 << 20) - acknowledged(now));
    assert!(session.wants_progress(at(0)), "the first measurement");
    session.handle_progress(at(0), unacknowledged(0));
    for now in 0..20 * I {
        if now % I == 0 {
            session.handle_received(at(now));
        }
        while let Some(action) = session.poll(at(now)) {
            match action {
                Action::Measure => session.handle_progress(at(now), unacknowledged(now)),
                Action::FinalRead => {
                    assert_eq!(session.verdict(at(now)), Some(CloseReason::SlowReader));
                    return Some(now);
                }
                _ => {}
            }
        }
    }
    None
}

#[test]
fn client_leaves_a_server_that_never_reads_after_write_timeout() {
    for heartbeat in [config().heartbeat, None] {
        assert_eq!(given_up_at(heartbeat.clone(), |_| 0), Some(4 * I + 1));
        let stops = |now: u64| now.min(2 * I) * 10;
        let at = given_up_at(heartbeat.clone(), stops).expect("it stops");
        assert!((6 * I..=7 * I + 4).contains(&at), "{at}");
        assert_eq!(given_up_at(heartbeat, |now| now), None, "it reads steadily");
    }
}

#[test]
fn progress_is_wanted_before_the_first_write_after_a_stall() {
    let mut session = up_at(0, |config| {
        (config.heartbeat, config.write_timeout) = (None, Some(Duration::from_millis(4 * I)));
    });
    session.handle_sent(at(0), 1000, true);
    session.handle_progress(at(0), Some(1000));
    assert!(!session.wants_progress(at(10)), "measured just now");
    let later = at(30 * I);
    assert!(session.wants_progress(later));
    session.handle_progress(later, Some(0));
    session.handle_sent(later, 5000, true);
    assert!(!session.wants_progress(later));
    assert_eq!(session.verdict(later), None, "it acknowledged everything");
}
