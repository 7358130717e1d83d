//! The application on the simulated server: echoes, broadcasts, closes and pauses by chance, and
//! checks every callback.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use heartline::time::Timestamp;
use heartline::{
    Broadcast, BroadcastId, Close, CloseReason, Closed, ConnId, Context, DenyReason, Framing,
    Handler, Identity, LoginDecision, LoginRequest, Name, SendError,
};

use crate::ledger::Ledger;
use crate::origin::Origin;
use crate::peer::Hello;
use crate::trace::Trace;

/// What the application does with a message, in parts of a thousand; other messages are echoed.
#[derive(Clone, Debug, Default)]
pub struct AppBehavior {
    pub broadcast: u32,
    pub close_after_flush: u32,
    pub close_now: u32,
    pub pause: u32,
    pub resume_another: u32,
    pub send_when_empty: u32,
    pub broadcast_on_close: u32,
    pub longest_pause_ms: u64,
    pub send_to: u32,
    pub publish: u32,
    pub set_deadline: u32,
    pub longest_decision_ms: u64,
}

/// Groups that connections join by chance.
const GROUPS: [&str; 3] = ["g0", "g1", "g2"];

pub struct App {
    framing: Framing,
    behavior: AppBehavior,
    rng: fastrand::Rng,
    pub trace: Trace,
    pub lines: Vec<Line>,
    by_id: BTreeMap<ConnId, usize>,
    /// Lines of connections that the application does not know yet.
    pub accepted: BTreeMap<ConnId, usize>,
    /// Logins to be decided later: after how long, and whether they are accepted.
    pub decisions: Vec<(u64, ConnId, bool)>,
    /// A name may have had several connections.
    pub allows_duplicates: bool,
    /// When each connection is to be called.
    pub deadlines: BTreeMap<ConnId, Timestamp>,
    members: BTreeMap<&'static str, BTreeSet<ConnId>>,
    /// The line that is being opened: its id is not known before the callback.
    pub opening: Option<usize>,
    /// Pauses that were begun and not handed to the world yet: their length and connection.
    pub pauses: Vec<(u64, ConnId)>,
    /// Broadcasts that are not complete, and the receivers that each had in view.
    pub broadcasts: BTreeMap<BroadcastId, usize>,
    /// Connections once paused, closed ones among them: resuming those must do nothing.
    paused: Vec<ConnId>,
    pub opened: u64,
    pub closed: u64,
    pub messages: u64,
}

/// The model of one connection, closed ones included.
pub struct Line {
    pub origin: Origin,
    /// What its peer says first.
    pub hello: Option<Hello>,
    pub id: Option<ConnId>,
    /// Whether the application knows of it. A connection that waits for its PROXY header has an id
    /// already.
    pub is_known: bool,
    /// From the peer to the application.
    pub asked: Ledger,
    /// From the application to the peer.
    pub answered: Ledger,
    pub closed: Option<Closed>,
    pub asked_to_close: bool,
    /// The application queued more than the outbox had room for.
    pub overfilled: bool,
    /// It was a receiver of a broadcast.
    pub may_be_overfilled: bool,
    pub queue_empties: u64,
}

impl App {
    pub fn new(framing: Framing, behavior: AppBehavior, seed: u64) -> Self {
        App {
            framing,
            behavior,
            rng: fastrand::Rng::with_seed(seed),
            trace: Trace::default(),
            lines: Vec::new(),
            by_id: BTreeMap::new(),
            accepted: BTreeMap::new(),
            decisions: Vec::new(),
            allows_duplicates: false,
            deadlines: BTreeMap::new(),
            members: BTreeMap::new(),
            opening: None,
            pauses: Vec::new(),
            broadcasts: BTreeMap::new(),
            paused: Vec::new(),
            opened: 0,
            closed: 0,
            messages: 0,
        }
    }

    /// Called in the order of the lines' numbers.
    pub fn add_line(&mut self, origin: Origin, hello: Option<Hello>) {
        let (asked, answered) = (Ledger::new(self.framing), Ledger::new(self.framing));
        let (id, is_known, closed, asked_to_close, overfilled) = (None, false, None, false, false);
        self.lines.push(Line {
            origin,
            hello,
            id,
            is_known,
            asked,
            answered,
            closed,
            asked_to_close,
            overfilled,
            may_be_overfilled: false,
            queue_empties: 0,
        });
    }

    pub fn live_ids(&self) -> impl Iterator<Item = (ConnId, usize)> + '_ {
        self.by_id.iter().map(|(id, line)| (*id, *line))
    }

    pub fn line_of(&self, id: ConnId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Notes what became of a message that was sent to a connection.
    pub fn sent(&mut self, id: ConnId, message: &Rc<[u8]>, result: Result<(), SendError>) {
        let Some(line) = self.line_of(id) else {
            return assert_eq!(
                result,
                Err(SendError::Closed),
                "a message for a dead connection"
            );
        };
        let line = &mut self.lines[line];
        match result {
            Ok(()) => line.answered.push(message),
            Err(SendError::Full) => line.overfilled = true,
            Err(SendError::Closed) => {}
            Err(error) => panic!("every message here can be framed: {error}"),
        }
    }

    /// The receivers of a broadcast that begins now.
    pub fn audience(&self, is_open: impl Fn(ConnId) -> bool, except: Option<ConnId>) -> Vec<usize> {
        self.live_ids()
            .filter(|(id, _)| Some(*id) != except && is_open(*id))
            .map(|(_, line)| line)
            .collect()
    }

    /// Records the result of a broadcast: every receiver gets it next, unless it has no room.
    pub fn broadcast_called(
        &mut self,
        message: &Rc<[u8]>,
        audience: &[usize],
        result: Result<Broadcast, SendError>,
    ) {
        match result {
            Ok(Broadcast::Complete(receivers)) => assert!(receivers <= audience.len()),
            Ok(Broadcast::Pending(id)) => {
                assert_eq!(self.broadcasts.insert(id, audience.len()), None);
            }
            Err(SendError::Full) => return,
            Err(error) => panic!("every message here can be framed: {error}"),
        }
        for line in audience {
            self.lines[*line].answered.push_broadcast(message);
            self.lines[*line].may_be_overfilled = true;
        }
    }

    fn broadcast(&mut self, cx: &mut Context<'_>, message: &[u8], except: Option<ConnId>) {
        let message: Rc<[u8]> = message.into();
        let audience = self.audience(|id| cx.is_open(id), except);
        let result = cx.broadcast(&message, except);
        self.broadcast_called(&message, &audience, result);
    }

    fn send(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        let result = cx.send(id, message);
        self.sent(id, &message.into(), result);
    }

    /// Names are those that were asked for, and have one owner.
    fn check_name(&self, cx: &Context<'_>, id: ConnId, line: usize) {
        let Some(name) = cx.name_of(id) else { return };
        let hello = self.lines[line].hello.as_ref().expect("it said hello");
        assert_eq!(hello.name.as_deref(), Some(name.as_str()), "line {line}");
        let holders = cx.connections_named(name);
        assert!(holders.contains(&id));
        assert!(
            holders.len() == 1 || self.allows_duplicates,
            "{name} has {holders:?}"
        );
    }

    fn send_to(&mut self, cx: &mut Context<'_>) {
        let known = self.by_id.len();
        if known == 0 {
            return;
        }
        let nth = self.rng.usize(0..known);
        let id = *self.by_id.keys().nth(nth).expect("there are so many");
        let Some(name) = cx.name_of(id).cloned() else {
            return;
        };
        let message: Rc<[u8]> = b"TO".as_slice().into();
        let holders = cx.connections_named(&name).to_vec();
        let is_single = holders.len() == 1;
        // A connection that is welcomed in a later callback of this turn holds its name already.
        let audience = self.audience(|id| cx.is_open(id) && holders.contains(&id), None);
        let result = cx.send_to(&name, &message);
        if is_single {
            assert_eq!(holders, [id]);
            self.sent(id, &message, result.map(drop));
        } else {
            self.broadcast_called(&message, &audience, result);
        }
    }

    fn publish(&mut self, cx: &mut Context<'_>) {
        let group = GROUPS[self.rng.usize(0..GROUPS.len())];
        let members = self.members.entry(group).or_default().clone();
        let of_server: BTreeSet<ConnId> = cx.members(group).iter().copied().collect();
        assert_eq!(of_server, members);
        let message: Rc<[u8]> = b"GROUP".as_slice().into();
        let audience = self.audience(|id| cx.is_open(id) && members.contains(&id), None);
        let result = cx.publish(group, &message);
        self.broadcast_called(&message, &audience, result);
    }

    fn join_or_leave(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let group = GROUPS[self.rng.usize(0..GROUPS.len())];
        let members = self.members.entry(group).or_default();
        if self.rng.bool() {
            let joined = cx.join(id, &Name::new(group).expect("a name"));
            assert_eq!(joined, Ok(members.insert(id)));
        } else {
            assert_eq!(cx.leave(id, group), members.remove(&id));
        }
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.u32(0..1000) < per_mille
    }
}

impl Handler for App {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let line = self
            .opening
            .take()
            .or_else(|| self.accepted.remove(&id))
            .expect("a connection opens when the driver says so");
        assert_eq!(
            self.by_id.insert(id, line),
            None,
            "ids are never used again"
        );
        assert!(
            !std::mem::replace(&mut self.lines[line].is_known, true),
            "one on_open for each connection"
        );
        assert_eq!(*self.lines[line].id.get_or_insert(id), id);
        assert!(cx.is_open(id));
        assert_eq!(
            cx.peer_addr(id),
            Some(self.lines[line].origin.name),
            "line {line} under another name"
        );
        self.check_name(cx, id, line);
        self.opened += 1;
        self.trace
            .note("open", cx.now().as_ms(), &[line as u64, id.as_u64()]);
    }

    fn on_login(
        &mut self,
        _: &mut Context<'_>,
        id: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        let is_late = match request.token {
            Some("good") => return decision(request.name, true),
            Some("later") => true,
            Some("never") => false,
            _ => return decision(request.name, false),
        };
        if is_late {
            let delay_ms = self.rng.u64(0..=self.behavior.longest_decision_ms);
            let accepts = self.rng.u8(0..4) > 0;
            self.decisions.push((delay_ms, id, accepts));
        }
        LoginDecision::Pending
    }

    fn on_login_failed(&mut self, _: &mut Context<'_>, id: ConnId, closed: &Closed) {
        assert!(!self.by_id.contains_key(&id), "the application knows it");
        let line = self.accepted.remove(&id).expect("one end for each");
        self.trace
            .note("login-failed", line as u64, &[closed.reason.index() as u64]);
        assert!(self.lines[line].closed.replace(closed.clone()).is_none());
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        let line = self
            .line_of(id)
            .expect("no message before on_open or after on_close");
        self.check_name(cx, id, line);
        self.trace.note(
            "message",
            cx.now().as_ms(),
            &[line as u64, message.len() as u64],
        );
        self.lines[line].asked.take(message);
        self.messages += 1;
        if self.chance(self.behavior.resume_another) && !self.paused.is_empty() {
            let other = self
                .paused
                .swap_remove(self.rng.usize(0..self.paused.len()));
            cx.resume_reads(other);
        }
        if self.chance(self.behavior.send_to) {
            self.send_to(cx);
        }
        if self.chance(self.behavior.set_deadline) {
            let after_ms = self.rng.u64(0..=self.behavior.longest_pause_ms);
            let at = cx.now().plus_ms(after_ms);
            let keeps = self.rng.u8(0..8) > 0;
            assert!(cx.set_deadline(id, keeps.then_some(at)));
            self.deadlines.remove(&id);
            self.deadlines.extend(keeps.then_some((id, at)));
        }
        if self.chance(self.behavior.publish) {
            self.join_or_leave(cx, id);
            self.publish(cx);
        }
        if self.chance(self.behavior.broadcast) {
            return self.broadcast(cx, message, Some(id));
        }
        let reply: Rc<[u8]> = [b"E:", message].concat().into();
        let result = cx.send_parts(id, &[b"E:", message]);
        self.sent(id, &reply, result);
        if self.chance(self.behavior.close_after_flush) {
            self.lines[line].asked_to_close |= cx.close(id, Close::AfterFlush);
            assert!(!cx.is_open(id));
        } else if self.chance(self.behavior.close_now) {
            self.lines[line].asked_to_close |= cx.close(id, Close::Now);
            assert!(!cx.close(id, Close::Now), "the second close does nothing");
        } else if self.chance(self.behavior.pause) {
            cx.pause_reads(id);
            self.paused.push(id);
            self.pauses
                .push((self.rng.u64(0..=self.behavior.longest_pause_ms), id));
        }
    }

    fn on_queue_empty(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let line = self.line_of(id).expect("nothing after on_close");
        assert!(cx.is_open(id) && cx.queued(id) == 0);
        self.lines[line].queue_empties += 1;
        self.trace
            .note("queue-empty", cx.now().as_ms(), &[line as u64]);
        if self.chance(self.behavior.send_when_empty) {
            self.send(cx, id, b"MORE");
        }
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let at = self.deadlines.remove(&id).expect("it was asked for, once");
        assert!(cx.now() >= at, "{id} was called early");
        assert!(cx.is_open(id));
    }

    fn on_broadcast(&mut self, _: &mut Context<'_>, broadcast: BroadcastId, receivers: usize) {
        let most = self.broadcasts.remove(&broadcast);
        assert!(
            most.is_some_and(|most| receivers <= most),
            "{receivers} of {most:?}"
        );
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        let line = self
            .by_id
            .remove(&id)
            .expect("one on_close for each on_open");
        self.closed += 1;
        self.deadlines.remove(&id);
        assert!(!cx.set_deadline(id, Some(cx.now())));
        let wanted = self.lines[line].hello.as_ref();
        let name = closed.name.as_deref();
        assert!(name.is_none() || wanted.and_then(|hello| hello.name.as_deref()) == name);
        assert_eq!(cx.name_of(id).map(Name::as_str), name, "until it is over");
        self.members.values_mut().for_each(|members| {
            members.remove(&id);
        });
        self.trace.note(
            "close",
            cx.now().as_ms(),
            &[
                line as u64,
                closed.reason.index() as u64,
                closed.bytes_in,
                closed.bytes_out,
            ],
        );
        assert!(self.lines[line].closed.replace(closed.clone()).is_none());
        assert_eq!(closed.peer, self.lines[line].origin.name);
        assert!(!cx.is_open(id) && cx.queued(id) == 0 && cx.peer_addr(id).is_none());
        assert_eq!(cx.send(id, b"LATE"), Err(SendError::Closed));
        assert!(!cx.close(id, Close::AfterFlush) && !cx.close(id, Close::Now));
        assert!(closed.reason != CloseReason::Requested || self.lines[line].asked_to_close);
        if self.chance(self.behavior.broadcast_on_close) {
            self.broadcast(cx, b"GONE", None);
        }
    }
}

/// The decision about a name that is asked for.
pub fn decision(name: Option<&Name>, accepts: bool) -> LoginDecision {
    match name {
        Some(name) if accepts => LoginDecision::Accept(Identity::named(name.clone())),
        None if accepts => LoginDecision::Accept(Identity::default()),
        _ => LoginDecision::Deny(DenyReason::BadToken),
    }
}
