//! Changes of the table as messages of a transaction.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use super::{Chain, Change, Item, Peer, Ports, Question, Rule, Set};
use crate::{
    family::{self, IpFamily},
    netlink::{Socket, wire::Body},
    nft::{
        self,
        batch::{Batch, Hook, LIST_ELEM},
        expressions::{Expressions, Field, Register},
    },
};

const DELCHAIN: u16 = 10 << 8 | 5;
const DELRULE: u16 = 10 << 8 | 8;
const NEWSET: u16 = 10 << 8 | 9;
const DELSET: u16 = 10 << 8 | 11;
const NEWSETELEM: u16 = 10 << 8 | 12;
const DELSETELEM: u16 = 10 << 8 | 14;
const NEWCHAIN: u16 = 10 << 8 | 3;
const NLM_F_CREATE: u16 = 0x400;

/// Flags of sets.
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
/// Types of keys, as `nft` numbers them.
const ADDRESS: u32 = 7;
const ADDRESS_V6: u32 = 8;
const ADDRESS_PAIR: u32 = 7 << 6 | 7;
const ADDRESS_PROTOCOL_PORT: u32 = 7 << 12 | 12 << 6 | 13;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// `NFT_GOTO`.
const GOTO: i32 = -4;

const TCP: u8 = 6;
const FORWARD_HOOK: u32 = 2;
const INPUT_HOOK: u32 = 1;
const PREROUTING_HOOK: u32 = 0;
/// After the chain that marks what leaves by UDP.
const ASK_MARKED: i32 = -80;
/// After the chains that route.
const ASK_SOURCE: i32 = 1;
const ASK_DESTINATION: i32 = 2;

const EGRESS: &str = "egress";
const INGRESS: &str = "ingress";
const EGRESS_DATAGRAMS: &str = "egress-datagrams";
const EGRESS_LOCAL: &str = "egress-local";

impl Question {
    /// The map from addresses of pods to chains.
    fn map(self) -> &'static str {
        match self {
            Self::Ingress => "ingress-pods",
            Self::Egress => "egress-pods",
            Self::World => "world-pods",
        }
    }

    const ALL: [Self; 3] = [Self::Ingress, Self::Egress, Self::World];
}

impl Set {
    fn name(self) -> String {
        match self {
            Self::Own => "own".to_owned(),
            Self::Peers(id) => format!("peers-{id}"),
            Self::Ports(id) => format!("ports-{id}"),
            Self::Blocks(id) => format!("blocks-{id}"),
        }
    }

    /// Type of its keys, their length, and its flags, in a table of this family.
    fn shape(self, family: IpFamily) -> (u32, u32, u32) {
        match self {
            Self::Own => (ADDRESS_PAIR, 8, 0),
            Self::Peers(_) => (ADDRESS, 4, 0),
            Self::Ports(_) => (ADDRESS_PROTOCOL_PORT, 12, 0),
            Self::Blocks(_) if family == IpFamily::V4 => (ADDRESS, 4, INTERVAL),
            Self::Blocks(_) => (ADDRESS_V6, 16, INTERVAL),
        }
    }
}

impl Chain {
    fn name(self) -> String {
        let (what, question, id) = match self {
            Self::Policy(question, id) => ("policy", question, id),
            Self::Pods(question, id) => ("pods", question, id),
        };
        let question = match question {
            Question::Ingress => "ingress",
            Question::Egress => "egress",
            Question::World => "world",
        };
        format!("{question}-{what}-{id}")
    }

    fn question(self) -> Question {
        match self {
            Self::Policy(question, _) | Self::Pods(question, _) => question,
        }
    }
}

/// Whether there is a table of this name that packets meet. That of IPv6 goes with it.
pub(super) fn is_asked(socket: &mut Socket, table: &str) -> io::Result<bool> {
    nft::table::has_chain(socket, (IpFamily::V4, table), EGRESS)
}

/// Writes the maps, which are always there.
pub(super) fn write_maps(batch: &mut Batch) {
    for (id, question) in (1..).zip(Question::ALL) {
        add_set(batch, question.map(), id, |body| {
            body.number(3, MAP).number(4, ADDRESS).number(5, 4).number(6, VERDICT_TYPE);
        });
    }
}

/// Writes the base chains: from then on the table is asked.
pub(super) fn write_hooks(batch: &mut Batch, egress_port: u16, host: Ipv4Addr) {
    let filter = |number, priority| Hook { kind: "filter", number, priority };
    batch.chain(EGRESS, filter(FORWARD_HOOK, ASK_SOURCE));
    batch.chain(INGRESS, filter(FORWARD_HOOK, ASK_DESTINATION));
    batch.chain(EGRESS_LOCAL, filter(INPUT_HOOK, ASK_SOURCE));
    // Later, when the packet is taken for the cluster's own, its target's address would have to send the
    // refusal, which it cannot.
    let marked = Hook { kind: "filter", number: PREROUTING_HOOK, priority: ASK_MARKED };
    batch.chain(EGRESS_DATAGRAMS, marked);
    for chain in [EGRESS, INGRESS, EGRESS_LOCAL, EGRESS_DATAGRAMS] {
        // Each packet of the side that began is asked about, so that a connection ends that is not
        // allowed any more.
        batch.rule(chain, "answers", |it| {
            it.is_reply().accept();
        });
        batch.rule(chain, "errors of connections", |it| {
            it.is_related().accept();
        });
        // Else the other side would wait for a client whose connection was ended.
        batch.rule(chain, "ends of connections", |it| {
            it.is_protocol(TCP).is_established().is_tcp_reset().accept();
        });
    }
    for chain in [EGRESS, INGRESS] {
        batch.rule(chain, "a pod that reaches itself", |it| {
            it.load(Field::SourceAddress, Register(0)).load(Field::DestinationAddress, Register(1));
            it.look_up(&Set::Own.name(), Register(0), None).accept();
        });
    }
    batch.rule(EGRESS_LOCAL, "to the world", |it| {
        it.is_protocol(TCP).is_to_port(egress_port).load(Field::SourceAddress, Register(0));
        it.go_by(Question::World.map(), Register(0));
    });
    batch.rule(EGRESS_DATAGRAMS, "to the world, by what is marked", |it| {
        it.is_marked(nft::TAKEN_HERE).load(Field::SourceAddress, Register(0));
        it.go_by(Question::World.map(), Register(0));
    });
    for chain in [EGRESS, EGRESS_LOCAL] {
        batch.rule(chain, "what a pod may send", |it| {
            it.load(Field::SourceAddress, Register(0));
            it.go_by(Question::Egress.map(), Register(0));
        });
    }
    // As in other clusters the node may; through published ports it can anyway.
    batch.rule(INGRESS, "the host", |it| {
        it.is_from(host).accept();
    });
    batch.rule(INGRESS, "what a pod may get", |it| {
        it.load(Field::DestinationAddress, Register(0));
        it.go_by(Question::Ingress.map(), Register(0));
    });
}

pub(super) fn write(batch: &mut Batch, change: &Change) {
    match change {
        Change::AddSet(set) => {
            let (key_type, key_length, flags) = set.shape(batch.family());
            let id = match set {
                Set::Own => 4,
                Set::Peers(id) | Set::Ports(id) | Set::Blocks(id) => id.saturating_add(5),
            };
            add_set(batch, &set.name(), id, |body| {
                body.number(3, flags).number(4, key_type).number(5, key_length);
            });
        }
        Change::RemoveItems(set, items) => write_items(batch, DELSETELEM, 0, *set, items),
        Change::AddItems(set, items) => write_items(batch, NEWSETELEM, NLM_F_CREATE, *set, items),
        Change::AddChain(chain) => on_table(batch, NEWCHAIN, NLM_F_CREATE, |body| {
            body.text(3, &chain.name());
        }),
        Change::Empty(chain) => on_table(batch, DELRULE, 0, |body| {
            body.text(2, &chain.name());
        }),
        Change::Append(chain, rules) => {
            for rule in rules {
                write_rule(batch, *chain, *rule);
            }
        }
        Change::Release(question, addresses) => {
            elements(batch, DELSETELEM, 0, question.map(), addresses, |address, element| {
                key(element, &address.octets());
            });
        }
        Change::Lead(question, leads) => {
            let map = question.map();
            elements(batch, NEWSETELEM, NLM_F_CREATE, map, leads, |(address, pods), element| {
                key(element, &address.octets());
                element.nested(2, |data| {
                    data.nested(2, |verdict| {
                        verdict.attribute(1, &GOTO.to_be_bytes());
                        verdict.text(2, &Chain::Pods(*question, *pods).name());
                    });
                });
            });
        }
        Change::RemoveChain(chain) => on_table(batch, DELCHAIN, 0, |body| {
            body.text(3, &chain.name());
        }),
        Change::RemoveSet(set) => on_table(batch, DELSET, 0, |body| {
            body.text(2, &set.name());
        }),
    }
}

fn on_table(batch: &mut Batch, kind: u16, flags: u16, rest: impl FnOnce(&mut Body<'_>)) {
    let table = batch.table_name();
    batch.message(kind, flags, |body| {
        body.text(1, table);
        rest(body);
    });
}

fn add_set(batch: &mut Batch, name: &str, id: u32, shape: impl FnOnce(&mut Body<'_>)) {
    on_table(batch, NEWSET, NLM_F_CREATE, |body| {
        body.text(2, name).number(10, id);
        shape(body);
    });
}

fn elements<T>(
    batch: &mut Batch,
    kind: u16,
    flags: u16,
    set: &str,
    all: &[T],
    write: impl Fn(&T, &mut Body<'_>),
) {
    if all.is_empty() {
        return;
    }
    on_table(batch, kind, flags, |body| {
        body.text(2, set).nested(3, |list| {
            for it in all {
                list.nested(LIST_ELEM, |element| write(it, element));
            }
        });
    });
}

fn key(element: &mut Body<'_>, value: &[u8]) {
    element.nested(1, |key| {
        key.attribute(1, value);
    });
}

fn write_items(batch: &mut Batch, kind: u16, flags: u16, set: Set, items: &[Item]) {
    let family = batch.family();
    let here = items.iter().filter(|it| it.is_of(family));
    let elements_of = here.flat_map(|it| it.elements(set));
    let all: Vec<(Vec<u8>, Edge)> = elements_of.collect();
    elements(batch, kind, flags, &set.name(), &all, |(value, edge), element| {
        const INTERVAL_END: u32 = 1;
        key(element, value);
        if *edge == Edge::End {
            element.number(3, INTERVAL_END);
        }
    });
}

/// Whether an element begins something or ends an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

impl Item {
    /// Whether the table of a family has it.
    fn is_of(self, family: IpFamily) -> bool {
        match self {
            Self::Address(_) | Self::Port { .. } => true,
            Self::Range(first, _) => first.is_ipv4() == (family == IpFamily::V4),
        }
    }

    /// The elements that stand for it.
    fn elements(self, set: Set) -> Vec<(Vec<u8>, Edge)> {
        match self {
            Self::Address(address) if set == Set::Own => {
                vec![([address.octets(), address.octets()].concat(), Edge::Begin)]
            }
            Self::Address(address) => vec![(address.octets().to_vec(), Edge::Begin)],
            Self::Port { address, protocol, port } => {
                let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
                vec![(vec![a, b, c, d, protocol, 0, 0, 0, high, low, 0, 0], Edge::Begin)]
            }
            Self::Range(first, last) => {
                // What follows the last; nothing follows the last address of all.
                let end = family::next(last).map(|it| (octets(it), Edge::End));
                let begin = (octets(first), Edge::Begin);
                std::iter::once(begin).chain(end).collect()
            }
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn write_rule(batch: &mut Batch, chain: Chain, rule: Rule) {
    let (name, question) = (chain.name(), chain.question());
    match rule {
        Rule::Accept(peer, ports) => batch.rule(&name, "", |it| {
            if let Peer::In(set) = peer {
                load_peer(it, question, set).look_up(&set.name(), Register(0), None);
            }
            match ports {
                Ports::All => {}
                Ports::Range { protocol, first, last } => {
                    it.is_protocol(protocol);
                    load_port(it, question, Register(0)).is_from_to(Register(0), first, last);
                }
                Ports::In(set) => {
                    it.load(Field::DestinationAddress, Register(0)).load_protocol(Register(1));
                    it.load(Field::DestinationPort, Register(2));
                    it.look_up(&set.name(), Register(0), None);
                }
            }
            it.accept();
        }),
        Rule::Ask(other) => batch.rule(&name, "", |it| {
            it.jump(&other.name());
        }),
        Rule::Refuse => {
            batch.rule(&name, "refused", |it| {
                it.is_protocol(TCP).reject_with_tcp_reset();
            });
            batch.rule(&name, "refused", |it| {
                it.reject_as_prohibited();
            });
        }
    }
}

/// The address of the other side, as it is in the set.
fn load_peer<'a, 'b, 'c>(
    it: &'c mut Expressions<'a, 'b>,
    question: Question,
    set: Set,
) -> &'c mut Expressions<'a, 'b> {
    let field = match question {
        Question::Ingress => Field::SourceAddress,
        Question::Egress => Field::DestinationAddress,
        Question::World => return it.load_original_address(Register(0)),
    };
    match set {
        Set::Blocks(_) => it.load_whole(field, Register(0)),
        Set::Own | Set::Peers(_) | Set::Ports(_) => it.load(field, Register(0)),
    }
}

fn load_port<'a, 'b, 'c>(
    it: &'c mut Expressions<'a, 'b>,
    question: Question,
    into: Register,
) -> &'c mut Expressions<'a, 'b> {
    match question {
        Question::Ingress | Question::Egress => it.load(Field::DestinationPort, into),
        Question::World => it.load_original_port(into),
    }
}
