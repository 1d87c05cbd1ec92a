//! The steps that rules are made of, as nf_tables wants them.
//!
//! Attribute numbers are those of `linux/netfilter/nf_tables.h`; the words are those of
//! `nft --debug=netlink`.

use std::net::Ipv4Addr;

use crate::{addresses::Subnet, netlink::wire::Body};

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// `NFPROTO_IPV4`.
const IPV4: u32 = 2;
const ICMP_PORT_UNREACHABLE: u8 = 3;
const SNAT: u32 = 0;
const DNAT: u32 = 1;

/// `NFT_META_MARK`.
const MARK: u32 = 3;

/// `NF_DROP`.
const DROP: u32 = 0;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// Register of the verdict.
const VERDICT: u32 = 0;

/// One of the 32-bit registers `NFT_REG32_00` and following. A field of a concatenation takes
/// whole registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    fn number(self) -> u32 {
        self.0 + 8
    }
}

/// A field of the packet's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    SourceAddress,
    DestinationAddress,
    DestinationPort,
    IcmpType,
}

/// The steps of a rule, in order.
#[derive(Debug)]
pub(crate) struct Expressions<'a, 'b>(pub(crate) &'a mut Body<'b>);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        self.0.nested(LIST_ELEM, |element| {
            element.text(EXPR_NAME, name).nested(EXPR_DATA, data);
        });
        self
    }

    pub(crate) fn load(&mut self, field: Field, into: Register) -> &mut Self {
        // Base (1 network, 2 transport header), offset, length.
        let (base, offset, length) = match field {
            Field::SourceAddress => (1, 12, 4),
            Field::DestinationAddress => (1, 16, 4),
            Field::DestinationPort => (2, 2, 2),
            Field::IcmpType => (2, 0, 1),
        };
        self.add("payload", |it| {
            it.number(1, into.number()).number(2, base).number(3, offset).number(4, length);
        })
    }

    pub(crate) fn load_protocol(&mut self, into: Register) -> &mut Self {
        const L4PROTO: u32 = 16;
        self.add("meta", |it| {
            it.number(1, into.number()).number(2, L4PROTO);
        })
    }

    fn compare(&mut self, register: Register, operator: u32, value: &[u8]) -> &mut Self {
        self.add("cmp", |it| {
            it.number(1, register.number()).number(2, operator).nested(3, |data| {
                data.attribute(DATA_VALUE, value);
            });
        })
    }

    /// The packet comes from somewhere else than from an address that has the bits of `address` in `mask`.
    pub(crate) fn is_not_from_masked(&mut self, address: Ipv4Addr, mask: Ipv4Addr) -> &mut Self {
        const NOT_EQUAL: u32 = 1;
        self.load_masked_source(mask, Register(0));
        self.compare(Register(0), NOT_EQUAL, &address.octets())
    }

    pub(crate) fn load_masked_source(&mut self, mask: Ipv4Addr, into: Register) -> &mut Self {
        self.load(Field::SourceAddress, into).mask(into, mask.octets())
    }

    fn equals(&mut self, register: Register, value: &[u8]) -> &mut Self {
        self.compare(register, 0, value)
    }

    fn mask(&mut self, register: Register, mask: [u8; 4]) -> &mut Self {
        self.add("bitwise", |it| {
            it.number(1, register.number()).number(2, register.number()).number(3, 4);
            it.nested(4, |data| {
                data.attribute(DATA_VALUE, &mask);
            });
            it.nested(5, |data| {
                data.attribute(DATA_VALUE, &[0; 4]);
            });
        })
    }

    pub(crate) fn is_protocol(&mut self, protocol: u8) -> &mut Self {
        self.load_protocol(Register(0)).equals(Register(0), &[protocol])
    }

    pub(crate) fn is_to_port(&mut self, port: u16) -> &mut Self {
        self.load(Field::DestinationPort, Register(0)).equals(Register(0), &port.to_be_bytes())
    }

    pub(crate) fn is_to(&mut self, subnet: Subnet) -> &mut Self {
        self.load(Field::DestinationAddress, Register(0));
        if subnet.prefix < 32 {
            self.mask(Register(0), subnet.mask().octets());
        }
        self.equals(Register(0), &subnet.address.octets())
    }

    pub(crate) fn is_from_subnet(&mut self, subnet: Subnet) -> &mut Self {
        self.load(Field::SourceAddress, Register(0)).mask(Register(0), subnet.mask().octets());
        self.equals(Register(0), &subnet.address.octets())
    }

    /// To one of the addresses that have the bits of `address` in `mask`.
    pub(crate) fn is_to_masked(&mut self, address: Ipv4Addr, mask: Ipv4Addr) -> &mut Self {
        self.load(Field::DestinationAddress, Register(0));
        self.mask(Register(0), mask.octets()).equals(Register(0), &address.octets())
    }

    /// An ICMP message of this type.
    pub(crate) fn is_icmp(&mut self, kind: u8) -> &mut Self {
        const ICMP: u8 = 1;
        self.is_protocol(ICMP).load(Field::IcmpType, Register(0)).equals(Register(0), &[kind])
    }

    pub(crate) fn is_from(&mut self, address: Ipv4Addr) -> &mut Self {
        self.load(Field::SourceAddress, Register(0)).equals(Register(0), &address.octets())
    }

    /// The packet belongs to no connection and opens none.
    pub(crate) fn is_invalid(&mut self) -> &mut Self {
        const STATE: u32 = 0;
        const INVALID: u32 = 1;
        const NOT_EQUAL: u32 = 1;
        self.add("ct", |it| {
            it.number(1, Register(0).number()).number(2, STATE);
        });
        self.mask(Register(0), INVALID.to_ne_bytes()).compare(Register(0), NOT_EQUAL, &[0; 4])
    }

    /// The destination of the packet's connection was exchanged for another.
    pub(crate) fn is_exchanged(&mut self) -> &mut Self {
        const STATUS: u32 = 2;
        /// `IPS_DST_NAT`.
        const DESTINATION: u32 = 1 << 5;
        const NOT_EQUAL: u32 = 1;
        self.add("ct", |it| {
            it.number(1, Register(0).number()).number(2, STATUS);
        });
        self.mask(Register(0), DESTINATION.to_ne_bytes()).compare(Register(0), NOT_EQUAL, &[0; 4])
    }

    /// A random number of `count` from `first` on.
    pub(crate) fn random(&mut self, first: u32, count: u32, into: Register) -> &mut Self {
        const RANDOM: u32 = 1;
        self.add("numgen", |it| {
            it.number(1, into.number()).number(2, count).number(3, RANDOM).number(4, first);
        })
    }

    /// A number of `count` from `first` on that is the same for the same four bytes in `from`.
    pub(crate) fn hash(
        &mut self,
        from: Register,
        (first, count): (u32, u32),
        into: Register,
    ) -> &mut Self {
        const JENKINS: u32 = 0;
        // Fixed, so that a client keeps its slot when the table is made anew.
        const SEED: u32 = 0x636f_7261;
        self.add("hash", |it| {
            it.number(1, from.number()).number(2, into.number()).number(3, 4);
            it.number(4, count).number(5, SEED).number(6, first).number(7, JENKINS);
        })
    }

    /// Ends the rule unless the key that starts in `key` is in the set; of a map the value goes to
    /// `value`.
    pub(crate) fn look_up(
        &mut self,
        set: &str,
        key: Register,
        value: Option<Register>,
    ) -> &mut Self {
        self.add("lookup", |it| {
            it.text(1, set).number(2, key.number());
            if let Some(value) = value {
                it.number(3, value.number());
            }
        })
    }

    /// Keeps `value` for the key that starts in `key` in a map, unless that has one already, from now on
    /// for so long. Ends the rule if the map is full.
    pub(crate) fn remember(
        &mut self,
        map: &str,
        key: Register,
        value: Register,
        seconds: u32,
    ) -> &mut Self {
        const UPDATE: u32 = 1;
        let milliseconds = u64::from(seconds) * 1_000;
        self.add("dynset", |it| {
            it.text(1, map).number(3, UPDATE).number(4, key.number()).number(5, value.number());
            it.attribute(6, &milliseconds.to_be_bytes());
        })
    }

    /// Removes what is kept for the key that starts in `key`: `value`, as the kernel wants to hear.
    pub(crate) fn forget(&mut self, map: &str, key: Register, value: Register) -> &mut Self {
        const DELETE: u32 = 2;
        self.add("dynset", |it| {
            it.text(1, map).number(3, DELETE).number(4, key.number()).number(5, value.number());
        })
    }

    fn immediate(&mut self, value: &[u8], into: Register) -> &mut Self {
        self.add("immediate", |it| {
            it.number(1, into.number()).nested(2, |data| {
                data.attribute(DATA_VALUE, value);
            });
        })
    }

    /// Sends the connection to the address and port in these registers.
    pub(crate) fn dnat(&mut self, address: Register, port: Register) -> &mut Self {
        self.add("nat", |it| {
            it.number(1, DNAT).number(2, IPV4);
            it.number(3, address.number()).number(4, address.number());
            it.number(5, port.number()).number(6, port.number());
        })
    }

    pub(crate) fn dnat_to(&mut self, address: Ipv4Addr, port: u16) -> &mut Self {
        self.immediate(&address.octets(), Register(0));
        self.immediate(&port.to_be_bytes(), Register(1)).dnat(Register(0), Register(1))
    }

    /// Makes the connection come from `address`.
    pub(crate) fn snat_to(&mut self, address: Ipv4Addr) -> &mut Self {
        self.immediate(&address.octets(), Register(0)).add("nat", |it| {
            it.number(1, SNAT).number(2, IPV4);
            it.number(3, Register(0).number()).number(4, Register(0).number());
        })
    }

    /// Gives the packet, as it is, to the socket that listens at this address, and marks it.
    pub(crate) fn take_here(&mut self, address: Ipv4Addr, port: u16, mark: u32) -> &mut Self {
        self.immediate(&address.octets(), Register(0));
        self.immediate(&port.to_be_bytes(), Register(1));
        self.add("tproxy", |it| {
            it.number(1, IPV4).number(2, Register(0).number()).number(3, Register(1).number());
        });
        self.set_mark(mark).accept()
    }

    pub(crate) fn set_mark(&mut self, mark: u32) -> &mut Self {
        self.immediate(&mark.to_ne_bytes(), Register(0));
        self.add("meta", |it| {
            it.number(2, MARK).number(3, Register(0).number());
        })
    }

    /// The packet has this mark.
    pub(crate) fn is_marked(&mut self, mark: u32) -> &mut Self {
        self.add("meta", |it| {
            it.number(1, Register(0).number()).number(2, MARK);
        });
        self.equals(Register(0), &mark.to_ne_bytes())
    }

    pub(crate) fn reject_with_tcp_reset(&mut self) -> &mut Self {
        self.add("reject", |it| {
            it.number(1, 1).attribute(2, &[0]);
        })
    }

    pub(crate) fn reject_with_port_unreachable(&mut self) -> &mut Self {
        self.add("reject", |it| {
            it.number(1, 0).attribute(2, &[ICMP_PORT_UNREACHABLE]);
        })
    }

    fn verdict(&mut self, code: u32) -> &mut Self {
        self.add("immediate", |it| {
            it.number(1, VERDICT).nested(2, |data| {
                data.nested(DATA_VERDICT, |verdict| {
                    verdict.number(VERDICT_CODE, code);
                });
            });
        })
    }

    pub(crate) fn accept(&mut self) -> &mut Self {
        self.verdict(ACCEPT)
    }

    pub(crate) fn discard(&mut self) -> &mut Self {
        self.verdict(DROP)
    }
}

/// What only the rules of faults need.
impl Expressions<'_, '_> {
    /// Adds bits to the packet's mark, by which routes can be chosen.
    pub(crate) fn add_to_mark(&mut self, bits: u32) -> &mut Self {
        let register = Register(0).number();
        self.add("meta", |it| {
            it.number(1, register).number(2, MARK);
        });
        // What is not in the first is set to what is in the second. Marks are in host byte order.
        self.add("bitwise", |it| {
            it.number(1, register).number(2, register).number(3, 4);
            it.nested(4, |data| {
                data.attribute(DATA_VALUE, &(!bits).to_ne_bytes());
            });
            it.nested(5, |data| {
                data.attribute(DATA_VALUE, &bits.to_ne_bytes());
            });
        });
        self.add("meta", |it| {
            it.number(3, register).number(2, MARK);
        })
    }
}

/// What only the rules of policies need.
impl Expressions<'_, '_> {
    /// Something of the packet's connection, `NFT_CT_*`.
    fn connection(&mut self, key: u32) -> &mut Self {
        self.add("ct", |it| {
            it.number(1, Register(0).number()).number(2, key);
        })
    }

    /// Something of what its client sent first, before addresses were exchanged.
    fn original(&mut self, key: u32, into: Register) -> &mut Self {
        const ORIGINAL: u8 = 0;
        self.add("ct", |it| {
            it.number(1, into.number()).number(2, key).attribute(3, &[ORIGINAL]);
        })
    }

    pub(crate) fn load_original_address(&mut self, into: Register) -> &mut Self {
        const DESTINATION: u32 = 9;
        self.original(DESTINATION, into)
    }

    pub(crate) fn load_original_port(&mut self, into: Register) -> &mut Self {
        const DESTINATION_PORT: u32 = 12;
        self.original(DESTINATION_PORT, into)
    }

    /// The packet comes from the side that did not begin.
    pub(crate) fn is_reply(&mut self) -> &mut Self {
        const DIRECTION: u32 = 1;
        const REPLY: u8 = 1;
        self.connection(DIRECTION).equals(Register(0), &[REPLY])
    }

    fn has_state(&mut self, state: u32) -> &mut Self {
        const STATE: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        self.connection(STATE).mask(Register(0), state.to_ne_bytes());
        self.compare(Register(0), NOT_EQUAL, &[0; 4])
    }

    pub(crate) fn is_established(&mut self) -> &mut Self {
        self.has_state(2)
    }

    pub(crate) fn is_related(&mut self) -> &mut Self {
        self.has_state(4)
    }

    /// The TCP packet ends its connection at once.
    pub(crate) fn is_tcp_reset(&mut self) -> &mut Self {
        const FLAGS: u32 = 13;
        const RST: u8 = 4;
        const NOT_EQUAL: u32 = 1;
        self.add("payload", |it| {
            it.number(1, Register(0).number()).number(2, 2).number(3, FLAGS).number(4, 1);
        });
        self.mask(Register(0), [RST, 0, 0, 0]).compare(Register(0), NOT_EQUAL, &[0])
    }

    pub(crate) fn is_from_to(&mut self, register: Register, first: u16, last: u16) -> &mut Self {
        const AT_MOST: u32 = 3;
        const AT_LEAST: u32 = 5;
        if first == last {
            return self.equals(register, &first.to_be_bytes());
        }
        self.compare(register, AT_LEAST, &first.to_be_bytes());
        self.compare(register, AT_MOST, &last.to_be_bytes())
    }

    /// Goes where a map of verdicts leads; ends the rule if the key is not in it.
    pub(crate) fn go_by(&mut self, map: &str, key: Register) -> &mut Self {
        self.add("lookup", |it| {
            it.text(1, map).number(2, key.number()).number(3, VERDICT);
        })
    }

    /// Goes to another chain, and comes back at its end.
    pub(crate) fn jump(&mut self, chain: &str) -> &mut Self {
        const JUMP: i32 = -3;
        const VERDICT_CHAIN: u16 = 2;
        self.add("immediate", |it| {
            it.number(1, VERDICT).nested(2, |data| {
                data.nested(DATA_VERDICT, |verdict| {
                    verdict.attribute(VERDICT_CODE, &JUMP.to_be_bytes());
                    verdict.text(VERDICT_CHAIN, chain);
                });
            });
        })
    }

    /// `ICMP_PKT_FILTERED`.
    pub(crate) fn reject_as_prohibited(&mut self) -> &mut Self {
        const ICMP_PACKET_FILTERED: u8 = 13;
        self.add("reject", |it| {
            it.number(1, 0).attribute(2, &[ICMP_PACKET_FILTERED]);
        })
    }
}
