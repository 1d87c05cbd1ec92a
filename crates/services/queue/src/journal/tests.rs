//! The journal as a whole, on a disk that loses power, fails and rots.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use proptest::prelude::*;

use super::{
    Change, ChannelState, Journal, Progress, Runs, TopicState, Unfinished, codec, frame,
    state::{Record, State},
};
use crate::{
    broker::ChannelOptions,
    disk::{Disk, rot::rot, simulated::Simulated},
    message::{Nanos, Sequence},
    name::Name,
};

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn any_name() -> impl Strategy<Value = Name> {
    proptest::sample::select(vec!["a", "b", "a.longer_name-1"]).prop_map(name)
}

/// Small, so that changes meet.
const SPAN: u64 = 40;

fn small() -> impl Strategy<Value = Sequence> {
    (0..SPAN).prop_map(Sequence)
}

fn range_of(
    sequence: impl Strategy<Value = Sequence> + Clone,
) -> impl Strategy<Value = Range<Sequence>> {
    (sequence.clone(), sequence).prop_map(|(one, two)| one.min(two)..one.max(two))
}

fn unfinished() -> impl Strategy<Value = Unfinished> {
    (0..3_u16, proptest::option::of(any::<i64>()))
        .prop_map(|(attempts, due)| Unfinished { attempts, due: due.map(Nanos) })
}

fn progress(
    sequence: impl Strategy<Value = Sequence> + Clone + 'static,
) -> impl Strategy<Value = Progress> {
    let range = move || range_of(sequence.clone());
    (
        range(),
        proptest::collection::vec(range(), 0..4),
        proptest::collection::vec((range(), unfinished()), 0..4),
    )
        .prop_map(|(cursor, finished, left)| Progress { cursor: cursor.end, finished, left })
}

fn options() -> impl Strategy<Value = ChannelOptions> {
    (any::<Option<u16>>(), proptest::option::of(any_name()), any::<bool>()).prop_map(
        |(attempts_max, dead_letter_topic, ordered_by_key)| ChannelOptions {
            attempts_max,
            dead_letter_topic,
            ordered_by_key,
        },
    )
}

fn change(
    sequence: impl Strategy<Value = Sequence> + Clone + 'static,
) -> impl Strategy<Value = Change> {
    let (s1, s2, s3) = (sequence.clone(), sequence.clone(), sequence.clone());
    let (s4, s5) = (sequence.clone(), sequence.clone());
    let both = || (any_name(), any_name());
    prop_oneof![
        1 => (any_name(), s1).prop_map(|(topic, routed)| Change::TopicCreated { topic, routed }),
        1 => any_name().prop_map(|topic| Change::TopicDeleted { topic }),
        1 => (any_name(), any::<bool>())
            .prop_map(|(topic, paused)| Change::TopicPaused { topic, paused }),
        1 => (any_name(), any::<bool>())
            .prop_map(|(topic, held)| Change::TopicHeld { topic, held }),
        2 => (any_name(), s2).prop_map(|(topic, routed)| Change::Routed { topic, routed }),
        3 => (both(), s3, options()).prop_map(|((topic, channel), cursor, options)| {
            Change::ChannelCreated { topic, channel, cursor, options }
        }),
        1 => both().prop_map(|(topic, channel)| Change::ChannelDeleted { topic, channel }),
        1 => (both(), any::<bool>()).prop_map(|((topic, channel), paused)| {
            Change::ChannelPaused { topic, channel, paused }
        }),
        2 => (both(), s4).prop_map(|((topic, channel), cursor)| {
            Change::Placed { topic, channel, cursor }
        }),
        2 => (both(), range_of(s5)).prop_map(|((topic, channel), range)| {
            Change::Emptied { topic, channel, range }
        }),
        8 => (both(), progress(sequence)).prop_map(|((topic, channel), progress)| {
            Change::Progress { topic, channel, progress }
        }),
    ]
}

pub(super) fn any_record() -> impl Strategy<Value = Record> {
    let any_sequence = || any::<u64>().prop_map(Sequence);
    let reconciled = (any_name(), range_of(any::<u64>().prop_map(Sequence).boxed()))
        .prop_map(|(topic, log)| Change::Reconciled { topic, log });
    let change = prop_oneof![8 => change(any_sequence().boxed()), 1 => reconciled];
    (change, any::<u64>()).prop_map(|(change, life)| Record { change, life })
}

/// What a task of the core does: some changes, then a flush, perhaps with a sync.
type Step = (Vec<Change>, bool);

/// Begins with some topics and channels, so that most changes have something to change.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let begin = vec![created("a"), created("b"), channel("a", "a"), channel("b", "a")];
    let changes = proptest::collection::vec(change(small().boxed()), 0..5);
    let steps = proptest::collection::vec((changes, any::<bool>()), 0..20);
    (steps, any::<bool>()).prop_map(move |(mut steps, sync)| {
        steps.insert(0, (begin.clone(), sync));
        steps
    })
}

const FOLDER: &str = "/data/journal";

type Topics = BTreeMap<Name, TopicState>;

/// Logs that have all that a state speaks of.
fn logs(topics: &Topics) -> BTreeMap<Name, Range<Sequence>> {
    topics.keys().map(|it| (it.clone(), Sequence(0)..Sequence(SPAN))).collect()
}

fn start(disk: &Simulated) -> Journal {
    let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
    let logs = logs(loaded.topics());
    loaded.start(&logs).unwrap().journal
}

fn size(journal: &Journal) -> usize {
    usize::try_from(journal.bytes()).unwrap()
}

/// What a start would find, without the numbers of lives.
fn found(disk: &Simulated) -> Topics {
    let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
    assert_eq!(loaded.damage(), []);
    loaded.topics().clone()
}

/// Which messages of `0..SPAN` a channel will still deliver.
fn owed(channel: &ChannelState) -> Vec<u64> {
    let emptied = |it: Sequence| channel.emptied.iter().any(|range| range.contains(&it));
    let ahead = |it| channel.cursor <= it && !emptied(it);
    let owes = |it: &u64| {
        let it = Sequence(*it);
        ahead(it) || channel.unfinished.get(it).is_some()
    };
    (0..SPAN).filter(owes).collect()
}

/// A channel does not speak again of what it has finished.
fn leave_finished_ones(journal: &Journal, change: &mut Change) {
    let Change::Progress { topic, channel, progress } = change else { return };
    let topic = journal.state.topics.get(topic);
    let Some(state) = topic.and_then(|it| it.channels.get(channel)) else { return };
    let owed = owed(state);
    progress.left.retain(|(range, _)| (range.start.0..range.end.0).all(|it| owed.contains(&it)));
}

/// The lives of which some progress can be read in a file.
fn lives_of_progress(number: u64, file: &[u8]) -> BTreeSet<u64> {
    let mut lives = BTreeSet::new();
    for frame in frame::scan(number, file).frames {
        let mut records = frame.records;
        while let Some(record) = codec::decode(&mut records) {
            if let Change::Progress { .. } = record.change {
                lives.insert(record.life);
            }
        }
    }
    lives
}

fn owes_no_less(now: &ChannelState, before: &ChannelState, log: &Range<Sequence>) -> bool {
    let now = owed(now);
    let there = |it: &u64| log.contains(&Sequence(*it));
    owed(before).iter().filter(|it| there(it)).all(|it| now.contains(it))
}

proptest! {
    /// The state is what its own changes make of nothing.
    #[test]
    fn a_snapshot_is_the_state(steps in steps()) {
        let mut state = State::default();
        for change in steps.into_iter().flat_map(|it| it.0) {
            if let Some(record) = state.number(change) {
                prop_assert!(state.apply(&record));
            }
        }
        let mut again = State::default();
        for record in state.records() {
            prop_assert!(again.apply(&record));
        }
        prop_assert_eq!(again.topics, state.topics);
    }

    /// Parts of a progress make of a channel what the whole makes of it.
    #[test]
    fn pieces_are_the_whole(
        progress in progress(small().boxed()),
        runs in 1..4_usize,
    ) {
        let (topic, channel) = (name("t"), name("c"));
        let whole = |progress| {
            let change = |progress| {
                let (topic, channel) = (topic.clone(), channel.clone());
                Record { change: Change::Progress { topic, channel, progress }, life: 0 }
            };
            let mut state = State::default();
            for piece in progress {
                state.apply(&change(piece));
            }
            state
        };
        prop_assert_eq!(whole(vec![progress.clone()]), whole(progress.pieces(runs)));
    }

    /// What a channel is told one by one, it is told by what was collected.
    #[test]
    fn collecting_changes_nothing(
        left in proptest::collection::vec((0..SPAN, 0..3_u16), 0..30),
        finished in proptest::collection::vec(0..SPAN, 0..30),
    ) {
        let mut collected = Progress::default();
        let mut model: BTreeMap<u64, u16> = (0..SPAN).map(|it| (it, 1)).collect();
        collected.took(Sequence(SPAN));
        for (sequence, attempts) in left {
            collected.left(Sequence(sequence), Unfinished { attempts, due: None });
            model.insert(sequence, attempts);
        }
        for sequence in finished {
            collected.finished(Sequence(sequence)..Sequence(sequence + 1));
            model.remove(&sequence);
        }
        let (topic, channel) = (name("t"), name("c"));
        let record = Record { change: Change::Progress { topic, channel, progress: collected }, life: 0 };
        let mut state = State::default();
        for piece in record.pieces() {
            state.apply(&piece);
        }
        let runs = &state.topics[&name("t")].channels[&name("c")].unfinished;
        for it in 0..SPAN {
            let attempts = runs.get(Sequence(it)).map(|it| it.attempts);
            prop_assert_eq!(attempts, model.get(&it).copied());
        }
    }

    /// Whatever a log has and was owed is owed; nothing is beyond the log; doing it again does
    /// nothing.
    #[test]
    fn reconciling_forgets_only_what_the_log_lost(
        steps in steps(),
        log in range_of(small().boxed()),
    ) {
        let mut state = State::default();
        for change in steps.into_iter().flat_map(|it| it.0) {
            if let Some(record) = state.number(change) {
                state.apply(&record);
            }
        }
        for topic in state.topics.into_values() {
            let mut now = topic.clone();
            let corrected = now.reconcile(&log);
            prop_assert_eq!(corrected, now != topic);
            prop_assert!(!now.clone().reconcile(&log));
            prop_assert!((log.start..=log.end).contains(&now.routed));
            for (name, channel) in &now.channels {
                prop_assert!((log.start..=log.end).contains(&channel.cursor));
                prop_assert!((log.start..=channel.cursor).contains(&channel.floor()));
                prop_assert!(channel.unfinished.iter().all(|it| it.0.end <= channel.cursor));
                prop_assert!(owes_no_less(channel, &topic.channels[name], &log));
            }
        }
    }

    /// After a kill there is all that was flushed; after a power cut a state not older than the
    /// last sync, which is one that was.
    #[test]
    fn what_was_flushed_is_there(steps in steps(), seed in any::<u64>()) {
        let disk = Simulated::new(seed);
        let mut journal = start(&disk);
        let mut safe = vec![Topics::new()];
        for (changes, sync) in steps {
            journal.append(changes);
            journal.flush(sync).unwrap();
            let now = journal.state.topics.clone();
            prop_assert_eq!(&found(&disk.killed()), &now);
            if sync {
                safe.clear();
            }
            safe.push(now);
            prop_assert!(safe.contains(&found(&disk.power_cut())));
        }
    }

    /// The same with failing calls, restarts and full disks in between: what a flush with sync
    /// said is safe is safe.
    #[test]
    fn failures_are_survived(
        steps in proptest::collection::vec((steps(), 0..12_usize, any::<bool>()), 1..4),
        seed in any::<u64>(),
    ) {
        let mut disk = Simulated::new(seed);
        let mut journal = start(&disk);
        let mut safe = vec![Topics::new()];
        for (steps, fail_after, full) in steps {
            if full {
                disk.leave_room(Some(100 * fail_after));
            } else {
                disk.fail_after(Some(fail_after));
            }
            for (changes, sync) in steps {
                journal.append(changes);
                let flushed = journal.flush(sync);
                let now = journal.state.topics.clone();
                if flushed.is_ok() && sync {
                    safe.clear();
                }
                safe.push(now);
                prop_assert!(safe.contains(&found(&disk.power_cut())));
                if flushed.is_ok() {
                    prop_assert_eq!(&found(&disk.killed()), safe.last().unwrap());
                }
            }
            disk.fail_after(None);
            disk.leave_room(None);
            disk = disk.power_cut();
            journal = start(&disk);
            safe = vec![journal.state.topics.clone()];
        }
    }

    /// Bytes of changes that rot: no channel owes less than it did, if anything of its last life can
    /// be read.
    #[test]
    fn damage_is_read_as_more(
        steps in steps(),
        seed in any::<u64>(),
        at in any::<proptest::sample::Index>(),
        length in 1..80_usize,
    ) {
        let disk = Simulated::new(seed);
        let mut journal = start(&disk);
        let snapshot = size(&journal);
        let mut made = BTreeSet::new();
        let mut made_again = BTreeSet::new();
        for (changes, _) in steps {
            for change in &changes {
                if let Change::TopicCreated { topic, .. } = change
                    && !made.insert(topic.clone())
                {
                    made_again.insert(topic.clone());
                }
            }
            for mut change in changes {
                leave_finished_ones(&journal, &mut change);
                journal.append([change]);
            }
            journal.flush(true).unwrap();
        }
        // So that what is before it is known to have been safe.
        journal.append([Change::TopicCreated { topic: name("last"), routed: Sequence(0) }]);
        let last = size(&journal);
        journal.flush(true).unwrap();
        let path = Path::new(FOLDER).join(frame::file_name(journal.number));
        let mut bytes = disk.read(&path).unwrap();
        let at = snapshot + at.index(last - snapshot);
        let end = (at + length).min(last);
        bytes[at..end].iter_mut().for_each(|it| *it ^= 0x55);
        disk.put(&path, &bytes);
        let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
        prop_assert!(!loaded.damage().is_empty());
        prop_assert_eq!(loaded.cut_bytes(), 0);
        let told = lives_of_progress(journal.number, &bytes);
        let log = Sequence(0)..Sequence(SPAN);
        for (topic, state) in &journal.state.topics {
            let Some(read) = loaded.topics().get(topic) else { continue };
            // A lost deletion leaves an older topic, whose mark is below its successor's log.
            prop_assert!(read.routed <= state.routed || made_again.contains(topic));
            for (channel, state) in &state.channels {
                let Some(read) = read.channels.get(channel) else { continue };
                // Its last creation or placement was lost, and nothing tells of it since.
                let untold = read.life != state.life && !told.contains(&state.life);
                prop_assert!(untold || owes_no_less(read, state, &log));
            }
        }
    }

    /// Whatever happens to the file: it is refused, the damage is told, or what is read is what had
    /// once been written. Then it goes on.
    #[test]
    fn any_rot_is_told(
        steps in steps(),
        seed in any::<u64>(),
        rots in proptest::collection::vec(rot(), 1..4),
    ) {
        let disk = Simulated::new(seed);
        let mut journal = start(&disk);
        let snapshot = size(&journal);
        let mut written = vec![journal.state.topics.clone()];
        for (changes, sync) in steps {
            journal.append(changes);
            journal.flush(sync).unwrap();
            written.push(journal.state.topics.clone());
        }
        let path = Path::new(FOLDER).join(frame::file_name(journal.number));
        let sound = disk.read(&path).unwrap();
        let mut bytes = sound.clone();
        rots.iter().for_each(|it| it.apply(&mut bytes));
        // Unlike the changes behind it, a snapshot is never torn: it gets its name when it is whole.
        let whole = bytes.get(..snapshot) == sound.get(..snapshot);
        disk.put(&path, &bytes);
        let Ok(loaded) = Journal::load(disk.arc(), Path::new(FOLDER)) else { return Ok(()) };
        let told = !loaded.damage().is_empty();
        let known = whole && written.contains(loaded.topics());
        prop_assert!(told || known, "{whole} {:?}", loaded.topics());
        let ranges = logs(loaded.topics());
        let mut started = loaded.start(&ranges).unwrap();
        started.journal.append([created("new")]);
        started.journal.flush(true).unwrap();
        prop_assert!(found(&disk.killed()).contains_key(&name("new")));
    }

    /// A rotten snapshot costs nothing: the file before has the same.
    #[test]
    fn the_previous_file_stands_in(
        before in steps(),
        after in steps(),
        seed in any::<u64>(),
        at in any::<proptest::sample::Index>(),
    ) {
        let disk = Simulated::new(seed);
        let mut journal = start(&disk);
        for (changes, sync) in before {
            journal.append(changes);
            journal.flush(sync).unwrap();
        }
        journal.rewrite(journal.number).unwrap();
        let snapshot = size(&journal);
        for (changes, sync) in after {
            journal.append(changes);
            journal.flush(sync).unwrap();
        }
        let path = Path::new(FOLDER).join(frame::file_name(journal.number));
        let mut bytes = disk.read(&path).unwrap();
        bytes[at.index(snapshot)] ^= 0x55;
        disk.put(&path, &bytes);
        let loaded = Journal::load(disk.arc(), Path::new(FOLDER));
        // In the header's version a change may make it a newer one, which is refused.
        let Ok(loaded) = loaded else { return Ok(()) };
        prop_assert!(!loaded.damage().is_empty());
        prop_assert_eq!(loaded.topics(), &journal.state.topics);
    }
}

fn created(topic: &str) -> Change {
    Change::TopicCreated { topic: name(topic), routed: Sequence(10) }
}

fn channel(topic: &str, channel: &str) -> Change {
    let (topic, channel) = (name(topic), name(channel));
    Change::ChannelCreated {
        topic,
        channel,
        cursor: Sequence(10),
        options: ChannelOptions::default(),
    }
}

fn moved(topic: &str, channel: &str, cursor: u64, finished: Range<u64>) -> Change {
    let mut progress = Progress::default();
    progress.took(Sequence(cursor));
    progress.finished(Sequence(finished.start)..Sequence(finished.end));
    Change::Progress { topic: name(topic), channel: name(channel), progress }
}

#[test]
fn what_comes_after_the_end_of_a_channel_is_nothing() {
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    journal.append([created("t"), channel("t", "c")]);
    journal.append([Change::ChannelDeleted { topic: name("t"), channel: name("c") }]);
    journal.append([moved("t", "c", 20, 10..15), moved("u", "c", 20, 10..15)]);
    journal.flush(true).unwrap();
    let topics = found(&disk);
    assert_eq!(topics.len(), 1);
    assert!(topics[&name("t")].channels.is_empty());
}

#[test]
fn a_flush_of_nothing_writes_nothing() {
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    journal.append([created("t")]);
    journal.flush(false).unwrap();
    let bytes = journal.bytes();
    journal.flush(false).unwrap();
    journal.flush(true).unwrap();
    assert_eq!(journal.bytes(), bytes);
    assert_eq!(found(&disk.power_cut()).len(), 1);
}

/// The log of a topic that lost its tail gives the numbers of that tail to new messages; the
/// corrected cursor must be safe before.
#[test]
fn what_was_corrected_is_safe_at_once() {
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    journal.append([created("t"), channel("t", "c"), moved("t", "c", 30, 10..30)]);
    journal.flush(true).unwrap();
    let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
    let logs = BTreeMap::from([(name("t"), Sequence(15)..Sequence(20))]);
    let started = loaded.start(&logs).unwrap();
    assert_eq!(started.topics[&name("t")].channels[&name("c")].cursor, Sequence(20));
    assert_eq!(started.topics, found(&disk.power_cut()));
}

#[test]
fn a_log_without_a_topic_is_left_over_or_was_lost() {
    let disk = Simulated::new(1);
    let logs = BTreeMap::from([(name("t"), Sequence(15)..Sequence(20))]);
    // No journal, but logs: somebody lost it.
    let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
    let started = loaded.start(&logs).unwrap();
    assert_eq!(started.leftover, []);
    assert_eq!(started.topics[&name("t")].routed, Sequence(15));
    // A journal that is whole and knows nothing of the topic: it was deleted.
    let mut journal = started.journal;
    journal.append([Change::TopicDeleted { topic: name("t") }]);
    journal.flush(true).unwrap();
    let loaded = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap();
    let started = loaded.start(&logs).unwrap();
    assert_eq!(started.leftover, [name("t")]);
    assert!(started.topics.is_empty());
}

#[test]
fn a_newer_format_is_refused() {
    let disk = Simulated::new(1);
    let journal = start(&disk);
    let path = Path::new(FOLDER).join(frame::file_name(journal.number));
    let mut bytes = disk.read(&path).unwrap();
    bytes[8] += 1;
    disk.put(&path, &bytes);
    let error = Journal::load(disk.arc(), Path::new(FOLDER)).unwrap_err();
    expect_test::expect![
        "`0000000000000001.journal` has format 4, this release knows formats up to 3"
    ]
    .assert_eq(&error.to_string());
}

/// 10 000 channels, each doing something in each flush, over many snapshots: the files stay within
/// a few times of what there is to remember.
#[test]
fn the_files_do_not_grow() {
    const CHANNELS: u64 = 10_000;
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    let names: Vec<_> = (0..CHANNELS)
        .map(|it| (name(&format!("t{}", it / 100)), name(&format!("c{it}"))))
        .collect();
    for (topic, channel) in &names {
        if !journal.state.topics.contains_key(topic) {
            let topic = topic.clone();
            journal.append([Change::TopicCreated { topic, routed: Sequence(0) }]);
        }
        let (topic, channel) = (topic.clone(), channel.clone());
        let options = ChannelOptions::default();
        journal.append([Change::ChannelCreated { topic, channel, cursor: Sequence(0), options }]);
    }
    journal.flush(true).unwrap();
    let mut numbers = BTreeSet::new();
    for round in 1..=24_u64 {
        for (topic, channel) in &names {
            let mut progress = Progress::default();
            progress.took(Sequence(round * 100));
            progress.finished(Sequence(round * 100 - 100)..Sequence(round * 100 - 3));
            let (topic, channel) = (topic.clone(), channel.clone());
            journal.append([Change::Progress { topic, channel, progress }]);
        }
        journal.flush(false).unwrap();
        numbers.insert(journal.number);
        let files: usize = disk.files().values().map(Vec::len).sum();
        assert!(files < 12 << 20, "{files}");
    }
    assert!(numbers.len() > 1, "{numbers:?}");
    assert_eq!(found(&disk.killed()), journal.state.topics);
}

/// A consumer that takes a million messages and finishes them nearly in order costs a few bytes.
#[test]
fn a_flush_costs_by_its_ranges() {
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    journal.append([created("t"), channel("t", "c")]);
    journal.flush(true).unwrap();
    let before = journal.bytes();
    let mut progress = Progress::default();
    let end = 1_000_010;
    progress.took(Sequence(end));
    // Two consumers, each in its own order.
    for pair in (10..end - 2).step_by(2) {
        progress.finished(Sequence(pair + 1)..Sequence(pair + 2));
        progress.finished(Sequence(pair)..Sequence(pair + 1));
    }
    journal.append([Change::Progress { topic: name("t"), channel: name("c"), progress }]);
    journal.flush(true).unwrap();
    assert!(journal.bytes() - before < 60, "{}", journal.bytes() - before);
    let state = &found(&disk)[&name("t")].channels[&name("c")];
    let mut runs = Runs::default();
    runs.put(Sequence(end - 2)..Sequence(end), Unfinished::TAKEN);
    assert_eq!(state.unfinished, runs);
}

/// A channel with very many different deferrals is read back through several records and frames.
#[test]
fn many_deferrals_come_back() {
    let disk = Simulated::new(1);
    let mut journal = start(&disk);
    journal.append([created("t"), channel("t", "c")]);
    let mut progress = Progress::default();
    let end = 100_000;
    progress.took(Sequence(end));
    for sequence in (10..end).step_by(2) {
        let due = Some(Nanos(i64::try_from(sequence).unwrap()));
        progress.left(Sequence(sequence), Unfinished { attempts: 2, due });
    }
    journal.append([Change::Progress { topic: name("t"), channel: name("c"), progress }]);
    journal.flush(true).unwrap();
    assert_eq!(found(&disk.power_cut()), journal.state.topics);
    journal.rewrite(journal.number).unwrap();
    assert_eq!(found(&disk.power_cut()), journal.state.topics);
}
