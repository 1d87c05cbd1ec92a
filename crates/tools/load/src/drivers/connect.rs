//! Opens connections: address, TCP, TLS, and every way in which that fails by its name. Counts what
//! is open, of all workers together. Speaks no protocol.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use runtime::Names;
use rustix::io::Errno;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::tls;
use crate::{
    exchange::{Failure, FailureKind, Origin},
    plan::{Protocol, Reach, Transport},
};

/// Opens connections for all workers.
#[derive(Debug)]
pub(crate) struct Connector {
    transport: Transport,
    names: Names,
    /// Read once, when it is first needed: the system's certificates take a while.
    tls: OnceLock<Result<Arc<ClientConfig>, tls::Error>>,
    open: AtomicUsize,
    open_max: usize,
}

/// A new connection and how long its making took.
pub(crate) struct Connected {
    /// The connection.
    pub(crate) stream: Stream,
    /// Resolving and TCP.
    pub(crate) connect: Duration,
    /// The TLS handshake.
    pub(crate) tls: Option<Duration>,
}

impl Connector {
    /// A connector that has at most so many connections open.
    ///
    /// # Errors
    ///
    /// Certificates that the transport names cannot be read.
    pub(crate) fn new(transport: Transport, open_max: usize) -> Result<Self, tls::Error> {
        let tls = OnceLock::new();
        if tls::is_named(&transport) {
            drop(tls.set(Ok(tls::config(&transport)?)));
        }
        Ok(Self { transport, names: Names::default(), tls, open: AtomicUsize::new(0), open_max })
    }

    /// Opens a connection.
    pub(crate) async fn connect(self: &Arc<Self>, origin: &Origin) -> Result<Connected, Failure> {
        let permit = self.permit()?;
        let begin = Instant::now();
        let addresses = self.addresses(origin).await?;
        let tcp = open(&addresses, origin).await?;
        let connect = begin.elapsed();
        if !origin.tls {
            let stream = Stream { kind: Kind::Plain(tcp), _permit: permit };
            return Ok(Connected { stream, connect, tls: None });
        }
        let begin = Instant::now();
        let encrypted = self.encrypt(tcp, origin).await?;
        let stream = Stream { kind: Kind::Tls(Box::new(encrypted)), _permit: permit };
        Ok(Connected { stream, connect, tls: Some(begin.elapsed()) })
    }

    fn permit(self: &Arc<Self>) -> Result<Permit, Failure> {
        // The permit is made first, so that its drop takes the count back when there are too many.
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(self));
        if before < self.open_max {
            return Ok(permit);
        }
        let detail = format!("{} are open, which is the limit", self.open_max);
        Err(Failure { kind: FailureKind::Connections, detail })
    }

    /// Addresses of an origin, only those that may be loaded.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, Failure> {
        let addresses = self.names.resolve(&origin.host).await.map_err(|error| Failure {
            kind: FailureKind::Dns,
            detail: format!("`{}`: {error}", origin.host),
        })?;
        if self.transport.reach == Reach::ThisMachine
            && let Some(foreign) = addresses.iter().find(|it| !is_own(**it))
        {
            return Err(Failure {
                kind: FailureKind::Foreign,
                detail: format!("{foreign} is not an address of this machine"),
            });
        }
        Ok(addresses.iter().map(|it| SocketAddr::new(*it, origin.port)).collect())
    }

    async fn encrypt(
        &self,
        tcp: TcpStream,
        origin: &Origin,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let failed = |detail: String| Failure { kind: FailureKind::Tls, detail };
        let config = self
            .tls
            .get_or_init(|| tls::config(&self.transport))
            .as_ref()
            .map_err(|error| failed(error.to_string()))?;
        let name = tls::server_name(&origin.host).map_err(|error| failed(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let (_, session) = stream.get_ref();
        if self.transport.protocol == Protocol::Http2 && session.alpn_protocol() != Some(tls::H2) {
            return Err(failed("the server does not speak HTTP/2 (ALPN `h2`)".to_owned()));
        }
        Ok(stream)
    }
}

/// Connects to the first address that answers.
async fn open(addresses: &[SocketAddr], origin: &Origin) -> Result<TcpStream, Failure> {
    let mut failure =
        Failure { kind: FailureKind::Dns, detail: format!("`{}` has no address", origin.host) };
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A request is handed to the kernel whole; waiting for more would only delay it.
                stream.set_nodelay(true).map_err(|error| name(&error, *address))?;
                return Ok(stream);
            }
            Err(error) => failure = name(&error, *address),
        }
    }
    Err(failure)
}

/// Gives the failure to connect its name.
fn name(error: &io::Error, address: SocketAddr) -> Failure {
    let (kind, detail) = match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            (FailureKind::Descriptors, "no descriptor is left".to_owned())
        }
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => {
            (FailureKind::Ports, format!("no local port is left for {address}"))
        }
        Some(Errno::CONNREFUSED) => (FailureKind::Refused, format!("nobody listens on {address}")),
        _ => (FailureKind::Connect, format!("{address}: {error}")),
    };
    Failure { kind, detail }
}

/// What an error of a connection that was open is counted as. TCP never calls what it brings invalid;
/// TLS does, of an alert too: since TLS 1.3 a client learns only after its handshake that a server
/// does not accept the certificate it showed, or showed none.
pub(super) fn ended(error: &io::Error) -> FailureKind {
    match error.kind() {
        io::ErrorKind::InvalidData => FailureKind::Tls,
        _ => FailureKind::Closed,
    }
}

/// What came of writing; `done` if the other side has ended the connection. Why it has is in what can
/// still be read, an alert that came before the reset, and reading ends in any case.
fn unless_cut<T>(written: io::Result<T>, done: T) -> io::Result<T> {
    match written {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(done)
        }
        other => other,
    }
}

/// Whether an address is one of this machine's: whether a socket may have it as its own, and packets
/// to it would not leave. Sends nothing.
pub(crate) fn is_own(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    // A machine may allow binding to any address; the route then still says where packets go: to an
    // address of one's own they come from that address. The port is of no importance: `discard`.
    let routed = || {
        let socket = std::net::UdpSocket::bind((address, 0))?;
        drop(socket);
        let any: IpAddr =
            if address.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok::<_, io::Error>(socket.local_addr()?.ip())
    };
    routed().is_ok_and(|source| source == address)
}

/// One of the connections that may be open.
#[derive(Debug)]
struct Permit(Arc<Connector>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open connection, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: Kind,
    _permit: Permit,
}

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether there is something to read, without asking the kernel. On a connection that waits
    /// for nothing that is its end, or something that nobody asked for.
    pub(crate) fn is_readable(&self, ctx: &mut Context<'_>) -> bool {
        let tcp = match &self.kind {
            Kind::Plain(stream) => stream,
            Kind::Tls(stream) => stream.get_ref().0,
        };
        tcp.poll_read_ready(ctx).is_ready()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_read(ctx, buffer),
            Kind::Tls(stream) => Pin::new(stream).poll_read(ctx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_write(ctx, bytes),
            Kind::Tls(stream) => {
                Pin::new(stream).poll_write(ctx, bytes).map(|it| unless_cut(it, bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(ctx),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(ctx).map(|it| unless_cut(it, ())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(ctx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(ctx),
        }
    }
}
