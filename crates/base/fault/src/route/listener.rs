//! A listening socket that can stop listening and go on later with the same port.

use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, getsockname,
        ipproto, listen, shutdown, socket_with, sockopt,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
};

use crate::resolve;

/// Connections that wait to be accepted: what the kernel allows at most by default
/// (`net.core.somaxconn`). Beyond it the kernel lets clients try again after a second.
const BACKLOG: i32 = 4096;

/// Pause after an error of accept that is not the client's, such as no descriptor left: it cannot go
/// better at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket, listening or not.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// Binds the first address of `address` that can be bound.
    pub(super) fn bind(address: &str) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in resolve::addresses(address)? {
            match bound(address) {
                Ok(socket) => return Ok(Self(socket)),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(getsockname(&self.0)?)?)
    }

    /// Begins to listen.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        listen(&self.0, BACKLOG)?;
        // A descriptor of its own: it is watched only while there is something to accept.
        let watched = runtime::watch_descriptor(self.0.try_clone()?, Interest::READABLE)?;
        Ok(Accepted { socket: watched })
    }

    /// Stops listening: new connections are refused, and the port stays taken. Those that wait to be
    /// accepted are reset. Harmless if it does not listen.
    pub(super) fn refuse(&self) {
        match shutdown(&self.0, Shutdown::Read) {
            Ok(()) | Err(Errno::NOTCONN) => {}
            Err(error) => tracing::error!(%error, "stop listening"),
        }
    }
}

/// A socket bound to `address`, which keeps its port when it stops listening: the kernel lets go of a
/// port that it chose itself, so a free one is found with a first socket and named for the second.
fn bound(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = || {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::io::Result::Ok(socket)
    };
    let first = socket()?;
    bind(&first, &address)?;
    if address.port() != 0 {
        return Ok(first);
    }
    let chosen = SocketAddr::try_from(getsockname(&first)?)?;
    let second = socket()?;
    bind(&second, &chosen)?;
    Ok(second)
}

/// Connections as they come.
#[derive(Debug)]
pub(super) struct Accepted {
    socket: AsyncFd<OwnedFd>,
}

impl Accepted {
    /// The next connection.
    pub(super) async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let mut ready = self.socket.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match acceptfrom_with(self.socket.get_ref(), flags) {
                Ok((client, Some(address))) => {
                    let client = TcpStream::from_std(StdStream::from(client))?;
                    return Ok((client, SocketAddr::try_from(address)?));
                }
                Ok((_, None)) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => ready.clear_ready(),
                // It was told to stop listening, and whoever did that ends this task.
                Err(Errno::INVAL) => return std::future::pending().await,
                Err(error) => {
                    tracing::warn!(%error, "accept a connection; it waits");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
