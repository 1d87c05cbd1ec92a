//! The time axis of a run: seconds, or in a long run stretches of several, put together exactly
//! (histograms are added, not percentiles averaged). Pure.

use std::collections::BTreeMap;

use crate::{
    exchange::FailureKind,
    report::{
        numbers::{as_f64, as_u64},
        quantiles,
    },
    results::{Second, times},
};

/// Points of a chart at most: more do not fit its pixels.
pub(crate) const SLOTS_MAX: usize = 400;

/// A stretch of a run.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// First second, and the one after the last.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Starts meant, per second.
    pub(crate) meant: f64,
    /// Requests ended, per second.
    pub(crate) done: f64,
    /// Failures by kind, per second.
    pub(crate) failures: BTreeMap<FailureKind, f64>,
    /// Most requests under way at the end of a second of it.
    pub(crate) in_flight: u64,
    /// Late starts, per second.
    pub(crate) late: f64,
    /// Quantiles and maximum of latency, in nanoseconds.
    pub(crate) latency: Option<[u64; 5]>,
}

impl Slot {
    /// Its middle: where its point is.
    pub(crate) fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    /// Failures of all kinds, per second.
    pub(crate) fn failed(&self) -> f64 {
        self.failures.values().sum()
    }
}

/// Cuts a run into slots of the same length; the last may be shorter.
pub(crate) fn slots(seconds: &[Second]) -> Vec<Slot> {
    let size = seconds.len().div_ceil(SLOTS_MAX).max(1);
    let chunks = seconds.chunks(size).enumerate();
    chunks.map(|(index, chunk)| slot(as_f64((index * size) as u64), chunk)).collect()
}

fn slot(from: f64, seconds: &[Second]) -> Slot {
    let length = as_f64(seconds.len().max(1) as u64);
    let mean = |of: fn(&Second) -> u64| as_f64(seconds.iter().map(of).sum()) / length;
    let mut latency = times();
    let mut failures: BTreeMap<FailureKind, f64> = BTreeMap::new();
    for second in seconds {
        latency += &second.latency;
        for (kind, times) in &second.failures {
            *failures.entry(*kind).or_default() += as_f64(*times) / length;
        }
    }
    Slot {
        from,
        to: from + length,
        meant: mean(|it| it.meant),
        done: mean(|it| it.done),
        failures,
        in_flight: seconds.iter().map(|it| it.in_flight).max().unwrap_or(0),
        late: mean(|it| it.late),
        latency: quantiles(&latency),
    }
}

/// Which stretch it is, in words.
pub(crate) fn words(slot: &Slot) -> String {
    let (from, to) = (as_u64(slot.from), as_u64(slot.to));
    if to - from <= 1 { format!("second {from}") } else { format!("seconds {from} to {to}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn a_short_run_has_its_seconds() {
        let slots = slots(&sample().seconds);
        assert_eq!(slots.len(), 10);
        let stalled = &slots[5];
        assert_eq!((stalled.in_flight, stalled.latency), (200, None));
        assert_eq!(words(stalled), "second 5");
    }

    #[test]
    fn a_long_run_keeps_every_request_and_the_maximum() {
        let sample = sample();
        let seconds: Vec<_> = sample.seconds.iter().cycle().take(1001).cloned().collect();
        let slots = slots(&seconds);
        assert_eq!(slots.len(), 334);
        assert_eq!(words(&slots[333]), "seconds 999 to 1001");
        let done: f64 = slots.iter().map(|it| it.done * (it.to - it.from)).sum();
        assert!((done - 100_100.0).abs() < 1e-6, "{done}");
        let max = slots.iter().filter_map(|it| it.latency).map(|[.., max]| max).max();
        assert_eq!(max, Some(sample.total.latency.max()));
    }
}
