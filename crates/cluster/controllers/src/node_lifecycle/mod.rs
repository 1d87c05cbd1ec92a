//! Node lifecycle: who does not renew its Lease is lost, which its conditions and taints say, and so do its
//! pods: they are not ready. What becomes of pods on a tainted node is the business of `taint_eviction`.
//!
//! How long ago a Lease was renewed is counted here, from when the renewal was seen: no clock of another
//! machine matters, and neither does the time for which this one slept.

mod decide;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use client::{
    Api, Cache, Change, EventType, Events, Key, Loop, Next, Patch, PatchParams, Resource as _,
};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod, PodCondition, Taint},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::json;
use tokio::time::Instant;

use crate::Controller;
use decide::{Decision, Seen, decide, is_ready};

/// Namespace of node leases.
const LEASES: &str = "kube-node-lease";

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let nodes = controller.caches.of::<Node>();
    let leases = controller.caches.of::<Lease>();
    let pods = controller.caches.of::<Pod>();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        nodes: nodes.clone(),
        leases: leases.clone(),
        pods: pods.clone(),
        heard: Mutex::default(),
        events: controller.events("node-controller"),
    });
    let all = nodes.clone();
    Loop::new("node-lifecycle")
        .triggered_by(&nodes, move |change| concerned(&all, change))
        .triggered_by(&leases, |change| {
            let own = change.key.namespace.as_deref() == Some(LEASES);
            own.then(|| Key::cluster(&*change.key.name)).into_iter().collect()
        })
        .after(&pods)
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(key).await }
        });
}

/// The node; and if it is ready now or not any more, all others: whether pods could go anywhere matters to
/// them.
fn concerned(nodes: &Cache<Node>, change: &Change<Node>) -> Vec<Key> {
    let ready = |it: &Option<Arc<Node>>| it.as_ref().is_some_and(|it| is_ready(it));
    if ready(&change.old) == ready(&change.new) {
        return vec![change.key.clone()];
    }
    let others = nodes.list().into_iter().map(|it| Key::of(&*it));
    others.filter(|it| *it != change.key).chain([change.key.clone()]).collect()
}

struct Reconciler {
    controller: Controller,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    /// The last renewal of each node, and when it was seen.
    heard: Mutex<BTreeMap<String, (Option<MicroTime>, Instant)>>,
    events: Events,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> anyhow::Result<Next> {
        let Some(node) = self.nodes.get(&key) else {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&key.name);
            return Ok(Next::AwaitChange);
        };
        let name = key.name;
        let is_on = |it: &Pod| it.spec.as_ref().and_then(|it| it.node_name.as_ref()) == Some(&name);
        let pods = if is_ready(&node) && self.silent(&name).is_none_or(|(_, it)| it.is_zero()) {
            Vec::new()
        } else {
            self.pods.list().into_iter().filter(|it| is_on(it)).collect()
        };
        let others = self.nodes.list();
        let seen = Seen {
            lease: self.silent(&name),
            others_ready: others
                .iter()
                .any(|it| it.metadata.name.as_ref() != Some(&name) && is_ready(it)),
            pods,
            now: self.controller.clock.now(),
            node,
        };
        let decision = decide(&seen);
        tracing::debug!(node = name, reason = decision.reason, "decided");
        self.act(&name, &seen, &decision).await?;
        Ok(decision.wait.map_or(Next::AwaitChange, Next::RequeueAfter))
    }

    /// For how long the node's Lease holds, and how long ago a renewal was seen.
    fn silent(&self, name: &str) -> Option<(Duration, Duration)> {
        let lease = self.leases.get(&Key::namespaced(LEASES, name))?;
        let spec = lease.spec.as_ref()?;
        let held = u64::try_from(spec.lease_duration_seconds?).ok().filter(|it| 0 < *it)?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (renewed, at) = heard
            .entry(name.to_owned())
            .or_insert_with(|| (spec.renew_time.clone(), Instant::now()));
        if *renewed != spec.renew_time {
            (*renewed, *at) = (spec.renew_time.clone(), Instant::now());
        }
        Some((Duration::from_secs(held), at.elapsed()))
    }

    async fn act(&self, name: &str, seen: &Seen, decision: &Decision) -> anyhow::Result<()> {
        let mut version = seen.node.metadata.resource_version.clone();
        if let Some(conditions) = &decision.conditions {
            let about = seen.node.object_ref(&());
            let note = format!("Node {name} status is now: NodeNotReady");
            version = self.write_conditions(name, version, conditions).await?;
            self.events.record(about, EventType::Normal, "NodeNotReady", note);
        }
        if let Some(taints) = &decision.taints {
            self.write_taints(name, version, taints).await?;
        }
        for pod in &decision.unready {
            self.make_unready(seen, pod).await?;
        }
        Ok(())
    }

    async fn write_conditions(
        &self,
        name: &str,
        version: Option<String>,
        conditions: &[NodeCondition],
    ) -> anyhow::Result<Option<String>> {
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": version},
            "status": {"conditions": conditions},
        }));
        let written = self.api().patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(written.metadata.resource_version)
    }

    async fn write_taints(
        &self,
        name: &str,
        version: Option<String>,
        taints: &[Taint],
    ) -> anyhow::Result<()> {
        let taints = (!taints.is_empty()).then_some(taints);
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": version},
            "spec": {"taints": taints},
        }));
        self.api().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Says of a pod that it is not ready, so that Services lead elsewhere.
    async fn make_unready(&self, seen: &Seen, pod: &Pod) -> anyhow::Result<()> {
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(Time(seen.now)),
            ..Default::default()
        };
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [condition]},
        }));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.controller.client.clone(), namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match pods.patch_status(name, &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            done => {
                drop(done?);
                let note = "Node is not ready";
                self.events.record(pod.object_ref(&()), EventType::Warning, "NodeNotReady", note);
                Ok(())
            }
        }
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.controller.client.clone())
    }
}
