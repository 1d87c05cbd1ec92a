//! One value per key, read and written: is there an order of all operations that explains every read?

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use super::{Findings, Kind, Outage, Report, Violation};

/// Zones of a key that are kept before it is looked at: sorting few at a time is cheap, and a quiet
/// moment comes often.
const ZONES_KEPT: usize = 64;

/// Checks that every key is linearizable: that each operation could have happened at one moment
/// between its beginning and its end. Exact, by the zones of Gibbons and Korach, because every value
/// is written once at most to a key: use a counter.
///
/// It does not check several keys together, nor compare-and-set, deletion or appending. A key's
/// operations are kept until a moment comes when none of them is open; then only what may still be
/// read, and writes of unknown fate, which may take effect at any time.
#[derive(Clone, Debug)]
pub struct Register<K> {
    keys: HashMap<K, Key>,
    findings: Findings<K>,
    outage: Outage,
    operations: u64,
    unknown: u64,
    end: Duration,
}

/// One operation that has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Wrote this value, which was never written before.
    Write(u64),
    /// Read this value; [`Register::<()>::INITIAL`] is what is there before the first write.
    Read(u64),
}

#[derive(Clone, Debug)]
struct Key {
    /// Operations that have begun and not ended.
    open: u64,
    zones: BTreeMap<u64, Zone>,
    /// What overwrote all that is no longer kept, and when at the latest.
    newest: Option<(u64, Duration)>,
}

/// All operations on one value.
#[derive(Clone, Copy, Debug)]
struct Zone {
    /// When its write began; none if it has not been seen.
    written: Option<Duration>,
    /// The first end of any of them, and the last beginning.
    first_end: Duration,
    last_begin: Duration,
}

impl Zone {
    const NONE: Self = Self { written: None, first_end: Duration::MAX, last_begin: Duration::ZERO };

    /// Whether it is a write of unknown fate that nobody has read: it may never have happened.
    const fn is_pending(&self) -> bool {
        self.first_end.as_nanos() == Duration::MAX.as_nanos()
    }

    fn is_forward(&self) -> bool {
        self.first_end < self.last_begin
    }

    fn low(&self) -> Duration {
        self.first_end.min(self.last_begin)
    }

    fn high(&self) -> Duration {
        self.first_end.max(self.last_begin)
    }
}

impl Default for Key {
    fn default() -> Self {
        let initial = Zone {
            written: Some(Duration::ZERO),
            first_end: Duration::ZERO,
            last_begin: Duration::ZERO,
        };
        Self { open: 0, zones: BTreeMap::from([(Register::<()>::INITIAL, initial)]), newest: None }
    }
}

impl<K> Register<K> {
    /// The value that is there before the first write.
    pub const INITIAL: u64 = 0;
}

impl<K: Clone + Eq + Hash + Ord> Default for Register<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> Register<K> {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: HashMap::new(),
            findings: Findings::default(),
            outage: Outage::default(),
            operations: 0,
            unknown: 0,
            end: Duration::ZERO,
        }
    }

    /// An operation on `key` begins. Each beginning is followed by one of the other events.
    pub fn begins(&mut self, key: &K, at: Duration) {
        self.outage.begin(at);
        self.end = self.end.max(at);
        self.key(key).open += 1;
    }

    fn key(&mut self, key: &K) -> &mut Key {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Key::default());
        }
        self.keys.entry(key.clone()).or_default()
    }

    /// It has ended well.
    pub fn ends(&mut self, key: &K, operation: Operation, began: Duration, at: Duration) {
        self.operations += 1;
        self.outage.acknowledged(at);
        let (value, written) = match operation {
            Operation::Write(value) => (value, Some(began)),
            Operation::Read(value) => (value, None),
        };
        let entry = self.key(key);
        let overwritten = entry.newest.filter(|_| written.is_none());
        let known = entry.zones.contains_key(&value);
        if let Some(newest) = overwritten.filter(|_| !known && entry.open == 1) {
            // Nothing else is open that could have written it.
            let violation = Violation {
                kind: Kind::Stale,
                key: key.clone(),
                id: value,
                at,
                because: Some(newest),
            };
            self.findings.add(violation);
        } else {
            let zone = entry.zones.entry(value).or_insert(Zone::NONE);
            zone.written = zone.written.or(written);
            zone.first_end = zone.first_end.min(at);
            zone.last_begin = zone.last_begin.max(began);
        }
        self.ended(key, at);
    }

    /// It was refused: it has changed nothing. Also for a read that failed, whatever the reason.
    pub fn refused(&mut self, key: &K, at: Duration) {
        self.ended(key, at);
    }

    /// A write whose fate is unknown: it may take effect at any time, or never.
    pub fn unknown(&mut self, key: &K, value: u64, began: Duration, at: Duration) {
        self.operations += 1;
        self.unknown += 1;
        let zone = self.key(key).zones.entry(value).or_insert(Zone::NONE);
        zone.written = Some(began);
        zone.last_begin = zone.last_begin.max(began);
        self.ended(key, at);
    }

    fn ended(&mut self, key: &K, at: Duration) {
        self.end = self.end.max(at);
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 && entry.zones.len() > ZONES_KEPT {
            entry.judge(key, &mut self.findings);
            entry.forget();
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Report<K> {
        let Self { keys, mut findings, outage, operations, unknown, end } = self;
        let mut keys: Vec<(K, Key)> = keys.into_iter().collect();
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, entry) in keys {
            entry.judge(&key, &mut findings);
        }
        Report { unknown, outage: outage.longest(end), ..findings.report(operations) }
    }
}

impl Key {
    /// Looks for what no order explains: a value read before it was written or never written; two
    /// values each of which must have been there while the other was; a value that must have come
    /// and gone while another was there throughout.
    fn judge<K: Clone>(&self, key: &K, findings: &mut Findings<K>) {
        let mut found = |kind, id, at, because| {
            findings.add(Violation { kind, key: key.clone(), id, at, because });
        };
        let mut zones: Vec<(u64, Zone)> = Vec::with_capacity(self.zones.len());
        for (value, zone) in &self.zones {
            match zone.written {
                _ if zone.is_pending() => continue,
                None if self.newest.is_some() => {
                    found(Kind::Stale, *value, zone.first_end, self.newest);
                    continue;
                }
                None => {
                    found(Kind::Phantom, *value, zone.first_end, None);
                    continue;
                }
                Some(written) if zone.first_end < written => {
                    found(Kind::Phantom, *value, zone.first_end, None);
                }
                Some(_) => {}
            }
            zones.push((*value, *zone));
        }
        // The value at first was there before anything began, also before what began at zero.
        let is_later = |value| value != Register::<()>::INITIAL;
        zones.sort_by_key(|(value, zone)| (is_later(*value), zone.low(), zone.is_forward()));
        // The forward zone that reaches furthest, of those that begin before.
        let mut furthest: Option<(u64, Duration)> = None;
        for (value, zone) in zones {
            let limit = if zone.is_forward() { zone.low() } else { zone.high() };
            let explained = furthest.is_none_or(|(_, high)| high <= limit);
            if !explained {
                found(Kind::NotLinearizable, value, zone.high(), furthest);
            }
            if zone.is_forward() && furthest.is_none_or(|(_, high)| high < zone.high()) {
                furthest = Some((value, zone.high()));
            }
        }
    }

    /// No operation is open: keeps only what may still be read, which is what nothing else has
    /// certainly overwritten, and writes of unknown fate.
    fn forget(&mut self) {
        let happened = |(value, zone): (&u64, &Zone)| {
            let is_value = zone.written.is_some() && !zone.is_pending();
            is_value.then_some((*value, zone.last_begin))
        };
        let mut begins: Vec<(u64, Duration)> = self.zones.iter().filter_map(happened).collect();
        begins.sort_by_key(|(_, begin)| std::cmp::Reverse(*begin));
        let Some(&newest) = begins.first() else { return };
        let second = begins.get(1).copied();
        self.newest = Some(newest);
        self.zones.retain(|value, zone| {
            let other = if *value == newest.0 { second } else { Some(newest) };
            let overwritten = other.is_some_and(|(_, begin)| zone.first_end < begin);
            zone.is_pending() || (zone.written.is_some() && !overwritten)
        });
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::{
        collection::vec,
        prelude::{any, prop_assert_eq, proptest},
    };

    use super::*;
    use crate::history::ms;

    /// Operations with their beginnings and ends, of one key.
    type History = [(Operation, u64, u64)];

    /// Judges `history`, told in the order in which it was seen.
    fn judge(history: &History) -> Report<&'static str> {
        let mut register = Register::new();
        let mut events: Vec<(u64, bool, usize)> = (0..)
            .zip(history)
            .flat_map(|(index, (_, began, ended))| [(*began, false, index), (*ended, true, index)])
            .collect();
        events.sort_unstable();
        for (at, is_end, index) in events {
            let (operation, began, _) = history[index];
            if is_end {
                register.ends(&"k", operation, ms(began), ms(at));
            } else {
                register.begins(&"k", ms(at));
            }
        }
        register.finish()
    }

    /// Tries every order.
    fn is_linearizable(history: &History) -> bool {
        fn go(left: &mut Vec<(Operation, u64, u64)>, value: u64) -> bool {
            if left.is_empty() {
                return true;
            }
            for index in 0..left.len() {
                let (operation, began, ended) = left[index];
                // Whatever ended before this began must come first.
                if left.iter().any(|(_, _, end)| *end < began) {
                    continue;
                }
                let after = match operation {
                    Operation::Write(written) => written,
                    Operation::Read(read) if read == value => value,
                    Operation::Read(_) => continue,
                };
                left.remove(index);
                let worked = go(left, after);
                left.insert(index, (operation, began, ended));
                if worked {
                    return true;
                }
            }
            false
        }
        go(&mut history.to_vec(), Register::<()>::INITIAL)
    }

    #[test]
    fn stale_read() {
        let history = [
            (Operation::Write(1), 0, 10),
            (Operation::Write(2), 20, 30),
            (Operation::Read(1), 40, 50),
        ];
        expect![[r#"
            3 operations, 0 of unknown fate; longest without acknowledgement: 20ms from 10ms; 1 not linearizable
            30ms: not linearizable: "k" 2, contradicts 1 at 40ms"#]]
        .assert_eq(&judge(&history).to_string());
    }

    #[test]
    fn reads_of_what_nobody_wrote() {
        let history = [(Operation::Read(7), 0, 10), (Operation::Write(8), 20, 30)];
        assert_eq!(judge(&history).count(Kind::Phantom), 1);
        let future = [(Operation::Read(8), 0, 10), (Operation::Write(8), 20, 30)];
        assert_eq!(judge(&future).count(Kind::Phantom), 1);
    }

    #[test]
    fn the_first_value_after_a_write_from_the_first_moment() {
        let history = [(Operation::Write(1), 0, 1), (Operation::Read(0), 14, 15)];
        assert_eq!(judge(&history).count(Kind::NotLinearizable), 1);
    }

    #[test]
    fn writes_of_unknown_fate_may_show_late_or_never() {
        let mut register = Register::new();
        for value in [1, 2] {
            register.begins(&(), ms(value));
            register.unknown(&(), value, ms(value), ms(10));
        }
        register.begins(&(), ms(20));
        register.ends(&(), Operation::Read(0), ms(20), ms(21));
        register.begins(&(), ms(30));
        register.ends(&(), Operation::Read(2), ms(30), ms(31));
        let report = register.finish();
        assert!(report.is_good(), "{report}");
        assert_eq!(report.unknown, 2);
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_stale() {
        let mut register = Register::new();
        for value in 1..10_000 {
            for operation in [Operation::Write(value), Operation::Read(value)] {
                register.begins(&1, ms(value));
                register.ends(&1, operation, ms(value), ms(value));
            }
        }
        assert!(register.keys.values().all(|it| it.zones.len() <= ZONES_KEPT + 1));
        register.begins(&1, ms(20_000));
        register.ends(&1, Operation::Read(5), ms(20_000), ms(20_001));
        let report = register.finish();
        assert_eq!(report.count(Kind::Stale), 1, "{report}");
    }

    proptest! {
        /// Says the same as trying every order.
        #[test]
        fn is_exact(
            operations in vec((any::<bool>(), 0..4_u64, 0..20_u64, 0..8_u64), 1..7),
        ) {
            let mut next = 0;
            let history: Vec<(Operation, u64, u64)> = operations
                .into_iter()
                .map(|(write, value, began, length)| {
                    next += u64::from(write);
                    let operation =
                        if write { Operation::Write(next) } else { Operation::Read(value) };
                    // Beginnings and ends never fall together: at equal times any order is right.
                    (operation, began * 2, (began + length) * 2 + 1)
                })
                .collect();
            let report = judge(&history);
            prop_assert_eq!(report.is_good(), is_linearizable(&history), "{:?}\n{}", history, report);
        }

        /// A register that is right passes, however long; a read of what was overwritten is found.
        #[test]
        fn right_passes_and_stale_is_found(
            steps in vec((any::<bool>(), 0..3_u64, 0..3_u64), 200..600),
            inject in any::<bool>(),
        ) {
            let mut history = Vec::new();
            let (mut value, mut now) = (0, 1);
            for (write, before, after) in steps {
                // The moment it happens is `now`; it begins before and ends after, beside others.
                now += 4;
                value += u64::from(write);
                let operation =
                    if write { Operation::Write(value) } else { Operation::Read(value) };
                history.push((operation, now - before.min(now), now + after));
            }
            let end = now + 100;
            history.push((Operation::Write(value + 1), end, end + 1));
            let read = if inject { value } else { value + 1 };
            history.push((Operation::Read(read), end + 10, end + 11));
            let report = judge(&history);
            prop_assert_eq!(report.is_good(), !inject, "{}", report);
        }
    }
}
