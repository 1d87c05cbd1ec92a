//! The messages of one topic: an append-only log in segments, with group commit.
//!
//! * A batch is one frame: after a crash it is there whole or not at all.
//! * What was acknowledged is never cut and never passed over in silence: what cannot be read is
//!   [`Read::Skipped`], with the next sequence that can.
//! * Numbers are gapless, and one that was acknowledged never returns. Where messages may have been
//!   lost because they were not flushed, numbers are passed over, and that is a `Skipped` too.
//! * A write or flush that fails ends publishing until the log is opened anew. A full disk does
//!   not: batches are refused until there is room.
//!
//! It knows nothing of channels: whoever uses it says what is finished, and retention decides when
//! it is deleted.

mod chunk;
mod commit;
mod format;
mod limits;
mod open;
mod read;
mod run;
mod scan;
mod shared;
mod state;
mod types;
mod writer;

#[cfg(test)]
mod tests;

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use tokio::sync::watch;

pub use commit::{Committers, MemoryLimits};
pub use run::{Messages, Run};
pub use types::{
    AppendError, Appended, Damage, LogConfig, OpenError, Read, ReadError, ReadLimit, Recovered,
    Retention, Why,
};

use crate::{
    Durability,
    message::{Nanos, NewMessage, Sequence},
};
use limits::{FRAME_BYTES_MAX, Sizes};
use open::{Opener, micros};
use shared::{Parts, Shared};
use state::State;

/// One topic's messages. A cheap handle.
///
/// What it hands out shares memory with the pieces it was written or read in, of up to 128 KiB (a
/// larger batch is one piece): what is kept long should be copied.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

impl Log {
    /// Opens the log in a folder of its own, which is made if it is not there. Takes milliseconds,
    /// and reads the last segment: not for a thread that must not block.
    ///
    /// # Errors
    /// Files cannot be read or made, or are none of this program's. Nothing is lost by trying.
    pub fn open(
        committers: &Committers,
        dir: PathBuf,
        config: LogConfig,
        now: Nanos,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(committers, dir, config, Sizes::STANDARD, now)
    }

    fn open_with(
        committers: &Committers,
        dir: PathBuf,
        config: LogConfig,
        sizes: Sizes,
        now: Nanos,
    ) -> Result<(Self, Recovered), OpenError> {
        let pool = Arc::clone(&committers.0);
        let opener = Opener { disk: &*pool.disk, dir: &dir, config, sizes, now };
        let open::Opening { state, salt, recovered } = opener.open()?;
        let cut_bytes = recovered.cut_bytes;
        if cut_bytes > 0 {
            tracing::warn!(
                log = %dir.display(),
                bytes = cut_bytes,
                "cut the torn end: a batch was interrupted before it was acknowledged"
            );
        }
        for damage in &recovered.damage {
            tracing::error!(log = %dir.display(), "{damage}");
        }
        let dir = Arc::from(dir);
        let parts = Parts { pool, dir, config, sizes, salt, messages_max: None, state };
        Ok((Self(Arc::new(Shared::new(parts))), recovered))
    }

    /// A log without files, for an ephemeral topic: it has the last `messages_max` messages, or as
    /// many of them as are not finished.
    #[must_use]
    pub fn ephemeral(committers: &Committers, messages_max: u64, now: Nanos) -> Self {
        let config = LogConfig { durability: Durability::Memory, retention: Retention::default() };
        let mut state = State::new(micros(now));
        state.finished = state.next;
        Self(Arc::new(Shared::new(Parts {
            pool: Arc::clone(&committers.0),
            dir: Arc::from(PathBuf::new()),
            config,
            sizes: Sizes::STANDARD,
            salt: 0,
            messages_max: Some(messages_max),
            state,
        })))
    }

    /// Appends a batch, as one: it is there whole or not at all. Quick: it only copies the messages
    /// once. They can be read when [`Log::end`] has passed them, and it is told when
    /// [`Log::committed`] has.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended.
    pub fn append(&self, now: Nanos, messages: &[NewMessage]) -> Result<Appended, AppendError> {
        let mut state = self.0.lock();
        if messages.is_empty() {
            let range = state.next..state.next;
            return if state.closed { Err(AppendError::Closed) } else { Ok(done(range)) };
        }
        let length = frame_length(messages)?;
        state.writable(length, self.0.pool.waiting_max()).inspect_err(|error| {
            if matches!(error, AppendError::NoSpace { .. }) {
                // Perhaps there is room now: it is tried again whenever somebody asks.
                self.0.enqueue(&mut state);
            }
        })?;
        let durability = self.0.config.durability;
        let new = state.new_frame(durability, now, self.0.salt);
        state.encode(new, length, messages);
        let range = new.first..state.next;
        if durability != Durability::Memory {
            let outcome = Some(state.wait());
            self.0.requeue(&mut state);
            return Ok(Appended { range, outcome });
        }
        state.commit_unwritten();
        if let Some(max) = self.0.messages_max {
            state.waiting_bytes = 0;
            let kept = Sequence(range.end.0.saturating_sub(max));
            state.finished = state.finished.max(kept);
            state.forget_below(kept);
        }
        self.0.requeue(&mut state);
        drop(state);
        self.0.progress.send_modify(|it| *it = (*it).max(range.end));
        Ok(done(range))
    }

    /// Waits until a batch of some size is welcome again, after [`AppendError::Full`].
    pub async fn room(&self) {
        let mut progress = self.0.progress.subscribe();
        while self.is_full() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_full(&self) -> bool {
        let writable = self.0.lock().writable(1, self.0.pool.waiting_max());
        matches!(writable, Err(AppendError::Full))
    }

    /// The end of what is acknowledged and may be read (exclusive), as of now.
    #[must_use]
    pub fn end(&self) -> Sequence {
        self.0.lock().committed
    }

    /// [`Log::end`], whenever it has moved: those who published are told before. Also told when
    /// [`Log::health`] has changed.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Sequence> {
        self.0.progress.subscribe()
    }

    /// Whether publishing works: the disk has not failed, and was not full when last tried, or has
    /// room since. Asks the file system if it was full.
    ///
    /// # Errors
    /// What the disk said.
    pub fn health(&self) -> Result<(), AppendError> {
        let state = self.0.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let Some(full) = state.full.clone() else { return Ok(()) };
        drop(state);
        // Nobody may publish as long as this says that it is in vain.
        if self.0.has_room_again(&full) { Ok(()) } else { Err(full) }
    }

    /// Reads from memory, without IO: `None` if the message is not there, and then
    /// [`Log::read`] knows more.
    #[must_use]
    pub fn read_cached(&self, from: Sequence, limit: ReadLimit) -> Option<Vec<Run>> {
        self.0.read_memory(from, limit)
    }

    /// Reads what is next, from files if need be: for a thread that may block.
    ///
    /// # Errors
    /// The disk has failed. Damage is no error.
    pub fn read(&self, from: Sequence, limit: ReadLimit) -> Result<Read, ReadError> {
        self.0.read(from, limit)
    }

    /// Reads single messages, each into memory of its own; `None` for one that is not there or
    /// damaged. Costs least if they are in order. May block.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn get(&self, sequences: &[Sequence]) -> Result<Vec<Option<Run>>, ReadError> {
        self.0.get(sequences)
    }

    /// The first message that was published at that time or later, or the end. May block.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn since(&self, time: Nanos) -> Result<Sequence, ReadError> {
        self.0.since(time)
    }

    /// The oldest message that is there, or the end.
    #[must_use]
    pub fn first(&self) -> Sequence {
        self.0.lock().first()
    }

    /// The sequence of the next message. Of those before, some may not be committed yet.
    #[must_use]
    pub fn next(&self) -> Sequence {
        self.0.lock().next
    }

    /// How many messages of a range are known not to be there: to be subtracted from a depth.
    #[must_use]
    pub fn missing(&self, range: Range<Sequence>) -> u64 {
        let state = self.0.lock();
        let first = state.first();
        let retired = range.start.until(range.end.min(first));
        let holes = state.holes.values().map(|it| {
            let from = it.from.max(range.start).max(first);
            from.until(it.until.min(range.end))
        });
        retired + holes.sum::<u64>()
    }

    /// How many messages are known to be damaged or in files that are not there, of those that
    /// retention would still have.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        let state = self.0.lock();
        let first = state.first();
        let lost = state.holes.values().filter(|it| it.is_loss());
        lost.map(|it| it.from.max(first).until(it.until)).sum()
    }

    /// How many bytes its files have.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.0.lock().file_bytes()
    }

    /// Says that everything below is finished by everybody: what retention does not keep is
    /// deleted, soon and in the background. To be called now and then, for the sake of age.
    pub fn retire(&self, finished: Sequence, now: Nanos) {
        let mut state = self.0.lock();
        state.finished = state.finished.max(finished.min(state.committed));
        if self.0.messages_max.is_some() {
            let finished = state.finished;
            state.forget_below(finished);
            return;
        }
        let retention = self.0.config.retention;
        let least = self.0.sizes.segment_retired_bytes;
        if state.has_retired(retention, now) || state.should_end(retention, now, least) {
            state.retire_at = Some(now);
            self.0.enqueue(&mut state);
        }
    }

    /// Writes all that waits, whatever the durability; with `Durability::Disk` it is flushed too.
    /// May block.
    ///
    /// # Errors
    /// The disk is full or has failed. With `Durability::Memory` something that was acknowledged
    /// is not in files then.
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    /// Ends the log, with everything flushed; publishing is refused from now on, reading goes on.
    /// May block.
    ///
    /// # Errors
    /// As of [`Log::flush`].
    pub fn close(&self, now: Nanos) -> io::Result<()> {
        self.0.close(now)
    }

    /// Ends the log and deletes its files. May block.
    ///
    /// # Errors
    /// They cannot be deleted, or not all of them.
    pub fn delete(&self) -> io::Result<()> {
        self.0.stop();
        if self.0.messages_max.is_some() {
            return Ok(());
        }
        let (disk, dir) = (&self.0.pool.disk, &self.0.dir);
        disk.remove_folder(dir)?;
        dir.parent().map_or(Ok(()), |above| disk.sync_folder(above))
    }
}

const fn done(range: Range<Sequence>) -> Appended {
    Appended { range, outcome: None }
}

fn frame_length(messages: &[NewMessage]) -> Result<usize, AppendError> {
    let bytes = format::length_of(messages).ok_or(AppendError::KeyTooLong)?;
    let limit = FRAME_BYTES_MAX;
    if bytes > limit { Err(AppendError::TooLarge { bytes, limit }) } else { Ok(bytes) }
}
