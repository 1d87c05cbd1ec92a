//! Tells the journal what happens, on a thread of its own: writing blocks.
//!
//! What changes a topic or channel is written at once, and whoever acknowledges it waits for
//! [`Recorder::settled`]. What consumers do is collected for some milliseconds: nobody was promised
//! it, and what is lost of it is delivered again.

use std::{
    fmt, io, mem,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use runtime::Clock;
use tokio::sync::watch;

use super::Channel;
use crate::{
    Durability,
    journal::{Change, Journal},
    message::Nanos,
    name::Name,
};

/// How long what consumers do is collected. A killed process delivers so much again.
const COLLECT: Duration = Duration::from_millis(5);

/// How often what consumers did is flushed to the disk, if nothing else is. A power cut lets so
/// much be delivered again.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// After a failure it is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);

/// What was changed is not safe, because the disk is full or has failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "cannot write the journal at {}: free some room on its disk or look after it; it is tried \
     again by itself",
    folder.display()
)]
pub struct NotSettled {
    folder: Arc<Path>,
    source: Arc<io::Error>,
}

#[derive(Debug, Default)]
struct Pending {
    changes: Vec<Change>,
    /// Channels with something done that was not collected.
    active: Vec<(Name, Channel)>,
    /// How many changes there were, ever.
    count: u64,
    /// Something failed and is to be tried again, whether there is something new or not.
    again: bool,
    stop: bool,
}

/// How far the journal is written.
#[derive(Clone, Debug, Default)]
struct Written {
    count: u64,
    failure: Option<NotSettled>,
}

struct Shared {
    pending: Mutex<Pending>,
    bell: Condvar,
    written: watch::Sender<Written>,
    clock: Clock,
    durability: Durability,
}

/// Takes what is to be written. A cheap handle.
#[derive(Clone)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn start(
        journal: Journal,
        clock: Clock,
        durability: Durability,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            bell: Condvar::new(),
            written: watch::Sender::default(),
            clock,
            durability,
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into());
        let thread = thread.spawn(move || own.run(journal))?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Something happened to a topic or channel.
    pub(super) fn record(&self, change: Change) {
        self.record_all([change]);
    }

    /// Several things happened, which are written together.
    pub(super) fn record_all(&self, changes: impl IntoIterator<Item = Change>) {
        let mut pending = self.shared.lock();
        pending.changes.extend(changes);
        pending.count += 1;
        self.shared.bell.notify_one();
    }

    /// A channel has something to tell. To be called once until it was asked.
    pub(super) fn active(&self, topic: &Name, channel: Channel) {
        let mut pending = self.shared.lock();
        pending.active.push((topic.clone(), channel));
        if pending.active.len() == 1 {
            self.shared.bell.notify_one();
        }
    }

    /// Waits until all changes so far are as durable as they must be.
    ///
    /// # Errors
    /// The disk is full or has failed. The changes hold as long as this process lives, and are
    /// written when that is possible.
    pub(super) async fn settled(&self) -> Result<(), NotSettled> {
        let count = self.shared.lock().count;
        let mut written = self.shared.written.subscribe();
        let settled = written.wait_for(|it| it.count >= count || it.failure.is_some()).await;
        // That something else cannot be written is no concern of who waits for what is there.
        let failure = settled.ok().filter(|it| it.count < count).and_then(|it| it.failure.clone());
        failure.map_or(Ok(()), Err)
    }

    /// What the disk said when it last said no, if it has not taken everything since.
    pub(super) fn failure(&self) -> Option<NotSettled> {
        self.shared.written.borrow().failure.clone()
    }

    /// Writes and flushes everything, and ends. Blocks.
    pub(super) fn close(&self) {
        self.shared.lock().stop = true;
        self.shared.bell.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|it| it.join().is_err()) {
            tracing::error!("the thread that writes the journal has panicked");
        }
    }
}

impl Shared {
    fn run(&self, mut journal: Journal) {
        let mut synced = self.now();
        loop {
            let Pending { changes, active, count, again, stop } = self.wait();
            let settle = again || !changes.is_empty();
            journal.append(changes);
            journal.append(active.into_iter().filter_map(|(topic, channel)| {
                let progress = channel.progress()?;
                let channel = channel.name().clone();
                Some(Change::Progress { topic, channel, progress })
            }));
            let old = self.now().since(synced) >= SYNC_PERIOD;
            let sync = stop || self.durability == Durability::Disk && (settle || old);
            let flushed = journal.flush(sync);
            if sync {
                synced = self.now();
            }
            let folder = || Arc::from(journal.folder());
            let failure =
                flushed.err().map(|it| NotSettled { folder: folder(), source: Arc::new(it) });
            let failed = failure.is_some();
            self.tell(failure.as_ref());
            self.written.send_modify(|it| {
                // What was not written is still in the journal's memory: the next flush that works
                // writes all.
                it.count = if failed { it.count } else { count };
                it.failure = failure;
            });
            if stop {
                return;
            }
            if failed {
                self.lock().again = true;
                self.pause();
            }
        }
    }

    /// Tells the operator when writing began to fail, and when it works again.
    fn tell(&self, failure: Option<&NotSettled>) {
        match (failure, self.written.borrow().failure.is_some()) {
            (Some(error), false) => tracing::error!(error = crate::chain(error), "not durable"),
            (None, true) => tracing::info!("the journal is written again"),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// Waits for something to write and takes it.
    fn wait(&self) -> Pending {
        let mut pending = self.lock();
        loop {
            let settled = pending.count == self.written.borrow().count;
            if pending.stop || pending.again || !settled {
                break;
            }
            if !pending.active.is_empty() {
                let waited = self.bell.wait_timeout(pending, COLLECT);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            pending = self.bell.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let (count, stop) = (pending.count, pending.stop);
        let again = mem::take(&mut pending.again);
        let changes = mem::take(&mut pending.changes);
        let active = mem::take(&mut pending.active);
        Pending { changes, active, count, again, stop }
    }

    /// Lets time pass after a failure, unless it is to stop.
    fn pause(&self) {
        let pending = self.lock();
        let waited = self.bell.wait_timeout_while(pending, RETRY, |it| !it.stop);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Nothing under this lock can leave it half changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        Nanos::of(self.clock.now())
    }
}
