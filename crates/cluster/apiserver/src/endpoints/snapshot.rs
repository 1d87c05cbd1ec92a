//! `GET /snapshot`: the whole store as one file, as of one revision. Kubernetes has no such path:
//! there it is etcd's `Maintenance.Snapshot`.

use futures_util::stream;
use http::{HeaderValue, Response, StatusCode};
use store::Store;

use crate::http::{body::Body, respond};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The file; whoever reads it sees by its last record that it is whole.
pub(crate) fn answer(store: &Store) -> Response<Body> {
    let pieces = store.backup().pieces();
    respond::with(StatusCode::OK, BYTES, Body::chunks(stream::iter(pieces)))
}
