//! The way to the host's network: sockets that another process makes on the host's side.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::Interest,
    net::{TcpStream, UdpSocket},
};

/// How long a connection to the host or beyond may take to come about. Linux itself would try for
/// two minutes; a pod's client has long given up by then.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Makes sockets in the host's network namespace.
pub trait HostSockets: fmt::Debug + Send + Sync {
    /// A TCP socket whose connection is made or on its way; a failure may show only later.
    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;

    /// A UDP socket whose peer is `to`.
    fn connect_udp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;

    /// A socket for echo requests to `to` and their answers: one of the kernel's for pings, which has a
    /// number of its own for them, or a raw one. [`io::ErrorKind::PermissionDenied`] if this user may have
    /// neither.
    fn connect_icmp(&self, to: Ipv4Addr) -> BoxFuture<'_, io::Result<OwnedFd>>;

    /// A UDP socket that hears what comes to `at`. An address in use is [`io::ErrorKind::AddrInUse`].
    fn bind_udp(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;

    /// A TCP socket that listens at `at`. An address in use is [`io::ErrorKind::AddrInUse`].
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;
}

/// Waits until a connected UDP socket has something to say; that nobody listens at the other end is an
/// error, of which `recv` would not hear.
pub(crate) async fn heard(socket: &UdpSocket) -> io::Result<()> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        if ready.is_readable() {
            return Ok(());
        }
        // It was taken before: from here on only another one counts.
        drop(socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
    }
}

/// Connects to `to` from the host and waits until the connection is made.
pub(crate) async fn connect(sockets: &dyn HostSockets, to: SocketAddr) -> io::Result<TcpStream> {
    let connecting = async {
        let stream = std::net::TcpStream::from(sockets.connect_tcp(to).await?);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(io::Error::from).flatten()
}
