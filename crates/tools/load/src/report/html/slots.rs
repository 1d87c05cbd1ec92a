//! The time axis of a run: seconds, or in a long run stretches of several, put together exactly
//! (histograms are added, not percentiles averaged). Pure.

use std::collections::BTreeMap;

use crate::{
    exchange::FailureKind,
    report::{
        numbers::{as_f64, as_u64},
        quantiles,
        stretch::{SHORT, Stretch, stretches},
    },
    results::{Results, Second, times},
};

/// Points of a chart at most: more do not fit its pixels.
pub(crate) const SLOTS_MAX: usize = 400;

/// A stretch of a run.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// When it begins and ends, in seconds.
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

/// Cuts a run into slots of the same length; the last is as long as the run was.
pub(crate) fn slots(run: &Results) -> Vec<Slot> {
    let size = run.seconds.len().div_ceil(SLOTS_MAX);
    let stretches = stretches(run.seconds.len(), size, run.took.as_secs_f64());
    stretches.into_iter().map(|it| slot(&it, run)).collect()
}

fn slot(stretch: &Stretch, run: &Results) -> Slot {
    let seconds = run.seconds.get(stretch.seconds.clone()).unwrap_or_default();
    let (from, length) = (as_f64(stretch.seconds.start as u64), stretch.length);
    // Starts are meant until the schedule ends, not until the last answer.
    let until = run.planned.as_secs_f64().min(as_f64(stretch.seconds.end as u64));
    let meant_for = until - from;
    let meant_for = if meant_for < SHORT.min(length / 2.0) { length } else { meant_for };
    let per = |length: f64, of: fn(&Second) -> u64| as_f64(seconds.iter().map(of).sum()) / length;
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
        meant: per(meant_for, |it| it.meant),
        done: per(length, |it| it.done),
        failures,
        in_flight: seconds.iter().map(|it| it.in_flight).max().unwrap_or(0),
        late: per(meant_for, |it| it.late),
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
    use std::time::Duration;

    #[test]
    fn a_short_run_has_its_seconds() {
        let slots = slots(&sample());
        assert_eq!(slots.len(), 10);
        let stalled = &slots[5];
        assert_eq!((stalled.in_flight, stalled.latency), (200, None));
        assert_eq!(words(stalled), "second 5");
    }

    #[test]
    fn what_is_left_of_the_last_second_is_no_fall_of_the_rate() {
        let mut run = sample();
        let answers = Second { done: 3, ..Second::default() };
        run.seconds.push(answers);
        run.took = Duration::from_millis(10_015);
        let slots = slots(&run);
        let last = slots.last().unwrap();
        assert_eq!((slots.len(), words(last)), (10, "second 9".to_owned()));
        assert!((last.meant - 100.0).abs() < 1e-9, "{last:?}");
        assert!((last.done - 103.0 / 1.015).abs() < 1e-9, "{last:?}");
    }

    #[test]
    fn rates_of_less_than_a_second_are_per_second() {
        let mut run = sample();
        run.seconds.truncate(1);
        run.seconds[0].meant = 10;
        run.seconds[0].done = 9;
        run.planned = Duration::from_millis(200);
        run.took = Duration::from_millis(300);
        let short = slots(&run);
        assert!((short[0].meant - 50.0).abs() < 1e-9 && (short[0].done - 30.0).abs() < 1e-9);
        // The last answer may come before the schedule ends.
        run.took = Duration::from_millis(180);
        let slots = slots(&run);
        assert!((slots[0].meant - 50.0).abs() < 1e-9 && (slots[0].done - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_run_keeps_every_request_and_the_maximum() {
        let sample = sample();
        let mut run = sample.clone();
        run.seconds = sample.seconds.iter().cycle().take(1001).cloned().collect();
        run.took = Duration::from_secs(1001);
        let slots = slots(&run);
        assert_eq!(slots.len(), 334);
        assert_eq!(words(&slots[333]), "seconds 999 to 1001");
        let done: f64 = slots.iter().map(|it| it.done * (it.to - it.from)).sum();
        assert!((done - 100_100.0).abs() < 1e-6, "{done}");
        let max = slots.iter().filter_map(|it| it.latency).map(|[.., max]| max).max();
        assert_eq!(max, Some(sample.total.latency.max()));
    }
}
