//! ReplicaSet: keeps as many pods as asked for. What it does is decided in `decide`, which pods go
//! first in `rank`; it does not know of Deployments.

mod decide;
mod rank;

use std::sync::Arc;

use anyhow::Context as _;
use api::selector::LabelSelector;
use client::{
    Api, Cache, Change, DeleteParams, EventType, Key, Next, PostParams, Preconditions,
    Resource as _,
};
use futures_util::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    Controller,
    owner::{adopt, api_of, controller_of, controller_reference, is_controlled_by, release},
};
use decide::{Decision, Failure, Seen, decide, with_failure};

/// Pods created or deleted in one run. kube-controller-manager's `BurstReplicas`: a mistake in a
/// manifest should not overwhelm the machine before the next look at it.
const BURST_MAX: usize = 500;

/// How many requests the first batch of a run makes; every batch that succeeds doubles the next
/// (`SlowStartInitialBatchSize`), so that what cannot succeed is not tried 500 times.
const FIRST_BATCH: usize = 1;

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let sets = controller.caches.of::<ReplicaSet>();
    let pods = controller.caches.of::<Pod>();
    let events = controller.events("replicaset-controller");
    let owners = sets.clone();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        events,
    });
    client::Loop::new("replica-set")
        .triggered_by(&sets, |change| vec![change.key.clone()])
        .triggered_by(&pods, move |change| sets_of(&owners, change))
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(key).await }
        });
}

/// The ReplicaSets that care about a pod: its managers, before and after the change, or those that
/// may adopt it.
fn sets_of(sets: &Cache<ReplicaSet>, change: &Change<Pod>) -> Vec<Key> {
    let mut keys = Vec::new();
    for pod in change.both() {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => {
                keys.push(Key::namespaced(namespace, &owner.name));
            }
            Some(_) => {}
            None => {
                let matching = sets.list_in(&namespace, |set| selects(set, &pod.metadata));
                keys.extend(matching.iter().map(|it| Key::of(&**it)));
            }
        }
    }
    keys.dedup();
    keys
}

fn selects(set: &ReplicaSet, pod: &ObjectMeta) -> bool {
    let selector = set.spec.as_ref().and_then(|it| LabelSelector::from_object(&it.selector).ok());
    selector.is_some_and(|it| pod.labels.as_ref().is_some_and(|labels| it.matches(labels)))
}

struct Reconciler {
    controller: Controller,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    events: client::Events,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> anyhow::Result<Next> {
        let Some(set) = self.sets.get(&key) else { return Ok(Next::AwaitChange) };
        let seen = self.observe(&set)?;
        let decision = decide(&seen, BURST_MAX);
        tracing::debug!(set = %key, reason = decision.reason, "decided");
        match self.act(&set, &decision).await {
            Ok(()) => {
                if let Some(status) = decision.status {
                    self.write_status(&set, status).await?;
                }
                Ok(decision.requeue.map_or(Next::AwaitChange, Next::RequeueAfter))
            }
            Err((failure, error)) => {
                if let Some(failure) = failure {
                    let status = with_failure(&seen, &failure);
                    self.write_status(&set, status).await?;
                }
                Err(error)
            }
        }
    }

    fn observe(&self, set: &Arc<ReplicaSet>) -> anyhow::Result<Seen> {
        let spec = set.spec.as_ref().context("ReplicaSet without spec")?;
        let selector = LabelSelector::from_object(&spec.selector).context("selector")?;
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let uid = set.metadata.uid.as_deref();
        let pods = self.pods.list_in(namespace, |pod| match controller_of(&pod.metadata) {
            Some(owner) => Some(owner.uid.as_str()) == uid,
            None => pod.metadata.labels.as_ref().is_some_and(|it| selector.matches(it)),
        });
        Ok(Seen { now: self.controller.clock.now(), set: Arc::clone(set), selector, pods })
    }

    /// Carries the decision out. An error says, beside its cause, whether it must show in the
    /// status.
    async fn act(
        &self,
        set: &ReplicaSet,
        decision: &Decision,
    ) -> Result<(), (Option<Failure>, anyhow::Error)> {
        let client = &self.controller.client;
        for pod in &decision.release {
            let uid = set.metadata.uid.as_deref();
            release(client, uid, &**pod).await.map_err(|it| (None, it))?;
        }
        for pod in &decision.adopt {
            adopt(client, set, &**pod).await.map_err(|it| (None, it))?;
        }
        let created = self.create(set, decision.create).await;
        created.map_err(|it| (create_failure(&it), it.into()))?;
        let deleted = self.delete(set, &decision.delete).await;
        deleted.map_err(|it| (Some(Failure::new("FailedDelete", &it)), it.into()))
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), client::Error> {
        let Some(pod) = new_pod(set) else { return Ok(()) };
        let pods: Api<Pod> = api_of(&self.controller.client, set);
        let (mut left, mut batch, mut result) = (count, FIRST_BATCH, Ok(()));
        let mut newest = None;
        while 0 < left && result.is_ok() {
            let now = batch.min(left);
            let params = PostParams::default();
            let requests = (0..now).map(|_| pods.create(&params, &pod));
            for answer in join_all(requests).await {
                match answer {
                    Ok(pod) => {
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        self.record(
                            set,
                            EventType::Normal,
                            "SuccessfulCreate",
                            format!("Created pod: {name}"),
                        );
                        newest = newer(newest, &pod.metadata);
                    }
                    Err(error) => {
                        if !client::is_namespace_terminating(&error) {
                            self.record(
                                set,
                                EventType::Warning,
                                "FailedCreate",
                                format!("Error creating: {error}"),
                            );
                        }
                        result = Err(error);
                    }
                }
            }
            left -= now;
            batch *= 2;
        }
        self.wait_for(newest).await;
        result
    }

    async fn delete(&self, set: &ReplicaSet, victims: &[Arc<Pod>]) -> Result<(), client::Error> {
        let pods: Api<Pod> = api_of(&self.controller.client, set);
        let requests = victims.iter().map(async |pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let uid = pod.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let params = DeleteParams { preconditions, ..Default::default() };
            (name, pods.delete(name, &params).await)
        });
        let (mut result, mut newest) = (Ok(()), None);
        for (name, answer) in join_all(requests).await {
            match answer {
                Ok(answer) => {
                    self.record(
                        set,
                        EventType::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {name}"),
                    );
                    if let Some(pod) = answer.left() {
                        newest = newer(newest, &pod.metadata);
                    }
                }
                Err(error) if client::is_not_found(&error) => {}
                Err(error) => {
                    self.record(
                        set,
                        EventType::Warning,
                        "FailedDelete",
                        format!("Error deleting: {error}"),
                    );
                    result = Err(error);
                }
            }
        }
        self.wait_for(newest).await;
        result
    }

    /// The next decision must know of what this one did. If the cache is late, the next run may
    /// come too early; it would then create too many pods, so this one waits as long as it can.
    async fn wait_for(&self, newest: Option<u64>) {
        if let Some(newest) = newest
            && let Err(error) = self.pods.reached(&newest.to_string()).await
        {
            tracing::warn!(%error, "going on without");
        }
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> anyhow::Result<()> {
        let sets: Api<ReplicaSet> = api_of(&self.controller.client, set);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let new = ReplicaSet { status: Some(status), ..set.clone() };
        match sets.replace_status(name, &PostParams::default(), &new).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }

    fn record(&self, set: &ReplicaSet, kind: EventType, reason: &'static str, note: String) {
        self.events.record(set.object_ref(&()), kind, reason, note);
    }
}

/// A namespace that is going refuses new pods; that is no failure worth showing.
fn create_failure(error: &client::Error) -> Option<Failure> {
    (!client::is_namespace_terminating(error)).then(|| Failure::new("FailedCreate", error))
}

fn newer(newest: Option<u64>, meta: &ObjectMeta) -> Option<u64> {
    let revision = meta.resource_version.as_deref().and_then(|it| it.parse().ok());
    newest.max(revision)
}

/// The pod that `set` makes: its template, owned by it, with a name the server completes.
fn new_pod(set: &ReplicaSet) -> Option<Pod> {
    let template = set.spec.as_ref()?.template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.metadata.name.as_deref()?)),
        namespace: set.metadata.namespace.clone(),
        labels: meta.labels,
        annotations: meta.annotations,
        finalizers: meta.finalizers,
        owner_references: Some(vec![controller_reference(set)]),
        ..Default::default()
    };
    Some(Pod { metadata, spec: template.spec.clone(), status: None })
}

/// The pods that `set` manages, whatever their state.
pub(crate) fn pods_of(pods: &Cache<Pod>, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let uid = set.metadata.uid.as_deref();
    pods.list_in(namespace, |pod| is_controlled_by(&pod.metadata, uid))
}
