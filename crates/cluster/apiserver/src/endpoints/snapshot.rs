//! `GET /snapshot`: the whole store as one file, as of one revision. Kubernetes has no such path:
//! there it is etcd's `Maintenance.Snapshot`.

use std::sync::Arc;

use api::status::{Reason, Status};
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode};

use crate::{
    http::{body::Body, respond},
    registry::Registry,
};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The file; whoever reads it sees by its last record that it is whole.
pub(crate) fn answer(registry: &Registry) -> Result<Response<Body>, Status> {
    let place = Arc::clone(&registry.snapshots).try_acquire_owned().map_err(|_| {
        let message = "too many snapshots are being sent";
        Status::new(Reason::TooManyRequests, message).with_retry_after(1)
    })?;
    let pieces = registry.store.backup().pieces().inspect(move |_| {
        // Held until the last piece is given.
        let _ = &place;
    });
    Ok(respond::with(StatusCode::OK, BYTES, Body::chunks(stream::iter(pieces))))
}
