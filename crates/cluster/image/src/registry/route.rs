//! Paths and queries of the distribution API.

use super::answer::Failure;
use crate::{Digest, Reference};

/// What a path means. Repositories are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`
    Version,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/NAME/tags/list`
    Tags(String),
    /// `/v2/NAME/manifests/TAG-OR-DIGEST`
    Manifest(String, String),
    /// `/v2/NAME/blobs/DIGEST`
    Blob(String, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(String),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(String, String),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(String, Digest),
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Self, Failure> {
        let unknown = || Failure::not_found("UNSUPPORTED", format!("`{path}`"));
        let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
        match rest {
            "" | "/" => return Ok(Self::Version),
            "/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let rest = rest.strip_prefix('/').ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(repository(name)?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(repository(name)?));
        }
        let (head, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(repository(name)?, last.to_owned()));
        }
        if let Some(name) = head.strip_suffix("/blobs") {
            return Ok(Self::Blob(repository(name)?, digest(last)?));
        }
        if let Some(name) = head.strip_suffix("/manifests") {
            return Ok(Self::Manifest(repository(name)?, last.to_owned()));
        }
        if let Some(name) = head.strip_suffix("/referrers") {
            return Ok(Self::Referrers(repository(name)?, digest(last)?));
        }
        Err(unknown())
    }
}

fn repository(name: &str) -> Result<String, Failure> {
    let parsed: Result<Reference, _> = format!("localhost/{name}").parse();
    match parsed {
        // A tag or digest within the name would be something else.
        Ok(it) if it.repository() == name => Ok(name.to_owned()),
        _ => Err(Failure::name_invalid(name)),
    }
}

/// The digest that a text is.
pub(super) fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error: crate::DigestError| Failure::digest_invalid(error.to_string()))
}

/// What follows the `?`, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pair = |it: &str| {
            let (name, value) = it.split_once('=').unwrap_or((it, ""));
            (decode(name), decode(value))
        };
        Self(text.split('&').filter(|it| !it.is_empty()).map(pair).collect())
    }

    /// The value of a name, if it has one that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
        found.filter(|it| !it.is_empty())
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().filter(|_| *first == b'%');
        let code = code.and_then(|it| std::str::from_utf8(it).ok());
        match code.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        let hex = Digest::of(b"");
        let name = || "a/b".to_owned();
        let known = [
            ("/v2/".to_owned(), Route::Version),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name())),
            ("/v2/a/b/manifests/1".to_owned(), Route::Manifest(name(), "1".to_owned())),
            (format!("/v2/a/b/blobs/{hex}"), Route::Blob(name(), hex)),
            ("/v2/a/b/blobs/uploads/".to_owned(), Route::Uploads(name())),
            ("/v2/a/b/blobs/uploads/7".to_owned(), Route::Upload(name(), "7".to_owned())),
            (format!("/v2/a/b/referrers/{hex}"), Route::Referrers(name(), hex)),
            (
                "/v2/manifests/manifests/x".to_owned(),
                Route::Manifest("manifests".to_owned(), "x".to_owned()),
            ),
        ];
        for (path, route) in known {
            assert_eq!(Route::parse(&path).unwrap(), route, "{path}");
        }
        for path in [
            "/",
            "/v1/",
            "/v2/a",
            "/v2/A/tags/list",
            "/v2/../tags/list",
            "/v2/a/blobs/sha256:1",
            "/v2/a:1/tags/list",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("digest=sha256%3Aab&n=5&empty=&last=a%2Fb+c&bad=%zz");
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("last"), Some("a/b c"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("bad"), Some("%zz"));
    }
}
