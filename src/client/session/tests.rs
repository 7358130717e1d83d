use super::*;
use crate::config::Heartbeat;

pub(super) const I: u64 = 1000;
pub(super) const BOUND: u64 = 4 * I;

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

pub(super) fn config() -> ClientConfig {
    ClientConfig {
        heartbeat: Some(Heartbeat {
            interval: Duration::from_millis(I),
            retry: None,
            max_missed: 3,
            send_pings: true,
            ..Heartbeat::default()
        }),
        backoff: Backoff::fixed(Duration::from_millis(300)),
        ..ClientConfig::default()
    }
}

pub(super) fn session(change: impl FnOnce(&mut ClientConfig)) -> Session {
    let mut config = config();
    change(&mut config);
    Session::new(&config, 7)
}

/// A session with a connection that was established at `now`.
pub(super) fn up_at(now: u64, change: impl FnOnce(&mut ClientConfig)) -> Session {
    let mut session = session(change);
    assert!(matches!(session.poll(at(now)), Some(Action::Dial(_))));
    assert_eq!(session.handle_dialled(at(now)), Some(1));
    session
}

const PING: Action = Action::Ping {
    ping: true,
    silence: None,
};

fn is_ping(action: &Action) -> bool {
    matches!(action, Action::Ping { ping: true, .. })
}

/// Steps from wake-up to wake-up until `end` or until the connection is closed, like a driver that
/// finds nothing to read.
pub(super) fn run_silent(session: &mut Session, mut now: u64, end: u64) -> Vec<(u64, Action)> {
    let mut seen = Vec::new();
    loop {
        while let Some(action) = session.poll(at(now)) {
            seen.push((now, action));
            if action == Action::FinalRead {
                assert_eq!(
                    session.verdict(at(now)),
                    Some(CloseReason::HeartbeatTimeout)
                );
                session.handle_lost(at(now), CloseReason::HeartbeatTimeout, false, 0);
                return seen;
            }
        }
        match session.poll_timeout() {
            Some(due) if due.as_ms() <= end => {
                assert!(
                    due.as_ms() > now,
                    "a wake-up that brings nothing would spin"
                );
                now = due.as_ms();
            }
            _ => return seen,
        }
    }
}

#[test]
fn first_dial_is_immediate_and_attempt_one() {
    let mut session = session(|_| ());
    assert_eq!(session.poll_timeout(), Some(Timestamp::ZERO));
    assert_eq!(
        session.poll(at(0)),
        Some(Action::Dial(Attempt {
            number: 1,
            of: Some(5)
        }))
    );
    assert_eq!(session.poll(at(0)), None);
    let next = session.handle_dial_failed(at(10));
    assert_eq!(
        next,
        Some(Next::Retry {
            next: Attempt {
                number: 2,
                of: Some(5)
            },
            delay_ms: 300
        })
    );
    assert_eq!(session.poll(at(309)), None);
    assert_eq!(
        session.poll(at(310)),
        Some(Action::Dial(Attempt {
            number: 2,
            of: Some(5)
        }))
    );
}

#[test]
fn dial_timeout_restarts_for_each_address() {
    let mut session = session(|config| config.dial_timeout = Duration::from_millis(50));
    session.poll(at(0));
    assert_eq!(session.poll_timeout(), Some(at(50)));
    assert_eq!(session.poll(at(49)), None);
    assert_eq!(session.poll(at(50)), Some(Action::AbandonDial));
    session.handle_next_address(at(50));
    assert_eq!(session.poll(at(99)), None);
    assert_eq!(session.poll(at(100)), Some(Action::AbandonDial));
}

#[test]
fn tries_run_out_and_the_end_is_final() {
    let mut session = session(|config| config.tries = Some(2));
    session.poll(at(0));
    session.handle_dial_failed(at(0));
    session.poll(at(300));
    let gave_up = Outcome::GaveUp { tries: 2 };
    assert_eq!(
        session.handle_dial_failed(at(300)),
        Some(Next::Done(gave_up))
    );
    session.handle_stop();
    session.handle_resumed(at(400));
    assert_eq!(
        (
            session.state(),
            session.poll(at(9999)),
            session.poll_timeout()
        ),
        (ClientState::Done(gave_up), None, None)
    );
}

#[test]
fn unlimited_attempts_never_run_out() {
    let mut session = session(|config| config.tries = None);
    for number in 1..1000 {
        let now = at(u64::from(number) * 300);
        assert_eq!(
            session.poll(now),
            Some(Action::Dial(Attempt { number, of: None }))
        );
        assert!(matches!(
            session.handle_dial_failed(now),
            Some(Next::Retry { .. })
        ));
    }
}

#[test]
fn connections_without_a_byte_count_as_failed_attempts() {
    let mut session = session(|config| config.tries = Some(3));
    let mut now = 0;
    for number in [1, 2] {
        assert_eq!(
            session.poll(at(now)),
            Some(Action::Dial(Attempt {
                number,
                of: Some(3)
            }))
        );
        session.handle_dialled(at(now));
        session.handle_lost(at(now), CloseReason::PeerClosed, false, 0);
        now += 300;
    }
    session.poll(at(now));
    session.handle_dialled(at(now));
    session.handle_received(at(now));
    let next = session.handle_lost(at(now), CloseReason::PeerClosed, false, 0);
    assert_eq!(
        next,
        Some(Next::Retry {
            next: Attempt {
                number: 1,
                of: Some(3)
            },
            delay_ms: 300
        }),
        "after the wait, never at once"
    );
}

#[test]
fn each_connection_has_an_epoch() {
    let mut session = up_at(0, |_| ());
    run_silent(&mut session, 0, 3 * I);
    session.handle_lost(at(3 * I), CloseReason::PeerReset, false, 0);
    session.poll(at(5 * I));
    assert_eq!(session.handle_dialled(at(5 * I)), Some(2));
    // Three pings were unanswered on the old connection; the new one begins with none, and late
    // answers to the old pings do not arrive on it.
    assert_eq!(session.handle_pongs(at(5 * I), 3), None);
    let seen = run_silent(&mut session, 5 * I, 20 * I);
    assert_eq!(
        seen.iter()
            .take_while(|(_, action)| is_ping(action))
            .count(),
        3
    );
    assert_eq!(seen[3], (9 * I + 1, Action::FinalRead));
}

#[test]
fn late_events_of_a_closed_connection_are_ignored() {
    let mut session = up_at(0, |_| ());
    session.handle_lost(at(10), CloseReason::PeerReset, true, 0);
    let due = session.poll_timeout();
    session.handle_received(at(20));
    session.handle_sent(at(20), 5, true);
    session.handle_half_closed(at(20));
    assert_eq!(session.handle_pongs(at(20), 1), None);
    assert_eq!(
        session.handle_lost(at(20), CloseReason::HeartbeatTimeout, true, 0),
        None
    );
    assert_eq!(
        (
            session.handle_dialled(at(20)),
            session.handle_dial_failed(at(20))
        ),
        (None, None)
    );
    assert_eq!(
        (session.poll_timeout(), session.state()),
        (due, ClientState::Waiting)
    );
    assert_eq!(*session.rtt(), RttStats::default());
    let dial = session.poll(due.expect("it dials again"));
    assert_eq!(
        dial,
        Some(Action::Dial(Attempt {
            number: 2,
            of: Some(5)
        })),
        "the late byte gave no try back"
    );
}

#[test]
fn pong_after_an_ambiguous_one_answers_later_pings_only() {
    let mut session = up_at(0, |_| ());
    assert_eq!(session.poll(at(I)), Some(PING));
    session.handle_received(at(I + 5));
    session.handle_pongs_unclear();
    assert_eq!(session.handle_pongs(at(I + 6), 1), None);
    assert!(
        session
            .poll(at(2 * I))
            .is_some_and(|action| is_ping(&action))
    );
    assert_eq!(
        session.handle_pongs(at(2 * I + 9), 1),
        Some(Duration::from_millis(9))
    );
}

#[test]
fn client_pings_a_silent_server_and_leaves_at_the_bound() {
    let mut session = up_at(0, |_| ());
    session.handle_received(at(500));
    let seen = run_silent(&mut session, 500, 500 + BOUND + 1);
    let silent = |ms| Action::Ping {
        ping: true,
        silence: Some(Duration::from_millis(ms)),
    };
    // This connection receives nothing, so its first ping is sent an interval after the connect;
    // the verdict counts from the last byte.
    let expected = [
        (I, PING),
        (2 * I, silent(2 * I - 500)),
        (3 * I, silent(3 * I - 500)),
        (500 + BOUND + 1, Action::FinalRead),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn client_repeats_an_unanswered_ping_after_a_retry() {
    let mut session = up_at(0, |config| {
        let heartbeat = config.heartbeat.as_mut().expect("on by default");
        heartbeat.retry = Some(Duration::from_millis(50));
    });
    let seen = run_silent(&mut session, 0, 2 * I);
    let silent = |ms| Action::Ping {
        ping: true,
        silence: Some(Duration::from_millis(ms)),
    };
    let expected = [
        (I, PING),
        (I + 50, silent(I + 50)),
        (I + 100, silent(I + 100)),
        (I + 151, Action::FinalRead),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn quiet_client_pings_each_interval() {
    let mut session = up_at(0, |_| ());
    for beat in 1..100 {
        assert_eq!(session.poll_timeout(), Some(at(beat * I)));
        assert_eq!(session.poll(at(beat * I)), Some(PING));
        assert_eq!(session.poll(at(beat * I)), None);
        session.handle_sent(at(beat * I), 5, false);
        session.handle_received(at(beat * I + 20));
        assert_eq!(
            session.handle_pongs(at(beat * I + 20), 1),
            Some(Duration::from_millis(20))
        );
    }
    assert_eq!(
        (session.rtt().count, session.rtt().smoothed),
        (99, Duration::from_millis(20))
    );
}

#[test]
fn busy_client_sends_no_pings() {
    let (mut both, mut only_in, mut only_out) =
        (up_at(0, |_| ()), up_at(0, |_| ()), up_at(0, |_| ()));
    let mut beats = [0, 0, 0];
    for now in (100..=20 * I).step_by(100) {
        for (index, session) in [&mut both, &mut only_in, &mut only_out]
            .into_iter()
            .enumerate()
        {
            if index != 2 {
                session.handle_received(at(now));
            }
            if index != 1 {
                session.handle_sent(at(now), 10, false);
            }
            if let Some(action) = session.poll(at(now)) {
                assert!(is_ping(&action));
                beats[index] += 1;
                session.handle_received(at(now));
            }
        }
    }
    assert_eq!(beats, [0, 20, 20]);
}

#[test]
fn byte_found_by_the_final_read_keeps_the_connection() {
    let mut session = up_at(0, |_| ());
    for beat in 1..=3 {
        session.poll(at(beat * I));
    }
    assert_eq!(session.poll(at(BOUND)), None);
    assert_eq!(session.poll(at(BOUND + 1)), Some(Action::FinalRead));
    session.handle_received(at(BOUND + 1));
    assert_eq!(session.verdict(at(BOUND + 1)), None);
    assert!(
        session
            .poll(at(BOUND + 1))
            .is_none_or(|action| is_ping(&action))
    );
}

#[test]
fn frozen_server_has_sent_no_ping_and_closes_no_connection() {
    let mut session = up_at(0, |_| ());
    let wake = 100 * I;
    let seen = run_silent(&mut session, wake, wake + 3 * I + 1);
    let asks: Vec<u64> = seen
        .iter()
        .filter(|(_, action)| is_ping(action))
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(asks, [wake, wake + I, wake + 2 * I]);
    assert_eq!(seen.last(), Some(&(wake + 3 * I + 1, Action::FinalRead)));
}

#[test]
fn unacknowledged_bytes_are_reported_at_the_end() {
    let mut session = up_at(0, |_| ());
    session.handle_sent(at(1), 60, false);
    session.handle_finish();
    assert!(session.handle_all_sent());
    session.handle_half_closed(at(1));
    session.handle_lost(at(BOUND + 2), CloseReason::HeartbeatTimeout, false, 60);
    assert_eq!(
        session.state(),
        ClientState::Done(Outcome::Unacknowledged {
            bytes: 60,
            reason: CloseReason::HeartbeatTimeout
        })
    );
}

#[test]
fn heartbeat_off_sends_no_ping_and_closes_no_connection() {
    let mut session = up_at(0, |config| config.heartbeat = None);
    session.handle_resumed(at(5));
    assert_eq!(
        (session.poll_timeout(), session.poll(at(u64::MAX))),
        (None, None)
    );
    session.handle_finish();
    assert!(session.handle_all_sent());
    session.handle_half_closed(at(10));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn listening_client_closes_without_pinging() {
    let mut session = up_at(0, |config| {
        config.heartbeat.as_mut().expect("on").send_pings = false
    });
    session.handle_resumed(at(5));
    assert_eq!(
        run_silent(&mut session, 5, BOUND + 1),
        [(BOUND + 1, Action::FinalRead)]
    );
}

#[test]
fn resumed_machine_pings_at_once_and_waits_one_interval() {
    let mut session = up_at(0, |_| ());
    run_silent(&mut session, 0, 3 * I);
    // The machine was suspended 400 ms before the verdict; the answer still has a whole interval.
    session.handle_resumed(at(BOUND - 400));
    let seen = run_silent(&mut session, BOUND - 400, 10 * I);
    assert!(is_ping(&seen[0].1) && seen[0].0 == BOUND - 400);
    assert_eq!(seen[1], (BOUND - 400 + I + 1, Action::FinalRead));
}

#[test]
fn answered_probe_returns_to_normal_pings() {
    let mut session = up_at(0, |_| ());
    session.handle_resumed(at(500));
    assert_eq!(session.poll(at(500)), Some(PING));
    session.handle_received(at(600));
    let seen = run_silent(&mut session, 600, 600 + BOUND + 1);
    assert_eq!(seen.iter().filter(|(_, action)| is_ping(action)).count(), 3);
    assert_eq!(seen.last(), Some(&(600 + BOUND + 1, Action::FinalRead)));
}

#[test]
fn resumed_machine_redials_at_once() {
    let mut session = up_at(0, |_| ());
    session.handle_lost(at(0), CloseReason::PeerReset, false, 0);
    assert_eq!(session.poll(at(100)), None);
    session.handle_resumed(at(100));
    assert!(matches!(session.poll(at(100)), Some(Action::Dial(_))));
}

#[test]
fn half_closed_client_sends_no_pings_and_waits_for_the_bound() {
    let mut session = up_at(0, |_| ());
    assert!(!session.handle_all_sent(), "nobody asked to finish");
    session.handle_finish();
    assert!(session.is_open() && session.handle_all_sent());
    session.handle_half_closed(at(100));
    assert!(!session.is_open() && !session.handle_all_sent());
    session.handle_received(at(200));
    let seen = run_silent(&mut session, 200, 10 * I);
    assert_eq!(seen, [(200 + BOUND + 1, Action::FinalRead)]);
    assert_eq!(session.state(), ClientState::Done(Outcome::Finished));
}

#[test]
fn close_reason_of_a_finishing_client_decides_its_outcome() {
    let lost = |reason, unsent: bool| {
        let mut session = up_at(0, |_| ());
        session.handle_finish();
        if !unsent {
            assert!(session.handle_all_sent());
            session.handle_half_closed(at(1));
        }
        session.handle_lost(at(2), reason, unsent, 0)
    };
    assert_eq!(
        lost(CloseReason::PeerClosed, false),
        Some(Next::Done(Outcome::Finished))
    );
    assert_eq!(
        lost(CloseReason::PeerReset, false),
        Some(Next::Done(Outcome::ConnectionLost(CloseReason::PeerReset)))
    );
    assert!(matches!(
        lost(CloseReason::PeerReset, true),
        Some(Next::Retry { .. })
    ));
}

#[test]
fn client_that_finishes_while_waiting_with_an_empty_queue_is_done() {
    let mut session = up_at(0, |_| ());
    session.handle_lost(at(1), CloseReason::PeerReset, false, 0);
    session.handle_finish();
    assert!(session.wants_to_finish() && !session.handle_all_sent());
    assert_eq!(
        session.state(),
        ClientState::Done(Outcome::ConnectionLost(CloseReason::PeerReset))
    );
}

#[test]
fn client_that_finishes_before_connecting_still_connects() {
    let mut session = session(|_| ());
    session.handle_finish();
    assert!(!session.handle_all_sent());
    assert!(matches!(session.poll(at(0)), Some(Action::Dial(_))));
    session.handle_dialled(at(5));
    assert!(session.handle_all_sent());
}
