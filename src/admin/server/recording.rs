//! What the endpoint remembers of the server's connections, written down between server and
//! application.

use super::broadcasts::Broadcasts;
use super::closed::ClosedRing;
use super::opened::OpenedRing;
use crate::engine::{BroadcastId, Closed, Context, Handler, LoginDecision, LoginRequest};
use crate::id::ConnId;

/// A handler that records openings, closes and complete broadcasts, if it has a ring to record them in.
pub(crate) struct RecordingHandler<'a, H> {
    pub(crate) handler: &'a mut H,
    pub(crate) memory: Option<RecordedEvents<'a>>,
}

/// Where events are recorded.
pub(crate) struct RecordedEvents<'a> {
    pub(crate) closed: &'a mut ClosedRing,
    pub(crate) opened: &'a mut OpenedRing,
    pub(crate) broadcasts: &'a mut Broadcasts,
}

impl<H: Handler> Handler for RecordingHandler<'_, H> {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if let Some(events) = &mut self.memory {
            events.opened.push(id);
        }
        self.handler.on_open(cx, id);
    }

    fn on_login(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        self.handler.on_login(cx, id, request)
    }

    fn on_login_failed(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        if let Some(events) = &mut self.memory {
            events.closed.push(id, closed);
        }
        self.handler.on_login_failed(cx, id, closed);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.handler.on_message(cx, id, message);
    }

    fn on_queue_empty(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.handler.on_queue_empty(cx, id);
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) {
        self.handler.on_deadline(cx, id);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        self.handler.on_wake(cx);
    }

    fn on_broadcast(&mut self, cx: &mut Context<'_>, broadcast: BroadcastId, receivers: usize) {
        if let Some(events) = &mut self.memory {
            events.broadcasts.complete(broadcast, receivers);
        }
        self.handler.on_broadcast(cx, broadcast, receivers);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        if let Some(events) = &mut self.memory {
            events.closed.push(id, closed);
        }
        self.handler.on_close(cx, id, closed);
    }
}
