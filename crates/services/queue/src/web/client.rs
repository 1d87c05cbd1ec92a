//! Asks another nsqd, nsqlookupd or nsqadmin over HTTP. One request a connection: these are rare,
//! and a connection that is kept can be dead without anybody having noticed.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Longest answer: the statistics of an nsqd with every topic, channel and client it may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest piece of a refusal that is repeated in an error.
const REFUSAL_BYTES_MAX: usize = 200;

/// How others are asked. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    /// How long the other side may take until there is a connection.
    pub(crate) connect: Duration,
    /// The same until the whole answer is there.
    pub(crate) request: Duration,
    /// For those who want to be asked over TLS, which they answer with where.
    pub(crate) tls: Option<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect, request, tls } = self;
        let mut shown = formatter.debug_struct("Client");
        shown.field("connect", connect).field("request", request);
        shown.field("tls", &tls.is_some()).finish()
    }
}

/// What a server says that is to be asked over TLS.
#[derive(Deserialize)]
struct Elsewhere {
    https_port: u16,
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
        let plain = self.exchange(&method, address, None, path, body.clone()).await;
        let (status, answer) = plain?;
        let elsewhere = match &self.tls {
            Some(tls) if status == StatusCode::FORBIDDEN => {
                over_tls(address, &answer).zip(Some(tls))
            }
            _ => None,
        };
        let (status, body) = match elsewhere {
            Some((address, tls)) => self.exchange(&method, &address, Some(tls), path, body).await?,
            None => (status, answer),
        };
        if status != StatusCode::OK {
            let body = body.get(..REFUSAL_BYTES_MAX).unwrap_or(&body);
            let body = String::from_utf8_lossy(body).into_owned();
            return Err(ClientError::Refused { status, body });
        }
        Ok(body)
    }

    /// Asks once.
    async fn exchange(
        &self,
        method: &Method,
        address: &str,
        tls: Option<&TlsConnector>,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let late = || ClientError::Late { address: address.to_owned() };
        let failed = |source| ClientError::Connect { address: address.to_owned(), source };
        let exchange = async {
            let connect = tokio::time::timeout(self.connect, TcpStream::connect(address));
            let socket = connect.await.map_err(|_| late())?.map_err(failed)?;
            let sent = match tls {
                None => send(socket, method, address, path, body).await,
                Some(tls) => {
                    let name = server_name(address).map_err(failed)?;
                    let socket = tls.connect(name, socket).await.map_err(failed)?;
                    send(socket, method, address, path, body).await
                }
            };
            sent.map_err(|source| ClientError::Exchange { address: address.to_owned(), source })
        };
        tokio::time::timeout(self.request, exchange).await.map_err(|_| late())?
    }
}

/// Where a server at `address` that will not be asked in the clear says that it is to be asked.
fn over_tls(address: &str, answer: &[u8]) -> Option<String> {
    let Elsewhere { https_port } = serde_json::from_slice(answer).ok()?;
    let (host, _) = address.rsplit_once(':')?;
    (https_port != 0).then(|| format!("{host}:{https_port}"))
}

/// The name that the certificate of the server at `address` must have.
fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

async fn send(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: &Method,
    address: &str,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let mut request = Request::builder()
        .method(method.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_where_else_to_ask() {
        let check = |address: &str, answer: &str| over_tls(address, answer.as_bytes());
        let answer = r#"{"message": "TLS_REQUIRED", "https_port": 4152}"#;
        assert_eq!(check("nsqd:4151", answer).as_deref(), Some("nsqd:4152"));
        assert_eq!(check("[::1]:4151", answer).as_deref(), Some("[::1]:4152"));
        // It serves nothing over TLS, or refuses for another reason.
        assert_eq!(check("nsqd:4151", r#"{"message": "TLS_REQUIRED", "https_port": 0}"#), None);
        assert_eq!(check("nsqd:4151", r#"{"message": "FORBIDDEN"}"#), None);
        assert_eq!(check("nsqd:4151", r#"{"https_port": 65536}"#), None);
        assert_eq!(check("nsqd:4151", "no"), None);
    }

    #[test]
    fn a_certificate_is_for_a_name_or_an_address() {
        let check = |address: &str| server_name(address).unwrap().to_str().into_owned();
        assert_eq!(check("nsqd.example:4152"), "nsqd.example");
        assert_eq!(check("127.0.0.1:4152"), "127.0.0.1");
        assert_eq!(check("[::1]:4152"), "::1");
        assert!(server_name("no name:4152").is_err());
    }
}
