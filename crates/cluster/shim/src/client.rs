//! The client side of a shim: a blocking call per request over one connection.
//!
//! For callers with an event loop, the socket (`AsFd`), [`Client::send`] and
//! [`Client::receive`] are there; nothing here starts threads or needs a runtime.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::SocketFlags;

use crate::{
    files,
    wire::{
        self, ContainerSpec, Decoder, ExecSpec, Exit, Failure, Finished, PodSpec, ProcessSpec,
        Reply, Request, StartError, Status,
    },
};

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    decoder: Decoder,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container or process could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The shim refused or failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The shim is gone, and with it the pod's containers.
    #[error("the shim is gone")]
    Closed,
    /// The answer was not one to the request: the connection is of no more use.
    #[error("the shim answered `{got:?}` to `{asked}`")]
    Protocol {
        /// The request.
        asked: &'static str,
        /// What came.
        got: Box<Reply>,
    },
    /// The socket failed.
    #[error("cannot talk to the shim")]
    Io(#[from] io::Error),
}

/// A container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Process id, seen from the host.
    pub pid: u32,
    /// When, RFC 3339 with nanoseconds.
    pub started_at: String,
}

impl Client {
    /// Connects to the shim of a pod's run folder.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: there is no shim.
    pub fn connect(dir: &Path) -> io::Result<Self> {
        Ok(Self::from_socket(connect(dir)?))
    }

    /// Wraps a connected socket.
    #[must_use]
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default() }
    }

    /// Awaits that a new shim, asked for with [`crate::Nursery::spare`], has made its namespaces;
    /// returns its process id and the network namespace, whose loopback device is down.
    ///
    /// # Errors
    /// `Failed`: why there is no shim.
    pub fn ready(&mut self) -> Result<(u32, OwnedFd), Error> {
        match (self.answer()?, self.decoder.take_fd()) {
            (Reply::Ready { pid }, Some(netns)) => Ok((pid, netns)),
            (reply, _) => Err(unexpected("spare", reply)),
        }
    }

    /// Gives a new shim its pod.
    ///
    /// # Errors
    /// `AnotherShim` in `Failed`: connect to that one.
    pub fn pod(&mut self, pod: PodSpec) -> Result<(), Error> {
        self.done("pod", &Request::Pod(pod))
    }

    /// The pod's network namespace.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn netns(&mut self) -> Result<OwnedFd, Error> {
        let reply = self.call(&Request::Netns)?;
        match (reply, self.decoder.take_fd()) {
            (Reply::Netns, Some(netns)) => Ok(netns),
            (reply, _) => Err(unexpected("netns", reply)),
        }
    }

    /// Prepares a container; returns the process id of its first process.
    ///
    /// # Errors
    /// `Start`: what is wrong with the container. `AlreadyExists` in `Failed`.
    pub fn create(&mut self, container: ContainerSpec) -> Result<u32, Error> {
        match self.call(&Request::Create(container))? {
            Reply::Created { pid } => Ok(pid),
            reply => Err(unexpected("create", reply)),
        }
    }

    /// Runs a created container's process.
    ///
    /// # Errors
    /// `Start`: what is wrong with the process; the container is gone then, without an exit.
    pub fn start(&mut self, id: &str, process: ProcessSpec) -> Result<Started, Error> {
        match self.call(&Request::Start { id: id.to_owned(), process })? {
            Reply::Started { pid, started_at } => Ok(Started { pid, started_at }),
            reply => Err(unexpected("start", reply)),
        }
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// `NotFound` or `WrongState` in `Failed`.
    pub fn signal(&mut self, id: &str, signal: i32) -> Result<(), Error> {
        self.done("signal", &Request::Signal { id: id.to_owned(), signal })
    }

    /// Sends a signal now and SIGKILL to the whole container after the grace period; does not await
    /// the end.
    ///
    /// # Errors
    /// `NotFound` in `Failed`; stopping one that has exited is no error.
    pub fn stop(&mut self, id: &str, signal: i32, grace_ms: u64) -> Result<(), Error> {
        self.done("stop", &Request::Stop { id: id.to_owned(), signal, grace_ms })
    }

    /// Forgets a container that has exited.
    ///
    /// # Errors
    /// `WrongState` in `Failed`, if it runs; one that is not there is no error.
    pub fn remove(&mut self, id: &str) -> Result<(), Error> {
        self.done("remove", &Request::Remove { id: id.to_owned() })
    }

    /// Starts a process in a running container with the given standard input, output and error;
    /// returns its process id. Await its end with [`Client::finished`]; dropping the client before
    /// kills it.
    ///
    /// # Errors
    /// `Start`: what is wrong with the process.
    pub fn exec(&mut self, exec: ExecSpec, stdio: [BorrowedFd<'_>; 3]) -> Result<u32, Error> {
        self.exec_with("exec", ExecSpec { output_max: None, ..exec }, &stdio)
    }

    /// Runs a process in a running container to its end, with the first `output_max` bytes of its
    /// output and error: what an exec probe does.
    ///
    /// # Errors
    /// `Start`: what is wrong with the process.
    pub fn exec_captured(&mut self, exec: ExecSpec, output_max: u32) -> Result<Finished, Error> {
        let exec = ExecSpec { output_max: Some(output_max), ..exec };
        self.exec_with("exec_captured", exec, &[])?;
        self.finished()
    }

    /// Awaits the end of the process started last with [`Client::exec`].
    ///
    /// # Errors
    /// `Closed`, if the shim died, and the process with it.
    pub fn finished(&mut self) -> Result<Finished, Error> {
        match self.answer()? {
            Reply::Finished(finished) => Ok(finished),
            reply => Err(unexpected("finished", reply)),
        }
    }

    /// What the shim knows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status(&mut self) -> Result<Status, Error> {
        match self.call(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            reply => Err(unexpected("status", reply)),
        }
    }

    /// Makes this connection one that is told of exits: those that were first, then each as it
    /// happens. Read them with [`Client::exited`].
    ///
    /// # Errors
    /// Those of the socket.
    pub fn subscribe(&mut self) -> Result<(), Error> {
        Ok(self.send(&Request::Subscribe, &[])?)
    }

    /// Awaits the next exit after [`Client::subscribe`].
    ///
    /// # Errors
    /// `Closed`, if the shim died; `Io` with `WouldBlock` if the caller made the socket
    /// non-blocking.
    pub fn exited(&mut self) -> Result<Exit, Error> {
        match self.answer()? {
            Reply::Exited(exit) => Ok(exit),
            reply => Err(unexpected("exited", reply)),
        }
    }

    /// Ends the shim.
    ///
    /// # Errors
    /// `WrongState` in `Failed`, while a container runs.
    pub fn exit(mut self) -> Result<(), Error> {
        self.done("exit", &Request::Exit)
    }

    /// Sends a request without awaiting its answer; answers come in the order of requests.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.socket, request, fds)
    }

    /// The next answer; `None` when the shim is gone.
    ///
    /// # Errors
    /// Those of the socket: `WouldBlock` if the caller made it non-blocking; call again when it is
    /// readable.
    pub fn receive(&mut self) -> io::Result<Option<Reply>> {
        wire::receive(&self.socket, &mut self.decoder)
    }

    /// The oldest descriptor that came with an answer and was not yet taken.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.decoder.take_fd()
    }

    fn exec_with(
        &mut self,
        asked: &'static str,
        exec: ExecSpec,
        stdio: &[BorrowedFd<'_>],
    ) -> Result<u32, Error> {
        self.send_call(&Request::Exec(exec), stdio)?;
        match self.answer()? {
            Reply::Executed { pid } => Ok(pid),
            reply => Err(unexpected(asked, reply)),
        }
    }

    fn done(&mut self, asked: &'static str, request: &Request) -> Result<(), Error> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            reply => Err(unexpected(asked, reply)),
        }
    }

    fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        self.send_call(request, &[])?;
        self.answer()
    }

    fn send_call(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        match self.send(request, fds) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Closed),
            other => Ok(other?),
        }
    }

    pub(crate) fn answer(&mut self) -> Result<Reply, Error> {
        match self.receive()? {
            Some(Reply::StartFailed(error)) => Err(error.into()),
            Some(Reply::Failed(failure)) => Err(failure.into()),
            Some(reply) => Ok(reply),
            None => Err(Error::Closed),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket connected to the shim of a pod's run folder, for callers with transport of their own
/// ([`wire::encode`], [`Decoder`]).
///
/// # Errors
/// `NotFound` or `ConnectionRefused`: there is no shim.
pub fn connect(dir: &Path) -> io::Result<OwnedFd> {
    let socket = files::socket(SocketFlags::empty())?;
    let (address, _dir) = files::address(dir)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn unexpected(asked: &'static str, got: Reply) -> Error {
    Error::Protocol { asked, got: Box::new(got) }
}
