//! UDP from pods to the host and the world. The kernel marks such packets, takes them for its own, and
//! gives the first of each flow to one socket (`tproxy`). A flow gets two sockets: one in here that has
//! the address the pod asked, to which the kernel gives what follows, and one on the host's side.
//!
//! So an answer comes from whom the pod asked, and a pod may ask several from one port. What is to a
//! Service whose endpoint is on the host has that one's address here: the kernel exchanges it both ways.
//! Who asks the same program from one port both so and directly is answered as it asked first.

use std::{
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{IpTransparent, Ipv4OrigDstAddr, Ipv6OrigDstAddr, ReuseAddr},
};
use runtime::OnExit;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use tokio::{io::Interest, net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Way, on_host, refusals::Refusals};
use crate::{dns, host, proxy::with_buffer};

/// Flows at a time, two descriptors each: of what the process may open, connections need most. Packets
/// of further flows are lost until one is silent for long enough.
const FLOWS_MAX: usize = 1024;
/// A flow without a packet for so long is forgotten. As long as the pod has not gone on after an answer:
/// `nf_conntrack_udp_timeout`, by which firewalls on the way forget it too.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// When it has: `nf_conntrack_udp_timeout_stream`.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(120);
/// A question to a name server: clients give up after 5 s, and ask from another port.
const NAMES_SILENCE_MAX: Duration = Duration::from_secs(10);
/// The largest UDP packet.
const PACKET_MAX: usize = 65_535;
/// Packets that are passed on before others have their turn.
const PACKETS_IN_TURN: usize = 64;

/// A pod's address and port, and whom it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pod: SocketAddr,
    target: SocketAddr,
}

/// The flows there are, of all families.
pub(super) type Known = Arc<Mutex<HashMap<Ends, Arc<Flow>>>>;

/// The sockets of a flow.
#[derive(Debug)]
pub(super) struct Flow {
    inside: UdpSocket,
    outside: UdpSocket,
}

/// What the flows of a family share.
#[derive(Debug)]
struct Flows {
    way: Way,
    refusals: Refusals,
    known: Known,
}

/// The socket to which the kernel gives the first packet of each flow.
pub(super) fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = transparent(at)?;
    match at {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4OrigDstAddr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6OrigDstAddr, &true)?,
    }
    UdpSocket::from_std(socket.into())
}

/// A socket at any address in the world.
fn transparent(at: SocketAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    // That of IPv4 is that of IPv6 too.
    setsockopt(&socket, IpTransparent, &true)?;
    // Several pods may ask the same.
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(&socket, &at)?;
    Ok(socket)
}

/// Passes packets on until `stop`.
pub(super) async fn serve(
    socket: UdpSocket,
    known: Known,
    way: Way,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let refusals = Refusals::open(way.layout.family)?;
    let flows = Arc::new(Flows { way, refusals, known });
    let mut packet = vec![0; PACKET_MAX];
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ready = socket.readable() => ready?,
        }
        let received = socket.try_io(Interest::READABLE, || receive(&socket, &mut packet));
        match received {
            Ok(Some((length, ends))) => {
                flows.take(ends, packet.get(..length).unwrap_or_default()).await;
            }
            // Without addresses it is nobody's.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::debug!(%error, "packet of a pod not received"),
        }
    }
}

/// A packet and whose it is.
fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<Option<(usize, Ends)>> {
    let mut space = nix::cmsg_space!(libc::sockaddr_in6);
    let mut packet = [IoSliceMut::new(packet)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let received = recvmsg::<SockaddrStorage>(fd, &mut packet, Some(&mut space), flags)?;
    let pod = received.address.and_then(|it| {
        let v4 = it.as_sockaddr_in().map(|it| SocketAddrV4::from(*it).into());
        v4.or_else(|| Some(SocketAddrV6::from(*it.as_sockaddr_in6()?).into()))
    });
    let target = received.cmsgs()?.find_map(|it| match it {
        ControlMessageOwned::Ipv4OrigDstAddr(it) => {
            Some(SocketAddrV4::from(SockaddrIn::from(it)).into())
        }
        ControlMessageOwned::Ipv6OrigDstAddr(it) => {
            Some(SocketAddrV6::from(SockaddrIn6::from(it)).into())
        }
        _ => None,
    });
    Ok(pod.zip(target).map(|(pod, target)| (received.bytes, Ends { pod, target })))
}

impl Flows {
    /// Passes on a packet, or tells the pod that it cannot be.
    async fn take(self: &Arc<Self>, ends: Ends, packet: &[u8]) {
        if let Err(error) = self.begin(ends, packet).await {
            tracing::debug!(?ends, %error, "packet of a pod not passed on");
            self.refusals.of_datagram(ends.pod, ends.target, &error);
        }
    }

    /// Passes on the first packet of a flow, or one that came before its socket was there.
    async fn begin(self: &Arc<Self>, ends: Ends, packet: &[u8]) -> io::Result<()> {
        let known = self.known().get(&ends).map(Arc::clone);
        if let Some(flow) = known {
            return flow.outside.send(packet).await.map(drop);
        }
        if self.known().len() >= FLOWS_MAX {
            return Err(io::Error::other(format!("there are {FLOWS_MAX} flows already")));
        }
        let outside = on_host(ends.target, &self.way.layout).datagrams();
        let outside = self.way.sockets.connect_udp(outside).await?;
        let outside = std::net::UdpSocket::from(outside);
        outside.set_nonblocking(true)?;
        let outside = UdpSocket::from_std(outside)?;
        let inside = transparent(ends.target)?;
        connect(&inside, &ends.pod)?;
        let flow = Arc::new(Flow { inside: UdpSocket::from_std(inside.into())?, outside });
        flow.outside.send(packet).await?;
        self.known().insert(ends, Arc::clone(&flow));
        let flows = Arc::clone(self);
        self.way.tasks.spawn("egress-flow", OnExit::Log, |stop| async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = flow.run(ends.target.port()) => ended,
            };
            flows.known().remove(&ends);
            if let Err(error) = ended {
                tracing::debug!(?ends, %error, "flow to the outside ended");
                flows.refusals.of_datagram(ends.pod, ends.target, &error);
            }
            Ok(())
        });
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Ends, Arc<Flow>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    /// Passes packets both ways until there is silence, or the other side refuses.
    async fn run(&self, port: u16) -> io::Result<()> {
        let (mut answered, mut is_stream) = (false, false);
        let silence = if port == dns::PORT { NAMES_SILENCE_MAX } else { SILENCE_MAX };
        loop {
            let silence = if is_stream { STREAM_SILENCE_MAX } else { silence };
            tokio::select! {
                ready = host::heard(&self.inside) => {
                    ready?;
                    is_stream |= pass(&self.inside, &self.outside)? && answered;
                }
                ready = host::heard(&self.outside) => {
                    ready?;
                    answered |= pass(&self.outside, &self.inside)?;
                }
                () = tokio::time::sleep_until(Instant::now() + silence) => return Ok(()),
            }
        }
    }
}

/// Passes on what is there; whether anything was. What the receiver has no room for is lost, as
/// everywhere on the way.
fn pass(from: &UdpSocket, to: &UdpSocket) -> io::Result<bool> {
    with_buffer(|packet| {
        for count in 0..PACKETS_IN_TURN {
            let length = match from.try_recv(packet) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count > 0),
                Err(error) => return Err(error),
            };
            match to.try_send(packet.get(..length).unwrap_or_default()) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(true)
    })
}
