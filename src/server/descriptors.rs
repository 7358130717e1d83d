//! The number of connections that the descriptor limit allows.

use std::fmt;

use crate::config::Config;

/// Not used for connections: the poll, the listeners, log files, and files that a handler opens.
const RESERVED: usize = 32;
/// Lingering sockets use at most this share of all descriptors.
const LINGER_SHARE: usize = 32;
const MAX_LINGERING: usize = 512;

/// The shares of the descriptor limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    pub(super) max_lingering: usize,
    pub(super) max_connections: usize,
}

/// A configuration asks for more connections than the descriptor limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    wanted: usize,
    lowered_to: usize,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "max-connections wanted={} lowered_to={} \
             reason=\"the descriptor limit allows no more (ulimit -Hn)\"",
            self.wanted, self.lowered_to
        )
    }
}

impl Descriptors {
    /// Divides `limit` descriptors.
    pub(crate) fn share(limit: usize) -> Self {
        let max_lingering = (limit / LINGER_SHARE).min(MAX_LINGERING);
        Descriptors {
            max_lingering,
            max_connections: limit.saturating_sub(RESERVED + max_lingering).max(1),
        }
    }

    /// Reserves `number` more descriptors.
    pub(crate) fn reserve(&mut self, number: usize) {
        self.max_connections = self.max_connections.saturating_sub(number).max(1);
    }

    /// Returns the shortage if `config` asks for too many connections.
    pub(crate) fn shortage(&self, config: &Config) -> Option<Shortage> {
        let wanted = config.limits.max_connections?;
        (wanted > self.max_connections).then_some(Shortage {
            wanted,
            lowered_to: self.max_connections,
        })
    }

    /// Returns `config` with `max_connections` limited to what the descriptors allow.
    pub(super) fn within(&self, config: &Config) -> Config {
        let mut within = config.clone();
        let wanted = config.limits.max_connections.unwrap_or(usize::MAX);
        within.limits.max_connections = Some(wanted.min(self.max_connections));
        within
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn reserved_descriptors_lower_the_connection_limit() {
        let mut descriptors = Descriptors::share(1024);
        assert_eq!(descriptors.max_connections, 1024 - RESERVED - 32);
        let mut config = Config::default();
        assert_eq!(descriptors.shortage(&config), None, "as many as there are");
        config.limits.max_connections = Some(descriptors.max_connections);
        assert_eq!(descriptors.shortage(&config), None);
        descriptors.reserve(128);
        let shortage = descriptors.shortage(&config).expect("128 are missing");
        assert_eq!(shortage.wanted - shortage.lowered_to, 128);
        let within = descriptors.within(&config).limits.max_connections;
        assert_eq!(within, Some(shortage.lowered_to));
        assert_eq!(Descriptors::share(8).max_connections, 1);
    }
}
