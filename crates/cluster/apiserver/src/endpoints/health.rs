//! `/healthz`, `/livez`, `/readyz`: text for people and probes, with `?verbose` and single checks.

use std::fmt::Write as _;

use api::status::Status;
use http::{Response, StatusCode};

use crate::{
    http::{body::Body, query::Query, respond},
    registry::Registry,
};

/// One thing that must be in order.
struct Check {
    name: &'static str,
    holds: fn(&Registry) -> bool,
    /// Whether only readiness, not liveness, depends on it.
    readiness_only: bool,
}

const CHECKS: &[Check] = &[
    Check { name: "ping", holds: |_| true, readiness_only: false },
    Check { name: "log", holds: |_| true, readiness_only: false },
    Check { name: "etcd", holds: |it| it.store_works(), readiness_only: false },
    Check { name: "shutdown", holds: |it| !it.stop.is_cancelled(), readiness_only: true },
];

/// All paths that are answered.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    ["healthz", "livez", "readyz"].into_iter().flat_map(|endpoint| {
        let ready = endpoint == "readyz";
        let checks = CHECKS.iter().filter(move |it| ready || !it.readiness_only);
        let below = checks.map(move |it| format!("/{endpoint}/{}", it.name));
        std::iter::once(format!("/{endpoint}")).chain(below)
    })
}

/// `GET` of `path`, which has no slash in front.
pub(crate) fn answer(
    registry: &Registry,
    path: &str,
    query: &Query<'_>,
    has_verbose: bool,
) -> Result<Response<Body>, Status> {
    let (endpoint, check) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
    let excluded = query.get("exclude").unwrap_or_default();
    let wanted = |it: &&Check| match check {
        Some(name) => it.name == name,
        None => it.name != excluded && (endpoint == "readyz" || !it.readiness_only),
    };
    let checks: Vec<&Check> = CHECKS.iter().filter(wanted).collect();
    if checks.is_empty() {
        return Err(Status::no_such_path());
    }
    let mut text = String::new();
    let mut good = true;
    for it in &checks {
        let holds = (it.holds)(registry);
        good &= holds;
        // Writing to a string cannot fail.
        let _ = if holds {
            writeln!(text, "[+]{} ok", it.name)
        } else {
            writeln!(text, "[-]{} failed: reason withheld", it.name)
        };
    }
    if !good {
        let _ = writeln!(text, "{endpoint} check failed");
        return Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    if !has_verbose || check.is_some() {
        return Ok(respond::text(StatusCode::OK, "ok"));
    }
    let _ = writeln!(text, "{endpoint} check passed");
    Ok(respond::text(StatusCode::OK, text))
}
