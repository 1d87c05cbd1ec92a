//! Wall-clock time as a value that is handed in, so that a test can decide what time it is.
//!
//! Durations and timers are tokio's; this is only for time stamps that users and clients see.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time of day. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    FollowsTokio { epoch: Timestamp, started: Instant },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `epoch` now and then advances with tokio's, so that a paused runtime
    /// also pauses the time of day. For tests and simulation.
    #[must_use]
    pub fn following_tokio(epoch: Timestamp) -> Self {
        Self(Source::FollowsTokio { epoch, started: Instant::now() })
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::FollowsTokio { epoch, started } => {
                let passed = SignedDuration::try_from(started.elapsed()).unwrap_or_default();
                epoch.saturating_add(passed).unwrap_or(*epoch)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_paused_clock() {
        let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().to_string(), "1970-01-01T00:01:30Z");
    }
}
