//! What the rules of policies need besides.

use super::{DATA_VERDICT, Expressions, Register, VERDICT, VERDICT_CODE};
use crate::family::IpFamily;

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

    /// Loads the whole address that was meant: four registers of IPv6.
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

    pub(crate) fn reject_as_prohibited(&mut self) -> &mut Self {
        // `ICMP_PKT_FILTERED`, `ICMPV6_ADM_PROHIBITED`.
        let code = match self.family {
            IpFamily::V4 => 13,
            IpFamily::V6(_) => 1,
        };
        self.add("reject", |it| {
            it.number(1, 0).attribute(2, &[code]);
        })
    }
}
