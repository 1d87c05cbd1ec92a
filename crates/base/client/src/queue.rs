//! Which key is worked on next: one run per key at a time, at most one more waiting, delayed runs.
//!
//! A plain value without clock or tasks; [`crate::Loop`] drives it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use runtime::Backoff;
use tokio::time::Instant;

use crate::Key;

/// What the end of a run means for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Again(Duration),
    Failed,
}

/// Keys that wait, run, or are due later.
#[derive(Debug)]
pub(crate) struct Queue {
    backoff: Backoff,
    ready: VecDeque<Key>,
    /// The keys in `ready`.
    waiting: BTreeSet<Key>,
    /// Keys at work, with whether they were added again meanwhile.
    running: BTreeMap<Key, bool>,
    later: BTreeSet<(Instant, Key)>,
    due: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
}

impl Queue {
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: BTreeMap::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// `key` should be worked on soon. What was planned for it later is dropped, because each run
    /// plans anew.
    pub(crate) fn add(&mut self, key: Key) {
        self.forget_later(&key);
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The next key to work on; its end must be told with [`Self::done`].
    pub(crate) fn pop(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }

    /// The run of `key` is over. Says how many runs of it have failed in a row.
    pub(crate) fn done(&mut self, key: &Key, outcome: Outcome, now: Instant) -> u32 {
        let again = self.running.remove(key).unwrap_or(false);
        let failures = match outcome {
            Outcome::Failed => self.failures.remove(key).unwrap_or(0).saturating_add(1),
            Outcome::Done | Outcome::Again(_) => {
                self.failures.remove(key);
                0
            }
        };
        if failures > 0 {
            self.failures.insert(key.clone(), failures);
        }
        match outcome {
            _ if again => self.add(key.clone()),
            Outcome::Done => {}
            Outcome::Again(delay) => self.add_later(key, now + delay),
            Outcome::Failed => self.add_later(key, now + self.backoff.delay(failures)),
        }
        failures
    }

    /// When the next delayed key is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Moves what is due by `now` to the keys to work on.
    pub(crate) fn release(&mut self, now: Instant) {
        while let Some((due, key)) = self.later.first().cloned()
            && due <= now
        {
            self.add(key);
        }
    }

    fn add_later(&mut self, key: &Key, due: Instant) {
        self.forget_later(key);
        self.due.insert(key.clone(), due);
        self.later.insert((due, key.clone()));
    }

    fn forget_later(&mut self, key: &Key) {
        if let Some(due) = self.due.remove(key) {
            self.later.remove(&(due, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(4) };

    fn key(name: &str) -> Key {
        Key::cluster(name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_runs_once_and_waits_once() {
        let mut queue = Queue::new(BACKOFF);
        for name in ["x", "y", "x"] {
            queue.add(key(name));
        }
        assert_eq!(queue.pop(), Some(key("x")));
        queue.add(key("x"));
        queue.add(key("x"));
        assert_eq!(queue.pop(), Some(key("y")));
        assert_eq!(queue.pop(), None);
        queue.done(&key("x"), Outcome::Done, Instant::now());
        assert_eq!(queue.pop(), Some(key("x")));
        queue.done(&key("x"), Outcome::Done, Instant::now());
        assert_eq!(queue.pop(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_comes_back_later_each_time() {
        let mut queue = Queue::new(BACKOFF);
        let now = Instant::now();
        queue.add(key("x"));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let running = queue.pop().unwrap();
            queue.done(&running, Outcome::Failed, now);
            let due = queue.deadline().unwrap();
            waits.push((due - now).as_secs());
            queue.release(due);
        }
        assert_eq!(waits, [1, 2, 4, 4]);
        let running = queue.pop().unwrap();
        assert_eq!(queue.done(&running, Outcome::Done, now), 0);
        assert_eq!(queue.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_wait_for_the_planned_run() {
        let mut queue = Queue::new(BACKOFF);
        let now = Instant::now();
        queue.add(key("x"));
        let running = queue.pop().unwrap();
        queue.done(&running, Outcome::Again(Duration::from_secs(9)), now);
        assert_eq!(queue.pop(), None);
        queue.add(key("x"));
        assert_eq!(queue.deadline(), None);
        assert_eq!(queue.pop(), Some(key("x")));
    }
}
