//! The network of the cluster: addresses of pods, load balancing of Services, names, and the way to
//! the host and back.
//!
//! Lives in a network namespace of its own, which the process has entered before any thread began;
//! nothing of the host's network is touched. Whatever has to last is in the kernel (links, routes,
//! nftables tables), so traffic goes on while the process is away, and a restart takes it over.
//! It does not know how pods are made, and does not choose a Service's endpoints or address.

mod addresses;
mod family;
mod ranges;
mod setup;
mod sys;
mod sysctl;

mod netlink;
mod nft;

mod directory;
mod disturb;
mod dns;
mod host_ports;
mod pods;
mod policy;
mod services;

mod egress;
mod host;
mod host_routes;
mod proxy;
mod publish;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use client::{Caches, Client, Events};
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;
use runtime::{OnExit, Tasks};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub use addresses::{Addresses, Prefix, Subnet, SubnetError};
pub use disturb::{Disturbance, Impairment};
pub use dns::{ResolvConf, name_servers};
pub use host::HostSockets;
pub use host_routes::{HostRoutes, Keeping, forget};
pub use netlink::Error as NetlinkError;
pub use pods::AttachError;
pub use ranges::{Taken, Wish, WishError, choose};

use disturb::Disturber;
use dns::{Follower, Resolver, Upstream};
use egress::{Exits, Targets};
use family::IpFamily;
use host::Outside;
use nft::{Layout, Table, policy::PolicyTable};
use pods::Pods;
use policy::{Attached, Enforced};
use publish::Publisher;
use services::{Routed, Services};

/// Port of the gateway address at which the cluster serves the Kubernetes API to pods. The Service
/// `default/kubernetes` leads there.
pub const API_PORT: u16 = 6443;

/// How the network is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ranges of pods and Services.
    pub addresses: Addresses,
    /// TCP ports of the gateway address that the cluster serves itself, besides [`API_PORT`]. All
    /// others are the host's.
    pub local_ports: Vec<u16>,
    /// The host's `/etc/resolv.conf`, which is followed: who is asked for names outside the cluster, and
    /// the search domains that pods get besides the cluster's.
    pub host_resolv_conf: PathBuf,
}

impl Config {
    fn layout(&self, family: IpFamily, addresses: Addresses) -> Arc<Layout> {
        let local_ports = self.local_ports.iter().copied().chain([API_PORT]).collect();
        Arc::new(Layout { family, addresses, egress_port: egress::PORT, local_ports })
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel refused a part of it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// An address of the cluster cannot be served.
    #[error("cannot listen at `{address}` in the cluster's network")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The network, as others use it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    addresses: Addresses,
    /// The range of the pods that are connected through this handle.
    part: Subnet,
    pods: Arc<Pods>,
    attached: Attached,
    enforced: Enforced,
    disturber: Arc<Disturber>,
    routed: Routed,
    resolver: dns::Current,
    sockets: Arc<dyn HostSockets>,
}

/// The network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

impl Network {
    /// Prepares the network namespace of the calling thread, takes over what is in it, and starts
    /// to follow Services and EndpointSlices. Blocks for a few milliseconds; must be called inside
    /// a tokio runtime.
    pub fn build(
        config: &Config,
        caches: &Caches,
        (client, events): (Client, Events),
        sockets: Arc<dyn HostSockets>,
        tasks: &Tasks,
    ) -> Result<Handle, BuildError> {
        let addresses = config.addresses;
        setup::prepare(&addresses)?;
        let (pods, found) = Pods::adopt(addresses)?;
        let (pods, attached) = (Arc::new(pods), Attached::new(found));
        let leaving = Arc::clone(&pods);
        tasks.spawn("links", OnExit::StopProcess, |stop| leaving.remove_leaving(stop));
        let policies = PolicyTable::open(egress::PORT, &addresses)?;
        let disturber = Arc::new(Disturber::open(addresses, attached.clone())?);
        let enforced = policy::start(policies, addresses.dns(), attached.clone(), caches, tasks);
        let (follower, resolver_of_host) = Follower::new(config.host_resolv_conf.clone());
        tasks.spawn("resolv-conf", OnExit::Log, |stop| follower.run(stop));

        let dns_address = SocketAddr::from((addresses.dns(), dns::PORT));
        let (dns_udp, dns_tcp) = (bind_udp(dns_address)?, listen(dns_address)?);

        let (mut families, mut ways_out, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        for (family, addresses) in IpFamily::all(&addresses) {
            let layout = config.layout(family, addresses);
            let (exits, directory) =
                (Exits::open(&layout)?, directory::Shared::new(family, addresses));
            families.push(services(&layout, &directory, tasks)?);
            ways_out.push((exits, Targets::new(directory.clone(), layout)));
            directories.push(directory);
        }
        let routed = services::start(families, caches, tasks);
        egress::start(ways_out, &sockets, tasks);
        let choice = dns::follow(caches, addresses.dns(), events.clone(), tasks);
        let asked = (resolver_of_host.clone(), choice);
        let upstream = Upstream::new(asked, Arc::clone(&sockets), addresses);
        let directory = directories.swap_remove(0);
        let six = directories.pop();
        let resolver = Arc::new(Resolver { directory, six, addresses, upstream });
        start_dns((dns_udp, dns_tcp), &resolver, &routed, tasks);

        let publisher =
            Publisher::new(addresses, Arc::clone(&sockets), (client, events), tasks.clone());
        let published = (caches.of::<Service>().subscribe(), host_ports::asking(caches));
        tasks.spawn("publisher", OnExit::StopProcess, |stop| {
            publisher.run(published.0, published.1, stop)
        });
        let resolver = resolver_of_host;
        let part = addresses.part(0);
        let handle = Handle {
            addresses,
            part,
            pods,
            attached,
            enforced,
            disturber,
            routed,
            resolver,
            sockets,
        };
        Ok(handle)
    }
}

impl Handle {
    /// The network of another node: the same, but that pods have addresses of that node's part. The node's
    /// own address is there from then on. Blocks for some microseconds.
    ///
    /// # Errors
    /// The kernel refuses the address.
    pub fn on_node(&self, node: u32) -> Result<Self, NetlinkError> {
        setup::add_node(&self.addresses, node)?;
        Ok(Self { part: self.addresses.part(node), ..self.clone() })
    }

    /// Connects the pod `uid`, whose network namespace is `netns`, and returns its address once
    /// NetworkPolicies are in force there. May be repeated; a pod that is connected keeps its link and
    /// address, also over a restart of this process.
    pub async fn attach(&self, uid: &str, netns: OwnedFd) -> Result<Ipv4Addr, AttachError> {
        let (pods, owner, part) = (Arc::clone(&self.pods), uid.to_owned(), self.part);
        let disturber = Arc::clone(&self.disturber);
        let attached = tokio::task::spawn_blocking(move || {
            let address = pods.attach(&owner, &netns, part)?;
            disturber.attached(address)?;
            Ok::<_, AttachError>(address)
        });
        let attached = attached.await;
        let address = attached.unwrap_or_else(|panic| {
            Err(NetlinkError::new("connect the pod", io::Error::other(panic)).into())
        })?;
        self.enforce(uid, address).await?;
        Ok(address)
    }

    /// Waits until what NetworkPolicies say of a pod is in force.
    async fn enforce(&self, uid: &str, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.attached.set(uid, Some(address));
        let enforced = self.enforced.at(uid, address).await;
        enforced.map_err(|late| {
            NetlinkError::new("restrict the pod to what policies allow", io::Error::other(late))
        })
    }

    /// Connects a network namespace that has no pod yet; returns what stands in place of the uid, and
    /// the address. It is gone when this process ends, unless a pod has taken it over.
    pub async fn attach_spare(&self, netns: OwnedFd) -> Result<(String, Ipv4Addr), AttachError> {
        let (pods, part) = (Arc::clone(&self.pods), self.part);
        let attached = tokio::task::spawn_blocking(move || pods.attach_spare(&netns, part)).await;
        attached.unwrap_or_else(|panic| {
            Err(NetlinkError::new("connect a namespace", io::Error::other(panic)).into())
        })
    }

    /// Makes what was connected as `spare` the pod `uid`'s, and returns once NetworkPolicies are in force
    /// there. If that fails, the pod is not connected.
    pub async fn take_over(&self, spare: &str, uid: &str) -> Result<(), NetlinkError> {
        let (pods, spare, owner) = (Arc::clone(&self.pods), spare.to_owned(), uid.to_owned());
        let address = services::blocking(move || pods.take_over(&spare, &owner)).await?;
        if let Err(error) = self.enforce(uid, address).await {
            self.detach(uid).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Disconnects the pod `uid`. Its link is removed, and its address free, some 20 ms later. Fine if
    /// it is not connected.
    pub async fn detach(&self, uid: &str) -> Result<(), NetlinkError> {
        let (pods, owner) = (Arc::clone(&self.pods), uid.to_owned());
        services::blocking(move || pods.detach(&owner)).await?;
        let Some(address) = self.attached.address(uid) else { return Ok(()) };
        self.attached.set(uid, None);
        let disturber = Arc::clone(&self.disturber);
        services::blocking(move || disturber.forget(address)).await
    }

    /// Makes this all that is wrong with traffic, in place of what was; nothing: all is undone. Once it
    /// returns, packets are treated so. A pod that is disconnected is forgotten, and one that gets its
    /// address is not disturbed; a restart of this process begins undisturbed.
    ///
    /// # Errors
    /// The kernel refuses something. Then some of it may be in force, and a later call makes it good.
    pub async fn disturb(&self, all: Vec<Disturbance>) -> Result<(), NetlinkError> {
        let disturber = Arc::clone(&self.disturber);
        services::blocking(move || disturber.disturb(all)).await
    }

    /// Connects to what listens on port `port` of the host's `127.0.0.1`, or else of its `::1`.
    ///
    /// # Errors
    /// `ConnectionRefused` if nothing does, and whatever else a connection fails of.
    pub fn connect_host(&self, port: u16) -> BoxFuture<'static, io::Result<TcpStream>> {
        let sockets = Arc::clone(&self.sockets);
        Box::pin(async move { host::connect(&*sockets, Outside::Host(port)).await })
    }

    /// Waits until no Service leads new connections to `address` as to a ready endpoint. Endpoints
    /// that are on their way out and used for want of others do not count.
    pub async fn unrouted(&self, address: Ipv4Addr) {
        self.routed.clone().without(address).await;
    }

    /// Waits until Services are routed and NetworkPolicies are in force as the API describes them, for
    /// the first time since this process began.
    pub async fn synced(&self) {
        self.routed.clone().synced().await;
        self.enforced.synced().await;
    }

    /// Where everything is.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Name servers and search domains of the host, as they are now.
    #[must_use]
    pub fn host_resolver(&self) -> Arc<ResolvConf> {
        Arc::clone(&self.resolver.borrow())
    }
}

/// What routes Services of a family, with the table that is there or made.
fn services(
    layout: &Arc<Layout>,
    directory: &directory::Shared,
    tasks: &Tasks,
) -> Result<Services, NetlinkError> {
    let api = SocketAddrV4::new(layout.addresses.gateway(), API_PORT);
    let (table, layout) = (Table::open(layout)?, (api, Arc::clone(layout)));
    Ok(Services::new(table, directory.clone(), layout, tasks))
}

/// Questions wait in the sockets until the directory is complete: a wrong "no such name" would be
/// remembered by clients.
fn start_dns(
    (udp, tcp): (UdpSocket, TcpListener),
    resolver: &Arc<Resolver>,
    routed: &Routed,
    tasks: &Tasks,
) {
    let (mut synced, resolver_, tasks_) = (routed.clone(), Arc::clone(resolver), tasks.clone());
    tasks.spawn("dns-udp", OnExit::StopProcess, |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = synced.synced() => {}
        }
        dns::serve_udp(udp, resolver_, tasks_, stop).await
    });
    let (mut synced, resolver, tasks_) = (routed.clone(), Arc::clone(resolver), tasks.clone());
    tasks.spawn("dns-tcp", OnExit::StopProcess, |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = synced.synced() => {}
        }
        dns::serve_tcp(tcp, resolver, tasks_, stop).await
    });
}

fn listen(address: SocketAddr) -> Result<TcpListener, BuildError> {
    let listener = std::net::TcpListener::bind(address).and_then(|it| {
        it.set_nonblocking(true)?;
        TcpListener::from_std(it)
    });
    listener.map_err(|source| BuildError::Listen { address, source })
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BuildError> {
    let socket = std::net::UdpSocket::bind(address).and_then(|it| {
        it.set_nonblocking(true)?;
        UdpSocket::from_std(it)
    });
    socket.map_err(|source| BuildError::Listen { address, source })
}
