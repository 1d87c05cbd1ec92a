//! Uploads of blobs: in one request, in pieces, or mounted from another repository.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONTENT_RANGE, LOCATION, RANGE},
};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Registry,
    answer::{self, Answer, CONTENT_DIGEST, Failure},
    route::{self, Query},
};
use crate::{
    Digest,
    store::{self, Writer},
};

/// Uploads that are begun; the one that nobody went on with longest makes room for another.
const UPLOADS_MAX: usize = 100;

/// Longest wait for the next piece of a body.
const STALL: Duration = Duration::from_secs(60);

/// Pieces on their way to the disk.
const PIECES: usize = 32;

/// The uploads that are begun and not under way, by their ids. They end with the process, and clients
/// begin again.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<BTreeMap<String, Upload>>);

#[derive(Debug)]
struct Upload {
    writer: Writer,
    repository: String,
    touched: Instant,
}

impl Uploads {
    fn put(&self, id: &str, repository: &str, writer: Writer) {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = uploads.iter().min_by_key(|it| it.1.touched).map(|it| it.0.clone());
        if let Some(oldest) = oldest.filter(|_| uploads.len() >= UPLOADS_MAX) {
            uploads.remove(&oldest);
        }
        let repository = repository.to_owned();
        uploads.insert(id.to_owned(), Upload { writer, repository, touched: Instant::now() });
    }

    fn take(&self, id: &str, repository: &str) -> Result<Writer, Failure> {
        let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match uploads.remove(id) {
            Some(upload) if upload.repository == repository => Ok(upload.writer),
            Some(other) => {
                uploads.insert(id.to_owned(), other);
                Err(unknown(id))
            }
            None => Err(unknown(id)),
        }
    }
}

fn unknown(id: &str) -> Failure {
    Failure::not_found("BLOB_UPLOAD_UNKNOWN", format!("upload `{id}`"))
}

impl Registry {
    /// `POST`: begins one, or does all at once.
    pub(super) async fn begin_upload(
        &self,
        request: Request<Incoming>,
        repository: &str,
        query: &Query,
    ) -> Result<Answer, Failure> {
        if *request.method() != Method::POST {
            return Err(Failure::method("POST"));
        }
        let store = &self.shared.store;
        if let Some(mount) = query.get("mount") {
            let digest = route::digest(mount)?;
            self.hold(digest)?;
            if store.blob_size(&digest)?.is_some() {
                return Ok(created(repository, &digest));
            }
        }
        let mut writer = store.writer()?;
        if let Some(digest) = query.get("digest") {
            let digest = route::digest(digest)?;
            writer = receive(writer, request.into_body()).await.0?;
            return self.commit(writer, repository, &digest).await;
        }
        let id = writer.id();
        let answer = state(StatusCode::ACCEPTED, repository, &id, writer.offset());
        self.shared.uploads.put(&id, repository, writer);
        Ok(answer)
    }

    /// `GET`, `PATCH`, `PUT`, `DELETE` of one that is begun.
    pub(super) async fn go_on_with_upload(
        &self,
        request: Request<Incoming>,
        repository: &str,
        id: &str,
        query: &Query,
    ) -> Result<Answer, Failure> {
        let uploads = &self.shared.uploads;
        let digest = query.get("digest").map(route::digest).transpose()?;
        let method = request.method().clone();
        if ![Method::GET, Method::PATCH, Method::PUT, Method::DELETE].contains(&method) {
            return Err(Failure::method("GET, PATCH, PUT, DELETE"));
        }
        let writer = uploads.take(id, repository)?;
        if method == Method::DELETE {
            return Ok(answer::empty(StatusCode::NO_CONTENT, &[]));
        }
        let offset = writer.offset();
        if method == Method::GET {
            uploads.put(id, repository, writer);
            return Ok(state(StatusCode::NO_CONTENT, repository, id, offset));
        }
        if !continues(request.headers(), offset) {
            uploads.put(id, repository, writer);
            return Ok(state(StatusCode::RANGE_NOT_SATISFIABLE, repository, id, offset));
        }
        if method == Method::PUT && digest.is_none() {
            uploads.put(id, repository, writer);
            return Err(Failure::digest_invalid("the upload ends without a digest"));
        }
        let writer = match receive(writer, request.into_body()).await {
            (Ok(writer), None) => writer,
            // The client is gone, or will come again for the rest.
            (Ok(writer), Some(failure)) => {
                uploads.put(id, repository, writer);
                return Err(failure);
            }
            (Err(failure), _) => return Err(failure),
        };
        if let Some(digest) = digest.filter(|_| method == Method::PUT) {
            return self.commit(writer, repository, &digest).await;
        }
        let offset = writer.offset();
        uploads.put(id, repository, writer);
        Ok(state(StatusCode::ACCEPTED, repository, id, offset))
    }

    /// Puts an upload into the store, if it is what its client says.
    async fn commit(
        &self,
        writer: Writer,
        repository: &str,
        expected: &Digest,
    ) -> Result<Answer, Failure> {
        let (expected, found) = (*expected, writer.digest());
        if found != expected {
            return Err(store::Error::Digest { expected, found }.into());
        }
        self.hold(found)?;
        blocking(move || writer.commit()).await??;
        Ok(created(repository, &found))
    }
}

/// Writes a body. If it breaks off, what has come is there and the failure beside it.
async fn receive(writer: Writer, mut body: Incoming) -> (Result<Writer, Failure>, Option<Failure>) {
    let (queue, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let mut writer = writer;
    let written = tokio::task::spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            writer.append(&piece)?;
        }
        Ok::<_, store::Error>(writer)
    });
    let mut broken = None;
    loop {
        let frame = match timeout(STALL, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                broken = Some(Failure::bad("BLOB_UPLOAD_INVALID", error.to_string()));
                break;
            }
            Err(_) => {
                let message = format!("nothing came for {STALL:?}");
                let code = "BLOB_UPLOAD_INVALID";
                broken = Some(Failure::new(StatusCode::REQUEST_TIMEOUT, code, message));
                break;
            }
        };
        if let Ok(piece) = frame.into_data()
            && queue.send(piece).await.is_err()
        {
            // The writer has failed, and says why.
            break;
        }
    }
    drop(queue);
    let written = match written.await {
        Ok(written) => written.map_err(Failure::from),
        Err(error) => Err(ended(&error)),
    };
    (written, broken)
}

/// Does what waits for the disk elsewhere.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ended(&error))
}

fn ended(error: &tokio::task::JoinError) -> Failure {
    let error = io::Error::other(error.to_string());
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", error.to_string())
}

/// Whether a piece begins where the last one ended: `Content-Range: 5-9`, if it is said.
fn continues(headers: &HeaderMap, offset: u64) -> bool {
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return true;
    };
    let text = range.to_str().unwrap_or_default();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    text.split('-').next().and_then(|it| it.trim().parse().ok()) == Some(offset)
}

fn created(repository: &str, digest: &Digest) -> Answer {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    answer::empty(StatusCode::CREATED, &headers)
}

/// How far an upload is; nothing at all is said as `0-0`, as clients know it.
fn state(status: StatusCode, repository: &str, id: &str, offset: u64) -> Answer {
    let headers = [
        (LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        (RANGE, format!("0-{}", offset.saturating_sub(1))),
        (http::HeaderName::from_static("docker-upload-uuid"), id.to_owned()),
    ];
    answer::empty(status, &headers)
}
