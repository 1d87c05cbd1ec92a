//! Numbers of a range, each given out once.

use std::{collections::BTreeSet, ops::RangeInclusive};

/// The pool. Free numbers are given in order, going round, so that a number that came back is
/// given again as late as possible.
#[derive(Debug)]
pub(super) struct Pool {
    range: RangeInclusive<u32>,
    /// Numbers at the beginning of the range that are given unasked only when all others are out.
    reluctant: u32,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Pool {
    pub(super) fn new(range: RangeInclusive<u32>, reluctant: u32) -> Self {
        let next = range.start() + reluctant;
        Self { range, reluctant, taken: BTreeSet::new(), next }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.range.contains(&number)
    }

    /// Takes this number; false if it is out.
    pub(super) fn take(&mut self, number: u32) -> bool {
        self.taken.insert(number)
    }

    /// Takes some number; none if all are out.
    pub(super) fn take_any(&mut self) -> Option<u32> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let eager = first + self.reluctant;
        let order = (self.next..=last).chain(eager..self.next).chain(first..eager);
        let found = { order }.find(|it| !self.taken.contains(it))?;
        self.taken.insert(found);
        self.next = if found >= eager && found < last { found + 1 } else { eager };
        Some(found)
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.taken.remove(&number);
    }

    #[cfg(test)]
    pub(super) fn out(&self) -> Vec<u32> {
        self.taken.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_round_and_takes_the_reluctant_last() {
        let mut pool = Pool::new(1..=5, 2);
        assert_eq!([pool.take_any(), pool.take_any()], [Some(3), Some(4)]);
        pool.give_back(3);
        assert_eq!([pool.take_any(), pool.take_any()], [Some(5), Some(3)]);
        assert!(!pool.take(3));
        assert_eq!([pool.take_any(), pool.take_any(), pool.take_any()], [Some(1), Some(2), None]);
    }
}
