//! Spreads endpoints over the slots of a service port: evenly, and moving as little as possible.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use crate::nft::{SLOTS, Slots};

/// The slots when `endpoints` are to be served and `current` is how it was. Counts of slots differ
/// by at most one. Of more endpoints than slots, some get none: those that had one keep it.
pub(crate) fn spread(current: &Slots, endpoints: &BTreeSet<SocketAddrV4>) -> Slots {
    let mut held: BTreeMap<SocketAddrV4, u32> = endpoints.iter().map(|it| (*it, 0)).collect();
    for endpoint in current.values() {
        if let Some(count) = held.get_mut(endpoint) {
            *count += 1;
        }
    }
    // Who holds most gets the odd slots, so that nobody gives one away for nothing.
    let mut by_holding: Vec<(SocketAddrV4, u32)> = held.into_iter().collect();
    by_holding.sort_by_key(|(endpoint, count)| (Reverse(*count), *endpoint));
    by_holding.truncate(usize::try_from(SLOTS).unwrap_or(usize::MAX));
    let Ok(count) = u32::try_from(by_holding.len()) else { return Slots::new() };
    if count == 0 {
        return Slots::new();
    }
    let (each, odd) = (SLOTS / count, SLOTS % count);
    let quotas =
        by_holding.iter().zip(0..).map(|(&(it, _), rank)| (it, each + u32::from(rank < odd)));
    let mut left: BTreeMap<SocketAddrV4, u32> = quotas.collect();
    let mut slots = Slots::new();
    for (&slot, endpoint) in current.range(..SLOTS) {
        if let Some(quota) = left.get_mut(endpoint).filter(|it| **it > 0) {
            *quota -= 1;
            slots.insert(slot, *endpoint);
        }
    }
    let mut missing = left
        .into_iter()
        .flat_map(|(it, quota)| std::iter::repeat_n(it, usize::try_from(quota).unwrap_or(0)));
    for slot in 0..SLOTS {
        if let std::collections::btree_map::Entry::Vacant(vacant) = slots.entry(slot)
            && let Some(endpoint) = missing.next()
        {
            vacant.insert(endpoint);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn endpoints(hosts: impl IntoIterator<Item = u8>) -> BTreeSet<SocketAddrV4> {
        hosts.into_iter().map(|it| SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, it), 80)).collect()
    }

    fn counts(slots: &Slots) -> BTreeMap<SocketAddrV4, usize> {
        let mut counts = BTreeMap::new();
        slots.values().for_each(|it| *counts.entry(*it).or_default() += 1);
        counts
    }

    fn moved(one: &Slots, other: &Slots) -> usize {
        (0..SLOTS).filter(|it| one.get(it) != other.get(it)).count()
    }

    #[test]
    fn one_endpoint_has_all_slots_and_none_leaves_them_empty() {
        let one = spread(&Slots::new(), &endpoints([7]));
        assert_eq!(one.len(), 64);
        assert_eq!(spread(&one, &endpoints([])), Slots::new());
    }

    proptest! {
        #[test]
        fn is_even_stable_and_moves_little(
            before in proptest::collection::btree_set(any::<u8>(), 0..100),
            after in proptest::collection::btree_set(any::<u8>(), 1..100),
        ) {
            let old = spread(&Slots::new(), &endpoints(before));
            let new = spread(&old, &endpoints(after.clone()));
            prop_assert_eq!(&spread(&new, &endpoints(after.clone())), &new);
            prop_assert_eq!(new.len(), 64);
            let counts = counts(&new);
            prop_assert_eq!(counts.len(), after.len().min(64));
            let most = counts.values().max().unwrap();
            prop_assert!(most - counts.values().min().unwrap() <= 1);
        }

        #[test]
        fn a_removed_endpoint_moves_only_its_own_slots(
            before in proptest::collection::btree_set(any::<u8>(), 2..64),
        ) {
            let old = spread(&Slots::new(), &endpoints(before.clone()));
            let gone = *before.first().unwrap();
            let rest = before.iter().copied().filter(|it| *it != gone);
            let new = spread(&old, &endpoints(rest));
            let expected = counts(&old)[endpoints([gone]).first().unwrap()];
            prop_assert_eq!(moved(&old, &new), expected);
        }
    }
}
