//! Tells who follows a log that its folder has changed: one inotify instance for all of them (a user
//! has 128 by default). Nothing is watched, and nothing wakes, while nobody follows.

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::{OnExit, Tasks, watch_descriptor};
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Bytes for events read at once: some dozens.
const EVENTS_BYTES: usize = 4096;

/// Watches folders. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inotify: AsyncFd<OwnedFd>,
    /// Who waits, by watch descriptor. A folder watched twice has one descriptor.
    folders: Mutex<BTreeMap<i32, watch::Sender<()>>>,
}

impl Shared {
    fn folders(&self) -> MutexGuard<'_, BTreeMap<i32, watch::Sender<()>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Starts watching nothing. Must be called inside a tokio runtime.
    pub(crate) fn new(tasks: &Tasks) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            inotify: watch_descriptor(inotify, Interest::READABLE)?,
            folders: Mutex::new(BTreeMap::new()),
        });
        let run = Arc::clone(&shared);
        tasks.spawn("log-watcher", OnExit::StopProcess, |stop| run.run(stop));
        Ok(Self { shared })
    }

    /// Watches `folder` until the result is dropped.
    pub(crate) fn folder(&self, folder: &Path) -> io::Result<Changes> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let mut folders = self.shared.folders();
        let id = inotify::add_watch(self.shared.inotify.get_ref(), folder, flags)?;
        let receiver = folders.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
        drop(folders);
        Ok(Changes { shared: Arc::clone(&self.shared), id, receiver })
    }
}

/// Changes of one folder.
#[derive(Debug)]
pub(crate) struct Changes {
    shared: Arc<Shared>,
    id: i32,
    receiver: watch::Receiver<()>,
}

impl Changes {
    /// Waits until something in the folder has changed since the last call.
    pub(crate) async fn next(&mut self) {
        // The sender lives until this is dropped.
        drop(self.receiver.changed().await);
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut folders = self.shared.folders();
        // This receiver is still counted.
        if folders.get(&self.id).is_some_and(|it| it.receiver_count() <= 1) {
            folders.remove(&self.id);
            // Fails if the folder is gone, which has removed the watch.
            inotify::remove_watch(self.shared.inotify.get_ref(), self.id).unwrap_or_default();
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let mut ready = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ready = self.inotify.readable() => ready?,
            };
            let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
            let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        if let Some(sender) = self.folders().get(&event.wd()) {
                            sender.send_replace(());
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn tells_of_changes() {
        let tasks = Tasks::default();
        let watcher = Watcher::new(&tasks).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut one = watcher.folder(folder.path()).unwrap();
        let mut two = watcher.folder(folder.path()).unwrap();
        fs::write(folder.path().join("a"), "a").unwrap();
        one.next().await;
        two.next().await;
        drop(one);
        fs::write(folder.path().join("b"), "b").unwrap();
        two.next().await;
        drop(two);
        assert!(watcher.shared.folders().is_empty());
    }
}
