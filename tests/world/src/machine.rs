//! The fake machine: one Node that starts whatever is bound to it, and ends what is to go.
//!
//! It keeps the promises of a node agent (statuses, conditions, graceful deletion), and has no
//! processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Api, Cache, Caches, Client, DeleteParams, Key, Loop, Next, Patch, PatchParams, PostParams,
    Preconditions,
};
use jiff::SignedDuration;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use runtime::{Clock, Tasks};
use serde_json::json;

/// Name of the one Node.
pub const NODE: &str = "machine";

/// Shortest and longest time in which a pod gets ready, in milliseconds.
const START_MS: std::ops::Range<u64> = 50..2_000;

/// Shortest and longest time in which a pod ends, in milliseconds.
const STOP_MS: std::ops::Range<u64> = 10..1_000;

/// Makes the Node and starts its agent.
pub(crate) async fn start(
    client: &Client,
    seed: u64,
    clock: &Clock,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE}}))?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await?;
    let status = json!({"status": {
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
        "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status"}],
    }});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await?;
    let pods = Caches::new(client.clone(), tasks).of::<Pod>();
    let agent = Arc::new(Agent {
        client: client.clone(),
        clock: clock.clone(),
        pods: pods.clone(),
        state: Mutex::new(State {
            random: fastrand::Rng::with_seed(seed ^ 1),
            due: BTreeMap::new(),
            addresses: 0,
        }),
    });
    Loop::new("machine").triggered_by(&pods, |change| vec![change.key.clone()]).run(
        tasks,
        move |key| {
            let agent = Arc::clone(&agent);
            async move { agent.reconcile(&key).await }
        },
    );
    Ok(())
}

struct Agent {
    client: Client,
    clock: Clock,
    pods: Cache<Pod>,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    /// When the next thing happens to a pod, by uid and by whether it is on its way out.
    due: BTreeMap<(String, bool), jiff::Timestamp>,
    addresses: u32,
}

impl Agent {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let Some(pod) = self.pods.get(key) else { return Ok(Next::AwaitChange) };
        let node = pod.spec.as_ref().and_then(|it| it.node_name.as_deref());
        if node != Some(NODE) {
            return Ok(Next::AwaitChange);
        }
        let going = pod.metadata.deletion_timestamp.is_some();
        let running = pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
        if running && !going {
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
            let status = Patch::Strategic(self.running(&uid));
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
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { random, due, .. } = &mut *state;
        let now = self.clock.now();
        let due = due.entry((uid.to_owned(), going)).or_insert_with(|| {
            let ms = random.u64(if going { STOP_MS } else { START_MS });
            now + SignedDuration::from_millis(ms.try_into().unwrap_or(0))
        });
        Duration::try_from(due.duration_since(now)).ok().filter(|it| !it.is_zero())
    }

    fn running(&self, uid: &str) -> serde_json::Value {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
