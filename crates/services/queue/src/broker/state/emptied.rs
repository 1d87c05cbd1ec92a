//! What a channel leaves out because its topic was emptied before the channel was given it.
//!
//! It lies ahead of the cursor, behind messages that the channel still has to deliver. When the
//! cursor comes to it, it is passed over as what is damaged is.

use std::ops::Range;

use super::State;
use crate::message::Sequence;

/// How many ranges a channel remembers. A new one comes only when its topic was emptied, went on,
/// gave the channel something, was paused and emptied again, all ahead of a consumer that never
/// came so far: nobody does that by hand a hundred times.
const EMPTIED_MAX: usize = 100;

impl State {
    /// Whether the topic may be emptied once more, from there on.
    pub(in crate::broker) fn may_leave_out(&self, from: Sequence) -> bool {
        self.emptied.len() < EMPTIED_MAX || self.emptied.back().is_some_and(|it| it.end >= from)
    }

    /// Leaves out what the topic has from `from` on, up to `end`, as far as it was not given to the
    /// channel already; what that is.
    pub(in crate::broker) fn leave_out(
        &mut self,
        from: Sequence,
        end: Sequence,
    ) -> Option<Range<Sequence>> {
        self.see(from);
        // It may have been placed beyond what the topic has given out.
        let start = self.routed.max(self.cursor);
        if end <= start {
            return None;
        }
        match self.emptied.back_mut().filter(|it| it.end == start) {
            Some(last) => last.end = end,
            None => self.emptied.push_back(start..end),
        }
        self.routed = end;
        self.read_past_emptied();
        Some(start..end)
    }

    /// As [`Self::leave_out`], after a restart.
    pub(in crate::broker) fn restore_emptied(&mut self, emptied: Vec<Range<Sequence>>) {
        self.emptied = emptied.into();
        self.read_past_emptied();
    }

    /// Where to read up to: what is behind that is left out, or not to be seen yet.
    pub(super) fn readable(&self) -> Sequence {
        let next = self.emptied.iter().find(|it| it.end > self.read);
        next.map_or(self.routed, |it| it.start.min(self.routed))
    }

    /// Reads on behind what is left out.
    pub(super) fn read_past_emptied(&mut self) {
        let past = |read: Sequence, it: &Range<Sequence>| {
            if it.start <= read { it.end.max(read) } else { read }
        };
        self.read = self.emptied.iter().fold(self.read, past);
        if !self.emptied.is_empty() && self.window.len() == 0 {
            self.pass_over(self.read);
        }
    }

    /// Forgets what the cursor has passed.
    pub(super) fn forget_emptied(&mut self) {
        while self.emptied.front().is_some_and(|it| it.end <= self.cursor) {
            self.emptied.pop_front();
        }
    }

    /// How many messages are ahead of the cursor.
    pub(super) fn ahead(&self) -> u64 {
        let emptied: u64 = self.emptied.iter().map(|it| it.start.until(it.end)).sum();
        self.cursor.until(self.routed).saturating_sub(emptied)
    }

    /// The place behind so many messages that are ahead of the cursor.
    pub(super) fn ahead_of_cursor(&self, mut count: u64) -> Sequence {
        let mut place = self.cursor;
        for it in &self.emptied {
            let before = place.until(it.start);
            if count < before {
                break;
            }
            count -= before;
            place = it.end;
        }
        place.after(count)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        broker::{ChannelOptions, ClientId, state::Config},
        log::Run,
        message::{Nanos, NewMessage, NodeId},
    };

    const CLIENT: ClientId = ClientId(1);

    fn channel(backlog_max: Option<u64>) -> State {
        let config = Config {
            node: NodeId::new(1).unwrap(),
            options: ChannelOptions::default(),
            timeout_max: Duration::from_mins(1),
            backlog_max,
        };
        let mut state = State::new(config, Sequence(0));
        state.subscribe(CLIENT, Duration::from_mins(1), None);
        state
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The topic gives the channel so many.
        Give(u64),
        /// It is emptied of so many.
        Empty(u64),
        /// It has read so many of what the channel wants, or noticed that they are damaged.
        Read(u64),
        Damaged(u64),
        /// The consumer takes so many.
        Take(u32),
        /// Everything of the channel is finished.
        Finish,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u64).prop_map(Step::Give),
            3 => (0..6_u64).prop_map(Step::Empty),
            4 => (1..8_u64).prop_map(Step::Read),
            1 => (1..8_u64).prop_map(Step::Damaged),
            4 => (1..6_u32).prop_map(Step::Take),
            1 => Just(Step::Finish),
        ]
    }

    /// A channel beside what it should have: the messages that it was given, not emptied of, and
    /// has not delivered.
    struct Beside {
        state: State,
        owed: BTreeSet<u64>,
        /// Among those, what cannot be read.
        damaged: BTreeSet<u64>,
        end: u64,
        backlog_max: Option<u64>,
    }

    impl Beside {
        fn step(&mut self, step: Step) {
            match step {
                Step::Give(count) => {
                    self.owed.extend(self.end..self.end + count);
                    self.end += count;
                    self.state.see(Sequence(self.end));
                    let max = self.backlog_max.map_or(usize::MAX, |it| it.try_into().unwrap());
                    while self.owed.len() > max {
                        self.owed.pop_first();
                    }
                }
                Step::Empty(count) => {
                    let from = Sequence(self.end);
                    self.end += count;
                    assert!(self.state.may_leave_out(from));
                    self.state.leave_out(from, Sequence(self.end));
                }
                Step::Read(most) => {
                    if let Some((from, limit)) = self.state.wants() {
                        let count = limit.messages.min(most.try_into().unwrap());
                        let message = NewMessage::new(Bytes::new());
                        self.state.admit(from, vec![Run::of(from, &vec![message; count])]);
                    }
                }
                Step::Damaged(most) => {
                    if let Some((from, _)) = self.state.wants() {
                        // Damage may reach over what is left out, and no further than the log.
                        let end = from.after(most).min(Sequence(self.end));
                        self.damaged.extend(from.0..end.0);
                        self.state.skip(from, end, 0);
                    }
                }
                Step::Take(most) => {
                    let in_flight = self.state.client_in_flight(CLIENT);
                    self.state.ready(CLIENT, in_flight + most);
                    let mut taken = Vec::new();
                    self.state.take(CLIENT, Nanos(0), usize::MAX, &mut taken);
                    for it in taken.iter().flat_map(|it| it.0.messages()) {
                        let it = it.sequence.0;
                        assert!(self.owed.remove(&it), "{it} is not owed: {:?}", self.owed);
                    }
                }
                Step::Finish => {
                    self.state.empty();
                    self.owed.clear();
                }
            }
        }

        fn invariants(&self) {
            let state = &self.state;
            let ranges: Vec<_> = state.emptied.iter().cloned().collect();
            assert!(ranges.iter().all(|it| it.start < it.end && state.cursor < it.end));
            assert!(ranges.windows(2).all(|it| it[0].end < it[1].start), "{ranges:?}");
            let ahead = |it: &&u64| state.cursor <= Sequence(**it);
            let told = usize::try_from(state.ahead()).unwrap();
            assert_eq!(told, self.owed.iter().filter(ahead).count());
        }
    }

    proptest! {
        /// Whatever is emptied in between, exactly what was given is delivered, and counted.
        #[test]
        fn what_was_given_is_delivered_and_nothing_else(
            steps in prop::collection::vec(step(), 0..60),
            backlog_max in prop::option::of(1..12_u64),
        ) {
            let state = channel(backlog_max);
            let (owed, damaged) = (BTreeSet::new(), BTreeSet::new());
            let mut beside = Beside { state, owed, damaged, end: 0, backlog_max };
            for step in steps {
                beside.step(step);
                beside.invariants();
            }
            for _ in 0..100 {
                beside.step(Step::Read(u64::MAX));
                beside.step(Step::Take(100));
                beside.invariants();
            }
            let left: Vec<_> = beside.owed.difference(&beside.damaged).collect();
            prop_assert!(left.is_empty(), "{left:?} are not delivered");
            prop_assert_eq!(beside.state.unfinished_first(), beside.first_in_flight());
        }
    }

    impl Beside {
        fn first_in_flight(&self) -> Sequence {
            let sent = self.state.in_flight.first();
            sent.unwrap_or(Sequence(self.end))
        }
    }

    #[test]
    fn it_is_not_done_for_ever() {
        let mut state = channel(None);
        for at in 0..EMPTIED_MAX as u64 {
            assert!(state.may_leave_out(Sequence(2 * at + 1)));
            state.leave_out(Sequence(2 * at + 1), Sequence(2 * at + 2));
        }
        let end = 2 * EMPTIED_MAX as u64;
        assert!(state.may_leave_out(Sequence(end)), "what follows at once is no further range");
        assert!(!state.may_leave_out(Sequence(end + 1)));
        state.empty();
        assert!(state.may_leave_out(Sequence(end + 1)));
    }
}
