//! Random servers, and a driver that is late.

use super::tests::{BOUND, I, at, session};
use super::*;

/// Sessions against peers of every temper, with a driver that lags. Prints the seed of a failure.
#[test]
fn session_leaves_dead_servers_and_no_live_one() {
    for seed in 0..300 {
        simulate(seed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Temper {
    Refuses,
    SlamsTheDoor,
    /// Answers each ping after this many milliseconds.
    Answers(u64),
    /// Sends by itself at this interval, in milliseconds.
    Speaks(u64),
    /// Dies at some point.
    FallsSilent,
}

fn simulate(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut session = session(|config| {
        config.tries = if rng.bool() {
            Some(rng.u32(1..6))
        } else {
            None
        };
        config.backoff =
            Backoff::exponential(Duration::from_millis(100), Duration::from_millis(5000));
    });
    let (mut now, mut tries_used, mut epoch) = (0, 0, 0);
    let mut temper = Temper::Refuses;
    let mut heard = 0; // when the line last received anything
    let mut asked = 0; // pings since then
    let mut inbound: Vec<u64> = Vec::new();
    for _ in 0..400 {
        while let Some(action) = session.poll(at(now)) {
            match action {
                Action::Measure => session.handle_progress(at(now), None),
                Action::Dial(dial) => {
                    tries_used += 1;
                    assert_eq!(dial.number, tries_used, "seed {seed}");
                    temper = match rng.u8(0..5) {
                        0 => Temper::Refuses,
                        1 => Temper::SlamsTheDoor,
                        2 => Temper::Answers(rng.u64(0..I - 200)),
                        3 => Temper::Speaks(rng.u64(1..BOUND - 200)),
                        _ => Temper::FallsSilent,
                    };
                    inbound.clear();
                    if temper == Temper::Refuses {
                        session.handle_dial_failed(at(now));
                        continue;
                    }
                    epoch += 1;
                    assert_eq!(session.handle_dialled(at(now)), Some(epoch), "seed {seed}");
                    (heard, asked) = (now, 0);
                    match temper {
                        Temper::SlamsTheDoor => {
                            session.handle_lost(at(now), CloseReason::PeerClosed, false, 0);
                        }
                        Temper::Speaks(every) => inbound.extend((1..500).map(|n| now + n * every)),
                        _ => {}
                    }
                }
                Action::AbandonDial => unreachable!("dials end at once here"),
                Action::Ping { ping, .. } => {
                    assert!(ping, "seed {seed}: nothing is ever stuck here");
                    asked += 1;
                    match temper {
                        Temper::Answers(delay) => inbound.push(now + delay),
                        Temper::FallsSilent if rng.u8(0..3) > 0 => {
                            inbound.push(now + rng.u64(0..I))
                        }
                        _ => {}
                    }
                }
                Action::FinalRead => {
                    assert!(
                        now - heard > BOUND,
                        "seed {seed}: given up after only {} ms",
                        now - heard
                    );
                    assert!(
                        asked >= 3,
                        "seed {seed}: given up after only {asked} questions"
                    );
                    assert!(
                        temper == Temper::FallsSilent,
                        "seed {seed}: {temper:?} lives"
                    );
                    assert_eq!(
                        session.verdict(at(now)),
                        Some(CloseReason::HeartbeatTimeout)
                    );
                    session.handle_lost(at(now), CloseReason::HeartbeatTimeout, false, 0);
                }
            }
        }
        if session.is_done() {
            assert!(
                matches!(session.state(), ClientState::Done(Outcome::GaveUp { tries }) if tries == tries_used),
                "seed {seed}"
            );
            return;
        }
        let due = session
            .poll_timeout()
            .expect("a session that goes on has a next wake-up")
            .as_ms();
        inbound.sort_unstable();
        // The driver is a little late now and then, but never for an arrival that its poll
        // announces.
        let wake = due.max(now)
            + if rng.u8(0..4) == 0 {
                rng.u64(0..100)
            } else {
                0
            };
        let ready = inbound.iter().filter(|&&arrival| arrival <= wake).count();
        now = inbound
            .first()
            .map_or(wake, |&first| first.min(wake))
            .max(now);
        if ready > 0 && session.state() == ClientState::Connected {
            inbound.remove(0);
            session.handle_received(at(now));
            session.handle_pongs(at(now), 1);
            (heard, asked) = (now, 0);
            tries_used = 0;
        }
    }
}
