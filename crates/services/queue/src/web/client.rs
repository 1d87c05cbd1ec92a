//! Asks another nsqd, nsqlookupd or nsqadmin over HTTP. One request a connection: these are rare,
//! and a connection that is kept can be dead without anybody having noticed.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Longest answer: the statistics of an nsqd with every topic, channel and client it may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest piece of a refusal that is repeated in an error.
const REFUSAL_BYTES_MAX: usize = 200;

/// How long the other side may take. Cheap to clone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Until there is a connection.
    pub(crate) connect: Duration,
    /// Until the whole answer is there.
    pub(crate) request: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no connection.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not answer in time")]
    Late {
        /// Who.
        address: String,
    },
    /// The connection broke, or the answer is not HTTP or too long.
    #[error("ask {address}")]
    Exchange {
        /// Who.
        address: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it will not.
    #[error("got response {status} {body:?}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The beginning of what it said.
        body: String,
    },
    /// The answer is not the document that was expected.
    #[error("read the answer of {address}")]
    Document {
        /// Who.
        address: String,
        /// Why not.
        source: serde_json::Error,
    },
}

impl Client {
    /// The document at `path`, which begins with `/` and may have a query, of `address`, which is
    /// `host:port`.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        let body = self.ask(Method::GET, address, path, Bytes::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|source| ClientError::Document { address: address.to_owned(), source })
    }

    /// Has something done; the answer does not matter.
    ///
    /// # Errors
    /// If it was not done, or nobody knows.
    pub(crate) async fn post(&self, address: &str, path: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, address, path, Bytes::new()).await.map(drop)
    }

    /// Sends `body`, a JSON document if it is not empty, and gives the answer's.
    ///
    /// # Errors
    /// If there is none, or its status is not 200.
    pub(crate) async fn ask(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let late = || ClientError::Late { address: address.to_owned() };
        let exchange = async {
            let connect = tokio::time::timeout(self.connect, TcpStream::connect(address));
            let socket = connect
                .await
                .map_err(|_| late())?
                .map_err(|source| ClientError::Connect { address: address.to_owned(), source })?;
            send(socket, method, address, path, body)
                .await
                .map_err(|source| ClientError::Exchange { address: address.to_owned(), source })
        };
        let answer = tokio::time::timeout(self.request, exchange);
        let (status, body) = answer.await.map_err(|_| late())??;
        if status != StatusCode::OK {
            let body = body.get(..REFUSAL_BYTES_MAX).unwrap_or(&body);
            let body = String::from_utf8_lossy(body).into_owned();
            return Err(ClientError::Refused { status, body });
        }
        Ok(body)
    }
}

async fn send(
    socket: TcpStream,
    method: Method,
    address: &str,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address)
        .header(header::ACCEPT, "application/vnd.nsq; version=1.0")
        .header(header::USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body))?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // The end of the connection ends the exchange too, one way or the other.
        closed = &mut connection => {
            closed?;
            exchange.await
        }
    }
}
