//! The log of the server, bounded under floods: the first lines of a kind within a second are
//! written, the rest are counted.

use std::net::IpAddr;

use log::Level;

use crate::time::Timestamp;
use crate::totals::Totals;

/// Kinds of log lines that peers can cause, each with a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    Refuse,
    Probe,
    AcceptError,
    Dropped,
}

/// Each kind with its name in summaries and the level of its lines.
const KINDS: [(Kind, &str, Level); 6] = [
    (Kind::Open, "open", Level::Debug),
    (Kind::Close, "close", Level::Info),
    (Kind::Refuse, "refuse", Level::Warn),
    // Load balancers probe every few seconds.
    (Kind::Probe, "probe", Level::Debug),
    (Kind::AcceptError, "accept-error", Level::Warn),
    (Kind::Dropped, "dropped-broadcast", Level::Warn),
];

/// Lines of one kind in one second. Enough to log each device of a small fleet; few enough for a
/// disk.
const LINES_PER_WINDOW: u64 = 1000;
const WINDOW_MS: u64 = 1000;

/// Decides which lines are written.
pub(super) struct LogLimiter {
    window_ends: Timestamp,
    written: [u64; KINDS.len()],
    suppressed: [u64; KINDS.len()],
    /// Suppressed lines about peers, by reason and network.
    totals: [Totals; KINDS.len()],
}

impl LogLimiter {
    pub(super) fn new() -> Self {
        LogLimiter {
            window_ends: Timestamp::ZERO,
            written: [0; KINDS.len()],
            suppressed: [0; KINDS.len()],
            totals: Default::default(),
        }
    }

    /// Whether a line of this kind is written; if there were too many, it is counted. Lines below
    /// the log's level are neither.
    pub(super) fn allow(&mut self, now: Timestamp, kind: Kind) -> bool {
        log::log_enabled!(KINDS[kind as usize].2) && self.is_below_limit(now, kind)
    }

    /// The same for an event of the peer at `ip`. A suppressed line is counted by `reason` and
    /// network.
    pub(super) fn allow_about(
        &mut self,
        now: Timestamp,
        kind: Kind,
        reason: &'static str,
        ip: IpAddr,
    ) -> bool {
        let before = self.suppressed[kind as usize];
        let admitted = self.allow(now, kind);
        if self.suppressed[kind as usize] > before {
            self.totals[kind as usize].count(reason, ip);
        }
        admitted
    }

    fn is_below_limit(&mut self, now: Timestamp, kind: Kind) -> bool {
        self.handle_timers(now);
        let kind = kind as usize;
        if self.written[kind] < LINES_PER_WINDOW {
            self.written[kind] += 1;
            return true;
        }
        self.suppressed[kind] += 1;
        false
    }

    /// Ends the window if its time is over, with a summary of suppressed lines.
    pub(super) fn handle_timers(&mut self, now: Timestamp) {
        if now < self.window_ends {
            return;
        }
        for (kind, name, _) in KINDS {
            let suppressed = std::mem::take(&mut self.suppressed[kind as usize]);
            let totals = std::mem::take(&mut self.totals[kind as usize]);
            if suppressed == 0 {
                continue;
            }
            let summed = if totals.sum() > 0 {
                format!(" {totals}")
            } else {
                String::new()
            };
            log::warn!("suppressed kind={name} lines={suppressed} window_ms={WINDOW_MS}{summed}");
        }
        self.written = [0; KINDS.len()];
        self.window_ends = now.plus_ms(WINDOW_MS);
    }

    /// When a summary is due; `None` if no line was suppressed.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.suppressed
            .iter()
            .any(|count| *count > 0)
            .then_some(self.window_ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_index() {
        for (index, (kind, ..)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }

    #[test]
    fn suppressed_log_lines_are_counted_per_second() {
        let mut log_limiter = LogLimiter::new();
        let now = Timestamp::from_ms(5000);
        let written = (0..15_000)
            .filter(|_| log_limiter.is_below_limit(now, Kind::Close))
            .count();
        assert_eq!(written as u64, LINES_PER_WINDOW);
        assert!(
            log_limiter.is_below_limit(now, Kind::Refuse),
            "each kind has its own budget"
        );
        assert_eq!(log_limiter.poll_timeout(), Some(Timestamp::from_ms(6000)));
        assert!(log_limiter.is_below_limit(Timestamp::from_ms(6000), Kind::Close));
        assert_eq!(log_limiter.poll_timeout(), None);
    }
}
