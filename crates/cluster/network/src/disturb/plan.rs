//! What is to be done for disturbances: which packets are dropped, which are marked to come to the shaper,
//! and what it does with them. Pure.
//!
//! A packet's mark says whose it was, which the shaper could not see: the answer of a Service comes from the
//! Service's address. One bit is for anybody, and one for each set of senders.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{Disturbance, Impairment, line::Shape};
use crate::nft::{Faults, Marked};

/// Where our bits of the mark begin. Those below are nobody's of such packets, so no mark is like that of
/// packets that are taken here.
pub(super) const MARK_SHIFT: u32 = 16;
/// The bit of packets from anybody.
const ANYBODY: u16 = 1;
/// Sets of senders that can be told apart: a bit each.
const SENDERS_MAX: usize = 15;
/// Combinations of them: each is a rule that the kernel asks about every packet.
const CLASSES_MAX: usize = 64;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) faults: Faults,
    /// Our bits of the marks that there can be.
    pub(super) classes: BTreeSet<u16>,
    /// By receiver: what happens to packets whose mark has one of these bits.
    pub(super) effects: BTreeMap<Ipv4Addr, Vec<(u16, Shape)>>,
}

/// Too much is wanted at once.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMany {
    #[error(
        "{0} different sets of pods whose packets are shaped, at most {SENDERS_MAX} can be told apart"
    )]
    Senders(usize),
    #[error("{0} combinations of sets of pods whose packets are shaped, at most {CLASSES_MAX}")]
    Classes(usize),
}

impl Plan {
    pub(super) fn of(all: &[Disturbance]) -> Result<Self, TooMany> {
        let mut faults = Faults::default();
        let mut effects: BTreeMap<Ipv4Addr, Vec<(u16, Shape)>> = BTreeMap::new();
        let mut marked = Vec::new();
        for it in all {
            let Some(shape) = it.impairment.shape() else {
                match &it.from {
                    None => faults.isolated.extend(&it.to),
                    Some(from) => faults.parted.push((it.to.clone(), from.clone())),
                }
                continue;
            };
            let bit = senders(&mut marked, it.from.as_ref(), &it.to)?;
            for address in &it.to {
                effects.entry(*address).or_default().push((bit, shape));
            }
        }
        let classes = classes(&marked);
        if classes.len() > CLASSES_MAX {
            return Err(TooMany::Classes(classes.len()));
        }
        let to_nft = |(bit, from, to)| Marked { bits: u32::from(bit) << MARK_SHIFT, from, to };
        faults.marked = marked.into_iter().map(to_nft).collect();
        Ok(Self { faults, classes, effects })
    }
}

impl Impairment {
    /// How packets are shaped; none: they are dropped.
    fn shape(self) -> Option<Shape> {
        match self {
            Self::Cut => None,
            Self::Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second } => {
                Some(Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second })
            }
        }
    }
}

/// A bit, the senders for which it stands, and where what they send is shaped.
type Group = (u16, Option<BTreeSet<Ipv4Addr>>, BTreeSet<Ipv4Addr>);

/// The bit of these senders, who are also to be shaped where they send to `to`.
fn senders(
    groups: &mut Vec<Group>,
    from: Option<&BTreeSet<Ipv4Addr>>,
    to: &BTreeSet<Ipv4Addr>,
) -> Result<u16, TooMany> {
    if let Some((bit, _, known)) = groups.iter_mut().find(|it| it.1.as_ref() == from) {
        known.extend(to);
        return Ok(*bit);
    }
    let count = groups.iter().filter(|it| it.1.is_some()).count();
    let bit = match from {
        None => ANYBODY,
        Some(_) if count == SENDERS_MAX => return Err(TooMany::Senders(count + 1)),
        Some(_) => ANYBODY << (count + 1),
    };
    groups.push((bit, from.cloned(), to.clone()));
    Ok(bit)
}

/// The bits that a packet can have together.
fn classes(groups: &[Group]) -> BTreeSet<u16> {
    let bits_of = |select: &dyn Fn(&Group) -> bool| {
        groups.iter().filter(|it| select(it)).fold(0, |bits, it| bits | it.0)
    };
    let senders = groups.iter().filter_map(|it| it.1.as_ref()).flatten();
    let senders: BTreeSet<u16> = senders
        .map(|sender| bits_of(&|it| it.1.as_ref().is_some_and(|from| from.contains(sender))))
        .chain([0])
        .collect();
    let receivers = groups.iter().flat_map(|it| &it.2);
    let receivers: BTreeSet<u16> =
        receivers.map(|receiver| bits_of(&|it| it.2.contains(receiver))).collect();
    let pairs =
        receivers.iter().flat_map(|to| senders.iter().map(move |from| to & (from | ANYBODY)));
    pairs.filter(|it| *it != 0).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DELAY: Shape = Shape {
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        bytes_per_second: None,
    };

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, last)
    }

    fn addresses(last: &[u8]) -> BTreeSet<Ipv4Addr> {
        last.iter().map(|it| address(*it)).collect()
    }

    fn shape(to: &[u8], from: Option<&[u8]>) -> Disturbance {
        let Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second } = DELAY;
        let impairment =
            Impairment::Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second };
        Disturbance { to: addresses(to), from: from.map(addresses), impairment }
    }

    #[test]
    fn cuts_come_to_no_shaper() {
        let impairment = Impairment::Cut;
        let one = Disturbance { impairment, ..shape(&[2], None) };
        let other = Disturbance { impairment, ..shape(&[3], Some(&[4])) };
        let plan = Plan::of(&[one, other]).unwrap();
        let parted = vec![(addresses(&[3]), addresses(&[4]))];
        let faults = Faults { isolated: addresses(&[2]), parted, marked: Vec::new() };
        assert_eq!(plan, Plan { faults, ..Plan::default() });
    }

    #[test]
    fn marks_tell_senders_apart() {
        let all = [
            shape(&[2], None),
            shape(&[2, 3], Some(&[8])),
            shape(&[3], None),
            shape(&[4], Some(&[8])),
            shape(&[4], Some(&[8, 9])),
        ];
        let plan = Plan::of(&all).unwrap();
        let marked = [
            Marked { bits: 1 << 16, from: None, to: addresses(&[2, 3]) },
            Marked { bits: 2 << 16, from: Some(addresses(&[8])), to: addresses(&[2, 3, 4]) },
            Marked { bits: 4 << 16, from: Some(addresses(&[8, 9])), to: addresses(&[4]) },
        ];
        assert_eq!(plan.faults.marked, marked);
        // To 2 and 3 from anybody and from 8; to 4 from 8 and from 9.
        assert_eq!(plan.classes, BTreeSet::from([1, 3, 6, 4]));
        assert_eq!(plan.effects[&address(2)], [(1, DELAY), (2, DELAY)]);
        assert_eq!(plan.effects[&address(4)], [(2, DELAY), (4, DELAY)]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let mut all: Vec<_> = (0..15).map(|it| shape(&[100 + it], Some(&[it]))).collect();
        all.push(shape(&[100], None));
        assert_eq!(Plan::of(&all).unwrap().classes.len(), 16);
        all.push(shape(&[2], Some(&[77])));
        assert_eq!(Plan::of(&all), Err(TooMany::Senders(16)));
        // Each sender is in other sets.
        let members = |bit: u8| -> Vec<u8> { (0..128).filter(|it| it >> bit & 1 == 1).collect() };
        let all: Vec<_> = (0..7).map(|bit| shape(&[200], Some(&members(bit)))).collect();
        assert_eq!(Plan::of(&all), Err(TooMany::Classes(127)));
    }
}
