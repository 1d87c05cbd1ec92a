//! Taint eviction: deletes the pods that do not tolerate their node's taints, or not any longer; and those
//! whose node is gone, which nobody else could end.

mod decide;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Api, Cache, Change, DeleteParams, EventType, Events, Key, Loop, Next, Patch, PatchParams,
    Preconditions, Resource as _,
};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;
use tokio::time::Instant;

use crate::Controller;
use decide::{Decision, Seen, decide, is_tainted};

/// How long a node must be gone before its pods are taken for lost (`quarantineTime` of the original): it may
/// only be made anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let (nodes, pods) = (controller.caches.of::<Node>(), controller.caches.of::<Pod>());
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        nodes: nodes.clone(),
        pods: pods.clone(),
        gone: Mutex::default(),
        events: controller.events("taint-eviction-controller"),
    });
    let of_pods = nodes.clone();
    Loop::new("taint-eviction")
        .triggered_by(&nodes, |change| vec![change.key.clone()])
        .triggered_by(&pods, move |change| concerned(&of_pods, change))
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(key).await }
        });
}

/// The pod's node, if pods may have to leave it.
fn concerned(nodes: &Cache<Node>, change: &Change<Pod>) -> Vec<Key> {
    let node = change.new.as_ref().and_then(|it| node_of(it)).map(Key::cluster);
    node.filter(|it| nodes.get(it).is_none_or(|it| is_tainted(&it))).into_iter().collect()
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|it| it.node_name.as_deref()).filter(|it| !it.is_empty())
}

struct Reconciler {
    controller: Controller,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    /// Nodes that are not there, and since when that is known.
    gone: Mutex<BTreeMap<String, Instant>>,
    events: Events,
}

/// Why a pod is deleted.
struct Why {
    reason: &'static str,
    message: &'static str,
    /// Nobody is there to end it in peace.
    at_once: bool,
}

const TAINTED: Why = Why {
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
    at_once: false,
};
const ORPHANED: Why =
    Why { reason: "DeletionByPodGC", message: "PodGC: node no longer exists", at_once: true };

impl Reconciler {
    async fn reconcile(&self, key: Key) -> anyhow::Result<Next> {
        let pods = || {
            let all = self.pods.list().into_iter();
            all.filter(|it| node_of(it) == Some(&key.name)).collect::<Vec<Arc<Pod>>>()
        };
        let Some(node) = self.nodes.get(&key) else { return self.end_orphans(&key, pods()).await };
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
        if !is_tainted(&node) {
            return Ok(Next::AwaitChange);
        }
        let seen = Seen { node, pods: pods(), now: self.controller.clock.now() };
        let Decision { evict, wait, reason } = decide(&seen);
        tracing::debug!(node = key.name, reason, "decided");
        for pod in &evict {
            let note = format!("Marking for deletion Pod {}", Key::of(&**pod));
            let about = pod.object_ref(&());
            self.events.record(about, EventType::Normal, "TaintManagerEviction", note);
            self.delete(pod, &TAINTED).await?;
        }
        Ok(wait.map_or(Next::AwaitChange, Next::RequeueAfter))
    }

    async fn end_orphans(&self, key: &Key, pods: Vec<Arc<Pod>>) -> anyhow::Result<Next> {
        let since = {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            if pods.is_empty() {
                gone.remove(&key.name);
                return Ok(Next::AwaitChange);
            }
            *gone.entry(key.name.clone()).or_insert_with(Instant::now)
        };
        let left = QUARANTINE.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Ok(Next::RequeueAfter(left));
        }
        // The cache may be behind.
        let nodes: Api<Node> = Api::all(self.controller.client.clone());
        if nodes.get_opt(&key.name).await?.is_some() {
            return Ok(Next::RequeueAfter(QUARANTINE));
        }
        for pod in &pods {
            tracing::info!(pod = %Key::of(&**pod), node = key.name, "deleting a pod whose node is gone");
            self.delete(pod, &ORPHANED).await?;
        }
        Ok(Next::AwaitChange)
    }

    /// Says in the pod's status why it goes, and deletes it.
    async fn delete(&self, pod: &Pod, why: &Why) -> anyhow::Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.controller.client.clone(), namespace);
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some(why.reason.to_owned()),
            message: Some(why.message.to_owned()),
            last_transition_time: Some(Time(self.controller.clock.now())),
            observed_generation: pod.metadata.generation,
            ..Default::default()
        };
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [condition]},
        }));
        let told = pods.patch_status(name, &PatchParams::default(), &patch).await;
        let uid = pod.metadata.uid.clone();
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let grace_period_seconds = why.at_once.then_some(0);
        let params = DeleteParams { preconditions, grace_period_seconds, ..Default::default() };
        let deleted = match told {
            Ok(_) => pods.delete(name, &params).await.map(drop),
            Err(error) => Err(error),
        };
        match deleted {
            // It is gone, and another may have its name.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => Ok(()),
            done => Ok(done?),
        }
    }
}
