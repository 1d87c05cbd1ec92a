//! What a rule of a route wants of requests.

use api::gateway::{Match, ValueMatch};
use http::{HeaderName, Method};
use regex_lite::Regex;

use super::Problem;
use crate::table::{PathMatch, Text, Wants};

/// Reason of what is said about something that is not supported here.
pub(super) const UNSUPPORTED: &str = "UnsupportedValue";

/// What is not supported.
pub(super) fn unsupported(text: String) -> Problem {
    Problem { reason: UNSUPPORTED, text }
}

/// Requests of any host and port of which this is true.
pub(super) fn read(of_rule: &Match) -> Result<Wants, Problem> {
    let path = of_rule.path.as_ref();
    let text = path.and_then(|it| it.value.as_deref()).unwrap_or("/");
    let mut wants = Wants::path(match path.and_then(|it| it.type_.as_deref()) {
        None | Some("PathPrefix") => PathMatch::prefix(text),
        Some("Exact") => PathMatch::Exact(text.to_owned()),
        Some("RegularExpression") => PathMatch::Regex(regex(text)?),
        Some(other) => return Err(unsupported(format!("paths by {other} are not supported"))),
    });
    if let Some(method) = &of_rule.method {
        let bad = |_| unsupported(format!("{method} is not a method"));
        wants.method = Some(Method::from_bytes(method.as_bytes()).map_err(bad)?);
    }
    for it in &of_rule.headers {
        let bad = |_| unsupported(format!("{} is not a header field", it.name));
        let name = HeaderName::from_bytes(it.name.as_bytes()).map_err(bad)?;
        // Of those whose names are the same but for case, the first one counts.
        if !wants.headers.iter().any(|(it, _)| *it == name) {
            wants.headers.push((name, value(it)?));
        }
    }
    for it in &of_rule.query_params {
        wants.query.push((it.name.clone(), value(it)?));
    }
    Ok(wants)
}

fn value(of: &ValueMatch) -> Result<Text, Problem> {
    let text = of.value.as_deref().unwrap_or_default();
    match of.type_.as_deref() {
        None | Some("Exact") => Ok(Text::Exact(text.to_owned())),
        Some("RegularExpression") => regex(text).map(Text::Regex),
        Some(other) => Err(unsupported(format!("values by {other} are not supported"))),
    }
}

/// One that takes the whole text.
fn regex(text: &str) -> Result<Regex, Problem> {
    let bad = |error| unsupported(format!("regular expression `{text}`: {error}"));
    Regex::new(&format!("^(?:{text})$")).map_err(bad)
}
