//! Tells pods that a packet did not arrive: ICMP errors, which the kernel would have sent had it known.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::icmp::{self, Echo, Reason};
use crate::family::IpFamily;

/// A socket that may send them.
#[derive(Debug)]
pub(super) struct Refusals(OwnedFd);

impl Refusals {
    pub(super) fn open(family: IpFamily) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, icmp) = match family {
            IpFamily::V4 => (AddressFamily::INET, ipproto::ICMP),
            IpFamily::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        Ok(Self(socket_with(family, SocketType::RAW, flags, Some(icmp))?))
    }

    /// Says that a UDP packet of `pod` did not get to `target`.
    pub(super) fn of_datagram(&self, pod: SocketAddr, target: SocketAddr, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused => Reason::Port,
            _ => Reason::Prohibited,
        };
        self.send(pod.ip(), &icmp::of_datagram(reason, pod, target));
    }

    /// Says that an echo request of `pod` did not get to `target`.
    pub(super) fn of_echo(&self, pod: IpAddr, target: IpAddr, echo: Echo<'_>, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::HostUnreachable => Reason::Host,
            _ => Reason::Prohibited,
        };
        self.send(pod, &icmp::of_echo(reason, (pod, target), echo));
    }

    fn send(&self, pod: IpAddr, message: &[u8]) {
        let sent = sendto(&self.0, message, SendFlags::empty(), &SocketAddr::new(pod, 0));
        if let Err(error) = sent {
            // It waits for an answer instead.
            tracing::debug!(%pod, %error, "a pod is not told that its packet is lost");
        }
    }
}
