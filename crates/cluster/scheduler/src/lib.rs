//! The scheduler: gives every pod a node, or says why none will do.
//!
//! Which node is decided in `decide`, from the filters in `filter` and the scores in `score`; what
//! the nodes have left is counted in `ledger`. It does not preempt, and knows neither inter-pod
//! affinity nor topology spread yet: pods that ask for those are placed as if they did not.

mod decide;
mod filter;
mod ledger;
mod requests;
mod score;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use client::{
    Api, Cache, Caches, Change, Client, EventType, Events, Key, Loop, Next, Patch, PatchParams,
    PostParams, Resource as _, Trigger,
};
use k8s_openapi::{
    api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time},
};
use runtime::{Clock, Tasks};
use serde_json::json;

use decide::{Decision, decide};
use ledger::Ledger;

/// The scheduler that pods get if they name none.
const NAME: &str = "default-scheduler";

/// Pods that are bound at the same time. Each is decided on alone; only the writes overlap.
const BINDINGS_AT_ONCE: usize = 32;

/// What the scheduler needs to know beside the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time of day.
    pub clock: Clock,
}

/// Starts the scheduler in `tasks`, which stop it. It needs no memory of its own: a restart looks
/// at the pods anew.
pub fn run(config: Config, caches: &Caches, client: &Client, tasks: &Tasks) {
    let Config { clock } = config;
    let (pods, nodes) = (caches.of::<Pod>(), caches.of::<Node>());
    let scheduler = Arc::new(Scheduler {
        events: Events::new(client.clone(), NAME, "", clock.clone(), tasks),
        client: client.clone(),
        clock,
        pods: pods.clone(),
        nodes: nodes.clone(),
        state: Mutex::default(),
        retry: Trigger::new(),
    });
    let (of_pods, of_nodes) = (Arc::clone(&scheduler), Arc::clone(&scheduler));
    Loop::new("scheduler")
        .triggered_by(&pods, move |change| of_pods.pod_changed(change))
        .triggered_by(&nodes, move |_| of_nodes.state().waiting.iter().cloned().collect())
        .woken_by(&scheduler.retry)
        .at_once(BINDINGS_AT_ONCE)
        .run(tasks, move |key| {
            let scheduler = Arc::clone(&scheduler);
            async move { scheduler.schedule(key).await }
        });
}

struct Scheduler {
    client: Client,
    clock: Clock,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    events: Events,
    state: Mutex<State>,
    /// Wakes pods that may fit after all.
    retry: Trigger,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// Pods that no node would take when last looked at.
    waiting: BTreeSet<Key>,
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the books, and says which pods are to be placed because of a change.
    fn pod_changed(&self, change: &Change<Pod>) -> Vec<Key> {
        let mut state = self.state();
        let freed = state.ledger.update(&change.key, change.new.as_deref());
        let Some(pod) = change.new.as_deref().filter(|it| is_ours(it)) else {
            state.waiting.remove(&change.key);
            return if freed { state.waiting.iter().cloned().collect() } else { Vec::new() };
        };
        // The condition that we write ourselves is no reason to try again.
        let again = change.old.as_ref().zip(change.new.as_ref()).is_some_and(|(old, new)| {
            !Arc::ptr_eq(old, new) && is_ours(old) && old.spec == pod.spec
        });
        if again { Vec::new() } else { vec![change.key.clone()] }
    }

    async fn schedule(&self, key: Key) -> anyhow::Result<Next> {
        let Some(pod) = self.pods.get(&key).filter(|it| is_ours(it)) else {
            return Ok(Next::AwaitChange);
        };
        let nodes = self.nodes.list();
        let decision = {
            let mut state = self.state();
            let decision = decide(&pod, &nodes, &state.ledger);
            match &decision {
                Decision::Bind { node } => {
                    state.waiting.remove(&key);
                    state.ledger.assume(&key, &pod, node);
                }
                Decision::Wait { .. } => {
                    state.waiting.insert(key.clone());
                }
            }
            decision
        };
        match decision {
            Decision::Bind { node } => self.bind(&key, &pod, &node).await?,
            Decision::Wait { reason, message } => {
                self.events.record(
                    pod.object_ref(&()),
                    EventType::Warning,
                    "FailedScheduling",
                    message.clone(),
                );
                self.explain(&pod, reason, &message).await?;
            }
        }
        Ok(Next::AwaitChange)
    }

    async fn bind(&self, key: &Key, pod: &Pod, node: &str) -> anyhow::Result<()> {
        let metadata = ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        };
        let target = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..Default::default()
        };
        let binding = Binding { metadata, target };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace_or_empty());
        let params = PostParams::default();
        let bound =
            pods.create_subresource::<_, Status>("binding", &key.name, &params, &binding).await;
        match bound {
            Ok(_) => {
                let note = format!("Successfully assigned {key} to {node}");
                self.events.record(pod.object_ref(&()), EventType::Normal, "Scheduled", note);
                Ok(())
            }
            Err(error) => {
                // What was set aside for this pod is free for others again.
                let waiting = {
                    let mut state = self.state();
                    state.ledger.forget(key);
                    state.waiting.clone()
                };
                waiting.into_iter().for_each(|it| self.retry.wake(it));
                if client::is_not_found(&error) { Ok(()) } else { Err(error.into()) }
            }
        }
    }

    /// Shows in the pod's status why it waits.
    async fn explain(&self, pod: &Pod, reason: &str, message: &str) -> anyhow::Result<()> {
        let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
        let old = conditions.into_iter().flatten().find(|it| it.type_ == "PodScheduled");
        let says = |it: &PodCondition| {
            it.status == "False"
                && it.reason.as_deref() == Some(reason)
                && it.message.as_deref() == Some(message)
        };
        if old.is_some_and(says) {
            return Ok(());
        }
        let since = old.filter(|it| it.status == "False");
        let since = since.and_then(|it| it.last_transition_time.clone());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or_else(|| Time(self.clock.now()))),
            observed_generation: pod.metadata.generation,
            ..Default::default()
        };
        // Conditions are merged by type, so that others are left alone.
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [condition]},
        }));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match pods.patch_status(name, &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }
}

/// Whether the pod waits for a node, and for us to find one.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|it| !it.is_empty());
    spec.node_name.as_ref().is_none_or(String::is_empty)
        && spec.scheduler_name.as_deref().is_none_or(|it| it == NAME)
        && pod.metadata.deletion_timestamp.is_none()
        && !gated
        && !ledger::is_over(pod)
}
