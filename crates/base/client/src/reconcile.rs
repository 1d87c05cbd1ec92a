//! The loop of every controller: woken by changes and, as a safety net, by time.
//!
//! The reconcile function gets a key and nothing else, so that it cannot depend on having seen
//! every change. Runs of different keys overlap in one task; of one key, they never do.

use std::{
    collections::BTreeSet,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered, SelectAll},
};
use runtime::{Backoff, OnExit, Tasks};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Cache, Change, Key, Object, Subscription,
    queue::{Outcome, Queue},
};

/// Waits after failed runs of a key. The first is short, because most failures are a write that
/// lost against another and whose outcome the cache has not heard of yet.
const RETRY: Backoff = Backoff { base: Duration::from_millis(10), max: Duration::from_secs(60) };

/// After this time every object is looked at again, whatever the watches said. Only errors in a
/// trigger make it matter; each loop costs one wake-up per period.
const PERIOD: Duration = Duration::from_secs(15 * 60);

/// Runs at once in one loop, each of another key.
const AT_ONCE: usize = 16;

/// From this many failures in a row on, an operator should hear of them.
const FAILURES_SILENT: u32 = 3;

/// What a run that succeeded asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do until something changes.
    AwaitChange,
    /// Time alone will change the answer: run again after this long at the latest.
    RequeueAfter(Duration),
}

/// Wakes a [`Loop`] for reasons that are no change of an object: a process ended, a timer fired.
/// Cheap to clone. Bounded by the number of distinct keys.
#[derive(Clone, Debug, Default)]
pub struct Trigger {
    shared: Arc<TriggerShared>,
}

#[derive(Debug, Default)]
struct TriggerShared {
    keys: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

impl Trigger {
    /// A trigger that no loop listens to yet; what it is told meanwhile is kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `key` worked on soon.
    pub fn wake(&self, key: Key) {
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.shared.notify.notify_one();
    }

    fn take(&self) -> Vec<Key> {
        let mut keys = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *keys).into_iter().collect()
    }

    fn into_stream(self) -> impl Stream<Item = Vec<Key>> {
        stream::unfold(self, |trigger| async move {
            loop {
                let keys = trigger.take();
                if !keys.is_empty() {
                    return Some((keys, trigger));
                }
                trigger.shared.notify.notified().await;
            }
        })
    }
}

/// A reconcile loop before it runs.
pub struct Loop {
    name: &'static str,
    period: Duration,
    at_once: usize,
    ready: Vec<BoxFuture<'static, ()>>,
    wakes: Vec<BoxStream<'static, Vec<Key>>>,
    replays: Vec<Box<dyn Fn() + Send>>,
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Loop {
    /// A loop that nothing wakes yet. `name` shows in logs.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let (ready, wakes, replays) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, period: PERIOD, at_once: AT_ONCE, ready, wakes, replays }
    }

    /// A change in `cache` wakes the keys that `keys` names. Runs wait until the cache has synced.
    #[must_use]
    pub fn triggered_by<K: Object>(
        self,
        cache: &Cache<K>,
        keys: impl FnMut(&Change<K>) -> Vec<Key> + Send + 'static,
    ) -> Self {
        self.triggered(cache, cache.subscribe(), keys)
    }

    /// [`Self::triggered_by`] those changes alone that the loop is `concerned` with, which is asked
    /// as in [`Cache::subscribe_to`].
    #[must_use]
    pub fn triggered_by_some<K: Object>(
        self,
        cache: &Cache<K>,
        concerned: impl Fn(Option<&K>, Option<&K>) -> bool + Send + 'static,
        keys: impl FnMut(&Change<K>) -> Vec<Key> + Send + 'static,
    ) -> Self {
        self.triggered(cache, cache.subscribe_to(concerned), keys)
    }

    fn triggered<K: Object>(
        mut self,
        cache: &Cache<K>,
        subscription: Subscription<K>,
        mut keys: impl FnMut(&Change<K>) -> Vec<Key> + Send + 'static,
    ) -> Self {
        let replay = subscription.replay();
        self.replays.push(Box::new(move || replay.all()));
        let changes = stream::unfold(subscription, |mut subscription| async move {
            Some((subscription.next().await, subscription))
        });
        self.wakes.push(changes.map(move |change| keys(&change)).boxed());
        self.after(cache)
    }

    /// Runs wait until `cache` has synced, because they read it.
    #[must_use]
    pub fn after<K: Object>(mut self, cache: &Cache<K>) -> Self {
        let cache = cache.clone();
        self.ready.push(async move { cache.synced().await }.boxed());
        self
    }

    /// Whatever `trigger` is told wakes this loop.
    #[must_use]
    pub fn woken_by(mut self, trigger: &Trigger) -> Self {
        self.wakes.push(trigger.clone().into_stream().boxed());
        self
    }

    /// Looks at every object again after `period`, instead of a quarter of an hour.
    #[must_use]
    pub const fn every(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    /// Works on at most `at_once` keys at the same time, instead of 16.
    #[must_use]
    pub const fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Starts the loop in `tasks`. A run that fails or panics is tried again later; a run is
    /// dropped where it stands when `tasks` are asked to stop.
    pub fn run<F, R>(self, tasks: &Tasks, reconcile: F)
    where
        F: Fn(Key) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<Next>> + Send + 'static,
    {
        let reconcile = move |key| reconcile(key).boxed();
        tasks.spawn(self.name, OnExit::StopProcess, |stop| self.drive(reconcile, stop));
    }

    async fn drive(
        self,
        reconcile: impl Fn(Key) -> BoxFuture<'static, anyhow::Result<Next>> + Send,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let synced = futures_util::future::join_all(self.ready);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = synced => {}
        }
        let mut wakes: SelectAll<_> = stream::select_all(self.wakes);
        let mut queue = Queue::new(RETRY);
        let mut runs = FuturesUnordered::new();
        let mut resync = Instant::now() + self.period;
        let mut timer = Box::pin(tokio::time::sleep_until(resync));
        loop {
            while runs.len() < self.at_once
                && let Some(key) = queue.pop()
            {
                runs.push(run_one(reconcile(key.clone()), key));
            }
            set_timer(timer.as_mut(), queue.deadline().map_or(resync, |it| it.min(resync)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(keys) = wakes.next() => keys.into_iter().for_each(|key| queue.add(key)),
                Some((key, result)) = runs.next() => {
                    let failures = queue.done(&key, outcome(&result), Instant::now());
                    report(self.name, &key, result, failures);
                }
                () = timer.as_mut() => {
                    let now = Instant::now();
                    queue.release(now);
                    if resync <= now {
                        self.replays.iter().for_each(|replay| replay());
                        resync = now + self.period;
                    }
                }
            }
        }
    }
}

fn set_timer(timer: Pin<&mut Sleep>, deadline: Instant) {
    if timer.deadline() != deadline {
        timer.reset(deadline);
    }
}

/// A panic is a broken invariant: it ends this run, not the loop.
async fn run_one(
    run: BoxFuture<'static, anyhow::Result<Next>>,
    key: Key,
) -> (Key, anyhow::Result<Next>) {
    let result = AssertUnwindSafe(run).catch_unwind().await;
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|it| (*it).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(anyhow::anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    (key, result)
}

const fn outcome(result: &anyhow::Result<Next>) -> Outcome {
    match result {
        Ok(Next::AwaitChange) => Outcome::Done,
        Ok(Next::RequeueAfter(delay)) => Outcome::Again(*delay),
        Err(_) => Outcome::Failed,
    }
}

fn report(name: &'static str, key: &Key, result: anyhow::Result<Next>, failures: u32) {
    let Err(error) = result else { return };
    let conflict = error.chain().filter_map(|it| it.downcast_ref()).any(crate::is_conflict);
    let error = format!("{error:#}");
    if conflict || failures < FAILURES_SILENT {
        tracing::debug!(name, %key, error, failures, "run failed, trying again");
    } else {
        tracing::warn!(name, %key, error, failures, "run keeps failing");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Wakes `x` once and shows at which millisecond it ran; the runs end as `results` say, then
    /// well.
    async fn check(results: Vec<fn() -> anyhow::Result<Next>>, expect: Expect) {
        let (tasks, trigger) = (Tasks::default(), Trigger::new());
        let (started, runs) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let results = Arc::new(Mutex::new(results.into_iter()));
        let seen = Arc::clone(&runs);
        Loop::new("test").woken_by(&trigger).run(&tasks, move |key| {
            seen.lock().unwrap().push(format!("{key}@{}", started.elapsed().as_millis()));
            let result = results.lock().unwrap().next();
            async move { result.map_or(Ok(Next::AwaitChange), |it| it()) }
        });
        trigger.wake(Key::cluster("x"));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        expect.assert_eq(&runs.lock().unwrap().join(" "));
        assert!(tasks.shutdown(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_wake_is_one_run() {
        check(vec![], expect!["x@0"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_may_ask_for_the_next() {
        check(vec![|| Ok(Next::RequeueAfter(Duration::from_secs(7)))], expect!["x@0 x@7000"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_tried_again() {
        check(
            vec![|| anyhow::bail!("no"), || panic!("oh"), || anyhow::bail!("no")],
            expect!["x@0 x@10 x@30 x@70"],
        )
        .await;
    }
}
