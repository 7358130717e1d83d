//! Properties that hold for every connection and every seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use heartline::time::{Timestamp, duration_to_ms};
use heartline::{
    CloseReason, Closed, Config, Framing, Heartbeat, LoginMode, OnFull, RejectReason, Stats,
};

use crate::app::{App, Line};
use crate::frame_boundary::FrameBoundary;
use crate::ledger::{Ledger, Tap};
use crate::net::Net;
use crate::origin::{Header, Origin, Rules};

/// How long a balancer has for its header.
const HEADER_MS: u64 = 10_000;

/// Watches the driver, with a model of its own.
pub struct Oracle {
    config: Rc<Config>,
    tick_ms: u64,
    /// `None` without a heartbeat.
    bound_ms: Option<u64>,
    /// The shortest and the longest interval that peers could be granted so far.
    grants: Vec<(u64, u64)>,
    /// When settings were last changed.
    reconfigured: Option<Timestamp>,
    /// When another heartbeat came into force: silence before does not count.
    other_heartbeat: Timestamp,
    rules: Rules,
    /// Connections of each address, by the name under which the application knows them.
    held: BTreeMap<IpAddr, usize>,
    awaiting_header: usize,
    watches: Vec<Watch>,
    /// Time by which turns came late or took long, in all.
    lag_ms: u64,
    pub refused: u64,
    opened: u64,
    closed: u64,
    /// Connections that came in although there were as many as there may be.
    pub made_room: u64,
    /// Since a shutdown has begun, the drain's own deadline holds instead of the heartbeat's.
    pub draining: bool,
    bytes_in: u64,
    bytes_out: u64,
}

struct Watch {
    open: bool,
    /// Its balancer has not named it yet.
    awaiting_header: bool,
    /// How much of its header is still to come.
    header_left: usize,
    /// The latest instant that may count as a sign of life, in awake time, and the lag until then.
    life: Timestamp,
    lag_at_life_ms: u64,
    blocked_since_life: bool,
    /// It is only kept for as long as its peer takes what is queued.
    flushing: bool,
    /// Bytes taken lately, and when.
    taken: VecDeque<(Timestamp, usize)>,
    ever_blocked: bool,
    bytes_in: u64,
    bytes_out: u64,
    /// The heartbeat interval that its peer asks for.
    wanted_ms: Option<u64>,
    /// When its first message, or the beginning of it, was read.
    first_read: Option<Timestamp>,
    /// When the answer to its hello was queued, at the latest: its own heartbeat counts from then.
    welcomed: Option<Timestamp>,
    opened: Timestamp,
    /// When a byte was last read.
    spoke: Timestamp,
    /// When the kernel last took something, or first had no room.
    moved: Timestamp,
    frame_boundary: FrameBoundary,
    tap: Tap,
    verdict: Option<Verdict>,
}

/// What was true when a final read closed a connection. It may be reaped in a later turn.
#[derive(Clone)]
struct Verdict {
    /// What was in force: a reload may come before the reaping.
    config: Rc<Config>,
    /// Since when this heartbeat was in force.
    heartbeat_since: Timestamp,
    at: Timestamp,
    raw_ms: u64,
    silence_ms: u64,
    unread: bool,
    /// The connection's own bound and retry, if there is a heartbeat.
    rule: Option<(u64, u64)>,
}

impl Oracle {
    pub fn new(config: &Config) -> Self {
        Oracle {
            tick_ms: duration_to_ms(config.tick),
            bound_ms: bound_ms(config),
            grants: grants(config).into_iter().collect(),
            reconfigured: None,
            other_heartbeat: Timestamp::ZERO,
            rules: Rules::of(&config.access),
            held: BTreeMap::new(),
            awaiting_header: 0,
            config: Rc::new(config.clone()),
            watches: Vec::new(),
            lag_ms: 0,
            refused: 0,
            opened: 0,
            closed: 0,
            made_room: 0,
            draining: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Other settings are in force, for open connections as well.
    pub fn reconfigured(&mut self, now: Timestamp, config: &Config) {
        if heartbeat_rules(&self.config) != heartbeat_rules(config) {
            self.other_heartbeat = now;
        }
        (self.config, self.bound_ms, self.reconfigured) =
            (Rc::new(config.clone()), bound_ms(config), Some(now));
        self.grants.extend(grants(config));
        self.rules = Rules::of(&config.access);
    }

    /// Called in the order of the lines' numbers.
    pub fn add_line(&mut self, origin: &Origin, wanted_ms: Option<u64>) {
        self.watches.push(Watch {
            open: false,
            awaiting_header: false,
            header_left: if let Header::Whole(len) = origin.header {
                len
            } else {
                0
            },
            life: Timestamp::ZERO,
            lag_at_life_ms: 0,
            blocked_since_life: false,
            flushing: false,
            taken: VecDeque::new(),
            ever_blocked: false,
            bytes_in: 0,
            bytes_out: 0,
            wanted_ms,
            first_read: None,
            welcomed: None,
            opened: Timestamp::ZERO,
            spoke: Timestamp::ZERO,
            moved: Timestamp::ZERO,
            frame_boundary: FrameBoundary::new(self.config.framing),
            tap: Tap::new(self.config.framing),
            verdict: None,
        });
    }

    pub fn late_ms(&mut self, ms: u64) {
        self.lag_ms += ms;
    }

    pub fn lag_ms(&self) -> u64 {
        self.lag_ms
    }

    pub fn is_awaiting_header(&self, line: usize) -> bool {
        self.watches[line].awaiting_header
    }

    pub fn awaiting_header(&mut self, line: usize, now: Timestamp, books: &Line) {
        assert_ne!(
            books.origin.header,
            Header::None,
            "line {line} comes straight"
        );
        self.alive(line, now, false);
        self.watches[line].awaiting_header = true;
        self.awaiting_header += 1;
    }

    pub fn opened(&mut self, line: usize, now: Timestamp, books: &Line) {
        self.opened += 1;
        let watch = &mut self.watches[line];
        watch.open = true;
        self.awaiting_header -= usize::from(std::mem::take(&mut watch.awaiting_header));
        (watch.opened, watch.spoke) = (now, now);
        let Origin { name, header, .. } = books.origin;
        assert!(
            watch.header_left == 0 && !matches!(header, Header::Broken | Header::Torn),
            "line {line}: let in with half a header"
        );
        assert!(
            self.rules.admits(name.ip()),
            "line {line}: {name} is denied"
        );
        assert!(
            !self.is_address_full(name.ip()),
            "line {line}: {name} has as many as it may"
        );
        *self.held.entry(name.ip()).or_default() += 1;
        self.alive(line, now, false);
    }

    fn is_address_full(&self, ip: IpAddr) -> bool {
        let most = self.config.limits.max_connections_per_ip;
        most > 0 && self.held.get(&ip).is_some_and(|held| *held >= most)
    }

    /// Rejected at once, by its source address.
    pub fn refused(&self, line: usize, refusal: RejectReason, books: &Line) {
        let Origin { from, header, .. } = books.origin;
        let ip = from.ip().to_canonical();
        match refusal {
            RejectReason::Denied => assert!(
                header == Header::None && !self.rules.admits(ip),
                "line {line}: {from} is not denied"
            ),
            RejectReason::PerIpLimit => {
                assert!(
                    header == Header::None && self.is_address_full(ip),
                    "line {line}: {from} has fewer than it may"
                )
            }
            RejectReason::ShuttingDown => assert!(self.draining),
            RejectReason::Full => {}
            _ => panic!("line {line}: {refusal} at once"),
        }
    }

    /// Rejected while it waited for its header: by the address that its header names, or without a
    /// valid header.
    pub fn rejected_awaiting_header(
        &mut self,
        line: usize,
        now: Timestamp,
        refusal: RejectReason,
        net: &Net,
        books: &Line,
    ) {
        let watch = &mut self.watches[line];
        assert!(
            std::mem::take(&mut watch.awaiting_header) && !books.is_known,
            "only a connection that awaits its header, and only once"
        );
        self.awaiting_header -= 1;
        self.refused += 1;
        let Origin { name, header, .. } = books.origin;
        let whole = watch.header_left == 0 && matches!(header, Header::Whole(_));
        let waited_ms = now.ms_since(watch.life);
        match refusal {
            RejectReason::Denied => assert!(
                whole && !self.rules.admits(name.ip()),
                "line {line}: {name} is not denied"
            ),
            RejectReason::PerIpLimit => assert!(
                whole && self.is_address_full(name.ip()),
                "line {line}: {name} has fewer than it may"
            ),
            RejectReason::ShuttingDown => assert!(self.draining),
            RejectReason::Probe => assert!(
                watch.bytes_in == 0 && (net.has_unread(line) || net.is_reset(line)),
                "line {line}: it has said something, or is still there"
            ),
            RejectReason::ProxyHeader => {
                let cut_short = net.is_reset(line)
                    || books.asked_to_close
                    || self.config.limits.max_memory.is_some();
                assert!(!whole, "line {line}: its header was good");
                let ended = header == Header::Broken || net.has_unread(line);
                assert!(
                    cut_short || ended || waited_ms >= HEADER_MS,
                    "line {line}: {waited_ms} ms for a header"
                );
            }
            _ => panic!("line {line}: {refusal} before its header"),
        }
    }

    pub fn alive(&mut self, line: usize, now: Timestamp, blocked: bool) {
        let watch = &mut self.watches[line];
        // The time for a header is fixed, whatever arrives.
        if watch.awaiting_header {
            return;
        }
        (watch.life, watch.lag_at_life_ms, watch.blocked_since_life) = (now, self.lag_ms, blocked);
        watch.tap.pings_since_life = 0;
    }

    /// Some connection has logged in, and the welcome is queued.
    pub fn logged_in(&mut self, now: Timestamp) {
        for watch in &mut self.watches {
            if watch.open && watch.tap.welcome.is_none() {
                watch.welcomed = Some(now);
            }
        }
    }

    /// Only a flush is left of the connection, which begins now.
    pub fn flushing(&mut self, line: usize, now: Timestamp) {
        if !std::mem::replace(&mut self.watches[line].flushing, true) {
            self.alive(line, now, true);
        }
    }

    /// A final read has closed the connection.
    pub fn judged(
        &mut self,
        line: usize,
        at: Timestamp,
        raw_ms: u64,
        net: &Net,
        claimed: Option<Duration>,
    ) {
        // Of a flush the default decides.
        let is_flush = self.watches[line].flushing;
        let rule = self.rule(line, claimed).filter(|_| !is_flush);
        self.watches[line].verdict = Some(Verdict {
            rule,
            config: Rc::clone(&self.config),
            heartbeat_since: self.other_heartbeat,
            at,
            raw_ms,
            silence_ms: raw_ms - net.last_arrival_ms(line),
            unread: net.has_unread(line),
        });
    }

    pub fn blocked(&mut self, line: usize, now: Timestamp) {
        if !self.watches[line].ever_blocked {
            self.watches[line].moved = now;
        }
        self.watches[line].blocked_since_life = true;
        self.watches[line].ever_blocked = true;
    }

    pub fn read(&mut self, line: usize, now: Timestamp, bytes: &[u8]) {
        self.watches[line].bytes_in += bytes.len() as u64;
        self.bytes_in += bytes.len() as u64;
        let watch = &mut self.watches[line];
        watch.spoke = now;
        let header = watch.header_left.min(bytes.len());
        watch.header_left -= header;
        if header < bytes.len() {
            watch.first_read.get_or_insert(now);
            watch.frame_boundary.read(now, &bytes[header..]);
        }
    }

    pub fn written(
        &mut self,
        line: usize,
        now: Timestamp,
        raw_ms: u64,
        bytes: &[u8],
        answered: &mut Ledger,
    ) {
        self.watches[line].moved = now;
        if self.watches[line].flushing {
            self.alive(line, now, true);
        }
        if self.config.limits.write_timeout.is_some() || self.watches[line].flushing {
            let taken = &mut self.watches[line].taken;
            taken.push_back((now, bytes.len()));
            while taken.len() > 256 {
                taken.pop_front();
            }
        }
        let watch = &mut self.watches[line];
        watch.tap.written(raw_ms, bytes, answered);
        if watch.tap.welcome.is_some() {
            watch.welcomed.get_or_insert(now);
        }
        self.watches[line].bytes_out += bytes.len() as u64;
        self.bytes_out += bytes.len() as u64;
    }

    pub fn tap(&mut self, line: usize) -> &mut Tap {
        &mut self.watches[line].tap
    }

    pub fn closed(&mut self, line: usize, now: Timestamp, closed: &Closed, books: &Line) {
        self.assert_in_time(line, now);
        self.closed += 1;
        let watch = &mut self.watches[line];
        assert!(std::mem::take(&mut watch.open), "only the open close");
        *self
            .held
            .get_mut(&books.origin.name.ip())
            .expect("it was counted") -= 1;
        assert_eq!(
            (closed.bytes_in, closed.bytes_out),
            (watch.bytes_in, watch.bytes_out),
            "line {line}"
        );
        let verdict = watch.verdict.as_ref();
        let config = Rc::clone(verdict.map_or(&self.config, |verdict| &verdict.config));
        let verdict_at = verdict.map_or(now, |verdict| verdict.at);
        let rule = verdict.and_then(|verdict| verdict.rule);
        let bound_ms = rule.map(|(bound_ms, _)| bound_ms).or(bound_ms(&config));
        let had_no_room = matches!(
            closed.reason,
            CloseReason::SlowReader | CloseReason::MemoryLimit
        );
        if closed.unsent == 0 && !had_no_room {
            assert!(
                books.answered.is_empty() && watch.tap.is_whole(),
                "line {line}: a reply is missing"
            );
        }
        match closed.reason {
            CloseReason::HeartbeatTimeout => self.assert_dead(line),
            CloseReason::HalfOpen => {
                assert!(
                    !closed.unacknowledged.is_zero(),
                    "line {line}: by what evidence?"
                );
                self.assert_dead(line);
            }
            CloseReason::SlowReader => {
                // A server that lags by its own timeout cannot tell which side is slow.
                let slow_server =
                    self.lag_ms - watch.lag_at_life_ms >= bound_ms.unwrap_or(u64::MAX) / 2;
                assert!(
                    books.overfilled
                        || books.may_be_overfilled
                        || watch.ever_blocked
                        || slow_server,
                    "line {line}: nothing was in the way of its replies"
                );
                let stuck_ms = now.ms_since(watch.moved);
                let write_ms = config.limits.write_timeout.map_or(u64::MAX, duration_to_ms);
                let (silence_ms, bound_ms) =
                    (now.ms_since(watch.spoke), bound_ms.unwrap_or(20_000));
                // Fewer than 64 bytes per second for three quarters of the time at least. What the
                // kernel took in the final write cannot be acknowledged yet.
                let timeout_ms = write_ms.min(bound_ms);
                let recent = watch
                    .taken
                    .iter()
                    .filter(|(at, _)| now.ms_since(*at) < timeout_ms * 3 / 4)
                    .filter(|(at, _)| *at < verdict_at);
                let recent: usize = recent.map(|(_, bytes)| bytes).sum();
                let in_vain = books.overfilled
                    || books.may_be_overfilled
                    || slow_server
                    || recent as u64 <= timeout_ms * 64 / 1000 + 1
                    || stuck_ms >= write_ms.min(bound_ms)
                    || silence_ms >= bound_ms;
                assert!(
                    in_vain,
                    "line {line}: {stuck_ms} ms to read, not {write_ms}, and {silence_ms} ms to speak, not {bound_ms}"
                );
            }
            CloseReason::MemoryLimit => assert!(
                closed.unsent + watch.bytes_in as usize > 0,
                "line {line} held nothing"
            ),
            CloseReason::Evicted => assert_eq!(self.config.limits.on_full, OnFull::EvictIdlest),
            CloseReason::FrameTimeout => {
                let since = watch
                    .frame_boundary
                    .open_since
                    .expect("an unfinished frame");
                assert_had(
                    now.ms_since(since),
                    config.limits.frame_timeout,
                    "finish its frame",
                    line,
                );
            }
            CloseReason::FirstMessageTimeout => {
                assert_eq!(watch.frame_boundary.whole, 0, "line {line} did speak");
                assert_had(
                    now.ms_since(watch.opened),
                    config.limits.first_message_timeout,
                    "speak",
                    line,
                );
            }
            CloseReason::LoginTimeout => {
                let needs_name =
                    matches!(config.login.mode, LoginMode::Required | LoginMode::Trust);
                let since = if needs_name {
                    watch.opened
                } else {
                    watch.first_read.expect("it has said hello")
                };
                let timeout = Some(config.login.timeout);
                assert_had(now.ms_since(since), timeout, "log in", line);
                assert!(watch.tap.welcome.is_none(), "line {line} was welcome");
            }
            CloseReason::Replaced => {
                assert!(closed.name.is_some(), "line {line} had no name");
            }
            CloseReason::LoginFailed => {
                assert!(closed.denied.is_some() && watch.tap.welcome.is_none());
            }
            CloseReason::PeerClosed if !books.is_known => {}
            CloseReason::PeerClosed => {
                assert!(
                    closed.unsent == 0,
                    "line {line}: half-closed, and {} bytes were withheld",
                    closed.unsent
                );
                assert!(
                    books.asked.is_empty(),
                    "line {line}: half-closed, and not everything was read"
                );
            }
            _ => {}
        }
    }

    /// The bound and the retry of a connection, which claims that bound: the default, or the one
    /// that its peer was granted.
    fn rule(&self, line: usize, claimed: Option<Duration>) -> Option<(u64, u64)> {
        let claimed_ms = duration_to_ms(claimed?);
        let possible = self.possible_rules(line);
        let rule = possible
            .iter()
            .find(|(bound_ms, _)| *bound_ms == claimed_ms);
        assert!(
            rule.is_some(),
            "line {line}: {claimed_ms} ms, not {possible:?}"
        );
        rule.copied()
    }

    /// The bounds and retries by which a connection may be judged: one, if it was welcomed.
    fn possible_rules(&self, line: usize) -> Vec<(u64, u64)> {
        let Some(heartbeat) = &self.config.heartbeat else {
            return Vec::new();
        };
        let watch = &self.watches[line];
        let retry_ms = duration_to_ms(heartbeat.retry());
        let default = (duration_to_ms(heartbeat.timeout()), retry_ms);
        let granted = |interval_ms: u64| {
            let retry_ms = retry_ms.min(interval_ms);
            let bound_ms = interval_ms + retry_ms * u64::from(heartbeat.max_missed);
            (bound_ms, retry_ms)
        };
        let Some(wanted_ms) = watch.wanted_ms else {
            return vec![default];
        };
        let welcome = watch.tap.welcome.iter();
        let told = welcome.flat_map(|welcome| welcome.split(' '));
        if let Some(beat) = told.filter_map(|field| field.strip_prefix("beat=")).next() {
            return vec![granted(parse_ms(beat))];
        }
        // It was not told: its hello may have been read while other settings were in force.
        let grants = self
            .grants
            .iter()
            .map(|(min_ms, max_ms)| granted(wanted_ms.min(*max_ms).max(*min_ms)));
        grants.chain([default]).collect()
    }

    /// Evicted for silence: then it was silent, and had its chances to answer.
    fn assert_dead(&self, line: usize) {
        let watch = &self.watches[line];
        let Verdict {
            config,
            heartbeat_since,
            at: now,
            raw_ms,
            silence_ms,
            unread,
            rule,
        } = watch.verdict.clone().expect("a final read came before");
        let heartbeat = config.heartbeat.as_ref().expect("no heartbeat, no verdict");
        let (bound_ms, retry_ms) = rule.expect("no heartbeat, no verdict");
        assert!(!unread, "line {line}: evicted with bytes unread");
        assert!(
            silence_ms >= bound_ms,
            "line {line}: evicted after {silence_ms} ms of silence, not {bound_ms}"
        );
        let known_ms = now.ms_since(heartbeat_since);
        assert!(
            known_ms >= bound_ms,
            "line {line}: evicted by a heartbeat that is in force for {known_ms} ms, not {bound_ms}"
        );
        // Raw echoes may look like pings; and in a loop that lags by the retry itself, pings
        // wait for their flush.
        let lag_ms = self.lag_ms - watch.lag_at_life_ms;
        if heartbeat.send_pings
            && !watch.blocked_since_life
            && config.framing != Framing::Raw
            && lag_ms < retry_ms
        {
            // More pings than `max_missed` are amid replies, or were sent before a reload.
            let (pings, missed) = (watch.tap.pings_since_life, u64::from(heartbeat.max_missed));
            assert!(
                pings >= missed,
                "line {line}: {pings} pings before the verdict, not {missed}"
            );
            let patience_ms = raw_ms - watch.tap.last_ping_ms + lag_ms;
            assert!(
                patience_ms >= retry_ms || pings > missed,
                "line {line}: {patience_ms} ms to answer the last ping, not {retry_ms}"
            );
        }
    }

    /// Called between turns.
    pub fn assert_nobody_overdue(&self, now: Timestamp) {
        for line in 0..self.watches.len() {
            if self.watches[line].open {
                self.assert_in_time(line, now);
            } else if self.watches[line].awaiting_header {
                let watch = &self.watches[line];
                let latest = watch
                    .life
                    .plus_ms(HEADER_MS + 1 + self.tick_ms + self.lag_ms - watch.lag_at_life_ms);
                assert!(
                    now <= latest,
                    "line {line}: awaits its header since {}, still there at {now}",
                    watch.life
                );
            }
        }
    }

    fn assert_in_time(&self, line: usize, now: Timestamp) {
        let watch = &self.watches[line];
        let Some(default_ms) = self.bound_ms.filter(|_| !self.draining) else {
            return;
        };
        let possible = self.possible_rules(line).into_iter();
        let longest_ms = possible.map(|(bound_ms, _)| bound_ms).max();
        // Of a flush the default decides.
        let bound_ms = if watch.flushing {
            default_ms
        } else {
            longest_ms.unwrap_or(default_ms)
        };
        let lag_ms = self.lag_ms - watch.lag_at_life_ms;
        let latest = watch
            .life
            .max(self.other_heartbeat)
            .max(watch.welcomed.unwrap_or(Timestamp::ZERO))
            .plus_ms(bound_ms + 1 + self.tick_ms + lag_ms);
        let latest = if watch.flushing {
            latest.plus_ms(bound_ms / 4 + 2 + self.tick_ms)
        } else {
            latest
        };
        assert!(
            now <= latest,
            "line {line}: silent since {}, still there at {now}, bound {bound_ms} ms, lag {lag_ms} ms, flushing {}",
            watch.life,
            watch.flushing
        );
    }

    pub fn assert_counters_add_up(&self, stats: &Stats, app: &App, connections: usize) {
        assert_eq!(
            (stats.opened, stats.closed_in_all()),
            (self.opened, self.closed)
        );
        assert!(app.opened <= self.opened && app.closed <= self.closed);
        assert_eq!(
            stats.opened,
            stats.closed_in_all() + (connections - self.awaiting_header) as u64,
            "opened = closed + open"
        );
        assert_eq!(
            (stats.bytes_in, stats.bytes_out),
            (self.bytes_in, self.bytes_out)
        );
        assert_eq!(stats.messages_received, app.messages);
        assert_eq!(
            RejectReason::ALL
                .iter()
                .map(|refusal| stats.refused(*refusal))
                .sum::<u64>(),
            self.refused
        );
        assert!(
            stats.closed(CloseReason::Evicted) <= self.made_room,
            "who was evicted made room for nobody"
        );
        assert!(
            stats.overshoot.max().as_millis() <= u128::from(self.tick_ms + self.lag_ms),
            "{} ms past the deadline",
            stats.overshoot.max().as_millis()
        );
    }
}

fn assert_had(had_ms: u64, timeout: Option<Duration>, to_do: &str, line: usize) {
    let timeout_ms = duration_to_ms(timeout.expect("no timeout, no verdict"));
    assert!(
        had_ms >= timeout_ms,
        "line {line}: {had_ms} ms to {to_do}, not {timeout_ms}"
    );
}

fn bound_ms(config: &Config) -> Option<u64> {
    config
        .heartbeat
        .as_ref()
        .map(|heartbeat| duration_to_ms(heartbeat.timeout()))
}

/// The rules of the heartbeat. The bounds on what peers may ask for are none.
fn heartbeat_rules(config: &Config) -> Option<Heartbeat> {
    config.heartbeat.clone().map(|heartbeat| Heartbeat {
        beat_min: Duration::ZERO,
        beat_max: Duration::ZERO,
        ..heartbeat
    })
}

/// The shortest and the longest interval that a peer is granted.
fn grants(config: &Config) -> Option<(u64, u64)> {
    let heartbeat = config.heartbeat.as_ref()?;
    let min_ms = duration_to_ms(heartbeat.beat_min).max(2 * duration_to_ms(config.tick));
    Some((min_ms, duration_to_ms(heartbeat.beat_max)))
}

/// A duration in a welcome.
fn parse_ms(text: &str) -> u64 {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match text.strip_suffix("ms") {
        Some(ms) => number(ms),
        None => number(text.trim_end_matches('s')) * 1000,
    }
}
