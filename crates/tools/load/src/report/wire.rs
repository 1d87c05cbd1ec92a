//! The report for machines: one JSON object. Every key is documented here and in
//! `docs/load-results.md`; times are in seconds, sizes in bytes, shares from 0 to 1, and the unit is
//! in the name. New keys may appear; a key that changes or goes raises [`SCHEMA_VERSION`].

use std::collections::BTreeMap;

use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::{
    report::{
        QUANTILES, doubts,
        numbers::{as_f64, part},
        per_second,
    },
    results::{self, Doubt, Results, Times, Unit},
};

/// Version of the keys.
pub const SCHEMA_VERSION: u32 = 1;

/// One by the precision to which rates and shares are given.
const SHORT: f64 = 1e6;
/// Nanoseconds of a second.
const NANOSECONDS: f64 = 1e9;

/// The report as JSON, indented, with a line feed at the end.
///
/// # Errors
///
/// A histogram that cannot be serialised: one that counts beyond what its format can.
pub fn json(results: &Results) -> Result<String, JsonError> {
    let report = Report::new(results)?;
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

/// Why a report cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// A histogram has no serialised form.
    #[error("serialise a histogram")]
    Histogram(#[from] hdrhistogram::serialization::V2DeflateSerializeError),
    /// The rest of it has none.
    #[error("write JSON")]
    Json(#[from] serde_json::Error),
}

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not of this shape.
    #[error("not a report of `coracle load -o json`")]
    Json(#[from] serde_json::Error),
    /// Of a version that is not known here.
    #[error("its schema_version is {0}, and only {SCHEMA_VERSION} is known here")]
    Version(u32),
    /// A histogram that cannot be decoded.
    #[error("a histogram in it is damaged")]
    Base64(#[from] base64::DecodeError),
    /// A histogram that cannot be decoded.
    #[error("a histogram in it is damaged")]
    Histogram(#[from] hdrhistogram::serialization::DeserializeError),
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Who decided when requests start.
    pub mode: Mode,
    /// What was aimed at, as the user wrote it.
    pub targets: Vec<String>,
    /// When the first start was meant, RFC 3339.
    pub began: jiff::Timestamp,
    /// From then to the last answer, or to the end of waiting.
    pub took_seconds: f64,
    /// How long starts were meant for.
    pub planned_seconds: f64,
    /// Whether the user ended the run before its plan did.
    pub interrupted: bool,
    /// Seed of schedule and choices: decimal digits in a string, because many readers of JSON round
    /// numbers of 64 bits.
    pub seed: String,
    /// Why percentiles and histograms are null; empty if they are not.
    pub withheld: Vec<Withheld>,
    /// Everything.
    pub total: Series,
    /// The same per step, in the order of the plan.
    pub steps: Vec<Step>,
    /// Seconds of the run, in order, none missing.
    pub seconds: Vec<Second>,
    /// How the generator itself did.
    pub own: Own,
    /// What came of the thresholds, in their order.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
}

/// Who decided when requests start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A schedule: latency counts from the meant start.
    Open,
    /// The answers before: latency counts from the actual start.
    Closed,
}

/// A reason to withhold percentiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// `late`, `dropped`, `descriptors`, `ports`, `connections` or `no_success`.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// A step and what it measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `flow/step`.
    pub name: String,
    /// As for the whole.
    #[serde(flatten)]
    pub series: Series,
}

/// What was measured of one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Starts that were meant.
    pub meant: u64,
    /// Requests that were started.
    pub started: u64,
    /// Requests that ended, well or not.
    pub done: u64,
    /// Requests that were answered well.
    pub succeeded: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Requests that were sent a second time, because the server had closed the kept connection or
    /// refused to begin with them; counted once everywhere else.
    #[serde(default)]
    pub sent_again: u64,
    /// `meant` by `planned_seconds`.
    pub meant_per_second: f64,
    /// `done` by `took_seconds`.
    pub done_per_second: f64,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<String, u64>,
    /// Failed checks by name.
    pub checks: BTreeMap<String, u64>,
    /// Bytes sent, before encryption.
    pub sent_bytes: u64,
    /// Bytes received, after decryption.
    pub received_bytes: u64,
    /// From the meant start (closed loop: from the actual one) to the last byte of the answer.
    pub latency: Distribution,
    /// From the actual start to the last byte of the answer.
    pub service: Distribution,
    /// Opening connections.
    pub connect: Distribution,
    /// TLS handshakes.
    pub tls: Distribution,
    /// From the request sent to the answer's first byte.
    pub first_byte: Distribution,
    /// From the answer's first byte to its last.
    pub body: Distribution,
}

/// How durations are distributed. All but `count` are null if there are none or they are withheld.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_seconds: Option<f64>,
    /// Shortest.
    pub min_seconds: Option<f64>,
    /// Median.
    pub p50_seconds: Option<f64>,
    /// 90 of 100 took at most this.
    pub p90_seconds: Option<f64>,
    /// 99 of 100 took at most this.
    pub p99_seconds: Option<f64>,
    /// 999 of 1000 took at most this.
    pub p99_9_seconds: Option<f64>,
    /// Longest.
    pub max_seconds: Option<f64>,
    /// Everything, in nanoseconds: an HdrHistogram of three digits, encoded V2, compressed, base64.
    pub histogram: Option<String>,
}

/// One second of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which, counted from 0.
    pub second: u64,
    /// Starts meant in it.
    pub meant: u64,
    /// Requests ended in it.
    pub done: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The same by kind.
    pub failures: BTreeMap<String, u64>,
    /// Requests under way at its end.
    pub in_flight: u64,
    /// Starts meant in it that came more than a millisecond late: the generator's fault.
    pub late: u64,
    /// Latency of those answered in it.
    pub latency: Distribution,
}

/// How the generator itself did. Never withheld.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// From meant to actual start.
    pub lag: Distribution,
    /// Starts more than a millisecond late.
    pub late: u64,
    /// Their share of all starts, 0 to 1.
    pub late_share: f64,
    /// Starts that were meant and never happened.
    pub dropped: u64,
    /// Processor time used, of all threads.
    pub cpu_seconds: f64,
    /// Cores that it may use.
    pub cores: usize,
    /// Requests still without an answer when waiting ended.
    pub unanswered: u64,
}

/// What came of one threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// As it is written: `p99 < 50ms`.
    pub condition: String,
    /// Whether it was reached.
    pub reached: bool,
    /// `seconds`, `count`, `share` (from 0 to 1) or `per_second`.
    pub unit: String,
    /// What was asked for, in that unit.
    pub bound: f64,
    /// What was found, in that unit; null if nothing is known.
    pub found: Option<f64>,
    /// The same for people, or why nothing is known.
    pub message: String,
}

impl Report {
    /// Reads a report that [`json`] wrote.
    ///
    /// # Errors
    ///
    /// Not such a report, or of another version.
    pub fn read(json: &[u8]) -> Result<Self, ReadError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            schema_version: u32,
        }
        let versioned: Versioned = serde_json::from_slice(json)?;
        if versioned.schema_version != SCHEMA_VERSION {
            return Err(ReadError::Version(versioned.schema_version));
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// What [`json`] writes.
    ///
    /// # Errors
    ///
    /// As [`json`].
    pub fn new(results: &Results) -> Result<Self, JsonError> {
        let doubts = results.doubts();
        let show = if doubts.is_empty() { Show::Everything } else { Show::Count };
        let steps = results.steps.iter().map(|(name, series)| {
            Ok(Step { name: name.clone(), series: Series::new(series, results, show)? })
        });
        let seconds =
            results.seconds.iter().zip(0..).map(|(it, second)| Second::new(second, it, show));
        let own = &results.own;
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            mode: match results.mode {
                results::Mode::Open => Mode::Open,
                results::Mode::Closed => Mode::Closed,
            },
            targets: results.targets.clone(),
            began: results.began,
            took_seconds: results.took.as_secs_f64(),
            planned_seconds: results.planned.as_secs_f64(),
            interrupted: results.interrupted,
            seed: results.seed.to_string(),
            withheld: doubts.iter().map(Withheld::new).collect(),
            total: Series::new(&results.total, results, show)?,
            steps: steps.collect::<Result<_, JsonError>>()?,
            seconds: seconds.collect::<Result<_, JsonError>>()?,
            own: Own {
                lag: Distribution::new(&own.lag, Show::Everything)?,
                late: own.late,
                late_share: short(part(own.late, own.lag.len())),
                dropped: own.dropped,
                cpu_seconds: own.cpu.as_secs_f64(),
                cores: own.cores,
                unanswered: own.unanswered,
            },
            thresholds: results.verdicts.iter().map(Threshold::new).collect(),
        })
    }
}

/// How much of a distribution may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Everything,
    Count,
}

impl Withheld {
    fn new(doubt: &Doubt) -> Self {
        let words = doubts::words(doubt);
        Self {
            reason: words.reason.to_owned(),
            message: words.what,
            remedy: words.remedy.to_owned(),
        }
    }
}

impl Series {
    fn new(series: &results::Series, run: &Results, show: Show) -> Result<Self, JsonError> {
        Ok(Self {
            meant: series.meant,
            started: series.started,
            done: series.done,
            succeeded: series.succeeded,
            failed: series.failed(),
            sent_again: series.again,
            meant_per_second: short(per_second(series.meant, run.planned)),
            done_per_second: short(per_second(series.done, run.took)),
            failures: named(&series.failures),
            statuses: series.statuses.iter().map(|(it, times)| (it.to_string(), *times)).collect(),
            checks: series.checks.clone(),
            sent_bytes: series.sent,
            received_bytes: series.received,
            latency: Distribution::new(&series.latency, show)?,
            service: Distribution::new(&series.service, show)?,
            connect: Distribution::new(&series.connect, show)?,
            tls: Distribution::new(&series.tls, show)?,
            first_byte: Distribution::new(&series.first_byte, show)?,
            body: Distribution::new(&series.body, show)?,
        })
    }
}

impl Threshold {
    fn new(verdict: &results::Verdict) -> Self {
        let number = |it: f64| match verdict.unit {
            Unit::Seconds | Unit::Count => it,
            Unit::Share | Unit::PerSecond => short(it),
        };
        Self {
            condition: verdict.threshold.clone(),
            reached: verdict.met,
            unit: verdict.unit.name().to_owned(),
            bound: number(verdict.bound),
            found: verdict.measured.map(number),
            message: verdict.found.clone(),
        }
    }
}

impl Second {
    fn new(second: u64, of: &results::Second, show: Show) -> Result<Self, JsonError> {
        Ok(Self {
            second,
            meant: of.meant,
            done: of.done,
            failed: of.failed(),
            failures: named(&of.failures),
            in_flight: of.in_flight,
            late: of.late,
            latency: Distribution::new(&of.latency, show)?,
        })
    }
}

impl Distribution {
    fn new(times: &Times, show: Show) -> Result<Self, JsonError> {
        let is_shown = show == Show::Everything && !times.is_empty();
        let seconds = |nanoseconds: f64| is_shown.then_some(nanoseconds.round() / NANOSECONDS);
        let [p50, p90, p99, p99_9] = QUANTILES.map(|(_, it)| as_f64(times.value_at_quantile(it)));
        Ok(Self {
            count: times.len(),
            mean_seconds: seconds(times.mean()),
            min_seconds: seconds(as_f64(times.min())),
            p50_seconds: seconds(p50),
            p90_seconds: seconds(p90),
            p99_seconds: seconds(p99),
            p99_9_seconds: seconds(p99_9),
            max_seconds: seconds(as_f64(times.max())),
            histogram: if is_shown { Some(encode(times)?) } else { None },
        })
    }

    /// The histogram, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be decoded.
    pub fn times(&self) -> Result<Option<Times>, ReadError> {
        let Some(text) = &self.histogram else {
            return Ok(None);
        };
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text)?;
        Ok(Some(Deserializer::new().deserialize(&mut bytes.as_slice())?))
    }
}

/// A quotient without the digits that mean nothing. What is short is also read back as it was.
fn short(value: f64) -> f64 {
    (value * SHORT).round() / SHORT
}

/// Failures under the names that reports give them.
fn named(failures: &BTreeMap<crate::exchange::FailureKind, u64>) -> BTreeMap<String, u64> {
    failures.iter().map(|(kind, times)| (kind.name().to_owned(), *times)).collect()
}

/// A histogram as its other ports read it.
fn encode(times: &Times) -> Result<String, JsonError> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(times, &mut bytes)?;
    Ok(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::{sample, verdicts};
    use expect_test::{expect, expect_file};
    use proptest::prelude::*;

    /// The JSON without histograms, and of its lists the first.
    fn abridged(results: &Results) -> String {
        let mut report = Report::new(results).unwrap();
        report.steps.truncate(1);
        report.seconds.truncate(1);
        serde_json::to_string_pretty(&report).unwrap()
    }

    #[test]
    fn keys() {
        let mut results = sample();
        results.total.again = 3;
        results.verdicts = verdicts();
        let json = abridged(&results);
        let lines: Vec<_> = json.lines().filter(|it| !it.contains("\"histogram\"")).collect();
        expect_file!["testdata/report.json"].assert_eq(&lines.join("\n"));
    }

    #[test]
    fn read_back() {
        let mut results = sample();
        results.verdicts = verdicts();
        let report = Report::read(json(&results).unwrap().as_bytes()).unwrap();
        assert_eq!(report, Report::new(&results).unwrap());
        assert_eq!(report.total.latency.times().unwrap().unwrap(), results.total.latency);
        assert_eq!(report.seconds[6].latency.times().unwrap().unwrap(), results.seconds[6].latency);
    }

    #[test]
    fn reports_from_before_a_key_was_added_are_read() {
        let mut json: serde_json::Value = serde_json::from_str(&json(&sample()).unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("thresholds").unwrap();
        json["total"].as_object_mut().unwrap().remove("sent_again").unwrap();
        json["steps"][0].as_object_mut().unwrap().remove("sent_again").unwrap();
        let report = Report::read(json.to_string().as_bytes()).unwrap();
        assert_eq!(report, Report::new(&sample()).unwrap());
    }

    #[test]
    fn withheld_is_null_everywhere_but_for_the_generator() {
        let mut results = sample();
        results.own.dropped = 1;
        let json: serde_json::Value = serde_json::from_str(&json(&results).unwrap()).unwrap();
        let mut shown = Vec::new();
        collect(&json, "", &mut shown);
        shown.retain(|it| it.ends_with("p99_seconds") || it.ends_with("histogram"));
        assert_eq!(shown, ["/own/lag/histogram", "/own/lag/p99_seconds"]);
        assert_eq!(json["withheld"][0]["reason"], "dropped");
        assert_eq!(json["total"]["latency"]["count"], 998);
    }

    /// Paths of all values that are not null.
    fn collect(value: &serde_json::Value, path: &str, paths: &mut Vec<String>) {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Object(fields) => {
                fields.iter().for_each(|(key, it)| collect(it, &format!("{path}/{key}"), paths));
            }
            serde_json::Value::Array(items) => {
                items.iter().for_each(|it| collect(it, path, paths));
            }
            _ => paths.push(path.to_owned()),
        }
    }

    #[test]
    fn what_is_no_report() {
        let read = |json: &str| Report::read(json.as_bytes()).unwrap_err().to_string();
        expect![[r#"
            not a report of `coracle load -o json`
            not a report of `coracle load -o json`
            its schema_version is 2, and only 1 is known here"#]]
        .assert_eq(&[read("{"), read("{}"), read(r#"{"schema_version":2}"#)].join("\n"));
    }

    proptest! {
        #[test]
        fn histograms_survive(values in prop::collection::vec(0..u64::MAX / 4, 1..100)) {
            let mut times = results::times();
            for value in values {
                times.saturating_record(value);
            }
            let distribution = Distribution::new(&times, Show::Everything).unwrap();
            prop_assert_eq!(distribution.times().unwrap().unwrap(), times);
        }
    }
}
