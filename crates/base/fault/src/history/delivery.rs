//! Queues and logs: each acknowledged thing is there exactly once, in the order of its key.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    ops::Range,
    time::Duration,
};

use super::{Findings, Kind, Outage, Report, Violation};

/// What was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryRules {
    /// Whether a thing may be there more than once.
    pub duplicates: Duplicates,
    /// Whether order per key is promised.
    pub ordered: bool,
}

/// Whether a thing may be there more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// No: exactly once.
    #[default]
    Forbidden,
    /// Yes: at least once. They are counted.
    Allowed,
}

/// Checks deliveries. Things of a key have sequence numbers that grow in the order in which they are
/// sent: [`Delivery::sent`] comes before the request goes out, the other events when they are known.
///
/// Order is judged by what could be known: a thing must not come after another one that was sent only
/// after the first was acknowledged. Things under way at the same time may come in any order.
///
/// It keeps a thing until it was both acknowledged and received: 56 bytes; then only the key.
#[derive(Clone, Debug)]
pub struct Delivery<K> {
    rules: DeliveryRules,
    keys: HashMap<K, Key>,
    findings: Findings<K>,
    outage: Outage,
    operations: u64,
    duplicates: u64,
    end: Duration,
}

#[derive(Clone, Debug, Default)]
struct Key {
    /// Above every number sent so far.
    next: u64,
    /// What is not settled, by number. What is neither here nor above was acknowledged and received.
    open: VecDeque<(u64, Thing)>,
    /// Numbers that were left out.
    skipped: Vec<Range<u64>>,
    /// The received thing with the highest number, and when it was sent.
    highest: Option<(u64, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Thing {
    sent: Duration,
    fate: Fate,
    received: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acknowledged(Duration),
    Refused(Duration),
}

impl<K: Clone + Eq + Hash + Ord> Delivery<K> {
    /// A checker of these promises.
    #[must_use]
    pub fn new(rules: DeliveryRules) -> Self {
        Self {
            rules,
            keys: HashMap::new(),
            findings: Findings::default(),
            outage: Outage::default(),
            operations: 0,
            duplicates: 0,
            end: Duration::ZERO,
        }
    }

    /// Thing `id` of `key` is about to be sent. A number that is not above all before it is a
    /// repetition of the same thing, and changes nothing.
    pub fn sent(&mut self, key: &K, id: u64, at: Duration) {
        self.outage.begin(at);
        self.end = self.end.max(at);
        let entry = match self.keys.get_mut(key) {
            Some(entry) => entry,
            None => self.keys.entry(key.clone()).or_default(),
        };
        if id < entry.next {
            return;
        }
        self.operations += 1;
        if entry.next < id {
            entry.skipped.push(entry.next..id);
        }
        entry.next = id.saturating_add(1);
        entry.open.push_back((id, Thing { sent: at, fate: Fate::Unknown, received: None }));
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, key: &K, id: u64, at: Duration) {
        self.outage.acknowledged(at);
        self.decided(key, id, Fate::Acknowledged(at), at);
    }

    /// It was refused: it must not be there. What is only probably not there, such as after a
    /// time-out, is not refused but unknown, and is not reported at all.
    pub fn refused(&mut self, key: &K, id: u64, at: Duration) {
        self.decided(key, id, Fate::Refused(at), at);
    }

    fn decided(&mut self, key: &K, id: u64, fate: Fate, at: Duration) {
        self.end = self.end.max(at);
        let Some(entry) = self.keys.get_mut(key) else { return };
        let Some(index) = entry.find(id) else { return };
        let Some((_, thing)) = entry.open.get_mut(index) else { return };
        thing.fate = fate;
        let Some(received) = thing.received else { return };
        entry.open.remove(index);
        if matches!(fate, Fate::Refused(_)) {
            let because = Some((id, at));
            let key = key.clone();
            self.findings.add(Violation { kind: Kind::Phantom, key, id, at: received, because });
        }
    }

    /// It was received, or found where it should be.
    pub fn received(&mut self, key: &K, id: u64, at: Duration) {
        self.end = self.end.max(at);
        let violation = |kind, because| Violation { kind, key: key.clone(), id, at, because };
        let Some(entry) = self.keys.get_mut(key).filter(|it| id < it.next) else {
            return self.findings.add(violation(Kind::Phantom, None));
        };
        let known = entry.find(id).and_then(|index| Some((index, entry.open.get_mut(index)?)));
        let Some((index, (_, thing))) = known else {
            if entry.skipped.iter().any(|it| it.contains(&id)) {
                return self.findings.add(violation(Kind::Phantom, None));
            }
            // Settled before.
            self.duplicates += 1;
            if self.rules.duplicates == Duplicates::Forbidden {
                self.findings.add(violation(Kind::Doubled, None));
            }
            return;
        };
        if let Some(first) = thing.received {
            self.duplicates += 1;
            if self.rules.duplicates == Duplicates::Forbidden {
                self.findings.add(violation(Kind::Doubled, Some((id, first))));
            }
            return;
        }
        thing.received = Some(at);
        let Thing { sent, fate, .. } = *thing;
        match fate {
            Fate::Unknown => {}
            Fate::Acknowledged(_) => drop(entry.open.remove(index)),
            Fate::Refused(when) => {
                self.findings.add(violation(Kind::Phantom, Some((id, when))));
                entry.open.remove(index);
            }
        }
        match entry.highest {
            Some((other, other_sent)) if id < other => {
                let known_before = matches!(fate, Fate::Acknowledged(when) if when < other_sent);
                if self.rules.ordered && known_before {
                    let because = Some((other, other_sent));
                    self.findings.add(violation(Kind::Reordered, because));
                }
            }
            _ => entry.highest = Some((id, sent)),
        }
    }

    /// Things that are kept because something of them is still to come.
    #[must_use]
    pub fn open(&self) -> usize {
        self.keys.values().map(|it| it.open.len()).sum()
    }

    /// All has been received that will be: what was acknowledged and is not there is lost.
    #[must_use]
    pub fn finish(self) -> Report<K> {
        let Self { keys, mut findings, outage, operations, duplicates, end, rules } = self;
        let mut keys: Vec<(K, Key)> = keys.into_iter().collect();
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut lost = Vec::new();
        let mut unknown = 0;
        for (key, entry) in keys {
            for (id, thing) in entry.open {
                match thing.fate {
                    Fate::Acknowledged(at) if thing.received.is_none() => {
                        let key = key.clone();
                        lost.push(Violation { kind: Kind::Lost, key, id, at, because: None });
                    }
                    Fate::Unknown => unknown += 1,
                    Fate::Acknowledged(_) | Fate::Refused(_) => {}
                }
            }
        }
        lost.sort_by_key(|it| it.at);
        lost.into_iter().for_each(|it| findings.add(it));
        let allowed = rules.duplicates == Duplicates::Allowed;
        Report {
            unknown,
            duplicates_allowed: if allowed { duplicates } else { 0 },
            outage: outage.longest(end),
            ..findings.report(operations)
        }
    }
}

impl Key {
    /// Where thing `id` is.
    fn find(&self, id: u64) -> Option<usize> {
        // Mostly it is the oldest or the newest.
        match (self.open.front(), self.open.back()) {
            (Some((first, _)), _) if *first == id => Some(0),
            (_, Some((last, _))) if *last == id => Some(self.open.len() - 1),
            _ => self.open.binary_search_by_key(&id, |(it, _)| *it).ok(),
        }
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

    const STRICT: DeliveryRules =
        DeliveryRules { duplicates: Duplicates::Forbidden, ordered: true };

    #[test]
    fn each_kind_is_named_with_key_and_time() {
        let mut delivery = Delivery::new(STRICT);
        for id in 0..6 {
            delivery.sent(&"a", id, ms(id * 10));
            delivery.acknowledged(&"a", id, ms(id * 10 + 1));
        }
        delivery.sent(&"a", 6, ms(60));
        delivery.refused(&"a", 6, ms(61));
        delivery.sent(&"a", 8, ms(80));
        for (id, at) in [(0, 70), (2, 71), (1, 72), (3, 73), (3, 74), (6, 75), (9, 76), (7, 77)] {
            delivery.received(&"a", id, ms(at));
        }
        delivery.received(&"b", 0, ms(80));
        expect![[r#"
            8 operations, 1 of unknown fate; longest without acknowledgement: 29ms from 51ms; 2 lost; 1 doubled; 4 phantom; 1 reordered
            72ms: reordered: "a" 1, after 2 at 20ms
            74ms: doubled: "a" 3
            75ms: phantom: "a" 6, refused as 6 at 61ms
            76ms: phantom: "a" 9
            77ms: phantom: "a" 7
            80ms: phantom: "b" 0
            41ms: lost: "a" 4
            51ms: lost: "a" 5"#]].assert_eq(&delivery.finish().to_string());
    }

    #[test]
    fn what_was_under_way_together_may_change_places() {
        let mut delivery = Delivery::new(STRICT);
        delivery.sent(&(), 0, ms(0));
        delivery.sent(&(), 1, ms(1));
        delivery.acknowledged(&(), 0, ms(2));
        delivery.acknowledged(&(), 1, ms(3));
        delivery.received(&(), 1, ms(4));
        delivery.received(&(), 0, ms(5));
        assert!(delivery.finish().is_good());
    }

    #[test]
    fn unknown_things_may_be_there_or_not() {
        let mut delivery = Delivery::new(STRICT);
        delivery.sent(&(), 0, ms(0));
        delivery.sent(&(), 1, ms(1));
        delivery.received(&(), 1, ms(2));
        let report = delivery.finish();
        assert!(report.is_good());
        assert_eq!((report.unknown, report.operations), (2, 2));
    }

    #[test]
    fn duplicates_may_be_allowed() {
        let rules = DeliveryRules { duplicates: Duplicates::Allowed, ordered: false };
        let mut delivery = Delivery::new(rules);
        delivery.sent(&(), 0, ms(0));
        delivery.received(&(), 0, ms(1));
        delivery.received(&(), 0, ms(2));
        delivery.acknowledged(&(), 0, ms(3));
        delivery.received(&(), 0, ms(4));
        let report = delivery.finish();
        assert!(report.is_good());
        assert_eq!(report.duplicates_allowed, 2);
    }

    #[test]
    fn only_the_first_violations_are_kept() {
        let mut delivery = Delivery::new(STRICT);
        for id in 0..1000 {
            delivery.sent(&(), id, ms(id));
            delivery.acknowledged(&(), id, ms(id));
        }
        let report = delivery.finish();
        assert_eq!(report.count(Kind::Lost), 1000);
        assert_eq!(report.violations.len(), super::super::VIOLATIONS_KEPT);
        assert!(report.to_string().ends_with("and 900 more"));
    }

    proptest! {
        /// A queue that is right passes and keeps nothing; each injected fault is found, and nothing
        /// else.
        #[test]
        fn right_passes_and_each_fault_is_found(
            steps in vec((0..5_u8, 0..3_u8), 10..300),
            fault in 0..4_u8,
            at in any::<proptest::sample::Index>(),
        ) {
            let mut delivery = Delivery::new(STRICT);
            let mut next = [0_u64; 5];
            let mut queue = VecDeque::new();
            let mut now = 0;
            for (key, take) in &steps {
                let id = &mut next[usize::from(*key)];
                delivery.sent(key, *id, ms(now));
                delivery.acknowledged(key, *id, ms(now + 1));
                queue.push_back((*key, *id));
                *id += 1;
                now += 2;
                for _ in 0..*take {
                    queue.pop_front().into_iter().for_each(|(key, id)| {
                        delivery.received(&key, id, ms(now));
                    });
                }
            }
            // What is left is where the fault strikes.
            let extra = [(7_u8, 0_u64), (7, 1)];
            for (key, id) in extra {
                delivery.sent(&key, id, ms(now + id * 2));
                delivery.acknowledged(&key, id, ms(now + id * 2 + 1));
                queue.push_back((key, id));
            }
            now += 10;
            let mut queue: Vec<(u8, u64)> = queue.into();
            let index = at.index(queue.len());
            let last = queue.len() - 1;
            match fault {
                1 => drop(queue.remove(index)),
                2 => queue.insert(index, queue[index]),
                3 => queue.swap(last, last - 1),
                _ => {}
            }
            for (key, id) in queue {
                delivery.received(&key, id, ms(now));
            }
            if fault != 1 {
                prop_assert_eq!(delivery.open(), 0);
            }
            let report = delivery.finish();
            let expected: &[(Kind, u64)] = match fault {
                1 => &[(Kind::Lost, 1)],
                2 => &[(Kind::Doubled, 1)],
                3 => &[(Kind::Reordered, 1)],
                _ => &[],
            };
            prop_assert_eq!(report.counts.as_slice(), expected, "{}", report);
            prop_assert!(report.violations.len() <= 1);
        }
    }
}
