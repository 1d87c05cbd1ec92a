//! A client's connection, as the shim sees it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    container::ClientId,
    wire::{self, Decoder, Reply, Request},
};

/// Most bytes a client may send ahead; at more its connection is closed.
const PENDING_MAX: usize = 2 * wire::MESSAGE_MAX;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ClientId,
    socket: OwnedFd,
    decoder: Decoder,
    /// A request is being carried out; further ones wait, so that answers come in order.
    pub(crate) busy: bool,
    /// It is told of exits.
    pub(crate) subscribed: bool,
}

impl Connection {
    /// Wraps a socket, which it makes non-blocking: a client that does not read is dropped, the
    /// shim never waits for one.
    pub(crate) fn new(id: ClientId, socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { id, socket, decoder: Decoder::default(), busy: false, subscribed: false })
    }

    /// Reads once; `false` when the client is gone.
    pub(crate) fn fill(&mut self) -> bool {
        match self.decoder.fill(&self.socket) {
            // More than one whole message while another is carried out: nobody needs that.
            Ok(open) => open && self.decoder.pending() <= PENDING_MAX,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    /// The next request that may be carried out now.
    ///
    /// # Errors
    /// What came is no request: the connection is of no more use.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        if self.busy { Ok(None) } else { self.decoder.message() }
    }

    /// Standard input, output and error that came with a request; `None` if there are not three.
    pub(crate) fn take_stdio(&mut self) -> Option<[OwnedFd; 3]> {
        Some([self.decoder.take_fd()?, self.decoder.take_fd()?, self.decoder.take_fd()?])
    }

    /// Answers; `false` when the client is gone, or does not read.
    pub(crate) fn send(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> bool {
        wire::send(&self.socket, reply, fds).is_ok()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
