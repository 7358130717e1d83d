//! The stream of server-sent events (html.spec.whatwg.org, "Server-sent events"): the state of the
//! server every second, and recent closes.

use std::time::Duration;

use serde::Serialize;

use super::closed::ClosedRing;
use super::http::Response;
use super::opened::{MAX_REPORTED, OpenedRing};
use crate::admin::api::{ClosedEvent, OpenedEvent};
use crate::engine::Context;

/// From one event to the next.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// What a stream has reported, as numbers of all there ever were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) closed: u64,
    pub(super) opened: u64,
}

pub(super) fn response() -> Response {
    // Proxies that follow nginx would keep the events back until their buffer is full.
    Response::new(200, "text/event-stream", Vec::new()).with("X-Accel-Buffering", "no")
}

/// The event of the server's state.
pub(super) fn status(status: &impl Serialize) -> Vec<u8> {
    event("status", status)
}

/// The event with the closes after the first `reported`; `None` if there are none.
pub(super) fn closed(ring: &ClosedRing, reported: u64) -> Option<Vec<u8>> {
    let unreported = ring.total() - reported;
    let shown = unreported.min(MAX_REPORTED as u64);
    (unreported > 0).then(|| {
        event(
            "closed",
            &ClosedEvent {
                closed: ring.newest(shown as usize),
                more: unreported - shown,
            },
        )
    })
}

/// The event with the connections opened after the first `reported`; `None` if there are none.
pub(super) fn opened(ring: &OpenedRing, reported: u64, cx: &Context<'_>) -> Option<Vec<u8>> {
    let unreported = ring.total() - reported;
    let limit = unreported.min(MAX_REPORTED as u64) as usize;
    (unreported > 0).then(|| {
        let opened = ring.newest(limit, cx);
        let more = unreported - opened.len() as u64;
        event("opened", &OpenedEvent { opened, more })
    })
}

fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    let mut event = format!("event: {name}\ndata: ").into_bytes();
    // JSON as it is written here has no line feed, and neither of the ways in which writing it can
    // fail.
    let _ = serde_json::to_writer(&mut event, data);
    event.extend_from_slice(b"\n\n");
    event
}
