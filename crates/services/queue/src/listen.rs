//! Where a server listens: a TCP address or a Unix socket, and the streams that come from there.
//!
//! As in the original, an address that is `host:port` is TCP and anything else is the path of a
//! Unix socket. An empty host means every address of the machine, of both families.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host},
};

/// Connections that wait to be taken in: as many as the kernel allows unless it was told otherwise, and
/// what the original asks for. Of more the kernel forgets some, which try again a second later: with the
/// usual 128, ten thousand clients that come at once take half a minute.
const WAITING_MAX: u32 = 4096;

/// A bound address. Dropping it frees the address; a Unix socket's file goes too.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of a Unix socket.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// Whether an address is `host:port`; everything else names a Unix socket.
#[must_use]
pub fn is_tcp(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    let bracketed = bare.len() != host.len();
    port.bytes().all(|it| it.is_ascii_digit()) && (bracketed || !bare.contains([':', '/']))
}

/// Listens at a TCP address, which is `host:port`, or `:port` for every address of this machine.
///
/// # Errors
/// If the host has no address, or the address is taken or not allowed.
pub(crate) async fn tcp(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else { return tcp_at(address).await };
    let no_ipv6 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    match tcp_at(&format!("[::]:{port}")).await {
        Err(error) if error.raw_os_error() == Some(no_ipv6) => {
            tcp_at(&format!("0.0.0.0:{port}")).await
        }
        bound => bound,
    }
}

/// Listens at the first address of a host that can be had.
async fn tcp_at(address: &str) -> io::Result<TcpListener> {
    let mut failed = None;
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let listens = socket.and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(WAITING_MAX)
        });
        match listens {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")))
}

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// If the host has no address, the address is taken or not allowed, or another server is alive
    /// on the Unix socket. A socket file that nobody serves is replaced.
    pub async fn bind(address: &str) -> io::Result<Self> {
        if !is_tcp(address) {
            return Self::bind_unix(Path::new(address)).await;
        }
        tcp(address).await.map(Self::Tcp)
    }

    async fn bind_unix(path: &Path) -> io::Result<Self> {
        let bound = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let dead = UnixStream::connect(path).await.err();
                if dead.is_none_or(|it| it.kind() != io::ErrorKind::ConnectionRefused) {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        Ok(Self::Unix(bound, SocketFile(path.to_owned())))
    }

    /// The address and port of a TCP listener; `None` for a Unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Where it is, for the log.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Tcp(_) => self.tcp_address().map_or_else(String::new, |it| it.to_string()),
            Self::Unix(_, file) => file.0.display().to_string(),
        }
    }

    /// The next connection and its other end; `0.0.0.0:0` if that is on a Unix socket.
    ///
    /// # Errors
    /// If the kernel has none to give, mostly because this process has too many files open; the
    /// caller waits and tries again.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), peer))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), SocketAddr::from(([0, 0, 0, 0], 0))))
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

macro_rules! of_either {
    ($stream:expr, $pinned:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp(stream) => {
                let $pinned = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $pinned = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self, it => it.poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, it => it.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, it => it.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, it => it.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, it => it.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_tcp_from_unix() {
        for tcp in ["127.0.0.1:80", "test:80", "[::1%lo0]:80", ":4151", "0.0.0.0:0"] {
            assert!(is_tcp(tcp), "{tcp}");
        }
        for unix in ["/var/run/nsqd.sock", "nsqd.sock", "::1", "a:b", "/run/a:80"] {
            assert!(!is_tcp(unix), "{unix}");
        }
    }

    #[tokio::test]
    async fn replaces_a_dead_socket_but_not_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nsqd.sock");
        let address = path.to_str().unwrap();
        // Closed without removing its file: what a killed server leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(address).await.unwrap();
        assert_eq!(Listener::bind(address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn many_may_wait_to_be_taken_in() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.tcp_address().unwrap();
        // More than the 128 that are usual; none is taken in meanwhile.
        let mut waiting = Vec::new();
        for _ in 0..500 {
            let connecting = TcpStream::connect(address);
            let connected = tokio::time::timeout(std::time::Duration::from_secs(10), connecting);
            waiting.push(connected.await.unwrap().unwrap());
        }
        for _ in 0..waiting.len() {
            listener.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_empty_host_is_every_address() {
        let listener = Listener::bind(":0").await.unwrap();
        let port = listener.tcp_address().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_stream, peer) = listener.accept().await.unwrap();
        assert!(peer.ip().to_canonical().is_loopback(), "{peer}");
    }
}
