//! From objects to a routing table: which rule wins, and what of the objects cannot be honoured, and why.

mod backends;
mod certificates;
mod ingress;
mod names;
mod taken;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use client::Key;
use k8s_openapi::api::{
    core::v1::{Pod, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};

use crate::table::Table;
use backends::Backends;
pub(crate) use certificates::secrets;
pub(crate) use ingress::{CONTROLLER, IS_DEFAULT};
pub(crate) use taken::of_pod;

/// What is decided from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) classes: Vec<Arc<IngressClass>>,
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

/// Decides what the proxy does.
pub(crate) fn decide(seen: &Seen) -> Decision {
    let mut backends = Backends::new(&seen.services, &seen.slices);
    let mut decision = Decision::default();
    ingress::add(seen, &mut backends, &mut decision);
    names::add(&seen.services, &mut backends, &mut decision.table);
    decision.needed = !decision.ingresses.is_empty() || !decision.table.names.is_empty();
    decision.taken = taken::ports(&seen.services, &seen.pods);
    decision.table.backends = backends.into_made();
    decision
}
