//! Reading the journal back, whatever became of it, and starting to write again.
//!
//! How each kind of harm is read, and why more may be delivered again but never less, is told in
//! the header of the module.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Journal, codec,
    frame::{self, FrameKind, HeaderState, Scan},
    state::{Change, State, TopicState},
};
use crate::{disk::Disk, message::Sequence, name::Name};

/// A part of the journal that was safe once and cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file in the journal's folder.
    pub file: String,
    /// Where in the file.
    pub bytes: Range<u64>,
    /// What is wrong there.
    pub why: &'static str,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("the journal in {} cannot be read", folder.display())]
    Disk {
        /// The journal's folder.
        folder: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A later release wrote it.
    #[error("`{file}` has format {version}, this release knows formats up to {known}", known = frame::VERSION)]
    Newer {
        /// The file in the journal's folder.
        file: String,
        /// Its format.
        version: u32,
    },
}

/// A journal that was read, and cannot be written before it was compared with the logs.
#[derive(Debug)]
pub struct Loaded {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    state: State,
    /// The greatest number a file has.
    number: u64,
    /// Whether there was no file.
    absent: bool,
    damage: Vec<Damage>,
    cut_bytes: u64,
}

/// A journal that goes on.
#[derive(Debug)]
pub struct Started {
    /// Takes changes.
    pub journal: Journal,
    /// All topics and channels, fitting their logs.
    pub topics: BTreeMap<Name, TopicState>,
    /// Logs of topics that were deleted, and whose folders still have to be.
    pub leftover: Vec<Name>,
}

impl Loaded {
    pub(super) fn read(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Disk { folder: folder.to_owned(), source };
        disk.create_folder(folder).map_err(fail)?;
        let names = disk.list(folder).map_err(fail)?;
        // What was being prepared was never part of the journal.
        for name in names.iter().filter(|it| it.ends_with(frame::TEMPORARY)) {
            disk.remove(&folder.join(name)).map_err(fail)?;
        }
        let mut numbers: Vec<_> = names.iter().filter_map(|it| frame::file_number(it)).collect();
        numbers.sort_unstable();
        let mut loaded = Self {
            disk: Arc::clone(&disk),
            folder: folder.to_owned(),
            state: State::default(),
            number: numbers.last().copied().unwrap_or(0),
            absent: numbers.is_empty(),
            damage: Vec::new(),
            cut_bytes: 0,
        };
        let Some(newest) = numbers.pop() else { return Ok(loaded) };
        let path = |number| folder.join(frame::file_name(number));
        let file = disk.read(&path(newest)).map_err(fail)?;
        let mut reading = Reading::new(newest, &file)?;
        if !reading.scan.snapshot_whole
            && let Some(previous) = numbers.pop()
            && let Some(state) = whole(previous, &disk.read(&path(previous)).map_err(fail)?)
        {
            loaded.state = state;
            reading.scan.frames.retain(|it| it.kind == FrameKind::Changes);
        }
        reading.apply(&mut loaded.state);
        loaded.damage = reading.damage;
        loaded.cut_bytes = reading.scan.cut as u64;
        Ok(loaded)
    }

    /// The topics as they were written. Each needs a log before [`start`](Self::start), an empty
    /// one if there is none.
    #[must_use]
    pub const fn topics(&self) -> &BTreeMap<Name, TopicState> {
        &self.state.topics
    }

    /// What was lost, to be told to the operator: some messages will be delivered again.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// How many bytes at the end had been written and not flushed when the power went, and were
    /// only partly there. Nothing was promised about them.
    #[must_use]
    pub const fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// Makes the state fit the logs (of each, its first message and the one it will write next)
    /// and begins to write. What was corrected is flushed when this returns: only then may the logs
    /// give the numbers beyond their ends to new messages.
    ///
    /// A log without a topic is what a deletion left over, as topics are written here before their
    /// logs are made. But if the journal is damaged or not there at all, it is a topic that was
    /// lost: it comes back without channels, with all its messages.
    ///
    /// # Errors
    /// The disk is full or has failed; the journal is as it was.
    pub fn start(self, logs: &BTreeMap<Name, Range<Sequence>>) -> io::Result<Started> {
        let lossy = self.absent || !self.damage.is_empty();
        let mut corrections = Vec::new();
        let mut leftover = Vec::new();
        for (topic, log) in logs {
            let topic = topic.clone();
            match self.state.topics.get(&topic) {
                Some(known) if known.clone().reconcile(log) => {
                    corrections.push(Change::Reconciled { topic, log: log.clone() });
                }
                Some(_) => {}
                None if lossy => {
                    corrections.push(Change::TopicCreated { topic, routed: log.start });
                }
                None => leftover.push(topic),
            }
        }
        let mut journal = Journal::begin(self.disk, self.folder, self.state, self.number)?;
        journal.append(corrections);
        journal.flush(true)?;
        let topics = journal.state.topics.clone();
        Ok(Started { journal, topics, leftover })
    }
}

/// The state that a file ends with, if nothing of it is missing. It is that with which the next
/// one begins, or older by what was never flushed.
fn whole(number: u64, file: &[u8]) -> Option<State> {
    let mut reading = Reading::new(number, file).ok()?;
    let mut state = State::default();
    reading.apply(&mut state);
    (reading.scan.snapshot_whole && reading.damage.is_empty()).then_some(state)
}

/// One file and what was found wrong with it.
struct Reading<'a> {
    name: String,
    scan: Scan<'a>,
    damage: Vec<Damage>,
}

impl<'a> Reading<'a> {
    fn new(number: u64, file: &'a [u8]) -> Result<Self, OpenError> {
        let name = frame::file_name(number);
        let scan = frame::scan(number, file);
        let mut reading = Self { name: name.clone(), scan, damage: Vec::new() };
        match frame::read_header(number, file) {
            HeaderState::Good => {}
            HeaderState::Newer(version) => return Err(OpenError::Newer { file: name, version }),
            HeaderState::Damaged => reading.damaged(0..frame::HEADER_BYTES, "this is no header"),
        }
        for hole in reading.scan.damage.clone() {
            reading.damaged(hole, "no frame matches its checksum here");
        }
        if !reading.scan.snapshot_whole && reading.damage.is_empty() {
            reading.damaged(0..file.len(), "the snapshot has no end");
        }
        Ok(reading)
    }

    fn damaged(&mut self, bytes: Range<usize>, why: &'static str) {
        let bytes = bytes.start as u64..bytes.end as u64;
        self.damage.push(Damage { file: self.name.clone(), bytes, why });
    }

    /// Makes all changes that can be read.
    fn apply(&mut self, state: &mut State) {
        let mut wrong = Vec::new();
        for frame in &self.scan.frames {
            let mut records = frame.records;
            while !records.is_empty() {
                let Some(record) = codec::decode(&mut records) else {
                    wrong.push((frame.bytes.clone(), "what is in this frame is no change"));
                    break;
                };
                if !state.apply(&record) {
                    wrong.push((frame.bytes.clone(), "what this continues is not there"));
                }
            }
        }
        // After a hole that is no news.
        if self.damage.is_empty() {
            wrong.dedup();
            for (bytes, why) in wrong {
                self.damaged(bytes, why);
            }
        }
    }
}
