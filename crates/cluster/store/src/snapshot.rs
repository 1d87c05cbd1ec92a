//! Snapshots: the entries in one file, so that older log files can go.
//!
//! Crash-safe: the file is complete and durable before it gets its name, and nothing is removed
//! before that name is durable.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    Durability, Entry, Revision,
    backend::{Backend, BackendFile, Mode},
    format::{Decoded, FileKind, FileName, Header, Record, RecordKind},
};

/// Bytes of a piece of the file, about: one write, or one chunk of an answer. The last entry of a piece
/// may go beyond.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Room for an entry that goes beyond: most do not make the memory move.
const MORE_BYTES: usize = 16 << 10;

/// The bytes of a snapshot, in the order of the file: header, entries, end. What is ready is taken by
/// whoever writes them.
#[derive(Debug)]
pub(crate) struct Encoder {
    base: Revision,
    count: u64,
    ready: Vec<u8>,
}

impl Encoder {
    /// Begins the file called `name`, which shows the entries at `base` or later.
    pub(crate) fn new(name: FileName, base: Revision) -> Self {
        let mut ready = Vec::with_capacity(PIECE_BYTES + MORE_BYTES);
        ready.extend_from_slice(&Header { name, base, unflushed: false }.encode());
        Self { base, count: 0, ready }
    }

    /// Adds the next entry.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let record = Record {
            kind: RecordKind::Entry,
            revision: entry.modified,
            durable: Revision::ZERO,
            created: entry.created,
            key: &entry.key,
            value: &entry.value,
        };
        record.encode(&mut self.ready);
        self.count += 1;
    }

    /// Adds the end. The last entry was copied when the store was at `copied`.
    pub(crate) fn end(&mut self, copied: Revision) {
        let record = Record {
            kind: RecordKind::End,
            revision: self.base,
            durable: copied,
            created: Revision::new(self.count),
            key: &[],
            value: &[],
        };
        record.encode(&mut self.ready);
    }

    /// Whether a piece is ready.
    pub(crate) const fn is_full(&self) -> bool {
        self.ready.len() >= PIECE_BYTES
    }

    /// What is ready.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// Forgets what was ready, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
    }

    /// Takes what is ready.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.ready, Vec::with_capacity(PIECE_BYTES + MORE_BYTES))
    }
}

/// A snapshot that is being written, piece by piece, while writes go on.
///
/// It shows each entry as it stands when its piece is copied, at `base` or later. The log after
/// `base` is read on top of it, which leads to the same end from either.
#[derive(Debug)]
pub(crate) struct Snapshot {
    backend: Arc<dyn Backend>,
    name: FileName,
    file: Box<dyn BackendFile>,
    offset: u64,
    encoder: Encoder,
    /// The last key that was looked at.
    last: Option<Bytes>,
}

impl Snapshot {
    /// Begins a snapshot that will replace all log files before the one numbered `sequence`, in
    /// which the write at `base` must be.
    pub(crate) fn create(
        backend: &Arc<dyn Backend>,
        sequence: u64,
        base: Revision,
    ) -> io::Result<Self> {
        let name = FileName::snapshot(sequence);
        let file = backend.open(&name.temporary(), Mode::Create)?;
        let (backend, encoder) = (Arc::clone(backend), Encoder::new(name, base));
        Ok(Self { backend, name, file, offset: 0, encoder, last: None })
    }

    /// The key after which the next piece begins.
    pub(crate) fn last(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    /// Adds the entries that follow after [`Snapshot::last`].
    pub(crate) fn add(&mut self, piece: &[Entry]) -> io::Result<()> {
        for entry in piece {
            self.encoder.add(entry);
            if self.encoder.is_full() {
                self.flush()?;
            }
        }
        self.last = piece.last().map(|it| it.key.clone());
        Ok(())
    }

    /// Completes the file, gives it its name and removes what it replaces. `copied` is the
    /// revision when the last piece was copied: up to there the log belongs to the snapshot.
    pub(crate) fn finish(mut self, copied: Revision, durability: Durability) -> io::Result<()> {
        self.encoder.end(copied);
        self.flush()?;
        self.file.sync()?;
        if durability == Durability::Process {
            self.flush_logs()?;
        }
        self.backend.rename(&self.name.temporary(), &self.name.text())?;
        self.backend.sync_folder()?;
        remove_replaced(&*self.backend, self.name.sequence)
    }

    /// Removes what has been written, to free the space. If this fails, the next start does it.
    pub(crate) fn abandon(backend: &dyn Backend, sequence: u64) {
        drop(backend.remove(&FileName::snapshot(sequence).temporary()));
    }

    fn flush(&mut self) -> io::Result<()> {
        let ready = self.encoder.ready();
        self.file.write_at(self.offset, ready)?;
        self.offset += ready.len() as u64;
        self.encoder.clear();
        Ok(())
    }

    /// Flushes the log files that belong to the snapshot.
    fn flush_logs(&self) -> io::Result<()> {
        let names = self.backend.names()?;
        let logs = names
            .iter()
            .filter_map(|it| FileName::parse(it))
            .filter(|it| it.kind == FileKind::Log && it.sequence >= self.name.sequence);
        for log in logs {
            self.backend.open(&log.text(), Mode::Existing)?.sync()?;
        }
        Ok(())
    }
}

/// How a snapshot ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The revision when the last entry was copied.
    pub(crate) copied: Revision,
    /// The byte after it.
    pub(crate) offset: usize,
}

/// What is wrong with the bytes of a snapshot, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Malformed {
    pub(crate) offset: usize,
    pub(crate) reason: &'static str,
}

/// Hands out the entries of a snapshot, from `offset` of the file to its end record.
pub(crate) fn read(
    bytes: &[u8],
    mut offset: usize,
    mut each: impl FnMut(Entry),
) -> Result<End, Malformed> {
    let (mut count, mut latest) = (0, Revision::ZERO);
    loop {
        let malformed = |reason| Malformed { offset, reason };
        let (record, next) = match Record::decode(bytes, offset) {
            Decoded::Record(record, next) => (record, next),
            Decoded::Nothing => return Err(malformed("the snapshot ends")),
            Decoded::Bad(reason) => return Err(malformed(reason)),
        };
        match record.kind {
            RecordKind::Entry => {
                if record.created > record.revision {
                    return Err(malformed("this entry was written before it was made"));
                }
                latest = latest.max(record.revision);
                let (key, value) = record.copied();
                each(Entry { key, value, created: record.created, modified: record.revision });
                count += 1;
            }
            RecordKind::End if record.created.get() == count && latest <= record.durable => {
                return Ok(End { copied: record.durable, offset: next });
            }
            RecordKind::End | RecordKind::Put | RecordKind::Delete => {
                return Err(malformed("this record does not belong here"));
            }
        }
        offset = next;
    }
}

/// Removes the files that the snapshot numbered `sequence` replaces, oldest first: an interrupted
/// removal leaves no gap.
pub(crate) fn remove_replaced(backend: &dyn Backend, sequence: u64) -> io::Result<()> {
    let mut replaced: Vec<FileName> = backend
        .names()?
        .iter()
        .filter_map(|it| FileName::parse(it))
        .filter(|it| it.sequence < sequence)
        .collect();
    replaced.sort_by_key(|it| (it.sequence, it.kind == FileKind::Snapshot));
    for name in replaced {
        backend.remove(&name.text())?;
    }
    Ok(())
}
