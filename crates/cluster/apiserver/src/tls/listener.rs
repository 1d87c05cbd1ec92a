//! Connections: accepted, encrypted, served, and ended when the server stops.

use std::{io, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use runtime::{Clock, OnExit, Room, Tasks};
use rustls::{ServerConfig, pki_types::UnixTime};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{client_certificate::Verifier, pki::Pki};
use crate::{
    config::Config,
    http::outgoing::{self, Outgoing, Streams},
    limits::{
        ACCEPT_RETRY, DRAIN_TIME_MAX, DRAIN_UNTAKEN_TIME_MAX, HANDSHAKE_TIME_MAX, HEAD_TIME_MAX,
        STREAMS_PER_CONNECTION_MAX, UNTAKEN_TIME_MAX,
    },
    router::{Router, Shared},
};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key of ours cannot be read.
    #[error("the certificate or key of `{0}` is malformed")]
    Malformed(&'static str),
    /// rustls refused the configuration.
    #[error("the TLS configuration is not possible")]
    Rustls(#[source] rustls::Error),
}

/// What connections need.
#[derive(Clone)]
pub(crate) struct Endpoint {
    acceptor: TlsAcceptor,
    verifier: Arc<Verifier>,
    connections: Arc<Semaphore>,
    clock: Clock,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new(pki: &Pki, config: &Config, shared: Arc<Shared>) -> Result<Self, TlsError> {
        let malformed = TlsError::Malformed;
        let connections_max = config.connections_max.min(Semaphore::MAX_PERMITS);
        let authority = pki.authority.certificate_der().ok_or(malformed("ca"))?;
        let certificate = pki.server.certificate_der().ok_or(malformed("apiserver"))?;
        let key = pki.server.key_der().ok_or(malformed("apiserver"))?;
        let verifier = Arc::new(Verifier::new(authority).map_err(TlsError::Rustls)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rustls)?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_single_cert(vec![certificate], key)
            .map_err(TlsError::Rustls)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            verifier,
            connections: Arc::new(Semaphore::new(connections_max)),
            clock: config.clock.clone(),
            shared,
        })
    }

    /// Serves everything that connects to `listener`, until the tasks are stopped.
    pub(crate) fn serve(&self, listener: std::net::TcpListener, tasks: &Tasks) {
        let (endpoint, connections) = (self.clone(), tasks.clone());
        tasks.spawn("apiserver-listener", OnExit::StopProcess, |stop| async move {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            endpoint.accept(&listener, &connections, &stop).await;
            Ok(())
        });
    }

    async fn accept(&self, listener: &TcpListener, tasks: &Tasks, stop: &CancellationToken) {
        let room = Room::of_process();
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let taken = room.take(1).await;
            let endpoint = self.clone();
            tasks.spawn("apiserver-connection", OnExit::Log, |stop| async move {
                let result = endpoint.connection(stream, stop).await;
                drop((permit, taken));
                if let Err(error) = result {
                    // Clients come and go; nothing here needs an operator.
                    tracing::debug!(%error, "connection ended");
                }
                Ok(())
            });
        }
    }

    async fn connection(
        &self,
        stream: TcpStream,
        stop: CancellationToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let handshake = timeout(HANDSHAKE_TIME_MAX, self.acceptor.accept(stream));
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            stream = handshake => stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
        };
        let outgoing = Outgoing::new();
        let router = self.router(&stream).over(&outgoing);
        let mut builder = auto::Builder::new(Streams);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let service = TowerToHyperService::new(router);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            reason = outgoing.ended(UNTAKEN_TIME_MAX) => match reason {
                outgoing::Reason::Idle => connection.as_mut().graceful_shutdown(),
                outgoing::Reason::Stalled => return Err("the client takes no answers".into()),
            },
        }
        tokio::select! {
            done = timeout(DRAIN_TIME_MAX, connection) => done.unwrap_or(Ok(())),
            // Who takes nothing is not waited for.
            _ = outgoing.ended(DRAIN_UNTAKEN_TIME_MAX) => Ok(()),
        }
    }

    /// The API for whoever is at the other end.
    fn router(&self, stream: &TlsStream<TcpStream>) -> Router {
        let (_, session) = stream.get_ref();
        let since_epoch = self.clock.now().as_duration();
        let now = UnixTime::since_unix_epoch(since_epoch.unsigned_abs());
        let chain = session.peer_certificates().unwrap_or_default();
        let identity = self.verifier.identify(chain, now);
        Router::new(Arc::clone(&self.shared), Arc::new(identity))
    }
}
