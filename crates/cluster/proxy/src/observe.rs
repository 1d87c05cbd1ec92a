//! What the proxy sees of the API: all objects of some kinds, and the Secrets that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::gateway::{Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use client::{Cache, Caches, Key, Single, Singles, Subscription};
use futures_util::future::select_all;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

use crate::decide::{Seen, of_pod, secrets};

/// How long a Secret that has just been named is waited for. What comes later is heard of as a change.
const SECRET_TIME_MAX: Duration = Duration::from_secs(2);

/// The objects, kept current.
pub(crate) struct Objects {
    ingresses: Followed<Ingress>,
    classes: Followed<IngressClass>,
    gateways: OfGateways,
    services: Followed<Service>,
    slices: Followed<EndpointSlice>,
    /// Of all pods; heard of are those with ports of the host.
    pods: Followed<Pod>,
    secrets: Singles<Secret>,
    held: BTreeMap<Key, (Arc<Single<Secret>>, Subscription<Secret>)>,
}

/// Those of the Gateway API, and what they are about.
struct OfGateways {
    classes: Followed<GatewayClass>,
    gateways: Followed<Gateway>,
    routes: Followed<HttpRoute>,
    grants: Followed<ReferenceGrant>,
    /// Heard of are changes of their labels.
    namespaces: Followed<Namespace>,
}

type Followed<K> = (Cache<K>, Subscription<K>);

fn followed<K>(caches: &Caches) -> Followed<K>
where
    K: client::Object + client::Resource<DynamicType = ()>,
{
    let cache = caches.of::<K>();
    let changes = cache.subscribe();
    (cache, changes)
}

impl OfGateways {
    fn new(caches: &Caches) -> Self {
        let namespaces = caches.of::<Namespace>();
        let labels = |it: Option<&Namespace>| it.map(|it| it.metadata.labels.clone());
        let relabelled = namespaces.subscribe_to(move |old, new| labels(old) != labels(new));
        Self {
            classes: followed(caches),
            gateways: followed(caches),
            routes: followed(caches),
            grants: followed(caches),
            namespaces: (namespaces, relabelled),
        }
    }

    async fn synced(&self) {
        let (classes, gateways) = (&self.classes.0, &self.gateways.0);
        let (routes, grants) = (&self.routes.0, &self.grants.0);
        self.namespaces.0.synced().await;
        tokio::join!(classes.synced(), gateways.synced(), routes.synced(), grants.synced());
    }

    async fn changed(&mut self) {
        tokio::select! {
            _ = self.classes.1.next() => {}
            _ = self.gateways.1.next() => {}
            _ = self.routes.1.next() => {}
            _ = self.grants.1.next() => {}
            _ = self.namespaces.1.next() => {}
        }
    }

    fn drain(&mut self) {
        while self.classes.1.try_next().is_some() {}
        while self.gateways.1.try_next().is_some() {}
        while self.routes.1.try_next().is_some() {}
        while self.grants.1.try_next().is_some() {}
        while self.namespaces.1.try_next().is_some() {}
    }
}

impl Objects {
    pub(crate) fn new(caches: &Caches) -> Self {
        let pods = caches.of::<Pod>();
        let has_ports = |it: Option<&Pod>| it.is_some_and(|it| of_pod(it).next().is_some());
        let changes = pods.subscribe_to(move |old, new| has_ports(old) || has_ports(new));
        Self {
            pods: (pods, changes),
            gateways: OfGateways::new(caches),
            ingresses: followed(caches),
            classes: followed(caches),
            services: followed(caches),
            slices: followed(caches),
            secrets: caches.singles(),
            held: BTreeMap::new(),
        }
    }

    /// Waits until all is known.
    pub(crate) async fn synced(&self) {
        let (ingresses, classes) = (&self.ingresses.0, &self.classes.0);
        let (services, slices) = (&self.services.0, &self.slices.0);
        tokio::join!(self.pods.0.synced(), self.gateways.synced());
        tokio::join!(ingresses.synced(), classes.synced(), services.synced(), slices.synced());
    }

    /// Waits for a change; those that came with it are heard of together.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            _ = self.ingresses.1.next() => {}
            _ = self.classes.1.next() => {}
            () = self.gateways.changed() => {}
            _ = self.services.1.next() => {}
            _ = self.slices.1.next() => {}
            _ = self.pods.1.next() => {}
            () = any(&mut self.held) => {}
        }
        while self.ingresses.1.try_next().is_some() {}
        while self.classes.1.try_next().is_some() {}
        self.gateways.drain();
        while self.services.1.try_next().is_some() {}
        while self.slices.1.try_next().is_some() {}
        while self.pods.1.try_next().is_some() {}
        for (_, changes) in self.held.values_mut() {
            while changes.try_next().is_some() {}
        }
    }

    /// All of it, as it is now.
    pub(crate) async fn seen(&mut self) -> Seen {
        let mut seen = Seen {
            ingresses: self.ingresses.0.list(),
            classes: self.classes.0.list(),
            gateway_classes: self.gateways.classes.0.list(),
            gateways: self.gateways.gateways.0.list(),
            routes: self.gateways.routes.0.list(),
            grants: self.gateways.grants.0.list(),
            namespaces: self.gateways.namespaces.0.list(),
            services: self.services.0.list(),
            slices: self.slices.0.list(),
            pods: self.pods.0.list(),
            secrets: BTreeMap::new(),
        };
        self.hold(secrets(&seen)).await;
        let secrets = self.held.keys().filter_map(|it| Some((it.clone(), self.secrets.get(it)?)));
        seen.secrets = secrets.collect();
        seen
    }

    /// Follows the Secrets that are named now, and no others.
    async fn hold(&mut self, wanted: BTreeSet<Key>) {
        self.held.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if self.held.contains_key(&key) {
                continue;
            }
            let single = self.secrets.hold(&key);
            if tokio::time::timeout(SECRET_TIME_MAX, single.synced()).await.is_err() {
                tracing::warn!(secret = %key, "not yet known");
            }
            let changes = single.subscribe();
            self.held.insert(key, (single, changes));
        }
    }
}

/// Waits for a change of any of them; for ever if there are none.
async fn any(held: &mut BTreeMap<Key, (Arc<Single<Secret>>, Subscription<Secret>)>) {
    if held.is_empty() {
        return std::future::pending().await;
    }
    select_all(held.values_mut().map(|(_, it)| Box::pin(it.next()))).await;
}
