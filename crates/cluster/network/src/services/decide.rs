//! Which slots of which service port lead where. Pure: what is seen goes in, what to change comes
//! out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use client::Key;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};

use super::slots::spread;
use crate::{
    directory::{self, Directory},
    netlink::conntrack::Flow,
    nft::{Change, Contents, Frontend, Layout, Picker, Port, Transport},
};

/// How long a client that is silent keeps its endpoint, unless `sessionAffinityConfig` says.
const AFFINITY_SECONDS: u32 = 10_800;
/// The longest that it may say: a day.
const AFFINITY_MAX: u32 = 86_400;

/// A service port as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) port: Port,
    /// The endpoints are on their way out; they are used because there are no others.
    pub(crate) draining: bool,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    backends: BTreeMap<Frontend, Backend>,
    /// In how many backends an address is an endpoint.
    endpoints: BTreeMap<Ipv4Addr, usize>,
    /// In how many backends an address is an endpoint that is not on its way out.
    ready: BTreeMap<Ipv4Addr, usize>,
    /// The pickers there are, and how many backends use them.
    pickers: BTreeMap<Picker, usize>,
}

/// A place to decide about, and what the API says of it.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) at: Frontend,
    /// None: no Service is reached there (any more).
    pub(crate) service: Option<(&'a Key, &'a Service, &'a ServicePort)>,
    pub(crate) slices: Vec<&'a EndpointSlice>,
    /// The pod that has this port of the host; Services come before it.
    pub(crate) pod: Option<SocketAddrV4>,
}

impl<'a> Place<'a> {
    /// What the directory says of it.
    pub(crate) fn of(directory: &'a Directory, at: Frontend) -> Self {
        let service = directory.reached_at(at);
        let slices = service.into_iter().flat_map(|(key, ..)| directory.slices(key)).collect();
        Self { at, service, slices, pod: directory.host_port_at(at) }
    }
}

/// What a decision depends on.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) installed: &'a Installed,
    pub(crate) places: Vec<Place<'a>>,
    /// Where the API itself is served in this network. The Service `default/kubernetes` leads
    /// there as long as nobody writes EndpointSlices for it.
    pub(crate) api: SocketAddrV4,
    /// Which endpoints are on the host, and who takes the connections to them.
    pub(crate) layout: &'a Layout,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Changes, in order; those of one unit belong together.
    pub(crate) units: Vec<Vec<Change>>,
    /// What the kernel has of each touched service port afterwards; none if it has nothing.
    after: BTreeMap<Frontend, Option<Backend>>,
    /// Pickers that are made, and those that are removed.
    pickers: (BTreeSet<Picker>, BTreeSet<Picker>),
    /// UDP flows that would go on to an endpoint which is none any more.
    pub(crate) stale: BTreeSet<Flow>,
}

/// Where a service port should lead.
#[derive(Debug, Default)]
struct Target {
    /// How long a client that is silent keeps its endpoint, if at all.
    affinity: Option<u32>,
    ready: BTreeSet<SocketAddrV4>,
    draining: BTreeSet<SocketAddrV4>,
}

/// Decides about all places of `seen` together.
pub(crate) fn decide(seen: &Seen<'_>) -> Decision {
    let mut decision = Decision::default();
    for place in &seen.places {
        let target = wanted(place, seen.api, seen.layout);
        decide_port(seen.installed.backends.get(&place.at), place.at, &target, &mut decision);
    }
    let (made, unused) = pickers(seen.installed, &decision);
    let (added, removed) = hairpins(seen.installed, &decision);
    // An address is in the pairs set before the first connection comes to it, and until after the
    // last, even if the units become several transactions.
    let first = made.iter().map(|it| Change::AddPicker(*it));
    let first = first.chain(added.into_iter().map(Change::AddHairpin));
    let last = unused.iter().map(|it| Change::RemovePicker(*it));
    let last = last.chain(removed.into_iter().map(Change::RemoveHairpin));
    decision.units.insert(0, first.collect());
    decision.units.push(last.collect());
    decision.units.retain(|it| !it.is_empty());
    decision.pickers = (made, unused);
    decision
}

fn decide_port(
    installed: Option<&Backend>,
    frontend: Frontend,
    target: &Target,
    decision: &mut Decision,
) {
    let nothing = Backend::default();
    let before = installed.unwrap_or(&nothing);
    let draining = target.ready.is_empty();
    let endpoints = if draining { &target.draining } else { &target.ready };
    let slots = spread(&before.port.slots, endpoints);
    let picker = Picker::of(slots.len(), target.affinity);
    let members = match target.affinity {
        Some(_) => slots.values().copied().collect(),
        None => BTreeSet::new(),
    };
    let port = Port { picker, slots, members };
    let after = Backend { draining: draining && picker.is_some(), port };
    if after == *before {
        return;
    }
    decision.units.push(before.port.changes(frontend, &after.port));
    if frontend.transport == Transport::Udp {
        let service = SocketAddrV4::new(frontend.address, frontend.port);
        let kept: BTreeSet<_> = after.port.slots.values().collect();
        let gone = before.port.slots.values().filter(|it| !kept.contains(it));
        decision.stale.extend(gone.map(|it| Flow { service, endpoint: *it }));
    }
    decision.after.insert(frontend, (after != nothing).then_some(after));
}

/// The pickers that are to be made before, and those that nothing uses afterwards. Those that pick for
/// Services without affinity stay: there are few.
fn pickers(installed: &Installed, decision: &Decision) -> (BTreeSet<Picker>, BTreeSet<Picker>) {
    let of = |it: Option<&Backend>| it.and_then(|it| it.port.picker);
    let mut users: BTreeMap<Picker, isize> = BTreeMap::new();
    for (port, after) in &decision.after {
        for (picker, change) in [(of(installed.backends.get(port)), -1), (of(after.as_ref()), 1)] {
            if let Some(picker) = picker {
                *users.entry(picker).or_default() += change;
            }
        }
    }
    let mut made = BTreeSet::new();
    let mut unused: BTreeSet<Picker> =
        installed.pickers.iter().filter(|(_, users)| **users == 0).map(|(it, _)| *it).collect();
    for (picker, change) in users {
        let before = installed.pickers.get(&picker).copied();
        match before.unwrap_or_default().saturating_add_signed(change) {
            0 => drop(unused.insert(picker)),
            _ => {
                unused.remove(&picker);
                made.extend(before.is_none().then_some(picker));
            }
        }
    }
    unused.retain(|it| it.remembers() && installed.pickers.contains_key(it));
    (made, unused)
}

/// The addresses that become endpoints and those that cease to be any.
fn hairpins(installed: &Installed, decision: &Decision) -> (Vec<Ipv4Addr>, Vec<Ipv4Addr>) {
    let mut added = BTreeSet::new();
    let mut changes: BTreeMap<Ipv4Addr, (usize, usize)> = BTreeMap::new();
    for (port, after) in &decision.after {
        let before = installed.backends.get(port).map(Backend::addresses).unwrap_or_default();
        for address in before {
            changes.entry(address).or_default().0 += 1;
        }
        for address in after.as_ref().map(Backend::addresses).unwrap_or_default() {
            changes.entry(address).or_default().1 += 1;
        }
    }
    let mut removed = BTreeSet::new();
    for (address, (losses, gains)) in changes {
        let before = installed.endpoints.get(&address).copied().unwrap_or_default();
        match (before, before.saturating_sub(losses) + gains) {
            (0, 1..) => drop(added.insert(address)),
            (1.., 0) => drop(removed.insert(address)),
            (_, _) => {}
        }
    }
    (added.into_iter().collect(), removed.into_iter().collect())
}

impl Decision {
    /// The ready endpoints of what changes.
    pub(crate) fn ready(&self) -> BTreeSet<Ipv4Addr> {
        let backends = self.after.values().flatten().filter(|it| !it.draining);
        backends.flat_map(Backend::addresses).collect()
    }
}

impl Backend {
    fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.port.slots.values().map(|it| *it.ip()).collect()
    }
}

impl Installed {
    /// What a table that was found has. That an endpoint is on its way out is not written there;
    /// the first decision finds it out.
    pub(crate) fn found(contents: Contents) -> Self {
        let mut installed = Self::default();
        installed.pickers.extend(contents.pickers.into_iter().map(|it| (it, 0)));
        for (frontend, port) in contents.ports {
            installed.set(frontend, Some(Backend { port, draining: false }));
        }
        installed
    }

    /// Where Services are reached.
    pub(crate) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.backends.keys().copied()
    }

    /// Whether a service port leads to `address`, other than for want of better.
    pub(crate) fn is_ready(&self, address: Ipv4Addr) -> bool {
        self.ready.contains_key(&address)
    }

    /// Takes in what was done.
    pub(crate) fn done(&mut self, decision: Decision) {
        let (made, removed) = decision.pickers;
        self.pickers.extend(made.into_iter().map(|it| (it, 0)));
        for (frontend, after) in decision.after {
            self.set(frontend, after);
        }
        self.pickers.retain(|it, _| !removed.contains(it));
    }

    fn set(&mut self, port: Frontend, backend: Option<Backend>) {
        let after = backend.clone().unwrap_or_default();
        let before = match backend {
            Some(backend) => self.backends.insert(port, backend),
            None => self.backends.remove(&port),
        };
        let before = before.unwrap_or_default();
        if let Some(users) = before.port.picker.and_then(|it| self.pickers.get_mut(&it)) {
            *users = users.saturating_sub(1);
        }
        if let Some(picker) = after.port.picker {
            *self.pickers.entry(picker).or_default() += 1;
        }
        count(&mut self.endpoints, &before.addresses(), &after.addresses());
        let ready = |it: &Backend| if it.draining { BTreeSet::new() } else { it.addresses() };
        count(&mut self.ready, &ready(&before), &ready(&after));
    }
}

fn count(
    counts: &mut BTreeMap<Ipv4Addr, usize>,
    losses: &BTreeSet<Ipv4Addr>,
    gains: &BTreeSet<Ipv4Addr>,
) {
    for address in gains {
        *counts.entry(*address).or_default() += 1;
    }
    for address in losses {
        if let Some(count) = counts.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

/// Where a place should lead, and how connections are spread.
fn wanted(place: &Place<'_>, api: SocketAddrV4, layout: &Layout) -> Target {
    let Some((key, service, port)) = place.service else {
        // As long as the pod is there, however it is: nothing waits for its end.
        return Target { draining: place.pod.into_iter().collect(), ..Target::default() };
    };
    let mut target = Target { affinity: affinity(service), ..Target::of(place, port) };
    target.lead_to_host(layout, place.at.transport);
    let is_api = key.namespace_or_empty() == "default" && key.name == "kubernetes";
    if is_api && place.slices.is_empty() {
        target.ready.insert(api);
    }
    target
}

/// How long a Service's client that is silent keeps its endpoint, if at all.
fn affinity(service: &Service) -> Option<u32> {
    let spec = service.spec.as_ref()?;
    spec.session_affinity.as_ref().filter(|it| *it == "ClientIP")?;
    let config = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
    let seconds = config.and_then(|it| u32::try_from(it.timeout_seconds?).ok());
    Some(seconds.unwrap_or(AFFINITY_SECONDS).clamp(1, AFFINITY_MAX))
}

/// Where connections to a place go on the host, if some do: the ready endpoints there, or those on
/// their way out if there are no others.
pub(crate) fn on_host(place: &Place<'_>, layout: &Layout) -> Vec<SocketAddrV4> {
    let Some((_, _, port)) = place.service else { return Vec::new() };
    let target = Target::of(place, port);
    let of_host = |it: BTreeSet<SocketAddrV4>| -> Vec<SocketAddrV4> {
        it.into_iter().filter(|it| layout.is_on_host(*it)).collect()
    };
    let ready = of_host(target.ready);
    if ready.is_empty() { of_host(target.draining) } else { ready }
}

impl Target {
    /// The endpoints that a Service has for a port of its own.
    fn of(place: &Place<'_>, port: &ServicePort) -> Self {
        let mut target = Self::default();
        for slice in place.slices.iter().filter(|it| it.address_type == "IPv4") {
            target.add(slice, port, place.at.transport);
        }
        target
    }

    /// Endpoints on the host are not in this network: TCP goes to the proxy, which finds out where to,
    /// and all else has no way.
    fn lead_to_host(&mut self, layout: &Layout, transport: Transport) {
        for endpoints in [&mut self.ready, &mut self.draining] {
            let before = endpoints.len();
            endpoints.retain(|it| !layout.is_on_host(*it));
            if endpoints.len() < before && transport == Transport::Tcp {
                endpoints.insert(layout.egress());
            }
        }
    }

    /// Adds the endpoints that `slice` has for `port`.
    fn add(&mut self, slice: &EndpointSlice, port: &ServicePort, transport: Transport) {
        let is_same = |it: &&EndpointPort| {
            let name = |it: &Option<String>| it.clone().unwrap_or_default();
            name(&it.name) == name(&port.name)
                && directory::transport(it.protocol.as_deref()) == Some(transport)
        };
        let ports = slice.ports.iter().flatten().filter(is_same);
        for number in ports.filter_map(|it| u16::try_from(it.port?).ok()) {
            for endpoint in directory::endpoints(slice) {
                // KEP-1669: a pod on its way out that still serves is better than nothing.
                let endpoints = match condition(endpoint) {
                    Condition::Ready => &mut self.ready,
                    Condition::Draining => &mut self.draining,
                    Condition::Down => continue,
                };
                let addresses = directory::addresses(endpoint);
                endpoints.extend(addresses.map(|it| SocketAddrV4::new(it, number)));
            }
        }
    }
}

/// What connections an endpoint may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    Draining,
    Down,
}

/// Unknown conditions mean ready, serving and not terminating, as `discovery.k8s.io/v1` says.
fn condition(endpoint: &Endpoint) -> Condition {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    if ready {
        Condition::Ready
    } else if conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false) {
        Condition::Draining
    } else {
        Condition::Down
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        let mut service: Service =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.7".to_owned());
        service
    }

    fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {"name": "web-1"},
            "ports": ports, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn run(installed: &Installed, service: Option<&Service>, slices: &[EndpointSlice]) -> Decision {
        let key = Key::namespaced("shop", "web");
        let frontends = service.map(|it| directory::frontends(it, &layout().addresses));
        let mut services: BTreeMap<_, _> =
            frontends.into_iter().flatten().map(|(it, port)| (it, Some(port))).collect();
        for at in installed.frontends() {
            services.entry(at).or_default();
        }
        let place = |(at, port): (Frontend, Option<_>)| Place {
            at,
            service: service.zip(port).map(|(service, port)| (&key, service, port)),
            slices: slices.iter().collect(),
            pod: None,
        };
        decide(&Seen {
            installed,
            places: services.into_iter().map(place).collect(),
            api: "10.244.0.1:6443".parse().unwrap(),
            layout: &layout(),
        })
    }

    fn layout() -> Layout {
        let (egress_port, local_ports) = (15001, vec![6443]);
        Layout { addresses: crate::addresses::Addresses::default(), egress_port, local_ports }
    }

    fn show(decision: &Decision) -> String {
        let mut lines = Vec::new();
        for unit in &decision.units {
            let mut moves: BTreeMap<String, usize> = BTreeMap::new();
            for change in unit {
                let name = |it: Option<SocketAddrV4>| it.map_or("-".into(), |it| it.to_string());
                let line = match change {
                    Change::Slot {
                        frontend: Frontend { address, transport, port },
                        from,
                        to,
                        ..
                    } => {
                        let (from, to) = (name(*from), name(*to));
                        format!("{address}:{port}/{transport:?} {from} > {to}")
                    }
                    Change::Port {
                        frontend: Frontend { address, transport, port }, to, ..
                    } => {
                        format!("{address}:{port}/{transport:?} {to:?}")
                    }
                    Change::AddMember(_, it) => format!("+ {it}"),
                    Change::RemoveMember(_, it) => format!("- {it}"),
                    other => format!("{other:?}"),
                };
                *moves.entry(line).or_default() += 1;
            }
            lines.extend(moves.iter().map(|(line, count)| format!("{line} x{count}")));
        }
        lines.extend(decision.stale.iter().map(|it| format!("{it:?}")));
        lines.join("\n")
    }

    #[test]
    fn endpoints_on_the_host_are_reached_through_the_proxy() {
        let service = service(json!({"ports": [
            {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"},
        ]}));
        let both =
            json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let endpoints = json!([{"addresses": ["10.244.0.1"]}, {"addresses": ["10.244.0.2"]}]);
        let slices = [slice(both, endpoints)];
        let decision = run(&Installed::default(), Some(&service), &slices);
        expect![[r#"
            AddHairpin(10.244.0.1) x1
            AddHairpin(10.244.0.2) x1
            AddPicker(Picker { affinity: None, bits: 0 }) x1
            AddPicker(Picker { affinity: None, bits: 1 }) x1
            10.96.0.7:80/Tcp - > 10.244.0.1:15001 x1
            10.96.0.7:80/Tcp - > 10.244.0.2:8080 x1
            10.96.0.7:80/Tcp Some(Picker { affinity: None, bits: 1 }) x1
            10.96.0.7:53/Udp - > 10.244.0.2:53 x1
            10.96.0.7:53/Udp Some(Picker { affinity: None, bits: 0 }) x1"#]]
        .assert_eq(&show(&decision));
        let key = Key::namespaced("shop", "web");
        let of = |number: u16, slices: &[EndpointSlice]| {
            let address = Ipv4Addr::new(10, 96, 0, 7);
            let at = Frontend { address, transport: Transport::Tcp, port: number };
            let frontends = directory::frontends(&service, &layout().addresses);
            let port = frontends.iter().find_map(|(it, port)| (*it == at).then_some(*port));
            let service = port.map(|port| (&key, &service, port));
            let slices = slices.iter().collect();
            on_host(&Place { at, service, slices, pod: None }, &layout())
        };
        assert_eq!(of(80, &slices), ["10.244.0.1:8080".parse().unwrap()]);
        assert_eq!(of(53, &slices), []);
        assert_eq!(of(81, &slices), []);
        // What the cluster serves itself is no port of the host; who is on the way out comes last.
        let ports = json!([{"name": "http", "port": 6443}]);
        assert_eq!(of(80, &[slice(ports, json!([{"addresses": ["10.244.0.1"]}]))]), []);
        let draining = json!({"ready": false, "serving": true, "terminating": true});
        let endpoints = json!([{"addresses": ["10.244.0.1"], "conditions": draining}]);
        let leaving = [slice(json!([{"name": "http", "port": 1}]), endpoints)];
        assert_eq!(of(80, &leaving), ["10.244.0.1:1".parse().unwrap()]);
    }

    /// Decides about the same service as it is described by one state after the other.
    fn check(states: &[(Value, Value, Value)], expected: Expect) {
        let mut installed = Installed::default();
        let mut shown = Vec::new();
        for (spec, ports, endpoints) in states {
            let slices = [slice(ports.clone(), endpoints.clone())];
            let decision = run(&installed, Some(&service(spec.clone())), &slices);
            shown.push(show(&decision));
            installed.done(decision);
        }
        expected.assert_eq(&shown.join("\n--\n"));
    }

    fn pod(address: &str) -> Value {
        json!({"addresses": [address], "conditions": {"ready": true}})
    }

    #[test]
    fn two_ports_by_name() {
        check(
            &[(
                json!({"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
                json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"},
                       {"name": "dns", "port": 5354, "protocol": "TCP"}]),
                json!([pod("10.244.0.2")]),
            )],
            expect![[r#"
                AddHairpin(10.244.0.2) x1
                AddPicker(Picker { affinity: None, bits: 0 }) x1
                10.96.0.7:80/Tcp - > 10.244.0.2:8080 x1
                10.96.0.7:80/Tcp Some(Picker { affinity: None, bits: 0 }) x1
                10.96.0.7:53/Udp - > 10.244.0.2:5353 x1
                10.96.0.7:53/Udp Some(Picker { affinity: None, bits: 0 }) x1"#]],
        );
    }

    #[test]
    fn a_draining_endpoint_serves_only_when_no_other_does() {
        let draining = json!({"addresses": ["10.244.0.2"],
            "conditions": {"ready": false, "serving": true, "terminating": true}});
        let down = json!({"addresses": ["10.244.0.4"], "conditions": {"ready": false}});
        let spec = json!({"ports": [{"port": 80}]});
        let ports = json!([{"name": "", "port": 80}]);
        check(
            &[
                (spec.clone(), ports.clone(), json!([pod("10.244.0.2"), down])),
                (spec.clone(), ports.clone(), json!([draining])),
                (spec.clone(), ports.clone(), json!([draining, pod("10.244.0.3")])),
                (spec, ports, json!([])),
            ],
            expect![[r#"
                AddHairpin(10.244.0.2) x1
                AddPicker(Picker { affinity: None, bits: 0 }) x1
                10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
                10.96.0.7:80/Tcp Some(Picker { affinity: None, bits: 0 }) x1
                --

                --
                AddHairpin(10.244.0.3) x1
                10.96.0.7:80/Tcp 10.244.0.2:80 > 10.244.0.3:80 x1
                RemoveHairpin(10.244.0.2) x1
                --
                10.96.0.7:80/Tcp 10.244.0.3:80 > - x1
                10.96.0.7:80/Tcp None x1
                RemoveHairpin(10.244.0.3) x1"#]],
        );
    }

    #[test]
    fn udp_flows_of_a_removed_endpoint_are_forgotten() {
        let spec = json!({"ports": [{"port": 53, "protocol": "UDP"}]});
        let ports = json!([{"port": 53, "protocol": "UDP"}]);
        check(
            &[
                (spec.clone(), ports.clone(), json!([pod("10.244.0.2"), pod("10.244.0.3")])),
                (spec, ports, json!([pod("10.244.0.3")])),
            ],
            expect![[r#"
                AddHairpin(10.244.0.2) x1
                AddHairpin(10.244.0.3) x1
                AddPicker(Picker { affinity: None, bits: 1 }) x1
                10.96.0.7:53/Udp - > 10.244.0.2:53 x1
                10.96.0.7:53/Udp - > 10.244.0.3:53 x1
                10.96.0.7:53/Udp Some(Picker { affinity: None, bits: 1 }) x1
                --
                AddPicker(Picker { affinity: None, bits: 0 }) x1
                10.96.0.7:53/Udp 10.244.0.2:53 > 10.244.0.3:53 x1
                10.96.0.7:53/Udp 10.244.0.3:53 > - x1
                10.96.0.7:53/Udp Some(Picker { affinity: None, bits: 0 }) x1
                RemoveHairpin(10.244.0.2) x1
                Flow { service: 10.96.0.7:53, endpoint: 10.244.0.2:53 }"#]],
        );
    }

    #[test]
    fn clients_are_remembered_as_long_as_the_service_says() {
        let ports = json!([{"port": 80}]);
        let spec = |affinity: Value, config: Value| json!({"ports": [{"port": 80}], "sessionAffinity": affinity, "sessionAffinityConfig": config});
        let both = json!([pod("10.244.0.2"), pod("10.244.0.3")]);
        check(
            &[
                (
                    spec(json!("ClientIP"), json!({"clientIP": {"timeoutSeconds": 5}})),
                    ports.clone(),
                    both.clone(),
                ),
                (spec(json!("ClientIP"), json!(null)), ports.clone(), json!([pod("10.244.0.3")])),
                (spec(json!("None"), json!(null)), ports, both),
            ],
            expect![[r#"
                AddHairpin(10.244.0.2) x1
                AddHairpin(10.244.0.3) x1
                AddPicker(Picker { affinity: Some(5), bits: 1 }) x1
                + 10.244.0.2:80 x1
                + 10.244.0.3:80 x1
                10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
                10.96.0.7:80/Tcp - > 10.244.0.3:80 x1
                10.96.0.7:80/Tcp Some(Picker { affinity: Some(5), bits: 1 }) x1
                --
                AddPicker(Picker { affinity: Some(10800), bits: 0 }) x1
                - 10.244.0.2:80 x1
                10.96.0.7:80/Tcp 10.244.0.2:80 > 10.244.0.3:80 x1
                10.96.0.7:80/Tcp 10.244.0.3:80 > - x1
                10.96.0.7:80/Tcp Some(Picker { affinity: Some(10800), bits: 0 }) x1
                RemoveHairpin(10.244.0.2) x1
                RemovePicker(Picker { affinity: Some(5), bits: 1 }) x1
                --
                AddHairpin(10.244.0.2) x1
                AddPicker(Picker { affinity: None, bits: 1 }) x1
                - 10.244.0.3:80 x1
                10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
                10.96.0.7:80/Tcp Some(Picker { affinity: None, bits: 1 }) x1
                RemovePicker(Picker { affinity: Some(10800), bits: 0 }) x1"#]],
        );
    }

    #[test]
    fn a_port_of_the_host_leads_to_its_pod_for_want_of_a_service() {
        let at = Frontend {
            address: Ipv4Addr::new(10, 244, 0, 1),
            transport: Transport::Tcp,
            port: 8080,
        };
        let pod: Option<SocketAddrV4> = Some("10.244.0.9:80".parse().unwrap());
        let mut installed = Installed::default();
        let mut shown = Vec::new();
        for pod in [pod, None] {
            let places = vec![Place { at, service: None, slices: Vec::new(), pod }];
            let (api, layout) = ("10.244.0.1:6443".parse().unwrap(), &layout());
            let decision = decide(&Seen { installed: &installed, places, api, layout });
            shown.push(show(&decision));
            installed.done(decision);
            // Else the pod would never be asked to end.
            assert!(!installed.is_ready(Ipv4Addr::new(10, 244, 0, 9)));
        }
        expect![[r#"
            AddHairpin(10.244.0.9) x1
            AddPicker(Picker { affinity: None, bits: 0 }) x1
            10.244.0.1:8080/Tcp - > 10.244.0.9:80 x1
            10.244.0.1:8080/Tcp Some(Picker { affinity: None, bits: 0 }) x1
            --
            10.244.0.1:8080/Tcp 10.244.0.9:80 > - x1
            10.244.0.1:8080/Tcp None x1
            RemoveHairpin(10.244.0.9) x1"#]]
        .assert_eq(&shown.join("\n--\n"));
    }

    #[test]
    fn draining_is_not_ready() {
        let mut installed = Installed::default();
        let web = service(json!({"ports": [{"port": 80}]}));
        let address = Ipv4Addr::new(10, 244, 0, 2);
        for (conditions, expected) in [
            (json!({}), true),
            (json!({"ready": false, "serving": true, "terminating": true}), false),
            (json!({"ready": false}), false),
        ] {
            let endpoints = json!([{"addresses": [address], "conditions": conditions}]);
            let slices = [slice(json!([{"port": 80}]), endpoints)];
            installed.done(run(&installed, Some(&web), &slices));
            assert_eq!(installed.is_ready(address), expected);
        }
    }

    /// What a table has after the changes; every change must fit what is there.
    fn change(contents: &mut Contents, units: &[Vec<Change>]) {
        for change in units.iter().flatten() {
            match *change {
                Change::AddPicker(picker) => assert!(contents.pickers.insert(picker)),
                Change::RemovePicker(picker) => {
                    assert!(contents.pickers.remove(&picker));
                    assert!(!contents.ports.values().any(|it| it.picker == Some(picker)));
                }
                Change::Port { frontend, from, to } => {
                    assert!(to.is_none_or(|it| contents.pickers.contains(&it)));
                    let port = contents.ports.entry(frontend).or_default();
                    assert_eq!(std::mem::replace(&mut port.picker, to), from);
                }
                Change::Slot { frontend, slot, from, to } => {
                    let slots = &mut contents.ports.entry(frontend).or_default().slots;
                    let before = match to {
                        None => slots.remove(&slot),
                        Some(it) => slots.insert(slot, it),
                    };
                    assert_eq!(before, from);
                }
                Change::AddMember(at, member) => {
                    assert!(contents.ports.entry(at).or_default().members.insert(member));
                }
                Change::RemoveMember(at, member) => {
                    assert!(contents.ports.entry(at).or_default().members.remove(&member));
                }
                Change::AddHairpin(address) => assert!(contents.hairpin.insert(address)),
                Change::RemoveHairpin(address) => assert!(contents.hairpin.remove(&address)),
            }
        }
        contents.ports.retain(|_, port| *port != Port::default());
    }

    prop_compose! {
        fn any_state()(
            exists: bool, sticky: bool, timeout in 1..3_u32, udp: bool,
            pods in proptest::collection::vec((2..9_u8, 0..3_u8), 0..6),
        ) -> (Option<Service>, EndpointSlice) {
            let affinity = if sticky { "ClientIP" } else { "None" };
            let protocol = if udp { "UDP" } else { "TCP" };
            let spec = json!({"sessionAffinity": affinity,
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}},
                "ports": [{"name": "a", "port": 80, "protocol": protocol}, {"name": "b", "port": 81}]});
            let endpoints: Vec<Value> = pods.iter().map(|(host, state)| json!({
                "addresses": [format!("10.244.0.{host}")],
                "conditions": {"ready": *state == 0, "serving": *state == 1, "terminating": true},
            })).collect();
            let ports = json!([{"name": "a", "port": 1, "protocol": protocol}, {"name": "b", "port": 2}]);
            (exists.then(|| service(spec)), slice(ports, endpoints.into()))
        }
    }

    proptest! {
        #[test]
        fn converges_and_the_table_follows(states in proptest::collection::vec(any_state(), 1..8)) {
            let mut installed = Installed::default();
            let mut contents = Contents::default();
            for (service, slice) in &states {
                let slices = [slice.clone()];
                let decision = run(&installed, service.as_ref(), &slices);
                change(&mut contents, &decision.units);
                installed.done(decision);
                prop_assert_eq!(run(&installed, service.as_ref(), &slices), Decision::default());
                let endpoints: BTreeSet<_> = installed.endpoints.keys().copied().collect();
                prop_assert_eq!(&contents.hairpin, &endpoints);
                for port in contents.ports.values() {
                    let members = port.slots.values().copied().collect();
                    let sticky = port.picker.unwrap().remembers();
                    prop_assert_eq!(&port.members, &if sticky { members } else { BTreeSet::new() });
                    prop_assert!(contents.pickers.contains(&port.picker.unwrap()));
                }
                let used = |it: &Picker| contents.ports.values().any(|port| port.picker == Some(*it));
                prop_assert!(contents.pickers.iter().all(|it| used(it) || !it.remembers()));
                let found = Installed::found(contents.clone());
                prop_assert_eq!(&found.pickers, &installed.pickers);
                prop_assert_eq!(found.endpoints, installed.endpoints.clone());
            }
        }
    }
}
