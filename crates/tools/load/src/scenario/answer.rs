//! What a scenario looks for in an answer: checks, and values for variables.

use std::cell::OnceCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use regex::bytes::Regex;

use super::{
    json_path::Path,
    template::{Template, Value},
};

/// An answer under examination. Its body is parsed when somebody first asks for JSON, and not again.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    json: OnceCell<Option<serde_json::Value>>,
}

impl<'a> Answer<'a> {
    pub(super) const fn new(status: u16, headers: &'a HeaderMap, body: &'a Bytes) -> Self {
        Self { status, headers, body, json: OnceCell::new() }
    }

    fn json(&self) -> Option<&serde_json::Value> {
        self.json.get_or_init(|| serde_json::from_slice(self.body).ok()).as_ref()
    }
}

/// A check: what must be so, and what it is called when it is not.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) what: Subject,
}

#[derive(Debug)]
pub(super) enum Subject {
    /// One of these ranges has the status.
    Status(Vec<(u16, u16)>),
    /// Some header of this name is so.
    Header(HeaderName, Wanted),
    /// The body is so.
    Body(Wanted),
    /// Some value at this path is so.
    Json(Path, Wanted),
}

/// What a text, or a value of JSON, must be.
#[derive(Debug)]
pub(super) enum Wanted {
    Equals(Template),
    /// Of JSON only.
    EqualsJson(serde_json::Value),
    Contains(Template),
    Matches(Regex),
    Exists,
    Absent,
}

impl Check {
    /// Whether it is so.
    pub(super) fn holds(
        &self,
        answer: &Answer<'_>,
        values: &[Value],
        rng: &mut fastrand::Rng,
    ) -> bool {
        match &self.what {
            Subject::Status(ranges) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&answer.status))
            }
            Subject::Header(name, wanted) => {
                let texts = answer.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
                wanted.by_any(texts.collect(), values, rng)
            }
            Subject::Body(wanted) => wanted.by_any(vec![answer.body], values, rng),
            Subject::Json(path, wanted) => {
                let found = answer.json().map(|it| path.find(it)).unwrap_or_default();
                if let Wanted::EqualsJson(expected) = wanted {
                    return found.into_iter().any(|it| same(it, expected));
                }
                let texts: Vec<Value> = found.into_iter().map(Value::of_json).collect();
                wanted.by_any(texts.iter().map(|it| it.text.as_bytes()).collect(), values, rng)
            }
        }
    }
}

impl Wanted {
    /// Whether one of `texts` is so; whether there is one at all, if that is the question.
    fn by_any(&self, texts: Vec<&[u8]>, values: &[Value], rng: &mut fastrand::Rng) -> bool {
        let rendered = |template: &Template, rng: &mut fastrand::Rng| {
            let mut text = String::new();
            template.render(values, rng, &mut text);
            text
        };
        match self {
            Self::Equals(template) => {
                let expected = rendered(template, rng);
                texts.into_iter().any(|it| it == expected.as_bytes())
            }
            Self::Contains(template) => {
                let part = rendered(template, rng);
                texts.into_iter().any(|it| contains(it, part.as_bytes()))
            }
            Self::Matches(regex) => texts.into_iter().any(|it| regex.is_match(it)),
            Self::Exists => !texts.is_empty(),
            Self::Absent => texts.is_empty(),
            Self::EqualsJson(_) => false,
        }
    }
}

/// Whether `text` has `part` in it. Looks for the first byte, which is a fast search, and compares
/// from there.
fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|it| it == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(part) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Equality of JSON in which 1 is 1.0.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Takes a value out of an answer into a variable.
#[derive(Debug)]
pub(super) struct Extraction {
    /// The variable.
    pub(super) name: String,
    pub(super) slot: usize,
    pub(super) source: Source,
    pub(super) pick: Pick,
    /// Instead of a value that is not there.
    pub(super) default: Option<Value>,
}

#[derive(Debug)]
pub(super) enum Source {
    Json(Path),
    /// The first group of each match, or all of it.
    Regex(Regex),
    /// A header, or what a pattern finds in it.
    Header(HeaderName, Option<Regex>),
    /// The user's cookie.
    Cookie(String),
}

/// Which of several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    First,
    Random,
}

impl Extraction {
    /// The value, if there is one. `cookie` looks into the user's jar.
    pub(super) fn find<'a>(
        &self,
        answer: &Answer<'_>,
        cookie: impl Fn(&str) -> Option<&'a str>,
        rng: &mut fastrand::Rng,
    ) -> Option<Value> {
        match &self.source {
            Source::Json(path) => {
                let found = path.find(answer.json()?);
                self.pick(found, rng).map(Value::of_json)
            }
            Source::Regex(regex) => self.matched(regex, answer.body, rng),
            Source::Header(name, regex) => {
                let value = answer.headers.get(name)?.as_bytes();
                match regex {
                    Some(regex) => self.matched(regex, value, rng),
                    None => Some(Value::text(&String::from_utf8_lossy(value))),
                }
            }
            Source::Cookie(name) => cookie(name).map(Value::text),
        }
    }

    fn matched(&self, regex: &Regex, text: &[u8], rng: &mut fastrand::Rng) -> Option<Value> {
        let found = regex.captures_iter(text).filter_map(|it| it.get(1).or_else(|| it.get(0)));
        let found = match self.pick {
            Pick::First => found.take(1).collect(),
            Pick::Random => found.collect(),
        };
        let found = self.pick(found, rng)?;
        Some(Value::text(&String::from_utf8_lossy(found.as_bytes())))
    }

    fn pick<T: Copy>(&self, found: Vec<T>, rng: &mut fastrand::Rng) -> Option<T> {
        match self.pick {
            Pick::First => found.first().copied(),
            Pick::Random if found.is_empty() => None,
            Pick::Random => found.get(rng.usize(..found.len())).copied(),
        }
    }
}
