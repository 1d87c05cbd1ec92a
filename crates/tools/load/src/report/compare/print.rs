//! A comparison as a table for people and as JSON for machines.

use serde::Serialize;

use crate::report::{numbers, text::table};

use super::{
    Change, Comparison, Row,
    decide::Unit,
    resample::{BLOCKS_MAX, RESAMPLES},
};

/// Version of the keys of [`json`].
const SCHEMA_VERSION: u32 = 1;

/// The comparison as a table. It ends with a line feed.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let header = ["", "first", "second", "ratio", "99 % interval", ""];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(comparison.rows.iter().map(row));
    let mut lines = table(&rows);
    lines.extend(comparison.notes.iter().map(|it| format!("note: {it}")));
    lines.push(format!(
        "interval: {RESAMPLES} draws of at most {BLOCKS_MAX} blocks of seconds; it knows the noise \
         within the runs, not between runs"
    ));
    lines.join("\n") + "\n"
}

/// One figure as cells.
fn row(row: &Row) -> Vec<String> {
    let value = |value: f64| match row.unit {
        Unit::Seconds => numbers::seconds(value),
        Unit::PerSecond => numbers::rate(value),
        Unit::Share => numbers::share(value),
    };
    let interval = row.interval.map(|(low, high)| match row.unit {
        Unit::Seconds | Unit::PerSecond => format!("{low:.3} to {high:.3}"),
        Unit::Share => format!("{:+.2} to {:+.2} %", low * 100.0, high * 100.0),
    });
    vec![
        row.name.clone(),
        value(row.before),
        value(row.after),
        row.ratio.map(|it| format!("{it:.3}")).unwrap_or_default(),
        interval.unwrap_or_default(),
        word(row).to_owned(),
    ]
}

/// A change in one word that fits its figure.
fn word(row: &Row) -> &'static str {
    match (row.change, row.unit) {
        (Change::Better, Unit::Seconds) => "faster",
        (Change::Worse, Unit::Seconds) => "SLOWER",
        (Change::Better, Unit::PerSecond) => "more",
        (Change::Worse, Unit::PerSecond) => "LESS",
        (Change::Better, Unit::Share) => "less",
        (Change::Worse, Unit::Share) => "MORE",
        (Change::Noise, _) => "within noise",
        (Change::Unknown, _) => "cannot tell",
    }
}

/// A comparison on the wire.
#[derive(Serialize)]
struct Wire<'of> {
    schema_version: u32,
    figures: Vec<Figure<'of>>,
    notes: &'of [String],
    /// Names of the percentiles that are slower than was allowed; null if nothing was asked.
    slower_than_allowed: Option<&'of [String]>,
}

/// A figure on the wire. `before` and `after` are seconds, per second, or a share of 0 to 1, as
/// `unit` says.
#[derive(Serialize)]
struct Figure<'of> {
    name: &'of str,
    unit: &'static str,
    before: f64,
    after: f64,
    ratio: Option<f64>,
    /// Of the ratio; of the difference for a share.
    interval_low: Option<f64>,
    interval_high: Option<f64>,
    change: &'static str,
}

/// The comparison as JSON, with a line feed at the end.
///
/// # Errors
///
/// None that is known: every part of it has a form in JSON.
pub fn json(
    comparison: &Comparison,
    slower_than_allowed: Option<&[String]>,
) -> Result<String, serde_json::Error> {
    let figures = comparison.rows.iter().map(|row| Figure {
        name: &row.name,
        unit: match row.unit {
            Unit::Seconds => "seconds",
            Unit::PerSecond => "per_second",
            Unit::Share => "share",
        },
        before: row.before,
        after: row.after,
        ratio: row.ratio,
        interval_low: row.interval.map(|(low, _)| low),
        interval_high: row.interval.map(|(_, high)| high),
        change: match row.change {
            Change::Better => "better",
            Change::Worse => "worse",
            Change::Noise => "noise",
            Change::Unknown => "unknown",
        },
    });
    let wire = Wire {
        schema_version: SCHEMA_VERSION,
        figures: figures.collect(),
        notes: &comparison.notes,
        slower_than_allowed,
    };
    Ok(serde_json::to_string_pretty(&wire)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{compare::compare, wire::Report},
        results::tests::sample,
    };
    use expect_test::expect;

    #[test]
    fn beside_itself() {
        let report = Report::new(&sample()).unwrap();
        let comparison = compare(&report, &report).unwrap();
        expect![[r#"
                               first   second  ratio     99 % interval
            latency p50      3.90 ms  3.90 ms  1.000    0.029 to 5.820  within noise
            latency p90       1.01 s   1.01 s  1.000  0.003 to 323.932  within noise
            latency p99       1.91 s   1.91 s  1.000  0.003 to 388.718  within noise
            latency p99.9     2.00 s   2.00 s  1.000   0.012 to 85.632  within noise
            latency max       2.00 s   2.00 s  1.000                     cannot tell
            done per second    100.0    100.0  1.000    0.417 to 2.667  within noise
            failed            2.70 %   2.70 %  1.000  -0.73 to +0.73 %  within noise
            interval: 1000 draws of at most 60 blocks of seconds; it knows the noise within the runs, not between runs
        "#]].assert_eq(&text(&comparison));
    }

    #[test]
    fn as_json() {
        let report = Report::new(&sample()).unwrap();
        let mut other = report.clone();
        other.seconds.truncate(9);
        let mut comparison = compare(&report, &other).unwrap();
        comparison.rows.truncate(1);
        let slower = ["latency p50".to_owned()];
        expect![[r#"
            {
              "schema_version": 1,
              "figures": [
                {
                  "name": "latency p50",
                  "unit": "seconds",
                  "before": 0.003901439,
                  "after": 0.004001791,
                  "ratio": 1.0257217913697998,
                  "interval_low": null,
                  "interval_high": null,
                  "change": "unknown"
                }
              ],
              "notes": [
                "noise cannot be told from change: both runs must last at least 10 s"
              ],
              "slower_than_allowed": [
                "latency p50"
              ]
            }
        "#]]
        .assert_eq(&json(&comparison, Some(&slower)).unwrap());
    }
}
