//! Logins: who a connection is, how that is decided, and what happens to names that are taken twice.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::conn::{Conn, Handshake, Phase, Reading};
use super::failure_limiter::FailureLimiter;
use super::{Context, Engine, Handler, get_live_mut};
use crate::close::{CloseReason, DenyReason};
use crate::config::{Login as LoginConfig, LoginMode, OnDuplicate};
use crate::directory::{MAX_GROUPS, Name, TooManyGroups};
use crate::framing::handshake::{HandshakeError, Hello, encode_end};
use crate::id::ConnId;
use crate::time::{Timestamp, duration_to_ms};

/// What a peer has said in its `hello`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRequest<'a> {
    /// The name that it states.
    pub name: Option<&'a Name>,
    /// The secret that is to prove it. Not to be logged.
    pub token: Option<&'a str>,
}

/// Who a connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    name: Option<Name>,
    groups: Vec<Name>,
}

impl Identity {
    /// A connection with a name and without groups.
    pub fn named(name: Name) -> Self {
        Identity {
            name: Some(name),
            groups: Vec::new(),
        }
    }

    /// The name; `None` if the connection has none.
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The same in these groups. Fails if there are more than 64.
    pub fn in_groups(self, groups: Vec<Name>) -> Result<Self, TooManyGroups> {
        if groups.len() > MAX_GROUPS {
            return Err(TooManyGroups);
        }
        Ok(Identity { groups, ..self })
    }
}

/// The decision about a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginDecision {
    /// The connection gets this identity.
    Accept(Identity),
    /// The login is denied, and the connection closed.
    Deny(DenyReason),
    /// [`Context::login`] will decide, within [`Login::timeout`](crate::Login::timeout).
    Pending,
}

/// The rules, and the logins under way.
pub(super) struct Logins {
    mode: LoginMode,
    on_duplicate: OnDuplicate,
    timeout_ms: u64,
    /// Since when the timeout has been this short.
    timeout_since: Timestamp,
    max_pending: usize,
    failures: FailureLimiter,
    /// Connections that have said `hello` and are not logged in.
    by_id: HashMap<ConnId, PendingLogin>,
    /// How many of them are not denied.
    pending: usize,
    /// Accepted logins, in the order of the decisions.
    accepted: VecDeque<ConnId>,
    /// Connections whose name another one takes, until their last bytes were offered to the kernel.
    replaced: Vec<ConnId>,
}

/// A connection that has said `hello` and is not logged in.
struct PendingLogin {
    /// When it said `hello`.
    since: Timestamp,
    /// The heartbeat interval that it asks for.
    wanted_beat: Option<Duration>,
    state: LoginState,
}

enum LoginState {
    Undecided,
    /// It waits for its name.
    Accepted(Identity),
    /// It is being closed.
    Denied(DenyReason),
}

impl Logins {
    pub(super) fn new(config: &LoginConfig) -> Self {
        Logins {
            mode: config.mode,
            on_duplicate: config.on_duplicate,
            timeout_ms: duration_to_ms(config.timeout),
            timeout_since: Timestamp::ZERO,
            max_pending: config.max_pending,
            failures: FailureLimiter::new(config.max_failures),
            by_id: HashMap::new(),
            pending: 0,
            accepted: VecDeque::new(),
            replaced: Vec::new(),
        }
    }

    /// Applies other settings, except for the mode. A shorter timeout counts from `now`.
    pub(super) fn reconfigure(&mut self, now: Timestamp, config: &LoginConfig) {
        let timeout_ms = duration_to_ms(config.timeout);
        if timeout_ms < self.timeout_ms {
            self.timeout_since = now;
        }
        self.timeout_ms = timeout_ms;
        self.on_duplicate = config.on_duplicate;
        self.max_pending = config.max_pending;
        self.failures.set_max(config.max_failures);
    }

    /// Whether connections may have names.
    pub(super) fn is_on(&self) -> bool {
        self.mode != LoginMode::Off
    }

    /// Whether a connection is announced to the handler only after its login.
    pub(super) fn needs_name(&self) -> bool {
        self.mode.needs_name()
    }

    /// Whether [`Engine::handle_logins`] has something to do.
    pub(super) fn is_work_left(&self) -> bool {
        !(self.accepted.is_empty() && self.replaced.is_empty())
    }

    /// The login has ended, if there was one. Returns the cause of its denial.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<DenyReason> {
        match self.by_id.remove(&id)?.state {
            LoginState::Denied(reason) => Some(reason),
            LoginState::Undecided | LoginState::Accepted(_) => {
                self.pending -= 1;
                if self.by_id.is_empty() {
                    // A table keeps the capacity of its busiest time.
                    self.by_id = HashMap::new();
                }
                None
            }
        }
    }

    /// When a login that is not decided has failed. `opened`: of a connection that is announced
    /// only after its login.
    fn deadline(&self, id: ConnId, opened: Option<Timestamp>) -> Option<Timestamp> {
        let since = match self.by_id.get(&id) {
            Some(PendingLogin {
                state: LoginState::Denied(_) | LoginState::Accepted(_),
                ..
            }) => return None,
            Some(login) => opened.unwrap_or(login.since),
            None => opened?,
        };
        // One millisecond more, because instants are rounded down.
        let from = since.max(self.timeout_since);
        Some(from.plus_ms(self.timeout_ms + 1))
    }
}

impl Engine {
    pub(super) fn handle_hello<H: Handler + ?Sized>(
        &mut self,
        id: ConnId,
        message: &[u8],
        handler: &mut H,
    ) {
        let now = self.now;
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        conn.set_handshake(Handshake::Extended);
        let address = conn.peer().ip();
        let hello = match Hello::parse(message) {
            Ok(hello) => hello,
            Err(error) => return self.deny_bad_hello(id, &error),
        };
        let has_proof = hello.token.is_some();
        let wants_login = match self.logins.mode {
            LoginMode::Off if has_proof => return self.deny(id, DenyReason::LoginOff),
            LoginMode::Off => false,
            LoginMode::Optional => has_proof || hello.name.is_some(),
            LoginMode::Required | LoginMode::Trust => true,
        };
        if !wants_login {
            return self.welcome(id, hello.beat);
        }
        let name = match hello.name.as_deref().map(Name::new).transpose() {
            Ok(name) => name,
            Err(_) => return self.deny(id, DenyReason::BadName),
        };
        if self.logins.pending >= self.logins.max_pending {
            return self.deny(id, DenyReason::TooManyLogins);
        }
        let key = self.admission.key(address);
        if self.logins.failures.is_limited(now, key) {
            return self.deny(id, DenyReason::TooManyFailures);
        }
        let login = PendingLogin {
            since: now,
            wanted_beat: hello.beat,
            state: LoginState::Undecided,
        };
        self.logins.by_id.insert(id, login);
        self.logins.pending += 1;
        if let Some(conn) = self.conn_mut(id) {
            conn.reading.stop(Reading::LOGIN);
        }
        let decision = if self.logins.mode == LoginMode::Trust {
            name.map_or(LoginDecision::Deny(DenyReason::NameMissing), |name| {
                LoginDecision::Accept(Identity::named(name))
            })
        } else {
            let request = LoginRequest {
                name: name.as_ref(),
                token: hello.token.as_deref(),
            };
            handler.on_login(&mut Context { engine: self }, id, &request)
        };
        self.decide_login(id, decision);
        self.schedule_check(id);
    }

    /// Logins that wait for a decision, or for their name.
    pub fn pending_logins(&self) -> usize {
        self.logins.pending
    }

    /// Decides about a login. See [`Context::login`].
    pub fn decide_login(&mut self, id: ConnId, decision: LoginDecision) -> bool {
        let is_open = self.conn(id).is_some_and(|conn| conn.phase == Phase::Open);
        let Some(login) = self
            .logins
            .by_id
            .get_mut(&id)
            .filter(|login| is_open && matches!(login.state, LoginState::Undecided))
        else {
            return false;
        };
        match decision {
            LoginDecision::Accept(identity) => {
                login.state = LoginState::Accepted(identity);
                self.logins.accepted.push_back(id);
            }
            LoginDecision::Deny(reason) => self.deny(id, reason),
            LoginDecision::Pending => {}
        }
        true
    }

    /// Welcomes connections whose login was accepted, `budget` of them at most. One whose name
    /// another connection has waits until that one was reaped. Returns whether no other is left.
    pub fn handle_logins<H: Handler + ?Sized>(
        &mut self,
        now: Timestamp,
        budget: usize,
        handler: &mut H,
    ) -> bool {
        self.advance(now);
        self.close_replaced();
        for _ in 0..budget.min(self.logins.accepted.len()) {
            if let Some(id) = self.logins.accepted.pop_front() {
                self.complete_login(id, handler);
            }
        }
        self.logins.accepted.is_empty()
    }

    fn complete_login<H: Handler + ?Sized>(&mut self, id: ConnId, handler: &mut H) {
        let is_open = self.conn(id).is_some_and(|conn| conn.phase == Phase::Open);
        let Some(PendingLogin {
            state: LoginState::Accepted(identity),
            wanted_beat,
            ..
        }) = self.logins.by_id.get(&id).filter(|_| is_open)
        else {
            return;
        };
        let (identity, wanted_beat) = (identity.clone(), *wanted_beat);
        if let Some(name) = &identity.name {
            match self.claim(name) {
                Claim::Free => {}
                Claim::Waits => return self.logins.accepted.push_back(id),
                Claim::Refused => return self.deny(id, DenyReason::NameInUse),
            }
        }
        self.logins.remove(id);
        self.stats.logins += 1;
        if let Some(name) = identity.name {
            self.directory.set_name(id, name);
        }
        for group in &identity.groups {
            // An identity has no more groups than a connection may.
            let _ = self.directory.join(id, group);
        }
        self.welcome(id, wanted_beat);
        // At the limit on memory the welcome itself may have closed it.
        let Some(conn) = get_live_mut(&mut self.conns, id).filter(|conn| conn.phase == Phase::Open)
        else {
            return;
        };
        if !conn.is_announced() {
            conn.set_announced(true);
            self.skip_fanouts(id);
            self.announce(id, handler);
        }
        self.resume_reading(id, Reading::LOGIN);
        self.schedule_check(id);
    }

    /// Whether a connection may take a name now.
    fn claim(&mut self, name: &Name) -> Claim {
        let Some(holder) = self.directory.holders(name).first().copied() else {
            return Claim::Free;
        };
        let is_closed = self
            .conn(holder)
            .is_none_or(|conn| matches!(conn.phase, Phase::Closed(_)));
        match self.logins.on_duplicate {
            OnDuplicate::Allow => return Claim::Free,
            OnDuplicate::Refuse if !is_closed => return Claim::Refused,
            // It waits to be reaped.
            OnDuplicate::Refuse => {}
            OnDuplicate::Replace => {
                // After a change of the setting there may be several.
                for holder in self.directory.holders(name).to_vec() {
                    self.replace(holder);
                }
            }
        }
        Claim::Waits
    }

    /// Closes a connection whose name another one takes. The peer is told, but not waited for.
    fn replace(&mut self, id: ConnId) {
        if self.conn(id).is_some_and(|conn| conn.is_live()) {
            self.say_bye(id, CloseReason::Replaced);
            self.close_after_flush(id, CloseReason::Replaced);
            self.logins.replaced.push(id);
        } else if !self.logins.replaced.contains(&id) {
            self.close(id, CloseReason::Replaced);
        }
    }

    /// Closes replaced connections whose last bytes the kernel did not take.
    fn close_replaced(&mut self) {
        let mut replaced = std::mem::take(&mut self.logins.replaced);
        replaced.retain(|id| {
            let Some(conn) = self.conn(*id) else {
                return false;
            };
            let is_offered = !conn.waits_for_flush();
            if is_offered {
                self.close(*id, CloseReason::Replaced);
            }
            !is_offered
        });
        self.logins.replaced = replaced;
    }

    /// Closes a connection whose name is no longer proven. See [`Context::expire_login`].
    pub fn expire_login(&mut self, id: ConnId) -> bool {
        let is_named = self.directory.name(id).is_some();
        let expires = is_named && self.conn(id).is_some_and(Conn::is_live);
        if expires {
            self.say_bye(id, CloseReason::LoginExpired);
            self.close_after_flush(id, CloseReason::LoginExpired);
        }
        expires
    }

    /// Denies a login, or the lack of one, and closes the connection.
    pub(super) fn deny(&mut self, id: ConnId, reason: DenyReason) {
        self.deny_with(id, reason, None);
    }

    fn deny_bad_hello(&mut self, id: ConnId, error: &HandshakeError) {
        self.deny_with(id, DenyReason::BadHello, Some(&error.to_string()));
    }

    fn deny_with(&mut self, id: ConnId, reason: DenyReason, detail: Option<&str>) {
        let now = self.now;
        let Some(conn) = self.conn(id).filter(|conn| conn.is_live()) else {
            return;
        };
        let key = self.admission.key(conn.peer().ip());
        self.stats.count_denial(reason);
        if counts_as_failure(reason) {
            self.logins.failures.count(now, key);
        }
        self.logins.remove(id);
        let login = PendingLogin {
            since: now,
            wanted_beat: None,
            state: LoginState::Denied(reason),
        };
        self.logins.by_id.insert(id, login);
        self.send_control(id, &encode_end("denied", reason.as_str(), detail));
        let close_reason = match reason {
            DenyReason::BadHello => CloseReason::Malformed,
            DenyReason::TimedOut => CloseReason::LoginTimeout,
            _ => CloseReason::LoginFailed,
        };
        self.close_after_flush(id, close_reason);
    }

    /// When the login of a connection has failed for lack of a decision; `None` if it needs none.
    pub(super) fn login_deadline(&self, id: ConnId) -> Option<Timestamp> {
        let conn = self.conn(id)?;
        // Nearly every connection ends here.
        if conn.is_announced() && !conn.is_extended() {
            return None;
        }
        let opened = (!conn.is_announced()).then_some(conn.opened);
        self.logins.deadline(id, opened)
    }

    /// Closes a connection whose login has taken too long. Returns whether it has.
    pub(super) fn end_login_if_late(&mut self, id: ConnId) -> bool {
        let is_late = self.login_deadline(id).is_some_and(|at| at <= self.now);
        if is_late {
            self.deny(id, DenyReason::TimedOut);
        }
        is_late
    }
}

/// Whether a connection may take a name.
enum Claim {
    Free,
    /// The connection that has it is being closed.
    Waits,
    Refused,
}

/// Whether a denial counts against the address. What the server itself has caused does not.
fn counts_as_failure(reason: DenyReason) -> bool {
    !matches!(
        reason,
        DenyReason::TooManyFailures | DenyReason::TooManyLogins | DenyReason::LoginOff
    )
}
