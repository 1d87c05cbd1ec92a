//! New connections to endpoints.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::FutureExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::{AnyCertificate, OnExit, Tasks};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{host::HostSockets, limits::CONNECT_TIME_MAX, serve::Body, table::Protocol};

/// Makes connections.
pub(crate) struct Dialer {
    tasks: Tasks,
    sockets: Arc<dyn HostSockets>,
    /// The address at which endpoints are programs of the host.
    host: IpAddr,
    tls: TlsConnector,
    /// Offers HTTP/1.1 only.
    tls_upgrade: TlsConnector,
}

/// A connection, by what is spoken over it.
pub(super) enum Dialed {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Dialer {
    pub(crate) fn new(
        sockets: Arc<dyn HostSockets>,
        host: IpAddr,
        tasks: &Tasks,
    ) -> Result<Self, rustls::Error> {
        let connector = |protocols: &[&[u8]]| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = Arc::new(AnyCertificate::new(&provider));
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Ok::<_, rustls::Error>(TlsConnector::from(Arc::new(config)))
        };
        let (tls, tls_upgrade) = (connector(&[b"h2", b"http/1.1"])?, connector(&[b"http/1.1"])?);
        Ok(Self { tasks: tasks.clone(), sockets, host, tls, tls_upgrade })
    }

    /// Connects to an endpoint, in bounded time.
    pub(super) async fn dial(
        &self,
        endpoint: SocketAddr,
        protocol: Protocol,
        upgrade: bool,
    ) -> io::Result<Dialed> {
        let connecting = async {
            let stream = if endpoint.ip() == self.host {
                self.sockets.connect(endpoint.port()).await?
            } else {
                TcpStream::connect(endpoint).await?
            };
            stream.set_nodelay(true)?;
            match protocol {
                Protocol::Http1 => self.http1(stream).await,
                Protocol::H2c if upgrade => self.http1(stream).await,
                Protocol::H2c => self.http2(stream).await,
                Protocol::Https => {
                    let connector = if upgrade { &self.tls_upgrade } else { &self.tls };
                    let name = ServerName::IpAddress(endpoint.ip().into());
                    let stream = connector.connect(name, stream).await?;
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        self.http2(stream).await
                    } else {
                        self.http1(stream).await
                    }
                }
            }
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it did not accept in time");
        timeout(CONNECT_TIME_MAX, connecting.boxed()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn http1<S>(&self, stream: S) -> io::Result<Dialed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        self.drive(connection.with_upgrades());
        Ok(Dialed::Http1(sender))
    }

    async fn http2<S>(&self, stream: S) -> io::Result<Dialed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        self.drive(connection);
        Ok(Dialed::Http2(sender))
    }

    /// Runs a connection until it is closed. It ends with the requests that are on it, so it is not
    /// told to stop: what stops are the connections of clients.
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        self.tasks.spawn("proxy-upstream", OnExit::Log, |_| async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an endpoint ended");
            }
            Ok(())
        });
    }
}
