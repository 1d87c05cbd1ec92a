//! A topic: its messages, its channels, and the pump that hands the ones to the others.

mod error;
mod pump;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use error::{ChannelError, NotFound, PublishError, TooOften};
use runtime::Clock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Channel, ChannelOptions, Start,
    channel::Parts,
    record::Recorder,
    state::{Config, State},
};
use crate::{
    journal::{Change, TopicState},
    log::{Appended, Log, ReadError},
    message::{Nanos, NewMessage, Sequence},
    name::Name,
};

/// A topic. Cheap to clone; it may have been deleted meanwhile, and then takes no messages.
#[derive(Clone, Debug)]
pub struct Topic(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    name: Name,
    clock: Clock,
    broker: Broker,
    log: Log,
    topology: Mutex<Topology>,
    /// Wakes the pump.
    pump: Arc<Notify>,
    stop: CancellationToken,
    message_count: AtomicU64,
    message_bytes: AtomicU64,
}

#[derive(Debug)]
struct Topology {
    channels: BTreeMap<Name, Channel>,
    paused: bool,
    elsewhere: Elsewhere,
    /// All before it was given to the channels.
    routed: Sequence,
    deleted: bool,
    /// An ephemeral topic goes with its last channel, not before its first.
    had_channels: bool,
    /// When it was last looked for messages that may go.
    retired: Nanos,
}

impl Topology {
    /// Whether its messages go to its channels.
    fn routes(&self) -> bool {
        !self.paused && self.elsewhere == Elsewhere::Known && !self.channels.is_empty()
    }
}

/// Whether it is known which channels a topic has elsewhere, and is to have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// It is new, and gives nothing to its channels before somebody has said so.
    Asked,
    Known,
}

/// What is told of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// Its name.
    pub name: Name,
    /// Messages that no channel was given.
    pub depth: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Published since the process began.
    pub message_count: u64,
    /// Their bodies' bytes.
    pub message_bytes: u64,
    /// Messages known to be damaged, of those that are kept.
    pub damaged: u64,
    /// Whether it gives nothing to its channels.
    pub paused: bool,
    /// The oldest message that is kept.
    pub first: Sequence,
    /// The next to be published.
    pub next: Sequence,
}

/// Messages that were taken, and may not yet be as durable as they must be.
#[derive(Debug)]
#[must_use = "the messages are not durable yet"]
pub struct Receipt(Appended);

impl Receipt {
    /// The first of the messages, if they are committed.
    #[must_use]
    pub const fn first(&self) -> Sequence {
        self.0.range.start
    }

    /// Waits until the messages are acknowledged.
    ///
    /// # Errors
    /// When they will not be.
    pub async fn committed(self) -> Result<(), PublishError> {
        self.0.committed().await.map_err(PublishError::from)
    }
}

impl Topic {
    pub(super) fn new(name: Name, broker: Broker, log: Log, state: TopicState) -> Self {
        let TopicState { routed, paused, held, channels } = state;
        // With channels, all was theirs already when it was committed.
        let routed = if paused || held || channels.is_empty() { routed } else { log.next() };
        let topology = Topology {
            had_channels: !channels.is_empty(),
            channels: BTreeMap::new(),
            paused,
            elsewhere: if held { Elsewhere::Asked } else { Elsewhere::Known },
            routed,
            deleted: false,
            retired: Nanos::default(),
        };
        let topic = Self(Arc::new(Inner {
            name,
            clock: broker.clock().clone(),
            broker,
            log,
            topology: Mutex::new(topology),
            pump: Arc::default(),
            stop: CancellationToken::new(),
            message_count: AtomicU64::new(0),
            message_bytes: AtomicU64::new(0),
        }));
        for (name, was) in channels {
            let config = topic.channel_config(&name, was.options);
            let mut state = State::restore(config, was.cursor, routed, &was.unfinished);
            state.restore_emptied(was.emptied);
            state.pause(was.paused);
            topic.topology().channels.insert(name.clone(), topic.make_channel(name, state));
        }
        topic
    }

    fn channel_config(&self, name: &Name, options: ChannelOptions) -> Config {
        let config = self.0.broker.config();
        let backlog_max = u64::try_from(config.mem_queue_size).unwrap_or(u64::MAX);
        Config {
            node: config.node,
            options,
            timeout_max: config.msg_timeout_max,
            backlog_max: name.is_ephemeral().then_some(backlog_max),
        }
    }

    fn make_channel(&self, name: Name, state: State) -> Channel {
        let recorder = self.recorder().filter(|_| !name.is_ephemeral()).cloned();
        let parts = Parts {
            topic: self.0.name.clone(),
            name,
            clock: self.0.clock.clone(),
            pump: Arc::clone(&self.0.pump),
            recorder,
            consumers_max: self.0.broker.config().consumers_max,
        };
        Channel::new(parts, state)
    }

    /// Of a topic that is not ephemeral.
    fn recorder(&self) -> Option<&Recorder> {
        (!self.0.name.is_ephemeral()).then(|| self.0.broker.recorder())
    }

    fn record(&self, change: impl FnOnce(Name) -> Change) {
        if let Some(recorder) = self.recorder() {
            recorder.record(change(self.0.name.clone()));
        }
    }

    pub(super) fn log(&self) -> &Log {
        &self.0.log
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Takes messages, all or none. They are not acknowledged before the receipt says so.
    ///
    /// # Errors
    /// When the topic takes none.
    pub fn publish(&self, messages: &[NewMessage]) -> Result<Receipt, PublishError> {
        let appended = self.0.log.append(self.now(), messages)?;
        let count = u64::try_from(messages.len()).unwrap_or(u64::MAX);
        let bytes: usize = messages.iter().map(|it| it.body.len()).sum();
        self.0.message_count.fetch_add(count, Ordering::Relaxed);
        self.0.message_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        Ok(Receipt(appended))
    }

    /// As [`Self::publish`], waiting while too much waits for the disk.
    ///
    /// # Errors
    /// When the topic takes none.
    pub async fn publish_when_there_is_room(
        &self,
        messages: &[NewMessage],
    ) -> Result<Receipt, PublishError> {
        loop {
            match self.publish(messages) {
                Err(PublishError::Full) => self.room().await,
                other => return other,
            }
        }
    }

    /// Waits until publishing does not fail with [`PublishError::Full`].
    pub async fn room(&self) {
        self.0.log.room().await;
    }

    /// The channel of that name, made if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn channel(&self, name: &Name) -> Result<Channel, ChannelError> {
        if let Some(channel) = self.existing_channel(name) {
            return Ok(channel);
        }
        self.create_channel(name, ChannelOptions::default(), Start::Routed)
    }

    /// Makes a channel. One that is there with the same options is left as it is.
    ///
    /// # Errors
    /// When it cannot be made, or is there with other options.
    pub fn create_channel(
        &self,
        name: &Name,
        options: ChannelOptions,
        start: Start,
    ) -> Result<Channel, ChannelError> {
        let mut topology = self.topology();
        if topology.deleted {
            return Err(ChannelError::Exiting);
        }
        if let Some(channel) = topology.channels.get(name) {
            let same = channel.options() == options;
            return if same { Ok(channel.clone()) } else { Err(ChannelError::Other(name.clone())) };
        }
        let limit = self.0.broker.config().channels_max;
        if !self.0.broker.may_add_channel() {
            return Err(ChannelError::TooMany { limit });
        }
        let cursor = self.place(&topology, start);
        let state = State::new(self.channel_config(name, options.clone()), cursor);
        let channel = self.make_channel(name.clone(), state);
        if !name.is_ephemeral() {
            let channel = name.clone();
            self.record(|topic| Change::ChannelCreated { topic, channel, cursor, options });
        }
        // One that begins where the others are has nothing to be read for it: the pump, which looks at
        // all channels, need not.
        channel.see(topology.routed);
        let first = topology.channels.is_empty();
        topology.channels.insert(name.clone(), channel.clone());
        topology.had_channels = true;
        drop(topology);
        self.0.broker.changed();
        if first {
            self.0.pump.notify_one(); // What waits in the topic is given out now.
        }
        Ok(channel)
    }

    /// The channel of that name, if there is one.
    #[must_use]
    pub fn existing_channel(&self, name: &Name) -> Option<Channel> {
        self.topology().channels.get(name).cloned()
    }

    /// Its channels, by name.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        self.topology().channels.values().cloned().collect()
    }

    /// Deletes a channel, with all it has not finished. Its consumers are to be disconnected.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn delete_channel(&self, name: &Name) -> Result<(), NotFound> {
        {
            let mut topology = self.topology();
            let channel = topology.channels.remove(name);
            channel.ok_or_else(|| NotFound(name.clone()))?.deleted();
            if topology.channels.is_empty() {
                self.record_routed(&topology);
            }
        }
        self.0.broker.removed_channel();
        self.0.broker.changed();
        self.0.pump.notify_one();
        Ok(())
    }

    /// Lets a channel begin again elsewhere; returns where.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn rewind(&self, channel: &Name, start: Start) -> Result<Sequence, NotFound> {
        let topology = self.topology();
        let found = topology.channels.get(channel).ok_or_else(|| NotFound(channel.clone()))?;
        let place = self.place(&topology, start);
        found.go_to(place);
        self.0.pump.notify_one();
        Ok(place)
    }

    /// The first message that was published then or later, or the end: a place to start at.
    ///
    /// # Errors
    /// When the disk has failed.
    pub async fn since(&self, time: Nanos) -> Result<Sequence, ReadError> {
        let log = self.0.log.clone();
        let found = tokio::task::spawn_blocking(move || log.since(time)).await;
        found.unwrap_or_else(|_| Ok(self.end_of_log()))
    }

    /// Stops giving messages to the channels, or goes on.
    pub fn pause(&self, paused: bool) {
        {
            let end = self.end_of_log();
            let mut topology = self.topology();
            if topology.routes() {
                topology.routed = topology.routed.max(end); // The pump may be behind.
            }
            topology.paused = paused;
            self.record_routed(&topology);
            self.record(|topic| Change::TopicPaused { topic, paused });
        }
        self.0.pump.notify_one();
    }

    /// Whether it is new, and waits for [`Self::release`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.topology().elsewhere == Elsewhere::Asked
    }

    /// Lets a new topic give its messages to its channels: it has those that it is to have. A channel
    /// that is made later gets what is published from then on.
    pub fn release(&self) {
        {
            let mut topology = self.topology();
            if topology.elsewhere == Elsewhere::Known {
                return;
            }
            topology.elsewhere = Elsewhere::Known;
            // After the channels that were made for it: if this is lost, it is held again.
            self.record(|topic| Change::TopicHeld { topic, held: false });
        }
        self.0.pump.notify_one();
    }

    /// While the topic has channels and is neither paused nor held, its mark is where the log ends; otherwise
    /// the journal must know it.
    fn record_routed(&self, topology: &Topology) {
        let routed = topology.routed;
        self.record(|topic| Change::Routed { topic, routed });
    }

    /// Leaves out what no channel was given: neither channels that there are get it, nor those that
    /// are made later. What is kept of it can be had by [rewinding](Self::rewind).
    ///
    /// # Errors
    /// When a channel cannot leave out more; nothing was left out.
    pub fn empty(&self) -> Result<(), TooOften> {
        let end = self.end_of_log();
        let mut topology = self.topology();
        let from = topology.routed;
        // Otherwise all of it is as good as given.
        if !topology.routes() {
            let channels = topology.channels.values();
            if let Some(stuck) = channels.clone().find(|it| !it.may_leave_out(from)) {
                return Err(TooOften(stuck.name().clone()));
            }
            channels.for_each(|it| it.leave_out(from, end));
        }
        topology.routed = from.max(end);
        self.record_routed(&topology);
        Ok(())
    }

    fn end_of_log(&self) -> Sequence {
        self.0.log.end()
    }

    /// What is told of it.
    #[must_use]
    pub fn stats(&self) -> TopicStats {
        let next = self.end_of_log();
        let topology = self.topology();
        TopicStats {
            name: self.0.name.clone(),
            depth: topology.routed.until(next),
            message_count: self.0.message_count.load(Ordering::Relaxed),
            message_bytes: self.0.message_bytes.load(Ordering::Relaxed),
            damaged: self.0.log.damaged(),
            paused: topology.paused,
            file_bytes: self.0.log.file_bytes(),
            first: self.0.log.first(),
            next,
        }
    }

    /// Ends it: its channels are deleted, nothing more is taken.
    pub(super) fn end(&self) {
        self.0.stop.cancel();
        let channels = {
            let mut topology = self.topology();
            topology.deleted = true;
            std::mem::take(&mut topology.channels)
        };
        for channel in channels.into_values() {
            channel.deleted();
            self.0.broker.removed_channel();
        }
    }

    /// Ends it with the process: consumers are disconnected, everything stays.
    pub(super) fn close(&self) {
        self.0.stop.cancel();
        for channel in self.channels() {
            channel.disconnect();
        }
    }

    fn place(&self, topology: &Topology, start: Start) -> Sequence {
        let first = self.0.log.first();
        let end = self.end_of_log();
        match start {
            Start::Routed => topology.routed,
            Start::Beginning => first,
            Start::End => end,
            Start::At(sequence) => sequence.clamp(first, end.max(first)),
        }
    }

    fn topology(&self) -> MutexGuard<'_, Topology> {
        // Nothing under this lock can leave it half changed.
        self.0.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        Nanos::of(self.0.clock.now())
    }
}
