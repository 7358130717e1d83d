//! Timeouts that inbound bytes do not extend: for the first message, for the end of a frame, for
//! reading what is queued. Pure arithmetic. Each is measured from evidence, and closes the
//! connection only after a final read.

use super::conn::Conn;
use crate::close::CloseReason;
use crate::config::Limits;
use crate::progress::Progress;
use crate::time::{Timestamp, duration_to_ms};

/// The limits of one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    first_message: Option<Timeout>,
    frame: Option<Timeout>,
    write: Option<Timeout>,
    /// For connections that are being closed, or whose peer has shut its side.
    flush: Timeout,
}

/// A timeout, and since when it has been this short: time before that does not count against it.
#[derive(Clone, Copy, Debug)]
struct Timeout {
    ms: u64,
    since: Timestamp,
}

impl Timeout {
    /// One millisecond more, because instants are rounded down.
    fn after(self, from: Timestamp) -> Timestamp {
        from.max(self.since).plus_ms(self.ms + 1)
    }

    /// The limit that `wanted` puts in the place of `old`. A longer one is in force at once.
    fn replacing(old: Option<Timeout>, wanted: Option<u64>, now: Timestamp) -> Option<Timeout> {
        let ms = wanted?;
        let since = match old {
            Some(old) if old.ms <= ms => old.since,
            Some(_) | None => now,
        };
        Some(Timeout { ms, since })
    }
}

impl Deadlines {
    /// Limits that are in force from time zero.
    pub(super) fn new(limits: &Limits, flush_ms: u64) -> Self {
        let none = Deadlines {
            first_message: None,
            frame: None,
            write: None,
            flush: Timeout {
                ms: flush_ms,
                since: Timestamp::ZERO,
            },
        };
        none.replaced(limits, flush_ms, Timestamp::ZERO)
    }

    /// Limits that take the place of these at `now`. A limit that was turned on or shortened gives
    /// every connection its whole length from `now`.
    pub(super) fn replaced(&self, limits: &Limits, flush_ms: u64, now: Timestamp) -> Self {
        let ms = |timeout: Option<_>| timeout.map(duration_to_ms);
        let replace = |old, wanted| Timeout::replacing(old, wanted, now);
        Deadlines {
            first_message: replace(self.first_message, ms(limits.first_message_timeout)),
            frame: replace(self.frame, ms(limits.frame_timeout)),
            write: replace(self.write, ms(limits.write_timeout)),
            flush: replace(Some(self.flush), Some(flush_ms)).unwrap_or(self.flush),
        }
    }

    /// Whether there is a limit on the time without progress in writing to open connections.
    pub(super) fn bounds_writing(&self) -> bool {
        self.write.is_some()
    }

    /// The earliest instant at which an open connection passes a limit, with the close reason;
    /// `None` while no limit applies.
    ///
    /// Limits on what the peer sends do not count while the server does not read from it.
    pub(super) fn next(&self, conn: &Conn) -> Option<(Timestamp, CloseReason)> {
        let is_read = conn.reading.is_flowing();
        let first_message = self
            .first_message
            .filter(|_| !conn.was_active() && is_read)
            .map(|timeout| (timeout.after(conn.opened), CloseReason::FirstMessageTimeout));
        let frame = self
            .frame
            .zip(conn.inbox().frame_since().filter(|_| is_read))
            .map(|(timeout, since)| (timeout.after(since), CloseReason::FrameTimeout));
        let write = self
            .write
            .zip(conn.outbox().progress().filter(|_| conn.is_blocked()))
            .map(|(timeout, progress)| (timeout.after(progress.at()), CloseReason::SlowReader));
        [first_message, frame, write]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// The reason for which an open connection is to be closed now, if it has passed a limit.
    pub(super) fn overdue(&self, now: Timestamp, conn: &Conn) -> Option<CloseReason> {
        self.next(conn)
            .filter(|(at, _)| *at <= now)
            .map(|(_, reason)| reason)
    }

    /// When the progress of an open connection is to be measured next.
    pub(super) fn next_sample(&self, conn: &Conn) -> Option<Timestamp> {
        let progress = conn.outbox().progress().filter(|_| conn.is_blocked())?;
        Some(progress.next_sample(self.write?.ms))
    }

    /// When a connection that is only being flushed passes its limit.
    pub(super) fn flush_ends(&self, conn: &Conn) -> Timestamp {
        self.flush.after(flush_progress(conn).at())
    }

    /// When its progress is to be measured next.
    pub(super) fn next_flush_sample(&self, conn: &Conn) -> Timestamp {
        flush_progress(conn).next_sample(self.flush.ms)
    }
}

/// Without anything queued, a connection that is being flushed ends at once.
fn flush_progress(conn: &Conn) -> Progress {
    let progress = conn.outbox().progress();
    progress.unwrap_or(Progress::since(Timestamp::ZERO))
}
