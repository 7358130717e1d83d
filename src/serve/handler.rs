//! What the server does: the application, and the logins.

use crate::apps::App;
use crate::close::DenyReason;
use crate::engine::{Context, Handler, LoginDecision, LoginRequest};
use crate::id::ConnId;
use crate::tokens::Tokens;

/// Slots visited at a time when connections are checked after a reload.
const SLOTS_AT_ONCE: usize = 4096;

/// An application, with the tokens that prove names to it.
pub(super) struct ServeHandler {
    pub(super) app: App,
    pub(super) tokens: Option<Tokens>,
}

impl ServeHandler {
    /// Other tokens are in force. Connections whose name has none any more are closed. Returns how
    /// many.
    pub(super) fn replace_tokens(&mut self, cx: &mut Context<'_>, tokens: Option<Tokens>) -> usize {
        self.tokens = tokens;
        let Some(tokens) = &self.tokens else { return 0 };
        let mut gone = Vec::new();
        for from in (0..).step_by(SLOTS_AT_ONCE) {
            let Some(connections) = cx.snapshot_slots(from, SLOTS_AT_ONCE) else {
                break;
            };
            let is_gone = |name: &crate::Name| !tokens.knows(name);
            gone.extend(
                connections
                    .filter(|connection| connection.name.as_ref().is_some_and(is_gone))
                    .map(|connection| connection.id),
            );
        }
        gone.iter().filter(|id| cx.expire_login(**id)).count()
    }
}

impl Handler for ServeHandler {
    fn on_login(
        &mut self,
        _: &mut Context<'_>,
        _: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        self.tokens
            .as_ref()
            .map_or(LoginDecision::Deny(DenyReason::Refused), |tokens| {
                tokens.decide(request)
            })
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.app.on_message(cx, id, message);
    }
}
