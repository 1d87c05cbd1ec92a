//! Asks one auth server over HTTP or HTTPS. One request a connection: these are rare.

use std::{fmt::Write as _, io};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::protocol::options::{AuthMethod, AuthOptions};

/// The longest answer, in bytes: thousands of rules.
const ANSWER_MAX: usize = 1024 * 1024;

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("`{0}` is no address of an auth server")]
    Address(String),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("it took too long")]
    Late,
    #[error("the exchange failed")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}")]
    Status(StatusCode),
}

/// Where a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    encrypted: bool,
    host: String,
    port: u16,
    path: String,
}

/// How a server says that it wants to be asked in secret.
#[derive(Deserialize)]
struct Elsewhere {
    https_port: u16,
}

impl Endpoint {
    /// # Errors
    /// If it is neither `host:port` nor a URL.
    pub(super) fn parse(address: &str) -> Result<Self, AskError> {
        let wrong = || AskError::Address(address.to_owned());
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}/auth")
        };
        let url: Uri = url.parse().map_err(|_| wrong())?;
        let encrypted = url.scheme() == Some(&Scheme::HTTPS);
        if !encrypted && url.scheme() != Some(&Scheme::HTTP) {
            return Err(wrong());
        }
        let host = url.host().filter(|it| !it.is_empty()).ok_or_else(wrong)?.to_owned();
        let port = url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        Ok(Self { encrypted, host, port, path: url.path().to_owned() })
    }
}

/// The body of the server's answer to these parameters.
///
/// # Errors
/// If there is none.
pub(super) async fn ask(
    endpoint: &Endpoint,
    parameters: &[(&str, String)],
    options: &AuthOptions,
    connector: &TlsConnector,
) -> Result<Bytes, AskError> {
    let (status, body) = ask_once(endpoint, parameters, options, connector).await?;
    if status == StatusCode::FORBIDDEN
        && !endpoint.encrypted
        && let Ok(elsewhere) = serde_json::from_slice::<Elsewhere>(&body)
    {
        let port = elsewhere.https_port;
        let endpoint = Endpoint { encrypted: true, port, ..endpoint.clone() };
        let (status, body) = ask_once(&endpoint, parameters, options, connector).await?;
        return if status == StatusCode::OK { Ok(body) } else { Err(AskError::Status(status)) };
    }
    if status == StatusCode::OK { Ok(body) } else { Err(AskError::Status(status)) }
}

async fn ask_once(
    endpoint: &Endpoint,
    parameters: &[(&str, String)],
    options: &AuthOptions,
    connector: &TlsConnector,
) -> Result<(StatusCode, Bytes), AskError> {
    let Endpoint { encrypted, host, port, .. } = endpoint;
    let exchange = async {
        // Brackets belong to the URL.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = timeout(options.connect_timeout, TcpStream::connect((name, *port)));
        let socket = connecting.await.map_err(|_| AskError::Late)?.map_err(AskError::Connect)?;
        let request = request(endpoint, parameters, options.method)
            .map_err(|it| AskError::Exchange(it.into()))?;
        if !encrypted {
            return send(socket, request).await;
        }
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| AskError::Address(host.clone()))?;
        let socket = connector.connect(name, socket).await.map_err(AskError::Connect)?;
        send(socket, request).await
    };
    timeout(options.request_timeout, exchange).await.map_err(|_| AskError::Late)?
}

fn request(
    endpoint: &Endpoint,
    parameters: &[(&str, String)],
    method: AuthMethod,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let Endpoint { host, port, path, .. } = endpoint;
    let request = Request::builder()
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::ACCEPT, "application/vnd.nsq; version=1.0")
        .header(header::CONNECTION, "close");
    match method {
        AuthMethod::Get => request
            .method(Method::GET)
            .uri(format!("{path}?{}", encoded(parameters)))
            .body(Full::default()),
        AuthMethod::Post => {
            let listed = parameters
                .iter()
                .map(|(key, value)| ((*key).to_owned(), serde_json::json!([value])));
            let body = serde_json::Value::Object(listed.collect());
            request
                .method(Method::POST)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body.to_string().into()))
        }
    }
}

/// Parameters as in a URL.
fn encoded(parameters: &[(&str, String)]) -> String {
    let mut query = String::new();
    for (key, value) in parameters {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(key);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    query.push(char::from(byte));
                }
                b' ' => query.push('+'),
                _ => write!(query, "%{byte:02X}").unwrap_or_default(),
            }
        }
    }
    query
}

async fn send(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), AskError> {
    let failed = |it: hyper::Error| AskError::Exchange(it.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(failed)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        Ok((status, body.map_err(AskError::Exchange)?.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // The end of the connection ends the exchange, too.
        closed = &mut connection => {
            closed.map_err(failed)?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_or_a_url() {
        let endpoint = |encrypted, host: &str, port, path: &str| Endpoint {
            encrypted,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        for (address, expected) in [
            ("127.0.0.1:4181", endpoint(false, "127.0.0.1", 4181, "/auth")),
            ("[::1]:4181", endpoint(false, "[::1]", 4181, "/auth")),
            ("http://auth.test/nsq", endpoint(false, "auth.test", 80, "/nsq")),
            ("https://auth.test:444", endpoint(true, "auth.test", 444, "/")),
            ("https://auth.test/a", endpoint(true, "auth.test", 443, "/a")),
        ] {
            assert_eq!(Endpoint::parse(address).unwrap(), expected);
        }
        for bad in ["", "ftp://a", "a b", ":1"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_encoded() {
        let parameters = [("a", "x y&z=ü".to_owned()), ("b", String::new())];
        assert_eq!(encoded(&parameters), "a=x+y%26z%3D%C3%BC&b=");
    }
}
