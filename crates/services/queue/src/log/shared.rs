//! What the handles of a log and the threads that serve it share, and how it ends.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{commit::Pool, limits::Sizes, state::State, types::LogConfig, writer::Writer};
use crate::message::{Nanos, Sequence};

/// One log, without its handles.
pub(super) struct Shared {
    pub(super) pool: Arc<Pool>,
    pub(super) dir: Arc<Path>,
    pub(super) config: LogConfig,
    pub(super) sizes: Sizes,
    pub(super) salt: u32,
    /// How many messages may wait, if there are no files.
    pub(super) messages_max: Option<u64>,
    state: Mutex<State>,
    /// Told when the writer is back.
    pub(super) idle: Condvar,
    pub(super) progress: watch::Sender<Sequence>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.left();
    }
}

/// What makes up a log.
pub(super) struct Parts {
    pub(super) pool: Arc<Pool>,
    pub(super) dir: Arc<Path>,
    pub(super) config: LogConfig,
    pub(super) sizes: Sizes,
    pub(super) salt: u32,
    pub(super) messages_max: Option<u64>,
    pub(super) state: State,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { pool, dir, config, sizes, salt, messages_max, state } = parts;
        pool.joined();
        let progress = watch::Sender::new(state.committed);
        let state = Mutex::new(state);
        let idle = Condvar::new();
        Self { pool, dir, config, sizes, salt, messages_max, state, idle, progress }
    }

    /// The state. Nothing panics halfway through a change of it, so it is whole even after a panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes everything that waits, whatever the durability, and flushes what is to be flushed.
    pub(super) fn flush(self: &Arc<Self>) -> io::Result<()> {
        let writer = self.drain()?;
        self.give_back(writer);
        Ok(())
    }

    /// Ends the log, with everything flushed.
    pub(super) fn close(self: &Arc<Self>, now: Nanos) -> io::Result<()> {
        self.lock().closed = true;
        let writer = self.drain()?;
        let end = self.lock().written;
        let Some(mut writer) = writer else { return Ok(()) };
        let closed = writer.close(end, now);
        // Nothing is appended any more, so that what it has written stays the end.
        self.give_back(Some(writer));
        closed
    }

    fn give_back(self: &Arc<Self>, writer: Option<Writer>) {
        let mut state = self.lock();
        state.writer = writer;
        self.requeue(&mut state);
        drop(state);
        self.idle.notify_all();
    }

    /// Ends the log at once. Nobody writes any more when this returns.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.closed = true;
        while self.has_writer(&state) && state.writer.is_none() {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = None;
        state.deleted = true;
        let waiters = state.take_back();
        drop(state);
        drop(waiters);
    }

    /// Whether there is a writer, perhaps with somebody who will bring it back.
    fn has_writer(&self, state: &State) -> bool {
        self.messages_max.is_none() && state.failure.is_none() && !state.deleted
    }

    /// Writes until nothing waits; then the writer is the caller's. None if there are no files.
    fn drain(self: &Arc<Self>) -> io::Result<Option<Writer>> {
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into_io());
            }
            if !self.has_writer(&state) {
                return Ok(None);
            }
            if state.writer.is_none() {
                state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let Some(mut job) = self.take_job(&mut state, true) else {
                return Ok(state.writer.take());
            };
            drop(state);
            self.run_job(&mut job);
            self.finish_job(job);
            state = self.lock();
            // Of what was acknowledged already, something cannot be written.
            if let Some(full) = state.full.as_ref().filter(|_| state.waiting_bytes > 0) {
                return Err(full.clone().into_io());
            }
        }
    }
}
