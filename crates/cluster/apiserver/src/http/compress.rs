//! Compressed answers for clients that take them.

use std::{
    io::{self, Write as _},
    mem,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{Stream, StreamExt as _, stream};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};

use super::body::{Body, Chunks};
use crate::limits::COMPRESSED_BYTES_MIN;

/// Whether the client takes gzip. As in Kubernetes, a weight is not looked at: with one it is another
/// word.
pub(crate) fn is_wanted(request: &HeaderMap) -> bool {
    let accepted = request.get(ACCEPT_ENCODING).and_then(|it| it.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|it| it.trim() == "gzip")
}

/// Says of a response that its body is compressed.
pub(crate) fn mark(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Compresses a large answer, if the client takes it so and it is not compressed yet.
pub(crate) fn response(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(CONTENT_ENCODING) || !is_wanted(request) {
        return response;
    }
    if response.body().comes_in_pieces() {
        let mut response = response.map(|it| it.map_pieces(|it| Box::pin(compressed_pieces(it))));
        mark(&mut response);
        return response;
    }
    let large = response.body().as_whole().filter(|it| it.len() > COMPRESSED_BYTES_MIN);
    let Some(bytes) = large else { return response };
    match compressed(bytes) {
        Ok(packed) => {
            let mut response = response.map(|_| Body::whole(packed));
            mark(&mut response);
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be compressed");
            response
        }
    }
}

/// Compresses piece by piece, in about the same sizes.
fn compressed_pieces(pieces: Chunks) -> impl Stream<Item = Bytes> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    stream::unfold((pieces, Some(encoder)), |(mut pieces, encoder)| async {
        let mut encoder = encoder?;
        while let Some(piece) = pieces.next().await {
            if let Err(error) = encoder.write_all(&piece) {
                // The text ends too early, which gzip shows.
                tracing::error!(%error, "an answer cannot be compressed");
                return None;
            }
            let packed = mem::take(encoder.get_mut());
            if !packed.is_empty() {
                return Some((packed.into(), (pieces, Some(encoder))));
            }
        }
        let rest = encoder.finish().inspect_err(|error| {
            tracing::error!(%error, "an answer cannot be compressed");
        });
        Some((rest.ok()?.into(), (pieces, None)))
    })
}

/// The level that takes least time, as in Kubernetes.
fn compressed(bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}
