//! Figures, and how they are shown: one table for people, one document for machines.

use std::{fs, time::Duration};

use serde_json::{Value, json};

/// One measured number.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What was measured, in a few words.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it should be, if anything was promised.
    pub(crate) aim: Option<Aim>,
}

/// A promise.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, aim: None }
    }

    /// A duration, in milliseconds.
    pub(crate) fn time(what: impl Into<String>, value: Duration) -> Self {
        Self::new(what, value.as_secs_f64() * 1e3, "ms")
    }

    /// A size, in MiB.
    pub(crate) fn size(what: impl Into<String>, kibibytes: u64) -> Self {
        Self::new(what, thousands(kibibytes) / 1.024, "MiB")
    }

    pub(crate) fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    fn met(&self) -> Option<bool> {
        self.aim.map(|aim| match aim {
            Aim::AtMost(limit) => self.value <= limit,
            Aim::AtLeast(limit) => self.value >= limit,
        })
    }
}

fn thousands(number: u64) -> f64 {
    // Exact up to 2^52, far above any memory.
    number as f64 / 1e3
}

/// Durations that were measured one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort();
        Self(durations)
    }

    /// The duration that `percent` of 100 do not exceed; zero if there are none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }
}

/// All figures, by part.
#[derive(Debug, Default)]
pub(crate) struct Report {
    parts: Vec<(&'static str, anyhow::Result<Vec<Figure>>)>,
}

impl Report {
    /// Adds a part. One that could not be measured stands in the report with its reason.
    pub(crate) fn add(&mut self, part: &'static str, figures: anyhow::Result<Vec<Figure>>) {
        self.parts.push((part, figures));
    }

    /// Whether everything could be measured.
    pub(crate) fn is_complete(&self) -> bool {
        self.parts.iter().all(|(_, figures)| figures.is_ok())
    }

    pub(crate) fn text(&self) -> String {
        let mut lines = vec![machine()];
        for (part, figures) in &self.parts {
            match figures {
                Ok(figures) => lines.extend(figures.iter().map(|it| line(part, it))),
                Err(error) => lines.push(format!("{part:8} NOT MEASURED: {error:#}")),
            }
        }
        lines.join("\n") + "\n"
    }

    pub(crate) fn json(&self) -> Value {
        let parts = self.parts.iter().map(|(part, figures)| match figures {
            Ok(figures) => {
                let figures: Vec<Value> = figures.iter().map(document).collect();
                json!({ "part": part, "figures": figures })
            }
            Err(error) => json!({ "part": part, "error": format!("{error:#}") }),
        });
        json!({ "machine": machine(), "parts": parts.collect::<Vec<_>>() })
    }
}

fn line(part: &str, figure: &Figure) -> String {
    let Figure { what, value, unit, aim } = figure;
    let value = if *value >= 1e3 { format!("{value:.0}") } else { format!("{value:.3}") };
    let aim = match aim {
        Some(Aim::AtMost(limit)) => format!("aim: at most {limit}"),
        Some(Aim::AtLeast(limit)) => format!("aim: at least {limit}"),
        None => String::new(),
    };
    let met = if figure.met() == Some(false) { " (missed)" } else { "" };
    format!("{part:8} {what:50} {value:>10} {unit:6} {aim}{met}").trim_end().to_owned()
}

fn document(figure: &Figure) -> Value {
    let (at_most, at_least) = match figure.aim {
        Some(Aim::AtMost(limit)) => (Some(limit), None),
        Some(Aim::AtLeast(limit)) => (None, Some(limit)),
        None => (None, None),
    };
    json!({
        "what": figure.what, "value": figure.value, "unit": figure.unit,
        "aimAtMost": at_most, "aimAtLeast": at_least, "met": figure.met(),
    })
}

/// The machine, in one line.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (processors, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model = processors.lines().find_map(|it| it.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |it| it.trim_start_matches([':', '\t', ' ']));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}, load {load}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn percentiles() {
        let check = |count: u64| {
            let samples = Samples::new((1..=count).rev().map(Duration::from_secs).collect());
            [50, 99, 100].map(|it| samples.percentile(it).as_secs())
        };
        assert_eq!(check(0), [0, 0, 0]);
        assert_eq!(check(1), [1, 1, 1]);
        assert_eq!(check(100), [50, 99, 100]);
        assert_eq!(check(1_000), [500, 990, 1_000]);
    }

    #[test]
    fn table_and_document() {
        let mut report = Report::default();
        let fast = Figure::time("p50", Duration::from_micros(1_500)).aim(Aim::AtMost(2.0));
        let few = Figure::new("creates", 15_000.4, "1/s").aim(Aim::AtLeast(20_000.0));
        report.add("objects", Ok(vec![fast, few, Figure::size("memory", 2_048)]));
        report.add("pods", Err(anyhow::anyhow!("no node").context("start pods")));
        let text = report.text();
        let (_, table) = text.split_once('\n').unwrap();
        expect![[r#"
            objects  p50                                                     1.500 ms     aim: at most 2
            objects  creates                                                 15000 1/s    aim: at least 20000 (missed)
            objects  memory                                                  2.000 MiB
            pods     NOT MEASURED: start pods: no node
        "#]]
        .assert_eq(table);
        let parts = &report.json()["parts"];
        assert_eq!(
            (&parts[0]["figures"][1]["met"], &parts[1]["error"]),
            (&json!(false), &json!("start pods: no node"))
        );
        assert!(!report.is_complete());
    }
}
