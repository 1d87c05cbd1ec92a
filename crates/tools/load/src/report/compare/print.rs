//! A comparison as a table for people and as JSON for machines; the page takes its words from here.

use serde::Serialize;

use crate::report::{
    numbers,
    text::{capital, table, wrap},
};

use super::{
    Change, Comparison, Row, Run,
    decide::Unit,
    resample::{BLOCKS_MAX, RESAMPLES},
};

/// What the two runs are called.
pub(crate) const NAMES: [&str; 2] = ["first", "second"];
/// What stands above the cells of [`cells`].
pub(crate) const HEADER: [&str; 6] = ["", "first", "second", "change", "99 % interval", ""];

/// Version of the keys of [`json`].
const SCHEMA_VERSION: u32 = 1;

/// The comparison as a table. It ends with a line feed.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    for (name, run) in NAMES.into_iter().zip(&comparison.runs) {
        lines.extend(wrap(&format!("{name:<8}"), &describe(run)));
    }
    for note in &comparison.notes {
        lines.extend(wrap("note    ", note));
    }
    lines.push(String::new());
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    rows.extend(comparison.rows.iter().map(|it| cells(it).to_vec()));
    lines.extend(table(&rows));
    lines.push(String::new());
    lines.extend(wrap("", &format!("{}.", capital(&method()))));
    lines.join("\n") + "\n"
}

/// Which run it is, in words.
pub(crate) fn describe(run: &Run) -> String {
    let meant = match run.meant_per_second {
        Some(rate) => format!("{}/s meant", numbers::rate(rate)),
        None => "CLOSED LOOP".to_owned(),
    };
    let (done, took) = (numbers::counted(run.done, "request"), numbers::seconds(run.took));
    format!("{}, began {:.0}, {meant}, {done} in {took}", run.targets.join(", "), run.began)
}

/// What the interval is, in a sentence without a full stop.
pub(crate) fn method() -> String {
    format!(
        "the interval has 99 % of {RESAMPLES} draws of at most {BLOCKS_MAX} blocks of seconds; it \
         knows the noise within the runs, not what differs between one run and the next"
    )
}

/// One figure as cells, under [`HEADER`].
pub(crate) fn cells(row: &Row) -> [String; 6] {
    let value = |value: f64| match row.unit {
        Unit::Seconds => numbers::seconds(value),
        Unit::PerSecond => numbers::rate(value),
        Unit::Share => numbers::share(value),
    };
    let (change, interval) = match row.unit {
        Unit::Seconds | Unit::PerSecond => (
            row.ratio.map(factor),
            row.interval.map(|(low, high)| format!("{} to {}", factor(low), factor(high))),
        ),
        Unit::Share => (
            Some(format!("{} points", points(row.after - row.before))),
            row.interval.map(|(low, high)| format!("{} to {}", points(low), points(high))),
        ),
    };
    let none = || "–".to_owned();
    [
        row.name.clone(),
        value(row.before),
        value(row.after),
        change.unwrap_or_else(none),
        interval.unwrap_or_else(none),
        word(row).to_owned(),
    ]
}

/// A ratio as `×1.257`.
fn factor(ratio: f64) -> String {
    match ratio {
        it if !it.is_finite() => "×∞".to_owned(),
        it if it < 9.9995 => format!("×{it:.3}"),
        it if it < 99.95 => format!("×{it:.1}"),
        it => format!("×{}", numbers::count(numbers::as_u64(it))),
    }
}

/// A difference of shares as `+1.50`: percentage points.
fn points(difference: f64) -> String {
    format!("{:+.2}", difference * 100.0)
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
    /// Of the first and of the second run.
    runs: [WireRun<'of>; 2],
    figures: Vec<Figure<'of>>,
    notes: &'of [String],
    /// Names of the percentiles that are slower than was allowed; null if nothing was asked.
    slower_than_allowed: Option<&'of [String]>,
}

/// What a run was, on the wire.
#[derive(Serialize)]
struct WireRun<'of> {
    targets: &'of [String],
    began: jiff::Timestamp,
    took_seconds: f64,
    meant_per_second: Option<f64>,
    done: u64,
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
    let runs = comparison.runs.each_ref().map(|run| WireRun {
        targets: &run.targets,
        began: run.began,
        took_seconds: run.took,
        meant_per_second: run.meant_per_second,
        done: run.done,
    });
    let wire = Wire {
        schema_version: SCHEMA_VERSION,
        runs,
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
        results::{Mode, tests::sample},
    };
    use expect_test::expect;

    #[test]
    fn beside_itself() {
        let report = Report::new(&sample()).unwrap();
        let comparison = compare(&report, &report).unwrap();
        expect![[r#"
            first   https://127.0.0.1:8443/, began 2026-11-21T19:00:00Z, 100.0/s meant,
                    1 000 requests in 10.0 s
            second  https://127.0.0.1:8443/, began 2026-11-21T19:00:00Z, 100.0/s meant,
                    1 000 requests in 10.0 s

                               first   second        change     99 % interval
            latency p50      3.90 ms  3.90 ms        ×1.000  ×0.029 to ×5.820  within noise
            latency p90       1.01 s   1.01 s        ×1.000    ×0.003 to ×324  within noise
            latency p99       1.91 s   1.91 s        ×1.000    ×0.003 to ×389  within noise
            latency p99.9     2.00 s   2.00 s        ×1.000   ×0.012 to ×85.6  within noise
            latency max       2.00 s   2.00 s        ×1.000                 –   cannot tell
            done per second    100.0    100.0        ×1.000  ×0.417 to ×2.667  within noise
            failed            2.70 %   2.70 %  +0.00 points    -0.73 to +0.73  within noise

            The interval has 99 % of 1000 draws of at most 60 blocks of seconds; it knows
            the noise within the runs, not what differs between one run and the next.
        "#]]
        .assert_eq(&text(&comparison));
    }

    #[test]
    fn factors_and_points() {
        let factors = [0.0, 0.003, 1.0, 9.9994, 9.9996, 38.88, 3e5, f64::INFINITY].map(factor);
        expect!["×0.000 ×0.003 ×1.000 ×9.999 ×10.0 ×38.9 ×300 000 ×∞"]
            .assert_eq(&factors.join(" "));
        expect!["+0.00 +0.00 -50.00"].assert_eq(&[0.0, 0.000_04, -0.5].map(points).join(" "));
    }

    #[test]
    fn notes_fit() {
        let mut before = sample();
        before.interrupted = true;
        let mut after = before.clone();
        after.targets = vec!["https://127.0.0.1:9443/with/a/path/of/some/length".to_owned()];
        after.mode = Mode::Closed;
        before.mode = Mode::Closed;
        after.seconds.truncate(3);
        let reports = [before, after].map(|it| Report::new(&it).unwrap());
        expect![[r#"
            first   https://127.0.0.1:8443/, began 2026-11-21T19:00:00Z, CLOSED LOOP, 1 000
                    requests in 10.0 s
            second  https://127.0.0.1:9443/with/a/path/of/some/length, began
                    2026-11-21T19:00:00Z, CLOSED LOOP, 1 000 requests in 10.0 s
            note    the targets differ: https://127.0.0.1:8443/ and
                    https://127.0.0.1:9443/with/a/path/of/some/length
            note    the first run was ended early
            note    the second run was ended early
            note    noise cannot be told from change: both runs must last at least 10 s

                               first   second        change  99 % interval
            latency p50      3.90 ms  3.50 ms        ×0.897              –  cannot tell
            latency p90       1.01 s  4.80 ms        ×0.005              –  cannot tell
            latency p99       1.91 s  22.0 ms        ×0.011              –  cannot tell
            latency p99.9     2.00 s  24.5 ms        ×0.012              –  cannot tell
            latency max       2.00 s   2.00 s        ×1.000              –  cannot tell
            done per second    100.0    100.0        ×1.000              –  cannot tell
            failed            2.70 %   2.67 %  -0.03 points              –  cannot tell

            The interval has 99 % of 1000 draws of at most 60 blocks of seconds; it knows
            the noise within the runs, not what differs between one run and the next.
        "#]]
        .assert_eq(&text(&compare(&reports[0], &reports[1]).unwrap()));
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
              "runs": [
                {
                  "targets": [
                    "https://127.0.0.1:8443/"
                  ],
                  "began": "2026-11-21T19:00:00Z",
                  "took_seconds": 10.004,
                  "meant_per_second": 100.0,
                  "done": 1000
                },
                {
                  "targets": [
                    "https://127.0.0.1:8443/"
                  ],
                  "began": "2026-11-21T19:00:00Z",
                  "took_seconds": 10.004,
                  "meant_per_second": 100.0,
                  "done": 1000
                }
              ],
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
