//! The steps that rules are made of, as nf_tables wants them.
//!
//! Attribute numbers are those of `linux/netfilter/nf_tables.h`; the words are those of
//! `nft --debug=netlink`.

mod policies;

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    addresses::{Prefix, Subnet},
    family::IpFamily,
    netlink::wire::{self, Body},
};

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
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

/// A message of `ping`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Echo {
    Request,
    Reply,
}

/// What follows is used by the steps of IPv6 only: the beginning of an address,
const PREFIX: Register = Register(12);
/// and a whole one, of which the last part is what IPv4 has.
const WHOLE: Register = Register(8);
const END_OF_WHOLE: Register = Register(11);

/// The steps of a rule, in order. Addresses are four bytes in both families.
#[derive(Debug)]
pub(crate) struct Expressions<'a, 'b> {
    pub(super) body: &'a mut Body<'b>,
    pub(super) family: IpFamily,
}

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        self.body.nested(LIST_ELEM, |element| {
            element.text(EXPR_NAME, name).nested(EXPR_DATA, data);
        });
        self
    }

    /// Ends the rule if it is an address of IPv6 that is not of the cluster's.
    pub(crate) fn load(&mut self, field: Field, into: Register) -> &mut Self {
        match (self.family, field) {
            (IpFamily::V4, Field::SourceAddress) => self.load_bytes(NETWORK, 12, 4, into),
            (IpFamily::V4, Field::DestinationAddress) => self.load_bytes(NETWORK, 16, 4, into),
            (IpFamily::V6(prefix), Field::SourceAddress) => self.load_v6(prefix, 8, into),
            (IpFamily::V6(prefix), Field::DestinationAddress) => self.load_v6(prefix, 24, into),
            (_, Field::DestinationPort) => self.load_bytes(TRANSPORT, 2, 2, into),
            (_, Field::IcmpType) => self.load_bytes(TRANSPORT, 0, 1, into),
        }
    }

    fn load_v6(&mut self, prefix: Prefix, offset: u32, into: Register) -> &mut Self {
        let begin = prefix.as_bytes();
        self.load_bytes(NETWORK, offset, 12, PREFIX).equals(PREFIX, &begin);
        self.load_bytes(NETWORK, offset + 12, 4, into)
    }

    /// Loads the whole address, whosever it is: four registers of IPv6.
    pub(crate) fn load_whole(&mut self, field: Field, into: Register) -> &mut Self {
        match (self.family, field) {
            (IpFamily::V6(_), Field::SourceAddress) => self.load_bytes(NETWORK, 8, 16, into),
            (IpFamily::V6(_), Field::DestinationAddress) => self.load_bytes(NETWORK, 24, 16, into),
            _ => self.load(field, into),
        }
    }

    /// Loads bytes of the header `base`.
    fn load_bytes(&mut self, base: u32, offset: u32, length: u32, into: Register) -> &mut Self {
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

    pub(crate) fn is_echo(&mut self, echo: Echo) -> &mut Self {
        const ICMP: u8 = 1;
        const ICMP_V6: u8 = 58;
        let (protocol, kind) = match (self.family, echo) {
            (IpFamily::V4, Echo::Request) => (ICMP, 8),
            (IpFamily::V4, Echo::Reply) => (ICMP, 0),
            (IpFamily::V6(_), Echo::Request) => (ICMP_V6, 128),
            (IpFamily::V6(_), Echo::Reply) => (ICMP_V6, 129),
        };
        self.is_protocol(protocol).load(Field::IcmpType, Register(0)).equals(Register(0), &[kind])
    }

    /// To the address of a group, or to that of everybody: nobody here is meant by it.
    pub(crate) fn is_to_group(&mut self) -> &mut Self {
        match self.family {
            IpFamily::V4 => self.is_to(Subnet { address: Ipv4Addr::new(224, 0, 0, 0), prefix: 3 }),
            IpFamily::V6(_) => {
                self.load_bytes(NETWORK, 24, 1, Register(0)).equals(Register(0), &[0xff])
            }
        }
    }

    /// Answers to the packet's source would leave by another link than it came from.
    pub(crate) fn is_from_elsewhere(&mut self) -> &mut Self {
        const LINK: u32 = 1;
        const SOURCE: u32 = 1;
        const CAME_FROM: u32 = 8;
        const PRESENT: u32 = 32;
        self.add("fib", |it| {
            it.number(1, Register(0).number()).number(2, LINK);
            it.number(3, SOURCE | CAME_FROM | PRESENT);
        });
        self.equals(Register(0), &[0])
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
        let address = self.whole(address);
        self.nat(DNAT, address, Some(port))
    }

    pub(crate) fn dnat_to(&mut self, address: Ipv4Addr, port: u16) -> &mut Self {
        let address = self.whole_of(address);
        self.immediate(&port.to_be_bytes(), Register(1)).nat(DNAT, address, Some(Register(1)))
    }

    /// Makes the connection come from `address`.
    pub(crate) fn snat_to(&mut self, address: Ipv4Addr) -> &mut Self {
        let address = self.whole_of(address);
        self.nat(SNAT, address, None)
    }

    fn nat(&mut self, kind: u32, address: Register, port: Option<Register>) -> &mut Self {
        let family = self.protocol();
        self.add("nat", |it| {
            it.number(1, kind).number(2, family);
            it.number(3, address.number()).number(4, address.number());
            if let Some(port) = port {
                it.number(5, port.number()).number(6, port.number());
            }
        })
    }

    /// Puts the address whose four bytes are in a register together; returns where it is.
    fn whole(&mut self, low: Register) -> Register {
        let IpFamily::V6(prefix) = self.family else { return low };
        self.immediate(&prefix.as_bytes(), WHOLE);
        // All bits are kept, and none is turned over.
        self.add("bitwise", |it| {
            it.number(1, low.number()).number(2, END_OF_WHOLE.number()).number(3, 4);
            it.nested(4, |data| {
                data.attribute(DATA_VALUE, &[0xff; 4]);
            });
            it.nested(5, |data| {
                data.attribute(DATA_VALUE, &[0; 4]);
            });
        });
        WHOLE
    }

    /// Loads the whole of an address; returns where it is.
    fn whole_of(&mut self, low: Ipv4Addr) -> Register {
        match self.family.at(low) {
            IpAddr::V4(address) => {
                self.immediate(&address.octets(), Register(0));
                Register(0)
            }
            IpAddr::V6(address) => {
                self.immediate(&address.octets(), WHOLE);
                WHOLE
            }
        }
    }

    fn protocol(&self) -> u32 {
        wire::protocol(self.family).into()
    }

    /// Gives the packet, as it is, to the socket that listens at this address, and marks it.
    pub(crate) fn take_here(&mut self, address: Ipv4Addr, port: u16, mark: u32) -> &mut Self {
        let (family, address) = (self.protocol(), self.whole_of(address));
        self.immediate(&port.to_be_bytes(), Register(1));
        self.add("tproxy", |it| {
            it.number(1, family).number(2, address.number()).number(3, Register(1).number());
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
        // `ICMP_PORT_UNREACH`, `ICMPV6_PORT_UNREACH`.
        let code = match self.family {
            IpFamily::V4 => 3,
            IpFamily::V6(_) => 4,
        };
        self.add("reject", |it| {
            it.number(1, 0).attribute(2, &[code]);
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
