//! `coracle load compare`: reads two reports, prints what changed, and fails if asked to.

use std::{fs, io, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::report::{self, wire::Report};

use super::{Change, Comparison, compare, decide::Unit, json, text};

/// Arguments of `compare`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 compared; 1 slower than --fail-if-slower allows; 2 reports that cannot \
be read or compared."
)]
pub struct Arguments {
    /// Report of the first run, as `-o json` wrote it.
    before: PathBuf,
    /// Report of the second run.
    after: PathBuf,
    /// Exit with 1 if a percentile of latency is slower by more than this, and by more than noise.
    #[arg(long, value_name = "PERCENT")]
    fail_if_slower: Option<Percent>,
    /// File for the comparison as a page, with both runs in the same charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Format of the answer.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// A format of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Per cent: `10%` or `10`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        match number.parse() {
            Ok(percent) if (0.0..f64::INFINITY).contains(&percent) => Ok(Self(percent)),
            Ok(_) | Err(_) => Err("a percentage such as 10%, not below 0, is needed".to_owned()),
        }
    }
}

/// Compares and prints. The exit code is 1 if the second run is slower than was allowed.
///
/// # Errors
///
/// A report cannot be read, the two cannot be compared, or with `--fail-if-slower` a run is too short
/// to tell.
pub fn run(arguments: &Arguments, out: &mut impl io::Write) -> anyhow::Result<ExitCode> {
    let read = |path: &PathBuf| {
        let json = fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
        Report::read(&json).with_context(|| format!("read `{}`", path.display()))
    };
    let runs = [read(&arguments.before)?, read(&arguments.after)?];
    let [before, after] = &runs;
    let comparison = compare(before, after).with_context(|| {
        let (before, after) = (arguments.before.display(), arguments.after.display());
        format!("`{before}` and `{after}` cannot be compared")
    })?;
    let slower = arguments.fail_if_slower.map(|it| slower(&comparison, it)).transpose()?;
    if let Some(path) = &arguments.html {
        let page = report::comparison(&comparison, [before, after])?;
        fs::write(path, page).with_context(|| format!("write `{}`", path.display()))?;
    }
    match arguments.output {
        Format::Json => out.write_all(json(&comparison, slower.as_deref())?.as_bytes())?,
        Format::Text => {
            out.write_all(text(&comparison).as_bytes())?;
            if let (Some(slower), Some(Percent(percent))) = (&slower, arguments.fail_if_slower) {
                match slower.join(", ") {
                    none if none.is_empty() => {
                        writeln!(out, "passed: no percentile is slower by more than {percent} %")?;
                    }
                    names => writeln!(out, "FAILED: slower by more than {percent} %: {names}")?,
                }
            }
        }
    }
    Ok(if slower.is_some_and(|it| !it.is_empty()) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Which percentiles are slower by more than is allowed, and by more than noise.
fn slower(comparison: &Comparison, allowed: Percent) -> anyhow::Result<Vec<String>> {
    let percentiles = comparison.rows.iter().filter(|it| it.unit == Unit::Seconds);
    let told = percentiles.clone().any(|it| it.change != Change::Unknown);
    anyhow::ensure!(told, "the runs are too short to tell noise from change");
    let limit = 1.0 + allowed.0 / 100.0;
    let slower = percentiles
        .filter(|it| it.change == Change::Worse && it.ratio.is_some_and(|it| it > limit));
    Ok(slower.map(|it| it.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::wire, results::tests::sample};
    use expect_test::expect;

    /// Runs the command on the sample and on a copy of it that was slower by a factor.
    fn run_on(factor: u64, arguments: &[&str]) -> (ExitCode, String) {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            arguments: Arguments,
        }
        let folder = tempfile::tempdir().unwrap();
        let mut before = sample();
        // Without its stall: one event more or less is noise.
        let calm = before.seconds[1].clone();
        before.seconds.fill(calm);
        let mut after = before.clone();
        for times in after.seconds.iter_mut().map(|it| &mut it.latency) {
            let mut slower = crate::results::times();
            for it in times.iter_recorded() {
                slower.record_n(it.value_iterated_to() * factor, it.count_at_value()).unwrap();
            }
            *times = slower;
        }
        let paths = [("a.json", before), ("b.json", after)].map(|(name, results)| {
            let path = folder.path().join(name);
            fs::write(&path, wire::json(&results).unwrap()).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let all = ["compare"].into_iter().chain(paths.iter().map(String::as_str));
        let cli = <Cli as clap::Parser>::parse_from(all.chain(arguments.iter().copied()));
        let mut out = Vec::new();
        let code = run(&cli.arguments, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn slower_fails_only_if_asked_to() {
        assert_eq!(run_on(2, &[]).0, ExitCode::SUCCESS);
        let (code, out) = run_on(2, &["--fail-if-slower", "10%"]);
        assert_eq!(code, ExitCode::FAILURE);
        expect![
            "FAILED: slower by more than 10 %: latency p50, latency p90, latency p99, latency p99.9"
        ]
        .assert_eq(out.lines().last().unwrap());
        assert_eq!(run_on(2, &["--fail-if-slower", "150%"]).0, ExitCode::SUCCESS);
    }

    #[test]
    fn the_same_passes() {
        let (code, out) = run_on(1, &["--fail-if-slower", "0"]);
        assert_eq!(code, ExitCode::SUCCESS);
        expect!["passed: no percentile is slower by more than 0 %"]
            .assert_eq(out.lines().last().unwrap());
    }

    #[test]
    fn page_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compared.html");
        assert_eq!(run_on(2, &["--html", path.to_str().unwrap()]).0, ExitCode::SUCCESS);
        let page = fs::read_to_string(path).unwrap();
        assert!(page.contains("<svg") && page.contains("SLOWER"), "{page}");
    }

    #[test]
    fn percentages() {
        let parse = |it: &str| it.parse::<Percent>();
        assert_eq!(parse("10%"), Ok(Percent(10.0)));
        assert_eq!(parse("2.5 %"), Ok(Percent(2.5)));
        for bad in ["", "%", "-1", "ten", "inf", "NaN"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
