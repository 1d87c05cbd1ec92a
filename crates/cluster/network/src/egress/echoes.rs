//! Echo requests (ping) from pods to the world. The kernel marks them and takes them for its own, so a
//! raw socket hears them; the answer that the kernel would give for everybody in the world is discarded by
//! a rule, and what the target says, asked from the host's side, is sent in its name.
//!
//! Whether that side may ask is the machine's decision: root may, others if `net.ipv4.ping_group_range`
//! has one of their groups. If not, the pod is told so.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::Mark};
use runtime::{OnExit, Tasks};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use tokio::{net::UdpSocket, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    icmp::{self, ECHO_REPLY, ECHO_REQUEST, Echo},
    refusals::Refusals,
};
use crate::{
    addresses::Addresses,
    host::{self, HostSockets},
    nft::ANSWERED_HERE,
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
struct Ends {
    pod: Ipv4Addr,
    identifier: u16,
    target: Ipv4Addr,
}

/// The host's socket of a flow.
#[derive(Debug)]
struct Flow {
    outside: UdpSocket,
    /// What requests have there instead of the pod's number. A socket that is not raw replaces it.
    identifier: u16,
}

/// What all flows share.
#[derive(Debug)]
struct Flows {
    sockets: Arc<dyn HostSockets>,
    refusals: Refusals,
    answers: OwnedFd,
    known: Mutex<HashMap<Ends, Arc<Flow>>>,
    told: AtomicBool,
}

/// The socket that hears requests, and the one that answers them.
#[derive(Debug)]
pub(crate) struct Sockets {
    requests: UdpSocket,
    answers: OwnedFd,
}

/// Opens the sockets.
pub(crate) fn open() -> io::Result<Sockets> {
    let raw = |protocol| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol))
    };
    let answers = raw(ipproto::RAW)?;
    setsockopt(&answers, Mark, &ANSWERED_HERE)?;
    Ok(Sockets { requests: packets(raw(ipproto::ICMP)?)?, answers })
}

/// Any socket of packets is used like one of UDP.
fn packets(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Passes requests on until `stop`.
pub(crate) async fn serve(
    Sockets { requests, answers }: Sockets,
    addresses: Addresses,
    sockets: Arc<dyn HostSockets>,
    tasks: Tasks,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (refusals, known) = (Refusals::open()?, Mutex::default());
    let told = AtomicBool::new(false);
    let flows = Arc::new(Flows { sockets, refusals, answers, known, told });
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            received = requests.recv(&mut packet) => received,
        };
        match received {
            Ok(length) => {
                let packet = packet.get(..length).unwrap_or_default();
                if let Some((ends, echo)) = request(packet, &addresses) {
                    flows.take(ends, echo, &tasks).await;
                }
            }
            Err(error) => tracing::debug!(%error, "echo request of a pod not received"),
        }
    }
}

/// What a pod asks of the world; everything else that the socket hears, the kernel deals with.
fn request<'a>(packet: &'a [u8], addresses: &Addresses) -> Option<(Ends, Echo<'a>)> {
    let (pod, target, message) = icmp::split_packet(packet)?;
    let echo = Echo::parse(ECHO_REQUEST, message)?;
    let is_inside = |it| addresses.pods.contains(it) || addresses.services.contains(it);
    let ends = Ends { pod, identifier: echo.identifier, target };
    (addresses.pods.contains(pod) && !is_inside(target)).then_some((ends, echo))
}

impl Flows {
    /// Passes on a request, or tells the pod that it cannot be.
    async fn take(self: &Arc<Self>, ends: Ends, echo: Echo<'_>, tasks: &Tasks) {
        let Err(error) = self.pass_on(ends, echo, tasks).await else { return };
        if error.kind() == io::ErrorKind::PermissionDenied
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "pods cannot ping what is outside of the cluster");
        }
        tracing::debug!(?ends, %error, "echo request of a pod not passed on");
        self.refusals.of_echo(ends.pod, ends.target, echo, &error);
    }

    async fn pass_on(
        self: &Arc<Self>,
        ends: Ends,
        echo: Echo<'_>,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let known = self.known().get(&ends).map(Arc::clone);
        let flow = match known {
            Some(flow) => flow,
            None => self.begin(ends, tasks).await?,
        };
        let asked = Echo { identifier: flow.identifier, ..echo };
        flow.outside.send(&asked.message(ECHO_REQUEST)).await.map(drop)
    }

    async fn begin(self: &Arc<Self>, ends: Ends, tasks: &Tasks) -> io::Result<Arc<Flow>> {
        if self.known().len() >= FLOWS_MAX {
            return Err(io::Error::other(format!("there are {FLOWS_MAX} that ask already")));
        }
        let outside = packets(self.sockets.connect_icmp(ends.target).await?)?;
        // No two of ours are the same at a time, whatever pods choose.
        let taken: Vec<u16> = self.known().values().map(|it| it.identifier).collect();
        let identifier = (1..=u16::MAX).rev().find(|it| !taken.contains(it)).unwrap_or(0);
        let flow = Arc::new(Flow { outside, identifier });
        self.known().insert(ends, Arc::clone(&flow));
        let (flows, running) = (Arc::clone(self), Arc::clone(&flow));
        tasks.spawn("egress-echoes", OnExit::Log, |stop| async move {
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
                    Ok(flow.answered(received).map(|it| self.send(ends, it)).is_some())
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
        let packet = icmp::packet(ends.target, ends.pod, &answer.message(ECHO_REPLY));
        let to = SocketAddrV4::new(ends.pod, 0);
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
    /// The answer in what was received: a raw socket hears whole packets, and those to others too.
    fn answered<'a>(&self, received: &'a [u8]) -> Option<Echo<'a>> {
        match icmp::split_packet(received) {
            Some((_, _, message)) => {
                Echo::parse(ECHO_REPLY, message).filter(|it| it.identifier == self.identifier)
            }
            None => Echo::parse(ECHO_REPLY, received),
        }
    }
}
