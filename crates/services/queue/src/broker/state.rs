//! What a channel does with its messages, without clock, lock or input and output.
//!
//! A channel is a cursor in its topic's log and what is unfinished behind it. A message is at any
//! moment in exactly one place: ahead of the cursor; ready again (requeued, or its delay has
//! passed); deferred until some time; waiting for the message of the same key before it; in flight;
//! dead, to be published to another topic; or finished. Bodies are kept only of what is in flight
//! or ready and of a window ahead of the cursor: all others are read again when they are due.

mod consumers;
mod lanes;
mod operate;
mod supply;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use self::{consumers::Client, lanes::Lanes};
use super::{
    ChannelOptions, ClientId,
    in_flight::{InFlight, Sent},
};
use crate::{
    journal::{Progress, Runs, Unfinished},
    message::{Message, MessageId, Nanos, NodeId, Sequence},
};

/// How many messages ahead of its consumers a channel keeps ready: enough for some batches, so that
/// reading the log is spread over many messages; and few enough for a thousand channels.
pub(super) const WINDOW_MAX: usize = 1024;

/// How many messages may wait for others of their key. A channel with more than that reads no
/// further until some are finished: what waits has left the order of the log and is remembered one
/// by one.
const WAITING_FOR_KEY_MAX: usize = 10_000;

/// Where a message behind the cursor is, if it is not in flight.
#[derive(Debug)]
struct Held {
    attempts: u16,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be delivered again.
    Ready,
    /// Not before then.
    Deferred(Nanos),
    /// After the message before it with the same key.
    Waiting,
    /// Tried too often: to be published to the channel's dead letter topic.
    Dead,
}

/// Counters for statistics, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came into the channel.
    pub messages: u64,
    /// Requeued by a consumer.
    pub requeued: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// Left out because they were damaged.
    pub skipped: u64,
}

/// Why a command about one message failed; the texts are the original's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInFlight {
    /// Nobody has it: it was finished, timed out, or never existed.
    #[error("ID not in flight")]
    Unknown,
    /// Somebody else has it.
    #[error("client does not own message")]
    Other,
}

/// What a channel is told once.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) node: NodeId,
    pub(super) options: ChannelOptions,
    /// How long a consumer may keep a message, however often it touches it.
    pub(super) timeout_max: Duration,
    /// Of an ephemeral channel: how many messages may wait. The oldest are left out then.
    pub(super) backlog_max: Option<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    config: Config,
    paused: bool,
    /// Never handed out: this one and all after it.
    cursor: Sequence,
    /// How far the topic lets the channel see.
    routed: Sequence,
    /// The next messages from the cursor on, without gaps but for those that were damaged.
    window: VecDeque<Message>,
    /// Where the window ends: the next to be read from the log.
    read: Sequence,
    in_flight: InFlight,
    held: BTreeMap<Sequence, Held>,
    /// To be delivered again, at hand.
    ready: VecDeque<Message>,
    /// To be delivered again, to be read from the log first.
    missing: BTreeSet<Sequence>,
    deferred: BTreeSet<(Nanos, Sequence)>,
    lanes: Lanes,
    dead: VecDeque<Sequence>,
    /// Of a channel in order, after a restart: up to here only these are unfinished.
    again: Runs,
    again_until: Sequence,
    clients: BTreeMap<ClientId, Client>,
    /// Consumers that had as many as they were ready for, and now have fewer without their doing.
    freed: Vec<ClientId>,
    /// Idle consumers, the one that waits longest first.
    idle: VecDeque<ClientId>,
    /// Whether the last message was one that is ready again, so that neither kind starves.
    repeated: bool,
    counters: Counters,
    /// What the journal has not been told.
    progress: Progress,
}

impl State {
    /// A channel that begins at `cursor`.
    pub(super) fn new(config: Config, cursor: Sequence) -> Self {
        Self {
            config,
            paused: false,
            cursor,
            routed: cursor,
            window: VecDeque::new(),
            read: cursor,
            in_flight: InFlight::default(),
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            missing: BTreeSet::new(),
            deferred: BTreeSet::new(),
            lanes: Lanes::default(),
            dead: VecDeque::new(),
            again: Runs::default(),
            again_until: Sequence(0),
            clients: BTreeMap::new(),
            freed: Vec::new(),
            idle: VecDeque::new(),
            repeated: false,
            counters: Counters::default(),
            progress: Progress::default(),
        }
    }

    /// A channel as it was: all of `unfinished` is behind the cursor, with its attempts and the
    /// time before which it is not due.
    pub(super) fn restore(
        config: Config,
        cursor: Sequence,
        routed: Sequence,
        unfinished: &Runs,
    ) -> Self {
        let first = unfinished.iter().next().map(|it| it.0.start);
        if let Some(first) = first.filter(|_| config.options.ordered_by_key) {
            // Only the log knows the keys: go through it again, leaving out what is finished.
            let (again, again_until) = (unfinished.clone(), cursor);
            return Self { again, again_until, routed, ..Self::new(config, first) };
        }
        let mut state = Self { routed, ..Self::new(config, cursor) };
        for (range, Unfinished { attempts, due }) in unfinished.iter() {
            let place = due.map_or(Place::Ready, Place::Deferred);
            for sequence in range.start.0..range.end.0 {
                state.hold_without_body(Sequence(sequence), attempts, place);
            }
        }
        state.progress = Progress::default();
        state
    }

    // What consumers do.

    /// Returns when the message was published.
    pub(super) fn finish(&mut self, client: ClientId, id: MessageId) -> Result<Nanos, NotInFlight> {
        let sent = self.answered(client, id)?;
        self.done(&sent.message);
        Ok(sent.message.timestamp)
    }

    pub(super) fn requeue(
        &mut self,
        client: ClientId,
        id: MessageId,
        delay: Duration,
        now: Nanos,
    ) -> Result<(), NotInFlight> {
        let sent = self.answered(client, id)?;
        self.counters.requeued += 1;
        self.hold(sent.message, sent.attempts, (!delay.is_zero()).then(|| now.after(delay)));
        Ok(())
    }

    pub(super) fn touch(
        &mut self,
        client: ClientId,
        id: MessageId,
        now: Nanos,
    ) -> Result<(), NotInFlight> {
        let (sequence, sent) = self.owned(client, id)?;
        let timeout = self.clients.get(&client).map_or(Duration::ZERO, |it| it.timeout);
        let deadline = now.after(timeout).min(sent.at.after(self.config.timeout_max));
        self.in_flight.postpone(sequence, deadline);
        Ok(())
    }

    // The inside.

    fn available(&self) -> usize {
        self.window.len() + self.ready.len()
    }

    /// The next message to be delivered, which is then in nobody's place.
    fn pop(&mut self, now: Nanos) -> Option<(Message, u16)> {
        loop {
            let again = !self.ready.is_empty() && (!self.repeated || self.window.is_empty());
            self.repeated = again;
            if !again {
                let message = self.advance()?;
                if let Some(first) = self.first_time(message, now) {
                    return Some(first);
                }
                continue;
            }
            let message = self.ready.pop_front()?;
            let Some(held) = self.held.remove(&message.sequence) else { continue };
            if let Some(due) = message.due.filter(|due| held.attempts == 0 && *due > now) {
                self.hold(message, 0, Some(due)); // It waited for its key, not for its time.
                continue;
            }
            let attempts = held.attempts.saturating_add(1);
            if self.config.options.attempts_max.is_some_and(|max| held.attempts >= max) {
                let held = Held { attempts: held.attempts, place: Place::Dead };
                self.held.insert(message.sequence, held);
                self.dead.push_back(message.sequence);
                continue;
            }
            // Also when it is the first time: the journal knows of it that it was not handed out yet.
            self.progress.left(message.sequence, Unfinished { attempts, due: None });
            return Some((message, attempts));
        }
    }

    /// Moves the cursor over the next message of the window.
    fn advance(&mut self) -> Option<Message> {
        if self.lanes.waiting() >= WAITING_FOR_KEY_MAX {
            return None;
        }
        let Some(message) = self.window.pop_front() else {
            // Behind the last message, all up to here was damaged.
            self.pass_over(self.read);
            return None;
        };
        self.pass_over(message.sequence);
        self.cursor = message.sequence.after(1);
        self.progress.took(self.cursor.max(self.again_until));
        Some(message)
    }

    /// What is before `until` was damaged, and will never be read.
    fn pass_over(&mut self, until: Sequence) {
        if self.cursor < until {
            self.progress.finished(self.cursor..until);
            self.cursor = until;
            self.progress.took(self.cursor.max(self.again_until));
        }
    }

    /// What becomes of a message when the cursor passes it: delivered, or held.
    fn first_time(&mut self, message: Message, now: Nanos) -> Option<(Message, u16)> {
        let (sequence, mut attempts, mut due) = (message.sequence, 0, message.due);
        if sequence < self.again_until {
            // A finished one is left out. Not told to the journal: it knows.
            Unfinished { attempts, due } = self.again.get(sequence)?;
        }
        if let Some(key) = message.key.as_ref().filter(|_| self.config.options.ordered_by_key)
            && !self.lanes.enter(key, sequence)
        {
            self.held.insert(sequence, Held { attempts, place: Place::Waiting });
            self.progress.left(sequence, Unfinished { attempts, due });
            return None;
        }
        if due.is_some_and(|due| due > now) {
            self.hold(message, attempts, due);
            return None;
        }
        if attempts > 0 {
            self.hold(message, attempts, None);
            return None;
        }
        Some((message, 1))
    }

    /// A message is behind the cursor, at hand, and not in flight.
    fn hold(&mut self, message: Message, attempts: u16, due: Option<Nanos>) {
        let sequence = message.sequence;
        if let Some(due) = due {
            self.hold_without_body(sequence, attempts, Place::Deferred(due));
        } else if self.ready.len() >= WINDOW_MAX {
            self.hold_without_body(sequence, attempts, Place::Ready);
        } else {
            self.held.insert(sequence, Held { attempts, place: Place::Ready });
            self.progress.left(sequence, Unfinished { attempts, due: None });
            self.ready.push_back(message);
        }
    }

    fn hold_without_body(&mut self, sequence: Sequence, attempts: u16, place: Place) {
        self.held.insert(sequence, Held { attempts, place });
        let due = if let Place::Deferred(due) = place {
            self.deferred.insert((due, sequence));
            Some(due)
        } else {
            self.missing.insert(sequence);
            None
        };
        self.progress.left(sequence, Unfinished { attempts, due });
    }

    /// A message is finished: the next of its key may go.
    fn done(&mut self, message: &Message) {
        self.forget(message.sequence);
        if let Some(key) = message.key.as_ref().filter(|_| self.config.options.ordered_by_key) {
            let next = self.lanes.leave(key);
            self.release(next);
        }
    }

    /// A message that waited for another of its key may go.
    fn release(&mut self, next: Option<Sequence>) {
        if let Some(next) = next
            && let Some(held) = self.held.get_mut(&next)
        {
            held.place = Place::Ready;
            self.missing.insert(next);
        }
    }

    /// A message is finished, or lost to damage.
    fn forget(&mut self, sequence: Sequence) {
        self.held.remove(&sequence);
        self.progress.finished(sequence..sequence.after(1));
    }

    fn owned(&self, client: ClientId, id: MessageId) -> Result<(Sequence, &Sent), NotInFlight> {
        let sequence = id.sequence(self.config.node).ok_or(NotInFlight::Unknown)?;
        let sent = self.in_flight.get(sequence).ok_or(NotInFlight::Unknown)?;
        if sent.client == client { Ok((sequence, sent)) } else { Err(NotInFlight::Other) }
    }

    /// Takes a message out of flight, if it is this consumer's.
    fn answered(&mut self, client: ClientId, id: MessageId) -> Result<Sent, NotInFlight> {
        let (sequence, _) = self.owned(client, id)?;
        if let Some(it) = self.clients.get_mut(&client) {
            it.in_flight = it.in_flight.saturating_sub(1);
        }
        self.in_flight.remove(sequence).ok_or(NotInFlight::Unknown)
    }
}
