//! [`Runs`]: what a channel has not finished, as runs of neighbours that are alike.
//!
//! A map from each message would grow with a channel's deferred messages and cost a node for each
//! one in flight; a run costs one node however long it is, and most neighbours are alike.

use std::{collections::BTreeMap, ops::Range};

use crate::message::{Nanos, Sequence};

/// How far a message has come that a channel has taken from its topic and not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// How often it was handed to a consumer.
    pub attempts: u16,
    /// Not handed out again before then: it was requeued with a delay.
    pub due: Option<Nanos>,
}

impl Unfinished {
    /// Handed out once, and nothing more: what most are.
    pub const TAKEN: Self = Self { attempts: 1, due: None };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The first that is not of it.
    end: Sequence,
    what: Unfinished,
}

/// A map from messages to [`Unfinished`] that costs by its runs, not by its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// By the first of each run. None is empty, none overlap, and neighbours that touch differ.
    runs: BTreeMap<Sequence, Run>,
}

impl Runs {
    /// Whether there is no message in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many messages there are. Costs a step for each run.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().fold(0, |sum, (start, run)| sum.saturating_add(start.until(run.end)))
    }

    /// The messages in order.
    pub fn messages(&self) -> impl Iterator<Item = (Sequence, Unfinished)> + '_ {
        self.iter().flat_map(|(range, what)| {
            (range.start.0..range.end.0).map(move |it| (Sequence(it), what))
        })
    }

    /// What there is of a message.
    #[must_use]
    pub fn get(&self, sequence: Sequence) -> Option<Unfinished> {
        let (_, run) = self.runs.range(..=sequence).next_back()?;
        (sequence < run.end).then_some(run.what)
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<Sequence>, Unfinished)> + '_ {
        self.runs.iter().map(|(start, run)| (*start..run.end, run.what))
    }

    /// Every message of the range is in the map, and so.
    pub fn put(&mut self, range: Range<Sequence>, what: Unfinished) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        let Range { mut start, mut end } = range;
        if let Some((before, run)) = self.runs.range(..start).next_back()
            && run.end == start
            && run.what == what
        {
            start = *before;
        }
        if let Some(after) = self.runs.get(&end).copied()
            && after.what == what
        {
            self.runs.remove(&end);
            end = after.end;
        }
        self.runs.insert(start, Run { end, what });
    }

    /// No message of the range is in the map.
    pub fn remove(&mut self, range: Range<Sequence>) {
        if range.is_empty() {
            return;
        }
        if let Some((_, run)) = self.runs.range_mut(..range.start).next_back()
            && run.end > range.start
        {
            let rest = *run;
            run.end = range.start;
            if rest.end > range.end {
                self.runs.insert(range.end, rest);
                return;
            }
        }
        while let Some((start, run)) = self.runs.range(range.clone()).next() {
            let (start, run) = (*start, *run);
            self.runs.remove(&start);
            if run.end > range.end {
                self.runs.insert(range.end, run);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: u64 = 24;

    fn step() -> impl Strategy<Value = (Range<u64>, Option<u16>)> {
        let range = (0..SPAN, 0..SPAN).prop_map(|(start, end)| start..end);
        (range, proptest::option::of(0..3_u16))
    }

    fn check_invariants(runs: &Runs) {
        let all: Vec<_> = runs.iter().collect();
        for (range, _) in &all {
            assert!(!range.is_empty(), "{runs:?}");
        }
        for pair in all.windows(2) {
            assert!(pair[0].0.end <= pair[1].0.start, "{runs:?}");
            assert!(pair[0].0.end < pair[1].0.start || pair[0].1 != pair[1].1, "{runs:?}");
        }
    }

    proptest! {
        #[test]
        fn is_a_map_of_messages(steps in proptest::collection::vec(step(), 0..40)) {
            let mut runs = Runs::default();
            let mut model = BTreeMap::new();
            for (range, attempts) in steps {
                let sequences = Sequence(range.start)..Sequence(range.end);
                match attempts {
                    Some(attempts) => {
                        let what = Unfinished { attempts, due: None };
                        runs.put(sequences, what);
                        model.extend(range.map(|it| (it, what)));
                    }
                    None => {
                        runs.remove(sequences);
                        model.retain(|it, _| !range.contains(it));
                    }
                }
                check_invariants(&runs);
                for it in 0..SPAN {
                    prop_assert_eq!(runs.get(Sequence(it)), model.get(&it).copied());
                }
                prop_assert_eq!(runs.count(), model.len() as u64);
                let messages = runs.messages().map(|(it, what)| (it.0, what));
                prop_assert!(messages.eq(model.clone()));
            }
        }
    }
}
