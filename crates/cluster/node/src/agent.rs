//! The node as a component: registers it, gives every pod bound to it a worker, and cleans up after
//! pods that nobody knows any more. What happens to one pod is its worker's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use client::{Cache, Caches, Change, Client, Events};
use image::Owners;
use k8s_openapi::api::core::v1::Pod;
use runtime::{Clock, OnExit, Tasks};
use shim::wire::SpareSpec;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cgroups::{Cgroups, oom::OomScores},
    context::{Context, Folders, HostProcesses, PodNetwork, make_private},
    files::Dns,
    floods::Floods,
    forks::Forks,
    handle::{Handle, Registered, Registry},
    images::Images,
    logs::Watcher,
    machine::Machine,
    pod::{
        stage::{self, Parts, Place},
        worker::{Input, Wires, Worker},
    },
    references::ReferredObjects,
    register::{self, Registration},
    roots::Roots,
    seccomp::Programs,
    spares::{Recipe, Spares},
    usage::Sampler,
};

/// Component of the node's events, as users know it.
const COMPONENT: &str = "kubelet";
/// Sandboxes and containers being made at once, per CPU: making one is mostly waiting for the
/// kernel, but too many at once only make all of them late.
const STARTS_PER_CPU: usize = 8;
/// Wait before cleaning up after an unknown pod is tried again.
const ORPHAN_RETRY: Duration = Duration::from_secs(10);

/// How the node is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's address for pods.
    pub address: Ipv4Addr,
    /// Volumes, logs: what outlives a reboot.
    pub state_dir: PathBuf,
    /// Sockets and exits: what does not.
    pub run_dir: PathBuf,
    /// The binary whose `shim` subcommand is `shim::main`.
    pub executable: PathBuf,
    /// Variables of the invoking user that linked source gets: HOME, PATH, USER, TERM. A pod's own
    /// variables override them.
    pub inherited: Vec<(String, String)>,
    /// The store of images, which the user's clusters share.
    pub images_dir: PathBuf,
    /// Variables of the invoking user that say how registries are reached: credentials, proxies.
    pub registries: Vec<(String, String)>,
    /// How pods resolve names.
    pub dns: Dns,
    /// Version of the program.
    pub version: String,
    /// The Kubernetes version whose kubelet this behaves as, like `v1.36.0`.
    pub kubelet_version: String,
}

/// What the node works with.
#[derive(Clone)]
pub struct Peers {
    /// The API.
    pub client: Client,
    /// The process's caches of it.
    pub caches: Caches,
    /// The network of pods.
    pub network: Arc<dyn PodNetwork>,
    /// Where pods of `hostNetwork` come from.
    pub host: Arc<dyn HostProcesses>,
    /// The time of day.
    pub clock: Clock,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A folder of the node cannot be made or read.
    #[error("use folder `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell what the machine is.
    #[error("look at the machine")]
    Machine(#[source] io::Error),
    /// No inotify instance is left: the user's limit is `fs.inotify.max_user_instances`.
    #[error("watch log files")]
    Watcher(#[source] io::Error),
}

/// A node that does not run yet.
pub struct Agent {
    context: Arc<Context>,
    pods: Cache<Pod>,
    registration: Registration,
    handle: Handle,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Makes the node. Must be called inside a tokio runtime.
pub fn build(config: Config, peers: Peers, tasks: &Tasks) -> Result<Agent, BuildError> {
    let Config { state_dir, run_dir, .. } = &config;
    for path in [state_dir, run_dir] {
        let made = make_private(&path.join("pods"));
        made.map_err(|source| BuildError::Folder { path: path.clone(), source })?;
    }
    let machine = Machine::read(state_dir).map_err(BuildError::Machine)?;
    let watcher = Watcher::new(tasks).map_err(BuildError::Watcher)?;
    let Peers { client, caches, network, host, clock } = peers;
    let cpus = usize::try_from(machine.cpu_millis.div_ceil(1000)).unwrap_or(1);
    let cluster = config.state_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (images, registries) = ((config.images_dir.clone(), cluster), config.registries.clone());
    let owners = Owners::of_process().map_err(BuildError::Machine)?;
    let roots = Roots::find(state_dir, &owners);
    tracing::info!(%roots, "roots of images");
    let images = Images::new(images, registries, owners, Arc::clone(&host), tasks);
    let cgroups = Arc::new(Cgroups::open(run_dir, machine.cpu_millis));
    let oom_scores = OomScores::permitted();
    tracing::info!(cgroups = describe(&cgroups, oom_scores), "control groups");
    let recipe = recipe(&config, Arc::clone(&network), (host, Arc::clone(&cgroups)));
    let spares = Spares::new(recipe, tasks);
    let registration = Registration {
        machine: machine.clone(),
        address: config.address,
        version: config.version,
        kubelet_version: config.kubelet_version,
        state: config.state_dir.clone(),
        cgroups: describe(&cgroups, oom_scores),
        roots: roots.to_string(),
    };
    let events = Events::new(client.clone(), COMPONENT, &machine.name, clock.clone(), tasks);
    let name = Arc::from(machine.name.as_str());
    let sampler = Arc::new(Sampler::new(Arc::clone(&cgroups), clock.clone()));
    let context = Context {
        cgroups,
        oom_scores,
        spares: spares.clone(),
        machine,
        address: config.address,
        seccomp: Programs::new(&config.run_dir),
        state_dir: config.state_dir,
        run_dir: config.run_dir,
        inherited: config.inherited,
        dns: config.dns,
        network,
        client,
        events,
        clock,
        objects: ReferredObjects::new(&caches),
        images,
        owners,
        roots,
        starts: Semaphore::new(cpus.max(1) * STARTS_PER_CPU),
        begun: Instant::now(),
    };
    let node_stops = watch::Sender::new(None);
    let registry = Arc::new(Registry::default());
    let handle = Handle { registry, node_stops, watcher, spares, sampler, name };
    Ok(Agent { context: Arc::new(context), pods: caches.of(), registration, handle })
}

/// What pods are limited to and what not, for people.
fn describe(cgroups: &Cgroups, scores: OomScores) -> String {
    let words = [Some(cgroups.describe()), scores.describe()];
    words.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Where glibc's name service cache listens (nscd(8)): it would answer for the machine's resolver, and
/// knows nothing of the cluster's names.
const NSCD: &str = "/run/nscd";

fn recipe(
    config: &Config,
    network: Arc<dyn PodNetwork>,
    (host, cgroups): (Arc<dyn HostProcesses>, Arc<Cgroups>),
) -> Recipe {
    let mut masked = vec![config.state_dir.clone(), config.run_dir.clone()];
    masked.extend(Some(PathBuf::from(NSCD)).filter(|it| it.is_dir()));
    Recipe {
        executable: config.executable.clone(),
        run_dir: config.run_dir.clone(),
        spec: SpareSpec {
            masked,
            place: config.run_dir.clone(),
            cgroups: Vec::new(),
            host_ipc: false,
            users: None,
        },
        network,
        host,
        cgroups,
    }
}

impl Agent {
    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.machine.name
    }

    /// What others may ask of the node.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the node's tasks. When they are stopped, pods run on.
    pub fn run(self, tasks: &Tasks) {
        let Self { context, pods, registration, handle } = self;
        let (client, clock) = (context.client.clone(), context.clock.clone());
        let images = context.images.clone();
        tasks.spawn("node-registration", OnExit::StopProcess, |stop| {
            register::run(registration, images, (client, clock), stop)
        });
        let registry = Arc::clone(&handle.registry);
        let (cgroups, events) = (Arc::clone(&context.cgroups), context.events.clone());
        Floods { registry: Arc::clone(&registry), events: events.clone() }.start(tasks);
        Forks { registry, cgroups, events }.start(tasks);
        let dispatcher =
            Dispatcher { context, pods, handle, tasks: tasks.clone(), workers: BTreeMap::new() };
        tasks.spawn("node", OnExit::StopProcess, |stop| dispatcher.run(stop));
    }
}

/// Gives pods to workers.
struct Dispatcher {
    context: Arc<Context>,
    pods: Cache<Pod>,
    handle: Handle,
    tasks: Tasks,
    /// By uid.
    workers: BTreeMap<String, Running>,
}

struct Running {
    input: watch::Sender<Input>,
    nudge: Arc<Notify>,
}

impl Dispatcher {
    async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let links = self.context.objects.hold_links();
        let synced = async {
            self.pods.synced().await;
            links.synced().await;
            self.context.objects.services.synced().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = synced => {}
        }
        let mut pods = self.pods.subscribe();
        let mut links = links.subscribe();
        self.clean_orphans();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                change = pods.next() => self.take_pod(change),
                _ = links.next() => self.nudge_all(),
            }
        }
    }

    fn is_own(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
        node == Some(self.context.machine.name.as_str())
    }

    fn take_pod(&mut self, change: Change<Pod>) {
        let Change { old, new, .. } = change;
        if let Some(old) = old
            && new.as_ref().is_none_or(|it| it.metadata.uid != old.metadata.uid)
        {
            let uid = old.metadata.uid.clone().unwrap_or_default();
            if let Some(worker) = self.workers.remove(&uid) {
                // The worker cleans up and ends; a closed channel means that it has.
                worker.input.send_modify(|it| it.vanished = true);
            }
            if self.workers.is_empty() {
                let spares = self.context.spares.clone();
                self.tasks.spawn("spares", OnExit::Log, |_| async move {
                    spares.clear().await;
                    Ok(())
                });
            }
        }
        let Some(pod) = new.filter(|it| self.is_own(it)) else { return };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match self.workers.get(&uid).filter(|it| !it.input.is_closed()) {
            Some(worker) => worker.input.send_modify(|it| it.pod = pod),
            None => self.start_worker(uid, pod),
        }
    }

    fn start_worker(&mut self, uid: String, pod: Arc<Pod>) {
        if self.handle.node_stops.borrow().is_some() {
            return;
        }
        let folders = Folders::of(&self.context, &pod);
        let place = Place {
            context: Arc::clone(&self.context),
            folders: folders.clone(),
            pod: Some(Arc::clone(&pod)),
        };
        let status = watch::Sender::new(pod.status.clone().unwrap_or_default());
        let registered = Registered { pod: Arc::clone(&pod), folders, status: status.subscribe() };
        let registration = self.handle.registry.register(registered);
        let referred = self.context.objects.hold(&pod);
        let input = watch::Sender::new(Input { pod, vanished: false });
        let nudge = Arc::new(Notify::new());
        let wires = Wires {
            input: input.subscribe(),
            nudge: Arc::clone(&nudge),
            node_stops: self.handle.node_stops.subscribe(),
            status,
        };
        let worker = Worker::new(Arc::clone(&self.context), place, wires);
        let changed = Arc::clone(&nudge);
        self.tasks.spawn("pod", OnExit::Log, |stop| async move {
            let run = async {
                // What is not known yet would count as missing.
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = referred.synced() => {}
                }
                worker.run(stop.clone()).await
            };
            let result = tokio::select! {
                result = run => result,
                () = referred.tell(&changed) => Ok(()),
            };
            drop(registration);
            result
        });
        self.workers.insert(uid, Running { input, nudge });
    }

    fn nudge_all(&self) {
        for worker in self.workers.values() {
            worker.nudge.notify_one();
        }
    }

    /// Removes control groups that an earlier process made for pods that never were.
    fn clean_spares(&self, names: Vec<String>) {
        for name in names {
            let cgroups = Arc::clone(&self.context.cgroups);
            self.tasks.spawn("orphan", OnExit::Log, |_| async move {
                Ok(tokio::task::spawn_blocking(move || cgroups.remove_spare(&name)).await??)
            });
        }
    }

    /// Ends and removes what is left of pods whose API objects went while no node ran.
    fn clean_orphans(&self) {
        let own = self.pods.list();
        let own = own.iter().filter(|it| self.is_own(it));
        let known: BTreeSet<&str> = own.filter_map(|it| it.metadata.uid.as_deref()).collect();
        let mut uids = match Folders::all(&self.context) {
            Ok(uids) => uids,
            Err(error) => {
                tracing::error!(%error, "folders of pods not read: what is left of old pods stays");
                return;
            }
        };
        let (with_cgroups, spares) = self.context.cgroups.found();
        uids.extend(with_cgroups);
        uids.sort();
        uids.dedup();
        self.clean_spares(spares);
        for uid in uids.into_iter().filter(|it| !known.contains(it.as_str())) {
            tracing::info!(pod = uid, "cleaning up after an unknown pod");
            let folders = Folders::of_orphan(&self.context, uid);
            let place = Place { context: Arc::clone(&self.context), folders, pod: None };
            self.tasks.spawn("orphan", OnExit::Log, |stop| async move {
                while stage::clean(&place, &mut Parts::default()).await.is_err() {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(ORPHAN_RETRY) => {}
                    }
                }
                Ok(())
            });
        }
    }
}
