//! TCP from pods to the host and the world, and to Services whose endpoints are on the host: the kernel
//! leads such connections to this listener, and each is joined to one that is made on the host's side.
//!
//! The pod sees its connection accepted before the other one is made, so a refusal reaches it as a
//! reset right after. UDP is passed on by `datagrams`, echo requests by `echoes`. What is neither does not
//! leave the cluster: a route prohibits it, at once.

pub(crate) mod datagrams;
pub(crate) mod echoes;
mod icmp;
mod refusals;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::{OnExit, Tasks};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::Addresses,
    directory,
    host::{self, HostSockets},
    nft::{Frontend, Layout, Transport},
    proxy,
    services::{self, Place},
};

/// Port of the gateway address to which the rules lead. A pod that connects to it itself is led
/// here like to any other port, so it is no secret and no loop.
pub(crate) const PORT: u16 = 15001;

/// Connections at a time, two descriptors each; the next one waits in the backlog. Processes are
/// often allowed 20 000 descriptors and no more.
const CONNECTIONS_MAX: usize = 4096;

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
    fn on_host(&self, target: SocketAddrV4) -> Option<SocketAddr> {
        let addresses = self.layout.addresses;
        let directory = self.directory.read();
        let at = Frontend { address: *target.ip(), transport: Transport::Tcp, port: target.port() };
        let place = Place::of(&directory, at);
        if place.service.is_none() && !addresses.services.contains(*target.ip()) {
            return Some(on_host(target, &addresses));
        }
        let endpoints = services::outside(&place, &self.layout);
        let turn = self.turns.fetch_add(1, Ordering::Relaxed).checked_rem(endpoints.len())?;
        Some(on_host(*endpoints.get(turn)?, &addresses))
    }
}

/// Takes connections until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    targets: Targets,
    sockets: Arc<dyn HostSockets>,
    tasks: Tasks,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
        let (sockets, targets) = (Arc::clone(&sockets), targets.clone());
        tasks.spawn("egress-connection", OnExit::Log, |stop| async move {
            let _slot = slot;
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
    let target = sockopt::ip_original_dst(&pod)?;
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
fn on_host(target: SocketAddrV4, addresses: &Addresses) -> SocketAddr {
    let ip = if addresses.is_node(*target.ip()) { Ipv4Addr::LOCALHOST } else { *target.ip() };
    SocketAddrV4::new(ip, target.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_the_host() {
        for (target, expected) in [
            ("10.244.0.1:5432", "127.0.0.1:5432"),
            ("10.244.16.1:5432", "127.0.0.1:5432"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let target = on_host(target.parse().unwrap(), &Addresses::default());
            assert_eq!(target.to_string(), expected);
        }
    }
}
