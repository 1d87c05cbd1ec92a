//! EndpointSlice: which pods stand behind a Service. What a pod contributes is in `endpoints`, what
//! slices have is decided in `decide`, how they are filled in `layout`; routing is the business of others.

mod decide;
pub(crate) mod endpoints;
pub(crate) mod layout;

use std::sync::Arc;

use client::{Cache, Change, EventType, Events, Key, Loop, Next, Resource as _};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    Controller,
    owner::{api_of, is_deleting},
};
pub(crate) use decide::{MANAGED_BY, SERVICE_NAME};
use decide::{MANAGER, Seen, decide};

/// Endpoints in one slice (`--max-endpoints-per-slice`): a change of one endpoint rewrites and
/// sends a whole slice.
const ENDPOINTS_MAX: usize = 100;

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let services = controller.caches.of::<Service>();
    let pods = controller.caches.of::<Pod>();
    let slices = controller.caches.of::<EndpointSlice>();
    let nodes = controller.caches.of::<Node>();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        services: services.clone(),
        pods: pods.clone(),
        slices: slices.clone(),
        nodes: nodes.clone(),
        events: controller.events("endpoint-slice-controller"),
    });
    let selecting = services.clone();
    Loop::new("endpoint-slice")
        .triggered_by(&services, |change| vec![change.key.clone()])
        .triggered_by(&pods, move |change| services_of(&selecting, change))
        .triggered_by(&slices, |change| change.both().filter_map(service_of).collect())
        .after(&nodes)
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(key).await }
        });
}

/// The Services that select a pod, before or after the change. A change that no endpoint shows
/// wakes nobody.
pub(crate) fn services_of(services: &Cache<Service>, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && endpoints::look_alike(old, new)
        && !Arc::ptr_eq(old, new)
    {
        return Vec::new();
    }
    let namespace = change.key.namespace_or_empty();
    let selecting = services
        .list_in(namespace, |service| change.both().any(|pod| endpoints::selects(service, pod)));
    selecting.iter().map(|it| Key::of(&**it)).collect()
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let mine = labels.get(MANAGED_BY).is_some_and(|it| it == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| mine)?;
    Some(Key::namespaced(slice.metadata.namespace.clone()?, name))
}

struct Reconciler {
    controller: Controller,
    services: Cache<Service>,
    pods: Cache<Pod>,
    slices: Cache<EndpointSlice>,
    nodes: Cache<Node>,
    events: Events,
}

impl Reconciler {
    async fn reconcile(&self, key: Key) -> anyhow::Result<Next> {
        // The slices of a Service that is gone go with it: they are owned by it.
        let Some(service) = self.services.get(&key) else { return Ok(Next::AwaitChange) };
        if is_deleting(&service.metadata) || !endpoints::has_selector(&service) {
            return Ok(Next::AwaitChange);
        }
        let decision = decide(&self.observe(&key, &service), ENDPOINTS_MAX);
        tracing::debug!(service = %key, reason = decision.reason, "decided");
        for action in &decision.actions {
            let api = api_of(&self.controller.client, &*service);
            if let Err(error) = layout::act(&api, &self.slices, action).await {
                // Somebody was faster, or the namespace is going: look again, or never.
                if !client::is_conflict(&error) && !client::is_namespace_terminating(&error) {
                    let note =
                        format!("Failed to update endpoint slices for Service {key}: {error}");
                    let about = service.object_ref(&());
                    let reason = "FailedToUpdateEndpointSlices";
                    self.events.record(about, EventType::Warning, reason, note);
                }
                return Err(error.into());
            }
        }
        Ok(Next::AwaitChange)
    }

    fn observe(&self, key: &Key, service: &Arc<Service>) -> Seen {
        let namespace = key.namespace_or_empty();
        let pods = self.pods.list_in(namespace, |pod| endpoints::selects(service, pod));
        let mine = |slice: &EndpointSlice| service_of(slice).as_ref() == Some(key);
        let slices = self.slices.list_in(namespace, mine);
        let zone = |pod: &Pod| {
            let node = pod.spec.as_ref()?.node_name.as_ref()?;
            endpoints::zone(&*self.nodes.get(&Key::cluster(node))?)
        };
        let zones = pods.iter().map(|pod| zone(pod)).collect();
        Seen { service: Arc::clone(service), pods, zones, slices }
    }
}
