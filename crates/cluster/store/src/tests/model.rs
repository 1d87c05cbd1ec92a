//! The store against a model: random writes on a disk that fails, fills up and crashes.
//!
//! The model is the list of states, one for each revision. Whatever happens, the store must show
//! one of them: not older than the last acknowledged write, not newer than the last attempted one.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*};

use super::disk::Disk;
use crate::{
    Config, Durability, Entry, EventKind, Expect, OpenError, Range, Revision, Store, WriteError,
    commit::Ticket, limits::Limits,
};

/// Small, so that a few writes fill files and cause compaction.
const LIMITS: Limits = Limits {
    segment_bytes: 1 << 10,
    reserve_bytes: 512,
    compact_bytes: 3 << 10,
    file_cost_bytes: 100,
    buffer_kept_bytes: 1 << 10,
    append_time_quick: Duration::MAX,
    pending_bytes: 1 << 20,
    compact_entries: 1,
    compact_inline: true,
};

pub(super) fn config(durability: Durability) -> Config {
    let dir = PathBuf::from("/store");
    Config { dir, durability, history_events_max: 20, history_bytes_max: 4 << 10 }
}

pub(super) fn open(disk: &Disk, durability: Durability) -> Result<Store, OpenError> {
    Store::open_with(&config(durability), LIMITS, disk.backend())
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes that are flushed together.
    Batch(Vec<Write>),
    /// The process ends and another one starts.
    Reopen,
    /// The same, but the machine loses power between.
    Crash,
    /// The disk fails once, after so many calls.
    Fail(usize),
    /// The disk has room for so much more, or for everything.
    Room(Option<usize>),
}

#[derive(Clone, Debug)]
pub(super) struct Write {
    key: u8,
    /// None deletes.
    size: Option<usize>,
    expect: Expectation,
}

#[derive(Clone, Copy, Debug)]
enum Expectation {
    Any,
    Absent,
    Current,
    Stale,
}

pub(super) fn write() -> impl Strategy<Value = Write> {
    let expect = prop_oneof![
        4 => Just(Expectation::Any),
        1 => Just(Expectation::Absent),
        2 => Just(Expectation::Current),
        1 => Just(Expectation::Stale),
    ];
    let size = prop_oneof![3 => (0..300_usize).prop_map(Some), 1 => Just(None)];
    (0..6_u8, size, expect).prop_map(|(key, size, expect)| Write { key, size, expect })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(write(), 1..6).prop_map(Step::Batch),
        1 => Just(Step::Reopen),
        2 => Just(Step::Crash),
        2 => (0..12_usize).prop_map(Step::Fail),
        1 => prop_oneof![Just(None), (0..2_000_usize).prop_map(Some)].prop_map(Step::Room),
    ]
}

type State = BTreeMap<Bytes, Entry>;

/// What should be.
#[derive(Debug)]
struct Model {
    /// The state at each revision, as far as it is not certainly gone.
    states: BTreeMap<Revision, State>,
    /// What has ever been acknowledged.
    acknowledged: Revision,
}

impl Model {
    fn attempted(&self) -> (Revision, &State) {
        let (revision, state) = self.states.last_key_value().unwrap();
        (*revision, state)
    }

    /// Forgets what came after a revision.
    fn cut(&mut self, revision: Revision) {
        self.states.retain(|it, _| *it <= revision);
    }

    fn shown(&self) -> &State {
        &self.states[&self.acknowledged]
    }
}

/// A model, a disk, and a store on it.
struct World {
    model: Model,
    disk: Disk,
    durability: Durability,
    store: Option<Store>,
}

impl World {
    fn new(seed: u64, durability: Durability) -> Self {
        let states = BTreeMap::from([(Revision::ZERO, State::new())]);
        let model = Model { states, acknowledged: Revision::ZERO };
        let disk = Disk::new(seed);
        let store = Some(open(&disk, durability).unwrap());
        let mut world = Self { model, disk, durability, store };
        world.check();
        world
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Batch(writes) => self.batch(writes),
            Step::Reopen => self.reopen(false),
            Step::Crash => self.reopen(true),
            Step::Fail(calls) => self.disk.fail_after(Some(*calls)),
            Step::Room(bytes) => self.disk.leave_room(*bytes),
        }
        self.check();
    }

    fn batch(&mut self, writes: &[Write]) {
        let store = self.store.clone().unwrap();
        let mut tickets = Vec::new();
        let mut lead = None;
        for write in writes {
            let Some((mut ticket, entry)) = self.submit(&store, write) else { continue };
            lead = lead.or(ticket.log.take());
            tickets.push((ticket, entry));
        }
        let Some(log) = lead else { return };
        store.shared().commit(log);
        let mut answers = tickets.into_iter().map(|(mut it, entry)| (it.done.try_recv(), entry));
        let (first, _) = answers.next().unwrap();
        for (answer, _) in answers {
            assert_eq!(answer.unwrap().is_ok(), first.as_ref().unwrap().is_ok());
        }
        match first.unwrap() {
            Ok(()) => self.model.acknowledged = self.model.attempted().0,
            Err(WriteError::NoSpace(_)) => self.model.cut(self.model.acknowledged),
            Err(WriteError::Failed(_)) => {
                let again = store.put(Bytes::new(), Expect::Any, |_| Bytes::new()).now_or_never();
                assert!(matches!(again.unwrap(), Err(WriteError::Failed(_))));
                drop(store);
                // Nothing of it is seen before the store is opened anew.
                self.check();
                self.reopen(self.disk.toss());
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Queues a write in the store and does it in the model, if both agree that it may happen.
    fn submit(&mut self, store: &Store, write: &Write) -> Option<(Ticket, Entry)> {
        let key = Bytes::from(vec![b'k', write.key]);
        let (last, state) = self.model.attempted();
        let current = state.get(&key).cloned();
        let modified = current.as_ref().map(|it| it.modified);
        let expect = match write.expect {
            Expectation::Any => Expect::Any,
            Expectation::Absent => Expect::Absent,
            Expectation::Current => modified.map_or(Expect::Absent, Expect::Modified),
            Expectation::Stale => Expect::Modified(last.next()),
        };
        let value =
            |revision: Revision, size| Bytes::from(vec![revision.get().to_le_bytes()[0]; size]);
        let submitted = match write.size {
            Some(size) => store.submit_put(key.clone(), expect, |it| value(it, size)),
            None => store.submit_delete(&key, expect, |it, _| value(it, 3)),
        };
        if !expect.holds(current.as_ref()) || (current.is_none() && write.size.is_none()) {
            let conflict =
                matches!(submitted, Err(WriteError::Conflict { current: it }) if it == current);
            assert!(conflict, "expected a conflict with {current:?}");
            return None;
        }
        let (ticket, entry) = submitted.unwrap();
        assert!(entry.modified > last && entry.modified > self.model.acknowledged);
        let mut state = state.clone();
        match write.size {
            Some(_) => state.insert(key, entry.clone()),
            None => state.remove(&key),
        };
        self.model.states.insert(entry.modified, state);
        Some((ticket, entry))
    }

    fn reopen(&mut self, crash: bool) {
        self.store = None;
        if crash {
            self.disk = self.disk.crashed();
        }
        self.disk.leave_room(None);
        // Opening may meet the injected failure: then it changes nothing that matters, and the
        // next start, perhaps after another crash, goes well.
        let mut opened = open(&self.disk, self.durability);
        if let Err(error) = &opened {
            assert!(matches!(error, OpenError::Io { .. }), "{error}");
            if crash {
                self.disk = self.disk.crashed();
            }
            self.disk.fail_after(None);
            opened = open(&self.disk, self.durability);
        }
        let store = opened.unwrap();
        let shown = self.shown_by(&store, crash);
        let state = self.model.states[&shown].clone();
        assert_eq!(entries(&store), state);
        assert!(store.revision() >= self.model.acknowledged, "a revision may come back");
        self.model.cut(shown);
        self.model.acknowledged = store.revision();
        self.model.states.insert(store.revision(), state);
        self.store = Some(store);
    }

    /// The revision of the model whose state a store shows that was just opened.
    fn shown_by(&self, store: &Store, crash: bool) -> Revision {
        if self.durability == Durability::Disk {
            let revision = store.revision();
            assert!(revision >= self.model.acknowledged, "an acknowledged write is lost");
            return revision;
        }
        // Revisions were passed over: look for the state.
        let shown = entries(store);
        let states = self.model.states.iter().rev();
        let mut found = states.filter(|(_, it)| **it == shown).map(|(revision, _)| *revision);
        let revision = found.next().expect("a state that has been");
        assert!(crash || revision >= self.model.acknowledged, "an acknowledged write is lost");
        revision
    }

    /// The store shows what is acknowledged and no more, in every way it can be asked.
    fn check(&mut self) {
        let Some(store) = &self.store else { return };
        assert_eq!(store.revision(), self.model.acknowledged);
        let state = self.model.shown();
        assert_eq!(entries(store), *state);
        for key in 0..6 {
            let key = [b'k', key];
            assert_eq!(store.get(&key).as_ref(), state.get(&key[..]));
        }
        self.check_history(store);
    }

    /// Going back through the events leads to the states that were.
    fn check_history(&self, store: &Store) {
        let oldest = match store.watch(b"", Revision::ZERO) {
            Ok(_) => Revision::ZERO,
            Err(crate::WatchError::Compacted { oldest }) => oldest,
            Err(other) => panic!("{other}"),
        };
        let mut watch = store.watch(b"", oldest).unwrap();
        let mut state = self.model.states.get(&oldest).cloned();
        let mut last = oldest;
        while watch.has_next() {
            let event = watch.next().now_or_never().unwrap().unwrap().unwrap();
            assert!(event.revision() > last);
            last = event.revision();
            if let Some(state) = &mut state {
                let previous = match event.kind {
                    EventKind::Put => state.insert(event.entry.key.clone(), event.entry.clone()),
                    EventKind::Delete => state.remove(&event.entry.key),
                };
                assert_eq!(previous, event.previous);
                assert_eq!(*state, self.model.states[&last]);
            }
        }
        assert_eq!(watch.progress(), Some(store.revision()));
    }
}

pub(super) fn entries(store: &Store) -> State {
    let page = store.range(Range::default());
    page.entries.into_iter().map(|it| (it.key.clone(), it)).collect()
}

/// More than the usual, and as many as `PROPTEST_CASES` says if that is more.
fn cases() -> ProptestConfig {
    let standard = ProptestConfig::default();
    ProptestConfig { cases: standard.cases.max(400), ..standard }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn acknowledged_writes_survive_and_others_happen_whole_or_not_at_all(
        seed: u64,
        steps in vec(step(), 1..40),
    ) {
        let mut world = World::new(seed, Durability::Disk);
        for step in &steps {
            world.run(step);
        }
    }

    #[test]
    fn unflushed_writes_survive_the_process_and_keep_their_order(
        seed: u64,
        steps in vec(step(), 1..40),
    ) {
        let mut world = World::new(seed, Durability::Process);
        for step in &steps {
            world.run(step);
        }
    }
}
