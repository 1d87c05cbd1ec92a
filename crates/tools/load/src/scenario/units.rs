//! Durations and rates as people write them: `500ms`, `1m30s`, `500/s`, `30/min`.

use std::{fmt, str::FromStr, time::Duration};

/// Longest duration that is taken. Longer is a slip of the keyboard.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Highest rate that is taken, per second: over what one machine can send.
pub const RATE_MAX: f64 = 10_000_000.0;

const UNITS: [(&str, u64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Reads a duration: numbers with units one after the other, such as `1m30s`, `1.5s` or `200us`.
///
/// # Errors
///
/// What is wrong, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
                after.split_at(end)
            }
            None => ("", after),
        };
        let end = after.find(|it: char| !it.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() && !whole.is_empty() && after.is_empty() {
            return Err(format!("`{text}` has no unit; write `{text}s` or `{text}ms`"));
        }
        if whole.is_empty() || whole.len() > 12 || fraction.len() > 15 {
            return Err(wrong());
        }
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total += decimal(whole, fraction, *scale).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    let nanoseconds = u64::try_from(total).unwrap_or(u64::MAX);
    let duration = Duration::from_nanos(nanoseconds);
    if duration > DURATION_MAX {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(duration)
}

/// `whole.fraction` times `scale`, if that is a whole number.
fn decimal(whole: &str, fraction: &str, scale: u64) -> Option<u128> {
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = digits.checked_mul(u128::from(scale))?;
    (product % divisor == 0).then_some(product / divisor)
}

/// Writes a duration exactly, in its largest fitting unit: [`parse_duration`] gives the same again.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let seconds = u128::from(duration.as_secs());
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if duration.subsec_nanos() == 0 {
        for (unit, size) in [("h", 3600), ("m", 60)] {
            if seconds.is_multiple_of(size) {
                return format!("{}{unit}", seconds / size);
            }
        }
    }
    for (unit, size, digits) in
        [("s", 1_000_000_000, 9), ("ms", 1_000_000, 6), ("us", 1_000, 3), ("ns", 1, 0)]
    {
        let (whole, rest) = (nanoseconds / size, nanoseconds % size);
        if whole > 0 && rest == 0 {
            return format!("{whole}{unit}");
        }
        if whole > 0 {
            let fraction = format!("{rest:0digits$}");
            return format!("{whole}.{}{unit}", fraction.trim_end_matches('0'));
        }
    }
    format!("{nanoseconds}ns")
}

/// How often something happens, as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How often.
    pub times: f64,
    /// In which span.
    pub per: Per,
}

/// The span of a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Rate {
    /// The same per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        match self.per {
            Per::Second => self.times,
            Per::Minute => self.times / 60.0,
            Per::Hour => self.times / 3600.0,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => "s",
            Per::Minute => "min",
            Per::Hour => "h",
        };
        write!(f, "{}/{per}", self.times)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate; write it as `500/s`, `30/min` or `1000/h`");
        let Some((times, per)) = text.trim().split_once('/') else {
            return Err(match text.trim().parse::<f64>() {
                Ok(_) => format!("`{text}` does not say per what; write `{}/s`", text.trim()),
                Err(_) => wrong(),
            });
        };
        let per = match per.trim() {
            "s" | "sec" | "second" => Per::Second,
            "m" | "min" | "minute" => Per::Minute,
            "h" | "hour" => Per::Hour,
            _ => return Err(wrong()),
        };
        let times = times.trim();
        // `inf`, `nan`, `1e9` and signs parse as well, and are no rates.
        if times.is_empty() || !times.bytes().all(|it| it.is_ascii_digit() || it == b'.') {
            return Err(wrong());
        }
        let rate = Self { times: times.parse().map_err(|_| wrong())?, per };
        if rate.per_second() > RATE_MAX {
            return Err(format!("`{text}` is over {RATE_MAX} a second"));
        }
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let said = match parse_duration(text) {
            Ok(duration) => format!("{duration:?} {}", print_duration(duration)),
            Err(error) => error,
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn reads_durations() {
        check("500ms", expect!["500ms 500ms"]);
        check("1.5s", expect!["1.5s 1.5s"]);
        check("1m30s", expect!["90s 90s"]);
        check("2h", expect!["7200s 2h"]);
        check("0s", expect!["0ns 0s"]);
        check("250us", expect!["250µs 250us"]);
        check("0.1us", expect!["100ns 100ns"]);
    }

    #[test]
    fn says_what_is_no_duration() {
        check("", expect!["`` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`"]);
        check("5", expect!["`5` has no unit; write `5s` or `5ms`"]);
        check(
            "5 parsecs",
            expect!["`5 parsecs` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`"],
        );
        check("-1s", expect!["`-1s` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`"]);
        check(
            "0.1ns",
            expect!["`0.1ns` is no duration; write it as `500ms`, `2s`, `1m30s` or `1h`"],
        );
        check("100w", expect!["`100w` is longer than a year"]);
    }

    #[track_caller]
    fn check_rate(text: &str, expected: Expect) {
        let said = match text.parse::<Rate>() {
            Ok(rate) => format!("{rate} {}", rate.per_second()),
            Err(error) => error,
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn reads_rates() {
        check_rate("500/s", expect!["500/s 500"]);
        check_rate(" 0.5 / second", expect!["0.5/s 0.5"]);
        check_rate("30/m", expect!["30/min 0.5"]);
        check_rate("7200/hour", expect!["7200/h 2"]);
        check_rate("500", expect!["`500` does not say per what; write `500/s`"]);
        check_rate(
            "many/s",
            expect!["`many/s` is no rate; write it as `500/s`, `30/min` or `1000/h`"],
        );
        check_rate(
            "inf/s",
            expect!["`inf/s` is no rate; write it as `500/s`, `30/min` or `1000/h`"],
        );
        check_rate("-5/s", expect!["`-5/s` is no rate; write it as `500/s`, `30/min` or `1000/h`"]);
        check_rate("99999999/s", expect!["`99999999/s` is over 10000000 a second"]);
    }

    proptest! {
        #[test]
        fn printed_durations_are_read_again(nanoseconds in 0..u64::try_from(DURATION_MAX.as_nanos()).unwrap()) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }

        #[test]
        fn printed_rates_are_read_again(times in 0.0..RATE_MAX, per in 0..3) {
            let per = [Per::Second, Per::Minute, Per::Hour][usize::try_from(per).unwrap()];
            let rate = Rate { times, per };
            prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
        }

        #[test]
        fn nothing_panics(text in "[0-9a-zµ./ -]{0,40}|.{0,40}") {
            drop(parse_duration(&text));
            drop(text.parse::<Rate>());
        }
    }
}
