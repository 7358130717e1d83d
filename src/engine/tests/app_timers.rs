use super::*;

fn at(ms: u64) -> Option<Timestamp> {
    Some(Timestamp::from_ms(ms))
}

impl Rig {
    /// The wake-ups and deadlines of the application up to `ms`, and when each came.
    fn app_timers_until(&mut self, ms: u64) -> Vec<(u64, Seen)> {
        let mut seen = Vec::new();
        while let Some(due) = self.engine.poll_timeout().filter(|due| due.as_ms() <= ms) {
            self.now = self.now.max(due);
            self.engine.handle_timers(self.now, usize::MAX);
            while let Some(id) = self.engine.poll_final_read() {
                self.engine
                    .handle_final_read(self.now, id, FinalRead::default());
            }
            let before = self.handler.seen.len();
            assert!(
                self.engine
                    .handle_app_timers(self.now, usize::MAX, &mut self.handler)
            );
            self.flush_dirty();
            let now_ms = self.now.as_ms();
            seen.extend(self.handler.seen.drain(before..).map(|seen| (now_ms, seen)));
            self.reap();
        }
        seen
    }
}

#[test]
fn deadline_comes_once_and_not_early() {
    let mut rig = Rig::new(&config());
    let (first, second, never) = (rig.open(), rig.open(), rig.open());
    assert!(rig.engine.set_deadline(first, at(250)));
    assert!(rig.engine.set_deadline(second, at(100)));
    assert!(
        rig.engine.set_deadline(second, at(700)),
        "the later call counts"
    );
    assert!(rig.engine.set_deadline(never, at(100)));
    assert!(rig.engine.set_deadline(never, None));
    let seen = rig.app_timers_until(900);
    let order: Vec<&Seen> = seen.iter().map(|(_, seen)| seen).collect();
    assert_eq!(order, [&Seen::Deadline(first), &Seen::Deadline(second)]);
    assert!((250..=250 + TICK_MS).contains(&seen[0].0), "{seen:?}");
    assert!((700..=700 + TICK_MS).contains(&seen[1].0), "{seen:?}");
    assert!(!rig.engine.conn(first).expect("open").has_deadline());
}

#[test]
fn deadline_in_the_past_comes_at_once_and_none_after_a_close() {
    let mut rig = Rig::new(&config());
    rig.now = Timestamp::from_ms(500);
    let (late, closed, gone) = (rig.open(), rig.open(), rig.open());
    for id in [late, closed, gone] {
        assert!(rig.engine.set_deadline(id, at(100)));
    }
    rig.engine.close_on_request(gone, Close::Now);
    rig.reap();
    rig.engine.handle_timers(rig.now, usize::MAX);
    assert!(rig.engine.has_work());
    rig.engine.close_on_request(closed, Close::Now);
    rig.handler.seen.clear();
    rig.engine
        .handle_app_timers(rig.now, usize::MAX, &mut rig.handler);
    assert_eq!(rig.handler.seen, [Seen::Deadline(late)]);
    assert!(!rig.engine.set_deadline(gone, at(900)));
    assert!(!rig.engine.set_deadline(closed, at(900)));
}

#[test]
fn deadline_that_has_passed_can_still_be_replaced_or_cleared() {
    let mut rig = Rig::new(&config());
    let (cleared, later, again) = (rig.open(), rig.open(), rig.open());
    for id in [cleared, later, again] {
        assert!(rig.engine.set_deadline(id, at(100)));
    }
    rig.now = Timestamp::from_ms(300);
    rig.engine.handle_timers(rig.now, usize::MAX);
    rig.engine.set_deadline(cleared, None);
    rig.engine.set_deadline(later, at(600));
    rig.engine.set_deadline(again, at(200));
    rig.handler.seen.clear();
    rig.engine
        .handle_app_timers(rig.now, usize::MAX, &mut rig.handler);
    assert_eq!(rig.handler.seen, [Seen::Deadline(again)]);
    let seen = rig.app_timers_until(900);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].1, Seen::Deadline(later));
    assert!(seen[0].0 >= 600);
}

#[test]
fn deadline_changes_nothing_about_verdicts() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    for ms in [950, 1900, 2500, 3900] {
        assert!(rig.engine.set_deadline(id, at(ms)));
        assert_eq!(rig.app_timers_until(ms + TICK_MS).len(), 1, "{ms}");
    }
    rig.app_timers_until(u64::MAX);
    assert!((BOUND_MS..=BOUND_MS + TICK_MS + 1).contains(&rig.now.as_ms()));
    let closed = Seen::Close(id, CloseReason::HeartbeatTimeout);
    assert_eq!(rig.handler.seen.last(), Some(&closed));
}

#[test]
fn wake_up_comes_without_connections_and_once() {
    let mut rig = Rig::new(&config());
    assert_eq!(rig.engine.poll_timeout(), None);
    rig.engine.wake_at(at(300));
    rig.engine.wake_at(at(200));
    assert_eq!(rig.app_timers_until(1000), [(200, Seen::Wake)]);
    assert_eq!(rig.engine.poll_timeout(), None);
    rig.engine.wake_at(at(2000));
    rig.engine.wake_at(None);
    assert_eq!(rig.engine.poll_timeout(), None);
}

#[test]
fn calls_for_deadlines_are_spread_over_turns() {
    let mut rig = Rig::new(&config());
    for id in rig.open_many(10) {
        rig.engine.set_deadline(id, at(100));
    }
    rig.now = Timestamp::from_ms(300);
    rig.engine.handle_timers(rig.now, usize::MAX);
    rig.handler.seen.clear();
    assert!(!rig.engine.handle_app_timers(rig.now, 4, &mut rig.handler));
    assert_eq!(rig.handler.seen.len(), 4);
    assert!(rig.engine.has_work());
    assert!(rig.engine.handle_app_timers(rig.now, 6, &mut rig.handler));
    assert!(!rig.engine.has_work());
}
