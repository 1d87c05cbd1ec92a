//! Durations as Go writes them (`1m30s`, `1.5h`, `300ms`), with what Go says to those that are none.

use std::time::Duration;

/// Units and the seconds they have; `µ` is written in two ways.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("\u{3bc}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
];

/// Reads a duration; none if it is not above zero.
pub(crate) fn parse(text: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(None);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let split = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(split);
        // Neither nothing nor a point alone is a number.
        let number: f64 = number.parse().map_err(|_| invalid())?;
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let (_, each) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        seconds += number * each;
        rest = after;
    }
    if negative {
        return Ok(None);
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    Ok(Some(duration).filter(|it| !it.is_zero()))
}

/// Digits, perhaps with a point among them, and what follows.
fn split_number(text: &str) -> (&str, &str) {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len())
    };
    let end = digits(0);
    let end =
        if text.get(end..).is_some_and(|it| it.starts_with('.')) { digits(end + 1) } else { end };
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&match parse(text) {
            Ok(duration) => format!("{duration:?}"),
            Err(problem) => problem,
        });
    }

    #[test]
    fn as_in_go() {
        check("30s", expect!["Some(30s)"]);
        check("1m30s", expect!["Some(90s)"]);
        check("+1.5h", expect!["Some(5400s)"]);
        check(".5ms", expect!["Some(500µs)"]);
        check("0", expect!["None"]);
        check("0s", expect!["None"]);
        check("-5s", expect!["None"]);
        check("", expect![[r#"time: invalid duration """#]]);
        check("5", expect![[r#"time: missing unit in duration "5""#]]);
        check("x", expect![[r#"time: invalid duration "x""#]]);
        check("5d", expect![[r#"time: unknown unit "d" in duration "5d""#]]);
        check("1.2.3s", expect![[r#"time: missing unit in duration "1.2.3s""#]]);
        check(".s", expect![[r#"time: invalid duration ".s""#]]);
        check("1e3s", expect![[r#"time: unknown unit "e" in duration "1e3s""#]]);
    }
}
