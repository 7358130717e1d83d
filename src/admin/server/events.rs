//! The stream of server-sent events (html.spec.whatwg.org, "Server-sent events"): the state of the
//! server every second, and recent closes.

use std::time::Duration;

use serde::Serialize;

use super::closed::ClosedRing;
use super::http::Response;
use crate::admin::api::ClosedEvent;

/// From one event to the next.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// Closes in one event: more than a person can read in a second. The rest are counted.
const MAX_CLOSES: u64 = 50;

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
    let shown = unreported.min(MAX_CLOSES);
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

fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    let mut event = format!("event: {name}\ndata: ").into_bytes();
    // JSON as it is written here has no line feed, and neither of the ways in which writing it can
    // fail.
    let _ = serde_json::to_writer(&mut event, data);
    event.extend_from_slice(b"\n\n");
    event
}
