//! Sockets on the host's side, made for processes that are inside the namespaces.
//!
//! The keeper keeps none of them. Failures name the address and, as far as the user may see it,
//! the process that is in the way.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};

use crate::wire::{Failure, FailureKind};

/// Longest queue of connections not yet accepted: the kernel cuts it to `net.core.somaxconn`
/// (4096 by default); more are refused by it, and the clients try again.
const BACKLOG: i32 = 4096;

/// A TCP listener.
pub(crate) fn listen(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let bound = || -> rustix::io::Result<OwnedFd> {
        let socket = socket(address, SocketType::STREAM, SocketFlags::empty())?;
        // Connections of a former listener may linger in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    bound().map_err(|error| {
        let holder = (error == Errno::ADDRINUSE).then(|| holder(address)).flatten();
        failure("listen on", address, error, holder)
    })
}

/// A TCP connection, possibly still in progress.
pub(crate) fn connect_tcp(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let connected = || -> rustix::io::Result<OwnedFd> {
        let socket = socket(address, SocketType::STREAM, SocketFlags::NONBLOCK)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    };
    connected().map_err(|error| failure("connect to", address, error, None))
}

/// A UDP socket at an address.
pub(crate) fn bind_udp(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let bound = || -> rustix::io::Result<OwnedFd> {
        let socket = socket(address, SocketType::DGRAM, SocketFlags::NONBLOCK)?;
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    bound().map_err(|error| failure("hear what comes to", address, error, None))
}

/// A connected UDP socket.
pub(crate) fn connect_udp(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let connected = || -> rustix::io::Result<OwnedFd> {
        let socket = socket(address, SocketType::DGRAM, SocketFlags::NONBLOCK)?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket)
    };
    connected().map_err(|error| failure("send to", address, error, None))
}

/// A connected socket for echo requests. Those of the kernel's for pings are for who is in one of some groups,
/// nobody by default (icmp(7)); root may have a raw one.
pub(crate) fn connect_icmp(address: IpAddr) -> Result<OwnedFd, Failure> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let open = |kind| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        rustix::net::socket_with(family, kind, flags, Some(protocol))
    };
    let refused = |error: Errno| {
        let errno = error.raw_os_error();
        let message = format!(
            "cannot send echo requests to `{address}`: this user may not \
             (root lets everybody by `sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"`)"
        );
        Failure { kind: FailureKind::PermissionDenied, errno, message }
    };
    let to = SocketAddr::from((address, 0));
    let socket = match open(SocketType::DGRAM) {
        Err(Errno::ACCESS | Errno::PERM) => open(SocketType::RAW).map_err(refused)?,
        other => other.map_err(|error| failure("send echo requests to", to, error, None))?,
    };
    rustix::net::connect(&socket, &to)
        .map_err(|error| failure("send echo requests to", to, error, None))?;
    Ok(socket)
}

fn socket(
    address: SocketAddr,
    kind: SocketType,
    flags: SocketFlags,
) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    rustix::net::socket_with(family, kind, flags | SocketFlags::CLOEXEC, None)
}

/// Ports below this one are root's by default.
const PORT_UNPRIVILEGED_MIN: u16 = 1024;

fn failure(what: &str, address: SocketAddr, error: Errno, holder: Option<String>) -> Failure {
    let (kind, cause) = match error {
        Errno::ADDRINUSE => {
            let by = holder.map_or_else(|| "another process".to_owned(), |it| format!("`{it}`"));
            let cause = format!("it is in use by {by}; end that, or choose another port");
            (FailureKind::AddressInUse, cause)
        }
        Errno::ADDRNOTAVAIL => {
            (FailureKind::AddressNotAvailable, "this machine has no such address".to_owned())
        }
        Errno::ACCESS | Errno::PERM if address.port() < PORT_UNPRIVILEGED_MIN => (
            FailureKind::PermissionDenied,
            "ports below 1024 are root's (net.ipv4.ip_unprivileged_port_start); choose a higher one"
                .to_owned(),
        ),
        Errno::ACCESS | Errno::PERM => (FailureKind::PermissionDenied, text(error)),
        Errno::MFILE | Errno::NFILE => (FailureKind::LimitReached, text(error)),
        _ => (FailureKind::Other, text(error)),
    };
    let message = format!("cannot {what} `{address}`: {cause}");
    Failure { kind, errno: error.raw_os_error(), message }
}

fn text(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

/// Who listens on the address: `name (pid N)`, if it is a process the user may look into.
fn holder(address: SocketAddr) -> Option<String> {
    let inode = ["tcp", "tcp6"]
        .iter()
        .filter_map(|it| fs::File::open(format!("/proc/self/net/{it}")).ok())
        .find_map(|it| listener_inode(BufReader::new(it), address.port()))?;
    let wanted = format!("socket:[{inode}]");
    let is_wanted = |it: fs::DirEntry| {
        fs::read_link(it.path()).is_ok_and(|it| it.as_os_str() == wanted.as_str())
    };
    // By number, so that `self` and `thread-self` are not among them.
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes =
        processes.filter_map(|it| it.file_name().to_str().and_then(|it| it.parse::<u32>().ok()));
    let pid = processes.find(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"));
        fds.into_iter().flatten().flatten().any(is_wanted)
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim()))
}

/// The inode of the socket in state LISTEN (0A) on a port, from `/proc/net/tcp`. Line by line: the
/// table of a busy machine is large, and this process keeps for ever what it once needed.
fn listener_inode(table: impl BufRead, port: u16) -> Option<u64> {
    table.lines().map_while(Result::ok).skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let (_, local_port) = local.rsplit_once(':')?;
        let listens = state == "0A" && u16::from_str_radix(local_port, 16) == Ok(port);
        if listens { fields.nth(5)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn used_port_names_its_holder() {
        let other = TcpListener::bind(loopback(0)).unwrap();
        let address = other.local_addr().unwrap();
        let failure = listen(address).unwrap_err();
        assert_eq!(failure.kind, FailureKind::AddressInUse);
        let pid = format!("(pid {})", std::process::id());
        assert!(failure.message.contains(&pid), "{failure}");
        assert!(failure.message.contains(&address.to_string()), "{failure}");
    }

    #[test]
    fn foreign_address_is_named() {
        let failure = listen("203.0.113.1:8080".parse().unwrap()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::AddressNotAvailable);
    }

    #[test]
    fn connection_reaches_a_listener() {
        let listener = TcpListener::from(listen(loopback(0)).unwrap());
        let _socket = connect_tcp(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn datagram_reaches_its_receiver() {
        let receiver = UdpSocket::bind(loopback(0)).unwrap();
        let sender = UdpSocket::from(connect_udp(receiver.local_addr().unwrap()).unwrap());
        sender.send(b"hello").unwrap();
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
    }
}
