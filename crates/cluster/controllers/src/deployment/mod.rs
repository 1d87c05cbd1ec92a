//! Deployment: brings a new ReplicaSet up and the old ones down. What it does is decided in
//! `decide`; pods are the business of the ReplicaSets alone.

mod condition;
mod decide;
mod hash;
mod revision;
mod rolling;
mod scale;
mod status;

use std::sync::Arc;

use anyhow::Context as _;
use api::selector::LabelSelector;
use client::{
    Api, Cache, Change, DeleteParams, EventType, Events, Key, Next, PostParams, Preconditions,
    Resource as _,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    Controller,
    owner::{adopt, api_of, controller_of, is_controlled_by, release},
    pod::is_terminal,
    replica_set::pods_of,
};
use decide::{Action, Decision, Seen, decide};

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let deployments = controller.caches.of::<Deployment>();
    let sets = controller.caches.of::<ReplicaSet>();
    let pods = controller.caches.of::<Pod>();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        events: controller.events("deployment-controller"),
    });
    let owners = deployments.clone();
    let owning_sets = sets.clone();
    client::Loop::new("deployment")
        .triggered_by(&deployments, |change| vec![change.key.clone()])
        .triggered_by(&sets, move |change| deployments_of(&owners, change))
        .triggered_by(&pods, move |change| deployment_of_pod(&owning_sets, change))
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(key).await }
        });
}

/// The Deployments that care about a ReplicaSet: its managers, before and after the change, or
/// those that may adopt it.
fn deployments_of(deployments: &Cache<Deployment>, change: &Change<ReplicaSet>) -> Vec<Key> {
    let mut keys = Vec::new();
    for set in change.both() {
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        match controller_of(&set.metadata) {
            Some(owner) if owner.kind == "Deployment" => {
                keys.push(Key::namespaced(namespace, &owner.name));
            }
            Some(_) => {}
            None => {
                let matching = deployments.list_in(&namespace, |it| selects(it, &set.metadata));
                keys.extend(matching.iter().map(|it| Key::of(&**it)));
            }
        }
    }
    keys.dedup();
    keys
}

/// A pod matters to a Deployment only by its end: the Recreate strategy waits for it.
fn deployment_of_pod(sets: &Cache<ReplicaSet>, change: &Change<Pod>) -> Vec<Key> {
    if change.new.as_deref().is_some_and(|it| !is_terminal(it)) {
        return Vec::new();
    }
    let Some(pod) = change.latest() else { return Vec::new() };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let set = controller_of(&pod.metadata).filter(|it| it.kind == "ReplicaSet");
    let set = set.and_then(|it| sets.get(&Key::namespaced(namespace.clone(), &it.name)));
    let owner = set.as_ref().and_then(|it| controller_of(&it.metadata));
    owner.map(|it| Key::namespaced(namespace, &it.name)).into_iter().collect()
}

fn selects(deployment: &Deployment, set: &ObjectMeta) -> bool {
    let spec = deployment.spec.as_ref();
    let selector = spec.and_then(|it| LabelSelector::from_object(&it.selector).ok());
    selector.is_some_and(|it| set.labels.as_ref().is_some_and(|labels| it.matches(labels)))
}

struct Reconciler {
    controller: Controller,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    events: Events,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> anyhow::Result<Next> {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Next::AwaitChange) };
        let seen = self.observe(deployment)?;
        let decision = decide(&seen);
        tracing::debug!(deployment = %key, reason = decision.reason, "decided");
        self.act(&seen, decision).await
    }

    fn observe(&self, deployment: Arc<Deployment>) -> anyhow::Result<Seen> {
        let spec = deployment.spec.as_ref().context("Deployment without spec")?;
        let selector = LabelSelector::from_object(&spec.selector).context("selector")?;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let uid = deployment.metadata.uid.as_deref();
        let sets = self.sets.list_in(namespace, |set| match controller_of(&set.metadata) {
            Some(_) => is_controlled_by(&set.metadata, uid),
            None => set.metadata.labels.as_ref().is_some_and(|it| selector.matches(it)),
        });
        let alive = |set: &ReplicaSet| pods_of(&self.pods, set).iter().any(|pod| !is_terminal(pod));
        let sets_with_pods = sets.iter().filter(|it| alive(it));
        let sets_with_pods = sets_with_pods.filter_map(|it| it.metadata.name.clone()).collect();
        let now = self.controller.clock.now();
        Ok(Seen { now, deployment, selector, sets, sets_with_pods })
    }

    async fn act(&self, seen: &Seen, decision: Decision) -> anyhow::Result<Next> {
        let Decision { actions, revision, status, requeue, .. } = decision;
        for action in actions {
            if let Err((error, shown)) = self.step(&seen.deployment, &action).await {
                if let Some(shown) = shown {
                    let status = shown(seen);
                    self.write_status(&seen.deployment, None, Some(status)).await?;
                }
                return Err(error);
            }
        }
        self.write_status(&seen.deployment, revision, status).await?;
        Ok(requeue.map_or(Next::AwaitChange, Next::RequeueAfter))
    }

    /// Carries one action out. An error says, beside its cause, what the status must then show.
    async fn step(
        &self,
        deployment: &Deployment,
        action: &Action,
    ) -> Result<(), (anyhow::Error, Option<ShownFailure>)> {
        let client = &self.controller.client;
        let sets: Api<ReplicaSet> = api_of(client, deployment);
        let plain = |error: client::Error| (anyhow::Error::from(error), None);
        match action {
            Action::Adopt(set) => {
                adopt(client, deployment, &**set).await.map_err(|it| (it, None))?;
            }
            Action::Release(set) => {
                let uid = deployment.metadata.uid.as_deref();
                release(client, uid, &**set).await.map_err(|it| (it, None))?;
            }
            Action::Create(set) => self.create(deployment, &sets, set).await?,
            Action::Update { set, note } => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let written = sets.replace(name, &PostParams::default(), set).await;
                self.wait_for(&written.map_err(plain)?.metadata).await;
                if let Some(note) = note {
                    self.record(deployment, EventType::Normal, "ScalingReplicaSet", note.clone());
                }
            }
            Action::Delete(set) => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let preconditions = Some(Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: set.metadata.resource_version.clone(),
                });
                let params = DeleteParams { preconditions, ..DeleteParams::background() };
                match sets.delete(name, &params).await {
                    Err(error) if !client::is_not_found(&error) => return Err(plain(error)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), (anyhow::Error, Option<ShownFailure>)> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let replicas = set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(0);
        match sets.create(&PostParams::default(), set).await {
            Ok(set) => {
                if 0 < replicas {
                    let note = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.record(deployment, EventType::Normal, "ScalingReplicaSet", note);
                }
                self.wait_for(&set.metadata).await;
                Ok(())
            }
            Err(error) if client::is_already_exists(&error) => {
                self.collided(deployment, sets, name).await
            }
            Err(error) if client::is_namespace_terminating(&error) => Err((error.into(), None)),
            Err(error) => {
                let note = format!("Failed to create new replica set {name:?}: {error}");
                let reason = "ReplicaSetCreateError";
                self.record(deployment, EventType::Warning, reason, note.clone());
                let shown = move |seen: &Seen| status::with_creation_failure(seen, reason, &note);
                Err((error.into(), Some(Box::new(shown))))
            }
        }
    }

    /// A ReplicaSet has the name that ours should get. If it is ours the cache is late; else the
    /// hash of the template collides, and a counter in the status makes the next hash another.
    async fn collided(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        name: &str,
    ) -> Result<(), (anyhow::Error, Option<ShownFailure>)> {
        let live = sets.get(name).await.map_err(|it| (it.into(), None))?;
        let error = anyhow::anyhow!("ReplicaSet `{name}` exists already");
        let ours = is_controlled_by(&live.metadata, deployment.metadata.uid.as_deref());
        let same = revision::same_template(deployment, &live);
        if ours && same {
            self.wait_for(&live.metadata).await;
            return Err((error, None));
        }
        Err((error, Some(Box::new(status::with_collision))))
    }

    /// Writes what the controller says of the Deployment: its status, and the annotation with its
    /// revision. Both go to the status, for there an annotation does not count as a new generation.
    async fn write_status(
        &self,
        deployment: &Deployment,
        revision: Option<String>,
        status: Option<DeploymentStatus>,
    ) -> anyhow::Result<()> {
        let mut new = deployment.clone();
        new.status = status.or(new.status);
        if let Some(revision) = revision {
            let annotations = new.metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.to_owned(), revision);
        }
        if new == *deployment {
            return Ok(());
        }
        let deployments: Api<Deployment> = api_of(&self.controller.client, deployment);
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let written = deployments.replace_status(name, &PostParams::default(), &new).await?;
        let revision = written.metadata.resource_version.as_deref().unwrap_or_default();
        Ok(self.deployments.reached(revision).await?)
    }

    /// The next decision must be made on what this one wrote.
    async fn wait_for(&self, written: &ObjectMeta) {
        let revision = written.resource_version.as_deref().unwrap_or_default();
        if let Err(error) = self.sets.reached(revision).await {
            tracing::warn!(%error, "going on without");
        }
    }

    fn record(&self, about: &Deployment, kind: EventType, reason: &'static str, note: String) {
        self.events.record(about.object_ref(&()), kind, reason, note);
    }
}

/// The status that shows why an action failed.
type ShownFailure = Box<dyn FnOnce(&Seen) -> DeploymentStatus + Send>;
