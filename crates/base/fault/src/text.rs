//! Faults, times and sizes as people write them on a command line or in a file:
//! `latency server->client delay=100ms jitter=20ms`, `at 5s for 2s: blackhole both`.

mod fault;
mod file;

use std::{str::FromStr, time::Duration};

pub use fault::change;
pub use file::{FileError, Read, parse as parse_file};

use crate::schedule::Entry;

/// Why a text means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A duration: `100ms`, `1.5s`, `2m`.
///
/// # Errors
/// If it is none.
pub fn duration(text: &str) -> Result<Duration, Error> {
    const UNITS: [(&str, f64); 6] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = split_unit(text);
    let number: Option<f64> = number.parse().ok();
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
    let seconds = number.zip(unit).map(|(number, unit)| number * unit);
    let duration = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
    duration.ok_or_else(|| Error(format!("`{text}` is no duration: write 100ms, 1.5s or 2m")))
}

/// A size in bytes: `512`, `10kB`, `64KiB`.
///
/// # Errors
/// If it is none.
pub fn size(text: &str) -> Result<u64, Error> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let (number, unit) = split_unit(text);
    let number: Option<u64> = number.parse().ok();
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| Error(format!("`{text}` is no size: write 512, 10kB or 64KiB")))
}

/// A rate in bytes per second: `100kB/s`.
///
/// # Errors
/// If it is none.
pub fn rate(text: &str) -> Result<u64, Error> {
    let bytes = text.strip_suffix("/s").and_then(|it| size(it).ok());
    bytes.ok_or_else(|| Error(format!("`{text}` is no rate: write 100kB/s")))
}

fn split_unit(text: &str) -> (&str, &str) {
    let is_number = |it: char| it.is_ascii_digit() || it == '.';
    text.split_at(text.find(|it| !is_number(it)).unwrap_or(text.len()))
}

/// A whole line of a schedule: `at 5s for 2s: blackhole server->client`. `route` is meant where the
/// line says no `on ROUTE`.
///
/// # Errors
/// What is wrong with it.
pub fn entry(line: &str, route: Option<&str>) -> Result<Entry, Error> {
    let (when, what) = line
        .split_once(':')
        .ok_or_else(|| Error::new("no `:` between when and what: at 5s for 2s: blackhole both"))?;
    entry_of(when, what, route)
}

/// The same in two parts.
pub(crate) fn entry_of(when: &str, what: &str, route: Option<&str>) -> Result<Entry, Error> {
    let (mut at, mut time, mut on) = (None, None, route.map(str::to_owned));
    let mut words = when.split_whitespace();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| Error(format!("`{word}` says nothing")))?;
        match word {
            "at" => at = Some(duration(value)?),
            "for" => time = Some(duration(value)?),
            "on" => on = Some(value.to_owned()),
            _ => return Err(Error(format!("`{word}`: when is `at TIME [for TIME] [on ROUTE]`"))),
        }
    }
    Ok(Entry {
        at: at.ok_or_else(|| Error::new("when does it begin? at TIME [for TIME] [on ROUTE]"))?,
        duration: time,
        route: on.ok_or_else(|| Error::new("which route? at TIME [for TIME] on ROUTE"))?,
        change: change(what)?,
    })
}

/// A number.
fn number<T: FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error(format!("`{text}` is no such number")))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(seen: Result<impl std::fmt::Debug, Error>, expected: Expect) {
        let seen = seen.map_or_else(|error| error.to_string(), |it| format!("{it:?}"));
        expected.assert_eq(&seen);
    }

    #[test]
    fn durations() {
        check(duration("100ms"), expect!["100ms"]);
        check(duration("1.5s"), expect!["1.5s"]);
        check(duration("250us"), expect!["250µs"]);
        check(duration("2m"), expect!["120s"]);
        check(duration("0s"), expect!["0ns"]);
        check(duration("5"), expect!["`5` is no duration: write 100ms, 1.5s or 2m"]);
        check(duration("-5s"), expect!["`-5s` is no duration: write 100ms, 1.5s or 2m"]);
        check(
            duration("99999999999999999999s"),
            expect!["`99999999999999999999s` is no duration: write 100ms, 1.5s or 2m"],
        );
    }

    #[test]
    fn sizes_and_rates() {
        check(size("512"), expect!["512"]);
        check(size("10kB"), expect!["10000"]);
        check(size("64KiB"), expect!["65536"]);
        check(
            size("18446744073709551615GB"),
            expect!["`18446744073709551615GB` is no size: write 512, 10kB or 64KiB"],
        );
        check(rate("1MB/s"), expect!["1000000"]);
        check(rate("1MB"), expect!["`1MB` is no rate: write 100kB/s"]);
    }

    #[test]
    fn lines_of_a_schedule() {
        check(
            entry("at 5s for 2s: blackhole server->client", Some("db")),
            expect![[
                r#"Entry { at: 5s, duration: Some(2s), route: "db", change: Faults([Fault { name: "blackhole_downstream", direction: Downstream, probability: 1.0, effect: Blackhole }]) }"#
            ]],
        );
        check(
            entry("at 1m on cache: refuse", Some("db")),
            expect![[r#"Entry { at: 60s, duration: None, route: "cache", change: Mode(Refuse) }"#]],
        );
        check(entry("at 5s: refuse", None), expect!["which route? at TIME [for TIME] on ROUTE"]);
        check(
            entry("for 5s: refuse", Some("db")),
            expect!["when does it begin? at TIME [for TIME] [on ROUTE]"],
        );
        check(entry("at: refuse", Some("db")), expect!["`at` says nothing"]);
        check(
            entry("when 5s: refuse", Some("db")),
            expect!["`when`: when is `at TIME [for TIME] [on ROUTE]`"],
        );
        check(
            entry("refuse", Some("db")),
            expect!["no `:` between when and what: at 5s for 2s: blackhole both"],
        );
    }
}
