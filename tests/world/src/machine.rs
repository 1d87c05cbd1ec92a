//! The fake machine: Nodes that start whatever is bound to them, and end what is to go.
//!
//! It keeps the promises of a node agent (statuses, conditions, graceful deletion, a Lease where there are
//! several), and has no processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Api, Cache, Caches, Client, DeleteParams, Key, Loop, Next, Patch, PatchParams, PostParams,
    Preconditions, Trigger,
};
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use runtime::{Clock, OnExit, Tasks};
use serde_json::json;

/// Name of the first Node; the others have a number, too.
pub const NODE: &str = "machine";

/// Shortest and longest time in which a pod gets ready, in milliseconds.
const START_MS: std::ops::Range<u64> = 50..2_000;

/// Shortest and longest time in which a pod ends, in milliseconds.
const STOP_MS: std::ops::Range<u64> = 10..1_000;

/// For how long a Lease holds, and how often it is renewed.
const LEASE_SECONDS: u64 = 40;
const RENEWAL: Duration = Duration::from_secs(10);

/// The machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Agent>);

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// Makes the first Node and starts its agent.
pub(crate) async fn start(
    client: &Client,
    seed: u64,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<Machine> {
    let pods = Caches::new(client.clone(), tasks).of::<Pod>();
    let agent = Arc::new(Agent {
        client: client.clone(),
        clock: clock.clone(),
        pods: pods.clone(),
        state: Mutex::new(State {
            random: fastrand::Rng::with_seed(seed ^ 1),
            due: BTreeMap::new(),
            addresses: 0,
            away: BTreeSet::new(),
        }),
        again: Trigger::new(),
    });
    agent.register(NODE).await?;
    let machine = Machine(Arc::clone(&agent));
    Loop::new("machine")
        .triggered_by(&pods, |change| vec![change.key.clone()])
        .woken_by(&agent.again.clone())
        .run(tasks, move |key| {
            let agent = Arc::clone(&agent);
            async move { agent.reconcile(&key).await }
        });
    Ok(machine)
}

impl Machine {
    /// Has `count` Nodes, each in a zone of its own and with a Lease, from now on.
    pub(crate) async fn grow(&self, count: usize, tasks: &Tasks) -> anyhow::Result<()> {
        let mut names = vec![NODE.to_owned()];
        for number in 2..=count {
            let name = format!("{NODE}-{number}");
            self.0.register(&name).await?;
            names.push(name);
        }
        for name in &names {
            self.0.renew(name).await?;
        }
        let agent = Arc::clone(&self.0);
        tasks.spawn("leases", OnExit::StopProcess, |stop| async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(RENEWAL) => {}
                }
                for name in names.iter().filter(|it| !agent.is_away(it)) {
                    agent.renew(name).await?;
                }
            }
        });
        Ok(())
    }

    /// A Node is not heard of any more, and does nothing, whatever becomes of its pods.
    pub(crate) fn lose(&self, name: &str) {
        self.0.state().away.insert(name.to_owned());
    }

    /// A Node is back, and finds out what it has missed.
    pub(crate) async fn find(&self, name: &str) -> anyhow::Result<()> {
        self.0.state().away.remove(name);
        self.0.renew(name).await?;
        self.0.say_ready(name).await?;
        for pod in self.0.pods.list() {
            self.0.again.wake(Key::of(&*pod));
        }
        Ok(())
    }
}

struct Agent {
    client: Client,
    clock: Clock,
    pods: Cache<Pod>,
    state: Mutex<State>,
    /// Wakes pods whose Node is back.
    again: Trigger,
}

struct State {
    random: fastrand::Rng,
    /// When the next thing happens to a pod, by uid and by whether it is on its way out.
    due: BTreeMap<(String, bool), jiff::Timestamp>,
    addresses: u32,
    /// Nodes that were lost.
    away: BTreeSet<String>,
}

impl Agent {
    async fn register(&self, name: &str) -> anyhow::Result<()> {
        let labels = json!({"topology.kubernetes.io/zone": format!("zone-of-{name}")});
        let node = json!({"metadata": {"name": name, "labels": labels}});
        let node: Node = serde_json::from_value(node)?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        self.say_ready(name).await
    }

    async fn say_ready(&self, name: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = json!({"status": {
            "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
            "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status"}],
        }});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    async fn renew(&self, name: &str) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let now = MicroTime(self.clock.now());
        let spec = json!({"leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let patch = Patch::Merge(json!({"spec": spec}));
        match leases.patch(name, &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => {
                let lease = json!({"metadata": {"name": name}, "spec": spec});
                let lease: Lease = serde_json::from_value(lease)?;
                leases.create(&PostParams::default(), &lease).await?;
            }
            done => drop(done?),
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self, name: &str) -> bool {
        self.state().away.contains(name)
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let Some(pod) = self.pods.get(key) else { return Ok(Next::AwaitChange) };
        let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
        if node.is_none_or(|it| !it.starts_with(NODE) || self.is_away(it)) {
            return Ok(Next::AwaitChange);
        }
        let going = pod.metadata.deletion_timestamp.is_some();
        let running = pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
        if running && !going && is_ready(&pod) {
            return Ok(Next::AwaitChange);
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(wait) = self.wait(&uid, going) {
            return Ok(Next::RequeueAfter(wait));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace_or_empty());
        let result = if going {
            let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
            let params =
                DeleteParams { grace_period_seconds: Some(0), preconditions, ..Default::default() };
            pods.delete(&key.name, &params).await.map(drop)
        } else {
            let status = if running { self.ready(&uid) } else { self.running(&uid) };
            let status = Patch::Strategic(status);
            pods.patch_status(&key.name, &PatchParams::default(), &status).await.map(drop)
        };
        match result {
            Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                Err(error.into())
            }
            _ => Ok(Next::AwaitChange),
        }
    }

    /// How long until the next thing happens to the pod; `None` if it is time.
    fn wait(&self, uid: &str, going: bool) -> Option<Duration> {
        let mut state = self.state();
        let State { random, due, .. } = &mut *state;
        let now = self.clock.now();
        let due = due.entry((uid.to_owned(), going)).or_insert_with(|| {
            let ms = random.u64(if going { STOP_MS } else { START_MS });
            now + SignedDuration::from_millis(ms.try_into().unwrap_or(0))
        });
        Duration::try_from(due.duration_since(now)).ok().filter(|it| !it.is_zero())
    }

    /// The status of a pod that was said not to be ready, while its Node was away.
    fn ready(&self, uid: &str) -> serde_json::Value {
        let now = Time(self.clock.now());
        json!({
            "metadata": {"uid": uid},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": now}]},
        })
    }

    fn running(&self, uid: &str) -> serde_json::Value {
        let mut state = self.state();
        state.addresses += 1;
        let [_, _, high, low] = state.addresses.to_be_bytes();
        let address = format!("10.244.{high}.{low}");
        let now = Time(self.clock.now());
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        json!({
            "metadata": {"uid": uid},
            "status": {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now,
                "conditions": [condition("Initialized"), condition("Ready"),
                    condition("ContainersReady")],
            },
        })
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
