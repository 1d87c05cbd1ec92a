//! The table that says which packets pass: its chains, its sets, and how they are written. There is one for
//! each family of addresses, with the same in it: pods are told by four bytes in both, and of blocks of
//! addresses each has those of its family.
//!
//! Knows nothing of NetworkPolicies, which `policy` turns into what is here. A packet meets two
//! questions, each in a base chain of its own: whether its source may send it, and whether its
//! destination may get it. A pod that nobody restricts is in no map, and both are over at once.

mod messages;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

pub(crate) use table::PolicyTable;

/// What is asked about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    /// Whether a pod gets it.
    Ingress,
    /// Whether a pod may send it to where it goes in this network.
    Egress,
    /// Whether a pod may send it to where it was meant to go, out of this network: the packet itself
    /// goes to the proxy.
    World,
}

/// A set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// Restricted pods, which may always reach themselves: addresses.
    Own,
    /// What a selector of peers selects: addresses.
    Peers(u32),
    /// What a name of a port stands for: ports.
    Ports(u32),
    /// What blocks of addresses without their exceptions have: ranges.
    Blocks(u32),
}

/// What is in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Address(Ipv4Addr),
    Port {
        address: Ipv4Addr,
        protocol: u8,
        port: u16,
    },
    /// The first and the last address, of one family.
    Range(IpAddr, IpAddr),
}

/// A chain of the table, but for base chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chain {
    /// Accepts what one policy allows.
    Policy(Question, u32),
    /// Accepts what one of several policies allows, and refuses the rest.
    Pods(Question, u32),
}

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Anybody,
    /// Whose address is in the set.
    In(Set),
}

/// Which destination ports a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ports {
    /// All, and protocols without ports.
    All,
    /// Those from the first to the last, of a protocol.
    Range { protocol: u8, first: u16, last: u16 },
    /// Whose destination, protocol and port are in the set.
    In(Set),
}

/// A rule of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Accept(Peer, Ports),
    /// Asks another chain, and goes on if it has not accepted.
    Ask(Chain),
    /// Tells the sender.
    Refuse,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    AddSet(Set),
    RemoveItems(Set, Vec<Item>),
    AddItems(Set, Vec<Item>),
    AddChain(Chain),
    /// Removes all rules of a chain.
    Empty(Chain),
    Append(Chain, Vec<Rule>),
    /// Takes addresses out of the map of a question.
    Release(Question, Vec<Ipv4Addr>),
    /// Leads addresses to the chain of pods of this number.
    Lead(Question, Vec<(Ipv4Addr, u32)>),
    RemoveChain(Chain),
    RemoveSet(Set),
}

/// Everything in the table that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) sets: BTreeMap<Set, BTreeSet<Item>>,
    pub(crate) chains: BTreeMap<Chain, Vec<Rule>>,
    /// The chain of pods to which a question about an address leads.
    pub(crate) leads: BTreeMap<(Question, Ipv4Addr), u32>,
}

/// What one change holds at most, so that a transaction can be cut between changes: some 16 KB.
pub(crate) const PIECE_MAX: usize = 100;

impl Contents {
    /// The changes that make this out of nothing.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (&set, items) in &self.sets {
            changes.push(Change::AddSet(set));
            changes.extend(pieces(items.iter().copied(), |it| Change::AddItems(set, it)));
        }
        changes.extend(self.chains.keys().map(|it| Change::AddChain(*it)));
        for (&chain, rules) in &self.chains {
            changes.extend(pieces(rules.iter().copied(), |it| Change::Append(chain, it)));
        }
        for question in [Question::Ingress, Question::Egress, Question::World] {
            let leads = self.leads.iter().filter(|((it, _), _)| *it == question);
            let leads = leads.map(|(&(_, address), &pods)| (address, pods));
            changes.extend(pieces(leads, |it| Change::Lead(question, it)));
        }
        changes
    }
}

/// Puts what there is into changes, [`PIECE_MAX`] in each.
pub(crate) fn pieces<T: Clone>(
    all: impl Iterator<Item = T>,
    change: impl Fn(Vec<T>) -> Change,
) -> Vec<Change> {
    let all: Vec<T> = all.collect();
    all.chunks(PIECE_MAX).map(|it| change(it.to_vec())).collect()
}
