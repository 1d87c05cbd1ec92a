//! What all nodes of this machine share: its resources, images, control groups, caches. Nodes are made of it
//! one by one, and may come and go while it stays.
//!
//! It also knows which nodes are there, for the questions that only all of them together can answer: what of
//! the machine each of them uses, and which pods nobody knows any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use client::{Caches, Client, Events};
use image::Owners;
use k8s_openapi::api::core::v1::Pod;
use runtime::{Clock, Tasks, watch_descriptor};
use rustix::{io::Errno, process::Signal};
use shim::wire::SpareSpec;
use tokio::{
    io::Interest,
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    agent::Agent,
    cgroups::{Cgroups, oom::OomScores},
    context::{Context, Folders, HostProcesses, PodNetwork, make_private},
    files::Dns,
    handle::{Handle, Registry},
    images::Images,
    logs::Watcher,
    machine::Machine,
    references::ReferredObjects,
    register::Registration,
    roots::Roots,
    seccomp::Programs,
    spares::{Recipe, Spares, reap},
    usage::{self, Sampler, Usage},
};

/// Component of the nodes' events, as users know it.
const COMPONENT: &str = "kubelet";
/// Sandboxes and containers being made at once, per CPU: making one is mostly waiting for the
/// kernel, but too many at once only make all of them late.
const STARTS_PER_CPU: usize = 8;

/// How the nodes of the machine are to be.
#[derive(Clone, Debug)]
pub struct Config {
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

/// What the nodes work with.
#[derive(Clone)]
pub struct Peers {
    /// The API.
    pub client: Client,
    /// The process's caches of it.
    pub caches: Caches,
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

/// One node of the machine.
pub struct NodeConfig {
    /// Which, from 0.
    pub index: u32,
    /// Its address for pods.
    pub address: Ipv4Addr,
    /// The ranges of its pods' addresses, one of each family.
    pub pod_cidrs: Vec<String>,
    /// How many pods it takes at most, as far as addresses go.
    pub addresses: u32,
    /// The network of its pods.
    pub network: Arc<dyn PodNetwork>,
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig").field("index", &self.index).finish_non_exhaustive()
    }
}

/// How the nodes divide the machine, and how often they say that they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// How many nodes there are; each has an equal part of the machine.
    pub nodes: u32,
    /// How long a Lease holds, if not as long as usual.
    pub lease: Option<Duration>,
}

/// Why there are no nodes.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A folder of the nodes cannot be made or read.
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

/// What all nodes of this machine share. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Shared>);

struct Shared {
    config: Config,
    peers: Peers,
    machine: Machine,
    division: watch::Sender<Division>,
    watcher: Watcher,
    images: Images,
    owners: Owners,
    roots: Roots,
    cgroups: Arc<Cgroups>,
    oom_scores: OomScores,
    seccomp: Arc<Programs>,
    objects: ReferredObjects,
    starts: Arc<Semaphore>,
    begun: Instant,
    sampler: Sampler,
    agents: Mutex<Agents>,
}

/// The nodes by name.
#[derive(Debug, Default)]
struct Agents {
    there: BTreeMap<String, Arc<Registry>>,
    away: BTreeSet<String>,
    /// Pods that were named as orphans, until nothing is left of them.
    cleaning: BTreeSet<String>,
    /// Whether what an earlier process left was looked for.
    looked: bool,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("name", &self.0.machine.name).finish_non_exhaustive()
    }
}

impl Site {
    /// Looks at the machine and prepares what nodes share. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        config: Config,
        peers: Peers,
        division: Division,
        tasks: &Tasks,
    ) -> Result<Self, BuildError> {
        let Config { state_dir, run_dir, .. } = &config;
        for path in [state_dir, run_dir] {
            let made = make_private(&path.join("pods"));
            made.map_err(|source| BuildError::Folder { path: path.clone(), source })?;
        }
        let machine = Machine::read(state_dir).map_err(BuildError::Machine)?;
        let watcher = Watcher::new(tasks).map_err(BuildError::Watcher)?;
        let cpus = usize::try_from(machine.cpu_millis.div_ceil(1000)).unwrap_or(1);
        let cluster = state_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (store, registries) = ((config.images_dir.clone(), cluster), config.registries.clone());
        let owners = Owners::of_process().map_err(BuildError::Machine)?;
        let roots = Roots::find(state_dir, &owners);
        tracing::info!(%roots, "roots of images");
        let images = Images::new(store, registries, owners, Arc::clone(&peers.host), tasks);
        let cgroups = Arc::new(Cgroups::open(run_dir, machine.cpu_millis));
        let oom_scores = OomScores::permitted();
        tracing::info!(cgroups = describe(&cgroups, oom_scores), "control groups");
        Ok(Self(Arc::new(Shared {
            machine,
            division: watch::Sender::new(division),
            watcher,
            images,
            owners,
            roots,
            oom_scores,
            seccomp: Arc::new(Programs::new(run_dir)),
            objects: ReferredObjects::new(&peers.caches),
            starts: Arc::new(Semaphore::new(cpus.max(1) * STARTS_PER_CPU)),
            begun: Instant::now(),
            sampler: Sampler::new(Arc::clone(&cgroups), peers.clock.clone()),
            cgroups,
            agents: Mutex::default(),
            config,
            peers,
        })))
    }

    /// Divides the machine among another number of nodes.
    pub fn divide(&self, division: Division) {
        self.0.division.send_if_modified(|it| std::mem::replace(it, division) != division);
    }

    /// The name of a node: the machine's, and from the second one on a number.
    #[must_use]
    pub fn name(&self, node: u32) -> String {
        match node {
            0 => self.0.machine.name.clone(),
            node => format!("{}-{}", self.0.machine.name, node + 1),
        }
    }

    /// Which node has this name, if any of this machine.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        if name == self.0.machine.name {
            return Some(0);
        }
        let number = name.strip_prefix(&self.0.machine.name)?.strip_prefix('-')?;
        let index = number.parse::<u32>().ok()?.checked_sub(1).filter(|it| 0 < *it)?;
        (self.name(index) == name).then_some(index)
    }

    /// A node that does not run yet. Its tasks are to be its own: when they have stopped, it is [away](Site::left)
    /// or [gone](Site::gone).
    #[must_use]
    pub fn node(&self, node: NodeConfig, tasks: &Tasks) -> Agent {
        let NodeConfig { index, address, pod_cidrs, addresses, network } = node;
        let (shared, name) = (&*self.0, self.name(index));
        let Peers { client, caches, host, clock } = shared.peers.clone();
        let Config { state_dir, run_dir, inherited, dns, .. } = shared.config.clone();
        let machine = Machine { name: name.clone(), ..shared.machine.clone() };
        let cgroups = Arc::clone(&shared.cgroups);
        let recipe =
            recipe(&shared.config, Arc::clone(&network), (host, Arc::clone(&shared.cgroups)));
        let spares = Spares::new(recipe, tasks);
        let registration = Registration {
            machine: machine.clone(),
            index,
            address,
            pod_cidrs,
            addresses,
            division: shared.division.subscribe(),
            version: shared.config.version.clone(),
            kubelet_version: shared.config.kubelet_version.clone(),
            state: state_dir.clone(),
            cgroups: describe(&cgroups, shared.oom_scores),
            roots: shared.roots.to_string(),
        };
        let events = Events::new(client.clone(), COMPONENT, &name, clock.clone(), tasks);
        let context = Context {
            cgroups,
            oom_scores: shared.oom_scores,
            spares: spares.clone(),
            machine,
            division: shared.division.subscribe(),
            address,
            seccomp: Arc::clone(&shared.seccomp),
            state_dir,
            run_dir,
            inherited,
            dns,
            network,
            client,
            events,
            clock,
            objects: shared.objects.clone(),
            images: shared.images.clone(),
            owners: shared.owners,
            roots: shared.roots.clone(),
            starts: Arc::clone(&shared.starts),
            begun: shared.begun,
        };
        let registry = Arc::new(Registry::default());
        self.come(&name, &registry);
        let watcher = shared.watcher.clone();
        let handle = Handle::new((registry, watcher, spares), name.into());
        let context = Arc::new(context);
        let caches = (caches.of(), caches.of());
        Agent::new(self.clone(), (context, caches), registration, handle)
    }

    /// What the nodes that are there use of CPU and memory, in order. May take a second: see [`Usage`].
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub async fn usage(&self) -> io::Result<Vec<Usage>> {
        let registries: Vec<_> = {
            let agents = self.agents();
            agents.there.iter().map(|(name, it)| (name.clone(), Arc::clone(it))).collect()
        };
        let all: Vec<&Registry> = registries.iter().map(|(_, it)| &**it).collect();
        let usage = self.0.sampler.usage(&all).await?;
        let of_nodes = registries.into_iter().map(|(name, it)| {
            let pods = it.list().into_iter().map(|(key, _)| key);
            (name, pods.collect())
        });
        Ok(usage::divide(&usage, of_nodes.collect()))
    }

    /// The uids of the pods that a node has.
    #[must_use]
    pub fn pods_of(&self, node: &str) -> BTreeSet<String> {
        let bound = self.0.peers.caches.of::<Pod>().list();
        let bound = bound.iter().filter(|it| {
            it.spec.as_ref().and_then(|it| it.node_name.as_deref()).is_some_and(|it| it == node)
        });
        let mut uids: BTreeSet<String> = bound.filter_map(|it| it.metadata.uid.clone()).collect();
        let agents = self.agents();
        let worked = agents.there.get(node).map(|it| it.list()).unwrap_or_default();
        uids.extend(worked.into_iter().map(|(_, it)| it.folders.uid));
        uids
    }

    /// Where the shims of all pods are.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.0.config.run_dir
    }

    /// Kills all processes of these pods, and returns when they have ended.
    ///
    /// # Errors
    /// The shims cannot be found or killed.
    pub async fn kill(&self, pods: &BTreeSet<String>) -> io::Result<()> {
        let run_dir = self.0.config.run_dir.clone();
        let live = tokio::task::spawn_blocking(move || shim::live(&run_dir));
        let live = live.await.map_err(io::Error::other)??;
        let mut ending = Vec::new();
        for it in live.into_iter().filter(|it| pods.contains(&it.uid)) {
            let process = shim::Process::open(it.pid)?;
            // Its containers end with it.
            match rustix::process::pidfd_send_signal(process.ended(), Signal::KILL) {
                Ok(()) => ending.push(process),
                Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for process in ending {
            let ended = process.ended().try_clone_to_owned()?;
            let ended = watch_descriptor(ended, Interest::READABLE)?;
            drop(ended.readable().await?);
            reap(process).await;
        }
        Ok(())
    }

    /// The node's tasks have stopped, and its pods run on: it will come back, as another [`Site::node`].
    pub fn left(&self, name: &str) {
        let mut agents = self.agents();
        agents.there.remove(name);
        agents.away.insert(name.to_owned());
    }

    /// The node will not come back, and has no pods.
    pub fn gone(&self, name: &str) {
        let mut agents = self.agents();
        agents.there.remove(name);
        agents.away.remove(name);
    }

    fn come(&self, name: &str, registry: &Arc<Registry>) {
        let mut agents = self.agents();
        agents.there.insert(name.to_owned(), Arc::clone(registry));
        agents.away.remove(name);
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of pods whose API objects went while no node ran, for who comes to clean it up; each
    /// is named once, until it is [cleaned](Site::cleaned).
    ///
    /// Nothing while a node is away: whose a pod is that the API does not know, nobody knows, and those of a
    /// node that is away are to run on.
    pub(crate) fn orphans(&self, pods: &[Arc<Pod>]) -> Orphans {
        let mut agents = self.agents();
        if !agents.away.is_empty() {
            return Orphans::default();
        }
        let known = agents.known(pods);
        let Config { state_dir, run_dir, .. } = &self.0.config;
        let mut uids = match Folders::all([run_dir, state_dir]) {
            Ok(uids) => uids,
            Err(error) => {
                tracing::error!(%error, "folders of pods not read: what is left of old pods stays");
                return Orphans::default();
            }
        };
        let (with_cgroups, spares) = self.0.cgroups.found();
        uids.extend(with_cgroups);
        uids.sort();
        uids.dedup();
        uids.retain(|it| !known.contains(it) && agents.cleaning.insert(it.clone()));
        // Later ones are this process's own.
        let first = !std::mem::replace(&mut agents.looked, true);
        Orphans { uids, spares: if first { spares } else { Vec::new() } }
    }

    /// Nothing of the pod is left.
    pub(crate) fn cleaned(&self, uid: &str) {
        self.agents().cleaning.remove(uid);
    }
}

impl Agents {
    /// The pods that a node of this machine has or had, and takes care of.
    fn known(&self, pods: &[Arc<Pod>]) -> BTreeSet<String> {
        let bound = pods.iter().filter(|it| {
            let node = it.spec.as_ref().and_then(|it| it.node_name.as_deref());
            node.is_some_and(|it| self.there.contains_key(it))
        });
        let bound = bound.filter_map(|it| it.metadata.uid.clone());
        // The objects of some are gone, and their workers end them.
        let worked = self.there.values().flat_map(|it| it.list());
        bound.chain(worked.map(|(_, it)| it.folders.uid)).collect()
    }
}

/// What no node takes care of.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// Pods.
    pub(crate) uids: Vec<String>,
    /// Control groups that an earlier process made for pods that never were.
    pub(crate) spares: Vec<String>,
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
