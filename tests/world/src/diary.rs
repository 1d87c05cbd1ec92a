//! Everything that happens to the objects of a world, in the order in which it happened.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use client::Client;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use runtime::{Clock, OnExit, Tasks};
use serde_json::Value;

/// The kinds that are followed: those that controllers write.
const KINDS: [(&str, &str, &str); 9] = [
    ("", "v1", "Namespace"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("", "v1", "ServiceAccount"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Event"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("discovery.k8s.io", "v1", "EndpointSlice"),
];

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it was seen.
    pub time: Timestamp,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: String,
    /// The object as it then was.
    pub object: Value,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |path: &str| self.object.pointer(path).and_then(Value::as_str).unwrap_or("");
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let revision = text("/metadata/resourceVersion");
        let (time, verb, kind) = (self.time, self.verb, &self.kind);
        write!(f, "{time} {verb} {kind} {namespace}/{name} @{revision}")?;
        match self.kind.as_str() {
            "Event" => write!(f, " {} {}", text("/reason"), text("/message")),
            _ => {
                let part = |name: &str| self.object.get(name).cloned().unwrap_or_default();
                write!(f, " {} {}", part("spec"), part("status"))
            }
        }
    }
}

/// The list of all changes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Diary {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Diary {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// How much has happened so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing has happened so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn follow(&self, client: &Client, clock: &Clock, tasks: &Tasks) {
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let (diary, clock) = (self.clone(), clock.clone());
            tasks.spawn("diary", OnExit::Log, |stop| async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Ok(()),
                    result = diary.watch(&api, kind, &clock) => result,
                }
            });
        }
    }

    /// Objects that were there before come as `ADDED` too.
    async fn watch(
        &self,
        api: &Api<DynamicObject>,
        kind: &str,
        clock: &Clock,
    ) -> anyhow::Result<()> {
        let mut from = "0".to_owned();
        loop {
            let params = WatchParams::default().timeout(290);
            let mut events = api.watch(&params, &from).await?.boxed();
            while let Some(event) = events.try_next().await? {
                let (verb, object) = match event {
                    WatchEvent::Added(object) => ("ADDED", object),
                    WatchEvent::Modified(object) => ("MODIFIED", object),
                    WatchEvent::Deleted(object) => ("DELETED", object),
                    WatchEvent::Bookmark(bookmark) => {
                        from = bookmark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => anyhow::bail!("diary of {kind}: {status}"),
                };
                from = object.metadata.resource_version.clone().unwrap_or(from);
                let (time, kind) = (clock.now(), kind.to_owned());
                let object = serde_json::to_value(object)?;
                self.lock().push(Entry { time, verb, kind, object });
            }
            // The watch was at its end, not the diary.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
