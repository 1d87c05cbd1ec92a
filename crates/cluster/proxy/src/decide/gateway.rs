//! Gateways and their routes: which of them are served here, and what their rules say.
//!
//! Listeners of the ports 80 and 443 are where the proxy listens anyway, whatever port of the machine that
//! is; for those of other ports it listens there too.

mod filters;
mod grants;
mod listeners;
mod matches;
mod routes;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use api::gateway::{CONTROLLER, Gateway, ParentReference, RouteKind};
use client::Key;

use super::{
    Backends, Decision, Problem, Seen,
    rules::{Age, Rules},
};
use crate::table::USUAL;
pub(crate) use status::{Reached, of_class, of_gateway, of_route};

/// What becomes of a Gateway that is served here.
#[derive(Debug, Default)]
pub(crate) struct FoundGateway {
    /// Why it cannot be at the addresses that it wants.
    pub(crate) address: Option<Problem>,
    pub(crate) listeners: Vec<FoundListener>,
}

/// What becomes of a listener.
#[derive(Debug, Default)]
pub(crate) struct FoundListener {
    pub(crate) name: String,
    /// As it is named; on this machine it may be another one.
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// The kinds of routes that it takes.
    pub(crate) kinds: Vec<RouteKind>,
    /// Whether the Gateway cannot be where it wants to be.
    pub(crate) nowhere: bool,
    /// How many routes use it.
    pub(crate) attached: i32,
    /// Why it is not there.
    pub(crate) refused: Option<Problem>,
    /// What it says that leads nowhere.
    pub(crate) unresolved: Option<Problem>,
    /// Which other one has its port.
    pub(crate) conflict: Option<Problem>,
}

impl FoundListener {
    /// Whether requests may come to it.
    pub(crate) fn serves(&self) -> bool {
        // What is not known of its routes does not keep those that are.
        let unresolved = self.unresolved.as_ref().filter(|it| it.reason != INVALID_ROUTE_KINDS);
        !self.nowhere && self.refused.is_none() && unresolved.is_none()
    }
}

/// What becomes of a route at one of its Gateways.
#[derive(Debug)]
pub(crate) struct FoundParent {
    pub(crate) parent: ParentReference,
    /// Why it has no effect there.
    pub(crate) refused: Option<Problem>,
    /// What it says that leads nowhere.
    pub(crate) unresolved: Option<Problem>,
}

/// Reason of what is said about the kinds that a listener wants.
const INVALID_ROUTE_KINDS: &str = "InvalidRouteKinds";

/// The Secrets that Gateways name.
pub(super) fn secrets(seen: &Seen) -> BTreeSet<Key> {
    ours(seen).iter().flat_map(|it| listeners::secrets(it)).collect()
}

/// Adds the rules of all routes of Gateways that are served here.
pub(super) fn add(
    seen: &Seen,
    backends: &mut Backends<'_>,
    rules: &mut Rules,
    decision: &mut Decision,
) {
    let gateways = ours(seen);
    // Who has a port says what is spoken there.
    let mut ports = BTreeMap::from(USUAL.map(|it| (it, it == USUAL[1])));
    for gateway in &gateways {
        let mut found = listeners::read(gateway, seen, &decision.taken, &mut ports);
        for (listener, certificate) in &mut found {
            let Some((host, certificate)) = certificate.take() else { continue };
            if listener.serves() {
                decision.table.certificates.entry(host).or_insert(certificate);
            }
        }
        let listeners = found.into_iter().map(|it| it.0).collect();
        let found = FoundGateway { address: listeners::address(gateway), listeners };
        decision.gateways.insert(Key::of(*gateway), found);
    }
    routes::add(seen, &gateways, backends, rules, decision);
    let listeners = decision.gateways.values().flat_map(|it| &it.listeners);
    let others = listeners.filter(|it| it.serves() && !USUAL.contains(&it.port));
    decision.ports = others.map(|it| (it.port, it.tls)).collect();
}

/// The Gateways whose class is the proxy's, the oldest first.
fn ours(seen: &Seen) -> Vec<&Gateway> {
    let classes = seen.gateway_classes.iter().filter(|it| it.spec.controller_name == CONTROLLER);
    let classes: BTreeSet<Key> = classes.map(|it| Key::of(&**it)).collect();
    let gateways = seen.gateways.iter().map(AsRef::as_ref);
    let mut gateways: Vec<&Gateway> = gateways
        .filter(|it: &&Gateway| classes.contains(&Key::cluster(&*it.spec.gateway_class_name)))
        .collect();
    gateways.sort_by_cached_key(|it| Age::of(&it.metadata, &Key::of(*it), "Gateway"));
    gateways
}
