//! What a line may not take for ever, though every byte of it is life: its first message, the end of a frame, the reading of what is queued for
//! it. Pure arithmetic; each bound counts from the evidence, and ends the line only after a last look at the socket.

use super::conn::Conn;
use crate::close::CloseReason;
use crate::config::Limits;
use crate::time::{Millis, duration_to_ms};

/// The bounds of one server, in milliseconds; `None` where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    first_message_ms: Option<u64>,
    frame_ms: Option<u64>,
    write_ms: Option<u64>,
}

impl Deadlines {
    pub(super) fn new(limits: &Limits) -> Self {
        Deadlines {
            first_message_ms: limits.first_message_timeout.map(duration_to_ms),
            frame_ms: limits.frame_timeout.map(duration_to_ms),
            write_ms: limits.write_timeout.map(duration_to_ms),
        }
    }

    /// The earliest instant at which a bound is passed, and the reason for which that ends the line; `None` while none is under way.
    ///
    /// What the peer owes us does not count while we ourselves do not read from it.
    pub(super) fn next(&self, conn: &Conn) -> Option<(Millis, CloseReason)> {
        // A millisecond more, because instants are rounded down.
        let due = |from: Millis, ms: u64, reason| (from.plus_ms(ms + 1), reason);
        let first_message = self
            .first_message_ms
            .filter(|_| !conn.has_spoken() && conn.reading.is_flowing());
        let frame = self.frame_ms.zip(
            conn.inbox
                .frame_since()
                .filter(|_| conn.reading.is_flowing()),
        );
        let write = self
            .write_ms
            .zip(conn.outbox.moved_at().filter(|_| conn.is_blocked()));
        [
            first_message.map(|ms| due(conn.opened, ms, CloseReason::NeverSpoke)),
            frame.map(|(ms, since)| due(since, ms, CloseReason::FrameUnfinished)),
            write.map(|(ms, since)| due(since, ms, CloseReason::SlowReader)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// The reason for which the line is to end now, if a bound was passed.
    pub(super) fn overdue(&self, now: Millis, conn: &Conn) -> Option<CloseReason> {
        self.next(conn)
            .filter(|(at, _)| *at <= now)
            .map(|(_, reason)| reason)
    }
}
