//! The longest time in which nothing was acknowledged.

use std::{fmt, time::Duration};

/// A stretch of time without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before it, or the beginning.
    pub from: Duration,
    /// The first one after it, or the end.
    pub to: Duration,
}

impl Gap {
    /// How long it is.
    #[must_use]
    pub const fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {:?}", self.length(), self.from)
    }
}

/// Measures it. Acknowledgements may come in any order that is nearly right: one that is recorded
/// late never makes a gap longer than it was, only shorter ones may go unseen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    last: Option<Duration>,
    longest: Option<Gap>,
}

impl Outage {
    /// Nothing was asked before `at`: the time until the first acknowledgement counts from here.
    pub fn begin(&mut self, at: Duration) {
        self.last.get_or_insert(at);
    }

    /// Something was acknowledged.
    pub fn acknowledged(&mut self, at: Duration) {
        let last = self.last.unwrap_or(at);
        let gap = Gap { from: last, to: at };
        if self.longest.is_none_or(|it| it.length() < gap.length()) {
            self.longest = Some(gap);
        }
        self.last = Some(last.max(at));
    }

    /// The longest gap, where the history ends at `end`: an outage that was not over by then counts
    /// as well.
    #[must_use]
    pub fn longest(mut self, end: Duration) -> Option<Gap> {
        self.last?;
        self.acknowledged(end);
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ms;

    fn longest(begin: u64, acknowledged: &[u64], end: u64) -> Option<(u64, u64)> {
        let mut outage = Outage::default();
        outage.begin(ms(begin));
        acknowledged.iter().for_each(|at| outage.acknowledged(ms(*at)));
        let gap = outage.longest(ms(end))?;
        Some((u64::try_from(gap.from.as_millis()).ok()?, u64::try_from(gap.to.as_millis()).ok()?))
    }

    #[test]
    fn gaps() {
        assert_eq!(longest(0, &[1, 2, 50, 60], 61), Some((2, 50)));
        assert_eq!(longest(0, &[40, 50, 60], 61), Some((0, 40)), "before the first");
        assert_eq!(longest(0, &[1, 2], 99), Some((2, 99)), "to the end");
        assert_eq!(longest(5, &[], 9), Some((5, 9)), "never");
        assert_eq!(longest(0, &[10, 8, 20], 20), Some((0, 10)), "recorded late");
        assert_eq!(Outage::default().longest(ms(9)), None, "nothing asked");
    }
}
