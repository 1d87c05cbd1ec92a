//! Keeps one cache current: list, then watch from there, for ever. Does not look into objects.

use std::{convert::Infallible, time::Duration};

use kube::Client;
use runtime::Backoff;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Cache, Key, Object,
    wire::{self, Error, Event, Item, List, WATCH_SECONDS},
};

/// Waits between attempts when the server does not answer. Short at first, since in one process
/// the server is back as soon as it is there at all.
const RECONNECT: Backoff =
    Backoff { base: Duration::from_millis(100), max: Duration::from_secs(30) };

/// Longest wait for an answer to a list, and for a watch to open.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Longest silence on a watch: the server ends it before. What stays silent longer is a connection
/// whose other end is gone.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 60);

/// A watch that lasted this long was a good one: the next may be opened at once.
const GOOD_WATCH: Duration = Duration::from_secs(1);

/// Feeds `cache` from the collection at `path` until `stop`.
pub(crate) async fn run<K: Object>(
    client: Client,
    path: String,
    cache: Cache<K>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let reflector = Reflector { client, path, cache };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        never = reflector.follow() => match never {},
    }
}

/// Where a reflector stands.
enum State {
    /// Nothing is known, or what is known is too old to continue from.
    Empty,
    /// Everything up to this revision is in the cache.
    At(String),
}

struct Reflector<K> {
    client: Client,
    path: String,
    cache: Cache<K>,
}

impl<K: Object> Reflector<K> {
    async fn follow(&self) -> Infallible {
        let mut state = State::Empty;
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let result;
            (state, result) = self.step(state).await;
            match result {
                Ok(()) => failures = 0,
                Err(_) if GOOD_WATCH <= started.elapsed() => failures = 1,
                Err(_) => failures += 1,
            }
            if let Err(error) = result {
                self.report(&error, failures);
                tokio::time::sleep(RECONNECT.delay(failures)).await;
            }
        }
    }

    /// One list, or one watch from its opening to its end.
    async fn step(&self, state: State) -> (State, Result<(), Error>) {
        match state {
            State::Empty => match self.list().await {
                Ok(revision) => (State::At(revision), Ok(())),
                Err(error) => (State::Empty, Err(error)),
            },
            State::At(mut revision) => match self.watch(&mut revision).await {
                Ok(()) => (State::At(revision), Ok(())),
                Err(Error::Expired(reason)) => {
                    tracing::info!(path = self.path, reason, "history is gone, listing again");
                    (State::Empty, Ok(()))
                }
                // What the server does not accept as a position must not be asked for again.
                Err(error @ (Error::Refused { .. } | Error::Malformed(_) | Error::TooLong)) => {
                    (State::Empty, Err(error))
                }
                Err(error @ Error::Transport(_)) => (State::At(revision), Err(error)),
            },
        }
    }

    async fn list(&self) -> Result<String, Error> {
        let list = timeout(ANSWER_MAX, wire::list(&self.client, &self.path));
        let List { revision, items } = list.await.map_err(late)??;
        let (mut objects, mut unreadable) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            match item {
                Item::Read(object) => objects.push(kept(*object)),
                Item::Unreadable { key, error } => {
                    self.report_unreadable(key.as_ref(), &error);
                    unreadable.extend(key);
                }
            }
        }
        self.cache.replace(objects, &unreadable, &revision);
        Ok(revision)
    }

    /// Follows one watch to its end; `revision` says how far it came. A watch that ends before it
    /// brought anything is a failure, or a server that always does so would be asked in a circle.
    async fn watch(&self, revision: &mut String) -> Result<(), Error> {
        let started = Instant::now();
        let watch = timeout(ANSWER_MAX, wire::watch(&self.client, &self.path, revision));
        let mut watch = watch.await.map_err(late)??;
        let mut empty = true;
        while let Some(event) = timeout(SILENCE_MAX, watch.next()).await.map_err(late)?? {
            empty = false;
            if let Some(at) = self.take(event) {
                *revision = at;
            }
        }
        if empty && started.elapsed() < GOOD_WATCH {
            return Err(Error::Transport("watch ended at once".into()));
        }
        Ok(())
    }

    /// Brings one event into the cache and says which revision it was of.
    fn take(&self, event: Event<K>) -> Option<String> {
        match event {
            Event::Applied(Item::Read(object)) => {
                let revision = object.meta().resource_version.clone();
                self.cache.apply(kept(*object));
                revision
            }
            Event::Deleted(Item::Read(object)) => {
                let revision = object.meta().resource_version.clone();
                self.cache.remove(&Key::of(&*object), revision.as_deref().unwrap_or_default());
                revision
            }
            Event::Applied(Item::Unreadable { key, error }) => {
                self.report_unreadable(key.as_ref(), &error);
                None
            }
            Event::Deleted(Item::Unreadable { key, error }) => {
                self.report_unreadable(key.as_ref(), &error);
                self.cache.remove(&key?, "");
                None
            }
            Event::Bookmark { revision } => {
                self.cache.advance(&revision);
                Some(revision)
            }
        }
    }

    fn report(&self, error: &Error, failures: u32) {
        let error: &dyn std::error::Error = error;
        let chain = std::iter::successors(error.source(), |it| it.source());
        let chain = chain.fold(error.to_string(), |text, it| format!("{text}: {it}"));
        if failures == 1 {
            tracing::info!(path = self.path, error = chain, "watch failed, trying again");
        } else {
            tracing::debug!(path = self.path, error = chain, failures, "watch failed again");
        }
    }

    fn report_unreadable(&self, key: Option<&Key>, error: &serde_json::Error) {
        let key = key.map_or_else(|| "?".to_owned(), Key::to_string);
        tracing::warn!(path = self.path, object = key, %error, "object does not fit its kind");
    }
}

/// The object without the list of who owns its fields: nobody here reads it, it would be most of
/// what a cache costs, and a write without it leaves it as it is.
fn kept<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn late(error: tokio::time::error::Elapsed) -> Error {
    Error::Transport(error.into())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::ConfigMap;
    use runtime::Tasks;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Caches, fake::Server};

    fn path(name: &str) -> String {
        format!("/api/v1/configmaps/{name}")
    }

    fn object(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name}})
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    /// Starts with `one` in the cache, lets `fault` happen, and shows what was asked of the server
    /// and what the cache then holds.
    async fn check(fault: impl AsyncFnOnce(&Server), expect: Expect) {
        let (server, tasks) = (Server::default(), Tasks::default());
        server.put(&path("one"), object("one"));
        let cache = Caches::new(server.client(), &tasks).of::<ConfigMap>();
        cache.synced().await;
        settle().await;
        fault(&server).await;
        settle().await;
        let names: Vec<String> = cache.list().iter().map(|it| Key::of(&**it).to_string()).collect();
        expect.assert_eq(&format!("{}\n{}", server.reads().join(", "), names.join(" ")));
    }

    #[tokio::test(start_paused = true)]
    async fn follows_changes() {
        check(
            async |server| {
                server.put(&path("two"), object("two"));
                server.put(&path("three"), object("three"));
                server.delete(&path("one"));
            },
            expect![[r#"
                list, watch 1
                a/three a/two"#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn continues_where_a_watch_ended() {
        check(
            async |server| {
                server.put(&path("two"), object("two"));
                server.tell(
                    json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}),
                );
                server.drop_watches();
            },
            expect![[r#"
                list, watch 1, watch 9
                a/one a/two"#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn lists_again_when_history_is_gone() {
        check(
            async |server| {
                server.refuse(&[410]);
                server.drop_watches();
                settle().await;
                server.tell(json!({"type": "ERROR", "object": {"code": 410}}));
            },
            expect![[r#"
                list, watch 1, watch 1, list, watch 1, list, watch 1
                a/one"#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_asked_again_later() {
        check(
            async |server| {
                server.refuse(&[500, 503, 503]);
                server.drop_watches();
            },
            expect![[r#"
                list, watch 1, watch 1, list, list, list, watch 1
                a/one"#]],
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_object_stops_nothing_and_keeps_its_last_state() {
        check(
            async |server| {
                let mut broken = object("one");
                broken["data"] = json!(3);
                server.put(&path("one"), broken);
                server.put(&path("two"), object("two"));
                server.tell(json!({"type": "ERROR", "object": {"code": 410}}));
            },
            expect![[r#"
                list, watch 1, list, watch 3
                a/one a/two"#]],
        )
        .await;
    }
}
