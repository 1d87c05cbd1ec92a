//! Connections of clients: accepted, told apart, served, and ended when the proxy stops.

mod answer;
mod body;
mod filters;
mod headers;
mod lengths;
mod request;
mod upgrade;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::{OnExit, Room, Tasks};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub(crate) use body::Body;
pub(crate) use headers::Arrival;
use lengths::Watched;

use crate::{
    limits::{
        ACCEPT_RETRY, CONNECTIONS_MAX, DESCRIPTORS, DRAIN_TIME_MAX, HANDSHAKE_TIME_MAX,
        HEAD_BYTES_MAX, HEAD_TIME_MAX, HEADERS_MAX, STREAMS_MAX,
    },
    record::Recorder,
    table::Table,
    upstream::Pool,
};

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What every request needs.
pub(crate) struct Proxy {
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) tasks: Tasks,
    acceptor: TlsAcceptor,
    recorder: Recorder,
    connections: Arc<Semaphore>,
    /// Ports of this machine, by what listeners of Gateways call them.
    places: Mutex<BTreeMap<u16, u16>>,
}

/// Where requests come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The port of this machine.
    pub(crate) port: u16,
    /// The same as listeners of Gateways name it.
    pub(crate) at: u16,
    pub(crate) tls: bool,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl Proxy {
    pub(crate) fn new(
        (table, pool): (watch::Receiver<Arc<Table>>, Arc<Pool>),
        acceptor: TlsAcceptor,
        recorder: Recorder,
        tasks: Tasks,
    ) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let places = Mutex::default();
        Arc::new(Self { table, pool, tasks, acceptor, recorder, connections, places })
    }

    /// The port of this machine that listeners of Gateways call `at`.
    fn on_machine(&self, at: u16) -> u16 {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(&at).copied().unwrap_or(at)
    }

    /// Serves what connects to `listener`, until `end` or the tasks are stopped.
    pub(crate) fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        place: Place,
        end: CancellationToken,
    ) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(place.at, place.port);
        drop(places);
        let proxy = Arc::clone(self);
        self.tasks.spawn("proxy-listener", OnExit::Log, move |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = end.cancelled() => {}
                () = proxy.accept(&listener, place) => {}
            }
            Ok(())
        });
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, place: Place) {
        let room = Room::of_process();
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let (stream, client) = match listener.accept().await {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let taken = room.take(DESCRIPTORS).await;
            let proxy = Arc::clone(self);
            let Place { port, at, tls } = place;
            let arrival = Arrival { client, port, at, tls };
            self.tasks.spawn("proxy-connection", OnExit::Log, |stop| async move {
                if let Err(error) = proxy.connection(stream, arrival, stop).await {
                    // Clients come and go; nothing here needs an operator.
                    tracing::debug!(error = &*error, "connection of a client ended");
                }
                drop((permit, taken));
                Ok(())
            });
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        arrival: Arrival,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        stream.set_nodelay(true)?;
        if arrival.tls {
            let stream = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                stream = timeout(HANDSHAKE_TIME_MAX, self.acceptor.accept(stream)) => stream??,
            };
            return if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                self.http2(stream, arrival, stop).await
            } else {
                self.http1(stream, arrival, stop).await
            };
        }
        let (mut read, write) = stream.into_split();
        let began = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            began = timeout(HEAD_TIME_MAX, beginning(&mut read)) => began??,
        };
        let http2 = began.starts_with(HTTP2_PREFACE);
        let stream = tokio::io::join(io::Cursor::new(began).chain(read), write);
        if http2 {
            self.http2(stream, arrival, stop).await
        } else {
            self.http1(stream, arrival, stop).await
        }
    }

    async fn http1<S>(
        self: Arc<Self>,
        stream: S,
        arrival: Arrival,
        stop: CancellationToken,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (stream, length) = Watched::new(stream);
        let service = service_fn(|it: Request<Incoming>| {
            let chunks = it.headers().contains_key(header::TRANSFER_ENCODING);
            let both = chunks && length.seen();
            // A connection keeps the room for this, also while it has no request: a box, not 6 KiB.
            let answer = Box::pin(self.answer(it, arrival));
            async move {
                let mut response = answer.await?;
                if both {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(timeout(DRAIN_TIME_MAX, connection).await.unwrap_or(Ok(()))?)
    }

    async fn http2<S>(
        self: Arc<Self>,
        stream: S,
        arrival: Arrival,
        stop: CancellationToken,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Streams are tasks of their own.
        let service = service_fn(move |it: Request<Incoming>| {
            let proxy = Arc::clone(&self);
            async move { proxy.answer(it, arrival).await }
        });
        let header_bytes = u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(header_bytes)
            .keep_alive_interval(Some(HEAD_TIME_MAX))
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(timeout(DRAIN_TIME_MAX, connection).await.unwrap_or(Ok(()))?)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The first bytes of a connection: as many as tell HTTP/2 from HTTP/1.
async fn beginning(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(HTTP2_PREFACE.len());
    while bytes.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&bytes) {
        if read.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(bytes.freeze())
}
