//! The changing part of the table: which service address leads to which endpoints.
//!
//! A service port has [`SLOTS`] slots; a connection takes one, at random or by its client's
//! address, and goes to the endpoint in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use super::batch::{Batch, Element, LIST_ELEM, Set};
use crate::netlink::wire;

/// Slots of a service port, so also how many of its endpoints get connections at a time. 64 spread
/// 3 endpoints to within 5 % of each other, and cost some 8 KB of kernel memory.
pub(crate) const SLOTS: u32 = 64;

/// Data types as `nft` numbers them; a concatenation has them in 6 bits each.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_MARK: u32 = 19;
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

/// Service address . protocol . port . slot : endpoint address . port; the slot is random.
pub(super) const SERVICES: Set = Set {
    name: "services",
    id: 1,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_INET_PROTO, TYPE_INET_SERVICE, TYPE_MARK]),
    key_length: 16,
    value_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_INET_SERVICE]),
    value_length: 8,
};
/// The same for services whose slot follows from the client's address.
pub(super) const STICKY_SERVICES: Set = Set { name: "sticky-services", id: 2, ..SERVICES };
/// Endpoint address . the same again: a pod that was sent to itself would answer itself directly,
/// so such a connection has to come from another address.
pub(super) const HAIRPIN: Set = Set {
    name: "hairpin",
    id: 3,
    key_type: concatenation(&[TYPE_IPV4_ADDR, TYPE_IPV4_ADDR]),
    key_length: 8,
    value_type: 0,
    value_length: 0,
};

/// Protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// How a connection gets its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selection {
    Random,
    /// The same for all connections of a client address.
    ClientAddress,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frontend {
    pub(crate) address: Ipv4Addr,
    pub(crate) transport: Transport,
    pub(crate) port: u16,
}

/// The endpoints of a service port, by slot. A slot without one refuses.
pub(crate) type Slots = BTreeMap<u32, SocketAddrV4>;

/// All elements of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) services: BTreeMap<(Frontend, Selection), Slots>,
    pub(crate) hairpin: BTreeSet<Ipv4Addr>,
}

/// One step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The endpoint in a slot changes.
    Slot {
        frontend: Frontend,
        selection: Selection,
        slot: u32,
        from: Option<SocketAddrV4>,
        to: Option<SocketAddrV4>,
    },
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

fn service_element(frontend: Frontend, slot: u32, endpoint: Option<SocketAddrV4>) -> Element {
    let mut key = Vec::with_capacity(16);
    key.extend(frontend.address.octets());
    key.extend([frontend.transport.number(), 0, 0, 0]);
    key.extend(frontend.port.to_be_bytes().iter().chain(&[0, 0]));
    // As `numgen` and `jhash` leave it in the register: in the machine's own order.
    key.extend(slot.to_ne_bytes());
    let value = endpoint.map(|it| {
        let ([a, b, c, d], [high, low]) = (it.ip().octets(), it.port().to_be_bytes());
        [a, b, c, d, high, low, 0, 0]
    });
    Element { key, value }
}

fn hairpin_element(address: Ipv4Addr) -> Element {
    Element { key: [address.octets(), address.octets()].concat(), value: None }
}

/// Writes changes into a batch: what goes before what comes, as few messages as possible.
pub(super) fn write(batch: &mut Batch, changes: &[Change]) {
    let mut removed: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    let mut added: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    for change in changes {
        match *change {
            Change::Slot { frontend, selection, slot, from, to } => {
                let map = match selection {
                    Selection::Random => SERVICES.name,
                    Selection::ClientAddress => STICKY_SERVICES.name,
                };
                if from.is_some() {
                    removed.entry(map).or_default().push(service_element(frontend, slot, None));
                }
                if to.is_some() {
                    added.entry(map).or_default().push(service_element(frontend, slot, to));
                }
            }
            Change::AddHairpin(address) => {
                added.entry(HAIRPIN.name).or_default().push(hairpin_element(address));
            }
            Change::RemoveHairpin(address) => {
                removed.entry(HAIRPIN.name).or_default().push(hairpin_element(address));
            }
        }
    }
    for (set, elements) in removed {
        batch.delete_elements(set, &elements);
    }
    for (set, elements) in added {
        batch.add_elements(set, &elements);
    }
}

/// Reads one message of a dump of the set called `set` into `contents`. Elements that we did not
/// write are passed over.
pub(super) fn read(set: &str, attributes: &[u8], contents: &mut Contents) {
    const LIST: u16 = 3;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const VALUE: u16 = 1;
    let list = wire::attribute(attributes, LIST).unwrap_or_default();
    for (kind, element) in wire::attributes(list) {
        let key = wire::attribute_at(element, &[KEY, VALUE]).filter(|_| kind == LIST_ELEM);
        let Some(key) = key else { continue };
        let value = wire::attribute_at(element, &[DATA, VALUE]);
        if set == HAIRPIN.name {
            contents.hairpin.extend(key.first_chunk().copied().map(Ipv4Addr::from));
            continue;
        }
        let selection =
            if set == SERVICES.name { Selection::Random } else { Selection::ClientAddress };
        if let Some((frontend, slot, endpoint)) = read_service(key, value.unwrap_or_default()) {
            let slots = contents.services.entry((frontend, selection)).or_default();
            slots.insert(slot, endpoint);
        }
    }
}

fn read_service(key: &[u8], value: &[u8]) -> Option<(Frontend, u32, SocketAddrV4)> {
    let transport = match key.get(4)? {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    let frontend = Frontend {
        address: Ipv4Addr::from(*key.first_chunk::<4>()?),
        transport,
        port: u16::from_be_bytes(*key.get(8..)?.first_chunk()?),
    };
    let slot = u32::from_ne_bytes(*key.get(12..)?.first_chunk()?);
    let address = Ipv4Addr::from(*value.first_chunk::<4>()?);
    let port = u16::from_be_bytes(*value.get(4..)?.first_chunk()?);
    Some((frontend, slot, SocketAddrV4::new(address, port)))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const FRONTEND: Frontend =
        Frontend { address: Ipv4Addr::new(10, 96, 0, 7), transport: Transport::Tcp, port: 80 };

    #[test]
    fn an_element_is_what_the_rule_looks_up() {
        let endpoint = SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, 2), 8080);
        let Element { key, value } = service_element(FRONTEND, 3, Some(endpoint));
        expect!["[10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0, 3, 0, 0, 0]"]
            .assert_eq(&format!("{key:?}"));
        expect!["[10, 244, 0, 2, 31, 144, 0, 0]"].assert_eq(&format!("{:?}", value.unwrap()));
        assert_eq!(read_service(&key, &value.unwrap()), Some((FRONTEND, 3, endpoint)));
    }

    #[test]
    fn what_goes_is_removed_before_what_comes_is_added() {
        let [a, b] = ["10.244.0.2:1", "10.244.0.3:1"].map(|it| it.parse().unwrap());
        let changes = [(0, None, Some(b)), (1, Some(a), Some(b)), (2, Some(a), None)];
        let changes = changes.map(|(slot, from, to)| Change::Slot {
            frontend: FRONTEND,
            selection: Selection::Random,
            slot,
            from,
            to,
        });
        let mut batch = Batch::unsent("coracle");
        write(&mut batch, &changes);
        let messages = wire::messages(batch.as_bytes()).skip(1).map(|message| {
            let list = wire::attribute(&message.payload[4..], 3).unwrap();
            (message.kind & 0xff, wire::attributes(list).count())
        });
        // NFT_MSG_DELSETELEM, then NFT_MSG_NEWSETELEM.
        assert_eq!(messages.collect::<Vec<_>>(), [(14, 2), (12, 2)]);
    }
}
