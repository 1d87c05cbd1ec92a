//! Listens and serves HTTP/1.1, as many clients as the program allows, each in its own task.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::Body;

/// How long a client may take to send a request's head, or be silent between two.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest head. The original's runtime allows 1 MiB; the longest of ours is a few names.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Wait before another `accept` after one failed, as when there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How a program serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serve {
    /// Name of its tasks.
    pub(crate) name: &'static str,
    /// Clients at once; further ones wait in the kernel's queue until one leaves.
    pub(crate) clients_max: usize,
}

/// Listens at `address`, which is `host:port`, or `:port` for every address of this machine.
///
/// # Errors
/// If the name is not known or the port not free.
pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix(':') {
        None => TcpListener::bind(address).await,
        // A machine may have no version 6.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
    }
}

/// Answers every request that comes to `listener` with `handler`, in `tasks`, until these stop.
pub(crate) fn serve<H, F>(listener: TcpListener, how: Serve, tasks: &Tasks, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let of_clients = tasks.clone();
    tasks.spawn(how.name, OnExit::StopProcess, move |stop| async move {
        let places = Arc::new(Semaphore::new(how.clients_max));
        loop {
            let client = async {
                let place = Arc::clone(&places).acquire_owned().await?;
                anyhow::Ok((place, listener.accept().await))
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                client = client => client?,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let handler = handler.clone();
                    of_clients.spawn(how.name, OnExit::Log, move |stop| async move {
                        connection(socket, peer, handler, stop).await;
                        drop(place);
                        Ok(())
                    });
                }
                Err(error) => {
                    tracing::warn!(server = how.name, %error, "accept a client");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    });
}

/// Serves one client. When `stop` is cancelled, the request that is being answered still is.
pub(crate) async fn connection<I, H, F>(
    socket: I,
    peer: SocketAddr,
    handler: H,
    stop: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<Body>> + Send,
{
    let service = service_fn(|request| {
        let answer = handler(request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        served = connection.as_mut() => served,
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a client's connection");
    }
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is longer than allowed; the rest was not read.
    #[error("body is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
    /// The client went away, or does not speak HTTP.
    #[error("body did not come")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The whole body, if it has at most `max` bytes.
///
/// # Errors
/// If it is longer or did not come.
pub(crate) async fn read(body: Incoming, max: usize) -> Result<Bytes, ReadError> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadError::TooLong { max }),
        Err(error) => Err(ReadError::Broken(error)),
    }
}
