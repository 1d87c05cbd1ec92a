//! Keys and bytes under one global revision, on the disk before they are acknowledged.
//!
//! Owns the folder it is given: a log with group commit, snapshots that keep the log short, an
//! index in memory, a bounded history for watchers. Does not know what a Pod is: it takes and
//! gives bytes. The files are described in docs/decisions/0002-store.md.
//!
//! What it promises:
//! * A write is acknowledged only when it is as durable as [`Durability`] says, and nobody reads
//!   or watches it before. Preconditions are judged against the writes ahead of it.
//! * Each write has a revision of its own, greater than all before it, also after a crash.
//! * After a crash every acknowledged write is there, and no write is there in part.
//! * If the disk fails, the store takes no more writes ([`Store::failed`]). If the disk is full,
//!   it refuses writes until there is room.

mod backend;
mod backup;
mod commit;
mod compact;
mod entry;
mod error;
mod format;
mod history;
mod index;
mod limits;
mod log;
mod recover;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;

pub use backend::{Backend, BackendFile, Folder, Mode};
pub use backup::{Backup, BackupError, InstallError};
pub use entry::{Entry, Event, EventKind, Expect, Page, Range, Revision};
pub use error::{Lagged, OpenError, WatchError, WriteError};
pub use store::Store;
pub use watch::Watch;

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder; made if it is not there.
    pub dir: PathBuf,
    /// What acknowledged means.
    pub durability: Durability,
    /// How many events are kept for watchers.
    pub history_events_max: usize,
    /// How many bytes of keys and values events may keep for watchers.
    pub history_bytes_max: usize,
}

impl Config {
    /// A store in `dir` with the defaults: durable on the disk; a history of 8 192 events and
    /// 8 MiB, some minutes of a busy small cluster: a client that was away longer lists anew.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            durability: Durability::Disk,
            history_events_max: 8 << 10,
            history_bytes_max: 8 << 20,
        }
    }
}

/// What a write has survived when it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the machine: it has been flushed.
    Disk,
    /// A crash of this process: the kernel has it. Writes can be lost with the machine; then the
    /// store still opens with all writes before some moment, and no revision comes back.
    Process,
}
