//! What the server does: the application, and the logins.

use std::time::{Duration, SystemTime};

use super::proofs::Proofs;
use crate::apps::App;
use crate::engine::{Closed, Context, Handler, LoginDecision, LoginRequest};
use crate::id::ConnId;
use crate::jwt::Expiries;

/// Slots visited at a time when connections are checked after a reload.
const SLOTS_AT_ONCE: usize = 4096;
/// Connections closed at a time because their proof has ended.
const ENDED_AT_ONCE: usize = 1000;
/// The wall clock can be set, and goes on while the machine sleeps: it is looked at this often
/// while a proof can end.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// An application, with what proves names to it.
pub(super) struct ServeHandler {
    pub(super) app: App,
    proofs: Proofs,
    /// The ends of proofs in force.
    expiries: Expiries,
}

impl ServeHandler {
    pub(super) fn new(app: App, proofs: Proofs) -> Self {
        ServeHandler {
            app,
            proofs,
            expiries: Expiries::default(),
        }
    }

    /// Other proofs are in force. Connections that have proven their name with a token of the file
    /// are closed if the name has none any more; a signed token counts until its end. Returns how
    /// many are closed.
    pub(super) fn replace_proofs(&mut self, cx: &mut Context<'_>, proofs: Proofs) -> usize {
        self.proofs = proofs;
        let Some(tokens) = &self.proofs.tokens else {
            return 0;
        };
        let mut gone = Vec::new();
        for from in (0..).step_by(SLOTS_AT_ONCE) {
            let Some(connections) = cx.snapshot_slots(from, SLOTS_AT_ONCE) else {
                break;
            };
            let is_gone = |name: &crate::Name| !tokens.knows(name);
            gone.extend(
                connections
                    .filter(|connection| connection.name.as_ref().is_some_and(is_gone))
                    .map(|connection| connection.id)
                    .filter(|id| !self.expiries.contains(*id)),
            );
        }
        gone.iter().filter(|id| cx.expire_login(**id)).count()
    }

    /// Asks for the next look at the wall clock.
    fn schedule_check(&self, cx: &mut Context<'_>, now: Duration) {
        let wait = self
            .expiries
            .first()
            .map(|first| first.saturating_sub(now).min(CLOCK_CHECK));
        let at = wait.map(|wait| {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            // One millisecond more, because it is rounded down: an early look would find nothing.
            cx.now().plus_ms(ms.saturating_add(1))
        });
        cx.wake_at(at);
    }
}

/// Since the beginning of 1970 (UTC).
fn wall_clock() -> Duration {
    // A clock before 1970 is not set, and no token looks expired to it.
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

impl Handler for ServeHandler {
    fn on_login(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        let now = wall_clock();
        let (decision, valid_until) = self.proofs.decide(request, now);
        if let Some(valid_until) = valid_until {
            self.expiries.insert(id, valid_until);
            self.schedule_check(cx, now);
        }
        decision
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let now = wall_clock();
        for _ in 0..ENDED_AT_ONCE {
            let Some(id) = self.expiries.pop_ended(now) else {
                break;
            };
            // Its login may not be complete: it waits for the name. One that is closed or closing
            // leaves the table when it is gone.
            if !cx.expire_login(id) {
                self.expiries.insert(id, now + CLOCK_CHECK);
            }
        }
        self.schedule_check(cx, now);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.app.on_message(cx, id, message);
    }

    fn on_login_failed(&mut self, _: &mut Context<'_>, id: ConnId, _: &Closed) {
        self.expiries.remove(id);
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, _: &Closed) {
        self.expiries.remove(id);
    }
}
