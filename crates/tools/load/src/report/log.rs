//! The HdrHistogram log: latency of every second as a compressed histogram, in the text format that
//! HdrHistogram's own tools and plotters read (version 1.3, histograms encoded V2, in nanoseconds).
//!
//! It has one interval per second and nothing else. Readers such as Python's add up all intervals
//! whatever their tag, so steps and service time would falsify what they print; those are in the JSON.

use std::{io, time::Duration};

use hdrhistogram::serialization::{
    V2DeflateSerializeError, V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError},
};

use crate::{report::doubts, results::Results};

/// The column Interval_Max is in milliseconds, as everywhere: it is for people only.
const NANOSECONDS_OF_MAX: f64 = 1e6;
/// Names of the columns. Part of the format.
const LEGEND: &str =
    r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The percentiles of this run are withheld, and a log would say nothing of that.
    #[error("percentiles are withheld, so there is no histogram log: {0}")]
    Withheld(String),
    /// It cannot be written.
    #[error("write the histogram log")]
    Write(#[from] io::Error),
    /// A histogram has no serialised form.
    #[error("serialise a histogram")]
    Histogram(#[source] V2DeflateSerializeError),
}

/// Writes the log of a run.
///
/// # Errors
///
/// See [`LogError`].
pub fn log(results: &Results, mut out: &mut impl io::Write) -> Result<(), LogError> {
    if let Some(doubt) = results.doubts().first() {
        return Err(LogError::Withheld(doubts::words(doubt).what));
    }
    let mut serializer = V2DeflateSerializer::new();
    let began = results.began.as_duration();
    writeln!(out, "#[Latency of {}, in nanoseconds, by coracle load]", results.targets.join(", "))?;
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(
        out,
        "#[StartTime: {:.3} (seconds since epoch), {}]",
        began.as_secs_f64(),
        results.began
    )?;
    // Says that the intervals below count from there.
    writeln!(out, "#[BaseTime: {:.3} (seconds since epoch)]", began.as_secs_f64())?;
    writeln!(out, "{LEGEND}")?;
    let mut writer = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(NANOSECONDS_OF_MAX)
        .begin_log_with(&mut out, &mut serializer)?;
    for (start, second) in (0..).zip(&results.seconds) {
        let start = Duration::from_secs(start);
        writer.write_histogram(&second.latency, start, Duration::from_secs(1), None).map_err(
            |error| match error {
                IntervalLogWriterError::SerializeError(error) => LogError::Histogram(error),
                IntervalLogWriterError::IoError(error) => LogError::Write(error),
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{self, tests::sample};
    use expect_test::expect;
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    fn written(results: &Results) -> String {
        let mut out = Vec::new();
        log(results, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn header_and_columns() {
        let log = written(&sample());
        // What is compressed depends on who compresses it.
        let plain = |it: &str| it.split_inclusive("HISTF").next().map(str::to_owned);
        let short: Vec<_> = log.lines().filter_map(plain).take(7).collect();
        expect![[r##"
            #[Latency of https://127.0.0.1:8443/, in nanoseconds, by coracle load]
            #[Histogram log format version 1.3]
            #[StartTime: 1795287600.000 (seconds since epoch), 2026-11-21T19:00:00Z]
            #[BaseTime: 1795287600.000 (seconds since epoch)]
            "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
            #[MaxValueDivisor: 1000000.000]
            0.000,1.000,24.510,HISTF"##]]
        .assert_eq(&short.join("\n"));
    }

    #[test]
    fn its_intervals_add_up_to_the_whole() {
        let results = sample();
        let log = written(&results);
        let mut total = results::times();
        let mut intervals = 0;
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = base64::Engine::decode(
                    &base64::prelude::BASE64_STANDARD,
                    interval.encoded_histogram(),
                );
                total += Deserializer::new().deserialize(&mut bytes.unwrap().as_slice()).unwrap();
                intervals += 1;
            }
        }
        assert_eq!(intervals, results.seconds.len());
        assert_eq!(total, results.total.latency);
    }

    #[test]
    fn withheld() {
        let mut results = sample();
        results.own.dropped = 1;
        let mut out = Vec::new();
        let error = log(&results, &mut out).unwrap_err();
        assert!(matches!(error, LogError::Withheld(_)) && out.is_empty(), "{error}");
    }
}
