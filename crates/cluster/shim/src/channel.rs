//! The shim's end of the connection to a child that has not yet run its program.

use std::{io, os::fd::AsFd, os::fd::BorrowedFd, os::fd::OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{
    child::Report,
    wire::{self, ContainerSpec, Decoder, ProcessSpec, Stage, StartError},
};

/// The connection to a child.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
}

/// What a child has said.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing yet.
    None,
    /// Its root is made.
    Prepared,
    /// It runs its program, or was killed: then its end is reported as that of any process.
    Closed,
    /// It has ended with this.
    Failed(StartError),
}

impl Channel {
    /// A channel, and its other end for the child.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: ours, decoder: Decoder::default() }, theirs))
    }

    /// Sends the container, and its standard input if it is not empty. The child waits for it, or will
    /// in a moment.
    pub(crate) fn order(
        &self,
        hostname: &str,
        container: &ContainerSpec,
        stdin: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        wire::send(&self.socket, &hostname, &[])?;
        wire::send(&self.socket, container, stdin.as_slice())
    }

    /// What came beside the last message.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.decoder.take_fd()
    }

    /// Sends the process to run, and its seccomp program. The child waits for it, so this does not
    /// block for long.
    pub(crate) fn start(&self, process: &ProcessSpec, seccomp: Option<OwnedFd>) -> io::Result<()> {
        let beside: Vec<BorrowedFd<'_>> = seccomp.iter().map(OwnedFd::as_fd).collect();
        wire::send(&self.socket, process, &beside)
    }

    /// Reads what the child has said; blocks if it has said nothing.
    pub(crate) fn read(&mut self) -> News {
        let open = match self.decoder.fill(&self.socket) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return News::None,
            Err(error) => return failed(&error),
        };
        match self.decoder.message::<Report>() {
            Ok(Some(Report::Prepared)) => News::Prepared,
            Ok(Some(Report::Failed(error))) => News::Failed(error),
            Ok(None) if open => News::None,
            Ok(None) => News::Closed,
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &io::Error) -> News {
    let errno = error.raw_os_error().unwrap_or(0);
    let message = format!("cannot talk to the new process: {error}");
    News::Failed(StartError { stage: Stage::Fork, errno, message })
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
