//! What others may ask of the node: logs, and that it stops its pods.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use client::Key;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};

use crate::{
    context::Folders,
    logs::{self, LogOptions, LogsError, Watcher},
    spares::Spares,
};

/// How long beyond the grace period pods may take to be taken down when the node stops.
const TAKE_DOWN_MAX: Duration = Duration::from_secs(15);

/// The pods that have a worker.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pods: Mutex<BTreeMap<Key, Registered>>,
    added: Notify,
    removed: Notify,
}

#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) pod: Arc<Pod>,
    pub(crate) folders: Folders,
    pub(crate) status: watch::Receiver<PodStatus>,
}

impl Registry {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<Key, Registered>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods, by name.
    pub(crate) fn list(&self) -> Vec<(Key, Registered)> {
        self.pods().iter().map(|(key, it)| (key.clone(), it.clone())).collect()
    }

    /// Waits until there is a pod.
    pub(crate) async fn occupied(&self) {
        loop {
            let added = self.added.notified();
            tokio::pin!(added);
            // Registered before looking, so that no pod falls between.
            added.as_mut().enable();
            if !self.pods().is_empty() {
                return;
            }
            added.await;
        }
    }

    /// Registers a pod until the result is dropped.
    pub(crate) fn register(self: &Arc<Self>, registered: Registered) -> Registration {
        let key = Key::of(registered.pod.as_ref());
        let uid = registered.folders.uid.clone();
        self.pods().insert(key.clone(), registered);
        self.added.notify_waiters();
        Registration { registry: Arc::clone(self), key, uid }
    }
}

/// A pod's place in the registry.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    key: Key,
    uid: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut pods = self.registry.pods();
        // By now another pod may have the name.
        if pods.get(&self.key).is_some_and(|it| it.folders.uid == self.uid) {
            pods.remove(&self.key);
        }
        drop(pods);
        self.registry.removed.notify_waiters();
    }
}

/// The node, for those who ask it for something. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) registry: Arc<Registry>,
    pub(crate) node_stops: watch::Sender<Option<Duration>>,
    pub(crate) watcher: Watcher,
    pub(crate) spares: Spares,
    pub(crate) name: Arc<str>,
}

impl Handle {
    pub(crate) fn new(
        (registry, watcher, spares): (Arc<Registry>, Watcher, Spares),
        name: Arc<str>,
    ) -> Self {
        Self { registry, node_stops: watch::Sender::new(None), watcher, spares, name }
    }

    /// The log of a container of the pod `namespace/name`: `container` if it is named, else the only
    /// one. The stream ends with the log, or, if it follows, when the container has ended.
    pub fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Bytes>, LogsError> {
        let registered = self.registry.pods().get(&Key::namespaced(namespace, name)).cloned();
        let Some(Registered { pod, folders, status }) = registered else {
            return Err(LogsError::NotFound(name.to_owned()));
        };
        let container = logs::choose_container(&pod, container)?;
        let attempt = logs::choose_attempt(&status.borrow(), name, &container, options.previous)?;
        let path = folders.log(&container, attempt);
        let source = logs::Source { path, run: (container, attempt), status };
        Ok(logs::read(source, options, &self.watcher)?.boxed())
    }

    /// Whether the node works on the pod of this uid.
    #[must_use]
    pub fn has(&self, uid: &str) -> bool {
        self.registry.pods().values().any(|it| it.folders.uid == uid)
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends what waits for pods that will begin. For a node whose tasks have stopped while the process goes
    /// on.
    pub async fn clear(&self) {
        self.spares.clear().await;
    }

    /// Stops every pod as if it were deleted, with at most `grace` for each, all at once; API
    /// objects, volumes and logs stay, and the next start of the node starts the pods again.
    /// Returns whether all of them have stopped in time. The node takes no more pods from then on.
    pub async fn stop_all(&self, grace: Duration) -> bool {
        self.node_stops.send_replace(Some(grace));
        let stopped = async {
            loop {
                let removed = self.registry.removed.notified();
                tokio::pin!(removed);
                // Registered before looking, so that no removal falls between.
                removed.as_mut().enable();
                if self.registry.pods().is_empty() {
                    return self.spares.clear().await;
                }
                removed.await;
            }
        };
        tokio::time::timeout(grace + TAKE_DOWN_MAX, stopped).await.is_ok()
    }
}
