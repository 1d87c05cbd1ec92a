//! From a port of the host to a Service in here. TCP: each connection is joined to one of ours. UDP:
//! each client has a socket of ours for as long as it says something.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{OnExit, Room, Tasks};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::proxy;

/// Connections of one published port at a time; the next one waits in the backlog. As many as pods may have to
/// the world. Where the process may not have as many descriptors, its [`Room`] ends before.
const CONNECTIONS_MAX: usize = 16_384;
/// Descriptors of one: its own, and that of the other side.
const DESCRIPTORS: u32 = 2;
/// Wait when no descriptor is left, which `accept` would report again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Clients of one published UDP port at a time; packets of others are lost.
const CLIENTS_MAX: usize = 1024;
/// A client that has said and heard nothing for so long is forgotten: what the kernel's own tables
/// give a flow in both directions (`nf_conntrack_udp_timeout_stream`).
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// The largest UDP packet.
const PACKET_MAX: usize = 65_535;

/// Takes TCP connections for ever.
pub(super) async fn tcp(listener: OwnedFd, target: SocketAddr, tasks: Tasks) -> anyhow::Result<()> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (slots, room) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Room::of_process());
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection to a published port not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let taken = room.take(DESCRIPTORS).await;
        tasks.spawn("published-connection", OnExit::Log, |stop| async move {
            let _place = (slot, taken);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = connect(stream, target) => if let Err(error) = ended {
                    tracing::debug!(%target, %error, "published connection ended");
                },
            }
            Ok(())
        });
    }
}

/// The rules lead a connection from here to an endpoint, or refuse it if there is none.
async fn connect(stream: TcpStream, target: SocketAddr) -> io::Result<()> {
    match TcpStream::connect(target).await {
        Ok(inside) => proxy::join(stream, inside).await,
        Err(error) => {
            proxy::reset(stream);
            Err(error)
        }
    }
}

/// Any address and port from which a peer can be asked.
fn any(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A UDP port and its clients.
#[derive(Clone, Debug)]
struct Port {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    /// Each with its socket in here.
    clients: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>,
    end: CancellationToken,
}

/// Takes UDP packets until `end`, when it must be dropped; then its clients are forgotten too.
pub(super) async fn udp(
    socket: OwnedFd,
    target: SocketAddr,
    end: CancellationToken,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let port = Port { socket, target, clients: Arc::default(), end };
    let mut packet = vec![0; PACKET_MAX];
    loop {
        // An error belongs to an answer sent before: its client is gone.
        let Ok((length, client)) = port.socket.recv_from(&mut packet).await else { continue };
        let packet = packet.get(..length).unwrap_or_default();
        if let Err(error) = port.forward(packet, client, &tasks).await {
            tracing::debug!(%client, %target, %error, "published packet lost");
        }
    }
}

impl Port {
    async fn forward(&self, packet: &[u8], client: SocketAddr, tasks: &Tasks) -> io::Result<()> {
        let known = self.clients().get(&client).map(Arc::clone);
        let inside = match known {
            Some(inside) => inside,
            None => self.begin(client, tasks).await?,
        };
        inside.send(packet).await.map(drop)
    }

    /// A socket for a new client, whose answers go back to it.
    async fn begin(&self, client: SocketAddr, tasks: &Tasks) -> io::Result<Arc<UdpSocket>> {
        if self.clients().len() >= CLIENTS_MAX {
            return Err(io::Error::other(format!("there are {CLIENTS_MAX} clients already")));
        }
        let inside = Arc::new(UdpSocket::bind(any(self.target)).await?);
        inside.connect(self.target).await?;
        self.clients().insert(client, Arc::clone(&inside));
        let (port, answers) = (self.clone(), Arc::clone(&inside));
        tasks.spawn("published-client", OnExit::Log, |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = port.end.cancelled() => {}
                () = port.answer(client, &answers) => {}
            }
            port.clients().remove(&client);
            Ok(())
        });
        Ok(inside)
    }

    /// Sends a client what it is answered, until there is silence or nobody to answer; its next packet
    /// begins anew.
    async fn answer(&self, client: SocketAddr, inside: &UdpSocket) {
        let mut packet = vec![0; PACKET_MAX];
        while let Ok(Ok(length)) = tokio::time::timeout(SILENCE_MAX, inside.recv(&mut packet)).await
        {
            let answer = packet.get(..length).unwrap_or_default();
            if let Err(error) = self.socket.send_to(answer, client).await {
                tracing::debug!(%client, %error, "answer of a published port lost");
            }
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<UdpSocket>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
