//! The YAML file: routes with their faults, and a schedule. An error says file, line and key.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{change, entry_of};
use crate::{
    route::{Mode, RouteConfig},
    schedule::{Change, ENTRIES_MAX, Entry},
};

/// Why a file cannot be used: `file:line: key: what`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct FileError {
    file: String,
    line: u64,
    what: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    routes: Vec<Spanned<Route>>,
    /// Each a map with one key: `at 5s for 2s: blackhole both`.
    #[serde(default)]
    schedule: Vec<Spanned<BTreeMap<String, String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    name: String,
    #[serde(default = "any_port")]
    listen: String,
    to: String,
    #[serde(default)]
    connections: usize,
    #[serde(default)]
    faults: Vec<Spanned<String>>,
}

fn any_port() -> String {
    "127.0.0.1:0".to_owned()
}

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The routes that were given, and those of the file.
    pub routes: Vec<RouteConfig>,
    /// The schedule, in the order of the file.
    pub schedule: Vec<Entry>,
    /// The seed, if it has one.
    pub seed: Option<u64>,
}

/// Reads a file. `routes` are there besides those of
/// the file; a line of the schedule that names no route means the only one there is.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(file: &str, text: &str, routes: &[RouteConfig]) -> Result<Read, FileError> {
    let at = |location: Location, what: String| FileError {
        file: file.to_owned(),
        line: location.line(),
        what,
    };
    let parsed: File = serde_saphyr::from_str(text).map_err(|error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let error = error.without_snippet().to_string();
        // The place is said already; what stands there names the key.
        let error = error.split(" at line ").next().unwrap_or_default();
        let line = usize::try_from(location.line()).unwrap_or(0).saturating_sub(1);
        let line = text.lines().nth(line).unwrap_or_default().trim();
        at(location, format!("`{line}`: {error}"))
    })?;
    let mut all = routes.to_vec();
    for route in parsed.routes {
        let line = route.referenced;
        let route = read(route.value, &at)?;
        if all.iter().any(|it| it.name == route.name) {
            return Err(at(line, format!("routes: `{}` is there twice", route.name)));
        }
        all.push(route);
    }
    if parsed.schedule.len() > ENTRIES_MAX {
        let line = parsed.schedule.first().map_or(Location::UNKNOWN, |it| it.referenced);
        return Err(at(line, format!("schedule: more than {ENTRIES_MAX} lines")));
    }
    let only = match all.as_slice() {
        [only] => Some(only.name.as_str()),
        _ => None,
    };
    let mut schedule = Vec::new();
    for line in parsed.schedule {
        let location = line.referenced;
        for (when, what) in &line.value {
            let entry = entry_of(when, what, only)
                .map_err(|error| at(location, format!("schedule: `{when}`: {error}")))?;
            if !all.iter().any(|it| it.name == entry.route) {
                let name = &entry.route;
                return Err(at(
                    location,
                    format!("schedule: `{when}`: there is no route `{name}`"),
                ));
            }
            schedule.push(entry);
        }
    }
    Ok(Read { routes: all, schedule, seed: parsed.seed })
}

fn read(
    route: Route,
    at: &impl Fn(Location, String) -> FileError,
) -> Result<RouteConfig, FileError> {
    let mut config = RouteConfig {
        name: route.name,
        listen: route.listen,
        upstream: route.to,
        enabled: true,
        mode: Mode::Forward,
        connections_max: route.connections,
        faults: Vec::new(),
    };
    for line in route.faults {
        let wrong = |what: &dyn std::fmt::Display| at(line.referenced, format!("faults: {what}"));
        match change(&line.value).map_err(|error| wrong(&error))? {
            Change::Faults(faults) => config.faults.extend(faults),
            Change::Mode(mode) => config.mode = mode,
            Change::End(_) => {
                return Err(wrong(&"`disconnect` has nothing to end at the start: schedule it"));
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let seen = match parse("faults.yaml", text, &[]) {
            Ok(seen) => format!("{seen:#?}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&seen);
    }

    #[test]
    fn a_whole_file() {
        let text = "
seed: 7
routes:
  - name: db
    listen: 127.0.0.1:6000
    to: localhost:5432
    connections: 10
    faults:
      - latency server->client delay=5ms
schedule:
  - at 5s for 2s: blackhole server->client
";
        check(
            text,
            expect![[r#"
            Read {
                routes: [
                    RouteConfig {
                        name: "db",
                        listen: "127.0.0.1:6000",
                        upstream: "localhost:5432",
                        enabled: true,
                        mode: Forward,
                        connections_max: 10,
                        faults: [
                            Fault {
                                name: "latency_downstream",
                                direction: Downstream,
                                probability: 1.0,
                                effect: Latency {
                                    delay: 5ms,
                                    jitter: 0ns,
                                    distribution: Uniform,
                                },
                            },
                        ],
                    },
                ],
                schedule: [
                    Entry {
                        at: 5s,
                        duration: Some(
                            2s,
                        ),
                        route: "db",
                        change: Faults(
                            [
                                Fault {
                                    name: "blackhole_downstream",
                                    direction: Downstream,
                                    probability: 1.0,
                                    effect: Blackhole,
                                },
                            ],
                        ),
                    },
                ],
                seed: Some(
                    7,
                ),
            }"#]],
        );
    }

    #[test]
    fn errors_name_line_and_key() {
        check(
            "routes:\n  - name: a\n    two: b",
            expect![
                "faults.yaml:3: `two: b`: unknown field `two`, expected one of name, listen, to, connections, faults"
            ],
        );
        check(
            "routes:\n  - name: a\n    to: b:1\n    faults:\n      - latncy both",
            expect![
                "faults.yaml:5: faults: `latncy` is no fault: latency, bandwidth, slicer, slow_close, timeout, reset_peer, limit_data, blackhole, half_open, refuse, hold, disconnect"
            ],
        );
        check(
            "routes:\n  - name: a\n    to: b:1\n    faults: [disconnect]",
            expect![
                "faults.yaml:4: faults: `disconnect` has nothing to end at the start: schedule it"
            ],
        );
        check(
            "routes:\n  - name: a\n    to: b:1\n  - name: a\n    to: c:1",
            expect!["faults.yaml:4: routes: `a` is there twice"],
        );
        check(
            "routes:\n  - name: a\n    to: b:1\n    connections: many",
            expect!["faults.yaml:4: `connections: many`: invalid u64"],
        );
        let routes = "routes:\n  - {name: a, to: 'b:1'}\nschedule:\n";
        check(
            &format!("{routes}  - at 5: refuse"),
            expect!["faults.yaml:4: schedule: `at 5`: `5` is no duration: write 100ms, 1.5s or 2m"],
        );
        check(
            &format!("{routes}  - at 5s on b: refuse"),
            expect!["faults.yaml:4: schedule: `at 5s on b`: there is no route `b`"],
        );
        check(
            &format!("{routes}  - refuse"),
            expect!["faults.yaml:4: `- refuse`: expected mapping start"],
        );
        check(
            "schedule:\n  - at 5s: refuse",
            expect!["faults.yaml:2: schedule: `at 5s`: which route? at TIME [for TIME] on ROUTE"],
        );
        check("seed: x", expect!["faults.yaml:1: `seed: x`: invalid u64"]);
        check("routes: [", expect!["faults.yaml:1: `routes: [`: unclosed bracket '['"]);
    }
}
