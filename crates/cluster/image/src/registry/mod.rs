//! A registry: the OCI distribution API over a store.
//!
//! A repository `a/b` at the host `localhost:5000` is what the store calls `localhost:5000/a/b`. So what
//! is built or tagged under such a name can be pulled at once, and what is pushed is there to be run.
//! There are no users and no TLS: it is for this machine, or a network where all may do all.

mod answer;
mod blobs;
mod manifests;
mod route;
mod tags;
mod uploads;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use answer::{Answer, Failure};
use http::{Method, Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use route::{Query, Route};
use runtime::{OnExit, Tasks};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uploads::Uploads;

use crate::{
    Digest, Reference, Store,
    store::{self, Lease},
};

/// Open connections; more wait to be accepted. A client has three or four.
const CONNECTIONS_MAX: usize = 256;

/// Longest wait for the head of a request.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// How long content stays that was uploaded, or found to be there, and that no manifest names yet.
const UPLOADED_FOR: Duration = Duration::from_hours(1);

/// A registry.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    host: String,
    uploads: Uploads,
    leases: Mutex<Leases>,
}

/// What was uploaded lately. Two leases follow each other, so that none grows for ever.
#[derive(Debug)]
struct Leases {
    current: Lease,
    held: BTreeSet<Digest>,
    former: Option<Lease>,
    since: Instant,
}

impl Registry {
    /// A registry of what `store` has under names that begin with `host`, such as `localhost:5000`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(store: Store, host: &str) -> Result<Self, store::Error> {
        let current = store.lease()?;
        let held = BTreeSet::new();
        let leases = Leases { current, held, former: None, since: Instant::now() };
        let uploads = Uploads::default();
        let shared = Shared { store, host: host.to_owned(), uploads, leases: Mutex::new(leases) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves until `stop`; connections are tasks of their own.
    ///
    /// # Errors
    ///
    /// What the system says of the listener.
    pub async fn serve(
        self,
        listener: TcpListener,
        tasks: Tasks,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return Ok(());
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // A client that has gone again; anything else is the listener's end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let registry = self.clone();
            tasks.spawn("registry connection", OnExit::Log, |stop| async move {
                registry.connection(stream, stop).await;
                drop(place);
                Ok(())
            });
        }
    }

    async fn connection(self, stream: TcpStream, stop: CancellationToken) {
        let service = service_fn(|request| {
            let registry = self.clone();
            async move { Ok::<_, io::Error>(registry.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection of the registry ended early");
        }
    }

    async fn respond(self, request: Request<Incoming>) -> Answer {
        let is_head = request.method() == Method::HEAD;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = match self.handle(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.is_ours() {
                    tracing::error!(%method, path, error = %failure, "the registry failed");
                }
                failure.answer()
            }
        };
        tracing::debug!(%method, path, status = answer.status().as_u16(), "answered");
        if is_head { answer::without_body(answer) } else { answer }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match Route::parse(request.uri().path())? {
            Route::Version => answer::version(request.method()),
            Route::Catalog => self.catalog(request.method(), &query),
            Route::Tags(repository) => self.tags(request.method(), &repository, &query),
            Route::Manifest(repository, name) => self.manifest(request, &repository, &name).await,
            Route::Blob(repository, digest) => self.blob(&request, &repository, &digest),
            Route::Uploads(repository) => self.begin_upload(request, &repository, &query).await,
            Route::Upload(repository, id) => {
                self.go_on_with_upload(request, &repository, &id, &query).await
            }
            Route::Referrers(repository, digest) => {
                self.referrers(request.method(), &repository, &digest, &query)
            }
        }
    }

    /// Keeps content for a while that no name refers to.
    fn hold(&self, digest: Digest) -> Result<(), store::Error> {
        let mut leases = self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.since.elapsed() > UPLOADED_FOR {
            let current = self.shared.store.lease()?;
            leases.former = Some(std::mem::replace(&mut leases.current, current));
            leases.held.clear();
            leases.since = Instant::now();
        }
        if leases.held.insert(digest) {
            leases.current.hold([digest])?;
        }
        Ok(())
    }

    /// What the store calls a tag of a repository.
    fn reference(&self, repository: &str, tag: &str) -> Result<Reference, Failure> {
        let text = format!("{}/{repository}:{tag}", self.shared.host);
        text.parse().map_err(|_| Failure::name_invalid(repository))
    }

    /// The same for a manifest that has only a digest.
    fn reference_of(&self, repository: &str, digest: &Digest) -> Result<Reference, Failure> {
        Ok(self.reference(repository, "x")?.with_digest(*digest))
    }
}

#[cfg(test)]
mod tests;
