//! Network namespaces: making them and doing things inside.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    sync::OnceLock,
    thread,
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, ipproto},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::sys;

/// An address outside the cluster that only the namespace called host has.
pub(crate) const OUTSIDE: &str = "198.51.100.7";
/// The same of IPv6.
pub(crate) const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// What takes longer than this did not happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

static HOST: OnceLock<OwnedFd> = OnceLock::new();

/// The namespace that plays the host.
pub(crate) fn host() -> &'static OwnedFd {
    HOST.get().unwrap()
}

/// Moves this process, which has one thread, into new namespaces: first one that plays the host,
/// then one for the cluster. An ordinary user needs a user namespace for it.
pub(crate) fn enter_new() {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if user.is_root() {
        sys::unshare(UnshareFlags::NEWNET).unwrap();
    } else {
        sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).unwrap();
        let (user, group) = (user.as_raw(), group.as_raw());
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).unwrap();
    }
    sys::set_up_loopback("lo", "127.0.0.1".parse().unwrap()).unwrap();
    sys::set_up_loopback("lo:1", OUTSIDE.parse().unwrap()).unwrap();
    sys::add_to_loopback(OUTSIDE_V6).unwrap();
    HOST.set(current()).unwrap();
    sys::unshare(UnshareFlags::NEWNET).unwrap();
}

fn current() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

/// A connected socket for echo requests in the namespace of this thread.
pub(crate) fn icmp(kind: SocketType, to: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = rustix::net::socket(family, kind, Some(protocol))?;
    rustix::net::connect(&socket, &SocketAddr::from((to, 0)))?;
    Ok(socket)
}

/// Asks for an echo of `data`, under a number that the kernel chooses; what comes back.
pub(crate) fn ping(netns: &OwnedFd, to: &str, sequence: u8, data: &[u8]) -> io::Result<Vec<u8>> {
    let to: IpAddr = to.parse().unwrap();
    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let socket = UdpSocket::from(inside(netns, || icmp(SocketType::DGRAM, to)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(&[&[request, 0, 0, 0, 0, 0, 0, sequence], data].concat())?;
    let mut answer = vec![0; 2048];
    let length = socket.recv(&mut answer)?;
    let (kind, answered) = (answer[0], answer[7]);
    assert_eq!((kind, answered), (reply, sequence));
    Ok(answer[8..length].to_vec())
}

/// A new network namespace; it lives as long as somebody has it or is in it.
pub(crate) fn new() -> OwnedFd {
    let make = || {
        sys::unshare(UnshareFlags::NEWNET).unwrap();
        current()
    };
    thread::spawn(make).join().unwrap()
}

/// Does something inside a network namespace.
pub(crate) fn inside<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let there = || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        scope.spawn(there).join().unwrap()
    })
}

/// Serves TCP inside a network namespace for ever: each client is told `name` and its own address.
pub(crate) fn serve(netns: &OwnedFd, port: u16, name: &'static str) {
    let listener = inside(netns, || TcpListener::bind(("::", port)).unwrap());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            answer(client, name);
        }
    });
}

fn answer(mut client: TcpStream, name: &str) {
    let peer = client.peer_addr().unwrap().ip().to_canonical();
    // A client that is gone does not matter.
    drop(write!(client, "{name} {peer}"));
}

/// Answers every datagram with `name`, for ever.
pub(crate) fn serve_udp(netns: &OwnedFd, port: u16, name: &'static str) {
    let socket = inside(netns, || UdpSocket::bind(("::", port)).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(name.as_bytes(), client));
        }
    });
}

/// Connects from inside a namespace and reads what there is to read.
pub(crate) fn ask(netns: &OwnedFd, address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    inside(netns, || read(address))
}

/// Connects from the namespace of the calling thread and reads what there is to read.
pub(crate) fn read(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A UDP socket inside a namespace whose peer is `address`.
pub(crate) fn udp(netns: &OwnedFd, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    inside(netns, || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Sends a datagram and reads one.
pub(crate) fn exchange(socket: &UdpSocket, message: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(message)?;
    let mut buffer = vec![0; 4096];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// A UDP socket at an address that need not be one of this namespace.
pub(crate) fn bind_any(at: SocketAddr) -> io::Result<UdpSocket> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::DGRAM, None)?;
    rustix::net::sockopt::set_ipv6_freebind(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    Ok(socket.into())
}
