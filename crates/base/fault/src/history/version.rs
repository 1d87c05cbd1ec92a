//! Numbers that only grow, such as the revisions of a store: reads must not be stale, and nobody goes
//! back in time.

use std::{collections::HashMap, hash::Hash, time::Duration};

use super::{Findings, Kind, Outage, Report, Violation};

/// Checks reads of versions: a read must not return less than what was acknowledged before it began,
/// and one reader must never see less than it has seen.
///
/// It does not check that a version was ever written, nor the values that go with it. It keeps two
/// numbers per key, and one per reader and key.
#[derive(Clone, Debug)]
pub struct Versions<K> {
    /// The highest acknowledged version, and when it was acknowledged.
    acknowledged: HashMap<K, (u64, Duration)>,
    /// What each reader has seen last, and when.
    seen: HashMap<(u64, K), (u64, Duration)>,
    findings: Findings<K>,
    outage: Outage,
    operations: u64,
    end: Duration,
}

/// A read that has begun. Given back when it ends; dropped if it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<K> {
    key: K,
    reader: u64,
    floor: Option<(u64, Duration)>,
}

impl<K: Clone + Eq + Hash> Default for Versions<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> Versions<K> {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            acknowledged: HashMap::new(),
            seen: HashMap::new(),
            findings: Findings::default(),
            outage: Outage::default(),
            operations: 0,
            end: Duration::ZERO,
        }
    }

    /// `key` was written and has `version` now.
    pub fn acknowledged(&mut self, key: &K, version: u64, at: Duration) {
        self.operations += 1;
        self.outage.acknowledged(at);
        self.end = self.end.max(at);
        let highest = self.acknowledged.entry(key.clone()).or_insert((version, at));
        if highest.0 < version {
            *highest = (version, at);
        }
    }

    /// `reader` begins to read `key`.
    #[must_use]
    pub fn read_begins(&mut self, reader: u64, key: &K, at: Duration) -> Reading<K> {
        self.outage.begin(at);
        self.end = self.end.max(at);
        Reading { key: key.clone(), reader, floor: self.acknowledged.get(key).copied() }
    }

    /// The read has returned `version`.
    pub fn read_ends(&mut self, reading: Reading<K>, version: u64, at: Duration) {
        let Reading { key, reader, floor } = reading;
        self.operations += 1;
        self.outage.acknowledged(at);
        self.end = self.end.max(at);
        let mut found = |kind, because| {
            let key = key.clone();
            self.findings.add(Violation { kind, key, id: version, at, because });
        };
        if floor.is_some_and(|(floor, _)| version < floor) {
            found(Kind::Stale, floor);
        }
        let seen = self.seen.entry((reader, key.clone())).or_insert((version, at));
        if version < seen.0 {
            found(Kind::Backwards, Some(*seen));
        } else {
            *seen = (version, at);
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Report<K> {
        let Self { findings, operations, outage, end, .. } = self;
        Report { outage: outage.longest(end), ..findings.report(operations) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::{
        collection::vec,
        prelude::{any, prop_assert, prop_assert_eq, proptest},
    };

    use super::*;
    use crate::history::ms;

    #[test]
    fn stale_and_backwards() {
        let mut versions = Versions::new();
        let early = versions.read_begins(1, &"a", ms(0));
        versions.acknowledged(&"a", 5, ms(1));
        versions.acknowledged(&"a", 4, ms(2));
        // It began before, and may see the past.
        versions.read_ends(early, 3, ms(3));
        let late = versions.read_begins(2, &"a", ms(4));
        versions.read_ends(late, 4, ms(5));
        for version in [7, 6] {
            let reading = versions.read_begins(1, &"a", ms(6));
            versions.read_ends(reading, version, ms(version));
        }
        expect![[r#"
            6 operations, 0 of unknown fate; longest without acknowledgement: 2ms from 3ms; 1 stale; 1 backwards
            5ms: stale: "a" 4, overwritten by 5 at 1ms
            6ms: backwards: "a" 6, after having seen 7 at 7ms"#]]
        .assert_eq(&versions.finish().to_string());
    }

    proptest! {
        /// A store that is right passes; one read that is behind is found.
        #[test]
        fn right_passes_and_stale_is_found(
            steps in vec((0..3_u8, 0..4_u64, any::<bool>()), 1..200),
            behind in 0..200_usize,
        ) {
            let mut versions = Versions::new();
            let mut current = [0_u64; 4];
            let mut injected = 0;
            for (index, (reader, key, write)) in steps.into_iter().enumerate() {
                let at = ms(index as u64);
                let value = &mut current[usize::try_from(key).unwrap()];
                if write {
                    *value += 1;
                    versions.acknowledged(&key, *value, at);
                }
                let reading = versions.read_begins(reader.into(), &key, at);
                let wrong = index == behind && *value > 0;
                injected += u64::from(wrong);
                versions.read_ends(reading, if wrong { *value - 1 } else { *value }, at);
            }
            let report = versions.finish();
            prop_assert_eq!(report.count(Kind::Stale), injected);
            prop_assert!(report.count(Kind::Backwards) <= injected);
        }
    }
}
