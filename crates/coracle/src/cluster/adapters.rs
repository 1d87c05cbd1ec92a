//! Thin bridges between crates that must not know each other: each implements what one asks for
//! with what another offers, and decides nothing.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    sync::OnceLock,
};

use anyhow::Context as _;
use api::status::{Reason, Status};
use apiserver::{LogRequest, LogStream, NodeConnector};
use futures_util::{StreamExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use runtime::Clock;
use tokio::net::TcpStream;

use super::{
    host::Host,
    nodes::{Loss, Nodes},
};

impl network::HostSockets for Host {
    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { Self::connect_tcp(self, to).map_err(as_io) })
    }

    fn connect_udp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { Self::connect_udp(self, to).map_err(as_io) })
    }

    fn connect_icmp(&self, to: IpAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { Self::connect_icmp(self, to).map_err(as_io) })
    }

    fn bind_udp(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { Self::bind_udp(self, at).map_err(as_io) })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { Self::listen(self, at).map_err(as_io) })
    }
}

/// The host, as the HTTP proxy asks for it.
#[derive(Debug)]
pub(super) struct ProxySockets {
    pub(super) host: Host,
    pub(super) network: network::Handle,
}

impl proxy::HostSockets for ProxySockets {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move { self.host.listen(at).map_err(as_io) })
    }

    fn connect(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.network.connect_host(port)
    }
}

/// The cluster's authority, as the HTTP proxy asks for certificates.
#[derive(Debug)]
pub(super) struct Authority(pub(super) apiserver::Server);

impl proxy::Authority for Authority {
    fn sign_for(&self, hosts: &[String]) -> anyhow::Result<(String, String)> {
        Ok(self.0.sign_for(hosts)?)
    }
}

/// The error number of a port where nobody listens.
const REFUSED: i32 = rustix::io::Errno::CONNREFUSED.raw_os_error();

fn as_io(error: keeper::Error) -> io::Error {
    let kind = match error.failure().map(|it| it.kind) {
        Some(keeper::FailureKind::AddressInUse) => io::ErrorKind::AddrInUse,
        Some(keeper::FailureKind::AddressNotAvailable) => io::ErrorKind::AddrNotAvailable,
        Some(keeper::FailureKind::PermissionDenied) => io::ErrorKind::PermissionDenied,
        _ if error.failure().is_some_and(|it| it.errno == REFUSED) => {
            io::ErrorKind::ConnectionRefused
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The pods' network, as the node agent asks for it.
#[derive(Clone, Debug)]
pub(super) struct PodNetwork {
    pub(super) network: network::Handle,
    pub(super) proxy: proxy::Handle,
}

impl PodNetwork {
    /// Where a pod is reached that has this address. Its link has both.
    fn whole(&self, v4: Ipv4Addr) -> node::PodAddress {
        let v6 = self.network.addresses().v6.map(|it| it.at(v4));
        node::PodAddress { v4, v6 }
    }
}

impl node::PodNetwork for PodNetwork {
    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        netns: OwnedFd,
    ) -> BoxFuture<'a, anyhow::Result<node::PodAddress>> {
        Box::pin(async move { Ok(self.whole(self.network.attach(pod_uid, netns).await?)) })
    }

    fn attach_spare(
        &self,
        netns: OwnedFd,
    ) -> BoxFuture<'_, anyhow::Result<(String, node::PodAddress)>> {
        Box::pin(async move {
            let (spare, address) = self.network.attach_spare(netns).await?;
            Ok((spare, self.whole(address)))
        })
    }

    fn take_over<'a>(
        &'a self,
        spare: &'a str,
        pod_uid: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { Ok(self.network.take_over(spare, pod_uid).await?) })
    }

    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { Ok(self.network.detach(pod_uid).await?) })
    }

    fn connect_host(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.network.connect_host(port)
    }

    fn host_resolver(&self) -> node::HostResolver {
        let host = self.network.host_resolver();
        node::HostResolver { servers: host.servers.clone(), search: host.search.clone() }
    }

    fn unrouted(&self, node::PodAddress { v4, v6 }: node::PodAddress) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::join!(self.network.unrouted(v4), self.proxy.unrouted(v4.into()));
            // Only what is reached by IPv6 alone has such an endpoint in the proxy.
            if let Some(v6) = v6 {
                self.proxy.unrouted(v6.into()).await;
            }
        })
    }
}

impl node::HostProcesses for Host {
    fn start(&self, command: shim::NurseryCommand) -> io::Result<()> {
        let shim::NurseryCommand { arguments, stdin, stderr } = command;
        let text = |it: OsString| it.into_string().map_err(|_| io::ErrorKind::InvalidInput);
        let arguments = arguments.into_iter().map(text).collect::<Result<Vec<String>, _>>()?;
        self.spawn(arguments, stdin.as_fd(), stderr.as_fd()).map_err(io::Error::other)
    }
}

/// The logs and the usage of the nodes, as the API server asks for them. They are built after the server, so
/// they are connected later.
#[derive(Debug, Default)]
pub(super) struct NodeLogs {
    nodes: OnceLock<Nodes>,
    proxy: OnceLock<proxy::Handle>,
}

impl NodeLogs {
    /// Connects the nodes. Only the first call counts.
    pub(super) fn connect(&self, nodes: Nodes) {
        drop(self.nodes.set(nodes));
    }

    /// Connects the HTTP proxy, whose counts stand beside the server's.
    pub(super) fn count(&self, proxy: proxy::Handle) {
        drop(self.proxy.set(proxy));
    }

    fn read(&self, request: &LogRequest) -> Result<LogStream, Status> {
        let Some(node) = self.nodes.get().and_then(|it| it.get(&request.node)) else {
            let message = format!("node `{}` is not connected", request.node);
            return Err(Status::new(Reason::ServiceUnavailable, message));
        };
        let container = Some(request.container.as_str());
        let options = log_options(&request.options, Clock::system().now());
        let chunks = node
            .logs(&request.namespace, &request.pod, container, &options)
            .map_err(|error| log_status(&error))?;
        Ok(chunks.map(Ok).boxed())
    }
}

impl NodeConnector for NodeLogs {
    fn logs(&self, request: LogRequest) -> apiserver::Answer<'_, LogStream> {
        Box::pin(async move { self.read(&request) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        // This process is in the cluster's network.
        Box::pin(TcpStream::connect(to))
    }

    fn metrics(&self) -> String {
        self.proxy.get().map(proxy::Handle::metrics).unwrap_or_default()
    }

    fn usage(&self) -> apiserver::Answer<'_, Vec<apiserver::Usage>> {
        Box::pin(async move {
            let nodes = self.nodes.get().ok_or_else(|| {
                Status::new(Reason::ServiceUnavailable, "no node is connected yet".to_owned())
            })?;
            let usage = nodes.usage().await.map_err(|error| {
                Status::new(Reason::InternalError, format!("cannot measure: {error}"))
            })?;
            Ok(usage.into_iter().map(usage_of).collect())
        })
    }
}

fn usage_of(usage: node::Usage) -> apiserver::Usage {
    let used = |it: node::Used| apiserver::Used {
        at: it.at,
        window: it.window,
        cpu_nanos: it.cpu_nanos,
        memory_bytes: it.memory_bytes,
    };
    let pod = |it: node::PodUsage| apiserver::PodUsage {
        namespace: it.namespace,
        name: it.name,
        containers: it.containers.into_iter().map(|(name, it)| (name, used(it))).collect(),
    };
    apiserver::Usage {
        node: usage.node,
        all: used(usage.all),
        pods: usage.pods.into_iter().map(pod).collect(),
    }
}

fn log_options(options: &apiserver::LogOptions, now: Timestamp) -> node::LogOptions {
    let seconds_ago = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
    };
    node::LogOptions {
        follow: options.follow,
        previous: options.previous,
        tail_lines: options.tail_lines,
        since: options.since_time.or(options.since_seconds.map(seconds_ago)),
        timestamps: options.timestamps,
        limit_bytes: options.limit_bytes,
    }
}

fn log_status(error: &node::LogsError) -> Status {
    let reason = match error {
        node::LogsError::BadRequest(_) => Reason::BadRequest,
        node::LogsError::NotFound(_) => Reason::NotFound,
        node::LogsError::Io { .. } => Reason::InternalError,
    };
    Status::new(reason, error.to_string())
}

/// What faults are carried out with.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) nodes: Nodes,
    pub(super) network: network::Handle,
}

impl chaos::Machine for Machine {
    fn signal<'a>(
        &'a self,
        pod: &'a chaos::PodId,
        signal: chaos::Signal,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        let signalled = match signal {
            chaos::Signal::Kill => node::Signalled::Killed,
            chaos::Signal::Pause => node::Signalled::Paused,
            chaos::Signal::Resume => node::Signalled::Resumed,
        };
        Box::pin(async move {
            match self.nodes.of_pod(&pod.uid) {
                Some(node) => Ok(node.signal(&pod.uid, signalled).await?),
                // Its node is lost, or not back yet.
                None => Ok(self.nodes.signal(&pod.uid, signalled).await?),
            }
        })
    }

    fn disturb(&self, all: Vec<chaos::Disturbance>) -> BoxFuture<'_, anyhow::Result<()>> {
        let all = all.into_iter().map(|it| network::Disturbance {
            to: it.to,
            from: it.from,
            impairment: match it.impairment {
                chaos::Impairment::Cut => network::Impairment::Cut,
                chaos::Impairment::Shape(shape) => network::Impairment::Shape {
                    delay: shape.delay,
                    jitter: shape.jitter,
                    loss: shape.loss,
                    duplicate: shape.duplicate,
                    corrupt: shape.corrupt,
                    bytes_per_second: shape.bytes_per_second,
                },
            },
        });
        let all = all.collect();
        Box::pin(async move { Ok(self.network.disturb(all).await?) })
    }

    fn lose(&self, nodes: BTreeMap<String, chaos::Loss>) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let loss = |it| match it {
                chaos::Loss::Silent => Loss::Silent,
                chaos::Loss::Dead => Loss::Dead,
            };
            let nodes = nodes.into_iter().map(|(name, it)| (name, loss(it))).collect();
            self.nodes.lose(&nodes).await
        })
    }

    fn fill<'a>(
        &'a self,
        pod: &'a chaos::PodId,
        volume: &'a str,
        bytes: u64,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let node = self.nodes.of_pod(&pod.uid).context("no node works on this pod")?;
            Ok(node.fill(&pod.uid, volume, bytes)?)
        })
    }

    fn empty<'a>(
        &'a self,
        pod: &'a chaos::PodId,
        volume: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            match self.nodes.of_pod(&pod.uid) {
                Some(node) => Ok(node.empty(&pod.uid, volume)?),
                None => Ok(()),
            }
        })
    }
}
