//! How long to wait before trying again. Without jitter: one process has no herd of its own.

use std::time::Duration;

/// Exponential back-off: `base`, doubled by each further failure, never over `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row; zero after none.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(self.max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let backoff = Backoff { base: Duration::from_secs(10), max: Duration::from_secs(300) };
        let seconds: Vec<u64> = (0..8).map(|it| backoff.delay(it).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.delay(u32::MAX), backoff.max);
    }
}
