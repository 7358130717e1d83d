use super::*;
use crate::close::DenyReason;
use crate::config::{Login, LoginMode, OnDuplicate};
use crate::directory::Name;

fn with_login(mode: LoginMode) -> Config {
    Config {
        login: Login {
            mode,
            ..Login::default()
        },
        ..config()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The handler's decision, by the token.
pub(super) fn decide(request: &LoginRequest<'_>) -> LoginDecision {
    match (request.token, request.name) {
        (Some("good"), Some(wanted)) => LoginDecision::Accept(Identity::named(wanted.clone())),
        (Some("member"), Some(wanted)) => LoginDecision::Accept(
            Identity::named(wanted.clone())
                .in_groups(vec![name("g")])
                .expect("one group"),
        ),
        (Some("later"), _) => LoginDecision::Pending,
        _ => LoginDecision::Deny(DenyReason::BadToken),
    }
}

impl Rig {
    /// Carries out accepted logins, then flushes and reaps, as a turn does.
    fn turn(&mut self) -> Vec<(ConnId, Closed)> {
        self.engine
            .handle_logins(self.now, usize::MAX, &mut self.handler);
        self.flush_dirty();
        self.reap()
    }

    /// Bytes that were queued for a connection since the last call.
    fn said(&mut self, id: ConnId) -> String {
        self.engine
            .handle_logins(self.now, usize::MAX, &mut self.handler);
        self.flush(id)
    }

    fn log_in(&mut self, text: &str) -> ConnId {
        let id = self.open();
        self.receive(id, &format!("hello version=1 {text}\n"));
        id
    }
}

const WELCOME: &str = "beat=1s retry=1s missed=3\n";

#[test]
fn hello_is_answered_and_not_delivered() {
    let mut rig = Rig::new(&config());
    let id = rig.log_in("name=a");
    rig.receive(id, "one\n");
    assert_eq!(rig.said(id), format!("welcome version=1 {WELCOME}one\n"));
    assert_eq!(rig.messages(), ["one"]);
    assert_eq!(rig.engine.directory.names(), 0, "logins are off");
    let late = rig.open();
    rig.receive(late, "ping\nfirst\nhello version=1\n");
    assert_eq!(rig.messages(), ["one", "first", "hello version=1"]);
}

#[test]
fn heartbeats_before_the_hello_do_not_count() {
    let mut rig = Rig::new(&config());
    let id = rig.open();
    rig.receive(id, "pong\nping\nhello version=1\n");
    assert_eq!(rig.said(id), format!("pong\nwelcome version=1 {WELCOME}"));
}

#[test]
fn token_is_denied_where_logins_are_off() {
    let mut rig = Rig::new(&config());
    let id = rig.log_in("token=t");
    assert_eq!(rig.said(id), "denied reason=login-off\n");
    let (_, closed) = rig.reap().pop().expect("a close");
    assert_eq!(
        (closed.reason, closed.denied, closed.close_mode),
        (
            CloseReason::LoginFailed,
            Some(DenyReason::LoginOff),
            CloseMode::Linger
        )
    );
}

#[test]
fn malformed_hello_is_denied_with_what_is_wrong() {
    let mut rig = Rig::new(&config());
    let id = rig.log_in("beat=soon");
    assert_eq!(
        rig.said(id),
        "denied reason=bad-hello detail=the%20value%20of%20beat%20cannot%20be%20read\n"
    );
    assert_eq!(rig.reasons(), [CloseReason::Malformed]);
    let long = rig.open();
    rig.receive(
        long,
        &format!("hello version=1 name={}\n", "a".repeat(5000)),
    );
    assert!(
        rig.said(long)
            .starts_with("denied reason=bad-hello detail=longer")
    );
    assert_eq!(rig.engine.stats().denied(DenyReason::BadHello), 2);
}

#[test]
fn control_messages_are_malformed_after_the_hello_only() {
    let mut rig = Rig::new(&config());
    let plain = rig.open();
    rig.receive(plain, "hi\nwelcome home\n");
    assert_eq!(rig.said(plain), "hi\nwelcome home\n");
    for control in ["hello version=1", "bye", "ack 7", "ping 1", "welcome home"] {
        let id = rig.log_in("");
        rig.receive(id, &format!("{control}\nmore\n"));
        assert!(
            rig.said(id).ends_with("\nbye reason=malformed\n"),
            "{control}"
        );
        assert_eq!(rig.reasons(), [CloseReason::Malformed], "{control}");
    }
    assert_eq!(rig.messages(), ["hi", "welcome home"]);
}

#[test]
fn messages_are_escaped_both_ways_for_those_that_know_the_handshake() {
    let mut rig = Rig::new(&config());
    let (plain, extended) = (rig.open(), rig.log_in(""));
    rig.said(extended);
    for (sent, meant) in [
        ("\\bye now", "bye now"),
        ("\\\\x", "\\x"),
        ("\\ping", "ping"),
        ("hellos", "hellos"),
        ("", ""),
    ] {
        rig.receive(extended, &format!("{sent}\n"));
        assert_eq!(rig.messages().last(), Some(&meant));
        assert_eq!(
            rig.said(extended),
            format!("{sent}\n"),
            "the echo is escaped again"
        );
    }
    let everybody = rig.engine.broadcast(b"lost and found", None);
    assert_eq!(everybody, Ok(Broadcast::Complete(2)));
    assert_eq!(rig.said(plain), "lost and found\n");
    assert_eq!(rig.said(extended), "\\lost and found\n");
    let parts: [&[u8]; 2] = [b"po", b"ng"];
    rig.engine.send(extended, &parts).expect("room");
    assert_eq!(rig.said(extended), "\\pong\n");
}

#[test]
fn escape_does_not_count_against_the_longest_message() {
    for framing in [Framing::Lines, Framing::Length] {
        let mut rig = Rig::new(&Config {
            framing,
            limits: Limits {
                max_message: 20,
                ..config().limits
            },
            ..config()
        });
        let frame = |text: &str| match framing {
            Framing::Length => format!("\0\0\0{}{text}", char::from(text.len() as u8)),
            _ => format!("{text}\n"),
        };
        let (id, other) = (rig.open(), rig.open());
        for id in [id, other] {
            rig.receive(id, &frame("hello version=1"));
        }
        let longest = "a".repeat(20);
        rig.receive(id, &frame(&longest));
        rig.receive(id, &frame(&format!("\\{longest}")));
        assert_eq!(rig.messages(), [&longest, &longest]);
        rig.receive(id, &frame(&format!("b{longest}")));
        rig.receive(other, &frame(&format!("\\b{longest}")));
        for id in [id, other] {
            rig.flush(id);
        }
        let too_large = CloseReason::FrameTooLarge;
        assert_eq!(rig.reasons(), [too_large, too_large], "{framing:?}");
    }
}

#[test]
fn handler_hears_of_a_connection_only_after_its_login() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let id = rig.log_in("name=a token=good");
    assert!(rig.handler.seen.is_empty() && !rig.engine.is_open(id));
    assert_eq!(rig.engine.broadcast(b"x", None), Ok(Broadcast::Complete(0)));
    assert_eq!(rig.engine.send(id, &[b"x"]), Err(SendError::Closed));
    assert_eq!(rig.said(id), format!("welcome version=1 name=a {WELCOME}"));
    assert_eq!(rig.handler.seen, [Seen::Open(id)]);
    assert_eq!(rig.engine.poll_readable(), Some(id), "and is read again");
    rig.receive(id, "two\n");
    assert_eq!(rig.messages(), ["two"]);
    assert_eq!(rig.engine.directory.holders("a"), [id]);
}

#[test]
fn bytes_right_behind_the_hello_come_in_order_after_the_login() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let id = rig.open();
    rig.receive(id, "hello version=1 name=a token=later\none\ntwo\nthr");
    assert!(!rig.engine.wants_read(id) && !rig.engine.has_undecoded(id));
    assert!(
        rig.engine
            .decide_login(id, LoginDecision::Accept(Identity::named(name("b"))))
    );
    assert!(
        !rig.engine.decide_login(id, LoginDecision::Pending),
        "decided once"
    );
    assert_eq!(rig.said(id), format!("welcome version=1 name=b {WELCOME}"));
    assert_eq!(rig.engine.poll_readable(), Some(id));
    let mut work = Work::new(u32::MAX);
    rig.engine
        .resume_decoding(rig.now, id, &mut work, &mut rig.handler);
    rig.receive(id, "ee\n");
    assert_eq!(rig.messages(), ["one", "two", "three"]);
}

#[test]
fn denied_connection_is_never_announced() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let cases = [
        ("hello version=1 name=a token=bad\n", DenyReason::BadToken),
        (
            "hello version=1 name=a%20b token=good\n",
            DenyReason::BadName,
        ),
        ("something\n", DenyReason::LoginRequired),
    ];
    for (text, reason) in cases {
        let id = rig.open();
        rig.receive(id, text);
        assert_eq!(rig.said(id), format!("denied reason={reason}\n"));
        let (_, closed) = rig.reap().pop().expect("a close");
        assert_eq!(closed.reason, CloseReason::LoginFailed);
        assert_eq!(closed.denied, Some(reason));
        assert_eq!(rig.engine.stats().denied(reason), 1);
    }
    let reset = rig.open();
    rig.engine
        .handle_failure(rig.now, reset, CloseReason::PeerReset);
    let gone = rig.open();
    rig.engine.handle_eof(rig.now, gone);
    assert_eq!(
        rig.reasons(),
        [CloseReason::PeerReset, CloseReason::PeerClosed]
    );
    assert!(rig.handler.seen.is_empty());
    let stats = rig.engine.stats();
    assert_eq!((stats.opened, stats.closed_in_all()), (5, 5));
}

#[test]
fn message_before_a_required_login_is_limited_like_a_hello() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let id = rig.open();
    rig.receive(id, &"a".repeat(4097));
    assert_eq!(rig.reasons(), [CloseReason::FrameTooLarge]);
    let mut small = with_login(LoginMode::Optional);
    small.limits.max_message = 30;
    let mut rig = Rig::new(&small);
    let id = rig.log_in("name=a-name-of-some-length token=good");
    assert!(rig.said(id).starts_with("welcome version=1 name=a-name"));
    let plain = rig.open();
    rig.receive(plain, &format!("{}\n", "a".repeat(31)));
    assert_eq!(rig.reasons(), [CloseReason::FrameTooLarge]);
    assert_eq!(rig.messages(), [""; 0]);
}

#[test]
fn login_that_is_not_decided_times_out_whatever_the_peer_answers() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let (mute, pending) = (rig.open(), rig.log_in("token=later"));
    for second in 1..=10 {
        rig.pass_until(second * 1000, true);
        rig.receive(mute, "pong\n");
    }
    assert_eq!(rig.reasons(), []);
    rig.pass_until(10_101, true);
    rig.pass_until(10_200, true);
    let closed = rig.reap();
    assert_eq!(closed.len(), 2);
    for (id, closed) in closed {
        assert!(id == mute || id == pending);
        assert_eq!(closed.reason, CloseReason::LoginTimeout);
        assert_eq!(closed.denied, Some(DenyReason::TimedOut));
    }
    assert!(rig.handler.seen.is_empty());
    assert!(!rig.engine.decide_login(pending, LoginDecision::Pending));
}

#[test]
fn optional_login_names_a_connection_that_is_open_already() {
    let mut rig = Rig::new(&with_login(LoginMode::Optional));
    let (plain, beat_only) = (rig.open(), rig.log_in("beat=2s"));
    rig.receive(plain, "hi\n");
    assert_eq!(rig.said(plain), "hi\n");
    assert_eq!(
        rig.said(beat_only),
        "welcome version=1 beat=2s retry=1s missed=3\n"
    );
    let named = rig.log_in("name=a token=good");
    assert!(rig.engine.is_open(named));
    assert_eq!(
        rig.said(named),
        format!("welcome version=1 name=a {WELCOME}")
    );
    let opens = rig.handler.seen.iter();
    assert_eq!(
        opens.filter(|seen| matches!(seen, Seen::Open(_))).count(),
        3
    );
    // The handler knows it, so it hears of its end.
    let denied = rig.log_in("name=a token=bad");
    assert_eq!(rig.said(denied), "denied reason=bad-token\n");
    rig.reap();
    let end = Seen::Close(denied, CloseReason::LoginFailed);
    assert_eq!(rig.handler.seen.last(), Some(&end));
    assert_eq!(rig.engine.stats().logins, 1);
}

#[test]
fn trusted_name_needs_no_proof_but_must_be_there() {
    let mut rig = Rig::new(&with_login(LoginMode::Trust));
    let id = rig.log_in("name=%C3%A4");
    assert_eq!(
        rig.said(id),
        format!("welcome version=1 name=%C3%A4 {WELCOME}")
    );
    assert_eq!(rig.engine.directory.holders("ä"), [id]);
    let none = rig.log_in("");
    assert_eq!(rig.said(none), "denied reason=name-missing\n");
}

#[test]
fn pending_logins_and_failures_are_bounded() {
    let mut config = with_login(LoginMode::Required);
    config.login.max_pending = 2;
    config.login.max_failures = 3;
    let mut rig = Rig::new(&config);
    let waits = [rig.log_in("token=later"), rig.log_in("token=later")];
    let third = rig.log_in("token=later");
    assert_eq!(rig.said(third), "denied reason=too-many-logins\n");
    assert!(
        rig.engine
            .decide_login(waits[0], LoginDecision::Deny(DenyReason::Refused))
    );
    assert_eq!(rig.said(waits[0]), "denied reason=refused\n");
    rig.engine.close_on_request(waits[1], Close::Now);
    rig.reap();
    assert_eq!(rig.engine.pending_logins(), 0);
    for _ in 0..2 {
        let id = rig.log_in("name=a token=bad");
        assert_eq!(rig.said(id), "denied reason=bad-token\n");
    }
    let limited = rig.log_in("name=a token=good");
    assert_eq!(rig.said(limited), "denied reason=too-many-failures\n");
    let elsewhere = rig.try_open(2).expect("room");
    rig.receive(elsewhere, "hello version=1 name=a token=good\n");
    assert!(rig.said(elsewhere).starts_with("welcome"));
    rig.now = Timestamp::from_ms(60_000);
    let later = rig.log_in("name=b token=good");
    assert!(rig.said(later).starts_with("welcome"), "the minute is over");
}

#[test]
fn second_login_replaces_the_first_whose_close_comes_before_its_open() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let first = rig.log_in("name=a token=good");
    rig.turn();
    let second = rig.log_in("name=a token=good");
    rig.engine
        .handle_logins(rig.now, usize::MAX, &mut rig.handler);
    assert!(rig.engine.has_work());
    assert_eq!(rig.outgoing(first), "bye reason=replaced\n");
    let closed = rig.turn();
    assert_eq!(closed[0].1.reason, CloseReason::Replaced);
    assert_eq!(
        closed[0].1.close_mode,
        CloseMode::Linger,
        "so that it reads why"
    );
    assert_eq!(closed[0].1.name, Some(name("a")));
    rig.turn();
    assert_eq!(
        rig.handler.seen,
        [
            Seen::Open(first),
            Seen::Close(first, CloseReason::Replaced),
            Seen::Open(second)
        ]
    );
    assert_eq!(rig.engine.directory.holders("a"), [second]);
    while rig.engine.poll_readable().is_some() {}
    assert!(!rig.engine.has_work());
}

#[test]
fn replaced_connection_whose_peer_is_gone_is_not_waited_for() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let first = rig.log_in("name=a token=good");
    rig.turn();
    rig.engine.send(first, &[b"never read"]).expect("room");
    rig.write(first, 0);
    let second = rig.log_in("name=a token=good");
    rig.engine
        .handle_logins(rig.now, usize::MAX, &mut rig.handler);
    rig.engine
        .handle_logins(rig.now, usize::MAX, &mut rig.handler);
    let closed = rig.reap();
    assert_eq!(closed[0].1.reason, CloseReason::Replaced);
    assert_eq!(closed[0].1.close_mode, CloseMode::Reset);
    rig.turn();
    assert_eq!(rig.engine.directory.holders("a"), [second]);
}

#[test]
fn one_of_ten_racing_logins_survives() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let ids: Vec<ConnId> = (0..10).map(|_| rig.log_in("name=a token=good")).collect();
    for _ in 0..40 {
        rig.turn();
    }
    assert_eq!(rig.engine.directory.holders("a"), [ids[9]]);
    assert_eq!(rig.engine.connections(), 1);
    // Each was opened and closed in turn.
    let expected = ids.iter().flat_map(|id| {
        let close = Seen::Close(*id, CloseReason::Replaced);
        [Seen::Open(*id), close]
    });
    let expected: Vec<Seen> = expected.take(19).collect();
    assert_eq!(rig.handler.seen, expected);
}

#[test]
fn duplicate_name_is_refused_or_allowed_as_configured() {
    let mut config = with_login(LoginMode::Required);
    config.login.on_duplicate = OnDuplicate::Refuse;
    let mut rig = Rig::new(&config);
    let (first, second) = (
        rig.log_in("name=a token=good"),
        rig.log_in("name=a token=good"),
    );
    rig.turn();
    assert_eq!(rig.engine.directory.holders("a"), [first]);
    assert!(rig.engine.conn(second).is_none(), "it was denied");
    assert_eq!(rig.engine.stats().denied(DenyReason::NameInUse), 1);
    rig.engine.close_on_request(first, Close::Now);
    let third = rig.log_in("name=a token=good");
    rig.turn();
    rig.turn();
    assert_eq!(
        rig.engine.directory.holders("a"),
        [third],
        "the name was free"
    );

    config.login.on_duplicate = OnDuplicate::Allow;
    let mut rig = Rig::new(&config);
    let ids = [
        rig.log_in("name=a token=good"),
        rig.log_in("name=a token=good"),
    ];
    rig.turn();
    assert_eq!(rig.engine.send_to("a", b"x"), Ok(Broadcast::Complete(2)));
    assert!(ids.iter().all(|id| rig.outgoing(*id) == "x\n"));
    assert_eq!(rig.engine.send_to("b", b"x"), Err(SendError::Closed));
}

#[test]
fn group_message_reaches_members_only() {
    let mut rig = Rig::new(&with_login(LoginMode::Required));
    let ids: Vec<ConnId> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            let token = if *name == "c" { "good" } else { "member" };
            rig.log_in(&format!("name={name} token={token}"))
        })
        .collect();
    rig.turn();
    assert_eq!(rig.engine.publish("g", b"x"), Ok(Broadcast::Complete(2)));
    let queued: Vec<String> = ids.iter().map(|id| rig.said(*id)).collect();
    assert_eq!(queued, ["x\n", "x\n", ""]);
    assert_eq!(rig.engine.join(ids[2], &name("g")), Ok(true));
    assert!(rig.engine.leave(ids[0], "g") && !rig.engine.leave(ids[0], "g"));
    rig.engine.close_on_request(ids[1], Close::Now);
    rig.reap();
    assert_eq!(rig.engine.publish("g", b"y"), Ok(Broadcast::Complete(1)));
    assert_eq!(rig.said(ids[2]), "y\n");
    assert_eq!(rig.engine.publish("none", b"y"), Ok(Broadcast::Complete(0)));
    assert_eq!(rig.engine.join(ids[1], &name("g")), Ok(false), "it is gone");
}

#[test]
fn granted_beat_decides_when_a_silent_peer_is_closed() {
    let mut rig = Rig::new(&config());
    let (patient, hasty, plain) = (rig.log_in("beat=5s"), rig.log_in("beat=200ms"), rig.open());
    assert!(rig.said(patient).contains("beat=5s retry=1s missed=3"));
    assert!(
        rig.said(hasty).contains("beat=1s retry=1s missed=3"),
        "the least is granted"
    );
    rig.pass_until(4200, false);
    let closed: Vec<ConnId> = rig.reap().iter().map(|(id, _)| *id).collect();
    assert!(closed.contains(&plain) || closed.contains(&hasty));
    rig.pass_until(4200, false);
    rig.reap();
    assert_eq!(rig.engine.connections(), 1);
    rig.pass_until(u64::MAX, false);
    let (id, closed) = rig.reap().pop().expect("a close");
    assert_eq!((id, closed.pings_unanswered), (patient, 3));
    assert!(
        (8000..=8000 + TICK_MS).contains(&rig.now.as_ms()),
        "{}",
        rig.now
    );
    assert!(rig.engine.beats.is_empty());
}

#[test]
fn shorter_beat_lowers_the_stall_threshold() {
    let mut slow = config();
    let heartbeat = slow.heartbeat.as_mut().expect("it has one");
    heartbeat.interval = Duration::from_secs(10);
    let mut rig = Rig::new(&slow);
    assert_eq!(rig.engine.stall_ms(), 5000);
    rig.log_in("beat=2s");
    assert_eq!(rig.engine.stall_ms(), 1000);
}
