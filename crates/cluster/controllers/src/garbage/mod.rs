//! Garbage collection: deletes what has lost its owners, and holds owners back until their
//! dependents are gone (foreground) or let go (orphan), over all kinds alike.
//!
//! The graph of owners is kept in `graph`, what becomes of one object is decided in `decide`.

mod decide;
mod graph;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use client::{
    Api, ApiResource, Cache, Change, DeleteParams, EventType, Events, Key, Loop, Metadata, Next,
    Patch, PatchParams, Preconditions,
};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::api::PropagationPolicy;
use runtime::OnExit;
use serde_json::{Value, json};

use crate::{Controller, discovery::Kind, namespace::all_kinds};
use decide::{Action, Dependent, Owner, Seen, concerns, decide, is_worth_a_look};
use graph::{Graph, Node};

/// Kinds whose objects are never owned and too many to watch: the original leaves them out too.
const IGNORED: [&str; 1] = ["Event"];

/// Starts the controller as soon as the kinds are known.
pub(crate) fn start(controller: &Controller) {
    let controller = controller.clone();
    let tasks = controller.tasks.clone();
    // Ends when the loop that it starts runs: only that one must not end by itself.
    tasks.spawn("garbage", OnExit::Log, |stop| async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            kinds = all_kinds(&controller.client) => run(&controller, kinds),
        }
        Ok(())
    });
}

fn run(controller: &Controller, kinds: Vec<Kind>) {
    let kinds = kinds.into_iter().filter(|it| !IGNORED.contains(&it.resource.kind.as_str()));
    let kinds = kinds.map(|it| (it.clone(), controller.caches.metadata(&it.resource)));
    let kinds = Arc::new(Kinds(kinds.collect()));
    let graph = Arc::new(Mutex::new(Graph::default()));
    let mut work = Loop::new("garbage-collector");
    for (index, (_, cache)) in kinds.0.iter().enumerate() {
        let (graph, kinds) = (Arc::clone(&graph), Arc::clone(&kinds));
        work = work.triggered_by_some(
            cache,
            |old, new| concerns(old.map(|it| &it.metadata), new.map(|it| &it.metadata)),
            move |change| affected(&graph, &kinds, index, change),
        );
    }
    let collector = Arc::new(Collector {
        controller: controller.clone(),
        kinds,
        graph,
        events: controller.events("garbage-collector-controller"),
    });
    work.run(&controller.tasks, move |key| {
        let collector = Arc::clone(&collector);
        async move { collector.reconcile(&key).await }
    });
}

/// Brings the graph up to date and says whose fate may have changed: the object's, its dependents'
/// and its owners'.
fn affected(
    graph: &Mutex<Graph>,
    kinds: &Kinds,
    kind: usize,
    change: &Change<Metadata>,
) -> Vec<Key> {
    let node = Node { kind, key: change.key.clone() };
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    let (old, new) = (old.map(|it| &it.metadata), new.map(|it| &it.metadata));
    let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
    graph.update(&node, old, new);
    if !is_worth_a_look(old, new) {
        return Vec::new();
    }
    let mut nodes = vec![node];
    for meta in old.into_iter().chain(new) {
        nodes.extend(graph.dependents(meta.uid.as_deref().unwrap_or_default()));
        let owners = meta.owner_references.iter().flatten();
        nodes.extend(owners.filter_map(|it| kinds.owner(meta, it)));
    }
    nodes.iter().map(Node::to_key).collect()
}

/// All kinds with their objects, in the order that nodes of the graph refer to.
struct Kinds(Vec<(Kind, Cache<Metadata>)>);

impl Kinds {
    /// Where an owner is, if it is still there. None if the server has no such kind.
    fn owner(&self, dependent: &ObjectMeta, reference: &OwnerReference) -> Option<Node> {
        let kind = self.0.iter().position(|(it, _)| {
            it.resource.kind == reference.kind && same_group(&it.resource, &reference.api_version)
        })?;
        let (owner, _) = self.0.get(kind)?;
        let namespace = dependent.namespace.clone().filter(|_| owner.namespaced);
        Some(Node { kind, key: Key { namespace, name: reference.name.clone() } })
    }
}

struct Collector {
    controller: Controller,
    kinds: Arc<Kinds>,
    graph: Arc<Mutex<Graph>>,
    events: Events,
}

impl Collector {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let node = Node::from_key(key).context("key of another loop")?;
        let (kind, cache) = self.kinds.0.get(node.kind).context("kind of another loop")?;
        let Some(object) = cache.get(&node.key) else { return Ok(Next::AwaitChange) };
        let seen = self.observe(kind, &object.metadata).await?;
        let decision = decide(&seen);
        for action in decision.actions {
            tracing::debug!(object = %key, ?action, reason = decision.reason, "acts");
            self.act(&kind.resource, &object.metadata, &action).await?;
        }
        Ok(Next::AwaitChange)
    }

    async fn observe(&self, kind: &Kind, meta: &ObjectMeta) -> anyhow::Result<Seen> {
        let mut owners = Vec::new();
        for reference in meta.owner_references.iter().flatten() {
            let owner = self.owner(kind, meta, reference).await?;
            owners.push((reference.clone(), owner));
        }
        let nodes = {
            let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
            graph.dependents(meta.uid.as_deref().unwrap_or_default())
        };
        let dependents = nodes.into_iter().filter_map(|node| {
            let (_, cache) = self.kinds.0.get(node.kind)?;
            let metadata = cache.get(&node.key)?.metadata.clone();
            Some(Dependent { node, metadata })
        });
        Ok(Seen { object: meta.clone(), owners, dependents: dependents.collect() })
    }

    /// What is known of an owner. The cache may be behind, so before an owner is taken for gone,
    /// the server is asked.
    async fn owner(
        &self,
        kind: &Kind,
        dependent: &ObjectMeta,
        reference: &OwnerReference,
    ) -> anyhow::Result<Owner> {
        let Some(Node { kind: place, key }) = self.kinds.owner(dependent, reference) else {
            return Ok(Owner::Unknown);
        };
        let (owner_kind, cache) = self.kinds.0.get(place).context("kind of another loop")?;
        if owner_kind.namespaced && !kind.namespaced {
            self.report_invalid(kind, dependent, reference);
            return Ok(Owner::Unknown);
        }
        if let Some(owner) = cache.get(&key)
            && owner.metadata.uid.as_deref() == Some(&reference.uid)
        {
            return Ok(Owner::of(&owner.metadata));
        }
        let owners = self.api(&owner_kind.resource, key.namespace.as_deref());
        match owners.get_opt(&key.name).await? {
            Some(it) if it.metadata.uid.as_deref() == Some(&reference.uid) => {
                Ok(Owner::of(&it.metadata))
            }
            _ => Ok(Owner::Gone),
        }
    }

    fn report_invalid(&self, kind: &Kind, dependent: &ObjectMeta, reference: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(kind.resource.api_version.clone()),
            kind: Some(kind.resource.kind.clone()),
            name: dependent.name.clone(),
            uid: dependent.uid.clone(),
            ..Default::default()
        };
        let note = format!(
            "ownerRef [{}, namespace: , name: {}, uid: {}] does not exist in namespace \"\"",
            reference.kind, reference.name, reference.uid
        );
        self.events.record(about, EventType::Warning, "OwnerRefInvalidNamespace", note);
    }

    async fn act(
        &self,
        resource: &ApiResource,
        meta: &ObjectMeta,
        action: &Action,
    ) -> anyhow::Result<()> {
        match action {
            Action::Delete(policy) => self.delete(resource, meta, policy.clone()).await,
            Action::SetOwners(owners) => {
                self.patch(resource, meta, json!({"ownerReferences": owners})).await
            }
            Action::SetFinalizers(finalizers) => {
                self.patch(resource, meta, json!({"finalizers": finalizers})).await
            }
            Action::SetOwnersOf(node, owners) => {
                let Some((kind, dependent)) = self.look_up(node) else { return Ok(()) };
                let fields = json!({"ownerReferences": owners});
                self.patch(&kind.resource, &dependent.metadata, fields).await
            }
        }
    }

    fn look_up(&self, node: &Node) -> Option<(&Kind, Arc<Metadata>)> {
        let (kind, cache) = self.kinds.0.get(node.kind)?;
        Some((kind, cache.get(&node.key)?))
    }

    /// Deletes an object, on condition that it is still the one that was looked at.
    async fn delete(
        &self,
        resource: &ApiResource,
        meta: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> anyhow::Result<()> {
        let preconditions = Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        });
        let propagation_policy = Some(policy);
        let params = DeleteParams { preconditions, propagation_policy, ..Default::default() };
        let objects = self.api(resource, meta.namespace.as_deref());
        gone_is_fine(
            objects.delete(meta.name.as_deref().unwrap_or_default(), &params).await.map(drop),
        )
    }

    async fn patch(
        &self,
        resource: &ApiResource,
        meta: &ObjectMeta,
        mut fields: Value,
    ) -> anyhow::Result<()> {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("resourceVersion".to_owned(), json!(meta.resource_version));
        }
        let patch = Patch::Merge(json!({"metadata": fields}));
        let objects = self.api(resource, meta.namespace.as_deref());
        let name = meta.name.as_deref().unwrap_or_default();
        gone_is_fine(objects.patch(name, &PatchParams::default(), &patch).await.map(drop))
    }

    fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<Metadata> {
        let client = self.controller.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }
}

fn gone_is_fine(result: Result<(), client::Error>) -> anyhow::Result<()> {
    match result {
        Err(error) if !client::is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a kind is of the group that a reference names, whatever the version.
fn same_group(resource: &ApiResource, api_version: &str) -> bool {
    resource.group == api_version.split_once('/').map_or("", |(group, _)| group)
}
