//! A cluster's network with everything around it that a test needs.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use client::{Caches, Events};
use coracle_network::{
    Addresses, Config, Disturbance, Handle, HostRoutes, HostSockets, Keeping, Network, Prefix,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use runtime::{Clock, OnExit, Tasks};
use rustix::net::SocketType;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    api::{Api, NODES, SERVICES, SLICES},
    namespace::{self, PATIENCE},
};

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Says where the test's files are.
pub(crate) fn set_folder(folder: &Path) {
    FOLDER.set(folder.to_owned()).unwrap();
}

/// The host's `/etc/resolv.conf`.
pub(crate) fn resolv_conf() -> PathBuf {
    FOLDER.get().unwrap().join("resolv.conf")
}

/// The network, the API it follows, and the runtime it lives in.
pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) config: Config,
    runtime: Runtime,
    running: Option<(Handle, Tasks)>,
}

/// What IPv6 addresses begin with: `fd12:3456:789a::`.
pub(crate) fn prefix() -> Prefix {
    Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a])
}

/// A pod: its namespace and its address.
pub(crate) struct Pod {
    pub(crate) netns: OwnedFd,
    pub(crate) address: Ipv4Addr,
}

impl Pod {
    /// Its IPv6 address.
    pub(crate) fn v6(&self) -> Ipv6Addr {
        prefix().at(self.address)
    }
}

impl World {
    /// A network that runs.
    pub(crate) fn start() -> Self {
        std::fs::write(resolv_conf(), "nameserver 127.0.0.1\nsearch lan\n").unwrap();
        let mut world = Self {
            api: Api::default(),
            config: Config {
                addresses: Addresses { v6: Some(prefix()), ..Addresses::default() },
                local_ports: Vec::new(),
                host_resolv_conf: resolv_conf(),
            },
            runtime: Runtime::new().unwrap(),
            running: None,
        };
        world.resume();
        world
    }

    /// Starts the network again, as after a restart of the process.
    pub(crate) fn resume(&mut self) {
        let _context = self.runtime.enter();
        let tasks = Tasks::default();
        let caches = Caches::new(self.api.client(), &tasks);
        let events = Events::new(self.api.client(), "network", "", Clock::system(), &tasks);
        let sockets = Arc::new(Host);
        let handle =
            Network::build(&self.config, &caches, (self.api.client(), events), sockets, &tasks)
                .unwrap();
        self.runtime.block_on(handle.synced());
        self.running = Some((handle, tasks));
    }

    /// Ends everything the network does in this process; what is in the kernel stays.
    pub(crate) fn stop(&mut self) {
        let (_, tasks) = self.running.take().unwrap();
        assert!(self.runtime.block_on(tasks.shutdown(6 * PATIENCE)));
    }

    /// Keeps routes from the host, until the network is stopped.
    pub(crate) fn keep(&self, routes: HostRoutes, keeping: Keeping) {
        let _context = self.runtime.enter();
        let tasks = &self.running.as_ref().unwrap().1;
        let events = Events::new(self.api.client(), "network", "", Clock::system(), tasks);
        let told = (self.api.client(), events);
        tasks.spawn("host-routes", OnExit::Log, |stop| routes.keep(keeping, told, stop));
    }

    fn handle(&self) -> &Handle {
        &self.running.as_ref().unwrap().0
    }

    pub(crate) fn attach(&self, uid: &str, netns: &OwnedFd) -> Ipv4Addr {
        let netns = netns.try_clone().unwrap();
        self.runtime.block_on(self.handle().attach(uid, netns)).unwrap()
    }

    pub(crate) fn attach_spare(&self, netns: &OwnedFd) -> (String, Ipv4Addr) {
        let netns = netns.try_clone().unwrap();
        self.runtime.block_on(self.handle().attach_spare(netns)).unwrap()
    }

    pub(crate) fn take_over(&self, spare: &str, uid: &str) {
        self.runtime.block_on(self.handle().take_over(spare, uid)).unwrap();
    }

    pub(crate) fn detach(&self, uid: &str) {
        self.runtime.block_on(self.handle().detach(uid)).unwrap();
    }

    /// Makes this all that is wrong.
    pub(crate) fn disturb(&self, all: Vec<Disturbance>) {
        self.runtime.block_on(self.handle().disturb(all)).unwrap();
    }

    /// Whether the address is unrouted before patience ends.
    pub(crate) fn is_unrouted(&self, address: Ipv4Addr, within: Duration) -> bool {
        let unrouted =
            async { tokio::time::timeout(within, self.handle().unrouted(address)).await };
        self.runtime.block_on(unrouted).is_ok()
    }

    /// A pod with a server of its name at port 80, TCP and UDP.
    pub(crate) fn pod(&self, name: &'static str) -> Pod {
        let netns = namespace::new();
        let address = self.attach(name, &netns);
        namespace::serve(&netns, 80, name);
        namespace::serve_udp(&netns, 80, name);
        Pod { netns, address }
    }

    /// A Node in a zone.
    pub(crate) fn node(&self, name: &str, number: u32, zone: &str) {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        let part = self.config.addresses.part(number).to_string();
        let object = json!({"metadata": {"labels": labels}, "spec": {"podCIDR": part}});
        self.api.put(NODES, name, object);
    }

    /// A pod on a node, with a server of its name at port 80, TCP and UDP.
    pub(crate) fn pod_on(&self, number: u32, name: &'static str) -> Pod {
        let netns = namespace::new();
        let node = self.handle().on_node(number).unwrap();
        let inside = netns.try_clone().unwrap();
        let address = self.runtime.block_on(node.attach(name, inside)).unwrap();
        namespace::serve(&netns, 80, name);
        namespace::serve_udp(&netns, 80, name);
        Pod { netns, address }
    }

    /// A Service with ports 80 for TCP and UDP.
    pub(crate) fn service(&self, name: &str, cluster_ip: &str) {
        self.service_with(name, json!({"clusterIP": cluster_ip}), json!({}));
    }

    /// The same with more in its specification, other ports if it has any, and annotations.
    pub(crate) fn service_with(&self, name: &str, mut spec: Value, annotations: Value) {
        if spec["ports"].is_null() {
            spec["ports"] = json!([
                {"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"},
            ]);
        }
        let object = json!({"metadata": {"annotations": annotations}, "spec": spec});
        self.api.put(SERVICES, name, object);
    }

    /// Changes a Service's specification, and nothing else of it.
    pub(crate) fn change(&self, name: &str, spec: &Value) {
        let mut service = self.api.get(SERVICES, name);
        service["spec"] = spec.clone();
        self.api.put(SERVICES, name, service);
    }

    /// What the Service's ready endpoints are.
    pub(crate) fn endpoints(&self, service: &str, pods: &[&Pod]) {
        let addresses: Vec<Ipv4Addr> = pods.iter().map(|it| it.address).collect();
        self.endpoints_at(service, &addresses);
    }

    /// The same of any addresses.
    pub(crate) fn endpoints_at(&self, service: &str, addresses: &[Ipv4Addr]) {
        self.endpoints_with(service, service, 80, addresses);
    }

    /// What one of the Service's slices has, at any port.
    pub(crate) fn endpoints_with(
        &self,
        service: &str,
        slice: &str,
        port: u16,
        addresses: &[Ipv4Addr],
    ) {
        let endpoints = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
        self.slice(service, slice, port, endpoints);
    }

    /// What the Service's ready endpoints are by IPv6.
    pub(crate) fn endpoints_v6(&self, service: &str, pods: &[&Pod]) {
        let addresses: Vec<Ipv6Addr> = pods.iter().map(|it| it.v6()).collect();
        self.endpoints_v6_at(service, 80, &addresses);
    }

    /// The same of any addresses, at any port.
    pub(crate) fn endpoints_v6_at(&self, service: &str, port: u16, addresses: &[Ipv6Addr]) {
        let endpoints = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
        self.slice_of("IPv6", service, &format!("{service}-v6"), (port, endpoints));
    }

    /// The same of any endpoints.
    pub(crate) fn slice(&self, service: &str, slice: &str, port: u16, endpoints: Vec<Value>) {
        self.slice_of("IPv4", service, slice, (port, endpoints));
    }

    fn slice_of(
        &self,
        family: &str,
        service: &str,
        slice: &str,
        (port, endpoints): (u16, Vec<Value>),
    ) {
        let object = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": family,
            "ports": [{"name": "tcp", "port": port, "protocol": "TCP"},
                {"name": "udp", "port": port, "protocol": "UDP"}],
            "endpoints": endpoints,
        });
        self.api.put(SLICES, slice, object);
    }
}

/// Sockets of the namespace that plays the host.
#[derive(Debug)]
struct Host;

impl HostSockets for Host {
    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        let connect = move || TcpStream::connect(to).map(OwnedFd::from);
        async move { namespace::inside(namespace::host(), connect) }.boxed()
    }

    fn connect_udp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        let connect = move || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            Ok(OwnedFd::from(socket))
        };
        async move { namespace::inside(namespace::host(), connect) }.boxed()
    }

    fn connect_icmp(&self, to: IpAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        let connect = move || namespace::icmp(SocketType::RAW, to);
        async move { namespace::inside(namespace::host(), connect) }.boxed()
    }

    fn bind_udp(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        let bind = move || UdpSocket::bind(at).map(OwnedFd::from);
        async move { namespace::inside(namespace::host(), bind) }.boxed()
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<OwnedFd>> {
        let listen = move || TcpListener::bind(at).map(OwnedFd::from);
        async move { namespace::inside(namespace::host(), listen) }.boxed()
    }
}

/// Asks until the answer is as wanted; fails if that takes too long.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    const STEP: Duration = Duration::from_micros(200);
    for _ in 0..PATIENCE.as_micros() / STEP.as_micros() {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        thread::sleep(STEP);
    }
    panic!("still {:?}", ask());
}

/// The same where the answer does not matter.
pub(crate) fn until<T: std::fmt::Debug>(ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) {
    drop(eventually(ask, wanted));
}

/// A client in a pod that never stops asking.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    client: JoinHandle<(usize, Vec<String>)>,
}

impl Traffic {
    pub(crate) fn start(pod: &Pod, address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, netns) = (Arc::clone(&stop), pod.netns.try_clone().unwrap());
        let address: SocketAddr = address.parse().unwrap();
        let ask = move || {
            let (mut count, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                count += 1;
                match namespace::read(address) {
                    Ok(answer) if !answer.is_empty() => {}
                    other => failures.push(format!("{other:?}")),
                }
            }
            (count, failures)
        };
        let client = thread::spawn(move || namespace::inside(&netns, ask));
        Self { stop, client }
    }

    /// Ends the client and requires that nothing failed; how often it asked.
    pub(crate) fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (count, failures) = self.client.join().unwrap();
        assert_eq!(failures, Vec::<String>::new(), "of {count}");
        count
    }
}
