//! An HTTP/1.1 client over TLS with a client certificate: one connection, one request at a time.
//! For everything but the loads, which the load generator makes.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use runtime::{OnExit, Tasks};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::kubeconfig;

/// An API server and how to be known by it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    authority: String,
    address: (String, u16),
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Endpoint {
    /// The one that a kubeconfig names.
    pub(crate) fn new(kubeconfig: &Path) -> anyhow::Result<Self> {
        let credentials = kubeconfig::read(kubeconfig)?;
        let server: Uri = credentials.server.parse().context("the server's address")?;
        let host = server.host().context("the server's host")?.trim_matches(['[', ']']).to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&credentials.authority) {
            roots.add(certificate?)?;
        }
        let chain =
            CertificateDer::pem_slice_iter(&credentials.certificate).collect::<Result<_, _>>();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(&credentials.key)?)?;
        Ok(Self {
            authority: server.authority().context("the server's address")?.to_string(),
            name: ServerName::try_from(host.clone())?,
            address: (host, server.port_u16().unwrap_or(443)),
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    async fn open(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let (host, port) = (&self.address.0[..], self.address.1);
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, tasks: &Tasks) -> anyhow::Result<Connection> {
        let stream = self.open().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tasks.spawn("connection", OnExit::Log, |stop| async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // How it ends is seen by whoever uses the sender.
                _ = connection => {}
            }
            Ok(())
        });
        Ok(Connection { sender, authority: self.authority.clone() })
    }
}

/// One open connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// Sends a request of these media types, of its body and of the answer, which is returned as soon
    /// as its head is there.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        (content_type, accept): (&str, &str),
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT, accept)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let answer = self.send(method, path, (content_type, "application/json"), body).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// [`Connection::call`] for an answer that must be a success.
    pub(crate) async fn succeed(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Whether the server says that it is ready.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let answer = self.call(Method::GET, "/readyz", Bytes::new()).await;
        answer.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    /// Reads an object.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.succeed(Method::GET, path, Bytes::new()).await?)?)
    }
}
