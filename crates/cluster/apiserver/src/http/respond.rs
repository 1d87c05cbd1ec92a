//! Responses: JSON, text, failures, and the headers that all share.

use api::status::{Reason, Status};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER},
};
use serde_json::Value;

use super::{
    body::Body,
    content::{self, Encoding},
    warnings::Warnings,
};
use crate::protobuf::{self, EncodeError};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
const PROTOBUF: HeaderValue = HeaderValue::from_static(protobuf::MEDIA_TYPE);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");
const WARNING: HeaderName = HeaderName::from_static("warning");

/// A response of this type and body.
pub(crate) fn with(code: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, NO_CACHE);
    response
}

/// JSON text as it is.
pub(crate) fn json(code: StatusCode, text: Bytes) -> Response<Body> {
    with(code, JSON, Body::whole(text))
}

/// JSON text that comes in pieces.
pub(crate) fn long(pieces: Body) -> Response<Body> {
    with(StatusCode::OK, JSON, pieces)
}

/// JSON text in the encoding the client wants.
pub(crate) fn encoded(
    code: StatusCode,
    encoding: Encoding,
    text: Bytes,
) -> Result<Response<Body>, Status> {
    match encoding {
        Encoding::Json => Ok(json(code, text)),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&text)
                .map_err(|error| Status::internal(&format!("decode for YAML: {error}")))?;
            let text = serde_saphyr::to_string(&value)
                .map_err(|error| Status::internal(&format!("encode as YAML: {error}")))?;
            Ok(with(code, YAML, Body::whole(text.into())))
        }
        Encoding::Protobuf => {
            let message = protobuf::encode(&text).map_err(|error| unwritable(&error))?;
            Ok(protobuf(code, message.into()))
        }
    }
}

/// A message, with its envelope.
pub(crate) fn protobuf(code: StatusCode, message: Bytes) -> Response<Body> {
    with(code, PROTOBUF, Body::whole(message))
}

/// A JSON value.
pub(crate) fn value(code: StatusCode, value: &Value) -> Response<Body> {
    json(code, value.to_string().into())
}

/// Lines for people.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with(code, TEXT, Body::whole(text.into()))
}

/// What a client hears for whom an object cannot be written in protobuf.
pub(crate) fn unwritable(error: &EncodeError) -> Status {
    match error {
        EncodeError::NotMarshalable(_) => Status::new(Reason::NotAcceptable, error.to_string()),
        EncodeError::Json(source) => Status::internal(&format!("{error}: {source}")),
    }
}

/// A stream of values (watch).
pub(crate) fn stream(encoding: Encoding, body: Body) -> Response<Body> {
    let content_type = match encoding {
        Encoding::Json | Encoding::Yaml => JSON,
        Encoding::Protobuf => {
            HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch")
        }
    };
    with(StatusCode::OK, content_type, body)
}

/// A stream of text (logs).
pub(crate) fn text_stream(body: Body) -> Response<Body> {
    with(StatusCode::OK, HeaderValue::from_static("text/plain"), body)
}

/// A failure as a `Status` object, written as the client wants its answers if that is known.
pub(crate) fn failure(status: &Status, request: &HeaderMap) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let encoding = content::negotiate(request, true).map_or(Encoding::Json, |it| it.encoding);
    let text = Bytes::from(status.to_json().to_string());
    let mut response = encoded(code, encoding, text.clone()).unwrap_or_else(|_| json(code, text));
    let wait = status.details().map_or(0, |it| it.retry_after_seconds);
    if wait != 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// Adds `Warning: 299 - "…"` headers (RFC 9110 no longer has them; KEP-1693 does).
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[impl AsRef<str>]) {
    if warnings.is_empty() {
        return;
    }
    let mut all = response.extensions_mut().remove::<Warnings>().unwrap_or_default();
    warnings.iter().for_each(|it| all.add(it.as_ref()));
    let headers = response.headers_mut();
    headers.remove(WARNING);
    for it in all.headers() {
        headers.append(WARNING, it);
    }
    response.extensions_mut().insert(all);
}
