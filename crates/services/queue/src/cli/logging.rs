//! The log of a program on its standard error, line by line as the original writes it:
//! `[nsqd] 2026/11/21 22:16:57.123456 INFO: listening address=…`. The level can change.

use std::{fmt, io};

use runtime::Clock;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
};

use super::words::Level;

/// Changes how much is logged. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Verbosity(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl Verbosity {
    /// From now on.
    pub(crate) fn set(&self, level: Level) {
        if self.0.reload(filter(level)).is_err() {
            tracing::debug!("the log has ended");
        }
    }
}

const fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
        // Why the program ends is written past the log.
        Level::Fatal => LevelFilter::OFF,
    }
}

/// Begins the log of this process. If it has one already, as when a test or another program does
/// this, that one stays, and what is returned changes nothing.
pub(crate) fn start(prefix: &str, level: Level, clock: Clock) -> Verbosity {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(io::stderr)
        .fmt_fields(DefaultFields::new())
        .event_format(Lines { prefix: prefix.to_owned(), clock });
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("the process logs already");
    }
    Verbosity(handle)
}

struct Lines {
    prefix: String,
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        head(&mut line, &self.prefix, &self.clock, word(*event.metadata().level()))?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

fn word(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "ERROR",
        tracing::Level::WARN => "WARNING",
        tracing::Level::INFO => "INFO",
        tracing::Level::DEBUG | tracing::Level::TRACE => "DEBUG",
    }
}

/// The time is UTC.
fn head(line: &mut impl fmt::Write, prefix: &str, clock: &Clock, level: &str) -> fmt::Result {
    let now = clock.now();
    // 2026-11-21T22:16:57.123456789Z
    let text = format!("{now:.6}");
    let text = text.trim_end_matches('Z').replace('-', "/").replacen('T', " ", 1);
    write!(line, "{prefix}{text} {level}: ")
}

/// The line that says why a program ends, whatever is logged.
pub(crate) fn fatal(prefix: &str, clock: &Clock, why: &str) -> String {
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _infallible = head(&mut line, prefix, clock, "FATAL");
    line.push_str(why);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_as_the_original_writes_them() {
        let clock = Clock::following_tokio("2026-11-21T22:16:57.5Z".parse().unwrap());
        assert_eq!(fatal("[nsqd] ", &clock, "no"), "[nsqd] 2026/11/21 22:16:57.500000 FATAL: no\n");
    }
}
