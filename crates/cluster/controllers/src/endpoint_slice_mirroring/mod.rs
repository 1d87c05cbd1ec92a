//! Mirrors of Endpoints: who writes them for a Service without a selector gets slices, which is what
//! routing and DNS look at. Slices that others write are not touched.

mod decide;

use std::sync::Arc;

use client::{Api, Cache, Change, EventType, Events, Key, Loop, Next, Resource as _};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    Controller,
    endpoint_slice::{MANAGED_BY, SERVICE_NAME, layout},
};
use decide::{Limits, MANAGER, Seen, decide};

/// Kubernetes' own (`--mirroring-max-endpoints-per-subset`): the same number in a slice.
const LIMITS: Limits = Limits { addresses_per_subset: 1000, endpoints_per_slice: 1000 };

/// Starts the controller. Its key is that of the Endpoints and of the Service.
pub(crate) fn start(controller: &Controller) {
    let endpoints = controller.caches.of::<Endpoints>();
    let services = controller.caches.of::<Service>();
    let slices = controller.caches.of::<EndpointSlice>();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        endpoints: endpoints.clone(),
        services: services.clone(),
        slices: slices.clone(),
        events: controller.events("endpoint-slice-mirroring-controller"),
    });
    let of_slice = |change: &Change<EndpointSlice>| change.both().filter_map(owner_of).collect();
    Loop::new("endpoint-slice-mirroring")
        .triggered_by(&endpoints, |change| vec![change.key.clone()])
        .triggered_by(&services, |change| vec![change.key.clone()])
        .triggered_by(&slices, of_slice)
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(&key).await }
        });
}

/// The Endpoints that a slice mirrors.
fn owner_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let mine = labels.get(MANAGED_BY).is_some_and(|it| it == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| mine)?;
    Some(Key::namespaced(slice.metadata.namespace.clone()?, name))
}

struct Reconciler {
    controller: Controller,
    endpoints: Cache<Endpoints>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    events: Events,
}

impl Reconciler {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let namespace = key.namespace_or_empty();
        let seen = Seen {
            endpoints: self.endpoints.get(key),
            service: self.services.get(key),
            slices: self.slices.list_in(namespace, |it| owner_of(it).as_ref() == Some(key)),
        };
        let decision = decide(&seen, LIMITS);
        tracing::debug!(endpoints = %key, reason = decision.reason, "decided");
        let api: Api<EndpointSlice> = Api::namespaced(self.controller.client.clone(), namespace);
        for action in &decision.actions {
            if let Err(error) = layout::act(&api, &self.slices, action).await {
                if client::is_namespace_terminating(&error) {
                    return Ok(Next::AwaitChange);
                }
                return Err(error.into());
            }
        }
        if let Some(endpoints) = seen.endpoints.filter(|_| 0 < decision.skipped)
            && !decision.actions.is_empty()
        {
            let note = format!(
                "{} addresses are in no EndpointSlice: a subset has more than {}, or they are not valid",
                decision.skipped, LIMITS.addresses_per_subset
            );
            let about = endpoints.object_ref(&());
            self.events.record(about, EventType::Warning, "TooManyAddressesToMirror", note);
        }
        Ok(Next::AwaitChange)
    }
}
