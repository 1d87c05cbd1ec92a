//! Chains that pick an endpoint among the slots of a service port. There is one for each power of two
//! that the number of endpoints comes up to, and of these one for each time that clients are remembered.
//!
//! The rules of nftables draw numbers below a constant only. So a number is drawn below the power of two,
//! a few times if its slot is empty, and in the end below its half, where no slot is. Endpoints so get the
//! same share of connections to within half a percent, with one slot each.

use std::net::Ipv4Addr;

use super::{
    batch::{Batch, LIST_ELEM, NLM_F_CREATE, Set},
    elements::{ADDRESS_PORT, AFFINITY, Clients, MEMBERS, NODE_PORTS, SLOTS, TYPE_MARK},
    expressions::{Expressions, Field, Register},
};
use crate::addresses::Addresses;

const NEWCHAIN: u16 = 10 << 8 | 3;
const DELCHAIN: u16 = 10 << 8 | 5;
const NEWSETELEM: u16 = 10 << 8 | 12;
const DELSETELEM: u16 = 10 << 8 | 14;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// Length of `struct nft_verdict`, which the kernel puts in place of whatever is asked for.
const VERDICT_LENGTH: u32 = 16;
/// `NFT_GOTO`.
const GOTO: i32 = -4;

/// Draws before the sure one: at worst all but half of the slots are empty, so that one connection of
/// 256 comes to it.
const DRAWS: usize = 8;
/// Bits of a picker's number for how many slots it picks from.
const BITS_LENGTH: u32 = 5;
/// Where in it stands whose connections it is for: after the bits that the longest affinity takes.
const WHOSE_SHIFT: u32 = 27;
/// That of those that send a node's pods to the picker for them.
const BY_NODE: u32 = 31;

/// Endpoints of a service port that get connections: beyond them a transaction, and what a decision
/// looks at, would take tens of milliseconds.
pub(crate) const ENDPOINTS_MAX: u32 = 1 << 14;

/// Picker : its chain, of those for one node's pods. Others lead here: the kernel wants no map that leads to
/// a chain that asks the same map.
pub(super) const NODE_PICKERS: Set = Set { name: "node-pickers", id: 8, ..PICKERS };
/// Picker : its chain.
pub(super) const PICKERS: Set = Set {
    name: "pickers",
    id: 6,
    key_type: TYPE_MARK,
    key_length: 4,
    value_type: VERDICT_TYPE,
    value_length: VERDICT_LENGTH,
    dynamic_max: None,
};

/// How a connection gets its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Picker {
    /// How long a client that is silent keeps its endpoint; none: each connection gets any.
    affinity: Option<u32>,
    whose: Whose,
    /// The endpoints are more than half of two to the power of this, and at most that.
    bits: u32,
}

/// Whose connections get an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Anybody,
    /// Anybody's but those of pods whose node has a picker of its own for the service port.
    ByNode,
    /// Those of a node's pods.
    OfNode(u8),
}

impl Picker {
    /// The one for that many endpoints; none if there are none.
    pub(crate) fn of(endpoints: usize, affinity: Option<u32>) -> Option<Self> {
        let endpoints = u32::try_from(endpoints).unwrap_or(ENDPOINTS_MAX).min(ENDPOINTS_MAX);
        let bits = endpoints.checked_next_power_of_two().filter(|_| endpoints > 0)?.ilog2();
        Some(Self { affinity, whose: Whose::Anybody, bits })
    }

    /// The same, but that the pods of nodes go to their own first.
    pub(crate) fn by_node(self) -> Self {
        Self { whose: Whose::ByNode, ..self }
    }

    /// The one for the pods of a node. Without endpoints it finds nothing in its slots.
    pub(crate) fn of_node(node: u8, endpoints: usize, affinity: Option<u32>) -> Self {
        let whose = Whose::OfNode(node);
        let any = Self::of(endpoints, affinity);
        any.map_or(Self { affinity, whose, bits: 0 }, |it| Self { whose, ..it })
    }

    /// Whether it is one of many: there is one for each time that some Service asks for, and for each node.
    pub(crate) fn is_rare(self) -> bool {
        self.affinity.is_some() || self.whose != Whose::Anybody
    }

    #[cfg(test)]
    pub(crate) fn remembers(self) -> bool {
        self.affinity.is_some()
    }

    /// As an element of a map has it; see `read`.
    pub(super) fn id(self) -> u32 {
        let whose = match self.whose {
            Whose::Anybody => 0,
            Whose::OfNode(node) => u32::from(node) + 1,
            Whose::ByNode => BY_NODE,
        };
        whose << WHOSE_SHIFT | self.affinity.unwrap_or_default() << BITS_LENGTH | self.bits
    }

    pub(super) fn read(id: u32) -> Self {
        let rest = id & ((1 << WHOSE_SHIFT) - 1);
        let affinity = Some(rest >> BITS_LENGTH).filter(|it| *it != 0);
        let whose = match u8::try_from(id >> WHOSE_SHIFT).unwrap_or_default() {
            0 => Whose::Anybody,
            node if u32::from(node) == BY_NODE => Whose::ByNode,
            node => Whose::OfNode(node - 1),
        };
        Self { affinity, whose, bits: rest & ((1 << BITS_LENGTH) - 1) }
    }

    /// The map that leads to it.
    fn map(self) -> Set {
        if matches!(self.whose, Whose::OfNode(_)) { NODE_PICKERS } else { PICKERS }
    }

    /// The first of its slots: those of a node come after everybody's.
    fn first(self) -> u32 {
        match self.whose {
            Whose::Anybody | Whose::ByNode => Clients::All.first_slot(),
            Whose::OfNode(node) => Clients::OfNode(node).first_slot(),
        }
    }

    pub(crate) fn chain(self) -> String {
        let slots = 1_u32 << self.bits;
        let whose = match self.whose {
            Whose::Anybody => String::new(),
            Whose::ByNode => "-by-node".to_owned(),
            Whose::OfNode(node) => format!("-of-node-{node}"),
        };
        match self.affinity {
            None => format!("pick-{slots}{whose}"),
            Some(seconds) => format!("pick-{slots}-for-{seconds}s{whose}"),
        }
    }

    /// What numbers are drawn below, one draw after the other.
    fn draws(self) -> impl Iterator<Item = u32> {
        let slots = 1_u32 << self.bits;
        // One endpoint and two fill their slots.
        let tries = if self.bits < 2 { 0 } else { DRAWS };
        std::iter::repeat_n(slots, tries).chain([if tries == 0 { slots } else { slots / 2 }])
    }

    /// Writes the chain, which must not be there.
    pub(super) fn add(self, batch: &mut Batch, addresses: &Addresses) {
        let (table, chain) = (batch.table_name(), self.chain());
        batch.message(NEWCHAIN, NLM_F_CREATE, |body| {
            body.text(1, table).text(3, &chain);
        });
        if self.whose == Whose::ByNode {
            add_by_node(batch, &chain, addresses);
        }
        match self.affinity {
            None => self.add_draws(batch, &chain),
            Some(seconds) => self.add_remembering(batch, &chain, seconds),
        }
        batch.message(NEWSETELEM, NLM_F_CREATE, |body| {
            body.text(1, table).text(2, self.map().name).nested(3, |list| {
                list.nested(LIST_ELEM, |element| {
                    element.nested(1, |key| {
                        key.attribute(1, &self.id().to_ne_bytes());
                    });
                    element.nested(2, |data| {
                        data.nested(2, |verdict| {
                            verdict.attribute(1, &GOTO.to_be_bytes()).text(2, &chain);
                        });
                    });
                });
            });
        });
    }

    /// Removes the chain, which nothing may lead to any more.
    pub(super) fn remove(self, batch: &mut Batch) {
        let table = batch.table_name();
        batch.message(DELSETELEM, 0, |body| {
            body.text(1, table).text(2, self.map().name).nested(3, |list| {
                list.nested(LIST_ELEM, |element| {
                    element.nested(1, |key| {
                        key.attribute(1, &self.id().to_ne_bytes());
                    });
                });
            });
        });
        batch.message(DELCHAIN, 0, |body| {
            body.text(1, table).text(3, &self.chain());
        });
    }

    fn add_draws(self, batch: &mut Batch, chain: &str) {
        for slots in self.draws() {
            batch.rule(chain, "any endpoint", |it| {
                port(it, 0).random(self.first(), slots, Register(3));
                it.look_up(SLOTS.name, Register(0), Some(Register(0)));
                it.dnat(Register(0), Register(1));
            });
        }
    }

    /// The client and the port are in registers 0 to 3, so the endpoint in the two that follow makes a
    /// member of the port.
    fn add_remembering(self, batch: &mut Batch, chain: &str, seconds: u32) {
        const CLIENT: Register = Register(0);
        const PORT: Register = Register(1);
        const ENDPOINT: Register = Register(4);
        batch.rule(chain, "the endpoint of before", |it| {
            client_and_port(it).look_up(AFFINITY.name, CLIENT, Some(ENDPOINT));
            it.look_up(MEMBERS.name, PORT, None);
            it.remember(AFFINITY.name, CLIENT, ENDPOINT, seconds);
            it.dnat(ENDPOINT, Register(5));
        });
        batch.rule(chain, "it is gone", |it| {
            client_and_port(it).look_up(AFFINITY.name, CLIENT, Some(ENDPOINT));
            it.forget(AFFINITY.name, CLIENT, ENDPOINT);
        });
        for slots in self.draws() {
            batch.rule(chain, "any endpoint from now on", |it| {
                client_and_port(it).random(self.first(), slots, ENDPOINT);
                it.look_up(SLOTS.name, PORT, Some(ENDPOINT));
                it.remember(AFFINITY.name, CLIENT, ENDPOINT, seconds);
                // Who comes twice at the same moment gets what was remembered first.
                it.look_up(AFFINITY.name, CLIENT, Some(ENDPOINT)).dnat(ENDPOINT, Register(5));
            });
        }
        batch.rule(chain, "no more clients can be remembered", |it| {
            let slots = self.draws().last().unwrap_or(1);
            client_and_port(it).hash(CLIENT, (self.first(), slots), ENDPOINT);
            it.look_up(SLOTS.name, PORT, Some(ENDPOINT)).dnat(ENDPOINT, Register(5));
        });
    }
}

/// Sends pods whose node has a picker of its own for the service port there. The machine is no node's: what
/// comes from it, or from the cluster itself, may go to any.
fn add_by_node(batch: &mut Batch, chain: &str, addresses: &Addresses) {
    const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
    batch.rule(chain, "as the pod's node has it", |it| {
        it.is_not_from_masked(addresses.host(), ALL);
        it.is_not_from_masked(addresses.gateway(), addresses.node_mask());
        it.load_masked_source(addresses.part(0).mask(), Register(0));
        port(it, 1).look_up(NODE_PORTS.name, Register(0), Some(Register(4)));
        it.go_by(NODE_PICKERS.name, Register(4));
    });
}

/// Loads address, protocol and port of the service into `first` and the next two registers.
pub(super) fn port<'a, 'b, 'c>(
    it: &'c mut Expressions<'a, 'b>,
    first: u32,
) -> &'c mut Expressions<'a, 'b> {
    it.load(Field::DestinationAddress, Register(first)).load_protocol(Register(first + 1));
    it.load(Field::DestinationPort, Register(first + 2))
}

fn client_and_port<'a, 'b, 'c>(it: &'c mut Expressions<'a, 'b>) -> &'c mut Expressions<'a, 'b> {
    port(it.load(Field::SourceAddress, Register(0)), 1)
}

const _: () = assert!(ADDRESS_PORT == AFFINITY.value_type, "what is remembered is an endpoint");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picker_is_what_its_number_says() {
        for endpoints in [1, 2, 3, 64, 65, 16_384, 20_000] {
            for affinity in [None, Some(1), Some(86_400)] {
                let picker = Picker::of(endpoints, affinity).unwrap();
                let of_node = [0, 15].map(|it| Picker::of_node(it, endpoints, affinity));
                for picker in [picker, picker.by_node()].into_iter().chain(of_node) {
                    assert_eq!(Picker::read(picker.id()), picker);
                }
            }
        }
        assert_eq!(Picker::of(0, None), None);
    }

    #[test]
    fn the_last_draw_is_from_slots_that_are_full() {
        for endpoints in 1..=ENDPOINTS_MAX {
            let picker = Picker::of(usize::try_from(endpoints).unwrap(), None).unwrap();
            let draws: Vec<u32> = picker.draws().collect();
            assert!(*draws.last().unwrap() <= endpoints && draws[0] >= endpoints);
        }
    }
}
