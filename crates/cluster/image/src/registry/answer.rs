//! Answers, and the errors of the distribution API with their codes.

use std::{fmt, io};

use bytes::Bytes;
use http::{
    HeaderName, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use serde_json::json;

use crate::store;

/// An answer.
pub(super) type Answer = Response<BoxBody<Bytes, io::Error>>;

/// The header with the digest of what is answered.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The header that old clients look for.
const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    allow: Option<&'static str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allow: None }
    }

    pub(super) fn not_found(code: &'static str, what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, format!("{what} is not here"))
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn name_invalid(name: &str) -> Self {
        Self::bad("NAME_INVALID", format!("`{name}` is not the name of a repository"))
    }

    pub(super) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::bad("DIGEST_INVALID", message)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let message = format!("only {allow} can be done here");
        let mut this = Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
        this.allow = Some(allow);
        this
    }

    /// Whether nobody but this registry is to blame.
    pub(super) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    pub(super) fn answer(self) -> Answer {
        let errors = json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut answer = json_answer(self.status, "application/json", &errors);
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(ALLOW, http::HeaderValue::from_static(allow));
        }
        answer
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Digest { .. } | store::Error::Size { .. } => {
                Self::digest_invalid(error.to_string())
            }
            store::Error::NoBlob(_) => {
                Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", error.to_string())
            }
            store::Error::Full { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "DENIED", error.to_string())
            }
            other => {
                let cause = std::error::Error::source(&other).map(ToString::to_string);
                let message = format!("{other}: {}", cause.unwrap_or_default());
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
            }
        }
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode, headers: &[(HeaderName, String)]) -> Answer {
    with(status, headers, Empty::new().map_err(|never| match never {}).boxed())
}

/// An answer with bytes.
pub(super) fn bytes(
    status: StatusCode,
    headers: &[(HeaderName, String)],
    bytes: Vec<u8>,
) -> Answer {
    with(status, headers, Full::new(bytes.into()).map_err(|never| match never {}).boxed())
}

/// An answer with headers and a body.
pub(super) fn with(
    status: StatusCode,
    headers: &[(HeaderName, String)],
    body: BoxBody<Bytes, io::Error>,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(VERSION, http::HeaderValue::from_static("registry/2.0"));
    for (name, value) in headers {
        // Names and digests were checked, so all of them are texts of HTTP.
        if let Ok(value) = value.parse() {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

/// An answer of JSON.
pub(super) fn json_answer(
    status: StatusCode,
    media_type: &str,
    value: &serde_json::Value,
) -> Answer {
    let headers = [(CONTENT_TYPE, media_type.to_owned())];
    bytes(status, &headers, value.to_string().into_bytes())
}

/// The same answer to HEAD: with the length, without the body.
pub(super) fn without_body(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = hyper::body::Body::size_hint(&body).exact() {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Empty::new().map_err(|never| match never {}).boxed())
}

/// `/v2/`: that this is a registry.
pub(super) fn version(method: &Method) -> Result<Answer, Failure> {
    match *method {
        Method::GET | Method::HEAD => {
            Ok(json_answer(StatusCode::OK, "application/json", &json!({})))
        }
        _ => Err(Failure::method("GET, HEAD")),
    }
}
