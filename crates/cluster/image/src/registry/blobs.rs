//! Blobs: whole, or a range of them.

use std::sync::Arc;

use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Registry,
    answer::{self, Answer, CONTENT_DIGEST, Failure},
};
use crate::{Digest, outgoing::FileBody};

/// What of a blob is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first to the last byte, both included.
    Range(u64, u64),
    Unsatisfiable,
}

impl Registry {
    /// A blob is the same in every repository.
    pub(super) fn blob(
        &self,
        request: &Request<Incoming>,
        repository: &str,
        digest: &Digest,
    ) -> Result<Answer, Failure> {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::DELETE => {
                let message = "blobs are removed when nothing refers to them: delete the manifests";
                return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message));
            }
            _ => return Err(Failure::method("GET, HEAD")),
        }
        let store = &self.shared.store;
        // Who is told that it is there, does not upload it.
        self.hold(*digest)?;
        let unknown = || Failure::not_found("BLOB_UNKNOWN", format!("{digest} of {repository}"));
        let size = store.blob_size(digest)?.ok_or_else(unknown)?;
        let part = part(request.headers(), size);
        let mut headers = vec![
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_DIGEST, digest.to_string()),
            (ETAG, format!("\"{digest}\"")),
            (ACCEPT_RANGES, "bytes".to_owned()),
        ];
        let (status, first, length) = match part {
            Part::Whole => (StatusCode::OK, 0, size),
            Part::Range(first, last) => {
                headers.push((CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
                (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
            }
            Part::Unsatisfiable => {
                let headers = [(CONTENT_RANGE, format!("bytes */{size}"))];
                return Ok(answer::empty(StatusCode::RANGE_NOT_SATISFIABLE, &headers));
            }
        };
        let body = FileBody::new(store.blob(digest)?, first, length, Arc::default());
        Ok(answer::with(status, &headers, body.boxed()))
    }
}

/// What a `Range` means; one that is not understood is none, as HTTP has it.
fn part(headers: &HeaderMap, size: u64) -> Part {
    let range = headers.get(RANGE).and_then(|it| it.to_str().ok());
    let Some((first, last)) =
        range.and_then(|it| it.strip_prefix("bytes=")).and_then(|it| it.split_once('-'))
    else {
        return Part::Whole;
    };
    let end = size.saturating_sub(1);
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Part::Whole,
        (Ok(first), _) if first >= size => Part::Unsatisfiable,
        (Ok(first), Ok(last)) => Part::Range(first, last.min(end)),
        (Ok(first), Err(_)) if last.trim().is_empty() => Part::Range(first, end),
        (Err(_), Ok(0)) if first.is_empty() => Part::Unsatisfiable,
        (Err(_), Ok(count)) if first.is_empty() && size > 0 => {
            Part::Range(size.saturating_sub(count), end)
        }
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            part(&headers, 10)
        };
        assert_eq!(of("bytes=2-5"), Part::Range(2, 5));
        assert_eq!(of("bytes=2-"), Part::Range(2, 9));
        assert_eq!(of("bytes=2-50"), Part::Range(2, 9));
        assert_eq!(of("bytes=-3"), Part::Range(7, 9));
        assert_eq!(of("bytes=-30"), Part::Range(0, 9));
        assert_eq!(of("bytes=10-"), Part::Unsatisfiable);
        assert_eq!(of("bytes=5-2"), Part::Whole);
        assert_eq!(of("bytes=1-2,4-5"), Part::Whole);
        assert_eq!(of("lines=1-2"), Part::Whole);
    }
}
