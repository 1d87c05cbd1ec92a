//! The log against a model: random batches on a disk that fails, fills up and loses power.
//!
//! Twenty histories of power cuts here; more with `PROPTEST_CASES=1000 cargo test -p coracle-queue
//! log::tests::model`.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::log::{AppendError, Why};

#[derive(Clone, Debug)]
enum Step {
    /// A batch of messages of these sizes.
    Append(Vec<(usize, bool)>),
    /// Everything that waits is written.
    Flush,
    /// The machine loses power and starts again.
    PowerCut,
    /// The process is killed and started again.
    Kill,
    /// The log is closed and opened again.
    Close,
    /// The disk fails once, after so many calls.
    Fail(usize),
    /// The disk has room for so much more, or for everything.
    Room(Option<usize>),
    /// So many of the messages that are there are finished by all.
    Retire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec((0..300_usize, any::<bool>()), 1..6).prop_map(Step::Append),
        6 => Just(Step::Flush),
        2 => Just(Step::PowerCut),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0..12_usize).prop_map(Step::Fail),
        1 => option::of(0..3_000_usize).prop_map(Step::Room),
        1 => (0..60_u64).prop_map(Step::Retire),
    ]
}

/// A batch that was appended.
#[derive(Debug)]
struct Batch {
    messages: Vec<Message>,
    appended: Appended,
    /// What its publisher was told.
    told: Option<bool>,
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    Close,
}

struct World {
    disk: Simulated,
    config: LogConfig,
    log: Log,
    /// All that may be there. A batch that was refused may still show after a crash.
    batches: Vec<Batch>,
    /// After all that was ever acknowledged.
    acknowledged: Sequence,
    /// Nothing below this need be there.
    finished: Sequence,
    count: usize,
}

impl World {
    fn new(seed: u64, durability: Durability) -> Self {
        let disk = Simulated::new(seed);
        if seed.is_multiple_of(2) {
            disk.hide_room();
        }
        let retention = Retention { age: None, bytes: Some(3_000) };
        let config = LogConfig { durability, retention };
        let (log, _) = try_open(&disk, config).unwrap();
        let (batches, count) = (Vec::new(), 0);
        let (acknowledged, finished) = (log.next(), log.next());
        Self { disk, config, log, batches, acknowledged, finished, count }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(sizes) => self.append(sizes),
            Step::Flush => drop(self.log.flush()),
            Step::PowerCut => self.reopen(End::PowerCut),
            Step::Kill => self.reopen(End::Kill),
            Step::Close => {
                let closed = self.log.close(NOW).is_ok();
                self.ask();
                self.reopen(if closed { End::Close } else { End::Kill });
            }
            Step::Fail(calls) => self.disk.fail_after(Some(*calls)),
            Step::Room(bytes) => self.disk.leave_room(*bytes),
            Step::Retire(count) => {
                self.finished =
                    self.log.first().after(*count).min(self.log.end()).max(self.finished);
                self.log.retire(self.finished, NOW);
            }
        }
        self.ask();
        self.check();
    }

    fn append(&mut self, sizes: &[(usize, bool)]) {
        let new: Vec<NewMessage> = sizes
            .iter()
            .map(|(size, delayed)| {
                self.count += 1;
                let delay = Duration::from_secs(u64::from(*delayed));
                NewMessage { delay, ..message(&format!("{}{}", self.count, "x".repeat(*size))) }
            })
            .collect();
        match self.log.append(NOW, &new) {
            Ok(appended) => {
                assert!(appended.range.start >= self.acknowledged, "numbers return");
                let sequences = (appended.range.start.0..appended.range.end.0).map(Sequence);
                let message = |(sequence, it): (_, &NewMessage)| Message {
                    sequence,
                    timestamp: NOW,
                    due: (!it.delay.is_zero()).then_some(later(1)),
                    key: None,
                    body: it.body.clone(),
                };
                let messages = sequences.zip(&new).map(message).collect();
                self.batches.push(Batch { messages, appended, told: None });
            }
            Err(AppendError::NoSpace { .. } | AppendError::Failed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Hears what publishers are told.
    fn ask(&mut self) {
        for batch in &mut self.batches {
            if batch.told.is_none() {
                batch.told = outcome(&mut batch.appended);
            }
            if batch.told == Some(true) {
                self.acknowledged = self.acknowledged.max(batch.appended.range.end);
            }
        }
        // Where something was acknowledged, nothing else can be.
        let acknowledged = self.acknowledged;
        self.batches.retain(|it| it.told == Some(true) || it.appended.range.end > acknowledged);
    }

    fn reopen(&mut self, end: End) {
        let mut disk = self.disk.killed();
        if end == End::PowerCut {
            disk = self.disk.power_cut();
        }
        disk.leave_room(None);
        self.disk = disk;
        // Opening may be what fails, or be interrupted.
        let (log, recovered) = match try_open(&self.disk, self.config) {
            Ok(opened) => opened,
            Err(_) => try_open(&self.disk, self.config).unwrap(),
        };
        self.log = log;
        let may_lose = match self.config.durability {
            Durability::Disk => false,
            Durability::Process => end == End::PowerCut,
            Durability::Memory => end != End::Close,
        };
        let (messages, skipped) = read_all(&self.log, EVERYTHING);
        let there = |it: &Message| {
            let place = messages.binary_search_by_key(&it.sequence, |it| it.sequence);
            place.is_ok_and(|place| messages[place] == *it)
        };
        let kept_from = self.log.first();
        self.batches.retain_mut(|batch| {
            let range = &batch.appended.range;
            let count = batch.messages.iter().filter(|it| there(it)).count();
            assert!(count == 0 || count == batch.messages.len() || range.start < kept_from);
            let retired = range.end <= kept_from && batch.told == Some(true);
            assert!(!retired || may_lose || range.end <= self.finished, "{range:?}");
            let lost = count == 0 && range.end > kept_from;
            assert!(!lost || batch.told != Some(true) || may_lose, "lost {range:?} {recovered:?}");
            batch.told = Some(true);
            !lost
        });
        assert!(self.log.next() >= self.acknowledged, "numbers return");
        for it in skipped {
            // Gaps of earlier losses stay.
            assert!(self.config.durability != Durability::Disk, "{it}");
            assert!(matches!(it.why, Why::Unflushed | Why::Corrupt), "{it}");
        }
        self.acknowledged = self.acknowledged.max(self.log.next());
    }

    /// All that is shown is as it was published, and all that was acknowledged is shown.
    fn check(&self) {
        let limit = ReadLimit { messages: 1 + self.count % 7, bytes: 400 };
        let (messages, _) = read_all(&self.log, limit);
        let first = self.log.first();
        let acknowledged = self.batches.iter().filter(|it| it.told == Some(true));
        let acknowledged: Vec<&Message> =
            acknowledged.flat_map(|it| &it.messages).filter(|it| it.sequence >= first).collect();
        assert_eq!(messages.iter().collect::<Vec<_>>(), acknowledged);
    }
}

fn cases() -> ProptestConfig {
    let standard = ProptestConfig::default();
    // More only if the environment asks for it.
    let cases = if standard.cases == 256 { 20 } else { standard.cases };
    ProptestConfig { cases, ..standard }
}

fn run(seed: u64, durability: Durability, steps: &[Step]) {
    let mut world = World::new(seed, durability);
    for step in steps {
        world.run(step);
    }
    world.run(&Step::PowerCut);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn disk_mode_survives_power_cuts(seed: u64, steps in vec(step(), 1..60)) {
        run(seed, Durability::Disk, &steps);
    }

    #[test]
    fn process_mode_survives_kills(seed: u64, steps in vec(step(), 1..60)) {
        run(seed, Durability::Process, &steps);
    }

    #[test]
    fn memory_mode_survives_closing(seed: u64, steps in vec(step(), 1..60)) {
        run(seed, Durability::Memory, &steps);
    }
}
