//! Whether a schedule of five fields, or one that has a name, can be read; in the words of the
//! original's parser.

/// The fields in order: least and greatest value, and names for values.
const FIELDS: [(u64, u64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
/// Schedules with a name.
const NAMED: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Says why not.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if let Some((zone, after)) = ["TZ=", "CRON_TZ="]
        .iter()
        .find_map(|it| schedule.strip_prefix(it))
        .map(|it| it.split_once(' ').unwrap_or((it, "")))
    {
        if jiff::tz::TimeZone::get(zone).is_err() {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return named(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    for (text, bounds) in fields.iter().zip(FIELDS) {
        text.split(',').filter(|it| !it.is_empty()).try_for_each(|it| range(it, bounds))?;
    }
    Ok(())
}

fn named(name: &str) -> Result<(), String> {
    if let Some(duration) = name.strip_prefix("@every ") {
        let parsed: Result<jiff::SignedDuration, _> = duration.parse();
        return parsed.map(|_| ()).map_err(|_| {
            format!("failed to parse duration {name}: time: invalid duration {duration:?}")
        });
    }
    if NAMED.contains(&name) { Ok(()) } else { Err(format!("unrecognized descriptor: {name}")) }
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(text: &str, (least, most, names): (u64, u64, &[&str])) -> Result<(), String> {
    let mut parts = text.split('/');
    let (span, step) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let bounds: Vec<&str> = span.split('-').collect();
    let (low, mut high) = match bounds.as_slice() {
        ["*" | "?", ..] => (least, most),
        [one] => {
            let one = number(one, least, names)?;
            (one, one)
        }
        [low, high] => (number(low, least, names)?, number(high, least, names)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match step {
        Some(step) => number(step, 0, &[])?,
        None => 1,
    };
    if text.contains('/') && bounds.len() == 1 {
        high = most;
    }
    if low < least {
        return Err(format!("beginning of range ({low}) below minimum ({least}): {text}"));
    }
    if most < high {
        return Err(format!("end of range ({high}) above maximum ({most}): {text}"));
    }
    if high < low {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

/// A number or the name of one; the first name is that of `first`.
fn number(text: &str, first: u64, names: &[&str]) -> Result<u64, String> {
    let lower = text.to_lowercase();
    if let Some((named, _)) = (first..).zip(names).find(|(_, name)| **name == lower) {
        return Ok(named);
    }
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number)
            .map_err(|_| format!("negative number ({number}) not allowed: {text}")),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::check as of;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn check(schedule: &str, expected: Expect) {
        expected.assert_eq(&of(schedule).err().unwrap_or_default());
    }

    #[test]
    fn good_ones() {
        for schedule in
            ["*/5 * * * ?", "0 0-5/2 1,15 jan-MAR sun", "@daily", "@every 1h30m", "5/10 * * * *"]
        {
            assert_eq!(of(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn bad_ones() {
        check("* * * *", expect!["expected exactly 5 fields, found 4: [* * * *]"]);
        check("60 * * * *", expect!["end of range (60) above maximum (59): 60"]);
        check("* * 0 * *", expect!["beginning of range (0) below minimum (1): 0"]);
        check("* 5-1 * * *", expect!["beginning of range (5) beyond end of range (1): 5-1"]);
        check("*/0 * * * *", expect!["step of range should be a positive number: */0"]);
        check("1-2-3 * * * *", expect!["too many hyphens: 1-2-3"]);
        check("1/2/3 * * * *", expect!["too many slashes: 1/2/3"]);
        check(
            "a * * * *",
            expect![[r#"failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax"#]],
        );
        check("@never", expect!["unrecognized descriptor: @never"]);
        check(
            "@every day",
            expect![[r#"failed to parse duration @every day: time: invalid duration "day""#]],
        );
        check(
            "TZ=Mars/Base * * * * *",
            expect!["provided bad location Mars/Base: unknown time zone Mars/Base"],
        );
    }
}
