//! TCP from pods to the host and the world, and to Services whose endpoints are on the host: the kernel
//! leads such connections to this listener, and each is joined to one that is made on the host's side.
//!
//! The pod sees its connection accepted before the other one is made, so a refusal reaches it as a
//! reset right after. UDP is passed on by `datagrams`, echo requests by `echoes`. What is neither does not
//! leave the cluster: a route prohibits it, at once.

mod datagrams;
mod echoes;
mod icmp;
mod refusals;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::{OnExit, Room, Tasks};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    BuildError, directory,
    family::IpFamily,
    host::{self, HostSockets, Outside},
    netlink,
    nft::{Frontend, Layout, Transport},
    proxy,
    services::{self, Place},
};

/// Port of the gateway address to which the rules lead. A pod that connects to it itself is led
/// here like to any other port, so it is no secret and no loop.
pub(crate) const PORT: u16 = 15001;

/// Connections at a time; the next one waits in the backlog. Where the process may not have as many descriptors,
/// its [`Room`] ends before.
const CONNECTIONS_MAX: usize = 16_384;
/// Descriptors of one: its own, and that of the other side.
const DESCRIPTORS: u32 = 2;

/// Wait when no descriptor is left, which `accept` would report again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What pods' targets are on the host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    directory: directory::Shared,
    layout: Arc<Layout>,
    /// Counts connections to Services, so that their endpoints take turns.
    turns: Arc<AtomicUsize>,
}

impl Targets {
    pub(crate) fn new(directory: directory::Shared, layout: Arc<Layout>) -> Self {
        Self { directory, layout, turns: Arc::default() }
    }

    /// Where a connection to `target` goes on the host; none if a Service leads there no more.
    fn on_host(&self, target: SocketAddr) -> Option<Outside> {
        let Layout { family, addresses, .. } = &*self.layout;
        let Some(low) = family.low(target.ip()) else { return Some(Outside::World(target)) };
        let directory = self.directory.read();
        let at = Frontend { address: low, transport: Transport::Tcp, port: target.port() };
        let place = Place::of(&directory, at);
        if place.service.is_none() && !addresses.services.contains(low) {
            return Some(on_host(target, &self.layout));
        }
        let endpoints = services::outside(&place, &self.layout);
        let turn = self.turns.fetch_add(1, Ordering::Relaxed).checked_rem(endpoints.len())?;
        let endpoint = endpoints.get(turn)?;
        let endpoint = SocketAddr::new(family.at(*endpoint.ip()), endpoint.port());
        Some(on_host(endpoint, &self.layout))
    }
}

/// What hears that pods leave by addresses of a family.
#[derive(Debug)]
pub(crate) struct Exits {
    connections: TcpListener,
    datagrams: UdpSocket,
    echoes: echoes::Sockets,
}

impl Exits {
    /// Opens them, before any rule leads there.
    pub(crate) fn open(layout: &Layout) -> Result<Self, BuildError> {
        let to = layout.egress();
        let address = SocketAddr::new(layout.family.at(*to.ip()), to.port());
        let datagrams = datagrams::open(address);
        let datagrams = datagrams.map_err(|source| BuildError::Listen { address, source })?;
        let echoes = echoes::open(layout.family)
            .map_err(|it| netlink::Error::new("hear echo requests", it))?;
        Ok(Self { connections: crate::listen(address)?, datagrams, echoes })
    }
}

/// What the ways out have in common.
#[derive(Clone, Debug)]
struct Way {
    layout: Arc<Layout>,
    sockets: Arc<dyn HostSockets>,
    tasks: Tasks,
}

/// Lets pods out. The limits are for all families together.
pub(crate) fn start(
    families: Vec<(Exits, Targets)>,
    sockets: &Arc<dyn HostSockets>,
    tasks: &Tasks,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (flows, pings) = (datagrams::Known::default(), echoes::Known::default());
    for (exits, targets) in families {
        let layout = Arc::clone(&targets.layout);
        let way = Way { layout, sockets: Arc::clone(sockets), tasks: tasks.clone() };
        let (ways, slots) = ([way.clone(), way.clone(), way], Arc::clone(&slots));
        let [of_connections, of_datagrams, of_echoes] = ways;
        let (flows, pings) = (Arc::clone(&flows), Arc::clone(&pings));
        tasks.spawn("egress", OnExit::StopProcess, |stop| {
            serve((exits.connections, slots), targets, of_connections, stop)
        });
        tasks.spawn("egress-datagrams", OnExit::StopProcess, |stop| {
            datagrams::serve(exits.datagrams, flows, of_datagrams, stop)
        });
        tasks.spawn("egress-echo-requests", OnExit::StopProcess, |stop| {
            echoes::serve(exits.echoes, pings, of_echoes, stop)
        });
    }
}

/// Takes connections until `stop`.
async fn serve(
    (listener, slots): (TcpListener, Arc<Semaphore>),
    targets: Targets,
    Way { sockets, tasks, .. }: Way,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let room = Room::of_process();
    loop {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            slot = Arc::clone(&slots).acquire_owned() => slot?,
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, pod) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection from a pod not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            taken = room.take(DESCRIPTORS) => taken,
        };
        let (sockets, targets) = (Arc::clone(&sockets), targets.clone());
        tasks.spawn("egress-connection", OnExit::Log, |stop| async move {
            let _place = (slot, taken);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = connect(stream, &targets, &*sockets) => if let Err(error) = ended {
                    tracing::debug!(%pod, %error, "connection to the outside ended");
                },
            }
            Ok(())
        });
    }
}

async fn connect(pod: TcpStream, targets: &Targets, sockets: &dyn HostSockets) -> io::Result<()> {
    let target = match targets.layout.family {
        IpFamily::V4 => SocketAddr::V4(sockopt::ip_original_dst(&pod)?),
        IpFamily::V6(_) => SocketAddr::V6(sockopt::ipv6_original_dst(&pod)?),
    };
    let outside = match targets.on_host(target) {
        Some(outside) => host::connect(sockets, outside).await,
        None => Err(io::ErrorKind::ConnectionRefused.into()),
    };
    match outside {
        Ok(outside) => proxy::join(pod, outside).await,
        Err(error) => {
            proxy::reset(pod);
            Err(error)
        }
    }
}

/// What a pod's target is on the host: the addresses of nodes, of which the gateway is the first, stand for
/// the host itself.
fn on_host(target: SocketAddr, layout: &Layout) -> Outside {
    match layout.family.low(target.ip()) {
        Some(low) if layout.addresses.is_node(low) => Outside::Host(target.port()),
        _ => Outside::World(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::{Addresses, Prefix};

    #[test]
    fn nodes_are_the_host() {
        let prefix = Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a]);
        let both = Addresses { v6: Some(prefix), ..Addresses::default() };
        let families = IpFamily::all(&both).into_iter().map(|(family, addresses)| Layout {
            family,
            addresses,
            egress_port: PORT,
            local_ports: Vec::new(),
        });
        let [four, six] = families.collect::<Vec<_>>().try_into().unwrap();
        for (layout, target, host) in [
            (&four, "10.244.0.1:5432", true),
            (&four, "10.244.16.1:5432", true),
            (&four, "192.0.2.1:80", false),
            (&six, "[fd12:3456:789a::af4:1]:5432", true),
            (&six, "[fd12:3456:789a::af4:1001]:5432", true),
            (&six, "[fd12:3456:789b::af4:1]:5432", false),
            (&six, "[2001:db8::1]:80", false),
        ] {
            let target: SocketAddr = target.parse().unwrap();
            let expected = if host { Outside::Host(target.port()) } else { Outside::World(target) };
            assert_eq!(on_host(target, layout), expected);
        }
    }
}
