//! What has been sent and is not answered yet: found by sequence, and in the order of its deadlines.
//!
//! Messages that were sent together stay together until they are answered, so that a million of them
//! a second cost by the hundreds.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::ClientId;
use crate::{
    log::Run,
    message::{Nanos, Sequence},
};

/// Neighbours that a consumer was sent together.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) messages: Run,
    pub(super) attempts: u16,
    pub(super) client: ClientId,
    /// When they were sent: a consumer may not keep them for longer than the greatest timeout.
    pub(super) at: Nanos,
    /// When they are given to somebody else.
    pub(super) deadline: Nanos,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// By the first of each. None is empty, none overlap.
    sent: BTreeMap<Sequence, Sent>,
    /// Of each of them, with its first.
    deadlines: BTreeSet<(Nanos, Sequence)>,
    count: usize,
}

impl InFlight {
    /// How many messages there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The first message in order of the log.
    pub(super) fn first(&self) -> Option<Sequence> {
        self.sent.keys().next().copied()
    }

    /// Takes note of what is being sent. None of it is in flight already.
    pub(super) fn insert(&mut self, sent: Sent) {
        let first = sent.messages.first();
        if !sent.messages.is_empty() {
            self.count += sent.messages.len();
            self.deadlines.insert((sent.deadline, first));
            self.sent.insert(first, sent);
        }
    }

    /// What a message was sent with.
    pub(super) fn get(&self, sequence: Sequence) -> Option<&Sent> {
        let (_, sent) = self.sent.range(..=sequence).next_back()?;
        (sequence < sent.messages.end()).then_some(sent)
    }

    /// Takes out the messages of a range which were sent together with its first, that included.
    pub(super) fn remove(&mut self, range: &Range<Sequence>) -> Option<Sent> {
        let first = self.get(range.start)?.messages.first();
        let mut sent = self.take(first)?;
        let end = range.end.min(sent.messages.end());
        if first < range.start {
            let mut before = sent.clone();
            before.messages.truncate(range.start);
            self.insert_rest(before);
            sent.messages.skip_to(range.start);
        }
        if end < sent.messages.end() {
            let mut behind = sent.clone();
            behind.messages.skip_to(end);
            self.insert_rest(behind);
            sent.messages.truncate(end);
        }
        Some(sent)
    }

    /// Keeps what is left of messages that were sent together. The last one, which a consumer may keep
    /// for long, does not keep all of them in memory.
    fn insert_rest(&mut self, mut sent: Sent) {
        if sent.messages.len() == 1
            && let Some(alone) = sent.messages.alone()
        {
            sent.messages = alone;
        }
        self.insert(sent);
    }

    /// Gives a message more time.
    pub(super) fn postpone(&mut self, sequence: Sequence, deadline: Nanos) {
        if let Some(sent) = self.remove(&(sequence..sequence.after(1))) {
            self.insert(Sent { deadline, ..sent });
        }
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|it| it.0)
    }

    /// Takes out messages whose deadline has passed.
    pub(super) fn expired(&mut self, now: Nanos) -> Option<Sent> {
        let (_, first) = *self.deadlines.first().filter(|it| it.0 <= now)?;
        self.take(first)
    }

    /// Takes out what a consumer has.
    pub(super) fn remove_all_of(&mut self, client: ClientId) -> Vec<Sent> {
        let its = self.sent.iter().filter(|it| it.1.client == client).map(|it| *it.0);
        let its: Vec<Sequence> = its.collect();
        its.into_iter().filter_map(|it| self.take(it)).collect()
    }

    fn take(&mut self, first: Sequence) -> Option<Sent> {
        let sent = self.sent.remove(&first)?;
        self.deadlines.remove(&(sent.deadline, first));
        self.count -= sent.messages.len();
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::message::NewMessage;

    fn sent(range: Range<u64>, client: u64, deadline: i64) -> Sent {
        let message = NewMessage::new(Bytes::new());
        let count = usize::try_from(range.end - range.start).unwrap();
        let messages = Run::of(Sequence(range.start), &vec![message; count]);
        let (client, deadline) = (ClientId(client), Nanos(deadline));
        Sent { messages, attempts: 1, client, at: Nanos(0), deadline }
    }

    fn sequences(sent: &Sent) -> impl Iterator<Item = u64> {
        sent.messages.messages().map(|it| it.sequence.0)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Range<u64>, u64, i64),
        Remove(Range<u64>),
        Postpone(u64, i64),
        Expire(i64),
        Leave(u64),
    }

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0..30u64, 1..10u64).prop_map(|(start, count)| start..start + count)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (range(), 0..3u64, 0..50i64).prop_map(|(it, client, at)| Step::Insert(it, client, at)),
            3 => range().prop_map(Step::Remove),
            1 => (0..40u64, 0..50i64).prop_map(|(it, at)| Step::Postpone(it, at)),
            1 => (0..50i64).prop_map(Step::Expire),
            1 => (0..3u64).prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn is_a_map_in_the_order_of_deadlines(steps in prop::collection::vec(step(), 0..100)) {
            let mut real = InFlight::default();
            let mut model: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(range, client, at) => {
                        if range.clone().all(|it| !model.contains_key(&it)) {
                            model.extend(range.clone().map(|it| (it, (client, at))));
                            real.insert(sent(range, client, at));
                        }
                    }
                    Step::Remove(range) => {
                        let mut all = Sequence(range.start)..Sequence(range.end);
                        while !all.is_empty() {
                            let removed = real.remove(&all);
                            let count = removed.as_ref().map_or(1, |it| it.messages.len() as u64);
                            for it in all.start.0..all.start.0 + count {
                                let was = removed.as_ref().map(|it| (it.client.0, it.deadline.0));
                                prop_assert_eq!(model.remove(&it), was);
                            }
                            all.start = all.start.after(count);
                        }
                        prop_assert!(all.start.0 <= range.end.max(range.start), "more than the range");
                    }
                    Step::Postpone(it, at) => {
                        real.postpone(Sequence(it), Nanos(at));
                        model.entry(it).and_modify(|it| it.1 = at);
                    }
                    Step::Expire(now) => {
                        let earliest = model.values().map(|it| it.1).min().filter(|it| *it <= now);
                        let expired = real.expired(Nanos(now));
                        prop_assert_eq!(expired.as_ref().map(|it| it.deadline.0), earliest);
                        for it in expired.iter().flat_map(sequences) {
                            prop_assert_eq!(model.remove(&it).map(|it| it.1), earliest);
                        }
                    }
                    Step::Leave(client) => {
                        for it in real.remove_all_of(ClientId(client)).iter().flat_map(sequences) {
                            prop_assert_eq!(model.remove(&it).map(|it| it.0), Some(client));
                        }
                        prop_assert!(model.values().all(|it| it.0 != client));
                    }
                }
                for it in 0..40 {
                    let found = real.get(Sequence(it)).map(|it| (it.client.0, it.deadline.0));
                    prop_assert_eq!(found, model.get(&it).copied());
                }
                prop_assert_eq!(real.len(), model.len());
                prop_assert_eq!(real.sent.len(), real.deadlines.len());
                prop_assert_eq!(real.first().map(|it| it.0), model.keys().next().copied());
                let earliest = model.values().map(|it| it.1).min();
                prop_assert_eq!(real.deadline().map(|it| it.0), earliest);
            }
        }
    }
}
