//! Group commit: how writes get from callers through the log into sight.
//!
//! A write is judged and given its revision under a lock, then waits in the queue. Whoever finds
//! the log free takes it and appends everything that is queued, with one flush for all: with a
//! single writer that is the writer itself, without any change of thread. What has queued up
//! meanwhile is left to the committer thread, so that no caller works for others for ever.
//! Readers and watchers see a write only after that, so they never see one that can be lost.

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    pin::pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    thread::JoinHandle,
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    Entry, Event, Revision, WriteError,
    compact::{Compaction, Job},
    format::RECORD_MORE_BYTES_MAX,
    history::History,
    index::Index,
    limits::Limits,
    log::{AppendError, Appended, Log},
    recover::Recovered,
};

/// Everything the handles, the watches and the threads of a store share.
pub(crate) struct Shared {
    state: Mutex<State>,
    doorbell: Doorbell,
    /// Cancelled when the store has failed.
    pub(crate) failed: CancellationToken,
    /// Told whenever queued writes have become visible, or will not.
    settled: Notify,
    pub(crate) closing: AtomicBool,
    limits: Limits,
}

/// What the lock protects. The disk is never touched under it.
#[derive(Debug)]
pub(crate) struct State {
    /// Acknowledged entries.
    pub(crate) index: Index,
    /// Acknowledged events.
    pub(crate) history: History,
    /// The last acknowledged write.
    pub(crate) revision: Revision,
    queue: Queue,
    /// None while somebody appends.
    log: Option<Log>,
    failure: Option<Arc<io::Error>>,
    pub(crate) compaction: Compaction,
}

/// Writes on their way to the disk.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Write>,
    waiting_bytes: usize,
    /// The last event of each key that is on its way, also of those being appended just now.
    ahead: BTreeMap<Bytes, Arc<Event>>,
    /// The last revision given out.
    last: Revision,
}

/// One queued write and who waits for it.
#[derive(Debug)]
struct Write {
    event: Arc<Event>,
    done: oneshot::Sender<Result<(), WriteError>>,
}

/// A queued write, seen from its caller.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) done: oneshot::Receiver<Result<(), WriteError>>,
    /// The log, if it was free: then the caller must commit.
    pub(crate) log: Option<Log>,
    /// Whether that is likely to be quick.
    pub(crate) quick: bool,
}

impl State {
    /// The entry of a key as the next write will find it.
    pub(crate) fn pending(&self, key: &[u8]) -> Option<&Entry> {
        match self.queue.ahead.get(key) {
            Some(event) => event.standing(),
            None => self.index.get(key),
        }
    }

    /// The revision of the last write of a key that is on its way.
    fn ahead(&self, key: &[u8]) -> Option<Revision> {
        self.queue.ahead.get(key).map(|it| it.revision())
    }

    /// Whether that write of a key is still on its way.
    fn is_queued(&self, key: &[u8], write: Revision) -> bool {
        self.revision < write && self.queue.ahead.contains_key(key)
    }

    /// The revision of the next write.
    pub(crate) const fn next_revision(&self) -> Revision {
        self.queue.last.next()
    }

    /// Whether a write may be queued at all.
    pub(crate) fn writable(&self, limits: &Limits) -> Result<(), WriteError> {
        if let Some(failure) = &self.failure {
            return Err(WriteError::Failed(Arc::clone(failure)));
        }
        if self.queue.waiting_bytes >= limits.pending_bytes {
            return Err(WriteError::Busy);
        }
        Ok(())
    }

    /// Queues a write whose revision is [`State::next_revision`].
    pub(crate) fn enqueue(&mut self, event: Event) -> Ticket {
        let (sender, done) = oneshot::channel();
        let event = Arc::new(event);
        self.queue.last = event.revision();
        self.queue.waiting_bytes += event.entry.len();
        self.queue.ahead.insert(event.entry.key.clone(), Arc::clone(&event));
        self.queue.waiting.push(Write { event, done: sender });
        let log = self.log.take();
        let bytes = self.queue.waiting_bytes + self.queue.waiting.len() * RECORD_MORE_BYTES_MAX;
        let quick = log.as_ref().is_some_and(|it| it.is_quick(bytes));
        Ticket { done, log, quick }
    }

    fn take_waiting(&mut self) -> Vec<Write> {
        self.queue.waiting_bytes = 0;
        mem::take(&mut self.queue.waiting)
    }

    /// Makes an appended batch visible.
    fn show(&mut self, batch: &[Write]) -> Vec<Waker> {
        let mut wake = Vec::new();
        for Write { event, .. } in batch {
            self.index.apply(event);
            self.revision = event.revision();
            let ahead = self.queue.ahead.get(&event.entry.key);
            if ahead.is_some_and(|it| it.revision() == event.revision()) {
                self.queue.ahead.remove(&event.entry.key);
            }
            self.history.push(Arc::clone(event), &mut wake);
        }
        wake
    }

    /// Takes back everything that is not visible: what was queued behind a write that did not
    /// happen was judged against it. The revisions were seen by nobody and are given out again.
    fn take_back(&mut self) -> Vec<Write> {
        self.queue.ahead.clear();
        self.queue.last = self.revision;
        self.take_waiting()
    }
}

impl Shared {
    pub(crate) fn new(recovered: Recovered, limits: Limits) -> Self {
        let Recovered { index, history, revision, log, sealed_bytes } = recovered;
        let state = State {
            index,
            history,
            revision,
            queue: Queue { last: revision, ..Queue::default() },
            log: Some(log),
            failure: None,
            compaction: Compaction::new(sealed_bytes),
        };
        Self {
            state: Mutex::new(state),
            doorbell: Doorbell::default(),
            failed: CancellationToken::new(),
            settled: Notify::new(),
            closing: AtomicBool::new(false),
            limits,
        }
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The state. A caller's closure may panic under the lock, but only before anything is
    /// changed, so the state is whole even then.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends everything that is queued, and tells everybody concerned.
    pub(crate) fn commit(self: &Arc<Self>, mut log: Log) {
        let batch = self.lock().take_waiting();
        let outcome = log.append(batch.iter().map(|it| &*it.event));
        match outcome {
            Ok(appended) => self.committed(log, batch, appended),
            Err(AppendError::NoSpace(error)) => {
                let answer = WriteError::NoSpace(Arc::new(error));
                let mut state = self.lock();
                let queued = state.take_back();
                state.log = Some(log);
                drop(state);
                self.settled.notify_waiters();
                answer_all(batch.into_iter().chain(queued), &Err(answer));
            }
            Err(AppendError::Failed(error)) => self.fail(batch, error),
        }
    }

    fn committed(self: &Arc<Self>, log: Log, batch: Vec<Write>, appended: Appended) {
        let mut state = self.lock();
        let wake = state.show(&batch);
        let job = appended.sealed_bytes.and_then(|bytes| {
            let live = state.index.bytes() as u64;
            let cost = bytes + self.limits.file_cost_bytes;
            let due = self.limits.compact_bytes.max(live);
            state.compaction.sealed(cost, due).then(|| Job::new(&log, state.revision))
        });
        state.log = Some(log);
        let more = !state.queue.waiting.is_empty();
        drop(state);
        if more {
            self.doorbell.ring();
        }
        self.settled.notify_waiters();
        wake.into_iter().for_each(Waker::wake);
        answer_all(batch, &Ok(()));
        self.compact(job);
    }

    fn fail(&self, batch: Vec<Write>, error: io::Error) {
        tracing::error!(%error, "the log has failed: no write is taken until the store is reopened");
        let error = Arc::new(error);
        let mut state = self.lock();
        state.failure = Some(Arc::clone(&error));
        let queued = state.take_back();
        drop(state);
        self.settled.notify_waiters();
        answer_all(batch.into_iter().chain(queued), &Err(WriteError::Failed(error)));
        self.failed.cancel();
    }

    /// Waits until the write of `key` that is queued now, if there is one, can be read, or will not
    /// happen.
    pub(crate) async fn settle(&self, key: &[u8]) {
        let Some(queued) = self.lock().ahead(key) else { return };
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            if !self.lock().is_queued(key, queued) {
                return;
            }
            settled.await;
        }
    }

    /// Runs the committer thread until the store closes.
    pub(crate) fn run_committer(self: &Arc<Self>) {
        while self.doorbell.wait() {
            let mut state = self.lock();
            let log = if state.queue.waiting.is_empty() { None } else { state.log.take() };
            drop(state);
            if let Some(log) = log {
                self.commit(log);
            }
        }
    }

    /// Stops the threads, ends the watches and lets go of the folder.
    pub(crate) fn close(&self, committer: Option<JoinHandle<()>>) {
        self.closing.store(true, Ordering::Relaxed);
        self.doorbell.close();
        let compactor = self.lock().compaction.take_thread();
        for thread in [committer, compactor].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
        let mut state = self.lock();
        let wake = state.history.close();
        let log = state.log.take();
        drop(state);
        drop(log);
        wake.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

fn answer_all(writes: impl IntoIterator<Item = Write>, answer: &Result<(), WriteError>) {
    for write in writes {
        // A caller that has gone away does not want to know.
        drop(write.done.send(answer.clone()));
    }
}

/// Wakes the committer thread.
#[derive(Debug, Default)]
struct Doorbell {
    bell: Mutex<Bell>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bell {
    #[default]
    Silent,
    Rung,
    Closed,
}

impl Doorbell {
    fn ring(&self) {
        self.set(Bell::Rung);
    }

    fn close(&self) {
        self.set(Bell::Closed);
    }

    fn set(&self, to: Bell) {
        let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        if *bell != Bell::Closed {
            *bell = to;
        }
        drop(bell);
        self.changed.notify_one();
    }

    /// Waits for a ring; false when closed.
    fn wait(&self) -> bool {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(bell, |it| *it == Bell::Silent);
        let mut bell = waited.unwrap_or_else(PoisonError::into_inner);
        let rung = *bell == Bell::Rung;
        if rung {
            *bell = Bell::Silent;
        }
        rung
    }
}
