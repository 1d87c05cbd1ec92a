//! What is known of all objects of one kind, and who wants to hear of changes.
//!
//! Fed by a reflector, read by everyone. A subscriber never lags: for each key that it has not
//! heard of yet, only the object it last saw is kept, so what waits for it is bounded by the number
//! of objects. It sees every object's last state, but not every state in between.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Debug},
    mem,
    ops::Bound,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use kube::Resource;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::Key;

/// How long [`Cache::reached`] waits. Events arrive within milliseconds; if one takes this long
/// the watch is broken and the reader should fail and try again later.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// What can be kept in a cache: every type of `k8s-openapi`, and [`crate::Metadata`].
pub trait Object: Resource + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Resource + DeserializeOwned + Debug + Send + Sync + 'static> Object for K {}

/// One object is no longer as the subscriber last saw it. Both are `None` never; both are `Some`
/// with different uids if the object was deleted and made anew meanwhile.
///
/// A subscriber who is not concerned with every change ([`Cache::subscribe_to`]) has not seen the
/// changes that it is not told of: for it, `old` is the state before the first that it is.
#[derive(Debug)]
pub struct Change<K> {
    /// Which object.
    pub key: Key,
    /// As this subscriber last saw it.
    pub old: Option<Arc<K>>,
    /// As it is now.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as it is now, or as it last was.
    #[must_use]
    pub fn latest(&self) -> Option<&K> {
        self.new.as_deref().or(self.old.as_deref())
    }

    /// The object as it was and as it is, as far as there is one. What an object was matters when
    /// it moved, for instance from one owner to another.
    pub fn both(&self) -> impl Iterator<Item = &K> {
        self.old.as_deref().into_iter().chain(self.new.as_deref())
    }
}

/// The cache did not hear of a revision in time.
#[derive(Debug, thiserror::Error)]
#[error("cache of {kind} has not reached revision `{revision}` within {} s", CATCH_UP_MAX.as_secs())]
pub struct Behind {
    kind: &'static str,
    revision: String,
}

/// All objects of one kind in all namespaces, kept current by a watch. Cheap to clone.
#[derive(Debug)]
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<K> {
    kind: &'static str,
    state: Mutex<State<K>>,
    /// Told of every progress. Wakes those who wait in the order in which they came; a
    /// `tokio::sync::watch` would wake them in a random one, and no run could be repeated.
    moved: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    synced: bool,
    /// The newest revision that the cache has heard of.
    revision: u64,
}

impl Progress {
    fn advance(&mut self, revision: &str, synced: bool) {
        self.synced |= synced;
        self.revision = revision.parse().unwrap_or(0).max(self.revision);
    }
}

#[derive(Debug)]
struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    progress: Progress,
    subscribers: BTreeMap<u64, Subscriber<K>>,
    subscriber_next: u64,
}

impl<K> Shared<K> {
    /// A poisoned lock is taken as it is: every change below is complete before anything can panic.
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Object> Cache<K> {
    pub(crate) fn new(kind: &'static str) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            progress: Progress::default(),
            subscribers: BTreeMap::new(),
            subscriber_next: 0,
        };
        let (state, moved) = (Mutex::new(state), Notify::new());
        Self { shared: Arc::new(Shared { kind, state, moved }) }
    }

    /// The object, as last heard of.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.state().objects.get(key).map(Arc::clone)
    }

    /// All objects, by key.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state().objects.values().map(Arc::clone).collect()
    }

    /// The objects of one namespace for which `wanted` holds, by name. `wanted` runs under the
    /// cache's lock, so it should be quick and must not use this cache.
    #[must_use]
    pub fn list_in(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let first = Key::namespaced(namespace, "");
        let state = self.shared.state();
        let objects = state.objects.range((Bound::Included(first), Bound::Unbounded));
        let objects = objects.take_while(|(key, _)| key.namespace.as_deref() == Some(namespace));
        objects.filter(|(_, it)| wanted(it)).map(|(_, it)| Arc::clone(it)).collect()
    }

    /// Waits until the first list has been read.
    pub async fn synced(&self) {
        self.wait_for(|progress| progress.synced).await;
    }

    /// Waits until the cache has heard of `revision` (the `resourceVersion` that a write of this
    /// kind was answered with), so that the next decision is made on what was just done. This is
    /// what keeps a controller from creating its pods twice.
    ///
    /// Revisions are compared as numbers, which Kubernetes promises since 1.35 (KEP-5504). One
    /// that is no number is not waited for.
    pub async fn reached(&self, revision: &str) -> Result<(), Behind> {
        let Ok(wanted) = revision.parse::<u64>() else { return Ok(()) };
        let heard = self.wait_for(|progress| wanted <= progress.revision);
        tokio::time::timeout(CATCH_UP_MAX, heard)
            .await
            .map_err(|_| Behind { kind: self.shared.kind, revision: revision.to_owned() })
    }

    async fn wait_for(&self, reached: impl Fn(Progress) -> bool) {
        loop {
            let mut moved = pin!(self.shared.moved.notified());
            // From here on no progress is missed, whether or not this has been polled.
            moved.as_mut().enable();
            if reached(self.shared.state().progress) {
                return;
            }
            moved.await;
        }
    }

    /// Hears of every object there is, then of every change.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<K> {
        self.subscribe_to(|_, _| true)
    }

    /// Hears only of changes, from the first argument to the second, that it is `concerned` with:
    /// others do not even wake it. `concerned` runs under the cache's lock, so it should be quick
    /// and must not use this cache.
    #[must_use]
    pub fn subscribe_to(
        &self,
        concerned: impl Fn(Option<&K>, Option<&K>) -> bool + Send + 'static,
    ) -> Subscription<K> {
        let notify = Arc::new(Notify::new());
        let mut state = self.shared.state();
        let id = state.subscriber_next;
        state.subscriber_next += 1;
        let mut subscriber = Subscriber::new(Box::new(concerned), Arc::clone(&notify));
        for (key, object) in &state.objects {
            subscriber.record(key, None, Some(object));
        }
        state.subscribers.insert(id, subscriber);
        drop(state);
        Subscription { shared: Arc::clone(&self.shared), id, notify }
    }

    /// Takes over what a list says: the whole change is seen at once, and subscribers hear only of
    /// what differs. Objects in `unreadable` stay as they were.
    pub(crate) fn replace(&self, objects: Vec<K>, unreadable: &[Key], revision: &str) {
        let mut state = self.shared.state();
        let mut new: BTreeMap<Key, Arc<K>> =
            objects.into_iter().map(|it| (Key::of(&it), Arc::new(it))).collect();
        for key in unreadable {
            if let Some(last) = state.objects.get(key) {
                new.insert(key.clone(), Arc::clone(last));
            }
        }
        let old = mem::replace(&mut state.objects, new);
        let changed: Vec<(Key, Option<Arc<K>>)> = state
            .objects
            .iter()
            .filter(|(key, it)| old.get(*key).is_none_or(|last| !same_state(&**last, &**it)))
            .map(|(key, _)| (key.clone(), old.get(key).map(Arc::clone)))
            .collect();
        let gone: Vec<(Key, Option<Arc<K>>)> =
            old.into_iter().filter(|(key, _)| !state.objects.contains_key(key)).map(some).collect();
        for (key, last) in changed.into_iter().chain(gone) {
            state.record(&key, last.as_ref());
        }
        state.progress.advance(revision, true);
        drop(state);
        self.shared.moved.notify_waiters();
    }

    pub(crate) fn apply(&self, object: K) {
        let key = Key::of(&object);
        let mut state = self.shared.state();
        state
            .progress
            .advance(object.meta().resource_version.as_deref().unwrap_or_default(), false);
        let object = Arc::new(object);
        let last = state.objects.insert(key.clone(), Arc::clone(&object));
        for subscriber in state.subscribers.values_mut() {
            subscriber.record(&key, last.as_ref(), Some(&object));
        }
        drop(state);
        self.shared.moved.notify_waiters();
    }

    /// `revision` is that of the deletion.
    pub(crate) fn remove(&self, key: &Key, revision: &str) {
        let mut state = self.shared.state();
        if let Some(last) = state.objects.remove(key) {
            state.record(key, Some(&last));
        }
        state.progress.advance(revision, false);
        drop(state);
        self.shared.moved.notify_waiters();
    }

    /// Nothing happened up to `revision`.
    pub(crate) fn advance(&self, revision: &str) {
        self.shared.state().progress.advance(revision, false);
        self.shared.moved.notify_waiters();
    }
}

fn some<K, V>((key, value): (K, V)) -> (K, Option<V>) {
    (key, Some(value))
}

fn same_state<K: Resource>(one: &K, other: &K) -> bool {
    let (one, other) = (one.meta(), other.meta());
    one.uid == other.uid && one.resource_version == other.resource_version
}

impl<K> State<K> {
    /// The object under `key` was `last`, and is now what stands there.
    fn record(&mut self, key: &Key, last: Option<&Arc<K>>) {
        let now = self.objects.get(key);
        for subscriber in self.subscribers.values_mut() {
            subscriber.record(key, last, now);
        }
    }
}

/// Says of a change whether a subscriber wants to hear of it.
type Concerned<K> = Box<dyn Fn(Option<&K>, Option<&K>) -> bool + Send>;

/// What one subscriber has not heard of yet, in the order in which it began to differ.
struct Subscriber<K> {
    concerned: Concerned<K>,
    order: VecDeque<Key>,
    /// The keys in `order`, with what the subscriber last saw.
    pending: BTreeMap<Key, Option<Arc<K>>>,
    notify: Arc<Notify>,
}

impl<K> Debug for Subscriber<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("order", &self.order).finish_non_exhaustive()
    }
}

impl<K> Subscriber<K> {
    const fn new(concerned: Concerned<K>, notify: Arc<Notify>) -> Self {
        Self { concerned, order: VecDeque::new(), pending: BTreeMap::new(), notify }
    }

    /// `last` is the state before the change; it counts only if the subscriber saw it.
    fn record(&mut self, key: &Key, last: Option<&Arc<K>>, now: Option<&Arc<K>>) {
        if !(self.concerned)(last.map(|it| &**it), now.map(|it| &**it))
            || self.pending.contains_key(key)
        {
            return;
        }
        self.order.push_back(key.clone());
        self.pending.insert(key.clone(), last.cloned());
        self.notify.notify_one();
    }

    fn take(&mut self) -> Option<(Key, Option<Arc<K>>)> {
        let key = self.order.pop_front()?;
        let last = self.pending.remove(&key)?;
        Some((key, last))
    }
}

/// Hears of the changes of one cache. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription<K> {
    shared: Arc<Shared<K>>,
    id: u64,
    notify: Arc<Notify>,
}

impl<K> Subscription<K> {
    /// Waits for the next change. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.try_next() {
                return change;
            }
            self.notify.notified().await;
        }
    }

    /// The next change, if there is one already.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        let mut state = self.shared.state();
        let State { objects, subscribers, .. } = &mut *state;
        let subscriber = subscribers.get_mut(&self.id)?;
        loop {
            let (key, old) = subscriber.take()?;
            let new = objects.get(&key).map(Arc::clone);
            // Made and deleted again since this subscriber last looked: for it, nothing happened.
            if old.is_some() || new.is_some() {
                return Some(Change { key, old, new });
            }
        }
    }

    /// A way to make this subscription hear of every object again.
    pub(crate) fn replay(&self) -> Replay<K> {
        Replay { shared: Arc::downgrade(&self.shared), id: self.id }
    }
}

impl<K> Drop for Subscription<K> {
    fn drop(&mut self) {
        self.shared.state().subscribers.remove(&self.id);
    }
}

pub(crate) struct Replay<K> {
    shared: Weak<Shared<K>>,
    id: u64,
}

impl<K> Replay<K> {
    /// Makes the subscription hear of every object again.
    pub(crate) fn all(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = shared.state();
        let State { objects, subscribers, .. } = &mut *state;
        if let Some(subscriber) = subscribers.get_mut(&self.id) {
            for (key, object) in objects {
                subscriber.record(key, Some(object), Some(object));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn object(name: &str, revision: &str) -> ConfigMap {
        let (uid, name) = (Some(format!("uid-{name}")), Some(name.to_owned()));
        let (namespace, resource_version) = (Some("a".to_owned()), Some(revision.to_owned()));
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..Default::default() };
        ConfigMap { metadata, ..Default::default() }
    }

    fn show(subscription: &mut Subscription<ConfigMap>) -> String {
        let revision = |it: Option<Arc<ConfigMap>>| {
            it.and_then(|it| it.metadata.resource_version.clone()).unwrap_or("-".into())
        };
        let changes = std::iter::from_fn(|| subscription.try_next());
        let changes =
            changes.map(|it| format!("{} {}>{}", it.key, revision(it.old), revision(it.new)));
        changes.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn check(
        before: impl FnOnce(&Cache<ConfigMap>),
        after: impl FnOnce(&Cache<ConfigMap>),
        expect: Expect,
    ) {
        let cache = Cache::new("ConfigMap");
        let mut subscription = cache.subscribe();
        before(&cache);
        show(&mut subscription);
        after(&cache);
        expect.assert_eq(&show(&mut subscription));
    }

    #[test]
    fn a_subscriber_hears_what_changed_since_it_last_looked() {
        check(
            |cache| cache.apply(object("x", "1")),
            |cache| {
                cache.apply(object("y", "2"));
                cache.apply(object("x", "3"));
                cache.apply(object("x", "4"));
                cache.apply(object("z", "5"));
                cache.remove(&Key::namespaced("a", "z"), "6");
                cache.remove(&Key::namespaced("a", "y"), "7");
                cache.apply(object("y", "8"));
            },
            expect![[r#"
                a/y ->8
                a/x 1>4"#]],
        );
    }

    #[test]
    fn a_new_list_is_told_as_its_differences() {
        check(
            |cache| {
                let objects = ["kept", "changed", "gone", "broken"];
                cache.replace(objects.map(|it| object(it, "1")).into(), &[], "1");
            },
            |cache| {
                let objects = vec![object("kept", "1"), object("changed", "2"), object("new", "3")];
                cache.replace(objects, &[Key::namespaced("a", "broken")], "3");
            },
            expect![[r#"
                a/changed 1>2
                a/new ->3
                a/gone 1>-"#]],
        );
    }

    #[test]
    fn a_late_subscriber_hears_of_everything() {
        let cache = Cache::new("ConfigMap");
        cache.replace(vec![object("x", "1"), object("y", "2")], &[], "2");
        let mut subscription = cache.subscribe();
        expect!["a/x ->1\na/y ->2"].assert_eq(&show(&mut subscription));
        subscription.replay().all();
        expect!["a/x 1>1\na/y 2>2"].assert_eq(&show(&mut subscription));
    }

    #[test]
    fn a_subscriber_hears_only_what_concerns_it() {
        let cache = Cache::new("ConfigMap");
        cache.replace(vec![object("x", "1"), object("y", "2")], &[], "2");
        let mut gone = cache.subscribe_to(|_, new| new.is_none());
        let is_x = |it: &ConfigMap| it.metadata.name.as_deref() == Some("x");
        let mut of_x = cache.subscribe_to(move |old, new| new.or(old).is_some_and(is_x));
        expect!["a/x ->1"].assert_eq(&show(&mut of_x));
        cache.apply(object("x", "3"));
        cache.apply(object("z", "4"));
        cache.remove(&Key::namespaced("a", "y"), "5");
        gone.replay().all();
        expect!["a/y 2>-"].assert_eq(&show(&mut gone));
        expect!["a/x 1>3"].assert_eq(&show(&mut of_x));
    }

    #[tokio::test(start_paused = true)]
    async fn reached_waits_for_the_revision_but_not_for_ever() {
        let cache = Cache::new("ConfigMap");
        cache.apply(object("x", "4"));
        cache.reached("4").await.unwrap();
        cache.reached("not a number").await.unwrap();
        let error = cache.reached("5").await.unwrap_err().to_string();
        expect!["cache of ConfigMap has not reached revision `5` within 10 s"].assert_eq(&error);
        let (reached, ()) = tokio::join!(cache.reached("6"), async { cache.advance("6") });
        reached.unwrap();
    }

    #[test]
    fn one_namespace_is_listed_alone() {
        let cache = Cache::new("ConfigMap");
        let mut other = object("o", "1");
        other.metadata.namespace = Some("aa".to_owned());
        cache.replace(vec![object("x", "1"), object("y", "2"), other], &[], "2");
        let names = |namespace| cache.list_in(namespace, |_| true).len();
        assert_eq!([names("a"), names("aa"), names("")], [2, 1, 0]);
    }
}
