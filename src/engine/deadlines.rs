//! What a connection may not take forever, though every byte of it is life: its first message, the
//! end of a frame, the reading of what is queued for it. Pure arithmetic. Each limit counts from the
//! evidence, and closes the connection only after a final read.
//!
//! # Progress in writing
//!
//! A peer makes progress while its kernel acknowledges bytes, on average [`MIN_PROGRESS`] bytes per
//! second. That is measured four times per timeout, so a peer that stops reading is closed within
//! `timeout * 5/4 + tick` of its last progress, and a peer that reads steadily is never closed if it
//! reads its receive window, which its kernel acknowledges in one piece, within the timeout.

use super::conn::Conn;
use crate::close::CloseReason;
use crate::config::Limits;
use crate::outbox::Progress;
use crate::time::{Millis, duration_to_ms};

/// Bytes per second that a peer must acknowledge on average while bytes wait for it.
const MIN_PROGRESS: u64 = 64;
/// Measurements per timeout.
const SAMPLES: u64 = 4;

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
    since: Millis,
}

impl Timeout {
    /// One millisecond more, because instants are rounded down.
    fn after(self, from: Millis) -> Millis {
        from.max(self.since).plus_ms(self.ms + 1)
    }

    /// The limit that `wanted` puts in the place of `old`. A longer one is in force at once.
    fn replacing(old: Option<Timeout>, wanted: Option<u64>, now: Millis) -> Option<Timeout> {
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
                since: Millis::ZERO,
            },
        };
        none.replaced(limits, flush_ms, Millis::ZERO)
    }

    /// Limits that take the place of these at `now`. A limit that was turned on or shortened gives
    /// every connection its whole length from `now`.
    pub(super) fn replaced(&self, limits: &Limits, flush_ms: u64, now: Millis) -> Self {
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

    /// The earliest instant at which an open connection passes a limit, with the reason for which
    /// that closes it; `None` while no limit applies.
    ///
    /// What the peer owes does not count while we do not read from it.
    pub(super) fn next(&self, conn: &Conn) -> Option<(Millis, CloseReason)> {
        let is_read = conn.reading.is_flowing();
        let first_message = self
            .first_message
            .filter(|_| !conn.has_spoken() && is_read)
            .map(|timeout| (timeout.after(conn.opened), CloseReason::NeverSpoke));
        let frame = self
            .frame
            .zip(conn.inbox.frame_since().filter(|_| is_read))
            .map(|(timeout, since)| (timeout.after(since), CloseReason::FrameUnfinished));
        let write = self
            .write
            .zip(conn.outbox.progress().filter(|_| conn.is_blocked()))
            .map(|(timeout, progress)| (timeout.after(progress.at), CloseReason::SlowReader));
        [first_message, frame, write]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// The reason for which an open connection is to be closed now, if it has passed a limit.
    pub(super) fn overdue(&self, now: Millis, conn: &Conn) -> Option<CloseReason> {
        self.next(conn)
            .filter(|(at, _)| *at <= now)
            .map(|(_, reason)| reason)
    }

    /// When the progress of an open connection is to be measured next.
    pub(super) fn next_sample(&self, conn: &Conn) -> Option<Millis> {
        let progress = conn.outbox.progress().filter(|_| conn.is_blocked())?;
        Some(sample_after(self.write?, progress))
    }

    /// When a connection that is only being flushed passes its limit.
    pub(super) fn flush_ends(&self, conn: &Conn) -> Millis {
        let progress = conn.outbox.progress().unwrap_or_default();
        self.flush.after(progress.at)
    }

    /// When its progress is to be measured next.
    pub(super) fn next_flush_sample(&self, conn: &Conn) -> Millis {
        sample_after(self.flush, conn.outbox.progress().unwrap_or_default())
    }
}

fn sample_after(timeout: Timeout, progress: Progress) -> Millis {
    let from = progress.sample.map_or(progress.at, |(at, _)| at);
    from.plus_ms(timeout.ms / SAMPLES + 1)
}

/// The progress after a measurement by which the peer has acknowledged this many bytes in all. The
/// first measurement is what later ones are compared with. A peer that has acknowledged everything
/// that was written makes progress whatever the rate: it was offered no more.
pub(super) fn measure(
    progress: Progress,
    now: Millis,
    acknowledged: u64,
    is_everything: bool,
) -> Progress {
    let at = match progress.sample {
        Some((sampled, before)) => {
            let wanted = (now.ms_since(sampled) * MIN_PROGRESS / 1000).max(1);
            let made = acknowledged.saturating_sub(before);
            if is_everything || made >= wanted {
                now
            } else {
                progress.at
            }
        }
        None => progress.at,
    };
    Progress {
        at,
        sample: Some((now, acknowledged)),
    }
}
