//! A limit of bytes per second: a token bucket that holds a few milliseconds' worth.

use std::time::Duration;

use tokio::time::Instant;

/// How much of the past may be caught up with: what a timer may be late, and hardly more.
const BURST: Duration = Duration::from_millis(5);

const NANOS: u128 = 1_000_000_000;

/// The bucket, kept as the time up to which it is spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    bytes_per_second: u64,
    spent_until: Instant,
}

impl Rate {
    /// An empty bucket.
    pub(super) const fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second, spent_until: now }
    }

    /// The same bucket with another rate.
    pub(super) const fn changed(self, bytes_per_second: u64) -> Self {
        Self { bytes_per_second, ..self }
    }

    /// Bytes that the rate lets pass in `duration`.
    pub(super) fn bytes_in(&self, duration: Duration) -> usize {
        let bytes = duration.as_nanos() * u128::from(self.bytes_per_second) / NANOS;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// How many of `wanted` bytes may pass now, at least one; otherwise when some may.
    pub(super) fn allows(&self, now: Instant, wanted: usize) -> Result<usize, Option<Instant>> {
        let spent_until = self.spent_until(now);
        let available = self.bytes_in(now.saturating_duration_since(spent_until));
        let worth_it = wanted.min(self.bytes_in(BURST).max(1));
        if available >= worth_it {
            return Ok(available.min(wanted));
        }
        Err((self.bytes_per_second > 0).then(|| spent_until + self.time_of(worth_it)))
    }

    /// Takes note that `bytes` have passed.
    pub(super) fn spent(&mut self, now: Instant, bytes: usize) {
        self.spent_until = self.spent_until(now) + self.time_of(bytes);
    }

    /// Up to when the bucket is spent: time that was not used is saved for a burst only.
    fn spent_until(&self, now: Instant) -> Instant {
        let saved_max = BURST.max(self.time_of(1));
        now.checked_sub(saved_max).map_or(self.spent_until, |it| it.max(self.spent_until))
    }

    /// How long `bytes` take, rounded up.
    fn time_of(&self, bytes: usize) -> Duration {
        let nanos = (bytes as u128 * NANOS).div_ceil(u128::from(self.bytes_per_second.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
