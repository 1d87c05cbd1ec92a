//! From objects to a routing table: which rule wins, and what of the objects cannot be honoured, and why.

mod backends;
mod certificates;
mod gateway;
mod ingress;
mod names;
mod rules;
mod taken;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::gateway::{Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use client::Key;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

use crate::table::Table;
use backends::Backends;
pub(crate) use gateway::{FoundGateway, FoundParent, Reached, of_class, of_gateway, of_route};
pub(crate) use ingress::{CONTROLLER, IS_DEFAULT};
use rules::Rules;
pub(crate) use taken::of_pod;

/// What is decided from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) classes: Vec<Arc<IngressClass>>,
    pub(crate) gateway_classes: Vec<Arc<GatewayClass>>,
    pub(crate) gateways: Vec<Arc<Gateway>>,
    pub(crate) routes: Vec<Arc<HttpRoute>>,
    pub(crate) grants: Vec<Arc<ReferenceGrant>>,
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    /// Those that have ports of the host, at least.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Those of [`secrets`] that are there.
    pub(crate) secrets: BTreeMap<Key, Arc<Secret>>,
}

/// What is to be.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) table: Table,
    /// The Ingresses that are served here, with what of each is not honoured.
    pub(crate) ingresses: BTreeMap<Key, Vec<Problem>>,
    /// The Gateways that are served here.
    pub(crate) gateways: BTreeMap<Key, FoundGateway>,
    /// All HTTPRoutes, with those of their Gateways that are served here.
    pub(crate) routes: BTreeMap<Key, Vec<FoundParent>>,
    /// Ports at which Gateways listen besides the usual ones, and whether TLS is spoken there.
    pub(crate) ports: BTreeMap<u16, bool>,
    /// Ports of the host that are for others.
    pub(crate) taken: BTreeSet<u16>,
    /// Whether there is anything that somebody could ask for.
    pub(crate) needed: bool,
}

/// What is not honoured: a word for machines, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

/// The Secrets that matter.
pub(crate) fn secrets(seen: &Seen) -> BTreeSet<Key> {
    let mut secrets = certificates::secrets(&seen.ingresses);
    secrets.append(&mut gateway::secrets(seen));
    secrets
}

/// Decides what the proxy does.
pub(crate) fn decide(seen: &Seen) -> Decision {
    let mut backends = Backends::new(&seen.services, &seen.slices);
    let taken = taken::ports(&seen.services, &seen.pods);
    let mut decision = Decision { taken, ..Decision::default() };
    let mut rules = Rules::default();
    ingress::add(seen, &mut backends, &mut rules, &mut decision);
    gateway::add(seen, &mut backends, &mut rules, &mut decision);
    rules.into_table(&mut decision.table);
    names::add(&seen.services, &mut backends, &mut decision.table);
    let names = !decision.table.names.is_empty();
    let listeners = decision.gateways.values().any(|it| !it.listeners.is_empty());
    decision.needed = names || listeners || !decision.ingresses.is_empty();
    decision.table.backends = backends.into_made();
    decision
}
