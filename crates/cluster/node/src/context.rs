//! What all pods of the node share: folders, network, objects, clock. Handed in, never global.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::{Client, Events};
use futures_util::future::BoxFuture;
use image::Owners;
use k8s_openapi::api::core::v1::Pod;
use runtime::Clock;
use shim::NurseryCommand;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::{
    cgroups::{Cgroups, oom::OomScores},
    files::{Dns, HostResolver},
    images::Images,
    links::Links,
    machine::Machine,
    references::ReferredObjects,
    roots::Roots,
    seccomp::Programs,
    site::Division,
    spares::Spares,
    volumes::Means,
};

/// Where a pod is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// Its first address.
    pub v4: Ipv4Addr,
    /// Its second one, if it has one.
    pub v6: Option<Ipv6Addr>,
}

impl PodAddress {
    /// All there are, in the order in which `podIPs` lists them.
    pub(crate) fn all(self) -> impl Iterator<Item = IpAddr> {
        [IpAddr::V4(self.v4)].into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl From<Ipv4Addr> for PodAddress {
    fn from(v4: Ipv4Addr) -> Self {
        Self { v4, v6: None }
    }
}

/// A pod's network, as the node needs it.
pub trait PodNetwork: Send + Sync {
    /// Gives the network namespace `netns` of the pod an interface, an address and routes. A pod
    /// that is attached already (by an earlier process) keeps its address.
    fn attach<'a>(
        &'a self,
        pod_uid: &'a str,
        netns: OwnedFd,
    ) -> BoxFuture<'a, anyhow::Result<PodAddress>>;
    /// The same for a namespace that has no pod yet; returns what stands in place of the uid. It does
    /// not outlive this process, unless a pod takes it over.
    fn attach_spare(&self, netns: OwnedFd) -> BoxFuture<'_, anyhow::Result<(String, PodAddress)>>;
    /// Makes what was attached as `spare` the pod's.
    fn take_over<'a>(
        &'a self,
        spare: &'a str,
        pod_uid: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Takes it away and frees the address. Detaching what is not attached is no error.
    fn detach<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// A connection to what listens on the host's `127.0.0.1`.
    fn connect_host(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>>;
    /// How the host resolves names now.
    fn host_resolver(&self) -> HostResolver;
    /// Resolves once no service sends new connections to `address`. The caller bounds the wait.
    fn unrouted(&self, address: PodAddress) -> BoxFuture<'_, ()>;
}

/// Where processes can be on the host's network, which this process is not.
pub trait HostProcesses: Send + Sync {
    /// Starts the command on the host's network, but in this process's user and mount namespaces. May
    /// block for some milliseconds.
    ///
    /// # Errors
    /// If it cannot be started.
    fn start(&self, command: NurseryCommand) -> io::Result<()>;
}

/// Whether the pod is on the host's network instead of having an address of its own.
pub(crate) fn is_on_host(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|it| it.host_network) == Some(true)
}

/// What all pods of the node share.
pub(crate) struct Context {
    /// The whole machine, by the name of the node.
    pub(crate) machine: Machine,
    pub(crate) division: watch::Receiver<Division>,
    pub(crate) address: Ipv4Addr,
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) inherited: Vec<(String, String)>,
    pub(crate) dns: Dns,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    pub(crate) objects: ReferredObjects,
    pub(crate) images: Images,
    /// Programs of seccomp, compiled once.
    pub(crate) seccomp: Arc<Programs>,
    /// Who owns what images and volumes hold.
    pub(crate) owners: Owners,
    /// What the roots of containers of images are.
    pub(crate) roots: Roots,
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) oom_scores: OomScores,
    /// Shims for pods that will begin.
    pub(crate) spares: Spares,
    /// Bounds how many sandboxes and containers are made at once.
    pub(crate) starts: Arc<Semaphore>,
    /// Beginning of [`Self::uptime`].
    pub(crate) begun: Instant,
}

impl Context {
    /// Time since the agent began, on a clock that never jumps.
    pub(crate) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The tokio time at which [`Self::uptime`] will be `uptime`.
    pub(crate) fn instant(&self, uptime: Duration) -> Instant {
        self.begun + uptime
    }

    /// What of the machine is the node's.
    pub(crate) fn share(&self) -> Machine {
        self.machine.share(self.division.borrow().nodes)
    }

    /// What a pod's volumes are made with.
    pub(crate) fn means<'a>(&'a self, pod: &Pod, folders: &'a Folders) -> Means<'a> {
        let spec = pod.spec.as_ref().and_then(|it| it.security_context.as_ref());
        let group = spec.and_then(|it| it.fs_group).and_then(|it| u64::try_from(it).ok());
        let group = group.map(|it| self.owners.on_disk(0, it).1);
        let (objects, now) = (&self.objects, self.clock.now());
        Means { folder: &folders.state, objects, now, group }
    }

    /// Whether the pod has a user namespace for all its containers. Without root each container has one
    /// whatever the pod says.
    pub(crate) fn has_own_users(&self, pod: &Pod) -> bool {
        let host_users = pod.spec.as_ref().and_then(|it| it.host_users);
        self.owners == Owners::Root && host_users == Some(false)
    }

    /// The links as last seen.
    pub(crate) fn links(&self) -> Links {
        Links::read(self.objects.links().as_deref())
    }
}

/// The folders of one pod. All that is known of a pod whose API object is gone.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    /// metadata.uid.
    pub(crate) uid: String,
    /// Socket, exit files: gone after a reboot.
    pub(crate) run: PathBuf,
    /// Volumes and files.
    pub(crate) state: PathBuf,
    /// Logs.
    pub(crate) logs: PathBuf,
}

impl Folders {
    /// Folders of `pod`.
    pub(crate) fn of(context: &Context, pod: &Pod) -> Self {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let uid = text(&metadata.uid);
        let logs = context.state_dir.join("logs").join(format!("{namespace}_{name}_{uid}"));
        Self::new(context, uid, logs)
    }

    /// Folders of a pod of which only the uid is known: its logs are found by their name.
    pub(crate) fn of_orphan(context: &Context, uid: String) -> Self {
        let logs = context.state_dir.join("logs");
        let suffix = format!("_{uid}");
        let found = fs::read_dir(&logs)
            .into_iter()
            .flatten()
            .flatten()
            .find(|it| it.file_name().to_string_lossy().ends_with(&suffix));
        let logs = found.map_or_else(|| logs.join(suffix), |it| it.path());
        Self::new(context, uid, logs)
    }

    fn new(context: &Context, uid: String, logs: PathBuf) -> Self {
        let run = context.run_dir.join("pods").join(&uid);
        let state = context.state_dir.join("pods").join(&uid);
        Self { uid, run, state, logs }
    }

    /// The uids of all pods that have folders in a run and a state folder, in order.
    pub(crate) fn all(folders: [&PathBuf; 2]) -> io::Result<Vec<String>> {
        let mut uids = Vec::new();
        for dir in folders {
            let entries = match fs::read_dir(dir.join("pods")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries {
                uids.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        uids.sort();
        uids.dedup();
        Ok(uids)
    }

    /// The log file of a run of a container.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(container).join(format!("{attempt}.log"))
    }

    /// What a run of a container of an image changes in its root.
    pub(crate) fn writable(&self, container: &str, attempt: u32) -> PathBuf {
        self.all_writable().join(format!("{container}.{attempt}"))
    }

    /// What all runs of containers of images have changed.
    pub(crate) fn all_writable(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// The file that a run of a container finds at its `terminationMessagePath`.
    pub(crate) fn termination_message(&self, container: &str, attempt: u32) -> PathBuf {
        self.state.join(format!("{container}.{attempt}.message"))
    }
}

/// Makes a folder that only its owner can look into, and those above it.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)
}
