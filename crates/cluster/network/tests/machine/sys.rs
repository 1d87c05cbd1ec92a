//! System calls without a safe wrapper.
#![expect(unsafe_code, reason = "unshare, fork and the interface ioctls have no safe wrapper")]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
};

use rustix::{process::Pid, thread::UnshareFlags};

/// Moves the calling thread (for a user namespace: the process) into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the table of file descriptors stays shared, the one case that is unsafe.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Makes another process; none in that one. The caller has no second thread.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1);
    // SAFETY: no other thread holds a lock that nobody would release in the new process.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    Ok(Pid::from_raw(pid))
}

/// Gives the loopback link, or an alias of it (`lo:1`), an address and sets it up.
pub(crate) fn set_up_loopback(name: &str, address: Ipv4Addr) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap(),
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: `sockaddr_in` and `sockaddr` have the same size, and any bytes are a `sockaddr`.
    request.ifr_ifru.ifru_addr =
        unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    // SAFETY: the request outlives the call and holds an address, as SIOCSIFADDR wants.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw mut request) })?;
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_LOOPBACK).unwrap();
    // SAFETY: the request outlives the call and holds flags, as SIOCSIFFLAGS wants.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
}

/// Gives the loopback link of this thread's namespace one more address, of IPv6.
pub(crate) fn add_to_loopback(address: Ipv6Addr) -> io::Result<()> {
    /// `struct in6_ifreq`.
    #[repr(C)]
    struct Request {
        address: libc::in6_addr,
        prefix: u32,
        index: libc::c_int,
    }
    let socket = std::net::UdpSocket::bind("[::]:0")?;
    let address = libc::in6_addr { s6_addr: address.octets() };
    // The loopback link is the first of every network namespace.
    let mut request = Request { address, prefix: 128, index: 1 };
    // SAFETY: the request outlives the call and is what SIOCSIFADDR wants of a socket of IPv6.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw mut request) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
