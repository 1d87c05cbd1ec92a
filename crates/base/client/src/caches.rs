//! One cache per kind per process, started when first asked for; and caches of a part of a kind, for who
//! may not see all of it.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{Client, Resource, core::ApiResource};
use runtime::{OnExit, Tasks};

use crate::{Cache, Metadata, Object, Singles, reflector, selector};

/// Gives out the caches of this process. Cheap to clone; all clones share the caches.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    tasks: Tasks,
    started: Arc<Mutex<Started>>,
}

#[derive(Default)]
struct Started {
    typed: BTreeMap<TypeId, Box<dyn Any + Send>>,
    metadata: BTreeMap<String, Cache<Metadata>>,
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

impl Caches {
    /// No cache yet. Those that will be started read through `client` and live in `tasks`.
    #[must_use]
    pub fn new(client: Client, tasks: &Tasks) -> Self {
        Self { client, tasks: tasks.clone(), started: Arc::default() }
    }

    /// The cache of kind `K` in all namespaces. The first call starts it, inside a tokio runtime.
    #[must_use]
    pub fn of<K>(&self) -> Cache<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let known = started.typed.get(&TypeId::of::<K>());
        if let Some(cache) = known.and_then(|it| it.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        // The name of a kind outlives the process's interest in it: one leak per kind.
        let kind = K::kind(&()).into_owned().leak();
        let cache = self.start(kind, K::url_path(&(), None));
        started.typed.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        cache
    }

    /// The cache of the metadata of `resource` in all namespaces. It stands beside that of the
    /// typed objects: who works on all kinds alike does not know their types.
    #[must_use]
    pub fn metadata(&self, resource: &ApiResource) -> Cache<Metadata> {
        let path = Metadata::url_path(resource, None);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let known = started.metadata.get(&path);
        known.cloned().unwrap_or_else(|| {
            let cache = self.start(resource.kind.clone().leak(), path.clone());
            started.metadata.insert(path, cache.clone());
            cache
        })
    }

    /// A cache of those objects of kind `K` in `namespace` whose labels `selector` selects, in the
    /// API's words (`app=web,tier!=test`). Each call starts one more, inside a tokio runtime: this
    /// is for who needs few of a kind, or may not read them all.
    #[must_use]
    pub fn selected<K>(&self, namespace: &str, selector: &str) -> Cache<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        let path = selector::of_labels(&K::url_path(&(), Some(namespace)), selector);
        self.start("selected objects", path)
    }

    /// Caches of single objects of kind `K`; nothing is watched yet.
    #[must_use]
    pub fn singles<K>(&self) -> Singles<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        Singles::new(self.client.clone(), self.tasks.clone())
    }

    fn start<K: Object>(&self, kind: &'static str, path: String) -> Cache<K> {
        let cache = Cache::new(kind);
        let (client, fed) = (self.client.clone(), cache.clone());
        self.tasks.spawn("reflector", OnExit::StopProcess, |stop| {
            reflector::run(client, path, fed, stop)
        });
        cache
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::fake::Server;

    #[tokio::test(start_paused = true)]
    async fn a_part_of_a_kind_is_asked_for_as_such() {
        let (server, tasks) = (Server::default(), Tasks::default());
        let object = json!({"metadata": {"namespace": "a", "name": "x"}});
        server.put("/api/v1/namespaces/a/configmaps/x", object.clone());
        server.put("/api/v1/namespaces/b/configmaps/x", object);
        let caches = Caches::new(server.client(), &tasks);
        let cache = caches.selected::<ConfigMap>("a", "k=v,!n");
        let mut changes = cache.subscribe();
        changes.next().await;
        assert_eq!(cache.list().len(), 1);
        server.delete("/api/v1/namespaces/a/configmaps/x");
        changes.next().await;
        let query = "labelSelector=k%3Dv%2C%21n";
        assert_eq!(server.reads(), [format!("list?{query}"), format!("watch 2?{query}")]);
    }
}
