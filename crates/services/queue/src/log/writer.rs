//! Writes the last segment of a log, and begins the next one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;

use super::{
    chunk::Chunk,
    format::{self, HEADER_BYTES, Header, Kind, Mark, NewFrame, TEMPORARY},
    limits::{WRITE_BYTES, WRITE_DIRECT_BYTES},
};
use crate::{
    Durability,
    disk::{Disk, DiskFile, Mode, is_full},
    message::{Nanos, Sequence},
};

/// The end of the last segment.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(super) used: u64,
    pub(super) header: Header,
}

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There was no room, and all is as before.
    NoSpace(io::Error),
    /// Nothing is known of the end of the segment any more.
    Failed(io::Error),
}

impl WriteError {
    fn of(error: io::Error) -> Self {
        if is_full(&error) { Self::NoSpace(error) } else { Self::Failed(error) }
    }
}

/// Makes an empty segment; its name is there when it is durable. Replaces one of the same name.
pub(super) fn create(disk: &dyn Disk, dir: &Path, header: Header) -> io::Result<Writer> {
    let path = path(dir, header.first);
    let mut temporary = path.clone().into_os_string();
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let write = || {
        let file = disk.open(&temporary, Mode::Create)?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_folder(dir)?;
        Ok(Writer { file: Arc::from(file), used: HEADER_BYTES, header })
    };
    write().inspect_err(|_| {
        // It is removed at the next start, if not now.
        drop(disk.remove(&temporary));
    })
}

/// Where the segment that begins there is.
pub(super) fn path(dir: &Path, first: Sequence) -> PathBuf {
    dir.join(format::file_name(first))
}

impl Writer {
    /// Writes chunks, and flushes them if they are to survive the machine.
    pub(super) fn write(&mut self, chunks: &[Chunk]) -> Result<(), WriteError> {
        let mut offset = self.used;
        match self.write_at(&mut offset, chunks) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                return Err(match self.file.set_len(self.used) {
                    Ok(()) => WriteError::NoSpace(error),
                    Err(error) => WriteError::Failed(error),
                });
            }
            Err(error) => return Err(WriteError::Failed(error)),
        }
        if self.header.durability == Durability::Disk {
            self.file.sync().map_err(WriteError::Failed)?;
        }
        self.used = offset;
        Ok(())
    }

    fn write_at(&self, offset: &mut u64, chunks: &[Chunk]) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut put = |bytes: &[u8]| {
            self.file.write_at(*offset, bytes)?;
            *offset += bytes.len() as u64;
            io::Result::Ok(())
        };
        for (place, chunk) in chunks.iter().enumerate() {
            let alone = chunk.bytes.len() >= WRITE_DIRECT_BYTES || place + 1 == chunks.len();
            if alone && buffer.is_empty() {
                put(&chunk.bytes)?;
                continue;
            }
            buffer.extend_from_slice(&chunk.bytes);
            if buffer.len() >= WRITE_BYTES {
                put(&buffer)?;
                buffer.clear();
            }
        }
        if buffer.is_empty() { Ok(()) } else { put(&buffer) }
    }

    /// Flushes this segment, begins the next one, and ends this one with its index.
    pub(super) fn roll(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        first: Sequence,
        marks: &[Mark],
    ) -> Result<(), WriteError> {
        // First, so that what is before the next segment is whole, whatever the durability.
        self.file.sync().map_err(WriteError::Failed)?;
        let header = Header { first, previous_end: first, boot: disk.boot(), ..self.header };
        let next = create(disk, dir, header).map_err(WriteError::of)?;
        let index = format::encode_index(marks, first, self.used, self.header.salt);
        match self.file.write_at(self.used, &index) {
            // The index only saves time; for the same reason it need not be flushed.
            Err(error) if is_full(&error) => {
                self.file.set_len(self.used).map_err(WriteError::Failed)?;
            }
            other => other.map_err(WriteError::Failed)?,
        }
        *self = next;
        Ok(())
    }

    /// Notes that all is here, and flushes it.
    pub(super) fn close(&mut self, end: Sequence, time: Nanos) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        let salt = self.header.salt;
        let new = NewFrame { kind: Kind::Closed, first: end, settled: end, time, salt };
        format::encode(&mut bytes, new, &[]);
        match self.file.write_at(self.used, &bytes) {
            // What must be written is; only that it was closed will not be known.
            Err(error) if is_full(&error) => self.file.set_len(self.used)?,
            other => other?,
        }
        self.file.sync()
    }
}
