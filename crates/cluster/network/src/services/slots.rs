//! Gives endpoints slots of a service port: one each, without a gap, moving as little as possible.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    net::SocketAddrV4,
};

use crate::nft::{ENDPOINTS_MAX, Slots};

/// The slots when `endpoints` are to be served and `current` is how it was. Of more endpoints than there
/// may be, some get none: those that had one keep it.
pub(crate) fn spread(current: &Slots, endpoints: &BTreeSet<SocketAddrV4>) -> Slots {
    let count = u32::try_from(endpoints.len()).unwrap_or(ENDPOINTS_MAX).min(ENDPOINTS_MAX);
    let mut known = BTreeSet::new();
    let mut slots = Slots::new();
    let mut moving = Vec::new();
    for (&slot, &endpoint) in current {
        if endpoints.contains(&endpoint) && known.insert(endpoint) {
            if slot < count {
                slots.insert(slot, endpoint);
            } else {
                moving.push(endpoint);
            }
        }
    }
    let new = endpoints.iter().filter(|it| !known.contains(it)).copied();
    let mut without = moving.into_iter().chain(new);
    for slot in 0..count {
        if let Entry::Vacant(vacant) = slots.entry(slot)
            && let Some(endpoint) = without.next()
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

    fn endpoints(hosts: impl IntoIterator<Item = u16>) -> BTreeSet<SocketAddrV4> {
        let address = |it: u16| Ipv4Addr::from((10 << 24 | 244 << 16) + u32::from(it));
        hosts.into_iter().map(|it| SocketAddrV4::new(address(it), 80)).collect()
    }

    fn moved(one: &Slots, other: &Slots) -> usize {
        let slots: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        slots.into_iter().filter(|it| one.get(it) != other.get(it)).count()
    }

    #[test]
    fn beyond_the_limit_who_has_a_slot_keeps_it() {
        let all = spread(&Slots::new(), &endpoints(1..20_000));
        assert_eq!(all.len(), usize::try_from(ENDPOINTS_MAX).unwrap());
        assert_eq!(spread(&all, &endpoints(0..20_000)), all);
    }

    #[test]
    fn slots_of_an_older_table_become_one_each() {
        let [a, b] = ["10.244.0.2:1", "10.244.0.3:1"].map(|it| it.parse().unwrap());
        let old = (0..64).map(|it| (it, if it < 32 { a } else { b })).collect();
        assert_eq!(spread(&old, &[a, b].into()), Slots::from([(0, a), (1, b)]));
    }

    proptest! {
        #[test]
        fn all_have_one_without_a_gap(
            before in proptest::collection::btree_set(0..200_u16, 0..100),
            after in proptest::collection::btree_set(0..200_u16, 0..100),
        ) {
            let old = spread(&Slots::new(), &endpoints(before.clone()));
            let new = spread(&old, &endpoints(after.clone()));
            prop_assert_eq!(&spread(&new, &endpoints(after.clone())), &new);
            let numbers: Vec<usize> = new.keys().map(|it| usize::try_from(*it).unwrap()).collect();
            prop_assert_eq!(numbers, (0..after.len()).collect::<Vec<_>>());
            let served: BTreeSet<_> = new.values().copied().collect();
            prop_assert_eq!(served, endpoints(after.clone()));
            // Each that comes or goes changes a slot; who goes may make another move.
            let (gone, come) = (before.difference(&after).count(), after.difference(&before).count());
            prop_assert!(moved(&old, &new) <= 2 * gone + come);
        }
    }
}
