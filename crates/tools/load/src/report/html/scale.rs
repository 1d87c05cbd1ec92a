//! Scales of charts: where a value stands, and which values are named. Pure.

use crate::report::numbers;

/// How values are laid out between two ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// The same distance for the same difference. From 0.
    Linear {
        /// Value at the end.
        high: f64,
        /// Between two ticks.
        step: f64,
    },
    /// The same distance for the same ratio.
    Log {
        /// Value at the beginning; above 0.
        low: f64,
        /// Value at the end.
        high: f64,
    },
}

/// About so many steps on a linear scale.
const STEPS: f64 = 5.0;
/// Up to so many decades 2 and 5 are named as well.
const DECADES_FINE: f64 = 2.0;

impl Scale {
    /// From 0 to a round number not below `most`.
    pub(crate) fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / STEPS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * power).into_iter().find(|it| *it >= rough);
        let step = step.unwrap_or(rough);
        Self::Linear { high: (most / step - 1e-9).ceil() * step, step }
    }

    /// The same for what is counted in whole numbers: no tick is between two of them.
    pub(crate) fn whole(most: u64) -> Self {
        let most = numbers::as_f64(most.max(1));
        if most < STEPS { Self::Linear { high: most, step: 1.0 } } else { Self::linear(most) }
    }

    /// Of seconds of a run: steps are those of a clock.
    pub(crate) fn clock(seconds: f64) -> Self {
        const STEPS: [f64; 16] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
            7200.0, 21_600.0, 86_400.0,
        ];
        let step = STEPS.into_iter().find(|it| seconds / it <= 12.0).unwrap_or(seconds / 10.0);
        Self::Linear { high: seconds.max(1.0), step }
    }

    /// Between round numbers around two values above 0.
    pub(crate) fn log(least: f64, most: f64) -> Self {
        let mut low = numbers::round_below(least);
        let high = numbers::round_above(most).max(low * 2.0);
        if (high / low).log10() > DECADES_FINE {
            // Only decades are named: the end at the origin should be one.
            low = 10_f64.powf(low.log10().floor());
        }
        Self::Log { low, high }
    }

    /// Where a value stands: 0 at the beginning, 1 at the end, and never beyond.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { high, .. } => value / high,
            Self::Log { low, high } => (value.max(*low) / low).ln() / (high / low).ln(),
        };
        place.clamp(0.0, 1.0)
    }

    /// Values that are named, ascending.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        match self {
            Self::Linear { high, step } => {
                let count = numbers::as_u64((high / step + 1e-9).floor());
                (0..=count).map(|it| numbers::as_f64(it) * step).collect()
            }
            Self::Log { low, high } => {
                let is_fine = (high / low).log10() <= DECADES_FINE;
                let factors: &[f64] = if is_fine { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let mut power = 10_f64.powf(low.log10().floor());
                let mut ticks = Vec::new();
                while power <= high * 1.000_001 {
                    let all = factors.iter().map(|it| it * power);
                    ticks
                        .extend(all.filter(|it| (low * 0.999_999..=high * 1.000_001).contains(it)));
                    power *= 10.0;
                }
                ticks
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(scales: &[Scale], expected: Expect) {
        let ticks =
            scales.iter().map(|it| it.ticks().iter().map(|it| format!("{it:.4}")).collect());
        let lines: Vec<_> = ticks.map(|it: Vec<String>| it.join(" ")).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn ticks_are_round() {
        let scales = [
            Scale::linear(0.0),
            Scale::linear(87.0),
            Scale::linear(1000.0),
            Scale::whole(0),
            Scale::whole(3),
            Scale::whole(7),
            Scale::clock(10.0),
            Scale::clock(95.0),
            Scale::log(0.0034, 0.047),
            Scale::log(0.002, 2.0),
            Scale::log(1.0, 1.0),
        ];
        check(
            &scales,
            expect![[r#"
                0.0000 0.2000 0.4000 0.6000 0.8000 1.0000
                0.0000 20.0000 40.0000 60.0000 80.0000 100.0000
                0.0000 200.0000 400.0000 600.0000 800.0000 1000.0000
                0.0000 1.0000
                0.0000 1.0000 2.0000 3.0000
                0.0000 2.0000 4.0000 6.0000 8.0000
                0.0000 1.0000 2.0000 3.0000 4.0000 5.0000 6.0000 7.0000 8.0000 9.0000 10.0000
                0.0000 10.0000 20.0000 30.0000 40.0000 50.0000 60.0000 70.0000 80.0000 90.0000
                0.0020 0.0050 0.0100 0.0200 0.0500
                0.0010 0.0100 0.1000 1.0000
                1.0000 2.0000"#]],
        );
    }

    proptest! {
        #[test]
        fn what_a_scale_is_made_for_fits(least in 1e-9..1e3_f64, ratio in 1.0..1e6_f64) {
            let most = least * ratio;
            for scale in [Scale::linear(most), Scale::log(least, most), Scale::clock(most)] {
                prop_assert!((0.0..=1.0).contains(&scale.place(least)));
                let (low, high) = match scale {
                    Scale::Linear { high, .. } => (0.0, high),
                    Scale::Log { low, high } => (low, high),
                };
                prop_assert!(low <= least * 1.000_01 && most <= high * 1.000_01, "{scale:?}");
                let ticks = scale.ticks();
                prop_assert!((1..=14).contains(&ticks.len()), "{:?} {:?}", scale, ticks);
                prop_assert!(ticks.is_sorted());
            }
        }
    }
}
