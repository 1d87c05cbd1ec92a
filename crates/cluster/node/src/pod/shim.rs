//! Talks to a pod's shim without blocking: the shim crate's messages over a tokio socket.
//!
//! A connection carries one request at a time, or, after `Subscribe`, notices without end.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::Path,
};

use shim::{
    Error,
    wire::{Decoder, Reply, Request, encode},
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::UnixStream,
};

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects to the shim of a pod's run folder.
    ///
    /// # Errors
    /// See [`is_absent`] for "there is none".
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::over(shim::connect(dir)?)
    }

    /// Talks over a connected socket.
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, decoder: Decoder::default() })
    }

    /// Asks and awaits the answer; failures of the shim become errors.
    pub(crate) async fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        self.send(request).await?;
        self.answer().await
    }

    /// Asks; the answers are awaited with [`Self::answer`].
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        match self.socket.write_all(&encode(request)?).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Closed),
            other => Ok(other?),
        }
    }

    /// Awaits the next message. Nothing is lost if the future is dropped.
    pub(crate) async fn answer(&mut self) -> Result<Reply, Error> {
        loop {
            if let Some(reply) = self.decoder.message()? {
                return match reply {
                    Reply::StartFailed(error) => Err(error.into()),
                    Reply::Failed(failure) => Err(failure.into()),
                    other => Ok(other),
                };
            }
            let (socket, decoder) = (&self.socket, &mut self.decoder);
            let open = socket.async_io(Interest::READABLE, || decoder.fill(socket)).await?;
            if !open {
                return Err(Error::Closed);
            }
        }
    }

    /// The oldest descriptor that came with an answer.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.decoder.take_fd()
    }
}

/// Whether connecting failed because no shim is there.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// An answer that does not fit its request.
pub(crate) fn unexpected(asked: &'static str, got: Reply) -> Error {
    Error::Protocol { asked, got: Box::new(got) }
}
