//! Where a place should lead, for everybody and for the pods of each node. Pure.

use std::{collections::BTreeSet, net::SocketAddrV4};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};

use super::decide::Place;
use crate::{
    directory::{self, Place as NodePlace},
    family::IpFamily,
    nft::{Clients, Layout, Transport},
};

/// How long a client that is silent keeps its endpoint, unless `sessionAffinityConfig` says.
const AFFINITY_SECONDS: u32 = 10_800;
/// The longest that it may say: a day.
const AFFINITY_MAX: u32 = 86_400;

/// Where a service port should lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) ready: BTreeSet<SocketAddrV4>,
    pub(super) draining: BTreeSet<SocketAddrV4>,
}

/// Where a place should lead whom, and how connections are spread.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// How long a client that is silent keeps its endpoint, if at all.
    pub(super) affinity: Option<u32>,
    pub(super) all: Target,
    /// The pods of nodes, where it is not the same for all.
    pub(super) of_nodes: Vec<(Clients, Target)>,
}

/// Where a place should lead.
pub(super) fn wanted(place: &Place<'_>, api: SocketAddrV4, layout: &Layout) -> Wanted {
    let Some((key, service, port)) = place.service else {
        // As long as the pod is there, however it is: nothing waits for its end.
        let all = Target { draining: place.pod.into_iter().collect(), ..Target::default() };
        return Wanted { all, ..Wanted::default() };
    };
    let known = endpoints(place, port, layout.family);
    let lead = |it: Target| it.leading_outside(layout, place.at.transport);
    let mut all = lead(Target::of(&known, |_| true));
    let local = is_local(place, service, layout.family);
    let mut of_nodes = Vec::new();
    if local || known.iter().any(|it| it.endpoint.hints.is_some()) {
        for (number, node) in place.nodes {
            let target = match local {
                true => Target::of(&known, |it| is_on(it.endpoint, node)),
                false => near(&known, node),
            };
            of_nodes.push((Clients::OfNode(*number), lead(target)));
        }
        if of_nodes.iter().all(|(_, it)| *it == all) {
            of_nodes.clear();
        }
    }
    let is_api = key.namespace_or_empty() == "default" && key.name == "kubernetes";
    if is_api && place.slices.is_empty() {
        all.ready.insert(api);
    }
    Wanted { affinity: affinity(service), all, of_nodes }
}

/// Whether pods reach only what is on their own node there. Whoever comes to an address from outside
/// comes from outside: `externalTrafficPolicy` does not tell the cluster's own clients apart, and for
/// others this machine is all nodes.
fn is_local(place: &Place<'_>, service: &Service, family: IpFamily) -> bool {
    let policy = service.spec.as_ref().and_then(|it| it.internal_traffic_policy.as_deref());
    policy == Some("Local") && family.cluster_ip(service) == Some(place.at.address)
}

/// How long a Service's client that is silent keeps its endpoint, if at all.
fn affinity(service: &Service) -> Option<u32> {
    let spec = service.spec.as_ref()?;
    spec.session_affinity.as_ref().filter(|it| *it == "ClientIP")?;
    let config = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
    let seconds = config.and_then(|it| u32::try_from(it.timeout_seconds?).ok());
    Some(seconds.unwrap_or(AFFINITY_SECONDS).clamp(1, AFFINITY_MAX))
}

/// Where connections to a place go outside the cluster's network, if some do: the ready endpoints there,
/// or those on their way out if there are no others.
pub(crate) fn outside(place: &Place<'_>, layout: &Layout) -> Vec<SocketAddrV4> {
    let Some((_, _, port)) = place.service else { return Vec::new() };
    let target = Target::of(&endpoints(place, port, layout.family), |_| true);
    let those = |it: BTreeSet<SocketAddrV4>| -> Vec<SocketAddrV4> {
        it.into_iter().filter(|it| layout.is_outside(*it)).collect()
    };
    let ready = those(target.ready);
    if ready.is_empty() { those(target.draining) } else { ready }
}

/// An endpoint for a port, and where it is.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    family: IpFamily,
    endpoint: &'a Endpoint,
    condition: Condition,
    number: u16,
}

/// What connections an endpoint may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    Draining,
    Down,
}

/// The endpoints that a Service has for a port of its own.
fn endpoints<'a>(place: &Place<'a>, port: &ServicePort, family: IpFamily) -> Vec<Known<'a>> {
    let mut known = Vec::new();
    for slice in place.slices.iter().filter(|it| family.is_of(it)) {
        for number in numbers(slice, port, place.at.transport) {
            known.extend(directory::endpoints(slice).map(|endpoint| {
                let condition = condition(endpoint);
                Known { family, endpoint, condition, number }
            }));
        }
    }
    known
}

/// The numbers that a slice has for a Service's port.
fn numbers(slice: &EndpointSlice, port: &ServicePort, transport: Transport) -> Vec<u16> {
    let is_same = |it: &&EndpointPort| {
        it.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            && directory::transport(it.protocol.as_deref()) == Some(transport)
    };
    let ports = slice.ports.iter().flatten().filter(is_same);
    ports.filter_map(|it| u16::try_from(it.port?).ok()).collect()
}

/// Unknown conditions mean ready, serving and not terminating, as `discovery.k8s.io/v1` says.
fn condition(endpoint: &Endpoint) -> Condition {
    let Some(conditions) = &endpoint.conditions else { return Condition::Ready };
    let ready = conditions.ready.unwrap_or(true);
    if ready {
        Condition::Ready
    } else if conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false) {
        Condition::Draining
    } else {
        Condition::Down
    }
}

fn is_on(endpoint: &Endpoint, node: &NodePlace) -> bool {
    endpoint.node_name.as_ref() == Some(&node.name)
}

/// What the pods of a node should reach by the endpoints' hints: those for the node if there are some,
/// else those for its zone if there are some, else all. Hints count only if all that are ready have some.
fn near(known: &[Known<'_>], node: &NodePlace) -> Target {
    let for_node = |it: &Known<'_>| -> Option<bool> {
        let nodes = it.endpoint.hints.as_ref()?.for_nodes.as_ref().filter(|it| !it.is_empty())?;
        Some(nodes.iter().any(|it| it.name == node.name))
    };
    let for_zone = |it: &Known<'_>| -> Option<bool> {
        let zones = it.endpoint.hints.as_ref()?.for_zones.as_ref().filter(|it| !it.is_empty())?;
        Some(zones.iter().any(|it| Some(&it.name) == node.zone.as_ref()))
    };
    let near = only(known, for_node).or_else(|| only(known, for_zone));
    near.unwrap_or_else(|| Target::of(known, |_| true))
}

/// The endpoints whose hint says so, and those on their way out; none if that hint does not count.
fn only(known: &[Known<'_>], hint: impl Fn(&Known<'_>) -> Option<bool>) -> Option<Target> {
    let mut ready = known.iter().filter(|it| it.condition == Condition::Ready);
    let all_have = ready.clone().all(|it| hint(it).is_some());
    let counts = all_have && ready.any(|it| hint(it) == Some(true));
    counts.then(|| {
        Target::of(known, |it| it.condition == Condition::Draining || hint(it) == Some(true))
    })
}

impl Target {
    /// What some of the endpoints make up.
    fn of(known: &[Known<'_>], which: impl Fn(&Known<'_>) -> bool) -> Self {
        let mut target = Self::default();
        for it in known.iter().filter(|it| which(it)) {
            // KEP-1669: a pod on its way out that still serves is better than nothing.
            let endpoints = match it.condition {
                Condition::Ready => &mut target.ready,
                Condition::Draining => &mut target.draining,
                Condition::Down => continue,
            };
            let addresses = directory::addresses_of(it.family, it.endpoint);
            endpoints.extend(addresses.map(|address| SocketAddrV4::new(address, it.number)));
        }
        target
    }

    /// Endpoints on the host and in the world are not in this network: TCP goes to the proxy, which finds
    /// out where to. UDP keeps the endpoint's address, at which the proxy hears it.
    fn leading_outside(mut self, layout: &Layout, transport: Transport) -> Self {
        if transport == Transport::Udp {
            return self;
        }
        for endpoints in [&mut self.ready, &mut self.draining] {
            let before = endpoints.len();
            endpoints.retain(|it| !layout.is_outside(*it));
            if endpoints.len() < before {
                endpoints.insert(layout.egress());
            }
        }
        self
    }
}
