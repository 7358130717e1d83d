//! The whole engine under any sequence of events that a driver may bring about, wise or not.

mod app;

use std::fmt::Debug;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use heartline::engine::{Engine, FinalRead, Work};
use heartline::time::{Timestamp, duration_to_ms};
use heartline::{
    Close, CloseReason, Config, ConnId, Framing, Heartbeat, Limits, OnFull, OnSlow, RejectReason,
};

use crate::reader::Reader;
use app::App;

/// A configuration, then operations, each a byte and its arguments; the invariants are checked
/// after each.
pub fn engine(data: &[u8]) {
    let mut data = Reader(data);
    let config = config(&mut data);
    let mut app = App::new(&config);
    (app.sends_when_empty, app.broadcasts_on_close) = (data.below(2) == 1, data.below(2) == 1);
    let ends_in_silence = data.below(2) == 1;
    let engine = Engine::new(&config).expect("a valid configuration");
    let mut run = Run {
        data,
        engine,
        app,
        config,
        now_ms: 0,
        latest: Timestamp::ZERO,
        checked: Timestamp::ZERO,
    };
    while let Some(operation) = run.data.next() {
        run.step(operation);
        run.check();
    }
    run.run_to_rest();
    if ends_in_silence {
        run.starve();
    }
    run.drain();
}

#[allow(
    clippy::needless_update,
    reason = "limits may come that this file knows nothing of"
)]
fn config(data: &mut Reader) -> Config {
    let tick_ms = data.pick(&[1, 7, 10, 100]);
    let heartbeat = Heartbeat {
        interval: Duration::from_millis(tick_ms * 2 + u64::from(data.byte())),
        retry: (data.below(2) == 0)
            .then(|| Duration::from_millis(tick_ms * 2 + u64::from(data.byte()))),
        max_missed: 1 + data.below(3) as u8,
        send_pings: data.below(2) == 0,
        ..Heartbeat::default()
    };
    let (max_message, max_outbox) = (4 + data.below(64), 256 + data.below(256) * 4);
    let timeouts = [None, Some(50), Some(1), Some(3000), Some(1 << 31)]
        .map(|ms| ms.map(Duration::from_millis));
    Config {
        framing: data.pick(&[Framing::Lines, Framing::Length, Framing::Raw]),
        tick: Duration::from_millis(tick_ms),
        heartbeat: (data.below(2) == 0).then_some(heartbeat),
        goodbye: (data.below(4) == 1).then(|| app::GOODBYE.to_vec()),
        limits: Limits {
            max_message,
            max_outbox,
            max_memory: data.pick(&[
                None,
                Some(max_outbox + max_message),
                Some(2 * max_outbox + max_message),
            ]),
            on_slow: data.pick(&[OnSlow::Close, OnSlow::Drop]),
            on_full: data.pick(&[OnFull::Refuse, OnFull::EvictIdlest]),
            write_timeout: data.pick(&timeouts),
            frame_timeout: data.pick(&timeouts),
            first_message_timeout: data.pick(&timeouts),
            max_message_rate: NonZeroU32::new(data.pick(&[0, 1, 5, 1000, u32::MAX])),
            max_connections: data.pick(&[None, Some(1), Some(3)]),
            max_connections_per_ip: data.below(3),
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// Limits open connections, so that the checks after each operation stay cheap.
const MAX_CONNECTIONS: usize = 8;

struct Run<'a> {
    data: Reader<'a>,
    engine: Engine,
    app: App,
    config: Config,
    /// The clock. It may go back.
    now_ms: u64,
    /// The latest time.
    latest: Timestamp,
    /// When the timers were last all handled.
    checked: Timestamp,
}

impl Run<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.latest = self.latest.max(self.now());
    }

    /// Any connection that is or was.
    fn any(&mut self) -> Option<ConnId> {
        let lines = &self.app.lines;
        // Counted from the latest, so that live ones are among the choices.
        (!lines.is_empty())
            .then(|| lines[lines.len() - 1 - self.data.below(lines.len().min(256))].id)
    }

    fn step(&mut self, operation: u8) {
        match operation % 32 {
            0..=1 => self.open(),
            2..=7 => self.read(),
            8 => {
                let ms = self.data.byte();
                self.pass(ms.into());
            }
            9 => {
                let ms = u64::from(self.data.byte()) << self.data.below(12);
                self.pass(ms);
            }
            10 => self.now_ms = self.now_ms.saturating_sub(self.data.byte().into()),
            11 => self.engine.advance(self.now()),
            12 => {
                let budget = self.data.below(8);
                self.engine.handle_timers(self.now(), budget);
            }
            13 => self.final_read(),
            14..=16 => self.flush(),
            17..=18 => self.write_if_blocked(),
            19 => self.send(),
            20 => self.broadcast(),
            21 => self.close(),
            22 => self.pause(),
            23 => self.resume_one(),
            24 => self.rest(),
            25 => self.eof(),
            26 => self.fail(),
            27 => self.shut_down(),
            28..=29 => {
                self.reap_one();
            }
            30 => self.disturb_with_stale_ids(),
            _ => self.run_to_rest(),
        }
    }

    fn open(&mut self) {
        if self.engine.connections() >= MAX_CONNECTIONS {
            return;
        }
        let host = self.data.byte();
        let ip = match host % 4 {
            0 => Ipv4Addr::new(192, 0, 2, 1).into(),
            1 => Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(),
            2 => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::new(192, 0, 2, host).into(),
        };
        self.app.peer = SocketAddr::new(ip, host.into());
        let expected = self.refusals();
        let refused = self.refused();
        let admitted = self
            .engine
            .handle_open(self.now(), self.app.peer, &mut self.app);
        match admitted {
            Ok(_) => assert!(
                expected.is_empty() || self.makes_room(&expected),
                "let in, and not {expected:?}"
            ),
            Err(refusal) => assert!(expected.contains(&refusal), "{refusal}, not {expected:?}"),
        }
        assert_eq!(self.refused(), refused + u64::from(admitted.is_err()));
    }

    /// Why the next connection must be refused. Where there are several reasons, any may be given.
    fn refusals(&self) -> Vec<RejectReason> {
        let (limits, ip) = (&self.config.limits, self.app.peer.ip().to_canonical());
        let held = self
            .app
            .lines
            .iter()
            .filter(|line| line.open && line.ip == ip)
            .count();
        let reasons = [
            (self.app.draining, RejectReason::ShuttingDown),
            (
                limits
                    .max_connections
                    .is_some_and(|most| self.engine.connections() >= most),
                RejectReason::Full,
            ),
            (
                limits.max_connections_per_ip > 0 && held >= limits.max_connections_per_ip,
                RejectReason::PerIpLimit,
            ),
        ];
        reasons
            .into_iter()
            .filter(|(applies, _)| *applies)
            .map(|(_, refusal)| refusal)
            .collect()
    }

    /// Whether somebody may have left for the new one at once, before that could be seen.
    fn makes_room(&self, refusals: &[RejectReason]) -> bool {
        self.config.limits.on_full == OnFull::EvictIdlest
            && !refusals.contains(&RejectReason::ShuttingDown)
    }

    fn refused(&self) -> u64 {
        RejectReason::ALL
            .iter()
            .map(|refusal| self.engine.stats().refused(*refusal))
            .sum()
    }

    /// Bytes of which frames are made, and some that break them.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.data.below(12) {
            let codec = self.app.codec();
            let kind = self.data.byte();
            match kind % 16 {
                0 => bytes.extend_from_slice(codec.ping()),
                1 => bytes.extend_from_slice(&codec.ping().repeat(80)),
                2..=3 => bytes.extend_from_slice(codec.pong()),
                4..=10 => codec.encode(
                    &[&b"abcxzrm"[usize::from(kind % 16 - 4)..][..1], b"essage"],
                    &mut bytes,
                ),
                11 => codec.encode(&[&vec![b'l'; self.config.limits.max_message]], &mut bytes),
                12 => codec.encode(&[], &mut bytes),
                13 => bytes.truncate(bytes.len() / 2),
                14 => bytes.extend_from_slice(b"half"),
                _ => bytes.push(self.data.byte()),
            }
        }
        bytes
    }

    fn read(&mut self) {
        let Some(id) = self.any() else { return };
        let bytes = self.bytes();
        if !self.engine.wants_read(id) {
            return;
        }
        if self.engine.is_open(id) {
            self.app.arrived(id, &bytes);
        } else {
            self.app.wasted(id, &bytes);
        }
        let mut work = self.work();
        self.engine
            .handle_bytes(self.now(), id, &bytes, &mut work, &mut self.app);
    }

    /// A budget, mostly a small one.
    fn work(&mut self) -> Work {
        Work::new(match self.data.below(8) {
            units @ 0..=3 => units as u32,
            _ => u32::MAX,
        })
    }

    /// The final read of a suspect connection, perhaps in two turns.
    fn final_read(&mut self) {
        let Some(id) = self.engine.poll_final_read() else {
            return;
        };
        match self.data.below(3) {
            0 => self.engine.postpone_final_read(id),
            unread => {
                let mut ms = || (self.data.below(4) == 1).then(|| u64::from(self.data.byte()) * 4);
                let (unacknowledged, received_ms, unacknowledged_ms) = (ms(), ms(), ms());
                self.engine.handle_progress(self.now(), id, unacknowledged);
                let found = FinalRead {
                    unread: unread == 1,
                    received_ms,
                    unacknowledged_ms,
                };
                self.engine.handle_final_read(self.now(), id, found);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(id) = self
            .engine
            .poll_dirty()
            .or_else(|| self.engine.poll_broadcast_only())
        {
            let most = usize::from(self.data.byte());
            // Most of the time the kernel takes all.
            self.write(id, if most < 160 { usize::MAX } else { most - 160 });
        }
    }

    fn write_if_blocked(&mut self) {
        let Some(id) = self.any() else { return };
        if self.engine.is_blocked(id) {
            let most = usize::from(self.data.byte()) * 2;
            self.write(id, most);
        }
    }

    /// Writes until nothing is left or the kernel, which takes at most this many bytes, is full.
    fn write(&mut self, id: ConnId, mut most: usize) {
        for _ in 0..16 {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = self.engine.outgoing(id, &mut slices);
            let bytes: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            assert!(
                filled == 0 || !bytes.is_empty(),
                "nothing to write is not worth a call"
            );
            let taken = bytes.len().min(most);
            if filled > 0 {
                self.app.written(id, &bytes[..taken]);
                self.engine
                    .handle_written(self.now(), id, taken, &mut self.app);
            }
            most -= taken;
            if filled == 0 || taken < bytes.len() {
                return self.engine.handle_blocked(id);
            }
        }
        panic!("{id}: there is no end to what it has to write");
    }

    /// The size of a message: mostly small, sometimes large enough to be shared, sometimes more
    /// than a line can carry.
    fn about(&mut self) -> Vec<u8> {
        match self.data.byte() {
            0..=9 => b"a\nb".to_vec(),
            10..=49 => vec![b's'; 500 + self.data.below(256)],
            len => vec![b'm'; len.into()],
        }
    }

    fn send(&mut self) {
        let Some(id) = self.any() else { return };
        let about = self.about();
        let message = self.app.message(&about);
        let expected = self
            .app
            .predict(self.engine.is_open(id), self.engine.queued(id), &message);
        let result = self.engine.send(id, &[&message]);
        assert!(
            self.app.may_end(result, expected),
            "{result:?}, not {expected:?}"
        );
        if result.is_ok() {
            self.app.sent(id, &message);
        }
    }

    fn broadcast(&mut self) {
        let except = if self.data.below(2) == 1 {
            self.any()
        } else {
            None
        };
        let about = self.about();
        let message = self.app.message(&about);
        let audience = self.app.audience(except, |id| self.engine.is_open(id));
        let result = self.engine.broadcast(&message, except);
        self.app.broadcast_called(&message, &audience, result);
    }

    fn close(&mut self) {
        let Some(id) = self.any() else { return };
        let how = if self.data.below(2) == 1 {
            Close::Now
        } else {
            Close::AfterFlush
        };
        let open = self.engine.is_open(id);
        assert_eq!(self.engine.close_on_request(id, how), open);
        assert!(!self.engine.is_open(id));
        self.app.line(id).asked_to_close |= open;
    }

    fn pause(&mut self) {
        let Some(id) = self.any() else { return };
        let paused = self.data.below(2) == 0;
        self.engine.pause_reads(id, paused);
        self.app.line(id).paused = paused;
    }

    fn resume_one(&mut self) {
        if let Some(id) = self.engine.poll_readable() {
            let mut work = self.work();
            self.engine
                .resume_decoding(self.now(), id, &mut work, &mut self.app);
        }
        let mut work = self.work();
        self.engine
            .handle_fanouts(self.now(), &mut work, &mut self.app);
    }

    fn rest(&mut self) {
        let Some(id) = self.any() else { return };
        let mut work = self.work();
        self.engine
            .resume_decoding(self.now(), id, &mut work, &mut self.app);
    }

    fn eof(&mut self) {
        let Some(id) = self.any() else { return };
        // A driver learns of it by reading.
        if self.engine.wants_read(id) {
            self.app.line(id).peer_shut |= self.engine.is_open(id);
            self.engine.handle_eof(self.now(), id);
        }
    }

    fn fail(&mut self) {
        let Some(id) = self.any() else { return };
        self.app.line(id).failed = true;
        self.engine
            .handle_failure(self.now(), id, CloseReason::PeerReset);
    }

    fn shut_down(&mut self) {
        // Not always: operations after a drain see few connections.
        if self.data.byte() < 64 {
            let grace_ms = u64::from(self.data.byte()) << self.data.below(12);
            self.app.draining = true;
            self.engine.handle_shutdown(self.now(), grace_ms);
        }
    }

    fn reap_one(&mut self) -> bool {
        let closed = self.app.closed;
        let reaped = self.engine.poll_closed(self.now(), &mut self.app);
        assert_eq!(self.app.closed, closed + u64::from(reaped.is_some()));
        let Some((id, _)) = reaped else { return false };
        assert!(
            !self.app.line(id).open,
            "{id}: it is its own end that on_close was told of"
        );
        true
    }

    /// Calls with ids of connections that are gone, or never existed, must change nothing.
    fn disturb_with_stale_ids(&mut self) {
        let far = ConnId::from_u64(u64::from(self.data.byte()) << self.data.below(60));
        let lines = &self.app.lines;
        let never = lines.iter().all(|line| line.id != far).then_some(far);
        // The latest closed ones: their slots are the likeliest to be in use again.
        let gone = lines
            .iter()
            .rev()
            .filter(|line| !line.open)
            .map(|line| line.id)
            .take(MAX_CONNECTIONS);
        let ids: Vec<ConnId> = gone.chain(never).collect();
        for id in ids {
            self.disturb(id);
        }
    }

    fn disturb(&mut self, id: ConnId) {
        let now = self.now();
        self.engine.advance(now);
        let before = self.visible();
        let mut work = Work::new(u32::MAX);
        self.engine
            .handle_bytes(now, id, b"ghost\n", &mut work, &mut self.app);
        self.engine
            .resume_decoding(now, id, &mut work, &mut self.app);
        self.engine.handle_progress(now, id, Some(1));
        self.engine.handle_write_budget_spent(id);
        self.engine.handle_eof(now, id);
        self.engine.handle_failure(now, id, CloseReason::PeerReset);
        self.engine.handle_written(now, id, 1, &mut self.app);
        self.engine.handle_blocked(id);
        self.engine.handle_final_read(now, id, FinalRead::default());
        self.engine.pause_reads(id, true);
        self.engine.pause_reads(id, false);
        assert!(self.engine.send(id, &[b"#ghost"]).is_err());
        assert!(
            !self.engine.close_on_request(id, Close::AfterFlush)
                && !self.engine.close_on_request(id, Close::Now)
        );
        self.assert_stale(id);
        assert_eq!(
            before,
            self.visible(),
            "{id} is stale and changed something"
        );
    }

    /// All that can be seen from outside.
    fn visible(&self) -> impl PartialEq + Debug + 'static {
        let engine = &self.engine;
        let line = |id| {
            (
                id,
                engine.is_open(id),
                engine.queued(id),
                engine.wants_read(id),
                engine.is_blocked(id),
            )
        };
        let lines: Vec<_> = self
            .app
            .lines
            .iter()
            .filter(|of| of.open)
            .map(|of| line(of.id))
            .collect();
        (
            engine.stats().clone(),
            engine.connections(),
            engine.has_work(),
            engine.poll_timeout(),
            lines,
        )
    }

    fn assert_stale(&self, id: ConnId) {
        let engine = &self.engine;
        assert!(
            !engine.is_open(id)
                && !engine.wants_read(id)
                && !engine.is_blocked(id)
                && engine.peer_addr(id).is_none()
        );
        assert!(engine.queued(id) == 0 && engine.outgoing(id, &mut [IoSlice::new(&[])]) == 0);
    }

    /// What holds after every operation.
    fn check(&mut self) {
        let (engine, app) = (&mut self.engine, &self.app);
        let stats = engine.stats();
        assert_eq!(
            (stats.opened, stats.closed_in_all()),
            (app.opened, app.closed)
        );
        assert_eq!(
            stats.opened,
            stats.closed_in_all() + engine.connections() as u64,
            "opened = closed + held"
        );
        assert_eq!(stats.messages_received, app.messages_in);
        let goodbyes = if app.draining && self.config.goodbye.is_some() {
            app.opened
        } else {
            0
        };
        let pending: usize = app.broadcasts.values().sum();
        let most = app.messages_out + goodbyes + pending as u64;
        assert!((app.messages_out..=most).contains(&stats.messages_queued));
        assert!(
            self.config
                .limits
                .max_memory
                .is_none_or(|most| engine.buffered() <= most),
            "{} bytes held",
            engine.buffered()
        );
        assert_eq!((stats.bytes_in, stats.bytes_out), app.bytes());
        if engine.connections() == 0 {
            assert_eq!(
                engine.poll_timeout(),
                None,
                "nothing is due when nobody is connected"
            );
        }
        if !engine.has_work() {
            let work = [
                engine.poll_dirty(),
                engine.poll_broadcast_only(),
                engine.poll_readable(),
                engine.poll_final_read(),
            ];
            assert_eq!(work, [None; 4], "no work, it was said");
            assert!(
                engine.poll_closed(Timestamp::ZERO, &mut self.app).is_none(),
                "no work, it was said"
            );
        }
        for line in &self.app.lines {
            let id = line.id;
            if !line.open {
                self.assert_stale(id);
                continue;
            }
            let (queued, open) = (self.engine.queued(id), self.engine.is_open(id));
            assert!(
                queued <= self.config.limits.max_outbox,
                "{id}: {queued} bytes queued"
            );
            let watched = self.engine.has_work() || self.engine.is_blocked(id);
            assert!(
                queued == 0 || watched,
                "{id}: {queued} bytes that nobody will write"
            );
            // It may be read, so all that came before was decoded.
            assert!(
                !open || !self.engine.wants_read(id) || line.is_heard(),
                "{id}: not all that was read was heard"
            );
            let judged = self.config.heartbeat.is_none()
                || self.engine.has_work()
                || self.engine.poll_timeout().is_some();
            assert!(judged, "{id}: its silence would go unnoticed");
        }
    }

    /// A turn of a driver that does everything it is told; the kernel has this much room for each.
    /// No peer has sent anything.
    fn turn(&mut self, room: usize) {
        self.now_ms = self.latest.as_ms();
        while self.engine.poll_readable().is_some() {}
        let ids: Vec<ConnId> = self.app.lines.iter().map(|line| line.id).collect();
        let mut work = Work::new(u32::MAX);
        for id in ids {
            self.engine
                .resume_decoding(self.now(), id, &mut work, &mut self.app);
        }
        self.engine
            .handle_fanouts(self.now(), &mut work, &mut self.app);
        self.handle_all_timers();
        while let Some(id) = self.engine.poll_final_read() {
            self.engine.handle_progress(self.now(), id, None);
            self.engine
                .handle_final_read(self.now(), id, FinalRead::default());
        }
        while let Some(id) = self
            .engine
            .poll_dirty()
            .or_else(|| self.engine.poll_broadcast_only())
        {
            self.write(id, room);
        }
        for id in self.blocked() {
            self.write(id, room);
        }
        while self.reap_one() {}
        self.check();
    }

    fn handle_all_timers(&mut self) {
        // Checks beyond the horizon of the wheel come once per round of the wheel.
        let checks = 1000 + self.latest.ms_since(self.checked) / 100;
        assert!(
            self.engine.handle_timers(self.now(), checks as usize),
            "more than {checks} checks at one instant"
        );
        self.checked = self.latest;
    }

    fn blocked(&self) -> Vec<ConnId> {
        self.app
            .lines
            .iter()
            .map(|line| line.id)
            .filter(|id| self.engine.is_blocked(*id))
            .collect()
    }

    fn is_at_rest(&self) -> bool {
        let undecoded = |line: &app::Line| self.engine.has_undecoded(line.id);
        !self.engine.has_work()
            && !self.app.lines.iter().any(undecoded)
            && self.engine.poll_timeout().is_none_or(|at| at > self.latest)
    }

    /// Turns without new events come to rest, and then nothing is left undone.
    fn run_to_rest(&mut self) {
        self.turn(usize::MAX);
        // Where memory is tight, a turn decodes one frame of each connection.
        for _ in 0..1024 {
            if self.is_at_rest() {
                return self.assert_nobody_forgotten();
            }
            self.turn(usize::MAX);
        }
        panic!(
            "it never comes to rest: {:?}, {:?}",
            self.engine.stats(),
            self.engine.poll_timeout()
        );
    }

    fn assert_nobody_forgotten(&self) {
        for line in self.app.lines.iter().filter(|line| line.open) {
            let id = line.id;
            assert!(
                self.engine.is_open(id),
                "{id}: all has gone out, and it is not closed"
            );
            assert!(
                self.engine.queued(id) == 0 && !self.engine.is_blocked(id),
                "{id}: there was room for all that is queued"
            );
            let held_back = line.paused || self.config.limits.max_message_rate.is_some();
            assert!(
                held_back || self.engine.wants_read(id),
                "{id}: nothing is in the way of reading it"
            );
        }
    }

    /// Peers neither send nor read any more: with a heartbeat, all are closed in time.
    fn starve(&mut self) {
        let Some(heartbeat) = &self.config.heartbeat else {
            return;
        };
        if self.app.draining {
            return;
        }
        // Pings that a late driver has not sent are still sent, half an interval apart at least.
        let patience_ms =
            2 * duration_to_ms(heartbeat.timeout()) + 4 * duration_to_ms(self.config.tick);
        let latest = self.latest.plus_ms(patience_ms);
        for _ in 0..10_000 {
            if self.engine.connections() == 0 {
                return;
            }
            let due = if self.engine.has_work() {
                None
            } else {
                self.engine.poll_timeout()
            };
            self.latest = due.unwrap_or(self.latest).max(self.latest);
            assert!(
                self.latest <= latest,
                "still there after {patience_ms} ms: {:?}",
                self.engine.stats()
            );
            self.turn(0);
        }
        panic!("it wakes up without a reason: {:?}", self.engine.stats());
    }

    /// A drain without grace leaves no connection.
    fn drain(&mut self) {
        self.now_ms = self.latest.as_ms();
        self.app.draining = true;
        self.engine.handle_shutdown(self.now(), 0);
        self.pass(1);
        for _ in 0..3 {
            self.turn(0);
        }
        assert!(
            self.engine.is_drained() && !self.engine.has_work(),
            "{} connections left",
            self.engine.connections()
        );
        assert!(self.app.opened == self.app.closed && self.app.lines.iter().all(|line| !line.open));
        assert_eq!(
            (self.engine.poll_timeout(), self.engine.buffered()),
            (None, 0),
            "nobody is there, and something is held"
        );
    }
}
