//! What NetworkPolicies make of pods and namespaces. Pure: what the API says goes in piece by piece,
//! what to change in the table comes out, in proportion to what changed.
//!
//! A policy has a chain a direction, which accepts what it allows. Pods that the same policies
//! restrict share a chain that asks those and refuses the rest. What selects peers and what names a
//! port is a set, shared by all who say the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use client::Key;

use super::{
    Labels,
    draft::Draft,
    rules::{Allowed, Namespaces, Peer, Peers, Policy, Port, Ports},
};
use crate::nft::policy::{self as nft, Chain, Change, Contents, Item, Question, Rule, Set};

/// A pod that has an address of its own, of which the one of IPv6 has the same four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) labels: Labels,
    /// Protocol and name to number.
    pub(super) ports: BTreeMap<(u8, String), u16>,
    pub(super) address: Ipv4Addr,
    /// Whether policies may restrict it. The name server can only be somebody's peer.
    pub(super) is_subject: bool,
}

/// Which way a policy restricts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Ingress,
    Egress,
}

/// All that is known, and the table that follows from it.
#[derive(Debug)]
pub(super) struct Model {
    namespaces: BTreeMap<String, Labels>,
    /// By uid.
    pods: BTreeMap<String, Pod>,
    policies: BTreeMap<Key, Known>,
    /// Pods of which is to be decided anew what restricts them.
    unsettled: BTreeSet<String>,
    /// What is led where, by the uid of its pod: its address, and the numbers of the policies.
    settled: BTreeMap<String, (Ipv4Addr, Restrictions)>,
    peers: Shared<String, Peer>,
    blocks: Shared<Vec<(IpAddr, IpAddr)>, ()>,
    names: Shared<(u8, String), ()>,
    /// The chains of pods, by the policies that restrict them.
    pods_of: Shared<(Direction, BTreeSet<u32>), ()>,
    /// Numbers given so far; none is given twice.
    count: u32,
    draft: Draft,
}

/// The policies that restrict a pod, by direction; a direction that none restricts is not here.
type Restrictions = BTreeMap<Direction, BTreeSet<u32>>;

/// A policy and what it has in the table.
#[derive(Debug)]
struct Known {
    id: u32,
    policy: Policy,
    held: Held,
}

/// What the rules of a policy refer to.
#[derive(Debug, Default)]
struct Held {
    peers: Vec<String>,
    blocks: Vec<Vec<(IpAddr, IpAddr)>>,
    names: Vec<(u8, String)>,
}

/// What several refer to, each with its number.
#[derive(Debug)]
struct Shared<K, V>(BTreeMap<K, Entry<V>>);

#[derive(Debug)]
struct Entry<V> {
    id: u32,
    users: usize,
    value: V,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V> Shared<K, V> {
    /// One more refers to it. Returns its number, and whether it is new.
    fn hold(&mut self, key: &K, value: V, count: &mut u32) -> (u32, bool) {
        let mut is_new = false;
        let entry = self.0.entry(key.clone()).or_insert_with(|| {
            is_new = true;
            Entry { id: next(count), users: 0, value }
        });
        entry.users += 1;
        (entry.id, is_new)
    }

    /// One less refers to it. Returns its number if nobody does any more.
    fn release(&mut self, key: &K) -> Option<u32> {
        let entry = self.0.get_mut(key)?;
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 {
            return None;
        }
        self.0.remove(key).map(|it| it.id)
    }
}

fn next(count: &mut u32) -> u32 {
    *count += 1;
    *count
}

impl Default for Model {
    fn default() -> Self {
        let mut draft = Draft::default();
        draft.add_set(Set::Own);
        Self {
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            settled: BTreeMap::new(),
            peers: Shared::default(),
            blocks: Shared::default(),
            names: Shared::default(),
            pods_of: Shared::default(),
            count: 0,
            draft,
        }
    }
}

impl Model {
    /// Whether there is no policy, so that everything passes.
    pub(super) fn is_idle(&self) -> bool {
        self.policies.is_empty()
    }

    /// The pods that are known, and where.
    pub(super) fn addresses(&self) -> BTreeMap<String, Ipv4Addr> {
        self.pods.iter().map(|(uid, it)| (uid.clone(), it.address)).collect()
    }

    /// The table as of the last decision.
    pub(super) fn contents(&self) -> &Contents {
        self.draft.contents()
    }

    /// Takes in what a namespace's labels are, none if it is gone.
    pub(super) fn namespace_changed(&mut self, name: &str, labels: Option<&Labels>) {
        let before = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        if before.as_ref() == labels {
            return;
        }
        let there = self.pods.values().filter(|it| it.namespace == name);
        for pod in there {
            for entry in self.peers.0.values() {
                if matches!(entry.value.namespaces, Namespaces::Selected(_)) {
                    let selected = is_peer(&entry.value, pod, &self.namespaces);
                    set_member(&mut self.draft, entry.id, pod.address, selected);
                }
            }
        }
    }

    /// Takes in what a pod is, none if it is gone or has no address of its own.
    pub(super) fn pod_changed(&mut self, uid: &str, pod: Option<Pod>) {
        if self.pods.get(uid) == pod.as_ref() {
            return;
        }
        self.unsettled.insert(uid.to_owned());
        // The items of the old one go before those of the new one come: most are the same, and what
        // goes and comes is not written.
        if let Some(old) = self.pods.remove(uid) {
            for entry in self.peers.0.values() {
                set_member(&mut self.draft, entry.id, old.address, false);
            }
            for (name, port) in &old.ports {
                if let Some(entry) = self.names.0.get(name) {
                    self.draft.take(Set::Ports(entry.id), port_item(&old, name.0, *port));
                }
            }
        }
        let Some(pod) = pod else { return };
        for entry in self.peers.0.values() {
            if is_peer(&entry.value, &pod, &self.namespaces) {
                set_member(&mut self.draft, entry.id, pod.address, true);
            }
        }
        for (name, port) in &pod.ports {
            if let Some(entry) = self.names.0.get(name) {
                self.draft.put(Set::Ports(entry.id), port_item(&pod, name.0, *port));
            }
        }
        self.pods.insert(uid.to_owned(), pod);
    }

    /// Takes in what a policy says, none if it is gone.
    pub(super) fn policy_changed(&mut self, key: &Key, policy: Option<Policy>) {
        let old = self.policies.remove(key);
        if old.as_ref().map(|it| &it.policy) == policy.as_ref() {
            self.policies.extend(old.map(|it| (key.clone(), it)));
            return;
        }
        for policy in old.iter().map(|it| &it.policy).chain(&policy) {
            let restricted = self.pods.iter().filter(|(_, it)| restricts(policy, it));
            self.unsettled.extend(restricted.map(|(uid, _)| uid.clone()));
        }
        let id = old.as_ref().map_or_else(|| next(&mut self.count), |it| it.id);
        if let Some(policy) = policy {
            let mut held = Held::default();
            for question in [Question::Ingress, Question::Egress, Question::World] {
                let allowed = match question {
                    Question::Ingress => &policy.ingress,
                    Question::Egress | Question::World => &policy.egress,
                };
                let chain = Chain::Policy(question, id);
                match allowed {
                    Some(allowed) => {
                        let rules = self.rules(question, allowed, &mut held);
                        self.draft.set_chain(chain, rules);
                    }
                    None => self.draft.remove_chain(chain),
                }
            }
            self.policies.insert(key.clone(), Known { id, policy, held });
        } else {
            for question in [Question::Ingress, Question::Egress, Question::World] {
                self.draft.remove_chain(Chain::Policy(question, id));
            }
        }
        if let Some(old) = old {
            self.release(&old.held);
        }
    }

    /// The rules that allow what is said.
    fn rules(&mut self, question: Question, allowed: &[Allowed], held: &mut Held) -> Vec<Rule> {
        let mut rules = Vec::new();
        for Allowed { peers, ports } in allowed {
            let peers = self.peers_of(question, peers, held);
            let ports = self.ports_of(question, ports, held);
            for peer in peers {
                rules.extend(ports.iter().map(|it| Rule::Accept(peer, *it)));
            }
        }
        rules
    }

    fn peers_of(&mut self, question: Question, peers: &Peers, held: &mut Held) -> Vec<nft::Peer> {
        let Peers::Some { selected, blocks } = peers else { return vec![nft::Peer::Anybody] };
        let mut sets = Vec::new();
        // No pod is in the world.
        for peer in selected.iter().filter(|_| question != Question::World) {
            // What reads the same selects the same.
            let text = format!("{peer:?}");
            let (id, is_new) = self.peers.hold(&text, peer.clone(), &mut self.count);
            held.peers.push(text);
            if is_new {
                self.draft.add_set(Set::Peers(id));
                for pod in self.pods.values() {
                    if is_peer(peer, pod, &self.namespaces) {
                        set_member(&mut self.draft, id, pod.address, true);
                    }
                }
            }
            sets.push(nft::Peer::In(Set::Peers(id)));
        }
        if !blocks.is_empty() {
            let (id, is_new) = self.blocks.hold(blocks, (), &mut self.count);
            held.blocks.push(blocks.clone());
            if is_new {
                self.draft.add_set(Set::Blocks(id));
                for (first, last) in blocks {
                    self.draft.put(Set::Blocks(id), Item::Range(*first, *last));
                }
            }
            sets.push(nft::Peer::In(Set::Blocks(id)));
        }
        sets
    }

    fn ports_of(&mut self, question: Question, ports: &Ports, held: &mut Held) -> Vec<nft::Ports> {
        let Ports::Some(ports) = ports else { return vec![nft::Ports::All] };
        let mut all = Vec::new();
        for port in ports {
            match port {
                Port::Range { protocol, first, last } => {
                    let (protocol, first, last) = (*protocol, *first, *last);
                    all.push(nft::Ports::Range { protocol, first, last });
                }
                // Ports have names only at pods.
                Port::Named { .. } if question == Question::World => {}
                Port::Named { protocol, name } => {
                    let name = (*protocol, name.clone());
                    let (id, is_new) = self.names.hold(&name, (), &mut self.count);
                    if is_new {
                        self.draft.add_set(Set::Ports(id));
                        for pod in self.pods.values() {
                            if let Some(port) = pod.ports.get(&name) {
                                self.draft.put(Set::Ports(id), port_item(pod, name.0, *port));
                            }
                        }
                    }
                    held.names.push(name);
                    all.push(nft::Ports::In(Set::Ports(id)));
                }
            }
        }
        all
    }

    fn release(&mut self, held: &Held) {
        let peers = held.peers.iter().filter_map(|it| self.peers.release(it)).map(Set::Peers);
        let blocks = held.blocks.iter().filter_map(|it| self.blocks.release(it)).map(Set::Blocks);
        let names = held.names.iter().filter_map(|it| self.names.release(it)).map(Set::Ports);
        for set in peers.chain(blocks).chain(names) {
            self.draft.remove_set(set);
        }
    }

    /// What to change in the table since the last time.
    pub(super) fn decide(&mut self) -> Vec<Change> {
        let unsettled = std::mem::take(&mut self.unsettled);
        // An address that moved from one pod to another leaves the first before the second gets it.
        let mut wanted = Vec::new();
        for uid in unsettled {
            let (before, now) = (self.settled.get(&uid), self.restrictions(&uid));
            if before != now.as_ref() {
                wanted.push((uid, now));
            }
        }
        // What is held anew is held before the old is let go, so that a chain that stays is not made anew.
        let mut chains = Vec::new();
        for (_, now) in &wanted {
            chains.push(self.chains_for(now.as_ref()));
        }
        for (uid, _) in &wanted {
            self.let_go(uid);
        }
        for ((uid, now), chains) in wanted.into_iter().zip(chains) {
            let Some((address, restrictions)) = now else { continue };
            for (direction, id) in chains {
                for question in direction.questions() {
                    self.draft.lead(*question, address, Some(id));
                }
            }
            self.draft.put(Set::Own, Item::Address(address));
            self.settled.insert(uid, (address, restrictions));
        }
        self.draft.changes()
    }

    /// The chains to which a pod with these restrictions is led.
    fn chains_for(&mut self, now: Option<&(Ipv4Addr, Restrictions)>) -> Vec<(Direction, u32)> {
        let mut chains = Vec::new();
        for (&direction, policies) in now.iter().flat_map(|(_, it)| it) {
            let key = (direction, policies.clone());
            let (id, is_new) = self.pods_of.hold(&key, (), &mut self.count);
            for question in direction.questions().iter().filter(|_| is_new) {
                let ask = policies.iter().map(|it| Rule::Ask(Chain::Policy(*question, *it)));
                let rules = ask.chain([Rule::Refuse]).collect();
                self.draft.set_chain(Chain::Pods(*question, id), rules);
            }
            chains.push((direction, id));
        }
        chains
    }

    /// Restricts a pod no more.
    fn let_go(&mut self, uid: &str) {
        let Some((address, restrictions)) = self.settled.remove(uid) else { return };
        for (direction, policies) in restrictions {
            let id = self.pods_of.release(&(direction, policies));
            for question in direction.questions() {
                self.draft.lead(*question, address, None);
                if let Some(id) = id {
                    self.draft.remove_chain(Chain::Pods(*question, id));
                }
            }
        }
        self.draft.take(Set::Own, Item::Address(address));
    }

    /// What restricts a pod; none if nothing does.
    fn restrictions(&self, uid: &str) -> Option<(Ipv4Addr, Restrictions)> {
        let pod = self.pods.get(uid)?;
        let first = Key::namespaced(&pod.namespace, "");
        let there = self.policies.range(first..);
        let there = there.take_while(|(key, _)| key.namespace_or_empty() == pod.namespace);
        let mut restrictions = Restrictions::new();
        for (_, Known { id, policy, .. }) in there.filter(|(_, it)| restricts(&it.policy, pod)) {
            let ingress = policy.ingress.as_ref().map(|_| Direction::Ingress);
            let egress = policy.egress.as_ref().map(|_| Direction::Egress);
            for direction in ingress.into_iter().chain(egress) {
                restrictions.entry(direction).or_default().insert(*id);
            }
        }
        (!restrictions.is_empty()).then_some((pod.address, restrictions))
    }
}

impl Direction {
    const fn questions(self) -> &'static [Question] {
        match self {
            Self::Ingress => &[Question::Ingress],
            Self::Egress => &[Question::Egress, Question::World],
        }
    }
}

fn restricts(policy: &Policy, pod: &Pod) -> bool {
    pod.is_subject && policy.namespace == pod.namespace && policy.pods.matches(&pod.labels)
}

fn is_peer(peer: &Peer, pod: &Pod, namespaces: &BTreeMap<String, Labels>) -> bool {
    let there = match &peer.namespaces {
        Namespaces::Named(name) => *name == pod.namespace,
        Namespaces::Selected(selector) => {
            namespaces.get(&pod.namespace).is_some_and(|it| selector.matches(it))
        }
    };
    there && peer.pods.matches(&pod.labels)
}

fn set_member(draft: &mut Draft, id: u32, address: Ipv4Addr, is_member: bool) {
    let (set, item) = (Set::Peers(id), Item::Address(address));
    if is_member {
        draft.put(set, item);
    } else {
        draft.take(set, item);
    }
}

fn port_item(pod: &Pod, protocol: u8, port: u16) -> Item {
    Item::Port { address: pod.address, protocol, port }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
