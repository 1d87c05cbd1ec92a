//! Which pod has which address: one of its node's part of the range. Pure; filled at start from the links
//! that are there.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use crate::addresses::Subnet;

/// Addresses at the start of a part that are never given to a pod: the network's own and the node's.
const RESERVED: u32 = 2;

/// The addresses of all parts and who has them.
#[derive(Debug)]
pub(crate) struct Pool {
    assigned: BTreeMap<String, Ipv4Addr>,
    /// Those from which an address was wanted or given back.
    parts: BTreeMap<Ipv4Addr, Part>,
}

#[derive(Debug)]
struct Part {
    range: Subnet,
    /// Addresses from here to the end were never given out.
    fresh: u32,
    /// Given back, longest ago first. They are used again only when no fresh one is left, so that
    /// a client with an old answer does not reach a stranger.
    released: VecDeque<Ipv4Addr>,
}

impl Pool {
    /// A pool in which `assigned` are taken.
    pub(crate) const fn new(assigned: BTreeMap<String, Ipv4Addr>) -> Self {
        Self { assigned, parts: BTreeMap::new() }
    }

    /// The address that `owner` has.
    pub(crate) fn of(&self, owner: &str) -> Option<Ipv4Addr> {
        self.assigned.get(owner).copied()
    }

    /// The address of `owner`: the one it has, else a new one of `part`. None: all are taken.
    pub(crate) fn assign(&mut self, owner: &str, part: Subnet) -> Option<Ipv4Addr> {
        if let Some(address) = self.of(owner) {
            return Some(address);
        }
        let taken = &self.assigned;
        let part = self.parts.entry(part.address).or_insert_with(|| Part::new(part, taken));
        let address = part.take()?;
        self.assigned.insert(owner.to_owned(), address);
        Some(address)
    }

    /// Takes the address of `owner` back, if it has one.
    pub(crate) fn release(&mut self, owner: &str) {
        let Some(address) = self.assigned.remove(owner) else { return };
        // Of another part nothing was wanted yet: it will find the address free.
        if let Some(part) = self.parts.values_mut().find(|it| it.range.contains(address)) {
            part.released.push_back(address);
        }
    }
}

impl Part {
    fn new(range: Subnet, assigned: &BTreeMap<String, Ipv4Addr>) -> Self {
        let first = range.address.to_bits().saturating_add(RESERVED);
        let taken = assigned.values().filter(|it| range.contains(**it));
        let mut taken: Vec<u32> = taken.map(|it| it.to_bits()).collect();
        taken.sort_unstable();
        let fresh = taken.last().map_or(first, |it| it.saturating_add(1));
        let free = (first..fresh).filter(|it| taken.binary_search(it).is_err());
        let released = free.map(Ipv4Addr::from_bits).collect();
        Self { range, fresh, released }
    }

    fn take(&mut self) -> Option<Ipv4Addr> {
        // Of the whole range the last address is for broadcasts, the one before it the host's.
        if self.fresh.saturating_add(1) < self.range.last().to_bits() {
            self.fresh += 1;
            return Some(Ipv4Addr::from_bits(self.fresh - 1));
        }
        self.released.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn part(prefix: u8, third: u8) -> Subnet {
        Subnet { address: Ipv4Addr::new(10, 244, third, 0), prefix }
    }

    fn pool(assigned: &[(&str, u8)]) -> Pool {
        let address = |last| Ipv4Addr::new(10, 244, 0, last);
        let assigned = assigned.iter().map(|(owner, it)| ((*owner).to_owned(), address(*it)));
        Pool::new(assigned.collect())
    }

    fn last_byte(address: Option<Ipv4Addr>) -> Option<u8> {
        address.map(|it| it.octets()[3])
    }

    #[test]
    fn uses_a_released_address_last() {
        let (mut pool, small) = (pool(&[]), part(29, 0));
        let first: Vec<_> = ["a", "b", "c"].map(|it| last_byte(pool.assign(it, small))).into();
        assert_eq!(first, [Some(2), Some(3), Some(4)]);
        pool.release("b");
        pool.release("a");
        let then = ["d", "e", "f", "g"].map(|it| last_byte(pool.assign(it, small)));
        assert_eq!(then, [Some(5), Some(3), Some(2), None]);
        assert_eq!(last_byte(pool.assign("c", small)), Some(4));
    }

    #[test]
    fn goes_on_after_the_last_assigned_one() {
        let mut pool = pool(&[("a", 3), ("b", 5)]);
        let then = ["b", "c", "d", "e"].map(|it| last_byte(pool.assign(it, part(29, 0))));
        assert_eq!(then, [Some(5), Some(2), Some(4), None]);
    }

    #[test]
    fn parts_have_addresses_of_their_own() {
        let mut pool = pool(&[("a", 3)]);
        let mut assign = |owner, third| pool.assign(owner, part(24, third)).unwrap().to_string();
        assert_eq!(assign("b", 0), "10.244.0.4");
        assert_eq!(assign("c", 1), "10.244.1.2");
        // Whoever has an address keeps it.
        assert_eq!(assign("a", 1), "10.244.0.3");
    }

    proptest! {
        #[test]
        fn never_gives_an_address_twice(steps: Vec<(bool, u8, bool)>) {
            let mut pool = pool(&[("7", 9)]);
            for (assign, owner, first) in steps {
                let owner = (owner % 20).to_string();
                if assign {
                    pool.assign(&owner, part(28, u8::from(first)));
                } else {
                    pool.release(&owner);
                }
                let mut taken: Vec<_> = pool.assigned.values().copied().collect();
                taken.extend(pool.parts.values().flat_map(|it| &it.released));
                let count = taken.len();
                taken.sort_unstable();
                taken.dedup();
                prop_assert_eq!(taken.len(), count);
                prop_assert!(taken.iter().all(|it| (2..15).contains(&it.octets()[3])));
            }
        }
    }
}
