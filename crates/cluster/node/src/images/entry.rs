//! What is remembered of the work on an image, and who waits for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use image::worker;
use tokio::sync::Notify;

use super::{Key, Wanted, availability::Work};

/// Images whose last failure or confirmation is remembered. Those that nobody waits for are forgotten
/// beyond, so that their next use begins afresh.
const REMEMBERED_MAX: usize = 1000;

/// The work on one image, for those who ask with the same credentials.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) work: Work,
    /// In a row.
    pub(super) failures: u32,
    /// When the last successful work ended.
    pub(super) ended: Option<Duration>,
    /// When the work began that asked a registry last, with success.
    pub(super) confirmed: Option<Duration>,
    /// How far the present work is.
    pub(super) advance: Option<worker::Advance>,
    /// What the last work has come to.
    pub(super) outcome: Outcome,
    pub(super) waiting: Vec<Weak<Notify>>,
    /// When those who wait are told to look again.
    pub(super) again: Option<Duration>,
}

/// What work has come to.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Nothing was fetched: it was there.
    Found,
    /// It was fetched; and how long that took with the wait for other work.
    Fetched(worker::Fetched, Duration),
    /// Why.
    Failed(String),
}

impl Entry {
    pub(super) fn new() -> Self {
        Self {
            work: Work::Idle,
            failures: 0,
            ended: None,
            confirmed: None,
            advance: None,
            outcome: Outcome::Found,
            waiting: Vec::new(),
            again: None,
        }
    }

    pub(super) fn wait(&mut self, nudge: &Arc<Notify>) {
        self.waiting.retain(|it| it.strong_count() != 0);
        if !self.waiting.iter().any(|it| it.as_ptr() == Arc::as_ptr(nudge)) {
            self.waiting.push(Arc::downgrade(nudge));
        }
    }

    pub(super) fn nudge(&mut self) {
        self.waiting.drain(..).filter_map(|it| it.upgrade()).for_each(|it| it.notify_one());
    }

    pub(super) fn failure(&self) -> String {
        match &self.outcome {
            Outcome::Failed(message) => message.clone(),
            Outcome::Found | Outcome::Fetched(..) => String::new(),
        }
    }

    /// The kubelet's words about an image that is there. What was fetched is told to those who waited
    /// for it.
    pub(super) fn note(&self, wanted: &Wanted<'_>) -> String {
        let image = wanted.image;
        match &self.outcome {
            Outcome::Fetched(fetched, all) if self.ended.is_some_and(|it| wanted.since <= it) => {
                let (seconds, all) = (fetched.seconds, all.as_secs_f64());
                format!(
                    "Successfully pulled image \"{image}\" in {seconds:.3}s ({all:.3}s including \
                     waiting). Image size: {} bytes.",
                    fetched.bytes
                )
            }
            _ => format!(
                "Container image \"{image}\" already present on machine and can be accessed by the pod"
            ),
        }
    }
}

/// Keeps the table of images bounded.
pub(super) fn forget(entries: &mut BTreeMap<Key, Entry>) {
    if REMEMBERED_MAX <= entries.len() {
        entries.retain(|_, it| it.work == Work::Going || !it.waiting.is_empty());
    }
}
