//! `coracle load`: from the command line to a plan, a run, and what is said about it.
//!
//! Exit codes: 0 measured, and every threshold reached; 1 nothing succeeded, a threshold was missed,
//! percentiles are withheld that a threshold needs, a target cannot be reached, or results could not
//! be written; 2 unusable arguments, a file for results that cannot be written among them.

mod arguments;
mod files;
mod plan;

#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

pub use self::arguments::Arguments;
use self::{
    arguments::{Command, Format, RunArguments},
    files::Files,
    plan::Wanted,
};
use crate::{
    engine::{self, limits},
    judge, report,
    results::Results,
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
            match report::compare::cli::run(arguments, &mut io::stdout()) {
                Err(error) if !is_broken_pipe(&error) => unusable(&error),
                compared => compared,
            }
        }
        None => load(&arguments.run, &mut io::stdout()),
    }
}

fn load(arguments: &RunArguments, out: &mut impl io::Write) -> anyhow::Result<ExitCode> {
    let Wanted { plan, thresholds, targets } = match plan::make(arguments) {
        Ok(wanted) => wanted,
        Err(error) => return unusable(&error),
    };
    let files = match Files::open(&arguments.output) {
        Ok(files) => files,
        Err(error) => return unusable(&error.into()),
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
        Err(error) => {
            files.discard();
            let is_unusable = error.is_unusable();
            return if is_unusable { unusable(&error.into()) } else { Err(error.into()) };
        }
    };
    results.targets = targets;
    results.verdicts = thresholds.iter().map(|it| it.judge(&results)).collect();
    // Files first: whoever reads the text may have gone.
    let (notes, errors) = files.write(&results);
    for error in &errors {
        complain(error)?;
    }
    match say(&results, &notes, arguments.output.output, out) {
        // A reader such as `head` has heard enough; the verdict is another matter.
        Err(error) if is_broken_pipe(&error) => {}
        said => said?,
    }
    let is_good = results.total.succeeded > 0
        && results.verdicts.iter().all(|it| it.met)
        && errors.is_empty();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn unusable(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    complain(error)?;
    Ok(ExitCode::from(UNUSABLE))
}

fn complain(error: &anyhow::Error) -> io::Result<()> {
    let mut out = io::stderr().lock();
    writeln!(out, "error: {error}")?;
    for cause in error.chain().skip(1) {
        writeln!(out, "  because: {cause}")?;
    }
    Ok(())
}

fn style() -> report::Style {
    #[expect(clippy::disallowed_methods, reason = "of interest to a terminal only")]
    let is_plain = env::var("NO_COLOR").is_ok_and(|it| !it.is_empty());
    if is_plain { report::Style::Plain } else { report::Style::Colour }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

/// Waits for Ctrl-C.
async fn interrupt() {
    // Without a handler the signal ends the process, as it always did.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Says what was measured, to people or to a machine. What only people want to know goes to standard
/// error when a machine reads the rest.
fn say(
    results: &Results,
    notes: &[String],
    format: Format,
    out: &mut impl io::Write,
) -> anyhow::Result<()> {
    let notes: String = notes.iter().map(|it| format!("{it}\n")).collect();
    match format {
        Format::Text => {
            let gap = if notes.is_empty() { "" } else { "\n" };
            write!(out, "{}{gap}{notes}", report::text(results))?;
        }
        Format::Json => {
            let verdicts = report::verdicts(&results.verdicts);
            write!(io::stderr().lock(), "{verdicts}{notes}")?;
            out.write_all(report::json(results)?.as_bytes())?;
        }
    }
    Ok(())
}
