//! Listens and serves HTTP/1.1, as many clients as the program allows, each in its own task.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Body;
use crate::listen::Listener;

/// How long a client may take to send a request's head, or be silent between two.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest head. The original's runtime allows 1 MiB; the longest of ours is a few names.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Wait before another `accept` after one failed, as when there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long TLS may take to begin.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long, after the last answer, what a client still sends is read and dropped. Closing with
/// unread bytes resets the connection, and then a client whose body was refused loses the answer.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);

/// How a program serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serve {
    /// Name of its tasks.
    pub(crate) name: &'static str,
    /// Clients at once; further ones wait in the kernel's queue until one leaves.
    pub(crate) clients_max: usize,
    /// Whether a client that has closed its half of the connection is answered all the same, as by Go's
    /// servers. Not where an answer may go on for as long as the client is there.
    pub(crate) answers_half_closed: bool,
}

/// What answers the requests of a connection.
#[derive(Clone, Debug)]
struct Answering<H> {
    handler: H,
    half_closed: bool,
}

/// Answers every request that comes to `listener` with `handler`, in `tasks`, until these stop.
pub(crate) fn serve<H, F>(listener: TcpListener, how: Serve, tasks: &Tasks, handler: H)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve_at(Listener::Tcp(listener), None, how, tasks, handler);
}

/// As [`serve`], at an address of any kind and, if asked for, over TLS.
pub(crate) fn serve_at<H, F>(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    how: Serve,
    tasks: &Tasks,
    handler: H,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let of_clients = tasks.clone();
    tasks.spawn(how.name, OnExit::StopProcess, move |stop| async move {
        let places = Arc::new(Semaphore::new(how.clients_max));
        let answering = Answering { handler, half_closed: how.answers_half_closed };
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
                    let (answering, tls) = (answering.clone(), tls.clone());
                    of_clients.spawn(how.name, OnExit::Log, move |stop| async move {
                        match tls {
                            None => connection(socket, peer, answering, stop).await,
                            Some(tls) => {
                                match timeout(HANDSHAKE_TIME_MAX, tls.accept(socket)).await {
                                    Ok(Ok(socket)) => {
                                        connection(socket, peer, answering, stop).await;
                                    }
                                    Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                                    Err(_) => tracing::debug!(%peer, "no TLS in time"),
                                }
                            }
                        }
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
async fn connection<I, H, F>(
    socket: I,
    peer: SocketAddr,
    answering: Answering<H>,
    stop: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<Body>> + Send,
{
    let service = service_fn(|request| {
        let answer = (answering.handler)(request, peer);
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(answering.half_closed)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket), service);
    let served = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        served = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(served),
    };
    let served = match served {
        Some(served) => served,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    let ended = match served {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a client's connection");
    }
}

async fn linger(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    socket.shutdown().await?;
    let mut nowhere = tokio::io::sink();
    let rest = tokio::io::copy(&mut socket, &mut nowhere);
    timeout(LINGER_TIME_MAX, rest).await.unwrap_or(Ok(0)).map(drop)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::{
        super::{Failure, Reply, read, v1},
        *,
    };

    async fn echo(request: Request<Incoming>) -> Result<Reply, Failure> {
        if request.method() == "PUT" {
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_BIG"));
        }
        let body = read(request.into_body(), 100).await.map_err(|_| Failure::bad("BODY"))?;
        Ok(Reply::Text(String::from_utf8_lossy(&body).into_owned().into()))
    }

    async fn started() -> (Tasks, TcpStream) {
        let listener = crate::listen::tcp("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        let how = Serve { name: "test", clients_max: 2, answers_half_closed: true };
        serve(listener, how, &tasks, |request, _| async { v1(echo(request).await) });
        (tasks, TcpStream::connect(address).await.unwrap())
    }

    #[tokio::test]
    async fn a_refused_body_does_not_cost_the_answer() {
        let (_tasks, mut client) = started().await;
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
        assert!(seen.ends_with(r#"{"message":"BODY_TOO_BIG"}"#), "{seen}");
        assert!(seen.contains("X-Nsq-Content-Type: nsq; version=1.0\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn who_has_said_all_is_answered() {
        let (_tasks, mut client) = started().await;
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.ends_with("hi"), "{seen}");
    }

    #[tokio::test]
    async fn an_idle_connection_ends_with_the_server() {
        let (tasks, mut client) = started().await;
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        client.write_all(request).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"hi") {
            assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0);
        }
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
        assert_eq!(client.read_buf(&mut seen).await.unwrap(), 0);
    }
}
