//! The client side of the keeper: a blocking call per request over one connection.
//!
//! For callers with an event loop of their own, the socket (`AsFd`), [`Client::send`] and
//! [`Client::receive`] are there; nothing here starts threads or needs a runtime.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    net::{SocketFlags, sockopt},
};

use crate::{
    Namespaces,
    wire::{self, Failure, Reply, Request},
};

/// How long a call waits for its answer. The keeper answers in microseconds; one that is stopped
/// or swapped out for this long is treated as dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the active keeper.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keeper refused or failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The keeper is gone: the connection is of no more use.
    #[error("the keeper is gone")]
    Closed,
    /// The answer was not one to the request: the connection is of no more use.
    #[error("the keeper answered `{got:?}` to `{asked}`")]
    Protocol {
        /// The request.
        asked: &'static str,
        /// What came.
        got: Box<Reply>,
    },
    /// The socket failed.
    #[error("cannot talk to the keeper")]
    Io(#[from] io::Error),
}

impl Error {
    /// The keeper's own account of the failure, if there is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(it) => Some(it),
            Self::Closed | Self::Protocol { .. } | Self::Io(_) => None,
        }
    }
}

impl Client {
    /// Connects to the keeper of a run folder.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: there is no keeper.
    pub fn connect(run_dir: &Path) -> io::Result<Self> {
        let socket = wire::socket(SocketFlags::empty())?;
        let (address, _dir) = wire::address(run_dir, wire::SOCKET)?;
        rustix::net::connect(&socket, &address)?;
        Self::from_socket(socket)
    }

    /// Wraps a connected socket.
    ///
    /// # Errors
    /// If `socket` is not a socket.
    pub fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        for which in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, which, Some(CALL_TIMEOUT))?;
        }
        Ok(Self { socket })
    }

    /// The namespaces the keeper holds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn namespaces(&mut self) -> Result<Namespaces, Error> {
        let (reply, fds) = self.call(&Request::Namespaces)?;
        let Reply::Namespaces { rootless } = reply else {
            return Err(unexpected("namespaces", reply));
        };
        Namespaces::from_fds(rootless, fds)
            .ok_or_else(|| unexpected("namespaces", Reply::Namespaces { rootless }))
    }

    /// A TCP listener on the host's side.
    ///
    /// # Errors
    /// `AddressInUse`, `AddressNotAvailable` or `PermissionDenied` in the [`Failure`], whose
    /// message names the address and, as far as it can be seen, who uses it.
    pub fn listen(&mut self, address: SocketAddr) -> Result<OwnedFd, Error> {
        self.socket(&Request::Listen { address }, "listen")
    }

    /// A TCP connection from the host's side: non-blocking and possibly still in progress, so
    /// await writability and read `SO_ERROR`.
    ///
    /// # Errors
    /// What `connect` says at once, such as an unreachable network.
    pub fn connect_tcp(&mut self, address: SocketAddr) -> Result<OwnedFd, Error> {
        self.socket(&Request::ConnectTcp { address }, "connect_tcp")
    }

    /// A connected, non-blocking UDP socket on the host's side.
    ///
    /// # Errors
    /// What `connect` says at once, such as an unreachable network.
    pub fn connect_udp(&mut self, address: SocketAddr) -> Result<OwnedFd, Error> {
        self.socket(&Request::ConnectUdp { address }, "connect_udp")
    }

    /// A connected, non-blocking socket on the host's side for echo requests (ping) and their answers: one
    /// of the kernel's for pings (`SOCK_DGRAM`), or a raw one.
    ///
    /// # Errors
    /// `PermissionDenied`: the machine lets this user have neither. Also what `connect` says at once. A keeper
    /// that was started by an older version does not know the request, or that of IPv6, and says so.
    pub fn connect_icmp(&mut self, address: IpAddr) -> Result<OwnedFd, Error> {
        self.socket(&Request::ConnectIcmp { address }, "connect_icmp")
    }

    /// A non-blocking UDP socket on the host's side that hears what comes to `address`.
    ///
    /// # Errors
    /// The address is in use, is none of this machine, or the user may not. A keeper that was started
    /// by an older version does not know the request, and says so.
    pub fn bind_udp(&mut self, address: SocketAddr) -> Result<OwnedFd, Error> {
        self.socket(&Request::BindUdp { address }, "bind_udp")
    }

    /// Starts a process that is on the host's network but in the user and mount namespace otherwise: what
    /// has once left the host's network cannot go back without root. `program` is executed with
    /// `arguments`, the first of which is its name, and without environment. It is a child of the keeper,
    /// which nobody waits for.
    ///
    /// # Errors
    /// When no process can be started. That the program cannot be executed is said on its `stderr`.
    pub fn spawn(
        &mut self,
        arguments: Vec<String>,
        program: BorrowedFd<'_>,
        stdin: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let request = Request::Spawn { arguments };
        match call(&self.socket, &request, &[program, stdin, stderr])?.0 {
            Reply::Spawned => Ok(()),
            reply => Err(unexpected("spawn", reply)),
        }
    }

    /// A new standby: a process on the host's side that becomes the keeper when this one dies.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn standby(&mut self) -> Result<Standby, Error> {
        let (reply, fds) = self.call(&Request::Standby)?;
        match (reply, fds.into_iter().next()) {
            (Reply::Standby, Some(socket)) => Ok(Standby(Self::from_socket(socket)?)),
            (reply, _) => Err(unexpected("standby", reply)),
        }
    }

    /// The keeper's process id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ping(&mut self) -> Result<u32, Error> {
        match self.call(&Request::Ping)?.0 {
            Reply::Pong { pid } => Ok(pid),
            reply => Err(unexpected("ping", reply)),
        }
    }

    /// Ends the keeper; when this returns, another can take its place. Namespaces that no process is
    /// in any more vanish with it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn exit(mut self) -> Result<(), Error> {
        match self.call(&Request::Exit)?.0 {
            // It closes what it listens on first, and this connection then.
            Reply::Exiting => match wire::receive::<Reply>(&self.socket) {
                Ok(None) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Ok(Some((reply, _))) => Err(unexpected("exit", reply)),
                Err(error) => Err(error.into()),
            },
            reply => Err(unexpected("exit", reply)),
        }
    }

    /// Whether the keeper is gone. To be told instead of asking, poll the socket: it becomes
    /// readable.
    #[must_use]
    pub fn closed(&self) -> bool {
        is_closed(&self.socket)
    }

    /// Sends a request without awaiting its answer; answers come in the order of requests.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        wire::send(&self.socket, request, &[])
    }

    /// The next answer with its descriptors; `None` when the keeper is gone.
    ///
    /// # Errors
    /// Those of the socket: `WouldBlock` if the caller made it non-blocking.
    pub fn receive(&mut self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        wire::receive(&self.socket)
    }

    fn socket(&mut self, request: &Request, asked: &'static str) -> Result<OwnedFd, Error> {
        let (reply, fds) = self.call(request)?;
        match (reply, fds.into_iter().next()) {
            (Reply::Socket, Some(socket)) => Ok(socket),
            (reply, _) => Err(unexpected(asked, reply)),
        }
    }

    fn call(&mut self, request: &Request) -> Result<(Reply, Vec<OwnedFd>), Error> {
        call(&self.socket, request, &[])
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The connection to a standby keeper. Dropping it ends the standby.
#[derive(Debug)]
pub struct Standby(Client);

impl Standby {
    /// Another standby like this one: whoever has it before [`Standby::take_over`] is prepared for
    /// the next keeper's death from its first moment.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn standby(&mut self) -> Result<Self, Error> {
        self.0.standby()
    }

    /// Makes the standby the active keeper of `namespaces`, once the former keeper is dead.
    ///
    /// # Errors
    /// `AnotherKeeper` if the former is alive or another was started meanwhile: connect to it.
    pub fn take_over(self, namespaces: &Namespaces) -> Result<Client, Error> {
        let mut client = self.0;
        let fds: Vec<BorrowedFd<'_>> = namespaces.fds().collect();
        let request = Request::TakeOver { rootless: namespaces.user.is_some() };
        match call(&client.socket, &request, &fds)?.0 {
            Reply::Ready { .. } => {}
            reply => return Err(unexpected("take_over", reply)),
        }
        client.ping()?;
        Ok(client)
    }

    /// Whether the standby is gone: get another with [`Client::standby`].
    #[must_use]
    pub fn closed(&self) -> bool {
        self.0.closed()
    }
}

impl AsFd for Standby {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Awaits the first message of a spawned keeper.
pub(crate) fn await_ready(client: &mut Client) -> Result<u32, Error> {
    match client.receive()? {
        Some((Reply::Ready { pid }, _)) => Ok(pid),
        Some((Reply::Failed(failure), _)) => Err(failure.into()),
        Some((reply, _)) => Err(unexpected("spawn", reply)),
        None => Err(Error::Closed),
    }
}

fn call(
    socket: &OwnedFd,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Reply, Vec<OwnedFd>), Error> {
    match wire::send(socket, request, fds) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Error::Closed),
        other => other?,
    }
    match wire::receive(socket)? {
        Some((Reply::Failed(failure), _)) => Err(failure.into()),
        Some(answer) => Ok(answer),
        None => Err(Error::Closed),
    }
}

fn unexpected(asked: &'static str, got: Reply) -> Error {
    Error::Protocol { asked, got: Box::new(got) }
}

fn is_closed(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(_) => fds.iter().any(|it| it.revents().intersects(PollFlags::HUP | PollFlags::ERR)),
        Err(_) => false,
    }
}
