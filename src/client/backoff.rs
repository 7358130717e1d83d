//! How long to wait before dialling again.

use std::time::Duration;

use crate::error::ConfigError;
use crate::time::duration_to_ms;

/// The wait before a dial that follows a failed one or a lost line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// The same wait each time. Fit for a single client; many clients with it reconnect at the same
    /// time.
    Fixed {
        /// The wait, at least 1 ms.
        delay: Duration,
    },
    /// Exponential with full jitter: a wait drawn evenly from 0 to `base * 2^n`, at most `max`,
    /// where `n` counts the failures before the last one. The clients of a server that failed
    /// reconnect spread over time.
    ///
    /// The count starts over with a connection that lasted as long as the wait after it might have
    /// been. A shorter one counts as one more failure, even if bytes arrived on it: a server that
    /// accepts, greets and dies is dialled as seldom as one that refuses connections.
    ///
    /// ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
    Exponential {
        /// The longest wait after the first failure, at least 1 ms.
        base: Duration,
        /// The longest wait ever, at least `base`.
        max: Duration,
    },
}

impl Backoff {
    /// The same wait of `delay` each time.
    pub const fn fixed(delay: Duration) -> Self {
        Backoff::Fixed { delay }
    }

    /// Waits drawn from 0 to `base`, then to twice, four times `base` and so on, never more than
    /// `max`.
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Backoff::Exponential { base, max }
    }

    /// Checks that there is a wait at all: without one, a server that refuses would be dialled in a
    /// busy loop.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (first, max) = match self {
            Backoff::Fixed { delay } => (delay, delay),
            Backoff::Exponential { base, max } => (base, max),
        };
        if *first < Duration::from_millis(1) {
            return Err(ConfigError::new("retry_delay", "must be at least 1 ms"));
        }
        if max < first {
            return Err(ConfigError::new(
                "max_retry_delay",
                format!("must be at least the retry delay, {first:?}"),
            ));
        }
        Ok(())
    }

    /// The wait in milliseconds after `failures` failed dials in a row; 0 after the loss of a
    /// connection that had lasted.
    pub(crate) fn delay_ms(&self, failures: u32, rng: &mut fastrand::Rng) -> u64 {
        let longest = self.longest_ms(failures);
        match self {
            Backoff::Fixed { .. } => longest,
            Backoff::Exponential { .. } => rng.u64(0..=longest),
        }
    }

    /// The most that [`Backoff::delay_ms`] may draw.
    pub(crate) fn longest_ms(&self, failures: u32) -> u64 {
        match self {
            Backoff::Fixed { delay } => duration_to_ms(*delay),
            Backoff::Exponential { base, max } => {
                let doublings = failures.saturating_sub(1).min(u64::BITS - 1);
                duration_to_ms(*base)
                    .saturating_mul(1 << doublings)
                    .min(duration_to_ms(*max))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fixed_backoff_is_constant() {
        let mut rng = fastrand::Rng::with_seed(1);
        let backoff = Backoff::fixed(ms(3000));
        assert!((0..100).all(|failures| backoff.delay_ms(failures, &mut rng) == 3000));
    }

    #[test]
    fn exponential_backoff_doubles_up_to_its_maximum() {
        let mut rng = fastrand::Rng::with_seed(2);
        let backoff = Backoff::exponential(ms(100), ms(1000));
        for (failures, longest) in [
            (0, 100),
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1000),
            (6, 1000),
            (u32::MAX, 1000),
        ] {
            let drawn: Vec<u64> = (0..2000)
                .map(|_| backoff.delay_ms(failures, &mut rng))
                .collect();
            assert!(
                drawn.iter().all(|&delay| delay <= longest),
                "at most {longest} after {failures}"
            );
            assert!(
                drawn.iter().any(|&delay| delay > longest * 9 / 10),
                "up to {longest} after {failures}"
            );
        }
    }

    #[test]
    fn full_jitter_spreads_evenly_from_nothing_to_the_bound() {
        let mut rng = fastrand::Rng::with_seed(3);
        let backoff = Backoff::exponential(ms(1000), ms(1000));
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            tenths[(backoff.delay_ms(1, &mut rng) / 100).min(9) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|&count| (850..1150).contains(&count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn no_wait_at_all_is_refused() {
        assert_eq!(
            Backoff::fixed(Duration::ZERO)
                .check()
                .expect_err("refused")
                .field,
            "retry_delay"
        );
        assert_eq!(
            Backoff::exponential(ms(2), ms(1))
                .check()
                .expect_err("refused")
                .field,
            "max_retry_delay"
        );
        assert_eq!(Backoff::exponential(ms(1), ms(1)).check(), Ok(()));
    }
}
