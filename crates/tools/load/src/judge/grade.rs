//! Compares what a generator reports with what it must have seen. Reads our own report and any that
//! names its percentiles in seconds.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    judge::{
        expect::{Arrivals, Expectation, Meant, Source, expect},
        record::{LATE_SHARE_MAX, RECORDED_LATE_SHARE_MAX, Record},
    },
    scenario::units::print_duration,
};

/// A figure this far from what is expected, as a share of that, is right.
pub const TOLERANCE: f64 = 0.02;
/// One that is this close is right as well: from the server's call of the kernel to the generator's
/// look at the clock takes time too.
pub const WIRE: Duration = Duration::from_micros(100);

/// What is compared: name, key in a report, share of the answers.
pub const FIGURES: [(&str, &str, f64); 5] = [
    ("p50", "p50_seconds", 0.5),
    ("p90", "p90_seconds", 0.9),
    ("p99", "p99_seconds", 0.99),
    ("p99.9", "p99_9_seconds", 0.999),
    ("max", "max_seconds", 1.0),
];

/// What a generator says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order of [`FIGURES`]; `None` for what it does not say.
    pub figures: [Option<Duration>; FIGURES.len()],
    /// Why it says nothing, in its own words; empty if it does.
    pub withheld: Vec<String>,
    /// Whether it says of itself that it was closed loop: latency from the actual start.
    pub closed: bool,
}

impl Report {
    /// Reads the report of `coracle load -o json`, or an object with some of the keys of
    /// [`FIGURES`].
    ///
    /// # Errors
    ///
    /// Not JSON, no figure, or one that is no time.
    pub fn read(json: &[u8]) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_slice(json).context("read the report as JSON")?;
        let latency = json.pointer("/total/latency").unwrap_or(&json);
        let mut report =
            Self { closed: json.get("mode") == Some(&json!("closed")), ..Self::default() };
        for reason in json.get("withheld").and_then(Value::as_array).into_iter().flatten() {
            let text = reason.get("message").and_then(Value::as_str);
            report.withheld.push(text.map_or_else(|| reason.to_string(), str::to_owned));
        }
        for ((_, key, _), figure) in FIGURES.iter().zip(&mut report.figures) {
            let Some(value) = latency.get(key).filter(|it| !it.is_null()) else { continue };
            let seconds = value.as_f64().and_then(|it| Duration::try_from_secs_f64(it).ok());
            *figure = Some(seconds.with_context(|| format!("`{key}`: {value} is no time"))?);
        }
        let keys = FIGURES.map(|(_, key, _)| key).join(", ");
        ensure!(
            !report.withheld.is_empty() || report.figures.iter().any(Option::is_some),
            "the report has none of {keys}, neither at its top nor in `total.latency`"
        );
        Ok(report)
    }
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that the generator says is right.
    Right,
    /// Something is wrong.
    Wrong,
    /// The generator withholds its figures.
    Withheld,
    /// The server was too slow, or its record is not whole.
    NoVerdict,
}

/// A generator's figures beside the right ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade {
    /// What comes of it.
    pub verdict: Verdict,
    /// Why there is no verdict, or no figures.
    pub reasons: Vec<String>,
    /// What it must have seen, and says, in the order of [`FIGURES`].
    pub lines: Vec<Line>,
    /// Where the expectation comes from.
    pub source: Source,
    /// How its requests arrived.
    pub arrivals: Arrivals,
    /// What the server did.
    pub law: String,
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// What it must be, at least.
    pub expected: Duration,
    /// What it may be at most. It is the same but where the machine stood still while answers were
    /// given: nobody knows when a client could see them.
    pub latest: Duration,
    /// What the generator says.
    pub reported: Option<Duration>,
}

impl Line {
    /// What is expected that is closest to what is reported.
    fn closest(&self) -> Option<Duration> {
        Some(self.reported?.clamp(self.expected, self.latest))
    }

    /// How far off it is, as a share of what is expected.
    #[must_use]
    pub fn error(&self) -> Option<f64> {
        Some(self.reported?.as_secs_f64() / self.closest()?.as_secs_f64() - 1.0)
    }

    /// Whether it is right.
    #[must_use]
    pub fn is_right(&self) -> Option<bool> {
        let closest = self.closest()?;
        let allowed = closest.mul_f64(TOLERANCE).max(WIRE);
        Some(self.reported?.abs_diff(closest) <= allowed)
    }
}

/// Grades a report by the record of the run that it is about.
#[must_use]
pub fn grade(record: &Record, meant: &Meant, report: &Report) -> Grade {
    let expectation = expect(record, meant);
    let lines: Vec<Line> = FIGURES
        .iter()
        .zip(&report.figures)
        .map(|((name, _, share), reported)| Line {
            name,
            expected: expectation.quantile(*share),
            latest: expectation.quantile_latest(*share),
            reported: *reported,
        })
        .collect();
    let late_share_max = match (expectation.source, meant) {
        (Source::Record, Meant::Course(_) | Meant::Moments(_)) => RECORDED_LATE_SHARE_MAX,
        // Arrivals that were read late would be taken for starts that were meant late.
        _ => LATE_SHARE_MAX,
    };
    let unfit = record.unfit(late_share_max);
    let unfit: Vec<String> = unfit.iter().map(ToString::to_string).collect();
    // The longest of all is one request: the machine's business as much as anybody's.
    let wrong = lines.iter().any(|it| it.name != "max" && it.is_right() == Some(false));
    let (verdict, reasons) = if !unfit.is_empty() {
        (Verdict::NoVerdict, unfit)
    } else if !report.withheld.is_empty() {
        (Verdict::Withheld, report.withheld.clone())
    } else if wrong {
        (Verdict::Wrong, Vec::new())
    } else {
        (Verdict::Right, Vec::new())
    };
    let Expectation { source, arrivals, .. } = expectation;
    Grade { verdict, reasons, lines, source, arrivals, law: record.law.to_string() }
}

impl Grade {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("law       {}\n", self.law);
        let from = match self.source {
            Source::Record => "what the server did to each request",
            Source::Law => "the law, for requests at the moments they were meant to start",
        };
        put(&mut text, format_args!("expected  from {from}\n\n"));
        put(
            &mut text,
            format_args!("{:8}{:>12}{:>12}{:>10}\n", "", "expected", "reported", "error"),
        );
        for line in &self.lines {
            let reported = line.reported.map_or_else(|| "-".to_owned(), shown);
            let error = line.error().map_or_else(String::new, |it| format!("{:+.2} %", it * 100.0));
            let wrong = if line.is_right() == Some(false) { "  wrong" } else { "" };
            let (expected, latest) = (shown(line.expected), shown(line.latest));
            let expected =
                if expected == latest { expected } else { format!("{expected}..{latest}") };
            let row = format!("{:8}{expected:>12}{reported:>12}{error:>10}{wrong}", line.name);
            put(&mut text, format_args!("{}\n", row.trim_end()));
        }
        put(&mut text, format_args!("\narrivals  {}\n", self.kept()));
        let verdict = match self.verdict {
            Verdict::Right => "right".to_owned(),
            Verdict::Wrong => "WRONG".to_owned(),
            Verdict::Withheld => {
                format!("none: the generator withholds: {}", self.reasons.join("; "))
            }
            Verdict::NoVerdict => format!("none: {}", self.reasons.join("; ")),
        };
        put(&mut text, format_args!("verdict   {verdict}\n"));
        text
    }

    /// How the arrivals kept the schedule, in words.
    fn kept(&self) -> String {
        let Arrivals { meant, arrived, late, stalled_meant, stalled_arrived } = self.arrivals;
        let mut text = format!("{arrived} of {meant}, {late} of them more than 10 ms late");
        if stalled_meant > 0 {
            put(&mut text, format_args!("; {stalled_arrived} of {stalled_meant} during stalls"));
        }
        text + if self.arrivals.omitted() {
            ": coordinated omission, it waited for the server"
        } else if self.arrivals.kept() {
            ": as meant"
        } else {
            ": not as meant"
        }
    }

    /// For machines: times in seconds, shares from 0 to 1.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = self.lines.iter().map(|it| {
            json!({
                "name": it.name,
                "expected_seconds": it.expected.as_secs_f64(),
                "latest_seconds": it.latest.as_secs_f64(),
                "reported_seconds": it.reported.map(|it| it.as_secs_f64()),
                "error_share": it.error(),
                "right": it.is_right(),
            })
        });
        let Arrivals { meant, arrived, late, stalled_meant, stalled_arrived } = self.arrivals;
        json!({
            "law": self.law,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "expected_from": match self.source { Source::Record => "record", Source::Law => "law" },
            "figures": figures.collect::<Vec<_>>(),
            "arrivals": {
                "meant": meant,
                "arrived": arrived,
                "late": late,
                "stalled_meant": stalled_meant,
                "stalled_arrived": stalled_arrived,
                "schedule_kept": self.arrivals.kept(),
                "coordinated_omission": self.arrivals.omitted(),
            },
        })
    }
}

/// Four digits are enough for 2 %.
fn shown(duration: Duration) -> String {
    let coarse = match duration.as_nanos() {
        0..1_000_000 => 100,
        1_000_000..1_000_000_000 => 10_000,
        _ => 1_000_000,
    };
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    print_duration(Duration::from_nanos((nanoseconds + coarse / 2) / coarse * coarse))
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A string takes everything.
    text.write_fmt(arguments).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::judge::{
        expect::Course,
        law::Law,
        record::{Entry, Own},
    };

    /// A server that was asked each millisecond for ten seconds and froze at five.
    fn record() -> Record {
        let law: Law = "constant:20ms,stall:2s@5s".parse().unwrap();
        let entries = (0..10_000).map(|index| {
            let arrival = Duration::from_millis(index);
            let fate = law.fate(1, index);
            let moment = |it: Duration| u64::try_from(it.as_nanos()).unwrap();
            let due = moment(law.due(arrival, fate.delay).last);
            let (arrival, outcome) = (moment(arrival), fate.outcome);
            Entry { arrival, due, answer: Some(due), connection: 0, outcome }
        });
        let (entries, own) = (entries.collect(), Own::default());
        Record { entries, law, seed: 1, own, pauses: Vec::new() }
    }

    fn check(record: &Record, report: &str, expected: Expect) -> Verdict {
        let meant = Meant::Course(Course::even(1e3, Duration::from_secs(10)));
        let report = Report::read(report.as_bytes()).unwrap();
        let grade = grade(record, &meant, &report);
        expected.assert_eq(&grade.text());
        assert_eq!(grade.json()["verdict"], serde_json::to_value(grade.verdict).unwrap());
        grade.verdict
    }

    const HONEST: &str = r#"{"mode":"open","withheld":[],"total":{"latency":{
        "p50_seconds":0.0202,"p90_seconds":1.041,"p99_seconds":1.94,"p99_9_seconds":2.01,
        "max_seconds":2.3}}}"#;

    #[test]
    fn honest_generator() {
        let verdict = check(
            &record(),
            HONEST,
            expect![[r#"
                law       constant:20ms,stall:2s@5s
                expected  from what the server did to each request

                            expected    reported     error
                p50             20ms      20.2ms   +1.00 %
                p90            1.04s      1.041s   +0.10 %
                p99            1.94s       1.94s   +0.00 %
                p99.9         2.015s       2.01s   -0.25 %
                max            2.02s        2.3s  +13.86 %  wrong

                arrivals  10000 of 10000, 0 of them more than 10 ms late; 2000 of 2000 during stalls: as meant
                verdict   right
            "#]],
        );
        assert_eq!(verdict, Verdict::Right);
    }

    #[test]
    fn generator_that_waited() {
        let mut record = record();
        // One connection: the first request of the stall is the only one.
        record.entries.retain(|it| !(5_000_000_001..7_000_000_000).contains(&it.arrival));
        let verdict = check(
            &record,
            r#"{"p50_seconds":0.02,"p99_seconds":0.021}"#,
            expect![[r#"
                law       constant:20ms,stall:2s@5s
                expected  from the law, for requests at the moments they were meant to start

                            expected    reported     error
                p50             20ms        20ms   +0.00 %
                p90            1.04s           -
                p99            1.94s        21ms  -98.92 %  wrong
                p99.9         2.015s           -
                max            2.02s           -

                arrivals  8001 of 10000, 3000 of them more than 10 ms late; 1 of 2000 during stalls: coordinated omission, it waited for the server
                verdict   WRONG
            "#]],
        );
        assert_eq!(verdict, Verdict::Wrong);
    }

    #[test]
    fn nobody_is_judged_by_a_slow_server() {
        let mut record = record();
        record.entries[..1_100].iter_mut().for_each(|it| *it.answer.as_mut().unwrap() += 1_100_000);
        let report = Report::read(HONEST.as_bytes()).unwrap();
        let meant = Meant::Course(Course::even(1e3, Duration::from_secs(10)));
        let grade = grade(&record, &meant, &report);
        assert_eq!(grade.verdict, Verdict::NoVerdict);
        assert_eq!(grade.reasons, ["the server gave 11.0 % of its answers more than 1 ms late"]);
    }

    #[test]
    fn generator_that_withholds() {
        let withheld = r#"{"withheld":[{"reason":"late","message":"3 % of the starts were late"}],
            "total":{"latency":{"p50_seconds":null}}}"#;
        let report = Report::read(withheld.as_bytes()).unwrap();
        let grade = grade(&record(), &Meant::Arrivals, &report);
        assert_eq!(grade.verdict, Verdict::Withheld);
        assert_eq!(grade.reasons, ["3 % of the starts were late"]);
    }

    #[test]
    fn what_is_no_report() {
        let check = |text: &str| format!("{:#}", Report::read(text.as_bytes()).unwrap_err());
        assert_eq!(check("p99 = 3"), "read the report as JSON: expected value at line 1 column 1");
        assert_eq!(check(r#"{"p99_seconds":-1}"#), "`p99_seconds`: -1 is no time");
        assert!(check("{}").starts_with("the report has none of p50_seconds, p90_seconds"));
        let closed = Report::read(br#"{"mode":"closed","p50_seconds":1}"#).unwrap();
        assert!(closed.closed);
    }

    #[test]
    fn a_pause_of_the_machine_is_allowed_for_and_not_more() {
        let line = |reported| Line {
            name: "p99",
            expected: Duration::from_millis(100),
            latest: Duration::from_millis(110),
            reported: Some(Duration::from_micros(reported)),
        };
        assert_eq!(line(97_900).is_right(), Some(false));
        for reported in [98_000, 100_000, 105_000, 112_200] {
            assert_eq!(line(reported).is_right(), Some(true), "{reported}");
        }
        assert_eq!(line(112_300).is_right(), Some(false));
        assert_eq!(line(105_000).error(), Some(0.0));
    }

    #[test]
    fn small_times_are_allowed_the_wire() {
        let line = |expected, reported| Line {
            name: "p50",
            expected: Duration::from_micros(expected),
            latest: Duration::from_micros(expected),
            reported: Some(Duration::from_micros(reported)),
        };
        assert_eq!(line(1_000, 1_100).is_right(), Some(true));
        assert_eq!(line(1_000, 1_101).is_right(), Some(false));
        assert_eq!(line(10_000, 10_200).is_right(), Some(true));
        assert_eq!(line(10_000, 9_799).is_right(), Some(false));
    }
}
