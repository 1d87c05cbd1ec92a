//! Endpoints: the pods behind a Service in one object, as programs read it that do not know slices.
//!
//! Those of Services without a selector are the user's, and are not touched.

mod decide;

use std::sync::Arc;

use client::{
    Api, Cache, Change, DeleteParams, EventType, Events, Key, Loop, Next, PostParams,
    Preconditions, Resource as _,
};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};

use crate::{
    Controller,
    endpoint_slice::{endpoints as parts, services_of},
    owner::is_deleting,
};
use decide::{Action, MANAGED_BY, MANAGER, Seen, decide};

/// Addresses in one object, as in Kubernetes: a change of one rewrites and sends all of them.
const ADDRESSES_MAX: usize = 1000;

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let services = controller.caches.of::<Service>();
    let pods = controller.caches.of::<Pod>();
    let endpoints = controller.caches.of::<Endpoints>();
    let reconciler = Arc::new(Reconciler {
        controller: controller.clone(),
        services: services.clone(),
        pods: pods.clone(),
        endpoints: endpoints.clone(),
        events: controller.events("endpoint-controller"),
    });
    let selecting = services.clone();
    let key = |change: &Change<Endpoints>| vec![change.key.clone()];
    Loop::new("endpoints")
        .triggered_by(&services, |change| vec![change.key.clone()])
        .triggered_by(&pods, move |change| services_of(&selecting, change))
        .triggered_by(&endpoints, key)
        .run(&controller.tasks, move |key| {
            let reconciler = Arc::clone(&reconciler);
            async move { reconciler.reconcile(&key).await }
        });
}

struct Reconciler {
    controller: Controller,
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
    events: Events,
}

impl Reconciler {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let endpoints = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            if let Some(endpoints) = endpoints.filter(|it| is_ours(it)) {
                self.delete(key, &endpoints).await?;
            }
            return Ok(Next::AwaitChange);
        };
        if is_deleting(&service.metadata) || !parts::has_selector(&service) {
            return Ok(Next::AwaitChange);
        }
        let namespace = key.namespace_or_empty();
        let pods = self.pods.list_in(namespace, |pod| parts::selects(&service, pod));
        let seen = Seen { service: Arc::clone(&service), pods, endpoints };
        let decision = decide(&seen, ADDRESSES_MAX);
        tracing::debug!(service = %key, reason = decision.reason, "decided");
        let Some(action) = decision.action else { return Ok(Next::AwaitChange) };
        if let Err(error) = self.act(key, &action).await {
            // Somebody was faster, or the namespace is going: look again, or never.
            if !client::is_conflict(&error)
                && !client::is_already_exists(&error)
                && !client::is_namespace_terminating(&error)
            {
                let note = format!("Failed to update endpoint {key}: {error}");
                let about = service.object_ref(&());
                self.events.record(about, EventType::Warning, "FailedToUpdateEndpoint", note);
            }
            return Err(error.into());
        }
        Ok(Next::AwaitChange)
    }

    fn api(&self, key: &Key) -> Api<Endpoints> {
        Api::namespaced(self.controller.client.clone(), key.namespace_or_empty())
    }

    async fn act(&self, key: &Key, action: &Action) -> Result<(), client::Error> {
        let (api, params) = (self.api(key), PostParams::default());
        let written = match action {
            Action::Create(endpoints) => api.create(&params, endpoints).await?,
            Action::Update(endpoints) => api.replace(&key.name, &params, endpoints).await?,
        };
        let revision = written.metadata.resource_version.as_deref().unwrap_or_default();
        if let Err(error) = self.endpoints.reached(revision).await {
            tracing::warn!(%error, "going on without");
        }
        Ok(())
    }

    async fn delete(&self, key: &Key, endpoints: &Endpoints) -> Result<(), client::Error> {
        let preconditions = Some(Preconditions {
            uid: endpoints.metadata.uid.clone(),
            resource_version: endpoints.metadata.resource_version.clone(),
        });
        let params = DeleteParams { preconditions, ..Default::default() };
        match self.api(key).delete(&key.name, &params).await {
            Err(error) if !client::is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether this controller made it. What a user wrote is left alone.
fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|it| it.get(MANAGED_BY)).is_some_and(|it| it == MANAGER)
}
