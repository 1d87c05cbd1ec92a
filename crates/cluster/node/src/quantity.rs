//! Reads Kubernetes quantities as numbers of thousandths: `100m`, `1.5Gi`, `2e3`.
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
//!
//! Does not print them: nothing here has to.

/// The quantity in thousandths of its unit, rounded up; `None` if it is none.
#[must_use]
pub(crate) fn millis(text: &str) -> Option<i128> {
    let end =
        text.find(|it: char| !matches!(it, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (numerator, denominator) = scale(suffix)?;
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let fraction = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let above = digits.checked_mul(numerator)?.checked_mul(1000)?;
    let below = denominator.checked_mul(fraction)?;
    let value = above.checked_add(below - 1)? / below;
    Some(if negative { -value } else { value })
}

/// Whole units (bytes, say), rounded up.
#[must_use]
pub(crate) fn units(text: &str) -> Option<u64> {
    millis(text).and_then(|it| u64::try_from((it + 999) / 1000).ok())
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2e3", Some(2_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("5n", Some(1)), // rounds up
            ("-1", Some(-1000)),
            (".5", Some(500)),
            ("", None),
            ("1 Gi", None),
            ("Gi", None),
            ("1.2.3", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        assert_eq!(units("64Mi"), Some(64 << 20));
        assert_eq!(units("1m"), Some(1));
    }
}
