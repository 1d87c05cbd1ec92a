//! What has been sent and is not answered yet: found by sequence, and in the order of its deadlines.
//!
//! Both in constant time: a consumer may finish a million messages a second. The deadlines are a
//! list through the slots; as most consumers have the same timeout, a new one belongs at its end.
//! Neighbours are sent and finished together, so that their places stand side by side, in pages.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    num::NonZeroUsize,
};

use super::ClientId;
use crate::message::{Message, Nanos, Sequence};

/// One message that a consumer has.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) attempts: u16,
    pub(super) client: ClientId,
    /// When it was sent: a consumer may not keep it for longer than the greatest timeout.
    pub(super) at: Nanos,
    /// When it is given to somebody else.
    pub(super) deadline: Nanos,
}

/// A place in the list of deadlines.
#[derive(Debug)]
struct Slot {
    sent: Option<Sent>,
    earlier: Option<usize>,
    later: Option<usize>,
}

/// How many sequences a page has. A message far from all others pays for a page alone: 520 bytes.
const PAGE: usize = 64;

/// The slots of neighbouring messages. None is empty.
#[derive(Debug)]
struct Page {
    used: usize,
    places: [Option<NonZeroUsize>; PAGE],
}

/// Which page a sequence is in, and where.
fn page_of(sequence: Sequence) -> (u64, usize) {
    (sequence.0 / PAGE as u64, usize::try_from(sequence.0 % PAGE as u64).unwrap_or(0))
}

/// By sequence: which slot.
#[derive(Debug, Default)]
struct Places {
    pages: HashMap<u64, Box<Page>, BuildHasherDefault<SequenceHasher>>,
    count: usize,
}

impl Places {
    fn get(&self, sequence: Sequence) -> Option<usize> {
        let (page, at) = page_of(sequence);
        let place = self.pages.get(&page)?.places.get(at)?;
        place.map(|it| it.get() - 1)
    }

    fn insert(&mut self, sequence: Sequence, slot: usize) {
        let (page, at) = page_of(sequence);
        let empty = || Box::new(Page { used: 0, places: [None; PAGE] });
        let page = self.pages.entry(page).or_insert_with(empty);
        if let Some(place) = page.places.get_mut(at)
            && place.replace(NonZeroUsize::MIN.saturating_add(slot)).is_none()
        {
            page.used += 1;
            self.count += 1;
        }
    }

    fn remove(&mut self, sequence: Sequence) -> Option<usize> {
        let (number, at) = page_of(sequence);
        let page = self.pages.get_mut(&number)?;
        let place = page.places.get_mut(at)?.take()?;
        page.used -= 1;
        self.count -= 1;
        if page.used == 0 {
            self.pages.remove(&number);
        }
        Some(place.get() - 1)
    }
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    places: Places,
    slots: Vec<Slot>,
    free: Vec<usize>,
    first: Option<usize>,
    last: Option<usize>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.places.count
    }

    /// Takes note of a message that is being sent. It is not in flight already.
    pub(super) fn insert(&mut self, sent: Sent) {
        let sequence = sent.message.sequence;
        let deadline = sent.deadline;
        let slot = Slot { sent: Some(sent), earlier: None, later: None };
        let place = if let Some(place) = self.free.pop() {
            if let Some(it) = self.slots.get_mut(place) {
                *it = slot;
            }
            place
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        self.places.insert(sequence, place);
        self.link(place, deadline);
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Sent> {
        let place = self.places.get(sequence)?;
        self.slots.get(place)?.sent.as_ref()
    }

    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<Sent> {
        let place = self.places.remove(sequence)?;
        self.unlink(place);
        self.free.push(place);
        self.slots.get_mut(place)?.sent.take()
    }

    /// Gives a message more time.
    pub(super) fn postpone(&mut self, sequence: Sequence, deadline: Nanos) {
        let Some(place) = self.places.get(sequence) else { return };
        self.unlink(place);
        if let Some(sent) = self.slots.get_mut(place).and_then(|it| it.sent.as_mut()) {
            sent.deadline = deadline;
        }
        self.link(place, deadline);
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.at(self.first?).map(|it| it.deadline)
    }

    /// Takes one message whose deadline has passed.
    pub(super) fn expired(&mut self, now: Nanos) -> Option<Sent> {
        let first = self.at(self.first?)?;
        let (deadline, sequence) = (first.deadline, first.message.sequence);
        if deadline <= now { self.remove(sequence) } else { None }
    }

    /// All of them, in the order of their deadlines.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sent> {
        let after = |place: &usize| self.slots.get(*place).and_then(|it| it.later);
        std::iter::successors(self.first, after).filter_map(|place| self.at(place))
    }

    fn at(&self, place: usize) -> Option<&Sent> {
        self.slots.get(place)?.sent.as_ref()
    }

    /// Puts a slot before the first later deadline, looking from the end.
    fn link(&mut self, place: usize, deadline: Nanos) {
        let mut before = self.last;
        while let Some(it) = before {
            if self.at(it).is_none_or(|sent| sent.deadline <= deadline) {
                break;
            }
            before = self.slots.get(it).and_then(|slot| slot.earlier);
        }
        let after = match before {
            Some(it) => self.slots.get(it).and_then(|slot| slot.later),
            None => self.first,
        };
        if let Some(slot) = self.slots.get_mut(place) {
            (slot.earlier, slot.later) = (before, after);
        }
        self.join(before, Some(place));
        self.join(Some(place), after);
    }

    fn unlink(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let (earlier, later) = (slot.earlier.take(), slot.later.take());
        self.join(earlier, later);
    }

    /// Makes two places neighbours; `None` is the end on that side.
    fn join(&mut self, earlier: Option<usize>, later: Option<usize>) {
        match earlier.and_then(|it| self.slots.get_mut(it)) {
            Some(slot) => slot.later = later,
            None => self.first = later,
        }
        match later.and_then(|it| self.slots.get_mut(it)) {
            Some(slot) => slot.earlier = earlier,
            None => self.last = earlier,
        }
    }
}

/// Pages are consecutive: a multiplication spreads them well enough, and nobody outside chooses
/// them.
#[derive(Debug, Default)]
pub(super) struct SequenceHasher(u64);

impl Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's fraction; the high bits choose the group, so they must be mixed too.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn sent(sequence: u64, deadline: i64) -> Sent {
        let message = Message {
            sequence: Sequence(sequence),
            timestamp: Nanos(0),
            due: None,
            key: None,
            body: Bytes::new(),
        };
        let client = ClientId(1);
        Sent { message, attempts: 1, client, at: Nanos(0), deadline: Nanos(deadline) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, i64),
        Remove(u64),
        Postpone(u64, i64),
        Expire(i64),
    }

    /// In several pages, and some neighbours.
    fn sequence() -> impl Strategy<Value = u64> {
        prop_oneof![0..10u64, (0..10u64).prop_map(|it| it * PAGE as u64 / 3)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (sequence(), 0..50i64).prop_map(|(it, at)| Step::Insert(it, at)),
            sequence().prop_map(Step::Remove),
            (sequence(), 0..50i64).prop_map(|(it, at)| Step::Postpone(it, at)),
            (0..50i64).prop_map(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn is_a_map_in_the_order_of_deadlines(steps in prop::collection::vec(step(), 0..200)) {
            let mut real = InFlight::default();
            let mut model: BTreeMap<u64, i64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(it, at) => {
                        if let std::collections::btree_map::Entry::Vacant(entry) = model.entry(it) {
                            entry.insert(at);
                            real.insert(sent(it, at));
                        }
                    }
                    Step::Remove(it) => {
                        let removed = real.remove(Sequence(it)).map(|it| it.deadline.0);
                        prop_assert_eq!(removed, model.remove(&it));
                    }
                    Step::Postpone(it, at) => {
                        real.postpone(Sequence(it), Nanos(at));
                        model.entry(it).and_modify(|it| *it = at);
                    }
                    Step::Expire(now) => {
                        let expired = real.expired(Nanos(now));
                        let earliest = model.values().min().copied().filter(|it| *it <= now);
                        prop_assert_eq!(expired.as_ref().map(|it| it.deadline.0), earliest);
                        if let Some(it) = expired {
                            model.remove(&it.message.sequence.0);
                        }
                    }
                }
                let mut deadlines: Vec<i64> = model.values().copied().collect();
                deadlines.sort_unstable();
                prop_assert_eq!(real.iter().map(|it| it.deadline.0).collect::<Vec<_>>(), deadlines);
                prop_assert_eq!(real.len(), model.len());
                prop_assert!(real.places.pages.values().all(|it| it.used > 0), "an empty page");
                prop_assert_eq!(real.deadline().map(|it| it.0), model.values().min().copied());
            }
        }
    }
}
