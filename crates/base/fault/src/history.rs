//! Judges what a system promised by what was seen of it, one event after the other.
//!
//! Three checkers, each for one kind of promise: [`Delivery`] (every acknowledged thing is there once,
//! in the order of its key), [`Register`] (one value per key: linearizable) and [`Versions`] (numbers
//! that only grow: no stale read, nobody goes back in time). Each takes events as they are recorded,
//! keeps in memory only what is still open, and ends in a [`Report`]. Beside them [`Outage`] measures
//! the largest gap between acknowledgements. Nothing here does IO or knows a clock: times are the
//! recorder's, as durations since a beginning of its choice.

mod delivery;
mod outage;
mod register;
mod version;

use std::{fmt, time::Duration};

pub use delivery::{Delivery, DeliveryRules, Duplicates};
pub use outage::{Gap, Outage};
pub use register::{Operation, Register};
pub use version::{Reading, Versions};

/// Violations that a report keeps; the rest is counted. The first ones are those that explain the
/// others.
pub const VIOLATIONS_KEPT: usize = 100;

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<K> {
    /// Operations that were judged.
    pub operations: u64,
    /// The first violations, in the order in which they were found.
    pub violations: Vec<Violation<K>>,
    /// How many there were of each kind, in the order of [`Kind`].
    pub counts: Vec<(Kind, u64)>,
    /// Operations whose fate is unknown: neither acknowledged nor refused. Whatever was seen of them
    /// is allowed.
    pub unknown: u64,
    /// Things that were there more than once where that is allowed.
    pub duplicates_allowed: u64,
    /// The longest time without an acknowledgement.
    pub outage: Option<Gap>,
}

impl<K> Report<K> {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many violations of a kind there were.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.iter().find(|(it, _)| *it == kind).map_or(0, |(_, count)| *count)
    }
}

impl<K: fmt::Debug> fmt::Display for Report<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, unknown, duplicates_allowed, .. } = self;
        write!(f, "{operations} operations, {unknown} of unknown fate")?;
        if *duplicates_allowed > 0 {
            write!(f, ", {duplicates_allowed} allowed duplicates")?;
        }
        if let Some(gap) = &self.outage {
            write!(f, "; longest without acknowledgement: {gap}")?;
        }
        if self.is_good() {
            return write!(f, "; no violation");
        }
        for (kind, count) in &self.counts {
            write!(f, "; {count} {}", kind.name())?;
        }
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        let all: u64 = self.counts.iter().map(|(_, count)| count).sum();
        let more = all - self.violations.len() as u64;
        if more > 0 { write!(f, "\nand {more} more") } else { Ok(()) }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<K> {
    /// What kind.
    pub kind: Kind,
    /// Of which key.
    pub key: K,
    /// Which thing of that key: its sequence number, value or version.
    pub id: u64,
    /// When it showed.
    pub at: Duration,
    /// What contradicts it: another thing of that key and when that was.
    pub because: Option<(u64, Duration)>,
}

impl<K: fmt::Debug> fmt::Display for Violation<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key, id, at, because } = self;
        write!(f, "{at:?}: {}: {key:?} {id}", kind.name())?;
        match because {
            Some((other, when)) => write!(f, ", {} {other} at {when:?}", kind.relation()),
            None => Ok(()),
        }
    }
}

/// Kinds of broken promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Acknowledged, and not there.
    Lost,
    /// There more than once.
    Doubled,
    /// There, although it was never asked for, or was refused.
    Phantom,
    /// After something of its key that came later.
    Reordered,
    /// A read of what was overwritten before the read began.
    Stale,
    /// A reader saw less than it had seen before.
    Backwards,
    /// No order of the operations explains what was read.
    NotLinearizable,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Phantom => "phantom",
            Self::Reordered => "reordered",
            Self::Stale => "stale",
            Self::Backwards => "backwards",
            Self::NotLinearizable => "not linearizable",
        }
    }

    /// How `because` stands to it.
    const fn relation(self) -> &'static str {
        match self {
            Self::Lost => "acknowledged as",
            Self::Doubled => "first as",
            Self::Phantom => "refused as",
            Self::Reordered => "after",
            Self::Stale => "overwritten by",
            Self::Backwards => "after having seen",
            Self::NotLinearizable => "contradicts",
        }
    }
}

/// Violations as they are found.
#[derive(Clone, Debug)]
struct Findings<K> {
    first: Vec<Violation<K>>,
    counts: std::collections::BTreeMap<Kind, u64>,
}

impl<K> Default for Findings<K> {
    fn default() -> Self {
        Self { first: Vec::new(), counts: std::collections::BTreeMap::new() }
    }
}

impl<K> Findings<K> {
    fn add(&mut self, violation: Violation<K>) {
        *self.counts.entry(violation.kind).or_default() += 1;
        if self.first.len() < VIOLATIONS_KEPT {
            self.first.push(violation);
        }
    }

    fn report(self, operations: u64) -> Report<K> {
        Report {
            operations,
            violations: self.first,
            counts: self.counts.into_iter().collect(),
            unknown: 0,
            duplicates_allowed: 0,
            outage: None,
        }
    }
}

/// A time of a test.
#[cfg(test)]
const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
