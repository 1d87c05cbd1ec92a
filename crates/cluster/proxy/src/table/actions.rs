//! What is done to requests and answers on their way.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// What is done to a request, and to its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    pub(crate) request: HeaderEdits,
    pub(crate) response: HeaderEdits,
    pub(crate) rewrite: Option<Rewrite>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderEdits {
    /// In the place of those of the same name.
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    /// Beside those of the same name.
    pub(crate) add: Vec<(HeaderName, HeaderValue)>,
    pub(crate) remove: Vec<HeaderName>,
}

impl HeaderEdits {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// Another address at which the endpoint is asked.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathEdit>,
}

/// Another path.
#[derive(Clone, Debug)]
pub(crate) enum PathEdit {
    Full(String),
    /// Of a path that begins with the first, the second in its place. Both without a slash at the end.
    Prefix(String, String),
}

impl PathEdit {
    /// The path that is to be in the place of `path`.
    pub(crate) fn apply(&self, path: &str) -> String {
        let new = match self {
            Self::Full(new) => new.clone(),
            Self::Prefix(old, new) => {
                let rest = path.strip_prefix(old.as_str()).unwrap_or(path);
                format!("{new}{rest}")
            }
        };
        if new.starts_with('/') { new } else { format!("/{new}") }
    }
}

/// Another address of which the client is told.
#[derive(Clone, Debug)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<PathEdit>,
    pub(crate) status: StatusCode,
}

/// How long things may take, if that is said; zero is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Until an answer begins.
    pub(crate) request: Option<Duration>,
    /// The same of a try.
    pub(crate) one_try: Option<Duration>,
}

impl Timeouts {
    /// How long an answer is waited for; none if as long as usual.
    pub(crate) fn limit(self) -> Option<Duration> {
        let both = [self.request, self.one_try].into_iter().flatten();
        // What is for ever is no shorter than anything.
        both.map(|it| if it.is_zero() { Duration::MAX } else { it }).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced() {
        let replaced = |old: &str, new: &str, path: &str| {
            PathEdit::Prefix(old.to_owned(), new.to_owned()).apply(path)
        };
        assert_eq!(replaced("/foo", "/xyz", "/foo/bar"), "/xyz/bar");
        assert_eq!(replaced("/foo", "/xyz", "/foo/"), "/xyz/");
        assert_eq!(replaced("/foo", "/xyz", "/foo"), "/xyz");
        assert_eq!(replaced("/foo", "", "/foo/bar"), "/bar");
        assert_eq!(replaced("/foo", "", "/foo"), "/");
        assert_eq!(replaced("", "/xyz", "/bar"), "/xyz/bar");
        assert_eq!(replaced("", "/xyz", "/"), "/xyz/");
        assert_eq!(PathEdit::Full("/one".to_owned()).apply("/foo/bar"), "/one");
    }

    #[test]
    fn the_shorter_time_counts() {
        let limit = |request: Option<u64>, one_try: Option<u64>| {
            let seconds = |it: Option<u64>| it.map(Duration::from_secs);
            Timeouts { request: seconds(request), one_try: seconds(one_try) }.limit()
        };
        assert_eq!(limit(None, None), None);
        assert_eq!(limit(Some(0), None), Some(Duration::MAX));
        assert_eq!(limit(Some(0), Some(2)), Some(Duration::from_secs(2)));
        assert_eq!(limit(Some(3), Some(2)), Some(Duration::from_secs(2)));
        assert_eq!(limit(Some(3), None), Some(Duration::from_secs(3)));
    }
}
