//! A topic: its messages, its channels, and the pump that hands the ones to the others.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::Clock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Channel, ChannelOptions, Start,
    channel::Wants,
    messages::Messages,
    state::{Config, State},
};
use crate::{
    message::{Message, Nanos, NewMessage, Sequence},
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
    messages: Messages,
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
    /// All before it was given to the channels.
    routed: Sequence,
    deleted: bool,
    /// An ephemeral topic goes with its last channel, not before its first.
    had_channels: bool,
}

/// What is told of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    /// Its name.
    pub name: Name,
    /// Messages that no channel was given.
    pub depth: u64,
    /// Published since the process began.
    pub message_count: u64,
    /// Their bodies' bytes.
    pub message_bytes: u64,
    /// Whether it gives nothing to its channels.
    pub paused: bool,
    /// The oldest message that is kept.
    pub first: Sequence,
    /// The next to be published.
    pub next: Sequence,
}

/// Why messages were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic is being deleted, or the process ends.
    #[error("exiting")]
    Exiting,
}

/// Why a channel cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The topic is being deleted, or the process ends.
    #[error("exiting")]
    Exiting,
    /// The nsqd has as many as it may have.
    #[error("this nsqd has {limit} channels, and may have no more")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// There is one of that name, with other options.
    #[error("channel {0} exists with other options")]
    Other(Name),
}

/// There is none of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not exist")]
pub struct NotFound(pub Name);

/// Messages that were taken, and may not yet be as durable as they must be.
#[derive(Debug)]
pub struct Receipt {
    first: Sequence,
    end: Sequence,
    committed: watch::Receiver<Sequence>,
}

impl Receipt {
    /// The first of the messages.
    #[must_use]
    pub const fn first(&self) -> Sequence {
        self.first
    }

    /// Waits until the messages are acknowledged.
    ///
    /// # Errors
    /// When they will not be.
    pub async fn committed(mut self) -> Result<(), PublishError> {
        let committed = self.committed.wait_for(|it| *it >= self.end).await;
        committed.map(|_| ()).map_err(|_| PublishError::Exiting)
    }
}

impl Topic {
    pub(super) fn new(name: Name, broker: Broker, first: Sequence) -> Self {
        let max = if name.is_ephemeral() { broker.config().mem_queue_size } else { usize::MAX };
        let topology = Topology {
            channels: BTreeMap::new(),
            paused: false,
            routed: first,
            deleted: false,
            had_channels: false,
        };
        Self(Arc::new(Inner {
            name,
            clock: broker.clock().clone(),
            broker,
            messages: Messages::new(first, max),
            topology: Mutex::new(topology),
            pump: Arc::default(),
            stop: CancellationToken::new(),
            message_count: AtomicU64::new(0),
            message_bytes: AtomicU64::new(0),
        }))
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
    pub fn publish(&self, messages: Vec<NewMessage>) -> Result<Receipt, PublishError> {
        if self.0.stop.is_cancelled() {
            return Err(PublishError::Exiting);
        }
        let count = u64::try_from(messages.len()).unwrap_or(u64::MAX);
        let bytes: usize = messages.iter().map(|it| it.body.len()).sum();
        let committed = self.0.messages.committed();
        let taken = self.0.messages.append(self.now(), messages);
        self.0.message_count.fetch_add(count, Ordering::Relaxed);
        self.0.message_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        Ok(Receipt { first: taken.start, end: taken.end, committed })
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
        let config = self.0.broker.config();
        let limit = config.channels_max;
        if !self.0.broker.may_add_channel() {
            return Err(ChannelError::TooMany { limit });
        }
        let config_of = Config {
            node: config.node,
            options,
            timeout_max: config.msg_timeout_max,
            backlog_max: name
                .is_ephemeral()
                .then(|| u64::try_from(config.mem_queue_size).unwrap_or(u64::MAX)),
        };
        let state = State::new(config_of, self.place(&topology, start));
        let (clock, pump) = (self.0.clock.clone(), Arc::clone(&self.0.pump));
        let channel = Channel::new(name.clone(), state, clock, pump, config.consumers_max);
        topology.channels.insert(name.clone(), channel.clone());
        topology.had_channels = true;
        drop(topology);
        self.0.broker.changed();
        self.0.pump.notify_one();
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
        let channel = self.topology().channels.remove(name);
        channel.ok_or_else(|| NotFound(name.clone()))?.deleted();
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

    /// Stops giving messages to the channels, or goes on.
    pub fn pause(&self, paused: bool) {
        self.topology().paused = paused;
        self.0.pump.notify_one();
    }

    /// Leaves out what no channel was given.
    pub fn empty(&self) {
        let end = *self.0.messages.committed().borrow();
        self.topology().routed = end;
    }

    /// What is told of it.
    #[must_use]
    pub fn stats(&self) -> TopicStats {
        let next = *self.0.messages.committed().borrow();
        let topology = self.topology();
        TopicStats {
            name: self.0.name.clone(),
            depth: topology.routed.until(next),
            message_count: self.0.message_count.load(Ordering::Relaxed),
            message_bytes: self.0.message_bytes.load(Ordering::Relaxed),
            paused: topology.paused,
            first: self.0.messages.first(),
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

    fn place(&self, topology: &Topology, start: Start) -> Sequence {
        let first = self.0.messages.first();
        let end = *self.0.messages.committed().borrow();
        match start {
            Start::Routed => topology.routed,
            Start::Beginning => first,
            Start::End => end,
            Start::At(sequence) => sequence.clamp(first, end),
            Start::Since(time) => self.since(time, first, end),
        }
    }

    fn since(&self, time: Nanos, first: Sequence, end: Sequence) -> Sequence {
        let all = usize::try_from(first.until(end)).unwrap_or(usize::MAX);
        let messages = self.0.messages.read(first, all);
        messages.iter().find(|it| it.timestamp >= time).map_or(end, |it| it.sequence)
    }

    fn topology(&self) -> MutexGuard<'_, Topology> {
        // Nothing under this lock can leave it half changed.
        self.0.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        Nanos::of(self.0.clock.now())
    }

    /// Runs until the topic ends: hands what is committed to the channels, reads for them, lets
    /// time pass for them.
    pub(super) async fn pump(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut committed = self.0.messages.committed();
        loop {
            let end = *committed.borrow_and_update();
            let (next_tick, more) = self.serve(end).await;
            if self.end_if_abandoned() {
                return Ok(());
            }
            if more {
                continue;
            }
            let now = self.now();
            let sleep = next_tick.map_or(SLEEP_MAX, |it| it.since(now));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.0.stop.cancelled() => return Ok(()),
                it = committed.changed() => if it.is_err() { return Ok(()) },
                () = self.0.pump.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One round over the channels: when the next is due, and whether one wants more at once.
    async fn serve(&self, end: Sequence) -> (Option<Nanos>, bool) {
        let (channels, routed) = {
            let mut topology = self.topology();
            if !topology.paused && !topology.channels.is_empty() {
                topology.routed = end;
            }
            (topology.channels.values().cloned().collect::<Vec<_>>(), topology.routed)
        };
        let (mut next_tick, mut more) = (None::<Nanos>, false);
        for channel in channels {
            if channel.is_abandoned() {
                // A consumer that came meanwhile makes it anew.
                let _gone = self.delete_channel(channel.name());
                continue;
            }
            channel.see(routed);
            let wants = channel.tick(self.now());
            if let Some(next) = wants.next_tick {
                next_tick = Some(next_tick.map_or(next, |it| it.min(next)));
            }
            more |= self.give(&channel, wants).await;
        }
        (next_tick, more)
    }

    /// Gives a channel what it wants; whether it may want more.
    async fn give(&self, channel: &Channel, wants: Wants) -> bool {
        let more = wants.ahead.is_some() || !wants.missing.is_empty();
        if let Some((from, count)) = wants.ahead {
            let messages = self.0.messages.read(from, count);
            let end = messages.last().map_or_else(|| from.after(1), |it| it.sequence.after(1));
            channel.admit(from, messages, end);
        }
        let found = wants.missing.into_iter().map(|it| (it, self.get(it))).collect();
        channel.found(found);
        for sequence in wants.dead {
            self.bury(channel, sequence).await;
        }
        more
    }

    fn get(&self, sequence: Sequence) -> Option<Message> {
        self.0.messages.read(sequence, 1).pop().filter(|it| it.sequence == sequence)
    }

    /// Publishes a message that was tried too often to where such messages go.
    async fn bury(&self, channel: &Channel, sequence: Sequence) {
        let Some(message) = self.get(sequence) else { return };
        if let Some(name) = channel.options().dead_letter_topic {
            let copy =
                NewMessage { key: message.key.clone(), ..NewMessage::new(message.body.clone()) };
            let published = match self.0.broker.topic(&name) {
                Ok(topic) => match topic.publish(vec![copy]) {
                    Ok(receipt) => receipt.committed().await.map_err(anyhow::Error::from),
                    Err(error) => Err(error.into()),
                },
                Err(error) => Err(error.into()),
            };
            if let Err(error) = published {
                let (topic, channel_name) = (&self.0.name, channel.name());
                tracing::error!(%topic, channel = %channel_name, dead_letter = %name, %error, "cannot publish a dead letter");
                channel.not_buried(sequence);
                return;
            }
        }
        channel.buried(&message);
    }

    /// An ephemeral topic goes with its last channel.
    fn end_if_abandoned(&self) -> bool {
        let abandoned = {
            let topology = self.topology();
            self.0.name.is_ephemeral() && topology.had_channels && topology.channels.is_empty()
        };
        abandoned && self.0.broker.delete_topic(&self.0.name).is_ok()
    }
}

/// The longest sleep of a pump; nothing depends on it, but a timer has a greatest value.
const SLEEP_MAX: Duration = Duration::from_hours(1);
