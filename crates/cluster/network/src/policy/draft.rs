//! What the table is to be, and in what it differs from what it is. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::nft::policy::{Chain, Change, Contents, Item, Question, Rule, Set, pieces};

/// Contents that are being changed, and a note of each place where they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    contents: Contents,
    /// Whether a set was there.
    sets: BTreeMap<Set, Was>,
    chains: BTreeMap<Chain, Was>,
    /// Items that were in and are not, or the other way round.
    items: BTreeSet<(Set, Item)>,
    /// Where an address was led.
    leads: BTreeMap<(Question, Ipv4Addr), Option<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    There,
    Absent,
}

impl Draft {
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(super) fn add_set(&mut self, set: Set) {
        if !self.contents.sets.contains_key(&set) {
            self.sets.entry(set).or_insert(Was::Absent);
            self.contents.sets.insert(set, BTreeSet::new());
        }
    }

    pub(super) fn remove_set(&mut self, set: Set) {
        if self.contents.sets.remove(&set).is_some() {
            self.sets.entry(set).or_insert(Was::There);
        }
    }

    /// Puts an item into a set that is there, once.
    pub(super) fn put(&mut self, set: Set, item: Item) {
        if self.contents.sets.get_mut(&set).is_some_and(|it| it.insert(item)) {
            self.toggle(set, item);
        }
    }

    pub(super) fn take(&mut self, set: Set, item: Item) {
        if self.contents.sets.get_mut(&set).is_some_and(|it| it.remove(&item)) {
            self.toggle(set, item);
        }
    }

    fn toggle(&mut self, set: Set, item: Item) {
        if !self.items.remove(&(set, item)) {
            self.items.insert((set, item));
        }
    }

    pub(super) fn set_chain(&mut self, chain: Chain, rules: Vec<Rule>) {
        let before = self.contents.chains.get(&chain);
        if before == Some(&rules) {
            return;
        }
        let was = if before.is_some() { Was::There } else { Was::Absent };
        self.chains.entry(chain).or_insert(was);
        self.contents.chains.insert(chain, rules);
    }

    pub(super) fn remove_chain(&mut self, chain: Chain) {
        if self.contents.chains.remove(&chain).is_some() {
            self.chains.entry(chain).or_insert(Was::There);
        }
    }

    /// Leads an address to a chain of pods, or to none.
    pub(super) fn lead(&mut self, question: Question, address: Ipv4Addr, to: Option<u32>) {
        let before = match to {
            Some(to) => self.contents.leads.insert((question, address), to),
            None => self.contents.leads.remove(&(question, address)),
        };
        if before != to {
            self.leads.entry((question, address)).or_insert(before);
        }
    }

    /// What is to be done, in an order that the kernel takes; the next differences are those to what
    /// is here now. Numbers of sets and chains are never used again, so none that went comes back.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (sets, chains) = (std::mem::take(&mut self.sets), std::mem::take(&mut self.chains));
        let there = |it: &Set| self.contents.sets.contains_key(it);
        let added_sets = sets.iter().filter(|(it, was)| **was == Was::Absent && there(it));
        changes.extend(added_sets.map(|(it, _)| Change::AddSet(*it)));
        self.change_items(&mut changes);
        let present = |it: &Chain| self.contents.chains.contains_key(it);
        let added = chains.iter().filter(|(it, was)| **was == Was::Absent && present(it));
        changes.extend(added.map(|(it, _)| Change::AddChain(*it)));
        for (&chain, was) in &chains {
            let Some(rules) = self.contents.chains.get(&chain) else { continue };
            if *was == Was::There {
                changes.push(Change::Empty(chain));
            }
            changes.extend(pieces(rules.iter().copied(), |it| Change::Append(chain, it)));
        }
        self.change_leads(&mut changes);
        let gone = |was: &Was, still: bool| *was == Was::There && !still;
        // Chains of pods ask those of policies, and are greater.
        let chains = chains
            .iter()
            .rev()
            .filter(|(it, was)| gone(was, self.contents.chains.contains_key(it)));
        changes.extend(chains.map(|(it, _)| Change::RemoveChain(*it)));
        let sets = sets.iter().filter(|(it, was)| gone(was, self.contents.sets.contains_key(it)));
        changes.extend(sets.map(|(it, _)| Change::RemoveSet(*it)));
        changes
    }

    fn change_items(&mut self, changes: &mut Vec<Change>) {
        let mut by_set: BTreeMap<Set, (Vec<Item>, Vec<Item>)> = BTreeMap::new();
        for (set, item) in std::mem::take(&mut self.items) {
            // The items of a set that is gone go with it.
            let Some(now) = self.contents.sets.get(&set) else { continue };
            let (removed, added) = by_set.entry(set).or_default();
            if now.contains(&item) { added.push(item) } else { removed.push(item) }
        }
        for (set, (removed, added)) in by_set {
            changes.extend(pieces(removed.into_iter(), |it| Change::RemoveItems(set, it)));
            changes.extend(pieces(added.into_iter(), |it| Change::AddItems(set, it)));
        }
    }

    fn change_leads(&mut self, changes: &mut Vec<Change>) {
        let mut by_question: BTreeMap<Question, (Vec<Ipv4Addr>, Vec<_>)> = BTreeMap::new();
        for ((question, address), before) in std::mem::take(&mut self.leads) {
            let now = self.contents.leads.get(&(question, address)).copied();
            if now == before {
                continue;
            }
            let (removed, added) = by_question.entry(question).or_default();
            removed.extend(before.map(|_| address));
            added.extend(now.map(|it| (address, it)));
        }
        for (question, (removed, added)) in by_question {
            changes.extend(pieces(removed.into_iter(), |it| Change::Release(question, it)));
            changes.extend(pieces(added.into_iter(), |it| Change::Lead(question, it)));
        }
    }
}
