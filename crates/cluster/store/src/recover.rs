//! Opening: reads the newest snapshot and the log files after it, cuts a torn tail, and refuses
//! anything it does not fully understand without changing it.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    Config, Durability, Entry, Event, EventKind, OpenError, Revision,
    backend::{Backend, Mode},
    format::{
        self, Decoded, FileKind, FileName, HEADER_BYTES, Header, HeaderError, Record, RecordKind,
        TEMPORARY,
    },
    history::History,
    index::Index,
    limits::Limits,
    log::{self, Log, Segment},
    snapshot,
};

/// Revisions that are passed over when a log ends in writes that were acknowledged without being
/// flushed: some may have been lost with the machine, and their numbers must not return. More
/// than can be acknowledged between two flushes, which a log file's size bounds.
const LOST_REVISIONS_MAX: u64 = 1 << 20;

/// What was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) history: History,
    pub(crate) revision: Revision,
    pub(crate) log: Log,
    /// Bytes of finished log files that no snapshot replaces yet.
    pub(crate) sealed_bytes: u64,
}

/// Reads the folder and leaves it ready for appending.
pub(crate) fn recover(
    config: &Config,
    limits: Limits,
    backend: Arc<dyn Backend>,
) -> Result<Recovered, OpenError> {
    let folder = Folder { config, backend: &*backend };
    let names = folder.names()?;
    let start = newest_snapshot(&names);
    let mut replay = Replay::new(config);
    if let Some(name) = start {
        folder.read_snapshot(name, &mut replay)?;
    }
    let logs = folder.logs_from(start, &names)?;
    let mut sealed_bytes = 0;
    let mut tail = None;
    for (position, name) in logs.iter().enumerate() {
        let last = position + 1 == logs.len();
        let read = folder.read_log(*name, last, &mut replay)?;
        sealed_bytes += if last { 0 } else { read.used };
        tail = Some(read);
    }
    folder.clean_up(&names, start)?;
    let active = match tail {
        Some(tail) => folder.resume(tail, &mut replay, limits)?,
        None => folder.create(FileName::log(1), &replay, limits)?,
    };
    let Replay { index, history, revision, .. } = replay;
    let log = Log::new(Arc::clone(&backend), config.durability, limits, active, revision);
    Ok(Recovered { index, history, revision, log, sealed_bytes })
}

fn newest_snapshot(names: &[String]) -> Option<FileName> {
    names
        .iter()
        .filter_map(|it| FileName::parse(it))
        .filter(|it| it.kind == FileKind::Snapshot)
        .max_by_key(|it| it.sequence)
}

/// The state as far as it has been read.
struct Replay {
    index: Index,
    history: History,
    revision: Revision,
    /// Up to here the log completes a snapshot that was copied while writes went on: what was
    /// before each of them is not known, so they are no events.
    completing: Revision,
    /// The last record of the log file before, if there was one.
    end_of_log: Option<Revision>,
    /// Whether the end of that file may have been lost with the machine, although it was
    /// acknowledged: so it is with `Durability::Process`.
    lossy: bool,
}

impl Replay {
    fn new(config: &Config) -> Self {
        let history =
            History::new(Revision::ZERO, config.history_events_max, config.history_bytes_max);
        Self {
            index: Index::default(),
            history,
            revision: Revision::ZERO,
            completing: Revision::ZERO,
            end_of_log: None,
            lossy: false,
        }
    }

    fn apply(&mut self, kind: EventKind, record: &Record<'_>) {
        let (key, value) = record.copied();
        let entry = Entry { key, value, created: record.created, modified: record.revision };
        let previous = match kind {
            EventKind::Put => self.index.insert(entry.clone()),
            EventKind::Delete => self.index.remove(&entry.key),
        };
        self.revision = record.revision;
        if record.revision <= self.completing {
            return;
        }
        // Nobody watches yet, so nobody is to be woken.
        self.history.push(Arc::new(Event { kind, entry, previous }), &mut Vec::new());
    }

    /// Goes on at a later revision, with no history of how it came to be.
    fn skip_to(&mut self, revision: Revision) {
        self.revision = revision;
        self.history.restart(revision);
    }
}

/// The end of a log file.
struct Tail {
    name: FileName,
    /// Where the next record goes.
    used: u64,
    /// Size of the file.
    size: u64,
    torn: bool,
}

struct Folder<'a> {
    config: &'a Config,
    backend: &'a dyn Backend,
}

impl Folder<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.path(name);
        move |source| OpenError::Io { action, path, source }
    }

    fn corrupt(&self, name: FileName, offset: usize, reason: &'static str) -> OpenError {
        OpenError::Corrupt { path: self.path(&name.text()), offset: offset as u64, reason }
    }

    fn names(&self) -> Result<Vec<String>, OpenError> {
        self.backend.names().map_err(self.failed("read", ""))
    }

    /// The log files to be read, oldest first, without a gap.
    fn logs_from(
        &self,
        snapshot: Option<FileName>,
        names: &[String],
    ) -> Result<Vec<FileName>, OpenError> {
        let first = snapshot.map_or(1, |it| it.sequence);
        let mut logs: Vec<FileName> = names
            .iter()
            .filter_map(|it| FileName::parse(it))
            .filter(|it| it.kind == FileKind::Log && it.sequence >= first)
            .collect();
        logs.sort_by_key(|it| it.sequence);
        let missing = (first..).zip(&logs).find(|(expected, it)| it.sequence != *expected);
        let missing = missing.map(|(expected, _)| expected);
        let none = (logs.is_empty() && snapshot.is_some()).then_some(first);
        match missing.or(none) {
            Some(sequence) => {
                Err(OpenError::Missing { path: self.path(&FileName::log(sequence).text()) })
            }
            None => Ok(logs),
        }
    }

    fn read(&self, name: FileName) -> Result<(Vec<u8>, Header), OpenError> {
        let text = name.text();
        let bytes = self.backend.read(&text).map_err(self.failed("read", &text))?;
        let header = Header::decode(name, &bytes).map_err(|error| match error {
            HeaderError::Corrupt(reason) => self.corrupt(name, 0, reason),
            HeaderError::Newer(version) => {
                OpenError::Newer { path: self.path(&text), version, supported: format::VERSION }
            }
        })?;
        Ok((bytes, header))
    }

    fn read_snapshot(&self, name: FileName, replay: &mut Replay) -> Result<(), OpenError> {
        let (bytes, header) = self.read(name)?;
        let end = snapshot::read(&bytes, HEADER_BYTES, |entry| drop(replay.index.insert(entry)))
            .map_err(|it| self.corrupt(name, it.offset, it.reason))?;
        replay.revision = header.base;
        replay.completing = end.copied;
        replay.history.restart(end.copied);
        Ok(())
    }

    /// Replays one log file.
    fn read_log(&self, name: FileName, last: bool, replay: &mut Replay) -> Result<Tail, OpenError> {
        let (bytes, header) = self.read(name)?;
        match replay.end_of_log {
            Some(end) if header.base > end && replay.lossy => replay.skip_to(header.base),
            Some(end) if header.base == end => {}
            None if header.base <= replay.revision => {}
            Some(_) | None => {
                return Err(self.corrupt(name, 0, "the records before this file are missing"));
            }
        }
        replay.lossy = header.unflushed;
        let mut expected = header.base.next();
        let mut offset = HEADER_BYTES;
        let torn = loop {
            match Record::decode(&bytes, offset) {
                Decoded::Record(record, next) => {
                    self.replay_record(name, offset, &record, expected, replay)?;
                    (expected, offset) = (expected.next(), next);
                }
                Decoded::Nothing => break false,
                Decoded::Bad(reason) => {
                    let proof = format::proof_of(expected, &bytes, offset);
                    if !last || proof.is_some() {
                        return Err(self.corrupt(name, offset, reason));
                    }
                    break true;
                }
            }
        };
        replay.end_of_log = Some(expected.previous());
        if last && expected.previous() < replay.revision.max(replay.completing) {
            return Err(self.corrupt(name, offset, "records are missing at the end"));
        }
        Ok(Tail { name, used: offset as u64, size: bytes.len() as u64, torn })
    }

    fn replay_record(
        &self,
        name: FileName,
        offset: usize,
        record: &Record<'_>,
        expected: Revision,
        replay: &mut Replay,
    ) -> Result<(), OpenError> {
        if record.revision != expected {
            return Err(self.corrupt(name, offset, "this record is not the next one"));
        }
        if record.created > record.revision {
            return Err(self.corrupt(name, offset, "this entry was written before it was made"));
        }
        let kind = match record.kind {
            RecordKind::Put => EventKind::Put,
            RecordKind::Delete => EventKind::Delete,
            RecordKind::Entry | RecordKind::End => {
                return Err(self.corrupt(name, offset, "this record does not belong here"));
            }
        };
        // What the snapshot already shows is only checked.
        if record.revision > replay.revision {
            replay.apply(kind, record);
        }
        Ok(())
    }

    /// Removes what an interrupted compaction or start has left.
    fn clean_up(&self, names: &[String], snapshot: Option<FileName>) -> Result<(), OpenError> {
        let temporary = names.iter().filter(|it| {
            it.strip_suffix(TEMPORARY).is_some_and(|it| FileName::parse(it).is_some())
        });
        for name in temporary {
            self.backend.remove(name).map_err(self.failed("remove", name))?;
        }
        match snapshot {
            Some(it) => snapshot::remove_replaced(self.backend, it.sequence)
                .map_err(self.failed("remove replaced files of", "")),
            None => Ok(()),
        }
    }

    /// Makes the last log file ready for appending, or begins the next one.
    fn resume(
        &self,
        tail: Tail,
        replay: &mut Replay,
        limits: Limits,
    ) -> Result<Segment, OpenError> {
        let text = tail.name.text();
        let mut reserved = tail.size;
        let continued = !replay.lossy && self.config.durability == Durability::Disk;
        let file = self.backend.open(&text, Mode::Existing).map_err(self.failed("open", &text))?;
        if tail.torn {
            tracing::warn!(
                file = %self.path(&text).display(),
                offset = tail.used,
                bytes = tail.size - tail.used,
                "cut the torn end of the log: a write was interrupted before it was acknowledged"
            );
        }
        if tail.torn || !continued {
            reserved = tail.used;
            file.set_len(reserved).map_err(self.failed("cut", &text))?;
        }
        // What has been read is about to be shown, so it must be durable, also if it was written
        // by a process that died between writing and flushing.
        file.sync().map_err(self.failed("flush", &text))?;
        self.backend.sync_folder().map_err(self.failed("flush", ""))?;
        if continued {
            let (sequence, used) = (tail.name.sequence, tail.used);
            return Ok(Segment { file, sequence, used, reserved });
        }
        if replay.lossy {
            replay.skip_to(Revision::new(replay.revision.get() + LOST_REVISIONS_MAX));
        }
        self.create(FileName::log(tail.name.sequence + 1), replay, limits)
    }

    fn create(
        &self,
        name: FileName,
        replay: &Replay,
        limits: Limits,
    ) -> Result<Segment, OpenError> {
        let (durability, reserve) = (self.config.durability, limits.reserve_bytes);
        log::create(self.backend, name, replay.revision, durability, reserve)
            .map_err(|error| self.failed("create", &name.text())(error.into_io()))
    }
}
