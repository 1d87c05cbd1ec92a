//! TCP from pods to the host and the world: the kernel leads such connections to this listener, and
//! each is joined to one that is made on the host's side.
//!
//! The pod sees its connection accepted before the other one is made, so a refusal reaches it as a
//! reset right after. UDP other than DNS, and ICMP, do not leave the cluster: a route prohibits it, at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
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
    host::{self, HostSockets},
    proxy,
};

/// Port of the gateway address to which the rules lead. A pod that connects to it itself is led
/// here like to any other port, so it is no secret and no loop.
pub(crate) const PORT: u16 = 15001;

/// Connections at a time, two descriptors each; the next one waits in the backlog. Processes are
/// often allowed 20 000 descriptors and no more.
const CONNECTIONS_MAX: usize = 4096;

/// Wait when no descriptor is left, which `accept` would report again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Takes connections until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Ipv4Addr,
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
        let sockets = Arc::clone(&sockets);
        tasks.spawn("egress-connection", OnExit::Log, |stop| async move {
            let _slot = slot;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = connect(stream, gateway, &*sockets) => if let Err(error) = ended {
                    tracing::debug!(%pod, %error, "connection to the outside ended");
                },
            }
            Ok(())
        });
    }
}

async fn connect(pod: TcpStream, gateway: Ipv4Addr, sockets: &dyn HostSockets) -> io::Result<()> {
    let target = sockopt::ip_original_dst(&pod)?;
    match host::connect(sockets, on_host(target, gateway)).await {
        Ok(outside) => proxy::join(pod, outside).await,
        Err(error) => {
            proxy::reset(pod);
            Err(error)
        }
    }
}

/// What a pod's target is on the host: the gateway stands for the host itself.
fn on_host(target: SocketAddrV4, gateway: Ipv4Addr) -> SocketAddr {
    let ip = if *target.ip() == gateway { Ipv4Addr::LOCALHOST } else { *target.ip() };
    SocketAddrV4::new(ip, target.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_host() {
        let gateway = Ipv4Addr::new(10, 244, 0, 1);
        for (target, expected) in
            [("10.244.0.1:5432", "127.0.0.1:5432"), ("192.0.2.1:80", "192.0.2.1:80")]
        {
            assert_eq!(on_host(target.parse().unwrap(), gateway).to_string(), expected);
        }
    }
}
