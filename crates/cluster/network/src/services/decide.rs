//! Which slots of which service port lead where. Pure: what is seen goes in, what to change comes
//! out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use client::Key;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::EndpointSlice,
};

use super::{
    slots::spread,
    target::{Target, Wanted, wanted},
};
use crate::{
    directory::{Directory, Place as NodePlace},
    netlink::conntrack::Flow,
    nft::{Change, Clients, Contents, Entry, Frontend, Layout, Picker, Port, Slots, Transport},
};

/// A service port as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) port: Port,
    /// The endpoints are on their way out; they are used because there are no others.
    pub(crate) draining: bool,
    /// The addresses in the slots. There may be thousands, of which a change concerns one.
    addresses: BTreeSet<Ipv4Addr>,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    backends: BTreeMap<Entry, Backend>,
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
    /// The nodes, by the part of the range that their pods have.
    pub(crate) nodes: &'a BTreeMap<u8, NodePlace>,
}

impl<'a> Place<'a> {
    /// What the directory says of it.
    pub(crate) fn of(directory: &'a Directory, at: Frontend) -> Self {
        let service = directory.reached_at(at);
        let slices = service.into_iter().flat_map(|(key, ..)| directory.slices(key)).collect();
        let (pod, nodes) = (directory.host_port_at(at), directory.nodes());
        Self { at, service, slices, pod, nodes }
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
    after: BTreeMap<Entry, Option<Backend>>,
    /// Pickers that are made, and those that are removed.
    pickers: (BTreeSet<Picker>, BTreeSet<Picker>),
    /// UDP flows that would go on to an endpoint which is none any more.
    pub(crate) stale: BTreeSet<Flow>,
}

/// Decides about all places of `seen` together.
pub(crate) fn decide(seen: &Seen<'_>) -> Decision {
    let mut decision = Decision::default();
    for place in &seen.places {
        decide_place(
            seen.installed,
            place.at,
            &wanted(place, seen.api, seen.layout),
            &mut decision,
        );
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

/// All of it is one unit: what is for a node's pods is there before they are sent to it, and until they are
/// sent there no more.
fn decide_place(installed: &Installed, at: Frontend, wanted: &Wanted, decision: &mut Decision) {
    let Wanted { affinity, all, of_nodes } = wanted;
    let mut changes = Changes { installed, unit: Vec::new(), decision };
    let mut members = BTreeSet::new();
    for (clients, target) in of_nodes {
        let Clients::OfNode(node) = *clients else { continue };
        let entry = Entry { at, clients: *clients };
        let (slots, draining) = installed.slots(entry, target);
        members.extend(affinity.iter().flat_map(|_| slots.values().copied()));
        let picker = Some(Picker::of_node(node, slots.len(), *affinity));
        changes.add(entry, Backend::new(Port { picker, slots, ..Port::default() }, draining));
    }
    let (slots, draining) = installed.slots(at.all(), all);
    members.extend(affinity.iter().flat_map(|_| slots.values().copied()));
    let picker = Picker::of(slots.len(), *affinity);
    let picker = if of_nodes.is_empty() { picker } else { picker.map(Picker::by_node) };
    changes.add(at.all(), Backend::new(Port { picker, slots, members }, draining));
    for entry in installed.of_nodes(at) {
        if !of_nodes.iter().any(|(clients, _)| *clients == entry.clients) {
            changes.add(entry, Backend::default());
        }
    }
    let unit = changes.unit;
    decision.units.push(unit);
}

/// What changes at a place.
struct Changes<'a> {
    installed: &'a Installed,
    unit: Vec<Change>,
    decision: &'a mut Decision,
}

impl Changes<'_> {
    /// Makes an entry what it should be.
    fn add(&mut self, entry: Entry, after: Backend) {
        let nothing = Backend::default();
        let before = self.installed.backends.get(&entry).unwrap_or(&nothing);
        if after == *before {
            return;
        }
        self.unit.extend(before.port.changes(entry, &after.port));
        if entry.at.transport == Transport::Udp {
            let service = SocketAddrV4::new(entry.at.address, entry.at.port);
            let kept: BTreeSet<_> = after.port.slots.values().collect();
            let gone = before.port.slots.values().filter(|it| !kept.contains(it));
            self.decision.stale.extend(gone.map(|it| Flow { service, endpoint: *it }));
        }
        self.decision.after.insert(entry, (after != nothing).then_some(after));
    }
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
    unused.retain(|it| it.is_rare() && installed.pickers.contains_key(it));
    (made, unused)
}

/// The addresses that become endpoints and those that cease to be any.
fn hairpins(installed: &Installed, decision: &Decision) -> (Vec<Ipv4Addr>, Vec<Ipv4Addr>) {
    let nothing = BTreeSet::new();
    let mut added = BTreeSet::new();
    let mut changes: BTreeMap<Ipv4Addr, (usize, usize)> = BTreeMap::new();
    for (port, after) in &decision.after {
        let before = installed.backends.get(port).map_or(&nothing, |it| &it.addresses);
        let after = after.as_ref().map_or(&nothing, |it| &it.addresses);
        for address in before.difference(after) {
            changes.entry(*address).or_default().0 += 1;
        }
        for address in after.difference(before) {
            changes.entry(*address).or_default().1 += 1;
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
    /// The endpoints that are not ready in any of what is `installed`, and will be.
    pub(crate) fn coming(&self, installed: &Installed) -> BTreeSet<Ipv4Addr> {
        let backends = self.after.values().flatten().filter(|it| !it.draining);
        let addresses = backends.flat_map(|it| &it.addresses);
        addresses.filter(|it| !installed.is_ready(**it)).copied().collect()
    }
}

impl Backend {
    fn new(port: Port, draining: bool) -> Self {
        let addresses = port.slots.values().map(|it| *it.ip()).collect();
        Self { port, draining, addresses }
    }
}

impl Installed {
    /// What a table that was found has. That an endpoint is on its way out is not written there;
    /// the first decision finds it out.
    pub(crate) fn found(contents: Contents) -> Self {
        let mut installed = Self::default();
        installed.pickers.extend(contents.pickers.into_iter().map(|it| (it, 0)));
        for (entry, port) in contents.ports {
            installed.set(entry, Some(Backend::new(port, false)));
        }
        installed
    }

    /// Where Services are reached.
    pub(crate) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.backends.keys().map(|it| it.at)
    }

    /// What there is for the pods of single nodes.
    fn of_nodes(&self, at: Frontend) -> Vec<Entry> {
        let entry = |node| Entry { at, clients: Clients::OfNode(node) };
        self.backends.range(entry(0)..=entry(u8::MAX)).map(|(it, _)| *it).collect()
    }

    /// The slots of an entry when it leads to a target, and whether what is in them is on its way out.
    fn slots(&self, entry: Entry, target: &Target) -> (Slots, bool) {
        let nothing = Slots::new();
        let before = self.backends.get(&entry).map_or(&nothing, |it| &it.port.slots);
        let draining = target.ready.is_empty();
        let slots = spread(before, if draining { &target.draining } else { &target.ready });
        let draining = draining && !slots.is_empty();
        (slots, draining)
    }

    /// Whether a service port leads to `address`, other than for want of better.
    pub(crate) fn is_ready(&self, address: Ipv4Addr) -> bool {
        self.ready.contains_key(&address)
    }

    /// Takes in what was done.
    pub(crate) fn done(&mut self, decision: Decision) {
        let (made, removed) = decision.pickers;
        self.pickers.extend(made.into_iter().map(|it| (it, 0)));
        for (entry, after) in decision.after {
            self.set(entry, after);
        }
        self.pickers.retain(|it, _| !removed.contains(it));
    }

    fn set(&mut self, port: Entry, backend: Option<Backend>) {
        let before = match backend {
            Some(backend) => self.backends.insert(port, backend),
            None => self.backends.remove(&port),
        };
        let (before, nothing) = (before.unwrap_or_default(), Backend::default());
        let after = self.backends.get(&port).unwrap_or(&nothing);
        if let Some(users) = before.port.picker.and_then(|it| self.pickers.get_mut(&it)) {
            *users = users.saturating_sub(1);
        }
        if let Some(picker) = after.port.picker {
            *self.pickers.entry(picker).or_default() += 1;
        }
        count(&mut self.endpoints, &before.addresses, &after.addresses);
        let ready_before = if before.draining { &nothing.addresses } else { &before.addresses };
        let ready_after = if after.draining { &nothing.addresses } else { &after.addresses };
        count(&mut self.ready, ready_before, ready_after);
    }
}

/// Counts who is there after a change and was not before, and no longer who was.
fn count(
    counts: &mut BTreeMap<Ipv4Addr, usize>,
    before: &BTreeSet<Ipv4Addr>,
    after: &BTreeSet<Ipv4Addr>,
) {
    for address in after.difference(before) {
        *counts.entry(*address).or_default() += 1;
    }
    for address in before.difference(after) {
        if let Some(count) = counts.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
