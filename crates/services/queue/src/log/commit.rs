//! Group commit: how batches get from publishers to the disk.
//!
//! Publishers append to memory. What has gathered by the time a committer thread looks is written
//! at once, with one flush; meanwhile the next lot gathers. So 64 publishers of one topic pay one
//! flush in 64, and a topic never waits for itself. The threads serve all topics of an nsqd, one
//! topic each at a time, in the order in which they have something to do: with 1 000 topics, no
//! thread and no timer per topic, and several flushes on their way to the disk at once.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    chunk::Chunk,
    format::{HEADER_BYTES, Mark},
    limits::SPILL_BYTES,
    shared::Shared,
    state::{Opened, Segment, State},
    types::AppendError,
    writer::{self, WriteError, Writer},
};
use crate::{
    Durability,
    disk::Disk,
    message::{Nanos, Sequence},
};

/// How much memory all logs together may use.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// For what waits for the disk, in bytes. A log may use its share; beyond, publishing waits.
    pub waiting_bytes: usize,
    /// For what was published or read lately, in bytes, so that it need not be read from files.
    pub recent_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { waiting_bytes: 64 << 20, recent_bytes: 64 << 20 }
    }
}

/// No share is smaller than this: below, reading and writing are in drops.
const SHARE_BYTES_MIN: usize = 256 << 10;

/// No log waits with more than this for the disk: beyond, waiting longer is all it would do.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// The threads that write what is published. A cheap handle; `close` stops them.
#[derive(Clone)]
pub struct Committers(pub(super) Arc<Pool>);

/// What the threads share.
pub(super) struct Pool {
    pub(super) disk: Arc<dyn Disk>,
    memory: MemoryLimits,
    logs: AtomicUsize,
    queue: Mutex<Queue>,
    bell: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    /// Logs that have something to do, each once.
    waiting: VecDeque<Arc<Shared>>,
    closed: bool,
}

impl fmt::Debug for Committers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committers").field("disk", &self.0.disk).finish_non_exhaustive()
    }
}

impl Committers {
    /// How many threads to start: enough that one slow flush does not hold up all topics, and no
    /// more than a disk has use for at once.
    pub const THREADS: usize = 4;

    /// Starts the threads. With none, logs write only when they are flushed or closed.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(disk: Arc<dyn Disk>, memory: MemoryLimits, threads: usize) -> io::Result<Self> {
        let pool = Arc::new(Pool {
            disk,
            memory,
            logs: AtomicUsize::new(0),
            queue: Mutex::default(),
            bell: Condvar::new(),
            threads: Mutex::default(),
        });
        let committers = Self(pool);
        for number in 0..threads {
            let pool = Arc::clone(&committers.0);
            let name = format!("commit-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || pool.run());
            match thread {
                Ok(thread) => lock(&committers.0.threads).push(thread),
                Err(error) => {
                    committers.close();
                    return Err(error);
                }
            }
        }
        Ok(committers)
    }

    /// Stops the threads, when each has finished what it is writing. To lose nothing, close the
    /// logs before.
    pub fn close(&self) {
        lock(&self.0.queue).closed = true;
        self.0.bell.notify_all();
        for thread in std::mem::take(&mut *lock(&self.0.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread that writes messages has panicked");
            }
        }
        lock(&self.0.queue).waiting.clear();
    }
}

impl Pool {
    fn run(&self) {
        while let Some(log) = self.next() {
            log.work();
        }
    }

    fn next(&self) -> Option<Arc<Shared>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(log) = queue.waiting.pop_front() {
                return Some(log);
            }
            queue = self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has a thread look after a log. The caller sees to it that each log is in the queue once.
    pub(super) fn enqueue(&self, log: Arc<Shared>) {
        let mut queue = lock(&self.queue);
        if !queue.closed {
            queue.waiting.push_back(log);
            drop(queue);
            self.bell.notify_one();
        }
    }

    pub(super) fn joined(&self) {
        self.logs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.logs.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many bytes one log may have waiting for the disk.
    pub(super) fn waiting_max(&self) -> usize {
        self.share(self.memory.waiting_bytes).min(WAITING_BYTES_MAX)
    }

    /// How many bytes of recent messages one log may keep.
    pub(super) fn recent_max(&self) -> usize {
        self.share(self.memory.recent_bytes)
    }

    /// From how many bytes on messages are written that need not be yet.
    pub(super) fn spill_bytes(&self) -> usize {
        SPILL_BYTES.min(self.waiting_max() / 2)
    }

    fn share(&self, bytes: usize) -> usize {
        SHARE_BYTES_MIN.max(bytes / self.logs.load(Ordering::Relaxed).max(1))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something to do on the disk for one log.
pub(super) struct Job {
    writer: Writer,
    chunks: Vec<Chunk>,
    /// Begin a new segment before, at this sequence; and the index of the one that ends.
    roll: Option<(Sequence, Arc<Vec<Mark>>)>,
    /// Delete these segments, oldest first.
    retired: Vec<Sequence>,
    /// Look once more for what can be deleted, as of then.
    again: Option<Nanos>,
    outcome: Result<(), WriteError>,
    rolled: bool,
}

impl Shared {
    /// Something to do, if there is something and nobody does it: everything that waits if
    /// `flush`, else what is due.
    pub(super) fn take_job(&self, state: &mut State, flush: bool) -> Option<Job> {
        if state.failure.is_some() {
            return None;
        }
        let retire = state.retire_at.take_if(|_| state.writer.is_some());
        let due = flush || self.is_due(state);
        let durability = self.config.durability;
        let next = if due { state.next_chunk_bytes(durability) } else { None };
        if next.is_none() && retire.is_none() {
            return None;
        }
        let writer = state.writer.take()?;
        let retention = self.config.retention;
        let ends = retire.is_some_and(|now| {
            next.is_none() && state.should_end(retention, now, self.sizes.segment_retired_bytes)
        });
        let too_long = next.is_some_and(|it| {
            writer.used > HEADER_BYTES && writer.used + it > self.sizes.segment_bytes
        });
        let roll = if too_long || ends { roll_at(state) } else { None };
        let used = if roll.is_some() { HEADER_BYTES } else { writer.used };
        let room = self.sizes.segment_bytes.saturating_sub(used);
        let chunks = if next.is_some() { state.unwritten(durability, room) } else { Vec::new() };
        let retired = retire.map(|now| state.take_retired(retention, now)).unwrap_or_default();
        let again = retire.filter(|_| ends);
        Some(Job { writer, chunks, roll, retired, again, outcome: Ok(()), rolled: false })
    }

    /// Whether what waits should be written now.
    fn is_due(&self, state: &State) -> bool {
        match self.config.durability {
            Durability::Memory => state.waiting_bytes >= self.pool.spill_bytes(),
            Durability::Process | Durability::Disk => true,
        }
    }

    /// Does what is to be done, on the disk.
    pub(super) fn run_job(&self, job: &mut Job) {
        let disk = &*self.pool.disk;
        // One after the other, durably: a file that stayed or came back alone would look like a gap.
        while let Some(first) = job.retired.first() {
            let path = writer::path(&self.dir, *first);
            if let Err(error) = disk.remove(&path).and_then(|()| disk.sync_folder(&self.dir)) {
                tracing::warn!(file = %path.display(), %error, "cannot delete old messages");
                break;
            }
            job.retired.remove(0);
        }
        job.outcome = self.write(disk, job);
    }

    fn write(&self, disk: &dyn Disk, job: &mut Job) -> Result<(), WriteError> {
        let bytes: u64 = job.chunks.iter().map(|it| it.bytes.len() as u64).sum();
        if bytes > 0 {
            let free = disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
            if free < bytes.saturating_add(self.sizes.keep_free_bytes) {
                let keep = self.sizes.keep_free_bytes;
                let why = format!("{free} bytes are free, {keep} are kept for other uses");
                let error = io::Error::new(io::ErrorKind::StorageFull, why);
                return Err(WriteError::NoSpace(error));
            }
        }
        if let Some((first, marks)) = &job.roll {
            job.writer.roll(disk, &self.dir, *first, marks)?;
            job.rolled = true;
        }
        if job.chunks.is_empty() { Ok(()) } else { job.writer.write(&job.chunks) }
    }

    /// Tells everybody what has come of it.
    pub(super) fn finish_job(self: &Arc<Self>, job: Job) {
        let Job { writer, chunks, outcome, rolled, again, retired, .. } = job;
        let mut state = self.lock();
        state.retired.splice(0..0, retired);
        if rolled {
            add_segment(&mut state, &writer);
            state.retire_at = state.retire_at.max(again);
        }
        let (waiters, answer) = match outcome {
            Ok(()) => {
                self.committed_job(&mut state, chunks);
                state.writer = Some(writer);
                (state.satisfied(), Ok(()))
            }
            Err(WriteError::NoSpace(error)) => {
                if state.full.is_none() {
                    tracing::warn!(log = %self.dir.display(), %error, "the disk is full");
                }
                let full = AppendError::NoSpace { dir: self.dir.clone(), source: error.into() };
                state.full = Some(full.clone());
                state.writer = Some(writer);
                (self.refuse(&mut state), Err(full))
            }
            Err(WriteError::Failed(error)) => {
                tracing::error!(
                    log = %self.dir.display(),
                    %error,
                    "the disk has failed: nothing is published to this topic until it is opened anew"
                );
                let failure = AppendError::Failed { dir: self.dir.clone(), source: error.into() };
                state.failure = Some(failure.clone());
                (self.refuse(&mut state), Err(failure))
            }
        };
        self.requeue(&mut state);
        let committed = state.committed;
        drop(state);
        self.idle.notify_all();
        // Publishers first: what they are told is on its way before anybody is handed the message.
        for waiter in waiters {
            waiter.answer(answer.clone());
        }
        self.progress.send_modify(|it| *it = committed);
    }

    fn committed_job(&self, state: &mut State, chunks: Vec<Chunk>) {
        if !chunks.is_empty() && state.full.take().is_some() {
            tracing::info!(log = %self.dir.display(), "the disk has room again");
        }
        for chunk in chunks {
            state.wrote(&chunk, self.sizes.index_bytes);
            if self.config.durability != Durability::Memory {
                state.committed = chunk.end;
                state.remember(chunk);
            }
        }
        state.trim(self.pool.recent_max());
    }

    /// Whether a disk that was full says that it has room for whatever was refused, so that nobody
    /// is told in turns that it is well and that it is not. A quota is not told in advance.
    pub(super) fn has_room_again(&self, full: &AppendError) -> bool {
        let AppendError::NoSpace { source, .. } = full else { return false };
        let enough = self.sizes.keep_free_bytes + WAITING_BYTES_MAX as u64;
        let free = self.pool.disk.free_bytes(&self.dir);
        source.kind() == io::ErrorKind::StorageFull && free.is_ok_and(|free| free > enough)
    }

    /// What was not written is not there, unless it was acknowledged already.
    fn refuse(&self, state: &mut State) -> Vec<super::state::Waiter> {
        match self.config.durability {
            Durability::Memory => Vec::new(),
            Durability::Process | Durability::Disk => state.take_back(),
        }
    }

    /// Has a thread look at the log if something is due.
    pub(super) fn requeue(self: &Arc<Self>, state: &mut State) {
        let due = state.failure.is_none() && state.waiting_bytes > 0 && self.is_due(state);
        // A full disk in memory mode is tried again with the next batch, not in a circle.
        let in_vain = state.full.is_some() && self.config.durability == Durability::Memory;
        if due && !in_vain || state.retire_at.is_some() {
            self.enqueue(state);
        }
    }

    /// Has a thread look at the log.
    pub(super) fn enqueue(self: &Arc<Self>, state: &mut State) {
        if !state.queued && self.messages_max.is_none() {
            state.queued = true;
            self.pool.enqueue(Arc::clone(self));
        }
    }

    /// What a committer thread does with a log.
    fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        state.queued = false;
        let job = self.take_job(&mut state, false);
        drop(state);
        if let Some(mut job) = job {
            self.run_job(&mut job);
            self.finish_job(job);
        }
    }
}

/// Notes that a segment was begun.
pub(super) fn add_segment(state: &mut State, writer: &Writer) {
    let first = writer.header.first;
    let ended = state.segments.keys().next_back().copied();
    let opened = Opened { file: Arc::clone(&writer.file), marks: Arc::default() };
    let (bytes, time_max) = (HEADER_BYTES, Nanos::default());
    state.segments.insert(first, Segment { end: first, bytes, time_max, opened: Some(opened) });
    if let Some(ended) = ended.filter(|it| *it != first) {
        state.used(ended);
    }
}

/// How the last segment ends if another one is begun now.
fn roll_at(state: &State) -> Option<(Sequence, Arc<Vec<Mark>>)> {
    let (_, segment) = state.segments.last_key_value()?;
    Some((segment.end, Arc::clone(&segment.opened.as_ref()?.marks)))
}
