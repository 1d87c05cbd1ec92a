//! What the view remembers of the seconds that have ended: a few numbers of each, computed once,
//! because reading quantiles off many histograms at every frame would cost the generator a core.

use crate::{
    report::quantiles,
    results::{self, Second},
};

/// Over how many seconds the numbers of the view are. One jumps about, many hide what happens now.
pub(crate) const RECENT: usize = 10;
/// How many seconds are remembered: more than the widest terminal has columns for.
const SECONDS_MAX: usize = 2048;

/// A second in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Which second, counted from 0.
    pub(crate) second: usize,
    /// Starts meant.
    pub(crate) meant: u64,
    /// Requests ended.
    pub(crate) done: u64,
    /// Those of them that failed.
    pub(crate) failed: u64,
    /// Quantiles and maximum of its latency, in nanoseconds.
    pub(crate) latency: Option<[u64; 5]>,
}

/// The seconds so far.
#[derive(Debug, Default)]
pub(crate) struct History {
    seen: usize,
    points: Vec<Point>,
    recent: Option<[u64; 5]>,
}

impl History {
    /// Takes in what has ended since the last time.
    pub(crate) fn update(&mut self, seconds: &[Second]) {
        let new = seconds.get(self.seen..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        for second in new {
            let latency = quantiles(&second.latency);
            let Second { meant, done, .. } = *second;
            let failed = second.failed();
            self.points.push(Point { second: self.seen, meant, done, failed, latency });
            self.seen += 1;
        }
        let surplus = self.points.len().saturating_sub(SECONDS_MAX);
        self.points.drain(..surplus);
        let mut recent = results::times();
        for second in seconds.iter().rev().take(RECENT) {
            recent += &second.latency;
        }
        self.recent = quantiles(&recent);
    }

    /// The seconds that are remembered, in order.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// Quantiles and maximum of the last [`RECENT`] seconds, in nanoseconds.
    pub(crate) fn recent(&self) -> Option<[u64; 5]> {
        self.recent
    }

    /// How many seconds `recent` is of.
    pub(crate) fn recent_seconds(&self) -> usize {
        self.seen.min(RECENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn seconds_are_taken_in_once_each() {
        let seconds = sample().seconds;
        let mut history = History::default();
        for ended in [0, 1, 1, 4, 10, 10] {
            history.update(&seconds[..ended]);
            assert_eq!(history.points().len(), ended);
            assert_eq!(history.recent_seconds(), ended);
        }
        let order: Vec<_> = history.points().iter().map(|it| it.second).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        assert_eq!(history.recent(), quantiles(&sample().total.latency));
    }

    #[test]
    fn a_long_run_is_forgotten_at_its_beginning() {
        let seconds = vec![Second::default(); SECONDS_MAX + 5];
        let mut history = History::default();
        history.update(&seconds);
        assert_eq!(history.points().len(), SECONDS_MAX);
        assert_eq!(history.points()[0].second, 5);
        assert_eq!(history.recent(), None);
    }
}
