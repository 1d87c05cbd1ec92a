//! What a rule wants of a request.

use http::{HeaderMap, HeaderName, Method};
use regex_lite::Regex;

/// Ports of Gateways' listeners that stand for those at which the proxy listens anyway, whichever they are on
/// this machine.
pub(crate) const USUAL: [u16; 2] = [80, 443];

/// What of a request decides about its route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// In lower case, without a port.
    pub(crate) host: &'a str,
    /// The port, as listeners name it.
    pub(crate) at: u16,
    pub(crate) method: &'a Method,
    /// Begins with a slash, and has no query.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// Whether it came to where the proxy listens anyway.
    pub(crate) fn is_usual(&self) -> bool {
        USUAL.contains(&self.at)
    }
}

/// Requests of which all of this is true.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    /// The port that they come to; one of the usual ones if there is none.
    pub(crate) at: Option<u16>,
    /// Whether a `*` stands for several labels too.
    pub(crate) deep: bool,
    pub(crate) path: PathMatch,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, Text)>,
    pub(crate) query: Vec<(String, Text)>,
}

/// Which paths a rule takes.
#[derive(Clone, Debug)]
pub(crate) enum PathMatch {
    Exact(String),
    /// Whole elements, without a slash at the end: `/a/b` takes `/a/b`, `/a/b/` and `/a/b/c`; the empty one
    /// takes everything.
    Prefix(String),
    /// The whole path.
    Regex(Regex),
}

/// What a value is to be.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Exact(String),
    /// The whole value.
    Regex(Regex),
}

impl Wants {
    /// Any request with such a path.
    pub(crate) fn path(path: PathMatch) -> Self {
        let (headers, query) = (Vec::new(), Vec::new());
        Self { at: None, deep: false, path, method: None, headers, query }
    }

    /// `deep` says whether a `*` stands for several labels of the host.
    pub(crate) fn takes(&self, asked: &Asked<'_>, deep: bool) -> bool {
        self.at.map_or_else(|| asked.is_usual(), |it| it == asked.at)
            && (self.deep || !deep)
            && self.method.as_ref().is_none_or(|it| it == asked.method)
            && self.path.matches(asked.path)
            && self
                .headers
                .iter()
                .all(|(name, text)| field(asked.headers, name).is_some_and(|it| text.matches(&it)))
            && self.query.iter().all(|(name, text)| {
                let mut all = form_urlencoded::parse(asked.query.as_bytes());
                all.find(|it| it.0 == name.as_str()).is_some_and(|it| text.matches(&it.1))
            })
    }
}

/// A field that stands there several times is one with a list (RFC 9110, 5.3).
fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values.map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(","))
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == wanted,
            Self::Regex(wanted) => wanted.is_match(text),
        }
    }
}

impl PathMatch {
    /// `path` begins with a slash, and has no query.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(wanted) => wanted.is_match(path),
        }
    }

    /// A prefix as it is compared.
    pub(crate) fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }
}
