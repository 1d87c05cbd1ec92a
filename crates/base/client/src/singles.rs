//! Caches of single objects, each for as long as somebody holds it: for who needs few of a kind
//! that may have very many, as a node needs the ConfigMaps of its pods.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use kube::{Client, Resource};
use runtime::{OnExit, Tasks};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Cache, Key, Object, Subscription, reflector, selector};

/// Those objects of kind `K` that somebody holds, each kept current by a watch of its own. Cheap to
/// clone; all clones share the watches.
pub struct Singles<K> {
    client: Client,
    tasks: Tasks,
    held: Held<K>,
}

type Held<K> = Arc<Mutex<BTreeMap<Key, Weak<Single<K>>>>>;

impl<K> Clone for Singles<K> {
    fn clone(&self) -> Self {
        let (client, tasks) = (self.client.clone(), self.tasks.clone());
        Self { client, tasks, held: Arc::clone(&self.held) }
    }
}

impl<K> fmt::Debug for Singles<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singles").finish_non_exhaustive()
    }
}

impl<K> Singles<K>
where
    K: Object + Resource<DynamicType = ()>,
{
    pub(crate) fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, held: Arc::default() }
    }

    /// Keeps the object under `key` current until all that this returned for it is dropped. The
    /// first call starts the watch, inside a tokio runtime.
    #[must_use]
    pub fn hold(&self, key: &Key) -> Arc<Single<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(single) = held.get(key).and_then(Weak::upgrade) {
            return single;
        }
        let cache = Cache::new("single object");
        let ended = CancellationToken::new();
        let collection = K::url_path(&(), key.namespace.as_deref());
        let path = selector::of_name(&collection, &key.name);
        let (client, fed, end) = (self.client.clone(), cache.clone(), ended.clone());
        self.tasks.spawn("reflector", OnExit::Log, |stop| async move {
            tokio::select! {
                biased;
                () = end.cancelled() => Ok(()),
                result = reflector::run(client, path, fed, stop) => result,
            }
        });
        let (key, others) = (key.clone(), Arc::clone(&self.held));
        let single = Arc::new(Single { key, cache, others, _watch: ended.drop_guard() });
        held.insert(single.key.clone(), Arc::downgrade(&single));
        single
    }

    /// The object, as last heard of; none if it is not there, or if nobody holds it.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let single = held.get(key).and_then(Weak::upgrade);
        // The last holder may have gone since: what is dropped here takes the lock again.
        drop(held);
        single?.cache.get(key)
    }
}

/// One object that is held.
pub struct Single<K> {
    key: Key,
    cache: Cache<K>,
    others: Held<K>,
    _watch: DropGuard,
}

impl<K> fmt::Debug for Single<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<K: Object> Single<K> {
    /// Waits until it is known whether the object is there.
    pub async fn synced(&self) {
        self.cache.synced().await;
    }

    /// Hears of the object, if it is there, then of every change of it.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<K> {
        self.cache.subscribe()
    }
}

impl<K> Drop for Single<K> {
    fn drop(&mut self) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have begun to hold it anew.
        if others.get(&self.key).is_some_and(|it| it.strong_count() == 0) {
            others.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::{Caches, fake::Server};

    #[tokio::test(start_paused = true)]
    async fn is_watched_while_somebody_holds_it() {
        let (server, tasks) = (Server::default(), Tasks::default());
        let object = |uid: &str| json!({"metadata": {"namespace": "a", "name": "x", "uid": uid}});
        let path = "/api/v1/namespaces/a/configmaps/x";
        server.put(path, object("1"));
        let singles = Caches::new(server.client(), &tasks).singles::<ConfigMap>();
        let key = Key::namespaced("a", "x");
        let uid = || singles.get(&key).and_then(|it| it.metadata.uid.clone());
        assert_eq!(uid(), None);
        let (one, other) = (singles.hold(&key), singles.hold(&key));
        one.synced().await;
        assert_eq!(uid().as_deref(), Some("1"));
        drop(one);
        let mut changes = other.subscribe();
        changes.next().await;
        server.put(path, object("2"));
        changes.next().await;
        assert_eq!(uid().as_deref(), Some("2"));
        let query = "fieldSelector=metadata.name%3Dx";
        assert_eq!(server.reads(), [format!("list?{query}"), format!("watch 1?{query}")]);
        drop(other);
        assert_eq!(uid(), None);
        // Nothing is left to wait for.
        assert!(singles.held.lock().unwrap().is_empty());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(server.reads().len(), 2);
        singles.hold(&key).synced().await;
        assert_eq!(uid(), None);
        assert!(tasks.shutdown(Duration::from_secs(1)).await);
    }
}
