//! A thousand clients of one server, in virtual time: when each dials after a restart of the
//! server, and while the server keeps failing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const CLIENTS: usize = 1000;
const SECOND: u64 = 1000;

const BASE: u64 = SECOND;
const MAX: u64 = 30 * SECOND;

/// The server is gone from `RESTART` to `BACK`. Before that, all connections have lasted.
const RESTART: u64 = 60 * SECOND;
const BACK: u64 = RESTART + 10 * SECOND;

/// Within it a thousand dials are a herd.
const WINDOW: u64 = 100;

const FULL_JITTER: Backoff =
    Backoff::exponential(Duration::from_millis(BASE), Duration::from_millis(MAX));

/// How the server answers a dial.
#[derive(Clone, Copy)]
enum Answer {
    Refuses,
    /// Accepts, sends something, and resets the connection at that time.
    Greets {
        until: u64,
    },
}

#[derive(Clone, Copy)]
struct Dial {
    at: u64,
    client: usize,
    succeeds: bool,
}

fn restarted(now: u64) -> Answer {
    match now {
        ..RESTART => Answer::Greets { until: RESTART },
        RESTART..BACK => Answer::Refuses,
        BACK.. => Answer::Greets { until: u64::MAX },
    }
}

/// All dials of a fleet from its start to `end`, in order.
fn dials(backoff: &Backoff, seed: u64, end: u64, server: impl Fn(u64) -> Answer) -> Vec<Dial> {
    let config = ClientConfig {
        heartbeat: None,
        tries: None,
        backoff: backoff.clone(),
        ..ClientConfig::default()
    };
    let mut seeds = fastrand::Rng::with_seed(seed);
    let mut fleet: Vec<Session> = (0..CLIENTS)
        .map(|_| Session::new(&config, seeds.u64(..)))
        .collect();
    let mut due: BinaryHeap<_> = (0..CLIENTS).map(|client| Reverse((0, client))).collect();
    let mut dials = Vec::new();
    while let Some(Reverse((at, client))) = due.pop().filter(|Reverse((at, _))| *at <= end) {
        let (session, now) = (&mut fleet[client], Timestamp::from_ms(at));
        if session.state() == ClientState::Connected {
            session.handle_lost(now, CloseReason::PeerReset, false, 0);
        }
        let mut wake = session.poll_timeout();
        if let Some(action) = session.poll(now) {
            assert!(matches!(action, Action::Dial(_)), "{action:?}");
            wake = match server(at) {
                Answer::Refuses => {
                    session.handle_dial_failed(now);
                    session.poll_timeout()
                }
                Answer::Greets { until } => {
                    session.handle_dialled(now);
                    session.handle_received(now);
                    Some(Timestamp::from_ms(until))
                }
            };
            dials.push(Dial {
                at,
                client,
                succeeds: session.state() == ClientState::Connected,
            });
        }
        due.push(Reverse((wake.expect("nobody gives up").as_ms(), client)));
    }
    dials
}

/// Most dials that begin within any `WINDOW`.
fn most_at_once(dials: &[Dial]) -> usize {
    (0..dials.len())
        .map(|first| dials[first..].partition_point(|dial| dial.at < dials[first].at + WINDOW))
        .max()
        .unwrap_or(0)
}

#[test]
fn server_restart_causes_no_dial_storm() {
    for seed in 0..10 {
        let dials = dials(&FULL_JITTER, seed, BACK + 2 * MAX, restarted);
        let again = &dials[CLIENTS..];
        assert!(
            dials[..CLIENTS].iter().all(|dial| dial.at == 0)
                && again.iter().all(|dial| dial.at >= RESTART),
            "seed {seed}"
        );

        let (down, back) = again.split_at(again.partition_point(|dial| dial.at < BACK));
        // First and second dials overlap for a while: both draw from the base.
        assert!(
            most_at_once(down) <= CLIENTS / 4,
            "seed {seed}: {} while down",
            most_at_once(down)
        );
        assert!(
            down.len() <= 8 * CLIENTS,
            "seed {seed}: {} dials in vain",
            down.len()
        );

        assert!(
            most_at_once(back) <= CLIENTS / 20,
            "seed {seed}: {} at once on the way back",
            most_at_once(back)
        );
        let mut returned: Vec<usize> = back.iter().map(|dial| dial.client).collect();
        returned.sort_unstable();
        assert!(
            returned.iter().copied().eq(0..CLIENTS),
            "seed {seed}: each comes back once"
        );
        assert!(
            back.iter()
                .all(|dial| dial.succeeds && dial.at <= BACK + MAX),
            "seed {seed}"
        );
    }
}

/// Full jitter, not half: the first dials after the restart fill the whole of the first wait
/// evenly, its beginning included.
#[test]
fn redials_after_a_restart_are_spread() {
    for seed in 0..10 {
        let mut tenths = [0; 10];
        let mut seen = vec![false; CLIENTS];
        for dial in &dials(&FULL_JITTER, seed, RESTART + 2 * BASE, restarted)[CLIENTS..] {
            if !std::mem::replace(&mut seen[dial.client], true) {
                tenths[((dial.at - RESTART) * 10 / BASE).min(9) as usize] += 1;
            }
        }
        assert!(
            tenths.iter().all(|count| (60..=140).contains(count)),
            "seed {seed}: {tenths:?}"
        );
    }
}

/// The same fleet without jitter, which proves that the test would see a herd.
#[test]
fn reconnects_without_jitter_coincide() {
    let dials = dials(
        &Backoff::fixed(Duration::from_millis(BASE)),
        1,
        BACK + MAX,
        restarted,
    );
    assert_eq!(most_at_once(&dials[CLIENTS..]), CLIENTS);
}

/// Greeted or refused, the waits grow to the longest where no line outlives its wait.
#[test]
fn greeting_then_dying_server_is_dialled_seldom() {
    for last_activity in [0, 50, BASE - 1] {
        let server = |now| Answer::Greets {
            until: now + last_activity,
        };
        // Each client dials once per life and mean wait.
        assert_settles(last_activity, last_activity + MAX / 2, server);
    }
}

/// Up for five seconds in twenty. A client that waits for longer than that does not shorten its
/// wait after such connections.
#[test]
fn crashing_server_is_dialled_seldom() {
    const UP: u64 = 5 * SECOND;
    const ROUND: u64 = 20 * SECOND;
    let server = |now| {
        if now % ROUND < UP {
            Answer::Greets {
                until: now - now % ROUND + UP,
            }
        } else {
            Answer::Refuses
        }
    };
    assert_settles(1, MAX / 2, server);
}

/// After ten minutes, each client dials no more often than once per `period` on average, and never
/// many of them together.
fn assert_settles(seed: u64, period: u64, server: impl Fn(u64) -> Answer) {
    const END: u64 = 20 * 60 * SECOND;
    let dials = dials(&FULL_JITTER, seed, END, server);
    let settled = &dials[dials.partition_point(|dial| dial.at < END / 2)..];
    let expected = CLIENTS as u64 * (END / 2) / period;
    assert!(
        settled.len() as u64 <= expected * 11 / 10,
        "seed {seed}: {} dials, not {expected}",
        settled.len()
    );
    assert!(
        most_at_once(settled) <= CLIENTS / 20,
        "seed {seed}: {} at once",
        most_at_once(settled)
    );
}

#[test]
fn long_connection_resets_the_backoff() {
    // Ten minutes of connections that end at once, then connections of `MAX`: after each of those
    // the wait is the first one.
    const MENDED: u64 = 600 * SECOND;
    let server = |now| Answer::Greets {
        until: if now < MENDED { now } else { now + MAX },
    };
    let dials = dials(&FULL_JITTER, 1, MENDED + 20 * MAX, server);
    let mut last: Vec<Option<u64>> = vec![None; CLIENTS];
    for dial in dials.iter().filter(|dial| dial.at >= MENDED) {
        if let Some(before) = last[dial.client].replace(dial.at) {
            assert!(
                (MAX..=MAX + BASE).contains(&(dial.at - before)),
                "{} ms",
                dial.at - before
            );
        }
    }
    assert!(last.iter().all(Option::is_some));
}
