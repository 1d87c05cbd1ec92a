//! Compaction: when a snapshot is due, and writing it while writes go on.
//!
//! What is in the file, and why it survives a crash, is told in `snapshot`.

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};

use crate::{Durability, Revision, backend::Backend, commit::Shared, log::Log, snapshot::Snapshot};

/// How much of the log could be replaced, and what is being done about it.
#[derive(Debug)]
pub(crate) struct Compaction {
    /// Bytes of the finished log files that no snapshot replaces.
    sealed_bytes: u64,
    running: bool,
    thread: Option<JoinHandle<()>>,
    /// With `Limits::compact_inline`, what the next commit goes on with.
    inline: Option<Job>,
}

/// A snapshot to be written.
#[derive(Debug)]
pub(crate) struct Job {
    backend: Arc<dyn Backend>,
    durability: Durability,
    sequence: u64,
    base: Revision,
    /// What it will free. Set when it is begun.
    sealed_bytes: u64,
    snapshot: Option<Snapshot>,
}

impl Job {
    /// A snapshot of everything up to `base`, a write that is in the file being appended to.
    pub(crate) fn new(log: &Log, base: Revision) -> Self {
        Self {
            backend: Arc::clone(log.backend()),
            durability: log.durability(),
            sequence: log.sequence(),
            base,
            sealed_bytes: 0,
            snapshot: None,
        }
    }
}

impl Compaction {
    pub(crate) const fn new(sealed_bytes: u64) -> Self {
        Self { sealed_bytes, running: false, thread: None, inline: None }
    }

    /// Takes note of a finished log file; true if a snapshot must be begun.
    pub(crate) const fn sealed(&mut self, bytes: u64, due: u64) -> bool {
        self.sealed_bytes += bytes;
        let begin = !self.running && self.sealed_bytes >= due;
        self.running |= begin;
        begin
    }

    /// The thread that is writing a snapshot, if any.
    pub(crate) const fn take_thread(&mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }

    /// Takes note of the end of a snapshot.
    const fn ended(&mut self, freed_bytes: u64) {
        self.running = false;
        self.sealed_bytes = self.sealed_bytes.saturating_sub(freed_bytes);
    }
}

impl Shared {
    /// Begins a snapshot, if there is one to be begun.
    pub(crate) fn compact(self: &Arc<Self>, job: Option<Job>) {
        if self.limits().compact_inline {
            return self.compact_inline(job);
        }
        let Some(job) = job else { return };
        let job = self.begun(job);
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name("store-compact".to_owned());
        let started = thread.spawn(move || {
            let mut job = Some(job);
            while let Some(unfinished) = job {
                job = shared.advance(unfinished);
            }
        });
        let mut state = self.lock();
        match started {
            Ok(thread) => state.compaction.thread = Some(thread),
            Err(error) => {
                state.compaction.ended(0);
                drop(state);
                tracing::warn!(%error, "cannot start compacting the log");
            }
        }
    }

    fn compact_inline(&self, job: Option<Job>) {
        let begun = job.map(|it| self.begun(it));
        let unfinished = mem::take(&mut self.lock().compaction.inline);
        let rest = begun.or(unfinished).and_then(|it| self.advance(it));
        self.lock().compaction.inline = rest;
    }

    fn begun(&self, job: Job) -> Job {
        let sealed_bytes = self.lock().compaction.sealed_bytes;
        Job { sealed_bytes, ..job }
    }

    /// Does the next piece; returns the job if there is more to do.
    fn advance(&self, mut job: Job) -> Option<Job> {
        match self.write_piece(&mut job) {
            Ok(true) => Some(job),
            Ok(false) => {
                self.lock().compaction.ended(job.sealed_bytes);
                None
            }
            Err(error) => {
                // The log goes on growing, and the next file that is full tries again.
                Snapshot::abandon(&*job.backend, job.sequence);
                self.lock().compaction.ended(0);
                if !self.closing.load(Ordering::Relaxed) {
                    tracing::warn!(%error, "cannot compact the log");
                }
                None
            }
        }
    }

    /// Writes the next piece, or what comes after the last; false when all is done.
    fn write_piece(&self, job: &mut Job) -> io::Result<bool> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the store closes"));
        }
        let mut snapshot = match job.snapshot.take() {
            Some(snapshot) => snapshot,
            None => Snapshot::create(&job.backend, job.sequence, job.base)?,
        };
        let state = self.lock();
        let piece = state.index.piece(snapshot.last(), self.limits().compact_entries);
        let copied = state.revision;
        drop(state);
        if piece.is_empty() {
            snapshot.finish(copied, job.durability)?;
            return Ok(false);
        }
        snapshot.add(&piece)?;
        job.snapshot = Some(snapshot);
        Ok(true)
    }
}
