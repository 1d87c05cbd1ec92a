//! The log on the disk: appends batches, reserves space ahead, begins new files.
//!
//! Does not know what is visible to readers, and who writes when is decided in `commit`.

use std::{io, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Durability, Event, EventKind, Revision,
    backend::{Backend, BackendFile, Mode},
    format::{FileName, HEADER_BYTES, Header, Record, RecordKind},
    limits::Limits,
};

/// The log, open for appending. Whoever holds it is the one writer.
#[derive(Debug)]
pub(crate) struct Log {
    backend: Arc<dyn Backend>,
    durability: Durability,
    limits: Limits,
    active: Segment,
    /// The last revision of the log, and the last one known to be durable.
    last: Revision,
    durable: Revision,
    buffer: Vec<u8>,
    /// How long an append takes of late: each counts a quarter.
    append_time: Duration,
}

/// The file that is being appended to.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Box<dyn BackendFile>,
    pub(crate) sequence: u64,
    /// Where the next record goes.
    pub(crate) used: u64,
    /// Up to where zeros are durable. Overwriting them changes no metadata, which makes flushing
    /// cheaper, and takes no space, so that a full disk is noticed before a write begins.
    pub(crate) reserved: u64,
}

/// Why a batch was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// No space; the log is as before.
    NoSpace(io::Error),
    /// Nobody knows what the log is like now.
    Failed(io::Error),
}

impl AppendError {
    /// What the machine said, for whom it is all the same.
    pub(crate) fn into_io(self) -> io::Error {
        let (Self::NoSpace(error) | Self::Failed(error)) = self;
        error
    }
}

/// What appending did besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Appended {
    /// Bytes in the file that was finished, if one was.
    pub(crate) sealed_bytes: Option<u64>,
}

impl Log {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        durability: Durability,
        limits: Limits,
        active: Segment,
        last: Revision,
    ) -> Self {
        let (buffer, append_time) = (Vec::new(), Duration::ZERO);
        Self { backend, durability, limits, active, last, durable: last, buffer, append_time }
    }

    /// Number of the file being appended to. A snapshot of everything written until now and more
    /// replaces all files before it.
    pub(crate) const fn sequence(&self) -> u64 {
        self.active.sequence
    }

    /// Whether the next append, of so many bytes, is likely to take no longer than a thread with
    /// other things to do can wait.
    pub(crate) fn is_quick(&self, bytes: usize) -> bool {
        self.append_time < self.limits.append_time_quick
            && self.active.used < self.limits.segment_bytes
            && self.active.used + bytes as u64 <= self.active.reserved
    }

    /// Appends events, of ascending revisions, and makes them as durable as configured.
    pub(crate) fn append<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Event>,
    ) -> Result<Appended, AppendError> {
        let begun = Instant::now();
        let mut appended = Appended::default();
        if self.active.used >= self.limits.segment_bytes {
            appended.sealed_bytes = Some(self.active.used);
            self.rotate()?;
        }
        let mut last = self.last;
        self.buffer.clear();
        for event in events {
            record(event, self.durable).encode(&mut self.buffer);
            last = event.revision();
        }
        let end = self.active.used + self.buffer.len() as u64;
        self.reserve(end)?;
        self.write().map_err(AppendError::Failed)?;
        self.active.used = end;
        self.last = last;
        if self.durability == Durability::Disk {
            self.durable = last;
        }
        self.buffer.shrink_to(self.limits.buffer_kept_bytes);
        self.append_time = (self.append_time * 3 + begun.elapsed()) / 4;
        Ok(appended)
    }

    fn write(&self) -> io::Result<()> {
        self.active.file.write_at(self.active.used, &self.buffer)?;
        match self.durability {
            Durability::Disk => self.active.file.sync(),
            Durability::Process => Ok(()),
        }
    }

    /// Writes zeros ahead, at least up to `end`.
    fn reserve(&mut self, end: u64) -> Result<(), AppendError> {
        if end <= self.active.reserved {
            return Ok(());
        }
        let target = (end + 1).next_multiple_of(self.limits.reserve_bytes);
        let Segment { file, reserved, .. } = &mut self.active;
        let outcome = write_zeros(&**file, *reserved, target).and_then(|()| file.sync());
        if let Err(error) = outcome {
            // What was flushed before stays flushed; only the new zeros are in doubt, and they go.
            if !is_full(&error) {
                return Err(AppendError::Failed(error));
            }
            file.set_len(*reserved).map_err(AppendError::Failed)?;
            return Err(AppendError::NoSpace(error));
        }
        *reserved = target;
        Ok(())
    }

    /// Finishes the file and begins the next one.
    fn rotate(&mut self) -> Result<(), AppendError> {
        // Only the newest file may end in a torn record. Zeros that were not needed go.
        let Segment { file, used, .. } = &self.active;
        file.set_len(*used).and_then(|()| file.sync()).map_err(AppendError::Failed)?;
        self.active.reserved = self.active.used;
        self.durable = self.last;
        let name = FileName::log(self.active.sequence + 1);
        self.active =
            create(&*self.backend, name, self.last, self.durability, self.limits.reserve_bytes)?;
        Ok(())
    }

    /// Where files are kept, for writing a snapshot.
    pub(crate) const fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(crate) const fn durability(&self) -> Durability {
        self.durability
    }
}

/// Makes an empty log file whose first record will be the write after `base`.
pub(crate) fn create(
    backend: &dyn Backend,
    name: FileName,
    base: Revision,
    durability: Durability,
    reserve_bytes: u64,
) -> Result<Segment, AppendError> {
    let header = Header { name, base, unflushed: durability == Durability::Process };
    let prepared = prepare(backend, &header, reserve_bytes).map_err(|error| {
        if is_full(&error) {
            // Frees what little was written. If this fails too, the next start removes it.
            drop(backend.remove(&name.temporary()));
            return AppendError::NoSpace(error);
        }
        AppendError::Failed(error)
    });
    let file = prepared?;
    // Under its own name it is complete, whatever happens.
    backend
        .rename(&name.temporary(), &name.text())
        .and_then(|()| backend.sync_folder())
        .map_err(AppendError::Failed)?;
    let (sequence, used) = (name.sequence, HEADER_BYTES as u64);
    Ok(Segment { file, sequence, used, reserved: reserve_bytes })
}

fn prepare(
    backend: &dyn Backend,
    header: &Header,
    reserve_bytes: u64,
) -> io::Result<Box<dyn BackendFile>> {
    let file = backend.open(&header.name.temporary(), Mode::Create)?;
    file.write_at(0, &header.encode())?;
    write_zeros(&*file, HEADER_BYTES as u64, reserve_bytes)?;
    file.sync()?;
    Ok(file)
}

fn record(event: &Event, durable: Revision) -> Record<'_> {
    Record {
        kind: match event.kind {
            EventKind::Put => RecordKind::Put,
            EventKind::Delete => RecordKind::Delete,
        },
        revision: event.revision(),
        durable,
        created: event.entry.created,
        key: &event.entry.key,
        value: &event.entry.value,
    }
}

fn write_zeros(file: &dyn BackendFile, from: u64, to: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut offset = from;
    while offset < to {
        let rest = usize::try_from(to - offset).unwrap_or(usize::MAX);
        let chunk = ZEROS.get(..rest).unwrap_or(ZEROS);
        file.write_at(offset, chunk)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
