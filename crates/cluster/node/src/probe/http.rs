//! HTTP probes: one GET over a fresh connection. 200 to 399 is success, as Kubernetes has it;
//! redirects are not followed, since they mean that the server answers.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{client::conn::http1, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Dial, Outcome, dial_error, tls};

/// What the kubelet of the same API version calls itself.
const USER_AGENT: &str = "kube-probe/1.36";

/// One GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Request {
    /// What `action` asks of `host`.
    #[must_use]
    pub(crate) fn new(action: &HTTPGetAction, host: String, port: u16) -> Self {
        let path = action.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let headers = action.http_headers.iter().flatten();
        Self {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host,
            port,
            path: format!("{slash}{path}"),
            headers: headers.map(|it| (it.name.clone(), it.value.clone())).collect(),
        }
    }

    /// Asks.
    pub(crate) async fn send(&self, dial: Dial<'_>, timeout: Duration) -> Outcome {
        match tokio::time::timeout(timeout, self.status(dial)).await {
            Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Success,
            Ok(Ok(status)) => {
                Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
            }
            Ok(Err(Refusal::Request(reason))) => Outcome::Unknown(reason),
            Ok(Err(Refusal::Server(reason))) => {
                Outcome::Failure(format!("Get \"{self}\": {reason}"))
            }
            Err(_) => Outcome::Failure(format!(
                "Get \"{self}\": context deadline exceeded \
                 (Client.Timeout exceeded while awaiting headers)"
            )),
        }
    }

    async fn status(&self, dial: Dial<'_>) -> Result<u16, Refusal> {
        let socket = dial(&self.host, self.port).await;
        let socket =
            socket.map_err(|error| Refusal::Server(dial_error(&self.host, self.port, &error)))?;
        if !self.tls {
            return self.exchange(socket).await;
        }
        let socket = tls::connect(&self.host, socket).await;
        self.exchange(socket.map_err(|error| Refusal::Server(error.to_string()))?).await
    }

    async fn exchange<S>(&self, socket: S) -> Result<u16, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let request = self.request().map_err(|error| Refusal::Request(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(TokioIo::new(socket)).await.map_err(words)?;
        let response = sender.send_request(request);
        tokio::pin!(connection, response);
        // The connection drives the request; it may end, well or not, as soon as it is answered.
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            ended = &mut connection => match ended {
                Ok(()) => response.await,
                Err(error) => Err(error),
            },
        };
        Ok(response.map_err(words)?.status().as_u16())
    }

    fn request(&self) -> http::Result<http::Request<Empty<Bytes>>> {
        let named = |name: &str| self.headers.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
        let mut builder = http::Request::get(&self.path).header(header::CONNECTION, "close");
        if !named("host") {
            builder = builder.header(header::HOST, format!("{}:{}", self.host, self.port));
        }
        if !named("user-agent") {
            builder = builder.header(header::USER_AGENT, USER_AGENT);
        }
        if !named("accept") {
            builder = builder.header(header::ACCEPT, "*/*");
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        builder.body(Empty::new())
    }
}

enum Refusal {
    /// The request cannot be made.
    Request(String),
    /// The server does not answer it.
    Server(String),
}

fn words(error: hyper::Error) -> Refusal {
    Refusal::Server(if error.is_incomplete_message() {
        "EOF".to_owned()
    } else {
        error.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::super::dial;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with `answer`; returns the request and the outcome, with the server's
    /// port taken out.
    async fn ask(action: serde_json::Value, answer: &str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = serde_json::from_value(action).unwrap();
        let request = Request::new(&action, "127.0.0.1".to_owned(), port);
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        };
        let (request, outcome) = tokio::join!(serve, request.send(&dial, Duration::from_secs(5)));
        let plain = |it: String| it.replace(&port.to_string(), "PORT").replace("\r\n", "\n");
        (plain(request), plain(format!("{outcome:?}")))
    }

    #[tokio::test]
    async fn get_with_headers() {
        let action = json!({ "path": "healthz?full", "port": 1, "httpHeaders": [
            { "name": "Host", "value": "shop" }, { "name": "X-Probe", "value": "1" }] });
        let (request, outcome) = ask(action, "HTTP/1.1 204 No Content\r\n\r\n").await;
        expect_test::expect![[r#"
            GET /healthz?full HTTP/1.1
            connection: close
            user-agent: kube-probe/1.36
            accept: */*
            host: shop
            x-probe: 1

        "#]]
        .assert_eq(&request);
        assert_eq!(outcome, "Success");
    }

    #[tokio::test]
    async fn failures() {
        for (answer, expected) in [
            ("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "Success"),
            ("HTTP/1.1 500 No\r\n\r\n", "Failure(\"HTTP probe failed with statuscode: 500\")"),
            ("", "Failure(\"Get \\\"http://127.0.0.1:PORT/\\\": EOF\")"),
        ] {
            assert_eq!(ask(json!({ "port": 1 }), answer).await.1, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_not_awaited_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = serde_json::from_value(json!({ "port": port })).unwrap();
        let request = Request::new(&action, "127.0.0.1".to_owned(), port);
        let outcome = request.send(&dial, Duration::from_secs(1)).await;
        let words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        let expected = format!("Get \"http://127.0.0.1:{port}/\": {words}");
        assert_eq!(outcome, Outcome::Failure(expected));
    }
}
