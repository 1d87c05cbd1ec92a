//! Which pod has which address. Pure; filled at start from the links that are there.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use crate::addresses::Subnet;

/// Addresses at the start of the range that are never given to a pod: the network's own and the
/// gateway.
const RESERVED: u32 = 2;

/// The addresses of a range and who has them.
#[derive(Debug)]
pub(crate) struct Pool {
    range: Subnet,
    assigned: BTreeMap<String, Ipv4Addr>,
    /// Addresses from here to the end were never given out.
    fresh: u32,
    /// Given back, longest ago first. They are used again only when no fresh one is left, so that
    /// a client with an old answer does not reach a stranger.
    released: VecDeque<Ipv4Addr>,
}

impl Pool {
    /// A pool in which `assigned` are taken.
    pub(crate) fn new(range: Subnet, assigned: BTreeMap<String, Ipv4Addr>) -> Self {
        let first = range.address.to_bits().saturating_add(RESERVED);
        let mut taken: Vec<u32> = assigned.values().map(|it| it.to_bits()).collect();
        taken.sort_unstable();
        let fresh = taken.last().map_or(first, |it| it.saturating_add(1));
        let free = (first..fresh).filter(|it| taken.binary_search(it).is_err());
        let released = free.map(Ipv4Addr::from_bits).collect();
        Self { range, assigned, fresh, released }
    }

    /// The address of `owner`: the one it has, else a new one. None: all are taken.
    pub(crate) fn assign(&mut self, owner: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.assigned.get(owner) {
            return Some(*address);
        }
        // The last address of the range is for broadcasts, the one before it the host's.
        let address = if self.fresh.saturating_add(1) < self.range.last().to_bits() {
            self.fresh += 1;
            Ipv4Addr::from_bits(self.fresh - 1)
        } else {
            self.released.pop_front()?
        };
        self.assigned.insert(owner.to_owned(), address);
        Some(address)
    }

    /// Takes the address of `owner` back, if it has one.
    pub(crate) fn release(&mut self, owner: &str) {
        self.released.extend(self.assigned.remove(owner));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(prefix: u8, assigned: &[(&str, u8)]) -> Pool {
        let address = |last| Ipv4Addr::new(10, 244, 0, last);
        let assigned = assigned.iter().map(|(owner, it)| ((*owner).to_owned(), address(*it)));
        Pool::new(Subnet { address: address(0), prefix }, assigned.collect())
    }

    fn last_byte(address: Option<Ipv4Addr>) -> Option<u8> {
        address.map(|it| it.octets()[3])
    }

    #[test]
    fn uses_a_released_address_last() {
        let mut pool = pool(29, &[]);
        let first: Vec<_> = ["a", "b", "c"].map(|it| last_byte(pool.assign(it))).into();
        assert_eq!(first, [Some(2), Some(3), Some(4)]);
        pool.release("b");
        pool.release("a");
        let then: Vec<_> = ["d", "e", "f", "g"].map(|it| last_byte(pool.assign(it))).into();
        assert_eq!(then, [Some(5), Some(3), Some(2), None]);
        assert_eq!(last_byte(pool.assign("c")), Some(4));
    }

    #[test]
    fn goes_on_after_the_last_assigned_one() {
        let mut pool = pool(29, &[("a", 3), ("b", 5)]);
        let then: Vec<_> = ["b", "c", "d", "e"].map(|it| last_byte(pool.assign(it))).into();
        assert_eq!(then, [Some(5), Some(2), Some(4), None]);
    }

    proptest! {
        #[test]
        fn never_gives_an_address_twice(steps: Vec<(bool, u8)>) {
            let mut pool = pool(28, &[("7", 9)]);
            for (assign, owner) in steps {
                let owner = (owner % 20).to_string();
                if assign {
                    pool.assign(&owner);
                } else {
                    pool.release(&owner);
                }
                let mut taken: Vec<_> = pool.assigned.values().copied().collect();
                taken.extend(&pool.released);
                let count = taken.len();
                taken.sort_unstable();
                taken.dedup();
                prop_assert_eq!(taken.len(), count);
                prop_assert!(taken.iter().all(|it| (2..15).contains(&it.octets()[3])));
            }
        }
    }
}
