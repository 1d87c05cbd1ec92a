//! Amounts of resources, such as `500m` or `1Gi`: read, compared and printed as Kubernetes does.
//!
//! A quantity is a decimal number with a suffix. It prints in one canonical form that keeps the
//! family of the suffix it was read with: `1024Mi` is `1Gi`, `0.5` is `500m`, `1000m` is `1`.

use std::{cmp::Ordering, fmt, str::FromStr};

/// Nanos in one: the finest amount a quantity can hold is one nano; finer ones are rounded up.
const NANOS: i128 = 1_000_000_000;
/// Greatest amount, in whole units; greater ones are capped as Kubernetes caps them.
const UNITS_MAX: i128 = i64::MAX as i128;
/// Decimal suffixes with their power of ten, greatest first.
const DECIMAL: [(&str, u32); 7] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0)];
/// Decimal suffixes below one with their power of ten in nanos.
const FRACTIONS: [(&str, u32); 3] = [("m", 6), ("u", 3), ("n", 0)];
/// Binary suffixes with their power of two, greatest first.
const BINARY: [(&str, u32); 6] =
    [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
/// Digits kept of an amount; more than the range needs (28 whole and nano digits), far below
/// what would overflow the arithmetic.
const DIGITS_MAX: usize = 32;

/// An amount with the family of suffixes it prints in.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `n u m k M G T P E`.
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3 e6 …`.
    Exponent,
}

/// Why a text is no quantity, in the words of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text as a whole does not look like a quantity.
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The part before the suffix is no number.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// The amount of whole units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        i64::try_from(div_ceil(self.nanos, NANOS)).unwrap_or(i64::MAX)
    }

    /// The amount of thousandths, rounded up: of CPU, millicores.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        i64::try_from(div_ceil(self.nanos, NANOS / 1000)).unwrap_or(i64::MAX)
    }

    /// Whether the amount is a whole number of units.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Whether the amount is less than zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Format);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (number, suffix) = split_number(unsigned);
        if !is_suffix_shaped(suffix) {
            return Err(Error::Format);
        }
        let (format, scale) = parse_suffix(suffix)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(Error::Number);
        }
        let nanos = scale.nanos(whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let nanos = if text.starts_with('-') { -nanos } else { nanos };
        // A binary suffix cannot express less than one, so such amounts print as decimals.
        let format =
            if nanos.abs() < NANOS && format == Format::Binary { Format::Decimal } else { format };
        Ok(Self { nanos, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below_binary = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            Format::Binary if !below_binary => fmt_binary(div_ceil(self.nanos, NANOS), f),
            Format::Decimal | Format::Binary => fmt_decimal(self.nanos, f),
            Format::Exponent => fmt_exponent(self.nanos, f),
        }
    }
}

/// What the number before a suffix is multiplied by.
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    /// Nanos of `whole.fraction` units, rounded up and capped.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        match *self {
            Self::Two(power) => {
                // Nanos are as fine as it gets, so further digits are dropped.
                let fraction = fraction.get(..fraction.len().min(9)).unwrap_or(fraction);
                let nanos = shifted(whole, fraction, 9);
                nanos.saturating_mul(1_i128 << power).min(UNITS_MAX * NANOS)
            }
            Self::Ten(power) => shifted(whole, fraction, 9 + power).min(UNITS_MAX * NANOS),
        }
    }
}

/// `whole.fraction` times ten to the power of `shift`, rounded up, capped far above the range.
fn shifted(whole: &str, fraction: &str, shift: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    // Where the decimal point comes to stand, counted in digits from the left.
    let leading = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let after = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let point = leading.saturating_sub(after).saturating_add(i64::from(shift));
    if digits.is_empty() {
        return 0;
    }
    let Ok(point) = usize::try_from(point) else { return 1 };
    if DIGITS_MAX < point {
        return UNITS_MAX * NANOS;
    }
    let (kept, cut) = digits.split_at_checked(point).unwrap_or((digits, ""));
    let number = kept.bytes().fold(0_i128, |sum, it| sum * 10 + i128::from(it - b'0'));
    let zeros = u32::try_from(point.saturating_sub(digits.len())).unwrap_or(0);
    let round_up = i128::from(cut.bytes().any(|it| it != b'0'));
    number * 10_i128.pow(zeros) + round_up
}

fn split_number(text: &str) -> (&str, &str) {
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.get(whole..).unwrap_or_default();
    let fraction = match rest.strip_prefix('.') {
        Some(rest) => 1 + rest.bytes().take_while(u8::is_ascii_digit).count(),
        None => 0,
    };
    text.split_at_checked(whole + fraction).unwrap_or((text, ""))
}

/// The second half of the regular expression of [`Error::Format`].
fn is_suffix_shaped(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|it| "eEinumkKMGTP".contains(it));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|it| it.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Result<(Format, Scale), Error> {
    let signed = |power: u32| i32::try_from(power).unwrap_or(0);
    if let Some((_, power)) = DECIMAL.iter().find(|(it, _)| *it == suffix) {
        return Ok((Format::Decimal, Scale::Ten(signed(*power))));
    }
    if let Some((_, power)) = FRACTIONS.iter().find(|(it, _)| *it == suffix) {
        return Ok((Format::Decimal, Scale::Ten(signed(*power) - 9)));
    }
    if let Some((_, power)) = BINARY.iter().find(|(it, _)| *it == suffix) {
        return Ok((Format::Binary, Scale::Two(*power)));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Error::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| Error::Suffix)?;
    Ok((Format::Exponent, Scale::Ten(exponent.clamp(-100, 100))))
}

fn fmt_binary(units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (suffix, power) in BINARY {
        let unit = 1_i128 << power;
        if units % unit == 0 {
            return write!(f, "{}{suffix}", units / unit);
        }
    }
    write!(f, "{units}")
}

fn fmt_decimal(nanos: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if nanos == 0 {
        return write!(f, "0");
    }
    for (suffix, power) in DECIMAL {
        let unit = NANOS * 10_i128.pow(power);
        if nanos % unit == 0 {
            return write!(f, "{}{suffix}", nanos / unit);
        }
    }
    for (suffix, power) in FRACTIONS {
        let unit = 10_i128.pow(power);
        if nanos % unit == 0 {
            return write!(f, "{}{suffix}", nanos / unit);
        }
    }
    Ok(())
}

fn fmt_exponent(nanos: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exponents = [18, 15, 12, 9, 6, 3, 0, -3, -6, -9];
    for exponent in exponents {
        let unit = 10_i128.pow(u32::try_from(exponent + 9).unwrap_or(0));
        if nanos % unit == 0 {
            let number = nanos / unit;
            return match exponent {
                0 => write!(f, "{number}"),
                _ if number == 0 => write!(f, "0"),
                _ => write!(f, "{number}e{exponent}"),
            };
        }
    }
    Ok(())
}

const fn div_ceil(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + if number.rem_euclid(by) == 0 { 0 } else { 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().map_or_else(|it| it.to_string(), |it| it.to_string())
    }

    #[test]
    fn prints_canonically() {
        for (text, expected) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("100m", "100m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("12e2", "1200"),
            ("1e3", "1e3"),
            ("0.1n", "1n"),
            ("-1", "-1"),
            ("+5k", "5k"),
            ("9223372036854775807", "9223372036854775807"),
            ("1e99", "9223372036854775807"),
            ("0e5", "0"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_in_kubernetes_words() {
        let format = Error::Format.to_string();
        for text in ["", "abc", "1Kb", "1 Gi", "1GiB", "1.1.1"] {
            assert_eq!(canonical(text), format, "{text}");
        }
        assert_eq!(canonical("Mi"), "unable to parse numeric part of quantity");
        assert_eq!(canonical("1mm"), "unable to parse quantity's suffix");
        assert_eq!(canonical("1K"), "unable to parse quantity's suffix");
    }

    #[test]
    fn compares_and_converts() {
        let quantity = |it: &str| it.parse::<Quantity>().unwrap();
        assert!(quantity("999m") < quantity("1"));
        assert_eq!(quantity("1Ki"), quantity("1024"));
        assert_eq!(quantity("1500m").value(), 2);
        assert_eq!(quantity("1500u").milli_value(), 2);
        assert!(!quantity("1500m").is_whole());
        assert!(quantity("-1").is_negative());
    }

    proptest! {
        #[test]
        fn printing_is_stable_and_keeps_the_amount(
            text in "[+-]?[0-9]{1,20}(\\.[0-9]{1,12})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e3|E-2)",
        ) {
            let once: Quantity = text.parse().unwrap();
            let twice: Quantity = once.to_string().parse().unwrap();
            let thrice: Quantity = twice.to_string().parse().unwrap();
            prop_assert_eq!(twice.to_string(), thrice.to_string());
            // `605.468Ki` is 620000, which nothing tells from a decimal quantity, whose short form is
            // `620k`. The original does the same.
            if once.format != Format::Binary || once.to_string().ends_with('i') {
                prop_assert_eq!(once.to_string(), twice.to_string());
            }
            // A binary quantity rounds up to whole units when printed.
            let rounding = if once.format == Format::Binary { NANOS } else { 1 };
            prop_assert!((twice.nanos - once.nanos).abs() < rounding);
        }

        #[test]
        fn reading_never_panics(text in any::<String>()) {
            let _parsed: Result<Quantity, Error> = text.parse();
        }
    }
}
