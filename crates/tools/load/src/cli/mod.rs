//! `coracle load`: from the command line to a plan, a run, and what is said about it.
//!
//! Exit codes: 0 measured, and every threshold reached; 1 nothing succeeded, a threshold was missed,
//! percentiles are withheld that a threshold needs, or a target cannot be reached; 2 unusable
//! arguments.

mod arguments;
mod plan;

#[cfg(test)]
mod tests;

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;

pub use self::arguments::Arguments;
use self::{
    arguments::{Command, Format, OutputArguments, RunArguments},
    plan::Wanted,
};
use crate::{
    engine::{self, limits},
    judge, report,
    results::Results,
    scenario::Threshold,
};

/// Exit code of arguments that cannot be used, as clap has it.
const UNUSABLE: u8 = 2;

/// Runs `coracle load`.
///
/// # Errors
///
/// What went wrong, for the user.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Some(Command::Judge { command }) => judge::cli::run(command),
        Some(Command::Compare(arguments)) => {
            report::compare::cli::run(arguments, &mut io::stdout().lock())
        }
        None => load(&arguments.run),
    }
}

fn load(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let Wanted { plan, thresholds, targets } = match plan::make(arguments) {
        Ok(wanted) => wanted,
        Err(error) => return unusable(&error),
    };
    if let Some(warning) = limits::foresee(&plan) {
        writeln!(io::stderr().lock(), "warning: {warning}")?;
    }
    let mut live = report::Live::new(&targets, style());
    let is_quiet = arguments.output.quiet;
    let measured = engine::run(plan, interrupt(), |progress| {
        if !is_quiet {
            live.show(progress);
        }
    });
    live.end();
    let mut results = match measured {
        Ok(results) => results,
        Err(error) if error.is_unusable() => return unusable(&error.into()),
        Err(error) => return Err(error.into()),
    };
    results.targets = targets;
    write(&results, &arguments.output)?;
    let met = judge_thresholds(&results, &thresholds, &arguments.output)?;
    let measured = results.total.succeeded > 0 && met;
    Ok(if measured { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn unusable(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let mut out = io::stderr().lock();
    writeln!(out, "error: {error}")?;
    for cause in error.chain().skip(1) {
        writeln!(out, "  because: {cause}")?;
    }
    Ok(ExitCode::from(UNUSABLE))
}

fn style() -> report::Style {
    #[expect(clippy::disallowed_methods, reason = "of interest to a terminal only")]
    let is_plain = env::var("NO_COLOR").is_ok_and(|it| !it.is_empty());
    if is_plain { report::Style::Plain } else { report::Style::Colour }
}

/// Waits for Ctrl-C.
async fn interrupt() {
    // Without a handler the signal ends the process, as it always did.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Says what was measured, wherever it is wanted.
fn write(results: &Results, output: &OutputArguments) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match output.output {
        Format::Text => write!(out, "{}", report::text(results))?,
        Format::Json => writeln!(out, "{}", report::json(results)?)?,
    }
    let to_file = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).with_context(|| format!("write `{}`", path.display()))
    };
    if let Some(path) = &output.json {
        to_file(path, report::json(results)?.as_bytes())?;
    }
    if let Some(path) = &output.html {
        to_file(path, report::html(results).as_bytes())?;
    }
    if let Some(path) = &output.hdr {
        let mut log = Vec::new();
        match report::log(results, &mut log) {
            Ok(()) => to_file(path, &log)?,
            // The report says why; what was measured otherwise is still of use.
            Err(error @ report::LogError::Withheld(_)) => {
                writeln!(io::stderr().lock(), "warning: no histogram log: {error}")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Says which thresholds were reached, and whether all were.
fn judge_thresholds(
    results: &Results,
    thresholds: &[Threshold],
    output: &OutputArguments,
) -> io::Result<bool> {
    let mut lines = String::new();
    let mut are_met = true;
    for verdict in thresholds.iter().map(|it| it.judge(results)) {
        let word = if verdict.met { "reached" } else { "MISSED" };
        lines.push_str(&format!("{word}: {} ({})\n", verdict.threshold, verdict.found));
        are_met &= verdict.met;
    }
    match output.output {
        Format::Text => io::stdout().lock().write_all(lines.as_bytes())?,
        Format::Json => io::stderr().lock().write_all(lines.as_bytes())?,
    }
    Ok(are_met)
}
