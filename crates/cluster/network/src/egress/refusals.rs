//! Tells pods that a packet did not arrive: ICMP errors, which the kernel would have sent had it known.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::icmp::{self, Echo};

/// `ICMP_PKT_FILTERED`. That there is no way would be a soft error, for which a client waits in vain.
const PROHIBITED: u8 = 13;
/// `ICMP_PORT_UNREACH`.
const PORT: u8 = 3;
/// `ICMP_HOST_UNREACH`.
const HOST: u8 = 1;

/// A socket that may send them.
#[derive(Debug)]
pub(super) struct Refusals(OwnedFd);

impl Refusals {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let icmp = Some(ipproto::ICMP);
        Ok(Self(socket_with(AddressFamily::INET, SocketType::RAW, flags, icmp)?))
    }

    /// Says that a UDP packet of `pod` did not get to `target`.
    pub(super) fn of_datagram(&self, pod: SocketAddrV4, target: SocketAddrV4, error: &io::Error) {
        let code = match error.kind() {
            io::ErrorKind::ConnectionRefused => PORT,
            _ => PROHIBITED,
        };
        self.send(*pod.ip(), &icmp::of_datagram(code, pod, target));
    }

    /// Says that an echo request of `pod` did not get to `target`.
    pub(super) fn of_echo(
        &self,
        pod: Ipv4Addr,
        target: Ipv4Addr,
        echo: Echo<'_>,
        error: &io::Error,
    ) {
        let code = match error.kind() {
            io::ErrorKind::HostUnreachable => HOST,
            _ => PROHIBITED,
        };
        self.send(pod, &icmp::of_echo(code, pod, target, echo));
    }

    fn send(&self, pod: Ipv4Addr, message: &[u8]) {
        let sent = sendto(&self.0, message, SendFlags::empty(), &SocketAddrV4::new(pod, 0));
        if let Err(error) = sent {
            // It waits for an answer instead.
            tracing::debug!(%pod, %error, "a pod is not told that its packet is lost");
        }
    }
}
