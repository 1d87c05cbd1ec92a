//! [`Progress`]: what a channel did since it was last asked.
//!
//! Collecting costs a push; sorting and joining neighbours is left to the task of the journal. A
//! consumer finishes messages nearly in the order in which it got them, so that the thousands of
//! one flush become a few ranges.

use std::{mem, ops::Range};

use super::runs::Unfinished;
use crate::message::Sequence;

/// What a channel did since it was last asked: collect with the methods, take with
/// [`take`](Self::take), and hand it to the journal in a
/// [`Change::Progress`](super::Change::Progress).
///
/// A message is either left or finished in one progress, and finished wins: a message once finished
/// comes back only by a [`Change::Placed`](super::Change::Placed), and what was collected must be
/// handed over before that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// All below were taken from the topic. Those it passed are [`Unfinished::TAKEN`] unless the
    /// other two say more.
    pub(super) cursor: Sequence,
    /// Were finished.
    pub(super) finished: Vec<Range<Sequence>>,
    /// Were left unfinished in a way that differs from what is known of them; the last word counts.
    pub(super) left: Vec<(Range<Sequence>, Unfinished)>,
}

impl Progress {
    /// Whether nothing was done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cursor.0 == 0 && self.finished.is_empty() && self.left.is_empty()
    }

    /// All below `cursor` were taken from the topic, and handed to a consumer once.
    pub fn took(&mut self, cursor: Sequence) {
        self.cursor = self.cursor.max(cursor);
    }

    /// These were finished, in any order. Only for messages that were taken.
    pub fn finished(&mut self, range: Range<Sequence>) {
        match self.finished.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.finished.push(range),
        }
    }

    /// This one was handed out again, requeued, or taken without being handed out. Only for
    /// messages that were taken and not finished.
    pub fn left(&mut self, sequence: Sequence, what: Unfinished) {
        let range = sequence..sequence.after(1);
        match self.left.last_mut() {
            Some((last, of_last)) if last.end == sequence && *of_last == what => {
                last.end = range.end;
            }
            _ => self.left.push((range, what)),
        }
    }

    /// What was collected, if anything; begins anew.
    #[must_use]
    pub fn take(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| mem::take(self))
    }

    /// The same in parts with at most `runs` ranges of each kind. Between two of them, too few are
    /// finished, never too many.
    pub(super) fn pieces(mut self, runs: usize) -> Vec<Self> {
        self.settle();
        if self.finished.len() <= runs && self.left.len() <= runs {
            return vec![self];
        }
        let Self { cursor, finished, left } = self;
        let mut pieces = vec![Self { cursor, ..Self::default() }];
        let left = left.chunks(runs).map(<[_]>::to_vec);
        pieces.extend(left.map(|left| Self { left, ..Self::default() }));
        let finished = finished.chunks(runs).map(<[_]>::to_vec);
        pieces.extend(finished.map(|finished| Self { finished, ..Self::default() }));
        pieces
    }

    /// Sorts and joins what was finished. What was left keeps its order: the last word counts.
    fn settle(&mut self) {
        join(&mut self.finished);
    }
}

/// Sorts ranges, none of them empty, and joins those that meet.
pub(super) fn join(ranges: &mut Vec<Range<Sequence>>) {
    ranges.sort_unstable_by_key(|it| it.start);
    ranges.dedup_by(|next, kept| {
        let joined = next.start <= kept.end;
        if joined {
            kept.end = kept.end.max(next.end);
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_what_was_finished_nearly_in_order() {
        let mut progress = Progress::default();
        for sequence in [11, 10, 12, 13, 20, 15, 14] {
            progress.finished(Sequence(sequence)..Sequence(sequence + 1));
        }
        progress.settle();
        assert_eq!(progress.finished, [Sequence(10)..Sequence(16), Sequence(20)..Sequence(21)],);
    }

    #[test]
    fn is_taken_once() {
        let mut progress = Progress::default();
        assert_eq!(progress.take(), None);
        progress.took(Sequence(7));
        progress.left(Sequence(6), Unfinished::default());
        let taken = progress.take().unwrap();
        assert_eq!(taken.cursor, Sequence(7));
        assert_eq!(progress.take(), None);
    }
}
