//! Documents that never change while the server runs, with a hash as ETag.

use std::{
    io::{self, Read as _},
    sync::OnceLock,
};

use api::status::Status;
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ETAG, IF_NONE_MATCH, VARY},
};
use serde_json::Value;

use crate::{
    http::{body::Body, compress, content::Encoding, respond},
    openapi::Fnv,
};

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
        let mut hash = Fnv::default();
        hash.add(&text);
        let hash = format!("{:032X}", hash.0);
        Self { text, hash, content_type: HeaderValue::from_static(content_type) }
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
        answer(&self.hash, &self.content_type, request, || Ok(self.text.clone()))
    }
}

/// A large document that is made when it is first asked for and kept compressed. Its hash is known
/// before.
#[derive(Debug)]
pub(super) struct Packed {
    packed: OnceLock<Bytes>,
    hash: String,
    content_type: HeaderValue,
}

impl Packed {
    pub(super) fn new(fingerprint: u128, content_type: &'static str) -> Self {
        Self {
            packed: OnceLock::new(),
            hash: format!("{fingerprint:032X}"),
            content_type: HeaderValue::from_static(content_type),
        }
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The document, which `write` writes if it is not there yet, or 304 if the client has it.
    pub(super) fn answer(
        &self,
        request: &HeaderMap,
        write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> io::Result<()>,
    ) -> Result<Response<Body>, Status> {
        let compressed = compress::is_wanted(request);
        let mut response = answer(&self.hash, &self.content_type, request, || {
            let packed = self.packed(write)?;
            if compressed {
                return Ok(packed);
            }
            let mut text = Vec::new();
            GzDecoder::new(packed.as_ref()).read_to_end(&mut text)?;
            Ok(text.into())
        })?;
        if compressed && response.status() == StatusCode::OK {
            compress::mark(&mut response);
        }
        Ok(response)
    }

    fn packed(
        &self,
        write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed.clone());
        }
        // Two clients may do this at the same time; they make the same.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        write(&mut encoder)?;
        let mut packed = encoder.finish()?;
        packed.shrink_to_fit();
        Ok(self.packed.get_or_init(|| packed.into()).clone())
    }
}

/// What `body` makes, or 304 if the client has it.
fn answer(
    hash: &str,
    content_type: &HeaderValue,
    request: &HeaderMap,
    body: impl FnOnce() -> io::Result<Bytes>,
) -> Result<Response<Body>, Status> {
    let etag = format!("\"{hash}\"");
    let known = request.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let known = known.is_some_and(|it| it.split(',').any(|it| it.trim() == etag));
    let (code, body) = if known {
        (StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        let body =
            body().map_err(|error| Status::internal(&format!("make a document: {error}")))?;
        (StatusCode::OK, body)
    };
    let mut response = respond::with(code, content_type.clone(), Body::whole(body));
    let etag = HeaderValue::from_str(&etag)
        .map_err(|error| Status::internal(&format!("make an ETag: {error}")))?;
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
