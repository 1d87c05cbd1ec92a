//! The way to the host's network: sockets that another process makes on the host's side.

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

/// Makes sockets in the host's network namespace.
pub trait HostSockets: fmt::Debug + Send + Sync {
    /// A TCP socket that listens at `at`. An address in use is [`io::ErrorKind::AddrInUse`], one that the
    /// user may not have [`io::ErrorKind::PermissionDenied`].
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>>;

    /// A connection to what listens on port `port` of the host's `127.0.0.1`.
    fn connect(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>>;
}
