//! Which events are written: repetitions become a count, similar ones are combined, floods are cut.
//!
//! The rules and numbers are those of `EventCorrelator` in client-go
//! (tools/record/events_cache.go). Pure: the time is handed in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::api::Patch;
use serde_json::json;

use super::EventType;

/// What is remembered of past events, per purpose; the longest unused is forgotten first.
const REMEMBERED_MAX: usize = 4096;

/// From this many different notes with the same reason on, they are combined into one event.
const SIMILAR_MAX: usize = 10;

/// Notes further apart than this are not combined.
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Events about one object that are written at once before the rate below holds.
const BURST: f64 = 25.0;

/// Then, one event about an object in this time.
const REFILL: SignedDuration = SignedDuration::from_mins(5);

/// Something that happened, as it was recorded.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) about: ObjectReference,
    pub(super) kind: EventType,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// An event to write; one that is there already, if its count is over one.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) event: Event,
}

impl Write {
    /// What has changed in an event that was written before.
    pub(super) fn patch(&self) -> Option<Patch<serde_json::Value>> {
        let count = self.event.count.filter(|it| 1 < *it)?;
        Some(Patch::Merge(json!({
            "count": count,
            "lastTimestamp": self.event.last_timestamp,
            "message": self.event.message,
        })))
    }
}

/// The object of an event, apart from its revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct About([String; 5]);

impl About {
    fn new(it: &ObjectReference) -> Self {
        let fields = [&it.api_version, &it.kind, &it.namespace, &it.name, &it.uid];
        Self(fields.map(|it| it.clone().unwrap_or_default()))
    }
}

type Similar = (About, EventType, &'static str);

/// Decides what becomes of each occurrence.
#[derive(Debug)]
pub(super) struct Correlator {
    component: &'static str,
    host: String,
    /// Makes names differ when the clock does not.
    names: i128,
    notes: Remembered<Similar, Notes>,
    written: Remembered<(Similar, String, Option<String>), Event>,
    rates: Remembered<About, Rate>,
}

#[derive(Debug, Default)]
struct Notes {
    distinct: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Debug)]
struct Rate {
    left: f64,
    last: Timestamp,
}

impl Correlator {
    pub(super) fn new(component: &'static str, host: &str) -> Self {
        Self {
            component,
            host: host.to_owned(),
            names: 0,
            notes: Remembered::default(),
            written: Remembered::default(),
            rates: Remembered::default(),
        }
    }

    /// What to write because of `occurrence`; `None` if its object has too many events.
    pub(super) fn observe(&mut self, occurrence: &Occurrence, now: Timestamp) -> Option<Write> {
        let Occurrence { about, kind, reason, note } = occurrence;
        let similar = (About::new(about), *kind, *reason);
        let (distinguishing, note) = if self.too_many_notes(&similar, note, now) {
            (String::new(), format!("(combined from similar events): {note}"))
        } else {
            (note.clone(), note.clone())
        };
        let identity = (similar, distinguishing, about.field_path.clone());
        let event = match self.written.get(&identity) {
            Some(last) => Event {
                count: last.count.map(|it| it.saturating_add(1)),
                last_timestamp: Some(Time(now)),
                message: Some(note),
                ..last.clone()
            },
            None => self.first(occurrence, note, now),
        };
        if !self.may_write(&identity.0.0, now) {
            return None;
        }
        self.written.put(identity, event.clone());
        Some(Write { event })
    }

    fn too_many_notes(&mut self, similar: &Similar, note: &str, now: Timestamp) -> bool {
        let mut notes = self.notes.take(similar).unwrap_or_default();
        if SIMILAR_WITHIN < now.duration_since(notes.last) {
            notes.distinct.clear();
        }
        notes.last = now;
        notes.distinct.insert(note.to_owned());
        let too_many = SIMILAR_MAX <= notes.distinct.len();
        if too_many {
            notes.distinct.pop_first();
        }
        self.notes.put(similar.clone(), notes);
        too_many
    }

    /// A token bucket per object.
    fn may_write(&mut self, about: &About, now: Timestamp) -> bool {
        let mut rate = self.rates.take(about).unwrap_or(Rate { left: BURST, last: now });
        let passed = now.duration_since(rate.last).as_secs_f64().max(0.0);
        rate.left = (rate.left + passed / REFILL.as_secs_f64()).min(BURST);
        rate.last = now;
        let may = 1.0 <= rate.left;
        if may {
            rate.left -= 1.0;
        }
        self.rates.put(about.clone(), rate);
        may
    }

    fn first(&mut self, occurrence: &Occurrence, note: String, now: Timestamp) -> Event {
        let Occurrence { about, kind, reason, .. } = occurrence;
        self.names += 1;
        let unique = now.as_nanosecond() + self.names;
        let name = format!("{}.{unique:x}", about.name.as_deref().unwrap_or_default());
        // Events about objects without a namespace live in this one.
        let namespace = about.namespace.clone().filter(|it| !it.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let metadata =
            ObjectMeta { name: Some(name), namespace: Some(namespace), ..Default::default() };
        let host = Some(self.host.clone()).filter(|it| !it.is_empty());
        Event {
            metadata,
            involved_object: about.clone(),
            type_: Some(kind.as_str().to_owned()),
            reason: Some((*reason).to_owned()),
            message: Some(note),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: host.clone(),
            source: Some(EventSource { component: Some(self.component.to_owned()), host }),
            ..Default::default()
        }
    }
}

/// A map of bounded size that forgets what was put in longest ago.
#[derive(Debug)]
struct Remembered<K, V> {
    values: BTreeMap<K, (u64, V)>,
    ages: BTreeMap<u64, K>,
    age_next: u64,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), ages: BTreeMap::new(), age_next: 0 }
    }
}

impl<K: Clone + Ord, V> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let (age, value) = self.values.remove(key)?;
        self.ages.remove(&age);
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        drop(self.take(&key));
        self.ages.insert(self.age_next, key.clone());
        self.values.insert(key, (self.age_next, value));
        self.age_next += 1;
        if REMEMBERED_MAX < self.values.len()
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Notes, each with the second it was recorded in; shows what is written.
    #[track_caller]
    fn check(notes: impl IntoIterator<Item = (i64, String)>, expect: Expect) {
        let mut correlator = Correlator::new("tester", "");
        let about = ObjectReference { name: Some("p".to_owned()), ..Default::default() };
        let mut shown = String::new();
        for (second, note) in notes {
            let about = about.clone();
            let occurrence = Occurrence { about, kind: EventType::Normal, reason: "Created", note };
            let now = Timestamp::from_second(second).unwrap();
            let write = correlator.observe(&occurrence, now);
            let line = write.map(|it| it.event).map(|it| {
                format!(
                    "{} x{} {}",
                    it.metadata.name.unwrap(),
                    it.count.unwrap(),
                    it.message.unwrap()
                )
            });
            shown += &(line.unwrap_or("-".to_owned()) + "\n");
        }
        expect.assert_eq(&shown);
    }

    #[test]
    fn repetitions_are_counted() {
        check(
            [(0, "one"), (1, "two"), (2, "one"), (9, "one")].map(|(at, it)| (at, it.to_owned())),
            expect![[r#"
                p.1 x1 one
                p.3b9aca02 x1 two
                p.1 x2 one
                p.1 x3 one
            "#]],
        );
    }

    #[test]
    fn many_similar_events_are_combined() {
        check(
            (1..13).map(|n| (0, format!("pod {n}"))),
            expect![[r#"
                p.1 x1 pod 1
                p.2 x1 pod 2
                p.3 x1 pod 3
                p.4 x1 pod 4
                p.5 x1 pod 5
                p.6 x1 pod 6
                p.7 x1 pod 7
                p.8 x1 pod 8
                p.9 x1 pod 9
                p.a x1 (combined from similar events): pod 10
                p.a x2 (combined from similar events): pod 11
                p.a x3 (combined from similar events): pod 12
            "#]],
        );
    }

    #[test]
    fn a_flood_is_cut() {
        let (mut correlator, mut written) = (Correlator::new("tester", ""), 0);
        let occurrence = Occurrence {
            about: ObjectReference::default(),
            kind: EventType::Warning,
            reason: "BackOff",
            note: "again".to_owned(),
        };
        for second in 0..3600 {
            let now = Timestamp::from_second(second).unwrap();
            written += usize::from(correlator.observe(&occurrence, now).is_some());
        }
        assert_eq!(written, 25 + 11);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::default();
        for n in 0..=REMEMBERED_MAX {
            remembered.put(n, ());
        }
        assert_eq!((remembered.get(&0), remembered.get(&1)), (None, Some(&())));
    }
}
