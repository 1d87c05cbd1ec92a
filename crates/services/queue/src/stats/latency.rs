//! How long messages take from publishing to finishing, over a sliding window.
//!
//! Two histograms per channel, each for half of the window: one is filled while the other ages, so
//! that what is told covers between a half and all of it, as in the original. Nothing is kept if
//! no percentile was asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::wire::{Latency as Told, Percentile};
use crate::name::Name;

/// Told to one part in a hundred, which costs 9 kB a histogram.
const DIGITS: u8 = 2;

/// Shorter times count as this long: 1 µs.
const NANOS_MIN: u64 = 1_000;

/// Longer times count as this long: a week.
const NANOS_MAX: u64 = 7 * 24 * 3_600 * 1_000_000_000;

/// The latencies of all channels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Latencies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Vec<f64>,
    half: Duration,
    channels: Mutex<BTreeMap<(Name, Name), Arc<Latency>>>,
}

/// The latencies of one channel.
#[derive(Debug)]
pub struct Latency {
    half: Duration,
    halves: Mutex<Halves>,
}

#[derive(Debug)]
struct Halves {
    current: Histogram<u32>,
    previous: Histogram<u32>,
    since: Instant,
}

impl Latencies {
    /// Keeps what is needed to tell the `parts` (0.99: all but one of a hundred) of the last
    /// `window`; nothing if there are none.
    #[must_use]
    pub fn new(parts: Vec<f64>, window: Duration) -> Self {
        let half = (window / 2).max(Duration::from_millis(1));
        Self(Arc::new(Inner { parts, half, channels: Mutex::default() }))
    }

    /// Where a consumer of a channel records; `None` if nobody asked for percentiles.
    #[must_use]
    pub fn recorder(&self, topic: &Name, channel: &Name) -> Option<Arc<Latency>> {
        if self.0.parts.is_empty() {
            return None;
        }
        let key = (topic.clone(), channel.clone());
        let fresh = || {
            let (current, previous) = (histogram(), histogram());
            let halves = Mutex::new(Halves { current, previous, since: Instant::now() });
            Arc::new(Latency { half: self.0.half, halves })
        };
        Some(Arc::clone(lock(&self.0.channels).entry(key).or_insert_with(fresh)))
    }

    /// Forgets channels that are gone, by asking of each whether it is there.
    pub fn retain(&self, mut there: impl FnMut(&Name, &Name) -> bool) {
        lock(&self.0.channels).retain(|(topic, channel), _| there(topic, channel));
    }

    pub(super) fn of_channel(&self, topic: &Name, channel: &Name) -> Told {
        let key = (topic.clone(), channel.clone());
        let found = lock(&self.0.channels).get(&key).cloned();
        self.told(found.as_slice())
    }

    pub(super) fn of_topic(&self, topic: &Name) -> Told {
        let channels = lock(&self.0.channels);
        let here = channels.iter().filter(|((it, _), _)| it == topic);
        let here: Vec<_> = here.map(|(_, latency)| Arc::clone(latency)).collect();
        drop(channels);
        self.told(&here)
    }

    fn told(&self, channels: &[Arc<Latency>]) -> Told {
        if channels.is_empty() && self.0.parts.is_empty() {
            return Told::default();
        }
        let mut all = histogram();
        for channel in channels {
            let halves = channel.halves();
            add(&mut all, &halves.current);
            add(&mut all, &halves.previous);
        }
        let percentile = |part: &f64| Percentile {
            quantile: *part,
            value: if all.is_empty() { 0 } else { all.value_at_quantile(*part) },
        };
        let percentiles = Some(self.0.parts.iter().map(percentile).collect());
        Told { count: all.len(), percentiles }
    }
}

impl Latency {
    /// A message was finished so long after it was published.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(NANOS_MAX);
        self.halves().current.saturating_record(nanos.clamp(NANOS_MIN, NANOS_MAX));
    }

    fn halves(&self) -> MutexGuard<'_, Halves> {
        let mut halves = lock(&self.halves);
        let age = halves.since.elapsed();
        if age >= self.half {
            let Halves { current, previous, since } = &mut *halves;
            std::mem::swap(current, previous);
            current.reset();
            if age >= self.half * 2 {
                // Nothing happened for so long that both are old.
                previous.reset();
                *since = Instant::now();
            } else {
                *since += self.half;
            }
        }
        halves
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS).expect("valid bounds")
}

#[expect(clippy::expect_used, reason = "all histograms have the same bounds")]
fn add(all: &mut Histogram<u32>, more: &Histogram<u32>) {
    all.add(more).expect("the same bounds");
}

/// A panic under one of these locks leaves figures that are at worst a little old.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn near(value: u64, expected_ms: u64) -> bool {
        let expected = expected_ms * 1_000_000;
        value.abs_diff(expected) <= expected / 50
    }

    #[tokio::test(start_paused = true)]
    async fn tells_the_parts_that_were_asked_for() {
        let latencies = Latencies::new(vec![1.0, 0.5], Duration::from_secs(60));
        let one = latencies.recorder(&name("t"), &name("a")).unwrap();
        let two = latencies.recorder(&name("t"), &name("b")).unwrap();
        for ms in [10, 20, 30] {
            one.record(Duration::from_millis(ms));
        }
        two.record(Duration::from_secs(1));
        let told = latencies.of_channel(&name("t"), &name("a"));
        assert_eq!(told.count, 3);
        let parts = told.percentiles.unwrap();
        assert!(near(parts[0].value, 30) && near(parts[1].value, 20), "{parts:?}");
        let told = latencies.of_topic(&name("t"));
        assert_eq!(told.count, 4);
        assert!(near(told.percentiles.unwrap()[0].value, 1000));
        latencies.retain(|_, channel| channel.as_str() == "b");
        assert_eq!(latencies.of_topic(&name("t")).count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_after_the_window() {
        let latencies = Latencies::new(vec![0.99], Duration::from_secs(60));
        let channel = latencies.recorder(&name("t"), &name("c")).unwrap();
        let count = || latencies.of_channel(&name("t"), &name("c")).count;
        channel.record(Duration::from_millis(1));
        tokio::time::advance(Duration::from_secs(31)).await;
        channel.record(Duration::from_millis(1));
        assert_eq!(count(), 2);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(count(), 1);
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(count(), 0);
    }

    #[test]
    fn keeps_nothing_unasked() {
        let latencies = Latencies::new(Vec::new(), Duration::from_secs(60));
        assert!(latencies.recorder(&name("t"), &name("c")).is_none());
        assert_eq!(latencies.of_topic(&name("t")), Told::default());
    }
}
