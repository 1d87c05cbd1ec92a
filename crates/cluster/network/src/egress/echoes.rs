//! Echo requests (ping) from pods to the world. The kernel marks them and takes them for its own, so a
//! raw socket hears them; the answer that the kernel would give for everybody in the world is discarded by
//! a rule, and what the target says, asked from the host's side, is sent in its name.
//!
//! Whether that side may ask is the machine's decision: root may, others if `net.ipv4.ping_group_range`
//! has one of their groups. If not, the pod is told so.

use std::{
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt,
    sockopt::{Ipv6RecvPacketInfo, Mark},
};
use runtime::OnExit;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt,
};
use tokio::{io::Interest, net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Way,
    icmp::{self, Echo, Kind},
    refusals::Refusals,
};
use crate::{
    family::IpFamily,
    host,
    nft::{ANSWERED_HERE, Layout},
    proxy::with_buffer,
};

/// Who pings whom, at a time; each has a socket. Requests of further ones are refused.
const FLOWS_MAX: usize = 256;
/// After so long without an answer a socket is closed, and the next request gets another one: longer than
/// a way round the world takes, by satellite or over a link that wakes up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The largest packet.
const PACKET_MAX: usize = 65_535;

/// Who asks, under which number, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pod: IpAddr,
    identifier: u16,
    target: IpAddr,
}

/// Who pings whom, of all families.
pub(super) type Known = Arc<Mutex<HashMap<Ends, Arc<Flow>>>>;

/// The host's socket of a flow.
#[derive(Debug)]
pub(super) struct Flow {
    outside: UdpSocket,
    /// It hears answers to others too.
    is_raw: bool,
    /// What requests have there instead of the pod's number. A socket that is not raw replaces it.
    identifier: u16,
}

/// What the flows of a family share.
#[derive(Debug)]
struct Flows {
    way: Way,
    refusals: Refusals,
    answers: OwnedFd,
    known: Known,
    told: AtomicBool,
}

/// The socket that hears requests, and the one that answers them.
#[derive(Debug)]
pub(super) struct Sockets {
    requests: UdpSocket,
    answers: OwnedFd,
}

/// Opens the sockets.
pub(super) fn open(family: IpFamily) -> io::Result<Sockets> {
    let (domain, icmp) = match family {
        IpFamily::V4 => (AddressFamily::INET, ipproto::ICMP),
        IpFamily::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let raw = |protocol| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(domain, SocketType::RAW, flags, Some(protocol))
    };
    // It sends whole packets.
    let answers = raw(ipproto::RAW)?;
    setsockopt(&answers, Mark, &ANSWERED_HERE)?;
    let requests = raw(icmp)?;
    if let IpFamily::V6(_) = family {
        setsockopt(&requests, Ipv6RecvPacketInfo, &true)?;
    }
    Ok(Sockets { requests: packets(requests)?, answers })
}

/// Any socket of packets is used like one of UDP.
fn packets(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Passes requests on until `stop`.
pub(super) async fn serve(
    Sockets { requests, answers }: Sockets,
    known: Known,
    way: Way,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (layout, refusals) = (Arc::clone(&way.layout), Refusals::open(way.layout.family)?);
    let told = AtomicBool::new(false);
    let flows = Arc::new(Flows { way, refusals, answers, known, told });
    let mut packet = vec![0; PACKET_MAX];
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ready = requests.readable() => ready?,
        }
        let heard = requests.try_io(Interest::READABLE, || match layout.family {
            IpFamily::V4 => hear_v4(&requests, &mut packet),
            IpFamily::V6(_) => hear_v6(&requests, &mut packet),
        });
        match heard {
            Ok(heard) => {
                if let Some((ends, echo)) = heard.and_then(|it| request(it, &layout)) {
                    flows.take(ends, echo).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::debug!(%error, "echo request of a pod not received"),
        }
    }
}

/// A message of ICMP with its source and destination.
type Message<'a> = (IpAddr, IpAddr, &'a [u8]);

/// What comes has its header.
fn hear_v4<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> io::Result<Option<Message<'a>>> {
    let length = socket.try_recv(buffer)?;
    Ok(icmp::split_packet(buffer.get(..length).unwrap_or_default()))
}

/// What comes has its addresses beside it.
fn hear_v6<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> io::Result<Option<Message<'a>>> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut into = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let received = recvmsg::<SockaddrIn6>(fd, &mut into, Some(&mut space), flags)?;
    let (length, pod) = (received.bytes, received.address.map(|it| it.ip().into()));
    let target = received.cmsgs()?.find_map(|it| match it {
        ControlMessageOwned::Ipv6PacketInfo(it) => Some(IpAddr::from(it.ipi6_addr.s6_addr)),
        _ => None,
    });
    let message = buffer.get(..length).unwrap_or_default();
    Ok(pod.zip(target).map(|(pod, target)| (pod, target, message)))
}

/// What a pod asks of the world; everything else that the socket hears, the kernel deals with.
fn request<'a>((pod, target, message): Message<'a>, layout: &Layout) -> Option<(Ends, Echo<'a>)> {
    let Layout { family, addresses, .. } = layout;
    let echo = Echo::parse(Kind::Request, pod, message)?;
    let is_pod = |it| family.low(it).is_some_and(|it| addresses.pods.contains(it));
    let is_service = |it| family.low(it).is_some_and(|it| addresses.services.contains(it));
    let ends = Ends { pod, identifier: echo.identifier, target };
    (is_pod(pod) && !is_pod(target) && !is_service(target)).then_some((ends, echo))
}

impl Flows {
    /// Passes on a request, or tells the pod that it cannot be.
    async fn take(self: &Arc<Self>, ends: Ends, echo: Echo<'_>) {
        let Err(error) = self.pass_on(ends, echo).await else { return };
        if error.kind() == io::ErrorKind::PermissionDenied
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "pods cannot ping what is outside of the cluster");
        }
        tracing::debug!(?ends, %error, "echo request of a pod not passed on");
        self.refusals.of_echo(ends.pod, ends.target, echo, &error);
    }

    async fn pass_on(self: &Arc<Self>, ends: Ends, echo: Echo<'_>) -> io::Result<()> {
        let known = self.known().get(&ends).map(Arc::clone);
        let flow = match known {
            Some(flow) => flow,
            None => self.begin(ends).await?,
        };
        let asked = Echo { identifier: flow.identifier, ..echo };
        flow.outside.send(&asked.message(Kind::Request, ends.target)).await.map(drop)
    }

    async fn begin(self: &Arc<Self>, ends: Ends) -> io::Result<Arc<Flow>> {
        if self.known().len() >= FLOWS_MAX {
            return Err(io::Error::other(format!("there are {FLOWS_MAX} that ask already")));
        }
        let outside = self.way.sockets.connect_icmp(ends.target).await?;
        let is_raw = sockopt::socket_type(&outside)? == SocketType::RAW;
        let outside = packets(outside)?;
        // No two of ours are the same at a time, whatever pods choose.
        let taken: Vec<u16> = self.known().values().map(|it| it.identifier).collect();
        let identifier = (1..=u16::MAX).rev().find(|it| !taken.contains(it)).unwrap_or(0);
        let flow = Arc::new(Flow { outside, is_raw, identifier });
        self.known().insert(ends, Arc::clone(&flow));
        let (flows, running) = (Arc::clone(self), Arc::clone(&flow));
        self.way.tasks.spawn("egress-echoes", OnExit::Log, |stop| async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = flows.answer(ends, &running) => ended,
            };
            flows.known().remove(&ends);
            if let Err(error) = ended {
                tracing::debug!(?ends, %error, "echo request was not answered");
                let echo = Echo { identifier: ends.identifier, rest: &[0, 0] };
                flows.refusals.of_echo(ends.pod, ends.target, echo, &error);
            }
            Ok(())
        });
        Ok(flow)
    }

    /// Answers in the target's name until there is silence.
    async fn answer(&self, ends: Ends, flow: &Flow) -> io::Result<()> {
        let mut silent = Instant::now() + SILENCE_MAX;
        loop {
            tokio::select! {
                ready = host::heard(&flow.outside) => ready?,
                () = tokio::time::sleep_until(silent) => return Ok(()),
            }
            let answered = with_buffer(|buffer| match flow.outside.try_recv(buffer) {
                Ok(length) => {
                    let received = buffer.get(..length).unwrap_or_default();
                    let answer = flow.answered(ends.target, received);
                    Ok(answer.map(|it| self.send(ends, it)).is_some())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            })?;
            if answered {
                silent = Instant::now() + SILENCE_MAX;
            }
        }
    }

    fn send(&self, ends: Ends, answer: Echo<'_>) {
        let answer = Echo { identifier: ends.identifier, ..answer };
        let packet = icmp::reply(ends.target, ends.pod, answer);
        let to = SocketAddr::new(ends.pod, 0);
        // What has no room is lost, as everywhere on the way.
        if let Err(error) = sendto(&self.answers, &packet, SendFlags::empty(), &to) {
            tracing::debug!(?ends, %error, "echo reply not passed on");
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Ends, Arc<Flow>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    /// The answer in what was received: a raw socket hears those to others too, and of IPv4 whole packets.
    fn answered<'a>(&self, target: IpAddr, received: &'a [u8]) -> Option<Echo<'a>> {
        let message = match icmp::split_packet(received) {
            Some((_, _, message)) if self.is_raw && target.is_ipv4() => message,
            _ => received,
        };
        let echo = Echo::parse(Kind::Reply, target, message)?;
        (!self.is_raw || echo.identifier == self.identifier).then_some(echo)
    }
}
