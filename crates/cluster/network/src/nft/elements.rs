//! The changing part of the table: which service address leads to which endpoints.
//!
//! A service port has a picker, which says how a connection gets a slot, and a slot for each endpoint,
//! numbered from 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::{
    batch::{Batch, Element, LIST_ELEM, Set},
    picker::{ENDPOINTS_MAX, NODE_PICKERS, PICKERS, Picker},
};
use crate::{addresses::Addresses, netlink::wire};

/// Clients whose endpoint is remembered, of all Services together: some 10 MB of kernel memory. Further
/// ones are told apart by their address alone, as long as the endpoints are the same.
const CLIENTS_MAX: u32 = 1 << 16;

/// Data types as `nft` numbers them; a concatenation has them in 6 bits each.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
pub(super) const TYPE_MARK: u32 = 19;
const TYPE_BITS: u32 = 6;

const fn concatenation(types: &[u32]) -> u32 {
    let mut result = 0;
    let mut rest = types;
    while let [first, others @ ..] = rest {
        result = result << TYPE_BITS | *first;
        rest = others;
    }
    result
}

/// Type of an endpoint.
pub(super) const ADDRESS_PORT: u32 = concatenation(&[TYPE_IPV4_ADDR, TYPE_INET_SERVICE]);

/// Service address . protocol . port : picker.
pub(super) const PORTS: Set = Set {
    name: "ports",
    id: 1,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE]),
    key_length: 12,
    value_type: TYPE_MARK,
    value_length: 4,
    dynamic_max: None,
};
/// First address of a node's pods . service address . protocol . port : picker, of service ports that lead
/// the pods of one node elsewhere than those of another.
pub(super) const NODE_PORTS: Set = Set {
    name: "node-ports",
    id: 7,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE]),
    key_length: 16,
    ..PORTS
};
/// Service address . protocol . port . slot : endpoint address . port.
pub(super) const SLOTS: Set = Set {
    name: "slots",
    id: 2,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_MARK]),
    key_length: 16,
    value_type: ADDRESS_PORT,
    value_length: 8,
    dynamic_max: None,
};
/// Service address . protocol . port . endpoint address . port, of services that remember clients.
pub(super) const MEMBERS: Set = Set {
    name: "members",
    id: 4,
    key_type: concatenation(&[
        TYPE_IPV4_ADDR,
        TYPE_INET_PROTO,
        TYPE_INET_SERVICE,
        TYPE_IPV4_ADDR,
        TYPE_INET_SERVICE,
    ]),
    key_length: 20,
    value_type: 0,
    value_length: 0,
    dynamic_max: None,
};
/// Client address . service address . protocol . port : endpoint address . port. Elements come and go
/// in the kernel.
pub(super) const AFFINITY: Set = Set {
    name: "affinity",
    id: 5,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE]),
    key_length: 16,
    value_type: ADDRESS_PORT,
    value_length: 8,
    dynamic_max: Some(CLIENTS_MAX),
};
/// All sets, in the order of which one needs what another has.
pub(super) const SETS: [Set; 8] =
    [NODE_PICKERS, PICKERS, NODE_PORTS, PORTS, SLOTS, MEMBERS, AFFINITY, HAIRPIN];
/// Those whose elements are written here.
pub(super) const WRITTEN: [Set; 7] =
    [NODE_PICKERS, PICKERS, NODE_PORTS, PORTS, SLOTS, MEMBERS, HAIRPIN];
/// Maps like [`SLOTS`] that tables of older versions have.
pub(super) const OLDER_SLOTS: [&str; 2] = ["services", "sticky-services"];
/// Endpoint address . the same again: a pod that was sent to itself would answer itself directly,
/// so such a connection has to come from another address.
pub(super) const HAIRPIN: Set = Set {
    name: "hairpin",
    id: 3,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_IPV4_ADDR]),
    key_length: 8,
    value_type: 0,
    value_length: 0,
    dynamic_max: None,
};

/// Protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: Ipv4Addr,
    pub(crate) transport: Transport,
    pub(crate) port: u16,
}

/// Whose connections to a service port lead somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clients {
    /// Everybody's, but those of pods whose node has endpoints of its own.
    All,
    /// Those of a node's pods.
    OfNode(u8),
}

/// A service port, for some of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) at: Frontend,
    pub(crate) clients: Clients,
}

/// The endpoints of a service port, by slot.
pub(crate) type Slots = BTreeMap<u32, SocketAddrV4>;

/// A service port as the table has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) picker: Option<Picker>,
    pub(crate) slots: Slots,
    /// The endpoints that remembered clients may go to.
    pub(crate) members: BTreeSet<SocketAddrV4>,
}

/// All elements of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) ports: BTreeMap<Entry, Port>,
    pub(crate) pickers: BTreeSet<Picker>,
    pub(crate) hairpin: BTreeSet<Ipv4Addr>,
}

/// One step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A picker is going to be used.
    AddPicker(Picker),
    /// No service port uses a picker any more.
    RemovePicker(Picker),
    /// The picker of a service port changes.
    Port { entry: Entry, from: Option<Picker>, to: Option<Picker> },
    /// The endpoint in a slot changes.
    Slot { entry: Entry, slot: u32, from: Option<SocketAddrV4>, to: Option<SocketAddrV4> },
    /// An endpoint becomes one that remembered clients may go to.
    AddMember(Frontend, SocketAddrV4),
    /// It is none any more.
    RemoveMember(Frontend, SocketAddrV4),
    /// An address becomes an endpoint.
    AddHairpin(Ipv4Addr),
    /// An address is no endpoint any more.
    RemoveHairpin(Ipv4Addr),
}

impl Transport {
    /// The protocol's number in the IP header.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Clients {
    /// Where in the map of slots theirs begin.
    pub(super) fn first_slot(self) -> u32 {
        match self {
            Self::All => 0,
            Self::OfNode(node) => (u32::from(node) + 1) * ENDPOINTS_MAX,
        }
    }

    /// Whose slot it is.
    fn of_slot(slot: u32) -> Option<Self> {
        match slot / ENDPOINTS_MAX {
            0 => Some(Self::All),
            node => Some(Self::OfNode(u8::try_from(node - 1).ok()?)),
        }
    }
}

impl Frontend {
    /// For everybody.
    pub(crate) const fn all(self) -> Entry {
        Entry { at: self, clients: Clients::All }
    }
}

impl Port {
    /// What leads from this to `after`, in an order that leaves no draw without an endpoint if it has to
    /// be cut into several transactions.
    pub(crate) fn changes(&self, entry: Entry, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&slot, &endpoint) in &after.slots {
            let from = self.slots.get(&slot).copied();
            if from != Some(endpoint) {
                changes.push(Change::Slot { entry, slot, from, to: Some(endpoint) });
            }
        }
        let come = after.members.difference(&self.members);
        changes.extend(come.map(|it| Change::AddMember(entry.at, *it)));
        if self.picker != after.picker {
            changes.push(Change::Port { entry, from: self.picker, to: after.picker });
        }
        let gone = self.slots.iter().filter(|(slot, _)| !after.slots.contains_key(slot));
        changes.extend(gone.map(|(&slot, &endpoint)| {
            let from = Some(endpoint);
            Change::Slot { entry, slot, from, to: None }
        }));
        let gone = self.members.difference(&after.members);
        changes.extend(gone.map(|it| Change::RemoveMember(entry.at, *it)));
        changes
    }
}

impl Contents {
    /// The changes that make this out of nothing; those of one unit belong together.
    pub(super) fn units(&self) -> Vec<Vec<Change>> {
        let pickers = self.pickers.iter().map(|it| vec![Change::AddPicker(*it)]);
        let hairpin = self.hairpin.iter().map(|it| vec![Change::AddHairpin(*it)]);
        let ports = self.ports.iter().map(|(at, port)| Port::default().changes(*at, port));
        pickers.chain(hairpin).chain(ports).collect()
    }

    /// Gives the service ports that were read from a table of an older version what they lack.
    pub(super) fn complete(&mut self) {
        // What is for a node's pods has none only if the ranges have changed.
        self.ports.retain(|it, port| it.clients == Clients::All || port.picker.is_some());
        for port in self.ports.values_mut().filter(|it| it.picker.is_none()) {
            port.picker = Picker::of(port.slots.len(), None);
            self.pickers.extend(port.picker);
        }
    }
}

/// Address, protocol and port, each padded.
fn port_key(frontend: Frontend) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    key.extend(frontend.address.octets());
    key.extend([frontend.transport.number(), 0, 0, 0]);
    key.extend(frontend.port.to_be_bytes().iter().chain(&[0, 0]));
    key
}

fn endpoint_bytes(endpoint: SocketAddrV4) -> [u8; 8] {
    let ([a, b, c, d], [high, low]) = (endpoint.ip().octets(), endpoint.port().to_be_bytes());
    [a, b, c, d, high, low, 0, 0]
}

fn port_element(entry: Entry, picker: Option<Picker>, addresses: &Addresses) -> (Set, Element) {
    let value = picker.map(|it| it.id().to_ne_bytes().to_vec());
    let key = port_key(entry.at);
    match entry.clients {
        Clients::All => (PORTS, Element { key, value }),
        Clients::OfNode(node) => {
            let part = addresses.part(node.into()).address.octets();
            (NODE_PORTS, Element { key: [&part[..], &key].concat(), value })
        }
    }
}

fn slot_element(entry: Entry, slot: u32, endpoint: Option<SocketAddrV4>) -> Element {
    let mut key = port_key(entry.at);
    // As `numgen` and `jhash` leave it in the register: in the machine's own order.
    key.extend((entry.clients.first_slot() + slot).to_ne_bytes());
    Element { key, value: endpoint.map(|it| endpoint_bytes(it).to_vec()) }
}

fn member_element(frontend: Frontend, endpoint: SocketAddrV4) -> Element {
    let mut key = port_key(frontend);
    key.extend(endpoint_bytes(endpoint));
    Element { key, value: None }
}

fn hairpin_element(address: Ipv4Addr) -> Element {
    Element { key: [address.octets(), address.octets()].concat(), value: None }
}

/// Writes changes into a batch: what goes before what comes, as few messages as possible.
pub(super) fn write(batch: &mut Batch, addresses: &Addresses, changes: &[Change]) {
    let mut removed: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    let mut added: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    let mut unused = Vec::new();
    for change in changes {
        let (set, from, to) = match *change {
            Change::AddPicker(picker) => {
                picker.add(batch, addresses);
                continue;
            }
            Change::RemovePicker(picker) => {
                unused.push(picker);
                continue;
            }
            Change::Port { entry, from, to } => {
                let (set, old) = port_element(entry, None, addresses);
                let new = to.map(|it| port_element(entry, Some(it), addresses).1);
                (set, from.map(|_| old), new)
            }
            Change::Slot { entry, slot, from, to } => (
                SLOTS,
                from.map(|_| slot_element(entry, slot, None)),
                to.map(|it| slot_element(entry, slot, Some(it))),
            ),
            Change::AddMember(at, endpoint) => (MEMBERS, None, Some(member_element(at, endpoint))),
            Change::RemoveMember(at, endpoint) => {
                (MEMBERS, Some(member_element(at, endpoint)), None)
            }
            Change::AddHairpin(address) => (HAIRPIN, None, Some(hairpin_element(address))),
            Change::RemoveHairpin(address) => (HAIRPIN, Some(hairpin_element(address)), None),
        };
        removed.entry(set.name).or_default().extend(from);
        added.entry(set.name).or_default().extend(to);
    }
    for (set, elements) in removed {
        batch.delete_elements(set, &elements);
    }
    for (set, elements) in added {
        batch.add_elements(set, &elements);
    }
    for picker in unused {
        picker.remove(batch);
    }
}

/// Reads one message of a dump of the set called `set` into `contents`. Elements that we did not
/// write are passed over.
pub(super) fn read(set: &str, attributes: &[u8], addresses: &Addresses, contents: &mut Contents) {
    const LIST: u16 = 3;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const VALUE: u16 = 1;
    let list = wire::attribute(attributes, LIST).unwrap_or_default();
    for (kind, element) in wire::attributes(list) {
        let key = wire::attribute_at(element, &[KEY, VALUE]).filter(|_| kind == LIST_ELEM);
        let Some(key) = key else { continue };
        let value = wire::attribute_at(element, &[DATA, VALUE]).unwrap_or_default();
        if read_element(set, key, value, addresses, contents).is_none() {
            tracing::debug!(set, ?key, "an element of somebody else");
        }
    }
}

fn read_element(
    set: &str,
    key: &[u8],
    value: &[u8],
    addresses: &Addresses,
    contents: &mut Contents,
) -> Option<()> {
    if set == HAIRPIN.name {
        contents.hairpin.insert(Ipv4Addr::from(*key.first_chunk()?));
        return Some(());
    }
    if set == PICKERS.name || set == NODE_PICKERS.name {
        contents.pickers.insert(Picker::read(u32::from_ne_bytes(*key.first_chunk()?)));
        return Some(());
    }
    if set == PORTS.name || set == NODE_PORTS.name {
        let picker = Picker::read(u32::from_ne_bytes(*value.first_chunk()?));
        let (clients, key) = match set == PORTS.name {
            true => (Clients::All, key),
            false => {
                let part = Ipv4Addr::from(*key.first_chunk()?);
                (Clients::OfNode(addresses.node_of_part(part)?), key.get(4..)?)
            }
        };
        let entry = Entry { at: read_port(key)?, clients };
        contents.ports.entry(entry).or_default().picker = Some(picker);
        return Some(());
    }
    let (at, rest) = (read_port(key)?, key.get(12..)?);
    if set == MEMBERS.name {
        let member = read_endpoint(rest)?;
        contents.ports.entry(at.all()).or_default().members.insert(member);
    } else {
        let slot = u32::from_ne_bytes(*rest.first_chunk()?);
        let entry = Entry { at, clients: Clients::of_slot(slot)? };
        let endpoint = read_endpoint(value)?;
        let slots = &mut contents.ports.entry(entry).or_default().slots;
        slots.insert(slot % ENDPOINTS_MAX, endpoint);
    }
    Some(())
}

fn read_port(key: &[u8]) -> Option<Frontend> {
    let transport = match key.get(4)? {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    let address = Ipv4Addr::from(*key.first_chunk::<4>()?);
    let port = u16::from_be_bytes(*key.get(8..)?.first_chunk()?);
    Some(Frontend { address, transport, port })
}

fn read_endpoint(bytes: &[u8]) -> Option<SocketAddrV4> {
    let address = Ipv4Addr::from(*bytes.first_chunk::<4>()?);
    let port = u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    Some(SocketAddrV4::new(address, port))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const FRONTEND: Frontend =
        Frontend { address: Ipv4Addr::new(10, 96, 0, 7), transport: Transport::Tcp, port: 80 };

    #[test]
    fn an_element_is_what_the_rule_looks_up() {
        let endpoint: SocketAddrV4 = "10.244.0.2:8080".parse().unwrap();
        let addresses = Addresses::default();
        let Element { key, value } = slot_element(FRONTEND.all(), 3, Some(endpoint));
        let value = value.unwrap();
        expect!["[10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0, 3, 0, 0, 0]"]
            .assert_eq(&format!("{key:?}"));
        expect!["[10, 244, 0, 2, 31, 144, 0, 0]"].assert_eq(&format!("{value:?}"));
        let picker = Picker::of(1, Some(10_800)).unwrap();
        let of_node = Entry { at: FRONTEND, clients: Clients::OfNode(2) };
        let own = Picker::of_node(2, 1, None);
        let (_, port) = port_element(FRONTEND.all(), Some(picker), &addresses);
        let (node_ports, node_port) = port_element(of_node, Some(own), &addresses);
        let node_slot = slot_element(of_node, 3, Some(endpoint));
        let member = member_element(FRONTEND, endpoint);
        let mut contents = Contents::default();
        for (set, key, value) in [
            (SLOTS, key, value),
            (PORTS, port.key, port.value.unwrap()),
            (MEMBERS, member.key, Vec::new()),
            (node_ports, node_port.key, node_port.value.unwrap()),
            (SLOTS, node_slot.key, node_slot.value.unwrap()),
        ] {
            read_element(set.name, &key, &value, &addresses, &mut contents).unwrap();
        }
        let slots = Slots::from([(3, endpoint)]);
        let members = BTreeSet::from([endpoint]);
        let expected = Port { picker: Some(picker), slots: slots.clone(), members };
        let of_the_node = Port { picker: Some(own), slots, members: BTreeSet::new() };
        let expected = BTreeMap::from([(FRONTEND.all(), expected), (of_node, of_the_node)]);
        assert_eq!(contents.ports, expected);
    }

    #[test]
    fn what_goes_is_removed_before_what_comes_is_added() {
        let [a, b] = ["10.244.0.2:1", "10.244.0.3:1"].map(|it| it.parse().unwrap());
        let changes = [(0, None, Some(b)), (1, Some(a), Some(b)), (2, Some(a), None)];
        let entry = FRONTEND.all();
        let changes = changes.map(|(slot, from, to)| Change::Slot { entry, slot, from, to });
        let mut batch = Batch::unsent("coracle");
        write(&mut batch, &Addresses::default(), &changes);
        let messages = wire::messages(batch.as_bytes()).skip(1).map(|message| {
            let list = wire::attribute(&message.payload[4..], 3).unwrap();
            (message.kind & 0xff, wire::attributes(list).count())
        });
        // NFT_MSG_DELSETELEM, then NFT_MSG_NEWSETELEM.
        assert_eq!(messages.collect::<Vec<_>>(), [(14, 2), (12, 2)]);
    }

    #[test]
    fn slots_that_are_drawn_from_are_filled_before_and_emptied_after() {
        let port = |count: u8| {
            let endpoint = |it: u8| SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, it), 80);
            let slots: Slots = (0..count).map(|it| (it.into(), endpoint(it))).collect();
            let members = slots.values().copied().collect();
            Port { picker: Picker::of(slots.len(), Some(1)), slots, members }
        };
        let show = |it: &Change| match it {
            Change::Port { .. } => "picker",
            Change::AddMember(..) | Change::Slot { to: Some(_), .. } => "+",
            Change::RemoveMember(..) | Change::Slot { to: None, .. } => "-",
            _ => "?",
        };
        let all = |from, to| -> Vec<_> {
            port(from).changes(FRONTEND.all(), &port(to)).iter().map(show).collect()
        };
        assert_eq!(all(2, 5), ["+", "+", "+", "+", "+", "+", "picker"]);
        assert_eq!(all(5, 2), ["picker", "-", "-", "-", "-", "-", "-"]);
    }
}
