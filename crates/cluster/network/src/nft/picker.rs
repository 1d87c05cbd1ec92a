//! Chains that pick an endpoint among the slots of a service port. There is one for each power of two
//! that the number of endpoints comes up to, and of these one for each time that clients are remembered.
//!
//! The rules of nftables draw numbers below a constant only. So a number is drawn below the power of two,
//! a few times if its slot is empty, and in the end below its half, where no slot is. Endpoints so get the
//! same share of connections to within half a percent, with one slot each.

use super::{
    batch::{Batch, GENERIC, LIST_ELEM, NLM_F_CREATE, Set},
    elements::{ADDRESS_PORT, AFFINITY, MEMBERS, SLOTS, TYPE_MARK},
    expressions::{Expressions, Field, Register},
};

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

/// Endpoints of a service port that get connections: beyond them a transaction, and what a decision
/// looks at, would take tens of milliseconds.
pub(crate) const ENDPOINTS_MAX: u32 = 1 << 14;

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
    /// The endpoints are more than half of two to the power of this, and at most that.
    bits: u32,
}

impl Picker {
    /// The one for that many endpoints; none if there are none.
    pub(crate) fn of(endpoints: usize, affinity: Option<u32>) -> Option<Self> {
        let endpoints = u32::try_from(endpoints).unwrap_or(ENDPOINTS_MAX).min(ENDPOINTS_MAX);
        let bits = endpoints.checked_next_power_of_two().filter(|_| endpoints > 0)?.ilog2();
        Some(Self { affinity, bits })
    }

    /// Whether it is one of many: there is one for each time that some Service asks for.
    pub(crate) fn remembers(self) -> bool {
        self.affinity.is_some()
    }

    /// As an element of a map has it; see `read`.
    pub(super) fn id(self) -> u32 {
        self.affinity.unwrap_or_default() << BITS_LENGTH | self.bits
    }

    pub(super) fn read(id: u32) -> Self {
        let affinity = Some(id >> BITS_LENGTH).filter(|it| *it != 0);
        Self { affinity, bits: id & ((1 << BITS_LENGTH) - 1) }
    }

    fn chain(self) -> String {
        let slots = 1_u32 << self.bits;
        match self.affinity {
            None => format!("pick-{slots}"),
            Some(seconds) => format!("pick-{slots}-for-{seconds}s"),
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
    pub(super) fn add(self, batch: &mut Batch) {
        let (table, chain) = (batch.table_name(), self.chain());
        batch.message(NEWCHAIN, NLM_F_CREATE, GENERIC, |body| {
            body.text(1, table).text(3, &chain);
        });
        match self.affinity {
            None => self.add_draws(batch, &chain),
            Some(seconds) => self.add_remembering(batch, &chain, seconds),
        }
        batch.message(NEWSETELEM, NLM_F_CREATE, GENERIC, |body| {
            body.text(1, table).text(2, PICKERS.name).nested(3, |list| {
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
        batch.message(DELSETELEM, 0, GENERIC, |body| {
            body.text(1, table).text(2, PICKERS.name).nested(3, |list| {
                list.nested(LIST_ELEM, |element| {
                    element.nested(1, |key| {
                        key.attribute(1, &self.id().to_ne_bytes());
                    });
                });
            });
        });
        batch.message(DELCHAIN, 0, GENERIC, |body| {
            body.text(1, table).text(3, &self.chain());
        });
    }

    fn add_draws(self, batch: &mut Batch, chain: &str) {
        for slots in self.draws() {
            batch.rule(chain, "any endpoint", |it| {
                port(it, 0).random(slots, Register(3));
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
                client_and_port(it).random(slots, ENDPOINT);
                it.look_up(SLOTS.name, PORT, Some(ENDPOINT));
                it.remember(AFFINITY.name, CLIENT, ENDPOINT, seconds);
                // Who comes twice at the same moment gets what was remembered first.
                it.look_up(AFFINITY.name, CLIENT, Some(ENDPOINT)).dnat(ENDPOINT, Register(5));
            });
        }
        batch.rule(chain, "no more clients can be remembered", |it| {
            client_and_port(it).hash(CLIENT, self.draws().last().unwrap_or(1), ENDPOINT);
            it.look_up(SLOTS.name, PORT, Some(ENDPOINT)).dnat(ENDPOINT, Register(5));
        });
    }
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
                assert_eq!(Picker::read(picker.id()), picker);
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
