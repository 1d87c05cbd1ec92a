//! All topics of one nsqd.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::{Clock, OnExit, Tasks};
use tokio::sync::watch;

use super::topic::{NotFound, Topic};
use crate::{
    message::{NodeId, Sequence},
    name::Name,
};

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unique part of message ids (`-node-id`).
    pub node: NodeId,
    /// How long a consumer may keep a message, however often it touches it (`-max-msg-timeout`).
    pub msg_timeout_max: Duration,
    /// How many messages an ephemeral topic or channel keeps (`-mem-queue-size`).
    pub mem_queue_size: usize,
    /// How many consumers a channel may have (`-max-channel-consumers`).
    pub consumers_max: Option<usize>,
    /// How many topics there may be. Each has a task and some files.
    pub topics_max: usize,
    /// How many channels there may be, in all topics.
    pub channels_max: usize,
}

impl Config {
    /// The original's defaults, where it has a limit; 10 000 topics (each keeps a file open, and a
    /// process may have 20 000 here) and 50 000 channels (of some kilobytes each).
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            msg_timeout_max: Duration::from_mins(15),
            mem_queue_size: 10_000,
            consumers_max: None,
            topics_max: 10_000,
            channels_max: 50_000,
        }
    }
}

/// Why there is no topic of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The nsqd has as many as it may have.
    #[error("this nsqd has {limit} topics, and may have no more")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
}

/// The topics of one nsqd. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    clock: Clock,
    tasks: Tasks,
    topics: Mutex<BTreeMap<Name, Topic>>,
    channels: AtomicUsize,
    changes: watch::Sender<u64>,
}

impl Broker {
    /// A broker without topics. Its tasks run until `tasks` are stopped.
    #[must_use]
    pub fn new(config: Config, clock: Clock, tasks: Tasks) -> Self {
        let (topics, channels) = (Mutex::default(), AtomicUsize::new(0));
        let changes = watch::Sender::new(0);
        Self(Arc::new(Inner { config, clock, tasks, topics, channels, changes }))
    }

    /// The topic of that name, made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn topic(&self, name: &Name) -> Result<Topic, TopicError> {
        let mut topics = self.topics_locked();
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let limit = self.0.config.topics_max;
        if topics.len() >= limit {
            return Err(TopicError::TooMany { limit });
        }
        let now = u64::try_from(self.0.clock.now().as_microsecond()).unwrap_or(0);
        let topic = Topic::new(name.clone(), self.clone(), Sequence(now));
        topics.insert(name.clone(), topic.clone());
        drop(topics);
        let pumped = topic.clone();
        self.0.tasks.spawn("topic", OnExit::Log, |stop| pumped.pump(stop));
        self.changed();
        Ok(topic)
    }

    /// The topic of that name, if there is one.
    #[must_use]
    pub fn existing_topic(&self, name: &Name) -> Option<Topic> {
        self.topics_locked().get(name).cloned()
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.topics_locked().values().cloned().collect()
    }

    /// Deletes a topic, its channels and all messages.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete_topic(&self, name: &Name) -> Result<(), NotFound> {
        let topic = self.topics_locked().remove(name);
        topic.ok_or_else(|| NotFound(name.clone()))?.end();
        self.changed();
        Ok(())
    }

    /// Moves whenever a topic or channel came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn changed(&self) {
        self.0.changes.send_modify(|it| *it += 1);
    }

    /// Counts one more channel, if there may be one.
    pub(super) fn may_add_channel(&self) -> bool {
        let max = self.0.config.channels_max;
        let more = |it| (it < max).then_some(it + 1);
        self.0.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn removed_channel(&self) {
        self.0.channels.fetch_sub(1, Ordering::Relaxed);
    }

    fn topics_locked(&self) -> MutexGuard<'_, BTreeMap<Name, Topic>> {
        // Nothing under this lock can leave it half changed.
        self.0.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
