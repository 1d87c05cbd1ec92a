//! Snapshots: all entries at one revision in one file, so that older log files can go.
//!
//! Crash-safe: the file is complete and durable before it gets its name, and nothing is removed
//! before that name is durable.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    Entry, Revision,
    backend::{Backend, BackendFile, Mode},
    format::{FileKind, FileName, Header, Record, RecordKind},
};

/// Bytes that are encoded before they are written.
const CHUNK_BYTES: usize = 256 << 10;

/// A snapshot to be written.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) backend: Arc<dyn Backend>,
    /// The first log file that is still needed beside it.
    pub(crate) sequence: u64,
    /// Bytes of the log files before that one.
    pub(crate) replaces_bytes: u64,
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    /// Writes the file and removes what it replaces. `cancelled` is looked at now and then.
    pub(crate) fn write(&self, cancelled: &AtomicBool) -> io::Result<()> {
        let name = FileName::snapshot(self.sequence);
        let prepared = self.prepare(name, cancelled);
        if prepared.is_err() {
            // Frees the space. If this fails too, the next start removes the file.
            drop(self.backend.remove(&name.temporary()));
        }
        prepared?;
        self.backend.rename(&name.temporary(), &name.text())?;
        self.backend.sync_folder()?;
        remove_replaced(&*self.backend, self.sequence)
    }

    fn prepare(&self, name: FileName, cancelled: &AtomicBool) -> io::Result<()> {
        let file = self.backend.open(&name.temporary(), Mode::Create)?;
        let header = Header { name, base: self.revision, unflushed: false };
        let mut writer = Writer { file, offset: 0, buffer: header.encode().to_vec() };
        for entry in &self.entries {
            record(entry).encode(&mut writer.buffer);
            if writer.buffer.len() >= CHUNK_BYTES {
                if cancelled.load(Ordering::Relaxed) {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "the store closes"));
                }
                writer.flush()?;
            }
        }
        self.end().encode(&mut writer.buffer);
        writer.flush()?;
        writer.file.sync()
    }

    const fn end(&self) -> Record<'static> {
        Record {
            kind: RecordKind::End,
            revision: self.revision,
            durable: Revision::ZERO,
            created: Revision::new(self.entries.len() as u64),
            key: &[],
            value: &[],
        }
    }
}

struct Writer {
    file: Box<dyn BackendFile>,
    offset: u64,
    buffer: Vec<u8>,
}

impl Writer {
    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn record(entry: &Entry) -> Record<'_> {
    Record {
        kind: RecordKind::Entry,
        revision: entry.modified,
        durable: Revision::ZERO,
        created: entry.created,
        key: &entry.key,
        value: &entry.value,
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
