//! The handle: reading, writing, watching.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    Config, Entry, Event, EventKind, Expect, OpenError, Page, Range, Revision, Watch, WatchError,
    WriteError,
    backend::{Backend, Folder},
    commit::{Shared, Ticket},
    format::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    limits::Limits,
    recover,
};

/// A handle to an open store. Clones are handles to the same store; with the last one it closes.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    _committer: Arc<Committer>,
}

impl Store {
    /// Opens the store in `config.dir`, making it if there is none.
    ///
    /// # Errors
    /// The folder is in use or cannot be used, or its content is corrupt or too new.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let failed =
            |source| OpenError::Io { action: "open the folder", path: config.dir.clone(), source };
        let Some(folder) = Folder::lock(&config.dir).map_err(failed)? else {
            return Err(OpenError::Locked { dir: config.dir.clone() });
        };
        Self::open_on(config, Arc::new(folder))
    }

    /// [`Store::open`] on a disk of the caller's, for tests that make it fail.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_on(config: &Config, backend: Arc<dyn Backend>) -> Result<Self, OpenError> {
        Self::open_with(config, Limits::default(), backend)
    }

    pub(crate) fn open_with(
        config: &Config,
        limits: Limits,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, OpenError> {
        let recovered = recover::recover(config, limits, backend)?;
        Self::start(Shared::new(recovered, limits), config)
    }

    /// The handle to what has been read or made.
    pub(crate) fn start(shared: Shared, config: &Config) -> Result<Self, OpenError> {
        let shared = Arc::new(shared);
        let committer = Committer::start(Arc::clone(&shared)).map_err(|source| OpenError::Io {
            action: "start a thread for",
            path: config.dir.clone(),
            source,
        })?;
        Ok(Self { shared, _committer: Arc::new(committer) })
    }

    /// The last acknowledged write.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.lock().revision
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.shared.lock().index.get(key).cloned()
    }

    /// The entries of a range, all as of one moment.
    #[must_use]
    pub fn range(&self, range: Range<'_>) -> Page {
        let state = self.shared.lock();
        let (entries, remaining) = state.index.range(&range);
        Page { revision: state.revision, entries, remaining }
    }

    /// Writes a value, and returns the entry once it is as durable as configured.
    ///
    /// `value` is called with the revision the write will have, under the store's lock: it should
    /// do no more than put the number into bytes already made. It is not called on a conflict.
    /// Once this future has been polled, dropping it does not undo the write.
    ///
    /// # Errors
    /// The write did not happen; after [`WriteError::Failed`] it may yet turn up on reopening. A
    /// conflict is answered when the write that it was lost to can be read, so that whoever reads
    /// again finds another entry than before.
    pub async fn put(
        &self,
        key: Bytes,
        expect: Expect,
        value: impl FnOnce(Revision) -> Bytes + Send,
    ) -> Result<Entry, WriteError> {
        check_size("key", key.len(), KEY_BYTES_MAX)?;
        let submitted = self.submit_put(key.clone(), expect, value);
        self.finish(&key, submitted).await
    }

    pub(crate) fn submit_put(
        &self,
        key: Bytes,
        expect: Expect,
        value: impl FnOnce(Revision) -> Bytes,
    ) -> Result<(Ticket, Entry), WriteError> {
        let mut state = self.shared.lock();
        state.writable(self.shared.limits())?;
        let previous = state.pending(&key).cloned();
        if !expect.holds(previous.as_ref()) {
            return Err(WriteError::Conflict { current: previous });
        }
        let modified = state.next_revision();
        let value = value(modified);
        check_size("value", value.len(), VALUE_BYTES_MAX)?;
        let created = previous.as_ref().map_or(modified, |it| it.created);
        let entry = Entry { key, value, created, modified };
        let event = Event { kind: EventKind::Put, entry: entry.clone(), previous };
        Ok((state.enqueue(event), entry))
    }

    /// Deletes a key, and returns what watchers are shown: the entry with the value that `last`
    /// makes from the revision of the deletion and the entry as it stood, under the same rules as
    /// in [`Store::put`].
    ///
    /// # Errors
    /// The deletion did not happen, as for `put`. A key that is not there is a conflict.
    pub async fn delete(
        &self,
        key: &[u8],
        expect: Expect,
        last: impl FnOnce(Revision, &Entry) -> Bytes + Send,
    ) -> Result<Entry, WriteError> {
        let submitted = self.submit_delete(key, expect, last);
        self.finish(key, submitted).await
    }

    pub(crate) fn submit_delete(
        &self,
        key: &[u8],
        expect: Expect,
        last: impl FnOnce(Revision, &Entry) -> Bytes,
    ) -> Result<(Ticket, Entry), WriteError> {
        let mut state = self.shared.lock();
        state.writable(self.shared.limits())?;
        let previous = match state.pending(key) {
            Some(entry) if expect.holds(Some(entry)) => entry.clone(),
            current => return Err(WriteError::Conflict { current: current.cloned() }),
        };
        let modified = state.next_revision();
        let value = last(modified, &previous);
        check_size("value", value.len(), VALUE_BYTES_MAX)?;
        let entry = Entry { value, modified, ..previous.clone() };
        let event =
            Event { kind: EventKind::Delete, entry: entry.clone(), previous: Some(previous) };
        Ok((state.enqueue(event), entry))
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits for what became of a write.
    async fn finish(
        &self,
        key: &[u8],
        submitted: Result<(Ticket, Entry), WriteError>,
    ) -> Result<Entry, WriteError> {
        let (ticket, entry) = match submitted {
            Ok(submitted) => submitted,
            Err(error) => {
                if matches!(error, WriteError::Conflict { .. }) {
                    self.shared.settle(key).await;
                }
                return Err(error);
            }
        };
        if let Some(log) = ticket.log {
            if ticket.quick {
                self.shared.commit(log);
            } else {
                blocking(|| self.shared.commit(log));
            }
        }
        // The other end is dropped unanswered only if a commit has panicked.
        ticket.done.await.unwrap_or_else(|_| Err(WriteError::abandoned()))?;
        Ok(entry)
    }

    /// The events of all keys under `prefix` after a revision.
    ///
    /// # Errors
    /// The history does not go back so far, or the revision has not happened.
    pub fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watch, WatchError> {
        let prefix = Bytes::copy_from_slice(prefix);
        let id = self.shared.lock().history.watch(prefix, after)?;
        Ok(Watch::new(Arc::clone(&self.shared), id))
    }

    /// Waits until the store has failed and takes no more writes. Usually for ever.
    pub async fn failed(&self) {
        self.shared.failed.cancelled().await;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

fn check_size(what: &'static str, bytes: usize, max: usize) -> Result<(), WriteError> {
    if bytes > max { Err(WriteError::TooLarge { what, bytes, max }) } else { Ok(()) }
}

/// Runs what may wait for the disk for long. Other tasks of a multi-threaded runtime go on
/// meanwhile, on another thread.
fn blocking(work: impl FnOnce()) {
    match Handle::try_current().map(|it| it.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A runtime of one thread is a test or a tool: there it would be the wrong thread anyway.
        _ => work(),
    }
}

/// The committer thread; dropping this closes the store.
struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || worker.run_committer())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.close(thread);
    }
}
