//! What is said to the user: plain lines to standard output and error, progress on a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// How often the spinner of a terminal turns. Slow enough to cost nothing, fast enough to live.
const SPINNER_PERIOD: Duration = Duration::from_millis(120);

/// Time between two lines about what goes on and on, where there is no terminal.
const LINES_PERIOD: Duration = Duration::from_secs(10);

/// Prints one line to standard output. A closed pipe is the reader's wish to hear no more.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints one line to standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told that standard error is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints an error with its causes, one per line, and gives the exit code of a failure.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    note(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        note(&format!("  because: {cause}"));
    }
    ExitCode::FAILURE
}

/// One line that changes: a spinner on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: String,
    /// How far it was, and when that was said.
    advance: (String, Instant),
}

impl Progress {
    /// Starts on standard error.
    pub(crate) fn start() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(SPINNER_PERIOD);
            bar
        });
        Self { bar, last: String::new(), advance: (String::new(), Instant::now()) }
    }

    /// Says what is going on now. Repeats nothing.
    pub(crate) fn say(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        self.advance = (String::new(), Instant::now());
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => note(text),
        }
    }

    /// Says how far it is with what was said last: on a terminal always, elsewhere now and then.
    pub(crate) fn say_advance(&mut self, advance: &str) {
        let (last, then) = &self.advance;
        if last == advance {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(format!("{} · {advance}", self.last)),
            None if then.elapsed() < LINES_PERIOD => return,
            None => note(advance),
        }
        self.advance = (advance.to_owned(), Instant::now());
    }

    /// Prints a line that stays.
    pub(crate) fn keep(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Columns padded with spaces, as kubectl prints them.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|it| width(it).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: String =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
        cells.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn table_aligns_columns() {
        let rows = [["NAME", "READY"], ["worker", "1/1"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|it| (*it).to_owned()).collect()).collect();
        expect![[r#"
            NAME     READY
            worker   1/1"#]]
        .assert_eq(&table(&rows));
    }
}
