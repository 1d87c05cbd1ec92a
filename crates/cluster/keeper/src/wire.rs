//! What the keeper and its clients say to each other: one JSON message per `SOCK_SEQPACKET` packet,
//! answers in the order of the requests, file descriptors beside them by `SCM_RIGHTS`.
//!
//! Owns the messages and their transport; does not know what the keeper does with them.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The keeper's socket inside the run folder.
pub const SOCKET: &str = "keeper.sock";
/// Locked as long as a keeper is active, so that there is never a second one.
pub const LOCK: &str = "keeper.lock";

/// Longest message, in bytes: addresses and error texts, far below the smallest socket buffer. A
/// longer one is refused by the sender and an error for the receiver.
pub const MESSAGE_MAX: usize = 16 * 1024;

/// Most file descriptors beside one message: user, mount and network namespace, or what a process
/// is started with.
pub const FDS_MAX: usize = 3;

/// Longest path that fits `sockaddr_un`, with its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The namespaces the keeper holds. Answer: `Namespaces`.
    Namespaces,
    /// A TCP listener on the host's side. Answer: `Socket`.
    Listen {
        /// Address and port on the host.
        address: SocketAddr,
    },
    /// A TCP connection from the host's side, non-blocking and possibly still in progress: await
    /// writability and read `SO_ERROR`. Answer: `Socket`.
    ConnectTcp {
        /// Where to.
        address: SocketAddr,
    },
    /// A connected, non-blocking UDP socket on the host's side. Answer: `Socket`.
    ConnectUdp {
        /// Where to.
        address: SocketAddr,
    },
    /// A connected, non-blocking socket on the host's side for echo requests and their answers. Answer: `Socket`.
    ConnectIcmp {
        /// Where to.
        address: IpAddr,
    },
    /// A UDP socket on the host's side that hears what comes to an address. Answer: `Socket`.
    BindUdp {
        /// Address and port on the host.
        address: SocketAddr,
    },
    /// A process on the host's network that is otherwise inside: of the user and mount namespace. Beside
    /// it: the program, which may be any that the user can run, its standard input and its standard
    /// error. It gets no environment. Answer: `Spawned`.
    Spawn {
        /// Its command line, the first word of which is its name.
        arguments: Vec<String>,
    },
    /// A new standby, a copy of whom this is said to: the keeper or a standby. Answer: `Standby`.
    Standby,
    /// Answer: `Pong`.
    Ping,
    /// The keeper removes its socket and ends, and with it every namespace that nobody else holds.
    /// Answer: `Exiting`.
    Exit,
    /// To a standby only: become the active keeper of the namespaces sent along (user if
    /// `rootless`, mount, net). Answer: `Ready`.
    TakeOver {
        /// Whether the first descriptor is a user namespace.
        rootless: bool,
    },
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The keeper is active; the first message of a spawned keeper.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// Beside it: user (if `rootless`), mount and network namespace, in this order.
    Namespaces {
        /// Whether there is a user namespace.
        rootless: bool,
    },
    /// Beside it: the socket.
    Socket,
    /// The process was started.
    Spawned,
    /// Beside it: the new standby's control socket.
    Standby,
    /// The keeper lives.
    Pong {
        /// Its process id.
        pid: u32,
    },
    /// The keeper ends.
    Exiting,
    /// The request failed.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The cause, for callers that act on it.
    pub kind: FailureKind,
    /// The system's error number, 0 if there was none.
    pub errno: i32,
    /// For people: names the object, the cause and what to do.
    pub message: String,
}

impl Failure {
    pub(crate) fn bad_request(cause: &str) -> Self {
        Self { kind: FailureKind::BadRequest, errno: 0, message: cause.to_owned() }
    }
}

/// What a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Somebody else listens on the address.
    AddressInUse,
    /// The machine has no such address.
    AddressNotAvailable,
    /// The user may not (ports below 1024, files of another user).
    PermissionDenied,
    /// The host forbids user namespaces.
    NamespacesForbidden,
    /// A limit of the host is reached.
    LimitReached,
    /// Another keeper is active for this run folder.
    AnotherKeeper,
    /// The request makes no sense here or now.
    BadRequest,
    /// Anything else the system said: see `errno`.
    Other,
}

/// Sends one message with descriptors beside it.
///
/// # Errors
/// `MSGSIZE` if the message is too long, and those of `sendmsg`.
pub fn send<M: Serialize>(
    socket: impl AsFd,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if MESSAGE_MAX < bytes.len() || FDS_MAX < fds.len() {
        return Err(Errno::MSGSIZE.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; `None` when the other side is gone.
///
/// # Errors
/// `InvalidData` for a message that is not one of `M`, and those of `recvmsg` (`WouldBlock` on a
/// non-blocking socket, or after the socket's timeout).
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let received = match received {
        Ok(it) => it,
        Err(Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let fds = control
        .drain()
        .flat_map(|it| match it {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        })
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let bytes = bytes.get(..received.bytes).unwrap_or_default();
    let message = serde_json::from_slice(bytes)?;
    Ok(Some((message, fds)))
}

/// A connected pair of sockets of the kind the keeper speaks on.
///
/// # Errors
/// Those of `socketpair`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// An unconnected socket of the kind the keeper speaks on.
pub(crate) fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// The address of a socket in a folder, and what must stay open while it is used: a path too long
/// for `sockaddr_un` is reached through the folder's descriptor.
pub(crate) fn address(dir: &Path, name: &str) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    let path = dir.join(name);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((SocketAddrUnix::new(&path)?, None));
    }
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = through(&dir).join(name);
    Ok((SocketAddrUnix::new(&path)?, Some(dir)))
}

/// The path that names what an open descriptor of this process refers to.
pub(crate) fn through(fd: impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_descriptors_arrive_together() {
        let (left, right) = pair().unwrap();
        let (pipe, _write) = rustix::pipe::pipe().unwrap();
        let sent = Request::Listen { address: "127.0.0.1:80".parse().unwrap() };
        send(&left, &sent, &[pipe.as_fd()]).unwrap();
        send(&left, &Request::Ping, &[]).unwrap();
        let (message, fds) = receive::<Request>(&right).unwrap().unwrap();
        assert_eq!((message, fds.len()), (sent, 1));
        let (message, fds) = receive::<Request>(&right).unwrap().unwrap();
        assert_eq!((message, fds.len()), (Request::Ping, 0));
        drop(left);
        assert!(receive::<Request>(&right).unwrap().is_none());
    }

    /// Before there was IPv6 the message was the same.
    #[test]
    fn echo_requests_are_of_either_family() {
        let (left, right) = pair().unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let text = serde_json::json!({"call": "connect_icmp", "address": address});
            send(&left, &text, &[]).unwrap();
            let (message, _) = receive::<Request>(&right).unwrap().unwrap();
            assert_eq!(message, Request::ConnectIcmp { address: address.parse().unwrap() });
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let (left, right) = pair().unwrap();
        send(&left, &"hello", &[]).unwrap();
        assert_eq!(receive::<Request>(&right).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let long = "x".repeat(MESSAGE_MAX);
        assert!(send(&left, &long, &[]).is_err());
    }

    #[test]
    fn long_socket_path_goes_through_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = socket(SocketFlags::empty()).unwrap();
        let (at, _dir) = address(&deep, SOCKET).unwrap();
        rustix::net::bind(&listener, &at).unwrap();
        assert!(deep.join(SOCKET).exists());
    }
}
