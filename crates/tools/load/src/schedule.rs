//! When starts are meant: from stages to an iterator of moments, exactly. Knows no clock; a moment
//! is how long after the beginning of the run it is.
//!
//! The rate is integrated, not sampled: the n-th evenly spaced start is where the integral of the
//! rate reaches n, so a ramp has no steps and a stage hands its fraction of a start to the next.
//! Poisson arrivals are the same with exponential distances instead of 1, which is exact for a rate
//! that changes, too.

use std::time::Duration;

use crate::plan::{Spacing, Stage};

/// What two sums of the same floating-point numbers in different orders may differ by, relatively.
/// A start this close to the end of its stage belongs to the next one.
const ROUNDING: f64 = 1e-9;

/// The meant starts of one flow, ascending.
#[derive(Clone, Debug)]
pub struct Schedule {
    stages: std::vec::IntoIter<Stage>,
    random: fastrand::Rng,
    /// The stage under way.
    stage: Option<Stage>,
    /// When it begins.
    begin: Duration,
    /// Integral of its rate at its first start.
    first: f64,
    /// Starts in it so far: even spacing counts, instead of adding up what would drift.
    count: f64,
}

impl Schedule {
    /// Starts of these stages, one after the other. The same seed gives the same starts.
    #[must_use]
    pub fn new(stages: Vec<Stage>, seed: u64) -> Self {
        let mut stages = stages.into_iter();
        let mut random = fastrand::Rng::with_seed(seed);
        let stage = stages.next();
        let first = match stage.as_ref().map(|it| it.spacing) {
            Some(Spacing::Poisson) => exponential(&mut random),
            Some(Spacing::Even) | None => 0.0,
        };
        Self { stages, random, stage, begin: Duration::ZERO, first, count: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        loop {
            let stage = self.stage.as_ref()?;
            let whole = arrivals(stage);
            let at = self.first + self.count;
            if at < whole * (1.0 - ROUNDING) {
                let moment = self.begin + Duration::from_secs_f64(reached(stage, at));
                match stage.spacing {
                    Spacing::Even => self.count += 1.0,
                    Spacing::Poisson => self.first += exponential(&mut self.random),
                }
                return Some(moment);
            }
            self.begin += stage.duration;
            self.first = (at - whole).max(0.0);
            self.count = 0.0;
            self.stage = self.stages.next();
        }
    }
}

/// How many starts a stage has on average: the integral of its rate.
#[must_use]
pub fn arrivals(stage: &Stage) -> f64 {
    f64::midpoint(stage.from, stage.to) * stage.duration.as_secs_f64()
}

/// Seconds from the beginning of a stage until the integral of its rate reaches `sum`.
///
/// `from * t + (to - from) / (2 * duration) * t² = sum`, solved in the form that loses no digits
/// when `from` and `to` are close.
fn reached(stage: &Stage, sum: f64) -> f64 {
    if sum <= 0.0 {
        return 0.0;
    }
    let duration = stage.duration.as_secs_f64();
    let slope = (stage.to - stage.from) / duration;
    let root = (2.0f64.mul_add(sum * slope, stage.from * stage.from)).max(0.0).sqrt();
    (2.0 * sum / (stage.from + root)).min(duration)
}

/// Distance of two events of a Poisson process of rate 1.
fn exponential(random: &mut fastrand::Rng) -> f64 {
    // f64() is in [0, 1): the logarithm of 0 must not happen.
    -(1.0 - random.f64()).ln()
}

/// A seed of one thing out of the seed of all: splitmix64, so that neighbours have nothing in common.
#[must_use]
pub const fn derive(seed: u64, number: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = seed ^ number.wrapping_add(1).wrapping_mul(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage(seconds: f64, from: f64, to: f64, spacing: Spacing) -> Stage {
        Stage { duration: Duration::from_secs_f64(seconds), from, to, spacing }
    }

    fn starts(stages: &[Stage]) -> Vec<f64> {
        Schedule::new(stages.to_vec(), 1).map(|it| it.as_secs_f64()).collect()
    }

    #[test]
    fn constant_rate_starts_at_once_and_evenly() {
        assert_eq!(starts(&[stage(1.0, 4.0, 4.0, Spacing::Even)]), [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn ramp_is_where_the_integral_of_the_rate_is_whole() {
        // N(t) = 2 t², so the n-th start is at sqrt(n / 2).
        let ramp = starts(&[stage(2.0, 0.0, 8.0, Spacing::Even)]);
        assert_eq!(ramp.len(), 8);
        for (number, at) in (0u32..).zip(&ramp) {
            assert!((at - (f64::from(number) / 2.0).sqrt()).abs() < 1e-8, "{number}: {at}");
        }
        let down = starts(&[stage(2.0, 8.0, 0.0, Spacing::Even)]);
        assert_eq!(down.len(), 8);
    }

    #[test]
    fn stages_hand_on_their_fraction() {
        // 1.5 starts in the first second: the third is half a start into the next.
        let stages = [stage(1.0, 1.5, 1.5, Spacing::Even), stage(1.0, 1.0, 1.0, Spacing::Even)];
        let both = starts(&stages);
        assert_eq!(both.len(), 3);
        assert!((both[2] - 1.5).abs() < 1e-9, "{both:?}");
    }

    #[test]
    fn a_pause_has_no_starts() {
        let stages = [
            stage(1.0, 2.0, 2.0, Spacing::Even),
            stage(5.0, 0.0, 0.0, Spacing::Even),
            stage(1.0, 2.0, 2.0, Spacing::Even),
        ];
        assert_eq!(starts(&stages), [0.0, 0.5, 6.0, 6.5]);
        assert_eq!(starts(&[stage(1.0, 0.0, 0.0, Spacing::Poisson)]), Vec::<f64>::new());
    }

    /// Kolmogorov-Smirnov: with n samples, the largest distance from the right distribution stays
    /// below 1.63 / sqrt(n) in 99 of 100 cases; the seed makes this one of them, always.
    #[test]
    fn poisson_distances_are_exponential() {
        let moments = starts(&[stage(100.0, 200.0, 200.0, Spacing::Poisson)]);
        let mut distances: Vec<f64> = moments.windows(2).map(|it| it[1] - it[0]).collect();
        distances.sort_by(f64::total_cmp);
        let count = f64::from(u32::try_from(distances.len()).unwrap());
        let worst = (1u32..)
            .zip(&distances)
            .map(|(rank, it)| ((1.0 - (-it * 200.0).exp()) - f64::from(rank) / count).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1.63 / count.sqrt(), "{worst} of {count}");
    }

    fn any_stages(spacing: Spacing) -> impl Strategy<Value = Vec<Stage>> {
        let any = (1u64..5_000, 0.0..500.0f64, 0.0..500.0f64).prop_map(move |(ms, from, to)| {
            Stage { duration: Duration::from_millis(ms), from, to, spacing }
        });
        prop::collection::vec(any, 0..6)
    }

    proptest! {
        #[test]
        fn count_is_the_integral_of_the_rate(stages in any_stages(Spacing::Even)) {
            let sum: f64 = stages.iter().map(arrivals).sum();
            let count = u32::try_from(starts(&stages).len()).unwrap();
            prop_assert!((f64::from(count) - sum.ceil()).abs() <= 1.0, "{count} of {sum}");
        }

        #[test]
        fn starts_ascend_within_the_stages(
            even in any_stages(Spacing::Even),
            poisson in any_stages(Spacing::Poisson),
        ) {
            let stages = [even, poisson].concat();
            let end: Duration = stages.iter().map(|it| it.duration).sum();
            let starts: Vec<Duration> = Schedule::new(stages, 7).collect();
            prop_assert!(starts.is_sorted());
            prop_assert!(starts.last().is_none_or(|it| *it <= end));
        }

        #[test]
        fn the_seed_decides(stages in any_stages(Spacing::Poisson), seed: u64) {
            let of = |seed| Schedule::new(stages.clone(), seed).collect::<Vec<_>>();
            prop_assert_eq!(of(seed), of(seed));
            if of(seed).len() > 3 {
                prop_assert_ne!(of(seed), of(seed ^ 1));
            }
        }
    }
}
