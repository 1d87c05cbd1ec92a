//! All topics of one nsqd, and the folder they are in.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::{Clock, OnExit, Tasks};
use tokio::sync::watch;

use super::{
    record::{NotSettled, Recorder},
    topic::{NotFound, Topic},
};
use crate::{
    Durability,
    disk::{Disk, Held},
    journal::{self, Change, Journal, Loaded, TopicState},
    log::{self, Committers, Log, LogConfig, MemoryLimits, Retention},
    message::{Nanos, NodeId},
    name::Name,
};

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unique part of message ids (`-node-id`).
    pub node: NodeId,
    /// What a message has survived when it is acknowledged (`-durability`).
    pub durability: Durability,
    /// How long messages stay that all have finished (`-retention-age`, `-retention-size`).
    pub retention: Retention,
    /// How long a consumer may keep a message, however often it touches it (`-max-msg-timeout`).
    pub msg_timeout_max: Duration,
    /// How many messages an ephemeral topic or channel keeps (`-mem-queue-size`).
    pub mem_queue_size: usize,
    /// How many consumers a channel may have (`-max-channel-consumers`).
    pub consumers_max: Option<usize>,
    /// Whether new topics are held until [`Topic::release`], because somebody is asked first which
    /// channels they have elsewhere; [`Broker::hold_new_topics`] changes it. If not, those that were
    /// held when the process ended go on.
    pub hold_new_topics: bool,
    /// How many topics there may be. Each has a task and some files.
    pub topics_max: usize,
    /// How many channels there may be, in all topics.
    pub channels_max: usize,
}

impl Config {
    /// The original's defaults, where it has a limit; 10 000 topics (each keeps a file open, and a
    /// process may have 20 000 here) and 50 000 channels (of some kilobytes each). Finished
    /// messages stay for a day, up to 1 GiB a topic: enough to repair yesterday's mistake.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            durability: Durability::Disk,
            retention: Retention { age: Some(Duration::from_hours(24)), bytes: Some(1 << 30) },
            msg_timeout_max: Duration::from_mins(15),
            mem_queue_size: 10_000,
            consumers_max: None,
            hold_new_topics: false,
            topics_max: 10_000,
            channels_max: 50_000,
        }
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("`{}` is in use by another nsqd: stop it, or give this one another -data-path", .0.display())]
    InUse(PathBuf),
    /// The disk says no.
    #[error("cannot {action} `{}`", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// A topic's messages cannot be read.
    #[error("cannot open topic {topic}")]
    Topic {
        /// Its name.
        topic: Name,
        /// Why.
        #[source]
        source: log::OpenError,
    },
}

/// Why there is no topic of a name.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The nsqd has as many as it may have.
    #[error("this nsqd has {limit} topics, and may have no more")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// The process ends.
    #[error("exiting")]
    Exiting,
    /// Its files cannot be made.
    #[error("cannot make topic {topic}")]
    Disk {
        /// Its name.
        topic: Name,
        /// Why.
        source: log::OpenError,
    },
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] NotSettled),
}

/// The topics of one nsqd. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    folder: PathBuf,
    clock: Clock,
    tasks: Tasks,
    committers: Committers,
    recorder: Recorder,
    topics: Mutex<BTreeMap<Name, Topic>>,
    /// Held while a topic is made or deleted, which takes a while.
    making: tokio::sync::Mutex<Making>,
    channels: AtomicUsize,
    /// Whether new topics are held.
    holds: AtomicBool,
    changes: watch::Sender<u64>,
    /// Keeps others out of the folder, until it is closed.
    held: Mutex<Option<Box<dyn Held>>>,
}

#[derive(Debug, Default)]
struct Making {
    closed: bool,
}

impl Broker {
    /// Opens the topics of a data folder, which is made if it is not there. What consumers had not
    /// finished is delivered again. Its tasks run until `tasks` are stopped; to lose nothing, not
    /// even in [`Durability::Memory`], [`Self::close`] it then.
    ///
    /// # Errors
    /// When the folder is another process's, or cannot be read. Nothing is lost by trying.
    pub async fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, OpenError> {
        let now = Nanos::of(clock.now());
        let (of_config, of_folder, of_clock) = (config.clone(), folder.clone(), clock.clone());
        let opening = tokio::task::spawn_blocking(move || {
            open_folder(&of_config, disk, &of_folder, &of_clock, now)
        });
        let failed = |it| OpenError::Disk {
            action: "read",
            path: folder.clone(),
            source: io::Error::other(it),
        };
        let opened = opening.await.map_err(failed)??;
        let holds = config.hold_new_topics;
        let broker = Self(Arc::new(Inner {
            config,
            folder,
            clock,
            tasks,
            committers: opened.committers,
            recorder: opened.recorder,
            topics: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            channels: AtomicUsize::new(0),
            holds: AtomicBool::new(holds),
            changes: watch::Sender::new(0),
            held: Mutex::new(Some(opened.held)),
        }));
        for (name, (log, mut state)) in opened.topics {
            if state.held && !holds {
                state.held = false;
                broker.0.recorder.record(Change::TopicHeld { topic: name.clone(), held: false });
            }
            let channels = state.channels.len();
            broker.0.channels.fetch_add(channels, Ordering::Relaxed);
            broker.add(Topic::new(name, broker.clone(), log, state));
        }
        Ok(broker)
    }

    /// The topic of that name, made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn topic(&self, name: &Name) -> Result<Topic, TopicError> {
        if let Some(topic) = self.existing_topic(name) {
            return Ok(topic);
        }
        let making = self.0.making.lock().await;
        if making.closed {
            return Err(TopicError::Exiting);
        }
        if let Some(topic) = self.existing_topic(name) {
            return Ok(topic);
        }
        let limit = self.0.config.topics_max;
        if self.topics_locked().len() >= limit {
            return Err(TopicError::TooMany { limit });
        }
        let held = self.0.holds.load(Ordering::Relaxed);
        let log = self.make_log(name, held).await?;
        let routed = log.first();
        let state = TopicState { routed, held, ..TopicState::default() };
        let topic = Topic::new(name.clone(), self.clone(), log, state);
        self.add(topic.clone());
        self.changed();
        Ok(topic)
    }

    /// From now on new topics are held until [`Topic::release`], or are not.
    pub fn hold_new_topics(&self, hold: bool) {
        self.0.holds.store(hold, Ordering::Relaxed);
    }

    async fn make_log(&self, name: &Name, held: bool) -> Result<Log, TopicError> {
        let now = Nanos::of(self.0.clock.now());
        let committers = self.0.committers.clone();
        if name.is_ephemeral() {
            let max = u64::try_from(self.0.config.mem_queue_size).unwrap_or(u64::MAX);
            return Ok(Log::ephemeral(&committers, max, now));
        }
        // First the journal: a folder that it does not know is what a deletion left over.
        let routed = crate::message::Sequence(0);
        let made = Change::TopicCreated { topic: name.clone(), routed };
        let held = held.then(|| Change::TopicHeld { topic: name.clone(), held });
        self.0.recorder.record_all([made].into_iter().chain(held));
        self.settled().await?;
        let (dir, config) = (folder_of(&self.0.folder, name), self.log_config());
        let opening = tokio::task::spawn_blocking(move || Log::open(&committers, dir, config, now));
        let topic = name.clone();
        match opening.await {
            Ok(Ok((log, _))) => Ok(log),
            Ok(Err(source)) => {
                self.0.recorder.record(Change::TopicDeleted { topic: topic.clone() });
                Err(TopicError::Disk { topic, source })
            }
            Err(_) => Err(TopicError::Exiting),
        }
    }

    fn log_config(&self) -> LogConfig {
        let Config { durability, retention, .. } = self.0.config;
        LogConfig { durability, retention }
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
    pub async fn delete_topic(&self, name: &Name) -> Result<(), NotFound> {
        let _making = self.0.making.lock().await;
        let topic = self.topics_locked().remove(name);
        let topic = topic.ok_or_else(|| NotFound(name.clone()))?;
        topic.end();
        if name.is_ephemeral() {
            drop(topic.log().delete()); // It has no files: nothing can fail.
        } else {
            self.delete_files(name, topic.log().clone()).await;
        }
        self.changed();
        Ok(())
    }

    /// The journal first: a folder that it does not know is deleted at the next start.
    async fn delete_files(&self, name: &Name, log: Log) {
        self.0.recorder.record(Change::TopicDeleted { topic: name.clone() });
        if let Err(error) = self.settled().await {
            tracing::error!(topic = %name, %error, "a deleted topic comes back after a crash");
        }
        let deleted = tokio::task::spawn_blocking(move || log.delete()).await;
        if let Err(error) = deleted.map_err(io::Error::other).flatten() {
            tracing::warn!(topic = %name, %error, "files of a deleted topic are left over");
        }
    }

    /// Waits until all topics and channels that were made, deleted, paused, emptied or rewound are
    /// so durably: only then may it be acknowledged.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn settled(&self) -> Result<(), NotSettled> {
        self.0.recorder.settled().await
    }

    /// Moves whenever a topic or channel came or went.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether everything can be written.
    ///
    /// # Errors
    /// What the disk said.
    pub fn health(&self) -> Result<(), String> {
        if let Some(failure) = self.0.recorder.failure() {
            return Err(crate::chain(&failure));
        }
        for topic in self.topics() {
            let told = |it| format!("topic {}: {}", topic.name(), crate::chain(&it));
            topic.log().health().map_err(told)?;
        }
        Ok(())
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Ends all topics with everything written. Consumers are disconnected.
    ///
    /// # Errors
    /// What could not be written.
    pub async fn close(&self) -> io::Result<()> {
        self.0.making.lock().await.closed = true;
        let topics = std::mem::take(&mut *self.topics_locked());
        let (recorder, committers) = (self.0.recorder.clone(), self.0.committers.clone());
        let now = Nanos::of(self.0.clock.now());
        let closing = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            for topic in topics.into_values() {
                topic.close();
                result = result.and(topic.log().close(now));
            }
            recorder.close();
            committers.close();
            result
        });
        let result = closing.await.map_err(io::Error::other)?;
        // Nothing is written any more, though tasks may still be about to end.
        drop(self.0.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        result
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.0.recorder
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

    fn add(&self, topic: Topic) {
        self.topics_locked().insert(topic.name().clone(), topic.clone());
        self.0.tasks.spawn("topic", OnExit::Log, |stop| topic.pump(stop));
    }

    fn topics_locked(&self) -> MutexGuard<'_, BTreeMap<Name, Topic>> {
        // Nothing under this lock can leave it half changed.
        self.0.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a topic's folder. The suffix makes a folder's name of any topic's, even of `..`.
fn folder_of(folder: &Path, topic: &Name) -> PathBuf {
    folder.join(TOPICS).join(format!("{topic}{SUFFIX}"))
}

const TOPICS: &str = "topics";
const SUFFIX: &str = ".topic";

struct Opened {
    committers: Committers,
    recorder: Recorder,
    topics: BTreeMap<Name, (Log, TopicState)>,
    held: Box<dyn Held>,
}

/// Tells the operator what became of the journal.
fn tell(loaded: &Loaded) {
    for damage in loaded.damage() {
        tracing::error!(?damage, "the journal is damaged: some messages are delivered again");
    }
    if loaded.cut_bytes() > 0 {
        tracing::warn!(bytes = loaded.cut_bytes(), "cut the torn end of the journal");
    }
}

fn open_folder(
    config: &Config,
    disk: Arc<dyn Disk>,
    folder: &Path,
    clock: &Clock,
    now: Nanos,
) -> Result<Opened, OpenError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Disk { action, path, source }
    };
    let topics_folder = folder.join(TOPICS);
    disk.create_folder(&topics_folder).map_err(fail("make", &topics_folder))?;
    let lock = folder.join("lock");
    let held = disk.lock(&lock).map_err(fail("lock", &lock))?;
    let held = held.ok_or_else(|| OpenError::InUse(folder.to_owned()))?;
    let journal_folder = folder.join("journal");
    let loaded: Loaded = Journal::load(Arc::clone(&disk), &journal_folder)?;
    tell(&loaded);
    let started =
        Committers::start(Arc::clone(&disk), MemoryLimits::default(), Committers::THREADS);
    let committers = started.map_err(fail("start the threads for", folder))?;
    let names = disk.list(&topics_folder).map_err(fail("list", &topics_folder))?;
    let there = names.iter().filter_map(|it| Name::parse(it.strip_suffix(SUFFIX)?));
    let names: std::collections::BTreeSet<Name> =
        there.chain(loaded.topics().keys().cloned()).collect();
    let mut logs = BTreeMap::new();
    for name in names {
        let of_log = LogConfig { durability: config.durability, retention: config.retention };
        let opened = Log::open(&committers, folder_of(folder, &name), of_log, now);
        let (log, _) = opened.map_err(|source| OpenError::Topic { topic: name.clone(), source })?;
        logs.insert(name, log);
    }
    let ranges = logs.iter().map(|(name, it)| (name.clone(), it.first()..it.next())).collect();
    let started = loaded.start(&ranges).map_err(fail("write", &journal_folder))?;
    for name in &started.leftover {
        if let Some(log) = logs.remove(name)
            && let Err(error) = log.delete()
        {
            tracing::warn!(topic = %name, %error, "files of a deleted topic are left over");
        }
    }
    let topics = started.topics.into_iter().filter_map(|(name, state)| {
        let log = logs.remove(&name)?;
        Some((name, (log, state)))
    });
    let topics = topics.collect();
    let recorder = Recorder::start(started.journal, clock.clone(), config.durability);
    let recorder = recorder.map_err(fail("start a thread for", &journal_folder))?;
    Ok(Opened { committers, recorder, topics, held })
}
