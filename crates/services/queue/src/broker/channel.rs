//! A channel as others hold it.

mod subscription;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime::Clock;
use tokio::sync::{Notify, watch};

pub use subscription::Subscription;

use super::{ChannelOptions, ClientId, Counters, record::Recorder, state::State};
use crate::{
    journal::{Change, Progress},
    log::{Damage, ReadLimit, Run},
    message::{Nanos, NodeId, Sequence},
    name::Name,
};

/// A channel of a topic. Cheap to clone; it may have been deleted meanwhile, and then does nothing.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topic: Name,
    name: Name,
    /// Whose messages it has.
    node: NodeId,
    clock: Clock,
    state: Mutex<Guarded>,
    /// The topic's pump, which reads the log for the channel.
    pump: Arc<Notify>,
    deleted: watch::Sender<bool>,
    /// The last consumer of an ephemeral channel left.
    abandoned: AtomicBool,
    /// It was deleted, and does not only send its consumers away.
    gone: AtomicBool,
    /// Whether the journal was told that there is something to ask for.
    told: AtomicBool,
    /// Of one that is not ephemeral.
    recorder: Option<Recorder>,
    consumers_max: Option<usize>,
}

#[derive(Debug)]
struct Guarded {
    state: State,
    wake: BTreeMap<ClientId, Arc<Notify>>,
    /// When the pump will look at the channel again by itself.
    alarm: Option<Nanos>,
}

impl Guarded {
    /// Whether the pump must look at the channel before its time.
    fn needs_pump(&self) -> bool {
        let earlier = |it| self.alarm.is_none_or(|alarm| it < alarm);
        self.state.needs_pump() || self.state.next_tick().is_some_and(earlier)
    }
}

/// What is told of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStats {
    /// Its name.
    pub name: Name,
    /// Messages that wait: neither in flight nor deferred.
    pub depth: u64,
    /// Of those, how many are not in memory.
    pub backend_depth: u64,
    /// With consumers, not answered yet.
    pub in_flight: usize,
    /// Not to be delivered before some time.
    pub deferred: usize,
    /// Since the process began.
    pub counters: Counters,
    /// Whether it hands out nothing.
    pub paused: bool,
    /// Its consumers, and how many messages each has.
    pub clients: Vec<(ClientId, u32)>,
    /// What it does beyond the original's.
    pub options: ChannelOptions,
    /// The first message that is not finished.
    pub first_unfinished: Sequence,
    /// The first message that was never handed out.
    pub cursor: Sequence,
}

/// Why a consumer was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The channel is being deleted.
    #[error("exiting")]
    Deleted,
    /// It has as many as it may have.
    #[error("consumers for {topic}:{channel} exceeds limit of {limit}")]
    TooMany {
        /// The topic's name.
        topic: Name,
        /// The channel's name.
        channel: Name,
        /// How many it may have (`-max-channel-consumers`).
        limit: usize,
    },
}

/// What a channel is made of, apart from its state.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) topic: Name,
    pub(super) name: Name,
    pub(super) clock: Clock,
    pub(super) pump: Arc<Notify>,
    pub(super) recorder: Option<Recorder>,
    pub(super) consumers_max: Option<usize>,
}

/// What a channel asks of its topic's pump.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Messages from here on, and how much of them.
    pub(super) ahead: Option<(Sequence, ReadLimit)>,
    /// Single messages behind the cursor.
    pub(super) missing: Vec<Sequence>,
    /// Messages that were tried too often.
    pub(super) dead: Vec<Sequence>,
    /// When it wants to be asked again.
    pub(super) next_tick: Option<Nanos>,
}

impl Channel {
    pub(super) fn new(parts: Parts, state: State) -> Self {
        let Parts { topic, name, clock, pump, recorder, consumers_max } = parts;
        Self(Arc::new(Inner {
            topic,
            name,
            node: state.node(),
            clock,
            state: Mutex::new(Guarded { state, wake: BTreeMap::new(), alarm: None }),
            pump,
            deleted: watch::Sender::new(false),
            abandoned: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            told: AtomicBool::new(false),
            recorder,
            consumers_max,
        }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Adds a consumer, which gets messages once it is ready for some. It has `timeout` for each.
    /// With `sample`, it gets only about so many per cent of the messages, and the others count as
    /// finished.
    ///
    /// # Errors
    /// When the channel has as many consumers as it may have, or is deleted.
    pub fn subscribe(
        &self,
        client: ClientId,
        timeout: Duration,
        sample: Option<u8>,
    ) -> Result<Subscription, SubscribeError> {
        let mut guarded = self.lock();
        if *self.0.deleted.borrow() {
            return Err(SubscribeError::Deleted);
        }
        if let Some(limit) = self.0.consumers_max.filter(|it| guarded.wake.len() >= *it) {
            let (topic, channel) = (self.0.topic.clone(), self.0.name.clone());
            return Err(SubscribeError::TooMany { topic, channel, limit });
        }
        let wake = Arc::new(Notify::new());
        guarded.wake.insert(client, Arc::clone(&wake));
        guarded.state.subscribe(client, timeout, sample);
        Ok(Subscription { channel: self.clone(), client, wake })
    }

    /// Stops handing out messages, or goes on.
    pub fn pause(&self, paused: bool) {
        self.change(|state| state.pause(paused));
        self.record(|topic, channel| Change::ChannelPaused { topic, channel, paused });
    }

    /// Finishes all its messages, also those that consumers have. What asks for it is told when
    /// [`super::Broker::settled`] says so.
    pub fn empty(&self) {
        self.change(|state| {
            state.empty();
            self.record_place(state.cursor());
        });
    }

    /// What is told of it.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let guarded = self.lock();
        let state = &guarded.state;
        let depth = state.depth();
        let in_memory = u64::try_from(state.in_memory()).unwrap_or(u64::MAX);
        ChannelStats {
            name: self.0.name.clone(),
            depth,
            backend_depth: depth.saturating_sub(in_memory),
            in_flight: state.in_flight_count(),
            deferred: state.deferred_count(),
            counters: state.counters(),
            paused: state.is_paused(),
            clients: state.clients().map(|it| (it, state.client_in_flight(it))).collect(),
            options: state.options().clone(),
            first_unfinished: state.unfinished_first(),
            cursor: state.cursor(),
        }
    }

    /// What it does beyond the original's.
    #[must_use]
    pub fn options(&self) -> ChannelOptions {
        self.lock().state.options().clone()
    }

    /// How many messages a consumer has not answered.
    #[must_use]
    pub fn in_flight_of(&self, client: ClientId) -> u32 {
        self.lock().state.client_in_flight(client)
    }

    /// How many consumers it has.
    #[must_use]
    pub fn consumers(&self) -> usize {
        self.lock().wake.len()
    }

    /// Whether it is ephemeral and its last consumer left. Closes it for others if so.
    pub(super) fn is_abandoned(&self) -> bool {
        let guarded = self.lock();
        let abandoned = guarded.wake.is_empty() && self.0.abandoned.load(Ordering::Relaxed);
        if abandoned {
            self.0.deleted.send_replace(true);
        }
        abandoned
    }

    /// Sends its consumers away, as the process ends.
    pub(super) fn disconnect(&self) {
        self.0.deleted.send_replace(true);
    }

    pub(super) fn first_unfinished(&self) -> Sequence {
        self.lock().state.unfinished_first()
    }

    pub(super) fn deleted(&self) {
        self.0.deleted.send_replace(true);
        self.0.gone.store(true, Ordering::Relaxed);
        self.change(State::empty);
        self.record(|topic, channel| Change::ChannelDeleted { topic, channel });
    }

    pub(super) fn go_to(&self, cursor: Sequence) {
        self.change(|state| {
            state.go_to(cursor);
            self.record_place(cursor);
        });
    }

    /// Whether the topic may be emptied once more, from there on.
    pub(super) fn may_leave_out(&self, from: Sequence) -> bool {
        self.lock().state.may_leave_out(from)
    }

    /// Leaves out what the topic has from `from` on, up to `end`, and did not give to the channel.
    pub(super) fn leave_out(&self, from: Sequence, end: Sequence) {
        self.change(|state| {
            if let Some(range) = state.leave_out(from, end) {
                // Under the lock, so that it is told of the place where the channel is.
                self.record(|topic, channel| Change::Emptied { topic, channel, range });
            }
        });
    }

    /// Tells the journal where the channel goes on. Under the lock, so that nothing of before is
    /// told after it.
    fn record_place(&self, cursor: Sequence) {
        self.record(|topic, channel| Change::Placed { topic, channel, cursor });
    }

    fn record(&self, change: impl FnOnce(Name, Name) -> Change) {
        if let Some(recorder) = &self.0.recorder {
            recorder.record(change(self.0.topic.clone(), self.0.name.clone()));
        }
    }

    /// Lets the journal know once that there is something to ask for.
    fn tell(&self, guarded: &Guarded) {
        if let Some(recorder) = &self.0.recorder
            && guarded.state.has_progress()
            && !self.0.told.swap(true, Ordering::Relaxed)
        {
            recorder.active(&self.0.topic, self.clone());
        }
    }

    pub(super) fn see(&self, routed: Sequence) {
        self.change(|state| state.see(routed));
    }

    pub(super) fn admit(&self, from: Sequence, runs: Vec<Run>) {
        self.change(|state| state.admit(from, runs));
    }

    pub(super) fn skip(&self, from: Sequence, damage: &Damage) {
        let lost = if damage.is_loss() { from.until(damage.until) } else { 0 };
        self.change(|state| state.skip(from, damage.until, lost));
    }

    pub(super) fn found(&self, messages: Vec<(Sequence, Option<Run>)>) {
        self.change(|state| {
            for (sequence, message) in messages {
                state.found(sequence, message);
            }
        });
    }

    pub(super) fn buried(&self, message: &Run) {
        self.change(|state| state.buried(message));
    }

    pub(super) fn lost_dead(&self, sequence: Sequence) {
        self.change(|state| state.lost_dead(sequence));
    }

    pub(super) fn not_buried(&self, sequence: Sequence) {
        self.change(|state| state.not_buried(sequence));
    }

    /// Lets time pass, and says what the channel needs.
    pub(super) fn tick(&self, now: Nanos) -> Wants {
        let wants = self.change(|state| {
            state.tick(now);
            Wants {
                ahead: state.wants(),
                missing: state.missing(),
                dead: state.dead(),
                next_tick: state.next_tick(),
            }
        });
        self.lock().alarm = wants.next_tick;
        wants
    }

    /// What was done since it was last asked, for the journal.
    pub(super) fn progress(&self) -> Option<Progress> {
        let mut guarded = self.lock();
        self.0.told.store(false, Ordering::Relaxed);
        if self.0.gone.load(Ordering::Relaxed) {
            return None; // There may be another channel of this name by now.
        }
        guarded.state.progress()
    }

    /// Changes the state, and wakes the consumers for whom there is something now.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut guarded = self.lock();
        let changed = change(&mut guarded.state);
        for client in guarded.state.wake() {
            if let Some(wake) = guarded.wake.get(&client) {
                wake.notify_one();
            }
        }
        if guarded.needs_pump() {
            self.0.pump.notify_one();
        }
        self.tell(&guarded);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        // Nothing under this lock can leave the state half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Nanos {
        Nanos::of(self.0.clock.now())
    }
}
