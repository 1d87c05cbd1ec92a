//! The nodes of the machine: how many there are, as the cluster says, and an agent for each of them.
//!
//! A node that is to go is drained first: nothing new comes to it, its pods are deleted, and when it has none
//! its agent ends and the object goes. A node may be lost on purpose, too ([`Nodes::lose`]): nobody but who
//! asks for it knows, and all others find out as they would if a machine were lost.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use api::nodes::{self, Wanted};
use client::{Api, Cache, Caches, Client, DeleteParams, Key, ListParams, Patch, PatchParams};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use node::{Division, NodeConfig, Site};
use runtime::{Backoff, OnExit, Tasks};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::adapters::PodNetwork;

/// How long the tasks of a node may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Wait after a step of making or draining nodes has failed.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), max: Duration::from_secs(10) };

/// The nodes of the machine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Nodes(Arc<Shared>);

struct Shared {
    site: Site,
    pods_network: PodNetwork,
    client: Client,
    pods: Cache<Pod>,
    /// For the tasks of nodes.
    tasks: Tasks,
    /// Those that are there, and those that were taken away, by name.
    agents: Mutex<BTreeMap<String, Agent>>,
    /// Held while a node comes or goes.
    changing: tokio::sync::Mutex<()>,
}

enum Agent {
    There { handle: node::Handle, tasks: Tasks },
    Away(Loss),
}

/// How a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// As if its kubelet were frozen or cut off from the API: its Lease is renewed no more, nothing is done to
    /// its pods and nothing told of them, and their logs cannot be read. Its pods run on with their connections,
    /// unprobed.
    Silent,
    /// As if its machine had lost its power: all processes of its pods are killed, too. What they wrote to
    /// volumes is there when it comes back.
    Dead,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("site", &self.0.site).finish_non_exhaustive()
    }
}

/// How many nodes there are to be, before anything can hear of it.
pub(super) async fn wanted(client: &Client) -> anyhow::Result<Wanted> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), nodes::NAMESPACE);
    let found =
        config_maps.get_opt(nodes::CONFIG_MAP).await.context("read how many nodes to run")?;
    Ok(read(found.as_ref()).unwrap_or_default())
}

/// What cannot be read changes nothing, and is said.
fn read(config_map: Option<&ConfigMap>) -> Option<Wanted> {
    let Some(data) = config_map.and_then(|it| it.data.as_ref()) else {
        return Some(Wanted::default());
    };
    Wanted::parse(data).inspect_err(|error| tracing::error!(%error, "nodes stay as they are")).ok()
}

/// How the machine is divided.
pub(super) fn division(wanted: Wanted, network: &network::Handle) -> Division {
    let most = network.addresses().nodes_max();
    if most < wanted.nodes {
        let (range, wanted) = (network.addresses().pods, wanted.nodes);
        tracing::error!(%range, most, wanted, "the pods' range has no room for so many nodes");
    }
    Division { nodes: wanted.nodes.min(most), lease: wanted.lease }
}

/// A node that does not run yet, and what runs it.
struct Made {
    agent: node::Agent,
    tasks: Tasks,
}

impl Nodes {
    /// Starts the nodes that there are to be, and those that are still to be drained.
    pub(super) async fn start(
        (site, pods_network): (Site, PodNetwork),
        division: Division,
        (client, caches): (&Client, &Caches),
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let this = Self(Arc::new(Shared {
            site,
            pods_network,
            client: client.clone(),
            pods: caches.of(),
            tasks: tasks.clone(),
            agents: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }));
        let leaving = this.leaving(division.nodes).await?;
        let leaving = leaving.iter().filter_map(|it| this.0.site.index(it));
        let made: Vec<Made> = (0..division.nodes)
            .chain(leaving)
            .map(|it| this.make(it))
            .collect::<anyhow::Result<_>>()?;
        // Only when all are known: what is left of a pod of nobody's is removed by the first that looks.
        made.into_iter().for_each(|it| this.begin(it));
        let (keeping, caches) = (this.clone(), caches.clone());
        tasks.spawn("nodes", OnExit::StopProcess, |stop| keeping.keep(caches, stop));
        Ok(this)
    }

    /// The node of this name, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<node::Handle> {
        match self.agents().get(name) {
            Some(Agent::There { handle, .. }) => Some(handle.clone()),
            Some(Agent::Away(_)) | None => None,
        }
    }

    /// The node that works on the pod of this uid, if one that is there does.
    pub(super) fn of_pod(&self, uid: &str) -> Option<node::Handle> {
        let agents = self.agents();
        let mut handles = agents.values().filter_map(Agent::handle);
        handles.find(|it| it.has(uid)).cloned()
    }

    /// Does that to all processes of a pod, whether its node is there or not.
    pub(super) async fn signal(
        &self,
        uid: &str,
        signalled: node::Signalled,
    ) -> Result<(), node::SignalError> {
        self.0.site.signal(uid, signalled).await
    }

    /// What the nodes that are there use.
    pub(super) async fn usage(&self) -> io::Result<Vec<node::Usage>> {
        self.0.site.usage().await
    }

    /// Stops every pod of every node that is there, with at most `grace` for each; says whether all did.
    pub(super) async fn stop_all(&self, grace: Duration) -> bool {
        let handles: Vec<node::Handle> = {
            let agents = self.agents();
            agents.values().filter_map(|it| Some(it.handle()?.clone())).collect()
        };
        join_all(handles.iter().map(|it| it.stop_all(grace))).await.into_iter().all(|it| it)
    }

    /// Stops the agents; pods run on. Says whether they stopped in time.
    pub(super) async fn shutdown(&self, grace: Duration) -> bool {
        let all: Vec<Tasks> = {
            let agents = self.agents();
            let tasks = agents.values().filter_map(|it| match it {
                Agent::There { tasks, .. } => Some(tasks.clone()),
                Agent::Away(_) => None,
            });
            tasks.collect()
        };
        join_all(all.iter().map(|it| it.shutdown(grace))).await.into_iter().all(|it| it)
    }

    /// Loses these nodes, and no others: those that were lost before come back. May be repeated.
    ///
    /// A node that comes back is made anew, as after a restart of the process: it adopts what still runs, starts
    /// what has ended as policies say, ends pods that were deleted meanwhile, and reports. No fault outlives the
    /// process.
    pub(super) async fn lose(&self, lost: &BTreeMap<String, Loss>) -> anyhow::Result<()> {
        let _changing = self.0.changing.lock().await;
        for (name, loss) in lost {
            self.take_away(name, *loss).await.with_context(|| format!("lose node `{name}`"))?;
        }
        let known: Vec<String> = self.agents().keys().cloned().collect();
        for name in known.iter().filter(|it| !lost.contains_key(*it)) {
            self.bring_back(name)?;
        }
        Ok(())
    }

    async fn take_away(&self, name: &str, loss: Loss) -> anyhow::Result<()> {
        match self.agents().get(name) {
            None => anyhow::bail!("there is no node of this name on this machine"),
            // A dead one has no pods that could be merely silent.
            Some(Agent::Away(before)) if loss <= *before => return Ok(()),
            Some(Agent::Away(_) | Agent::There { .. }) => {}
        }
        let pods = self.0.site.pods_of(name);
        self.stop(name, loss).await;
        if loss == Loss::Dead {
            self.0.site.kill(&pods).await.context("kill its pods")?;
        }
        Ok(())
    }

    fn bring_back(&self, name: &str) -> anyhow::Result<()> {
        match self.0.site.index(name) {
            Some(index) => self.run(index),
            None => Ok(()),
        }
    }

    /// Stops the agent of a node; its pods run on.
    async fn stop(&self, name: &str, loss: Loss) {
        let stopped = self.agents().insert(name.to_owned(), Agent::Away(loss));
        let Some(Agent::There { handle, tasks }) = stopped else { return };
        self.0.site.left(name);
        if !tasks.shutdown(STOP_GRACE).await {
            tracing::warn!(node = name, "the agent did not stop in time");
        }
        handle.clear().await;
    }

    /// Makes a node run, if it does not.
    fn run(&self, index: u32) -> anyhow::Result<()> {
        if self.get(&self.0.site.name(index)).is_none() {
            self.begin(self.make(index)?);
        }
        Ok(())
    }

    /// A node that does not run yet, and takes care of its pods from now on.
    fn make(&self, index: u32) -> anyhow::Result<Made> {
        let name = self.0.site.name(index);
        let PodNetwork { network, proxy } = self.0.pods_network.clone();
        let (addresses, network) = (network.addresses(), network.on_node(index));
        let network = network.with_context(|| format!("give node `{name}` its address"))?;
        let part = addresses.part(index);
        let part_v6 = addresses.v6().map(|(prefix, low)| prefix.range(low.part(index)));
        let config = NodeConfig {
            index,
            address: addresses.node(index),
            pod_cidrs: [part.to_string()].into_iter().chain(part_v6).collect(),
            addresses: part.pods_max(),
            network: Arc::new(PodNetwork { network, proxy }),
        };
        let tasks = self.0.tasks.component();
        Ok(Made { agent: self.0.site.node(config, &tasks), tasks })
    }

    fn begin(&self, Made { agent, tasks }: Made) {
        let (name, handle) = (agent.name().to_owned(), agent.handle());
        agent.run(&tasks);
        self.agents().insert(name, Agent::There { handle, tasks });
    }

    /// Follows how many nodes there are to be.
    async fn keep(self, caches: Caches, stop: CancellationToken) -> anyhow::Result<()> {
        let config_maps = caches.singles::<ConfigMap>();
        let said = config_maps.hold(&Key::namespaced(nodes::NAMESPACE, nodes::CONFIG_MAP));
        let mut changes = said.subscribe();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            ((), ()) = async { tokio::join!(said.synced(), self.0.pods.synced()) } => {}
        }
        let mut wanted = None;
        let mut failures = 0;
        let key = Key::namespaced(nodes::NAMESPACE, nodes::CONFIG_MAP);
        loop {
            wanted = read(config_maps.get(&key).as_deref()).or(wanted);
            let division = division(wanted.unwrap_or_default(), &self.0.pods_network.network);
            let become_so = async {
                match self.become_so(division).await {
                    Ok(()) => std::future::pending().await,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "nodes do not come or go");
                        tokio::time::sleep(RETRY.delay(failures)).await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = changes.next() => failures = 0,
                () = become_so => failures += 1,
            }
        }
    }

    /// Makes nodes come and go until there are as many as there are to be. May be dropped at any time, and
    /// done again.
    async fn become_so(&self, division: Division) -> anyhow::Result<()> {
        let most = u32::try_from(self.agents().len()).unwrap_or(u32::MAX);
        {
            let _changing = self.0.changing.lock().await;
            self.0.site.divide(division);
            for index in 0..division.nodes {
                let name = self.0.site.name(index);
                if !self.agents().contains_key(&name) {
                    self.run(index)?;
                }
                // It may have been about to go.
                if index < most {
                    self.stays(&name).await.with_context(|| format!("keep node `{name}`"))?;
                }
            }
        }
        let leaving = self.leaving(division.nodes).await?;
        let leave = leaving.iter().map(async |name| {
            self.leave(name).await.with_context(|| format!("drain node `{name}`"))
        });
        join_all(leave).await.into_iter().collect()
    }

    /// The nodes of this machine beyond the first `count`.
    async fn leaving(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let nodes = nodes.list(&ListParams::default()).await.context("list nodes")?;
        let names = nodes.items.into_iter().filter_map(|it| it.metadata.name);
        let known: Vec<String> = self.agents().keys().cloned().collect();
        let mut names: Vec<String> = names.chain(known).collect();
        names.retain(|it| self.0.site.index(it).is_some_and(|index| count <= index));
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Lets pods come to a node that was about to go.
    async fn stays(&self, name: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let node = nodes.get_opt(name).await?;
        let annotations = node.and_then(|it| it.metadata.annotations).unwrap_or_default();
        if annotations.contains_key(api::annotation::LEAVING) {
            let metadata = json!({ "annotations": { api::annotation::LEAVING: null } });
            let patch = json!({ "metadata": metadata, "spec": { "unschedulable": null } });
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(())
    }

    /// Drains a node, and lets it go when it has no pods.
    async fn leave(&self, name: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let metadata = json!({ "annotations": { api::annotation::LEAVING: "true" } });
        let patch = json!({ "metadata": metadata, "spec": { "unschedulable": true } });
        match nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => {}
            done => drop(done?),
        }
        // Only its agent ends its pods.
        {
            let _changing = self.0.changing.lock().await;
            self.bring_back(name)?;
        }
        let mut changes = self.0.pods.subscribe();
        loop {
            let all = self.0.pods.list();
            let own: Vec<_> = all.iter().filter(|it| is_on(it, name)).collect();
            if own.is_empty() {
                break;
            }
            for pod in own.iter().filter(|it| it.metadata.deletion_timestamp.is_none()) {
                self.delete(pod).await?;
            }
            changes.next().await;
        }
        {
            let _changing = self.0.changing.lock().await;
            self.stop(name, Loss::Silent).await;
            self.0.site.gone(name);
            self.agents().remove(name);
        }
        match nodes.delete(name, &DeleteParams::default()).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    async fn delete(&self, pod: &Pod) -> anyhow::Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.0.client.clone(), namespace);
        match pods.delete(name, &DeleteParams::default()).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            done => done.map(drop).with_context(|| format!("delete pod `{namespace}/{name}`")),
        }
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    fn handle(&self) -> Option<&node::Handle> {
        match self {
            Self::There { handle, .. } => Some(handle),
            Self::Away(_) => None,
        }
    }
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|it| it.node_name.as_deref()) == Some(node)
}
