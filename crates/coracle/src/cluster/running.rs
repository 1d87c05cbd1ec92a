//! The components of a cluster: built in the order in which they need each other, stopped in
//! reverse.

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use apiserver::Server;
use client::{Caches, Client, Events};
use network::{Addresses, HostRoutes, Network};
use node::{Dns, Peers, Site};
use runtime::{Clock, OnExit, Tasks};
use store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Prepared, Variables,
    adapters::{Authority, Machine, NodeLogs, PodNetwork, ProxySockets},
    answer,
    nodes::{self, Nodes},
    ranges,
};
use crate::{
    cli::{Durability, StartArguments},
    directories::{Directories, write_private},
    lock::Running,
    start::Answer,
};

/// How long the components of one phase may take to stop. What is late is named in the log.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Longest grace that a pod gets when the cluster stops, however long a one its spec asks for: whoever
/// typed Ctrl-C waits for it, and can type it again.
const PODS_GRACE_MAX: Duration = Duration::from_secs(60);

/// What a running cluster consists of.
struct Components {
    /// API, with its connections.
    api: Tasks,
    /// Everything that is a client of the API.
    clients: Tasks,
    nodes: Nodes,
}

/// Why the process is to end.
enum End {
    /// Pods are to go on.
    LeavePods,
    /// Pods are to stop first.
    StopPods,
    /// A component that the process needs has ended by itself.
    Failed,
}

/// Runs the cluster until it is told to end.
pub(super) async fn run(
    directories: &Directories,
    arguments: &StartArguments,
    prepared: Prepared,
    variables: Variables,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let Prepared { mut lock, host, routes, ran, listener, port } = prepared;
    let failed = Tasks::default();
    let store = open_store(directories, arguments)?;
    let addresses = ranges::decide(directories, arguments, (&store, ran), &routes)?;
    let outside = Outside { host, routes, listener, port };
    let components = build(directories, &failed, (store, addresses), outside, variables).await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let running = Running { pid, port, version };
    lock.announce(&running).context("say in the lock who runs here")?;
    tracing::info!(pid, port, version = running.version, "the cluster runs");
    answer(&Answer::Ready(running))?;
    let end = tokio::select! {
        biased;
        end = signals.next() => end,
        () = failed.failed() => End::Failed,
    };
    stop(&components, &mut signals, &end).await;
    match end {
        End::LeavePods | End::StopPods => Ok(()),
        End::Failed => bail!("a component ended by itself: the lines before this one say which"),
    }
}

/// The ways between this process and the host.
struct Outside {
    host: super::Host,
    routes: HostRoutes,
    listener: TcpListener,
    port: u16,
}

async fn build(
    directories: &Directories,
    failed: &Tasks,
    (store, addresses): (Store, Addresses),
    Outside { host, routes, listener, port }: Outside,
    variables: Variables,
) -> anyhow::Result<Components> {
    let (api, clients, clock) = (failed.component(), failed.component(), Clock::system());
    host.watch(&clients);
    let connector = Arc::new(NodeLogs::default());
    let files = usize::try_from(runtime::raise_files(super::FILES_WANTED)).unwrap_or(usize::MAX);
    let usual = apiserver::Config::new(directories.state.join("pki"), fastrand::u64(..));
    let config = apiserver::Config {
        advertised: (addresses.gateway(), network::API_PORT).into(),
        service_range: ranges::service_range(addresses),
        node_connector: connector.clone(),
        // The other half is for everything else: no client may take the last one.
        connections_max: usual.connections_max.min(files / 2),
        ..usual
    };
    let server = Server::build(config, store, &api).await.context("build the API server")?;
    write_kubeconfig(directories, &server, port)?;
    let client = client::in_process_as(server.service(), "coracle");
    let caches = Caches::new(client.clone(), &clients);

    let network = build_network(addresses, &host, &client, &caches, &clients)?;
    let proxy = build_proxy(directories, (&host, &network), &server, &caches, &clients)?;
    let inside = TcpListener::bind((addresses.gateway(), network::API_PORT))
        .context("listen for the API in the cluster's network")?;
    inside.set_nonblocking(true).context("prepare the API's inner socket")?;
    server.serve(inside, &api);

    let config =
        controllers::Config { root_ca: server.authority().to_owned(), clock: clock.clone() };
    // The names are those of the original's programs, by which people know the owners of fields.
    let named = |agent| client::in_process_as(server.service(), agent);
    let manager = named("kube-controller-manager");
    controllers::run(config, &caches, &manager, &clients);
    let scheduler = named("kube-scheduler");
    scheduler::run(scheduler::Config { clock: clock.clone() }, &caches, &scheduler, &clients);
    connector.count(proxy.clone());
    let division = nodes::division(nodes::wanted(&client).await?, &network);
    let host = Arc::new(host);
    let at = clock.clone();
    let peers = Peers { client: named("kubelet"), caches: caches.clone(), host, clock };
    let config = node_config(directories, variables, &network);
    let site = Site::build(config, peers, division, &clients).context("build the nodes")?;
    let first = site.name(0);
    let parts = (site, PodNetwork { network: network.clone(), proxy });
    let nodes = Nodes::start(parts, division, (&client, &caches), &clients).await?;
    connector.connect(nodes.clone());
    let machine = Arc::new(Machine { nodes: nodes.clone(), network });
    chaos::run(machine, &caches, &named("chaos"), at, &clients);
    keep_routes(directories, routes, (addresses, &first), &client, &clients);
    server.serve(listener, &api);
    Ok(Components { api, clients, nodes })
}

fn node_config(
    directories: &Directories,
    variables: Variables,
    network: &network::Handle,
) -> node::Config {
    let addresses = network.addresses();
    node::Config {
        state_dir: directories.state.clone(),
        run_dir: directories.run.clone(),
        executable: "/proc/self/exe".into(),
        inherited: variables.inherited,
        images_dir: directories.images.clone(),
        registries: variables.registries,
        dns: Dns { server: addresses.dns(), domain: api::CLUSTER_DOMAIN.to_owned() },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubelet_version: api::KUBERNETES_VERSION.to_owned(),
    }
}

/// Lets the host reach pods and Services, and says when its own routes lead there.
fn keep_routes(
    directories: &Directories,
    routes: HostRoutes,
    (addresses, node): (Addresses, &str),
    client: &Client,
    tasks: &Tasks,
) {
    let keeping = network::Keeping {
        addresses,
        alias: directories.link_alias(),
        as_root: rustix::process::geteuid().is_root(),
        node: node.to_owned(),
    };
    let events = Events::new(client.clone(), "network", node, Clock::system(), tasks);
    let told = (client.clone(), events);
    tasks.spawn("host-routes", OnExit::Log, |stop| routes.keep(keeping, told, stop));
}

fn open_store(directories: &Directories, arguments: &StartArguments) -> anyhow::Result<Store> {
    let durability = match arguments.durability {
        Durability::Disk => store::Durability::Disk,
        Durability::Process => store::Durability::Process,
    };
    let dir = directories.state.join("store");
    let config = store::Config { durability, ..store::Config::new(dir.clone()) };
    Store::open(&config).with_context(|| format!("open the store in `{}`", dir.display()))
}

fn write_kubeconfig(directories: &Directories, server: &Server, port: u16) -> anyhow::Result<()> {
    let text = server.kubeconfig(&directories.context(), &format!("https://127.0.0.1:{port}"));
    let path = directories.kubeconfig();
    write_private(&path, text.as_bytes())
        .with_context(|| format!("write kubeconfig `{}`", path.display()))
}

fn build_network(
    addresses: Addresses,
    host: &super::Host,
    client: &Client,
    caches: &Caches,
    tasks: &Tasks,
) -> anyhow::Result<network::Handle> {
    let host_resolv_conf = super::RESOLV_CONF.into();
    let config = network::Config { addresses, local_ports: Vec::new(), host_resolv_conf };
    let events = Events::new(client.clone(), "network", "", Clock::system(), tasks);
    Network::build(&config, caches, (client.clone(), events), Arc::new(host.clone()), tasks)
        .context("build the network")
}

fn build_proxy(
    directories: &Directories,
    (host, network): (&super::Host, &network::Handle),
    server: &Server,
    caches: &Caches,
    tasks: &Tasks,
) -> anyhow::Result<proxy::Handle> {
    let config = proxy::Config {
        host_address: network.addresses().gateway().into(),
        ports_file: directories.state.join("proxy.json"),
        log_file: directories.state.join("access.log"),
        clock: Clock::system(),
        authority: Arc::new(Authority(server.clone())),
    };
    let client = client::in_process_as(server.service(), "coracle-proxy");
    let sockets = Arc::new(ProxySockets { host: host.clone(), network: network.clone() });
    let events = Events::new(client.clone(), "proxy", "", Clock::system(), tasks);
    proxy::build(config, caches, (client, events), sockets, tasks).context("build the HTTP proxy")
}

/// Stops the components, the last first; without its clients the API has nothing left to do.
async fn stop(components: &Components, signals: &mut Signals, end: &End) {
    if matches!(end, End::StopPods) {
        tokio::select! {
            stopped = components.nodes.stop_all(PODS_GRACE_MAX) => say_unless(stopped, "pods"),
            _ = signals.terminate.recv() => tracing::warn!("told to leave the rest of the pods"),
        }
    }
    say_unless(components.nodes.shutdown(STOP_GRACE).await, "nodes");
    say_unless(components.clients.shutdown(STOP_GRACE).await, "clients of the API");
    say_unless(components.api.shutdown(STOP_GRACE).await, "the API");
}

fn say_unless(stopped: bool, what: &'static str) {
    if !stopped {
        tracing::warn!(what, "did not stop in time");
    }
}

/// The signals that mean something to this process.
struct Signals {
    /// SIGTERM: end, and leave the pods.
    terminate: Signal,
    /// SIGINT: stop the pods, then end. `coracle down` sends it.
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::LeavePods,
            _ = self.interrupt.recv() => End::StopPods,
        }
    }
}
