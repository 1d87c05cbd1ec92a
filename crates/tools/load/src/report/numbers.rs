//! Numbers as people read them: three digits that matter, a unit, groups of thousands. Nothing here
//! is read back by a machine; `wire` is for that.

/// Nanoseconds as `1.20 ms`.
pub(crate) fn time(nanoseconds: u64) -> String {
    if nanoseconds == 0 {
        return "0".to_owned();
    }
    scaled(as_f64(nanoseconds), 1000.0, &["ns", "µs", "ms", "s"])
}

/// Seconds as `1.20 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    scaled(seconds * 1e9, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Nanoseconds at a tick of an axis, which is a round number: `5 ms`.
pub(crate) fn tick(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let unit = units.into_iter().find(|(size, _)| nanoseconds > size * 0.999);
    let (size, unit) = unit.unwrap_or((1.0, "ns"));
    let value = nanoseconds / size;
    // Powers of ten are off by a little.
    let whole = value.round();
    let value = if (value - whole).abs() < 1e-6 { whole } else { value };
    if value >= 1.0 {
        format!("{} {unit}", count(as_u64(value)))
    } else {
        format!("{value} {unit}")
    }
}

/// Bytes as `1.20 MB`; a kB is 1000 of them.
pub(crate) fn bytes(bytes: f64) -> String {
    if bytes == 0.0 {
        return "0 B".to_owned();
    }
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

/// A count as `1 234 567`.
pub(crate) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// A count and what it counts, in English: `1 request`, `1 234 requests`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number))
}

/// Something per second as `999.8` or `12 345`.
pub(crate) fn rate(rate: f64) -> String {
    let decimals = if rate < 10.0 {
        2
    } else if rate < 10_000.0 {
        1
    } else {
        0
    };
    grouped(&format!("{rate:.decimals$}"))
}

/// A share, 0 to 1, as `0.02 %`. What is there is never printed as nothing.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.01 {
        return "<0.01 %".to_owned();
    }
    let decimals = if percent == 0.0 || percent == 100.0 {
        0
    } else if percent < 10.0 {
        2
    } else {
        1
    };
    format!("{percent:.decimals$} %")
}

/// How much of `whole` is `part`, 0 to 1.
pub(crate) fn part(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { as_f64(part) / as_f64(whole) }
}

/// A count as a float. Exact up to 2⁵³; above that nobody counts by ones.
#[expect(clippy::cast_precision_loss, reason = "a printed number has fewer digits")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A float as a count: rounded, and held within what a count can be.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is wanted"
)]
pub(crate) fn as_u64(value: f64) -> u64 {
    value.round() as u64
}

/// The greatest of 1, 2 and 5 times a power of ten that is not above `value`, which is above 0.
pub(crate) fn round_below(value: f64) -> f64 {
    let found = round_numbers(value).into_iter().rev().find(|it| *it <= value * (1.0 + SLACK));
    found.unwrap_or(value)
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`, which is above 0.
pub(crate) fn round_above(value: f64) -> f64 {
    let found = round_numbers(value).into_iter().find(|it| *it >= value * (1.0 - SLACK));
    found.unwrap_or(value)
}

/// What a power of ten is off by must not push a round number to the next.
const SLACK: f64 = 1e-9;

fn round_numbers(value: f64) -> [f64; 4] {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|it| it * power)
}

/// `value` in the largest unit in which it is at least 1, with three digits that matter.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter().peekable();
    loop {
        let Some(unit) = units.next() else {
            return value.to_string();
        };
        // Just below the next unit three digits would round up to it: 999.7 µs is 1.00 ms.
        if value < step - 0.5 || units.peek().is_none() {
            return format!("{} {unit}", digits(value));
        }
        value /= step;
    }
}

/// Three digits that matter, as many as a histogram keeps.
fn digits(value: f64) -> String {
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    grouped(&format!("{value:.decimals$}"))
}

/// Thousands apart, of the part before the point.
fn grouped(number: &str) -> String {
    let (whole, rest) = number.find('.').map_or((number, ""), |at| number.split_at(at));
    let mut grouped = String::with_capacity(number.len() + number.len() / 3);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check<T: Copy>(print: fn(T) -> String, values: &[T], expected: Expect) {
        let printed: Vec<_> = values.iter().map(|it| print(*it)).collect();
        expected.assert_eq(&printed.join(", "));
    }

    #[test]
    fn times() {
        check(
            time,
            &[0, 1, 999, 1_000, 1_200_000, 12_345_678, 999_499_999, 999_700_000, 1_900_000_000],
            expect!["0, 1.00 ns, 999 ns, 1.00 µs, 1.20 ms, 12.3 ms, 999 ms, 1.00 s, 1.90 s"],
        );
        check(
            time,
            &[9_994, 9_996, 99_949, 99_951, 59_900_000_000, 3_600_000_000_000],
            expect!["9.99 µs, 10.0 µs, 99.9 µs, 100 µs, 59.9 s, 3 600 s"],
        );
        check(seconds, &[0.0, 0.0012, 1.9, 0.000_000_25], expect!["0, 1.20 ms, 1.90 s, 250 ns"]);
    }

    #[test]
    fn counts_rates_shares_and_sizes() {
        check(count, &[0, 999, 1_000, 1_234_567], expect!["0, 999, 1 000, 1 234 567"]);
        check(
            |it| counted(it, "request"),
            &[0, 1, 2_000],
            expect!["0 requests, 1 request, 2 000 requests"],
        );
        check(
            rate,
            &[0.0, 1.5, 99.95, 999.84, 1_000.0, 12_345.6],
            expect!["0.00, 1.50, 100.0, 999.8, 1 000.0, 12 346"],
        );
        check(
            share,
            &[0.0, 0.000_01, 0.0002, 0.032, 0.5, 1.0],
            expect!["0 %, <0.01 %, 0.02 %, 3.20 %, 50.0 %, 100 %"],
        );
        check(
            bytes,
            &[0.0, 999.0, 1_000.0, 1_234_567.0, 1.5e15],
            expect!["0 B, 999 B, 1.00 kB, 1.23 MB, 1 500 TB"],
        );
    }

    #[test]
    fn round_numbers_are_their_own_neighbours() {
        for value in [1.0, 2.0, 5.0, 10.0, 0.001, 2e6, 5e-9] {
            let (below, above) = (round_below(value), round_above(value));
            assert!((below / value - 1.0).abs() < 1e-6 && (above / value - 1.0).abs() < 1e-6);
        }
    }

    proptest! {
        #[test]
        fn a_value_is_between_its_neighbours(value in 1e-9..1e12_f64) {
            let (below, above) = (round_below(value), round_above(value));
            prop_assert!(below <= value * 1.000_001 && value <= above * 1.000_001);
            prop_assert!(above / below < 2.6, "{} {}", below, above);
        }
    }
}
