//! A run cut into stretches of seconds, for charts and for comparing. Pure.
//!
//! Runs do not end with a second: what is left of the last one is as long as it is, and so short most
//! often that a few answers in it would look like a rate ten times as high, or a hundred times as low.

use std::ops::Range;

use super::numbers::as_f64;

/// An end of a run that is shorter than this, in seconds, belongs to the stretch before it.
pub(crate) const SHORT: f64 = 0.5;
/// No stretch is shorter than this, in seconds: something is divided by it.
const LENGTH_MIN: f64 = 1e-3;

/// Consecutive seconds of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stretch {
    /// Which, counted from 0.
    pub(crate) seconds: Range<usize>,
    /// How long they are together, in seconds.
    pub(crate) length: f64,
}

/// Cuts a run of so many seconds, the last of which may have been cut short when the run had taken
/// `took`, into stretches of `size` of them. The last may be shorter.
pub(crate) fn stretches(seconds: usize, size: usize, took: f64) -> Vec<Stretch> {
    let size = size.max(1);
    let whole = seconds.saturating_sub(1);
    let end = took.clamp(as_f64(whole as u64), as_f64(seconds as u64));
    let mut starts: Vec<usize> = (0..seconds).step_by(size).collect();
    if starts.len() > 1 && starts.last() == Some(&whole) && end - as_f64(whole as u64) < SHORT {
        starts.pop();
    }
    let ends = starts.iter().skip(1).copied().chain([seconds]);
    let stretch = |(from, to): (usize, usize)| {
        let end = end.min(as_f64(to as u64));
        let length = (end - as_f64(from as u64)).max(LENGTH_MIN);
        Stretch { seconds: from..to, length }
    };
    starts.iter().copied().zip(ends).map(stretch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(runs: &[(usize, usize, f64)], expected: Expect) {
        let lines = runs.iter().map(|(seconds, size, took)| {
            let stretches = stretches(*seconds, *size, *took);
            let stretches =
                stretches.iter().map(|it| format!("{:?}: {:.3}", it.seconds, it.length));
            stretches.collect::<Vec<_>>().join(", ") + "\n"
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn the_end_is_as_long_as_it_is() {
        check(
            &[
                (3, 1, 3.0),
                (3, 1, 2.9),
                (3, 1, 2.015),
                (3, 2, 2.015),
                (4, 2, 3.015),
                (1, 1, 0.182),
                (1, 1, 0.0),
                (2, 1, 9.0),
                (0, 1, 0.0),
            ],
            expect![[r#"
                0..1: 1.000, 1..2: 1.000, 2..3: 1.000
                0..1: 1.000, 1..2: 1.000, 2..3: 0.900
                0..1: 1.000, 1..3: 1.015
                0..3: 2.015
                0..2: 2.000, 2..4: 1.015
                0..1: 0.182
                0..1: 0.001
                0..1: 1.000, 1..2: 1.000

            "#]],
        );
    }

    proptest! {
        #[test]
        fn no_second_is_lost(seconds in 0..2000_usize, size in 0..70_usize, rest in 0.0..=1.0_f64) {
            let took = (as_f64(seconds as u64) - rest).max(0.0);
            let stretches = stretches(seconds, size, took);
            let all: Vec<usize> = stretches.iter().flat_map(|it| it.seconds.clone()).collect();
            prop_assert_eq!(all, (0..seconds).collect::<Vec<_>>());
            let length: f64 = stretches.iter().map(|it| it.length).sum();
            prop_assert!((length - took).abs() < 2.0 * LENGTH_MIN, "{} {}", length, took);
        }
    }
}
