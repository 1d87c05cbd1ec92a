//! The way to the host's network: sockets that another process makes on the host's side.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
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
    fn connect_icmp(&self, to: IpAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;

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

/// Somewhere on the host's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// A port of the host itself.
    Host(u16),
    World(SocketAddr),
}

impl Outside {
    /// Where datagrams go. Whether somebody listens is known only after one was sent, so there is one place.
    pub(crate) fn datagrams(self) -> SocketAddr {
        match self {
            Self::Host(port) => (Ipv4Addr::LOCALHOST, port).into(),
            Self::World(target) => target,
        }
    }
}

/// Connects to somewhere from the host and waits until the connection is made. Some programs listen at the
/// host's `::1` alone: they are found where nobody listens at `127.0.0.1`.
pub(crate) async fn connect(sockets: &dyn HostSockets, to: Outside) -> io::Result<TcpStream> {
    match to {
        Outside::World(target) => connect_to(sockets, target).await,
        Outside::Host(port) => {
            match connect_to(sockets, (Ipv4Addr::LOCALHOST, port).into()).await {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    let other = connect_to(sockets, (Ipv6Addr::LOCALHOST, port).into());
                    other.await.map_err(|_| refused)
                }
                other => other,
            }
        }
    }
}

/// Connects to `to` from the host and waits until the connection is made.
async fn connect_to(sockets: &dyn HostSockets, to: SocketAddr) -> io::Result<TcpStream> {
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
