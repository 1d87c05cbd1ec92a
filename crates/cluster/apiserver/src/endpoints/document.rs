//! A JSON document that never changes while the server runs, with its hash as ETag.

use api::status::Status;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ETAG, IF_NONE_MATCH, VARY},
};
use serde_json::Value;

use crate::http::{body::Body, content::Encoding, respond};

/// The document, encoded once.
#[derive(Debug)]
pub(super) struct Document {
    text: Bytes,
    hash: String,
    content_type: HeaderValue,
}

impl Document {
    pub(super) fn new(value: &Value, content_type: &'static str) -> Self {
        let text = Bytes::from(value.to_string());
        let hash = format!("{:032X}", fnv1a(&text));
        Self { text, hash, content_type: HeaderValue::from_static(content_type) }
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The document in an encoding. Those but JSON are made anew each time and have no ETag: nobody
    /// asks for them twice.
    pub(super) fn encoded(
        &self,
        encoding: Encoding,
        request: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        match encoding {
            Encoding::Json => self.answer(request),
            Encoding::Yaml | Encoding::Protobuf => {
                respond::encoded(StatusCode::OK, encoding, self.text.clone())
            }
        }
    }

    /// The document, or 304 if the client has it.
    pub(super) fn answer(&self, request: &HeaderMap) -> Result<Response<Body>, Status> {
        let etag = format!("\"{}\"", self.hash);
        let known = request.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
        let known = known.is_some_and(|it| it.split(',').any(|it| it.trim() == etag));
        let (code, body) = if known {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, self.text.clone())
        };
        let mut response = respond::with(code, self.content_type.clone(), Body::whole(body));
        let etag = HeaderValue::from_str(&etag)
            .map_err(|error| Status::internal(&format!("make an ETag: {error}")))?;
        response.headers_mut().insert(ETAG, etag);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }
}

/// FNV-1a of 128 bits: tells versions of our own documents apart, nothing more.
fn fnv1a(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}
