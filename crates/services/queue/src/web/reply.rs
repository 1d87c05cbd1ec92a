//! Answers as the original gives them: JSON with its header, an empty body for "done", errors as
//! `{"message":"…"}`.

use std::{borrow::Cow, convert::Infallible};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde::Serialize;

/// The body of any answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Says which form an answer of the API has.
const CONTENT_TYPE_NSQ: &str = "x-nsq-content-type";

/// What a request is answered if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing but success.
    Empty,
    /// Text.
    Text(Cow<'static, str>),
    /// A JSON document.
    Json(String),
}

impl Reply {
    /// `value` as JSON. The original escapes what HTML could take for markup; so does this.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        let text = match serde_json::to_string(value) {
            Ok(text) => text,
            // Only a map with keys that are no strings, or a `Serialize` that fails by itself.
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written");
                return Self::Empty;
            }
        };
        if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            return Self::Json(text);
        }
        let mut escaped = String::with_capacity(text.len());
        for letter in text.chars() {
            match letter {
                '<' => escaped.push_str("\\u003c"),
                '>' => escaped.push_str("\\u003e"),
                '&' => escaped.push_str("\\u0026"),
                '\u{2028}' => escaped.push_str("\\u2028"),
                '\u{2029}' => escaped.push_str("\\u2029"),
                other => escaped.push(other),
            }
        }
        Self::Json(escaped)
    }
}

/// What a request is answered if it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The status.
    pub(crate) status: StatusCode,
    /// The original's word for it, as `TOPIC_NOT_FOUND`.
    pub(crate) message: Cow<'static, str>,
}

impl Failure {
    /// A failure with `status`.
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into() }
    }

    /// The client's mistake.
    pub(crate) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Not there.
    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// No such path.
    pub(crate) const fn no_path() -> Self {
        Self { status: StatusCode::NOT_FOUND, message: Cow::Borrowed("NOT_FOUND") }
    }

    /// The path is there, but not with this method.
    pub(crate) const fn method() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { status, message: Cow::Borrowed("METHOD_NOT_ALLOWED") }
    }
}

/// The answer of an API.
pub(crate) fn v1(answer: Result<Reply, Failure>) -> Response<Body> {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let (status, reply) = match answer {
        Ok(reply) => (StatusCode::OK, reply),
        Err(failure) => (failure.status, Reply::json(&Message { message: &failure.message })),
    };
    let mut response = respond(status, reply);
    let form = HeaderValue::from_static("nsq; version=1.0");
    response.headers_mut().insert(CONTENT_TYPE_NSQ, form);
    response
}

/// The answer of the few paths that always speak plain text, such as `/ping`.
pub(crate) fn plain(answer: Result<Reply, Failure>) -> Response<Body> {
    match answer {
        Ok(reply) => respond(StatusCode::OK, reply),
        Err(failure) => respond(failure.status, Reply::Text(failure.message)),
    }
}

fn respond(status: StatusCode, reply: Reply) -> Response<Body> {
    let (form, bytes) = match reply {
        Reply::Empty => (None, Bytes::new()),
        Reply::Text(Cow::Borrowed(text)) => (Some("text/plain; charset=utf-8"), text.into()),
        Reply::Text(Cow::Owned(text)) => (Some("text/plain; charset=utf-8"), text.into()),
        Reply::Json(text) => (Some("application/json; charset=utf-8"), text.into()),
    };
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() = status;
    if let Some(form) = form {
        let form = HeaderValue::from_static(form);
        response.headers_mut().insert(header::CONTENT_TYPE, form);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_as_the_original_does() {
        let reply = Reply::json(&["a<b>&c", "\u{2028}ä\""]);
        assert_eq!(reply, Reply::Json(r#"["a\u003cb\u003e\u0026c","\u2028ä\""]"#.to_owned()));
    }

    #[tokio::test]
    async fn errors_are_documents() {
        let response = v1(Err(Failure::not_found("TOPIC_NOT_FOUND")));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-nsq-content-type"], "nsq; version=1.0");
        assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"message":"TOPIC_NOT_FOUND"}"#);
    }

    #[tokio::test]
    async fn nothing_has_no_type() {
        let response = v1(Ok(Reply::Empty));
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("content-type"));
        let pong = plain(Ok(Reply::Text("OK".into())));
        assert!(!pong.headers().contains_key("x-nsq-content-type"));
        assert_eq!(pong.headers()["content-type"], "text/plain; charset=utf-8");
    }
}
