//! System calls without a safe wrapper: a network namespace for one thread, and sockets for whole frames.
#![expect(
    unsafe_code,
    reason = "unshare, addresses of links and options of packet sockets have no safe wrapper"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::{
    net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    thread::UnshareFlags,
};

/// A link as the address of a packet socket: where frames go, or whose frames it gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkAddress {
    /// The link's number.
    pub(crate) link: u32,
    /// What is in the frames (`ETH_P_*`).
    pub(crate) protocol: u16,
}

// SAFETY: the closure gets a whole `sockaddr_ll`, which lives during the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET.unsigned_abs().try_into().unwrap_or_default(),
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.link.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
        f((&raw const address).cast(), length)
    }
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn enter_new_network() -> io::Result<()> {
    // SAFETY: the table of file descriptors stays shared, the one case that is unsafe.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Has a packet socket put a `struct virtio_net_hdr` before each frame, with what the kernel has left for
/// the network card to do: checksums, cutting into packets.
pub(crate) fn keep_offloads(socket: impl AsFd) -> io::Result<()> {
    const PACKET_VNET_HDR: libc::c_int = 15;
    let on: libc::c_int = 1;
    let length = u32::try_from(size_of_val(&on)).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the value outlives the call and has the length that is given.
    let result = unsafe {
        libc::setsockopt(fd, libc::SOL_PACKET, PACKET_VNET_HDR, (&raw const on).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
