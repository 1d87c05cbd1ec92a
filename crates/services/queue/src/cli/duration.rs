//! Durations as Go writes and reads them: `1h30m`, `250ms`, `1.5s`.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go counts a duration in a signed number of nanoseconds: 292 years.
const NANOS_MAX: u128 = i64::MAX as u128;

/// Reads a duration; `None` if it has no number, no unit or an unknown one, or is negative (no flag
/// of ours can be) or longer than 292 years.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number =
            rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.').len();
        let (number, more) = rest.split_at_checked(number)?;
        let unit = more.len()
            - more.trim_start_matches(|it: char| !it.is_ascii_digit() && it != '.').len();
        let (unit, more) = more.split_at_checked(unit)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(scaled(number, u128::from(*factor))?)?;
        rest = more;
    }
    if nanos > NANOS_MAX { None } else { u64::try_from(nanos).ok().map(Duration::from_nanos) }
}

/// A decimal number of units in nanoseconds; what is finer than one is dropped.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(factor)?;
    let mut unit = factor;
    for digit in part.bytes() {
        // Beyond a nanosecond there is nothing to add, however long the fraction is.
        unit /= 10;
        nanos = nanos.checked_add(u128::from(digit - b'0') * unit)?;
    }
    Some(nanos)
}

/// Writes a duration as Go does.
#[must_use]
pub(crate) fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn decimal(nanos: u128, unit: u128, name: &str) -> String {
    let (whole, part, width) = (nanos / unit, nanos % unit, unit.ilog10() as usize);
    if part == 0 {
        return format!("{whole}{name}");
    }
    let part = format!("{part:0width$}");
    format!("{whole}.{}{name}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_as_go() {
        for (text, nanos, shown) in [
            ("0", 0, "0s"),
            ("60s", 60_000_000_000, "1m0s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("2h45m", 9_900_000_000_000, "2h45m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("250ms", 250_000_000, "250ms"),
            (".5s", 500_000_000, "500ms"),
            ("+1.100763771s", 1_100_763_771, "1.100763771s"),
            ("1m0.5s", 60_500_000_000, "1m0.5s"),
            ("12us", 12_000, "12µs"),
            ("1.5µs", 1_500, "1.5µs"),
            ("7ns", 7, "7ns"),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed, Duration::from_nanos(nanos), "{text}");
            assert_eq!(format(parsed), shown, "{text}");
        }
        for bad in ["", "+", "1", "s", "1d", "-1s", "1.2.3s", ".s", "1s2", "9999999999h", "1 s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nanos in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn reading_never_panics(text in "[0-9.nuµmsh+-]{0,12}") {
            if let Some(duration) = parse(&text) {
                prop_assert!(duration.as_nanos() <= NANOS_MAX);
            }
        }
    }
}
