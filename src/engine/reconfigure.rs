//! New settings for connections that are there already.

use std::num::NonZeroU32;
use std::time::Duration;

use super::conn::{Phase, Reading};
use super::liveness::Liveness;
use super::rate_limiter::RateLimiter;
use super::{Engine, flush_timeout_ms, max_connections};
use crate::close::CloseReason;
use crate::config::{Config, Heartbeat};
use crate::error::ConfigError;
use crate::id::ConnId;
use crate::time::Timestamp;

impl Engine {
    /// Applies `config` to all connections, open ones included, except framing, words and tick,
    /// which stay as they are: bytes in flight would change their meaning. Fails, and changes
    /// nothing, as [`Config::check`] does.
    ///
    /// No connection is closed by the call. Connections above a lowered limit stay; peers that may
    /// not connect any more are not admitted again. After a change of the heartbeat or of a
    /// timeout, a connection gets one full new timeout, with its pings, before it can be closed. A
    /// limit on memory below what is held applies after one timeout of the heartbeat; until then
    /// the old one is in force, and large queues are not added to.
    pub fn reconfigure(&mut self, now: Timestamp, config: &Config) -> Result<(), ConfigError> {
        Config {
            tick: Duration::from_millis(self.tick_ms),
            ..config.clone()
        }
        .check()?;
        self.codec = self.codec.with_max_message(config.limits.max_message)?;
        self.advance(now);
        self.liveness = config
            .heartbeat
            .as_ref()
            .map(|heartbeat| self.liveness_by(heartbeat));
        self.heartbeat = config.heartbeat.clone();
        self.logins.reconfigure(self.now, &config.login);
        let flush_ms = flush_timeout_ms(self.liveness);
        self.deadlines = self.deadlines.replaced(&config.limits, flush_ms, self.now);
        self.max_outbox = config.limits.max_outbox;
        self.on_slow = config.limits.on_slow;
        let lowered_at = self.now.plus_ms(flush_ms);
        self.memory
            .replace_max(config.limits.max_memory, lowered_at);
        self.on_full = config.limits.on_full;
        self.proxies = config.proxies.clone();
        self.goodbye = config.goodbye.as_deref().map(Into::into);
        let named = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.phase.is_counted_by_address())
            .map(|(_, conn)| conn.peer().ip());
        self.admission.reconfigure(
            max_connections(config),
            &config.limits,
            config.access.clone(),
            named,
        );
        self.set_rate_limit(config.limits.max_message_rate);
        self.reschedule();
        Ok(())
    }

    /// The instant of the last change, unless this one changes the heartbeat.
    fn liveness_by(&self, heartbeat: &Heartbeat) -> Liveness {
        let since = |in_force_since| Liveness::new(heartbeat, self.tick_ms, in_force_since);
        let same = self
            .liveness
            .filter(|old| *old == since(old.in_force_since()));
        same.unwrap_or_else(|| since(self.now))
    }

    /// Every bucket is full again, and paused connections are read.
    fn set_rate_limit(&mut self, rate: Option<NonZeroU32>) {
        self.rate_limiter = rate.map(RateLimiter::new);
        for slot in 0..self.conns.capacity() {
            let Some(conn) = self.conns.get(slot) else {
                continue;
            };
            let id = ConnId::new(slot, conn.generation);
            if let Some(rate_limiter) = &mut self.rate_limiter {
                rate_limiter.open(slot);
            }
            self.resume_reading(id, Reading::RATE_LIMITED);
        }
    }

    /// Every deadline may have moved.
    fn reschedule(&mut self) {
        for slot in 0..self.conns.capacity() {
            let Some(conn) = self.conns.get(slot) else {
                continue;
            };
            self.schedule_check(ConnId::new(slot, conn.generation));
        }
    }
}

impl Phase {
    /// Whether admission has this connection under its address: not before its balancer has named
    /// it, and not once it was evicted for another.
    fn is_counted_by_address(self) -> bool {
        match self {
            Phase::Open | Phase::HalfClosed => true,
            Phase::Flushing(reason) | Phase::Closed(reason) => reason != CloseReason::Evicted,
            Phase::AwaitingProxyHeader | Phase::Refused(_) => false,
        }
    }
}
