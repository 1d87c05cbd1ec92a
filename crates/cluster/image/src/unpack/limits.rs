//! How much one layer may be: in entries, in bytes, and of what the disk has left.

use std::os::fd::AsFd;

use super::{Error, Refusal};
use crate::tarball::{Entry, Kind};

/// Most entries of one layer. The largest images of models and development tools have less than a
/// million files in all their layers.
pub(super) const ENTRIES_MAX: u64 = 4_000_000;

/// Most bytes of one layer, holes counted: images of models come with some dozens of gigabytes.
pub(super) const BYTES_MAX: u64 = 256 << 30;

/// What no layer takes of a disk: the smaller of a twentieth and this, in bytes. The cluster's own
/// store and logs are on the same one.
const RESERVE_BYTES: u64 = 1 << 30;

/// The same of its inodes.
const RESERVE_INODES: u64 = 10_000;

/// Bytes between two looks at the disk: far less than the reserve.
const BYTES_BETWEEN: u64 = 32 << 20;

/// Entries between two looks at the disk.
const ENTRIES_BETWEEN: u64 = 4096;

/// What of a layer's limits is used.
#[derive(Debug, Default)]
pub(super) struct Budget {
    entries: u64,
    bytes: u64,
    /// Written since the last look.
    unchecked: u64,
}

impl Budget {
    /// Counts an entry.
    pub(super) fn entry(&mut self, place: impl AsFd, entry: &Entry) -> Result<(), Error> {
        self.entries += 1;
        if let Kind::File { size, .. } = entry.kind {
            self.bytes = self.bytes.saturating_add(size);
        }
        if ENTRIES_MAX < self.entries {
            return Err(Error::Entries);
        }
        if BYTES_MAX < self.bytes {
            return Err(Error::Bytes);
        }
        if self.entries % ENTRIES_BETWEEN == 1 { look(place) } else { Ok(()) }
    }

    /// Counts bytes that were written.
    pub(super) fn written(&mut self, place: impl AsFd, count: usize) -> Result<(), Refusal> {
        self.unchecked += count as u64;
        if BYTES_BETWEEN <= self.unchecked {
            self.unchecked = 0;
            look(place).map_err(|it| Refusal::Disk(Box::new(it)))?;
        }
        Ok(())
    }
}

fn look(place: impl AsFd) -> Result<(), Error> {
    let disk = rustix::fs::fstatvfs(place).map_err(|it| Error::Look(it.into()))?;
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < RESERVE_BYTES.min(total / 20) {
        return Err(Error::Disk);
    }
    // Some file systems have no fixed number of inodes.
    if disk.f_files != 0 && disk.f_favail < RESERVE_INODES.min(disk.f_files / 20) {
        return Err(Error::Disk);
    }
    Ok(())
}
