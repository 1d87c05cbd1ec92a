//! What a channel does with its messages, without clock, lock or input and output.
//!
//! A channel is a cursor in its topic's log and what is unfinished behind it. A message is at any
//! moment in exactly one place: ahead of the cursor; ready again (requeued, or its delay has
//! passed); deferred until some time; waiting for the message of the same key before it; in flight;
//! dead, to be published to another topic; or finished. Bodies are kept only of what is in flight
//! or ready and of a window ahead of the cursor: all others are read again when they are due.

mod consumers;
mod emptied;
mod lanes;
mod operate;
mod supply;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use self::{consumers::Client, lanes::Lanes, window::Window};
use super::{
    ChannelOptions, ClientId,
    in_flight::{InFlight, Sent},
};
use crate::{
    journal::{Progress, Runs, Unfinished},
    log::{ReadLimit, Run},
    message::{MessageId, Nanos, NodeId, Sequence},
};

/// How much of the log ahead of its consumers a channel keeps ready, in bytes: enough for some
/// batches, so that reading the log is spread over many messages; and little enough for a thousand
/// channels. The last piece of the log in it may go beyond.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

/// How many messages that are to be delivered again a channel keeps ready: each holds on to a piece
/// of the log, or to memory of its own.
const READY_MAX: usize = 1024;

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
    /// The next messages from the cursor on.
    window: Window,
    /// Where the window ends: the next to be read from the log.
    read: Sequence,
    /// What is ahead of the cursor and not to be delivered, in order.
    emptied: VecDeque<Range<Sequence>>,
    in_flight: InFlight,
    held: BTreeMap<Sequence, Held>,
    /// To be delivered again, at hand, each alone.
    ready: VecDeque<Run>,
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
            window: Window::default(),
            read: cursor,
            emptied: VecDeque::new(),
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

    /// Finishes messages. Says what was finished, part by part, and of each that was not, why.
    pub(super) fn finish(
        &mut self,
        client: ClientId,
        mut messages: Range<Sequence>,
        mut each: impl FnMut(Result<&Run, (Sequence, NotInFlight)>),
    ) {
        while !messages.is_empty() {
            let first = messages.start;
            match self.answered(client, &messages) {
                Ok(Sent { messages: finished, .. }) => {
                    self.done(&finished);
                    each(Ok(&finished));
                    messages.start = finished.end();
                }
                Err(why) => {
                    each(Err((first, why)));
                    messages.start = first.after(1);
                }
            }
        }
    }

    pub(super) fn requeue(
        &mut self,
        client: ClientId,
        id: MessageId,
        delay: Duration,
        now: Nanos,
    ) -> Result<(), NotInFlight> {
        let sequence = self.sequence(id)?;
        let sent = self.answered(client, &(sequence..sequence.after(1)))?;
        self.counters.requeued += 1;
        self.hold(sent.messages, sent.attempts, (!delay.is_zero()).then(|| now.after(delay)));
        Ok(())
    }

    pub(super) fn touch(
        &mut self,
        client: ClientId,
        id: MessageId,
        now: Nanos,
    ) -> Result<(), NotInFlight> {
        let sequence = self.sequence(id)?;
        let sent = self.owned(client, sequence)?;
        let timeout = self.clients.get(&client).map_or(Duration::ZERO, |it| it.timeout);
        let deadline = now.after(timeout).min(sent.at.after(self.config.timeout_max));
        self.in_flight.postpone(sequence, deadline);
        Ok(())
    }

    // The inside.

    fn available(&self) -> usize {
        self.window.len() + self.ready.len()
    }

    /// The next messages to be delivered, which are then in nobody's place: neighbours, as many as the
    /// limit lets, of which the bytes are lowered; and which attempt it is.
    fn pop(&mut self, now: Nanos, limit: &mut ReadLimit) -> Option<(Run, u16)> {
        loop {
            let again = !self.ready.is_empty() && (!self.repeated || self.window.len() == 0);
            self.repeated = again;
            if !again {
                let run = self.advance(limit)?;
                if let Some(first) = self.first_time(run, now) {
                    return Some(first);
                }
                continue;
            }
            let mut run = self.ready.pop_front()?;
            let Some(message) = run.messages().next() else { continue };
            let Some(held) = self.held.remove(&message.sequence) else { continue };
            if let Some(due) = message.due.filter(|due| held.attempts == 0 && *due > now) {
                self.hold(run, 0, Some(due)); // It waited for its key, not for its time.
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
            return Some((run.take(limit), attempts));
        }
    }

    /// Moves the cursor over the next messages of the window.
    fn advance(&mut self, limit: &mut ReadLimit) -> Option<Run> {
        if self.lanes.waiting() >= WAITING_FOR_KEY_MAX {
            return None;
        }
        let one_by_one = self.config.options.ordered_by_key
            || self.cursor < self.again_until
            || !self.ready.is_empty();
        let messages = if one_by_one { 1 } else { limit.messages };
        let mut part = ReadLimit { messages, ..*limit };
        let Some(run) = self.window.take(&mut part) else {
            // Behind the last message, all up to here was damaged.
            self.pass_over(self.read);
            return None;
        };
        limit.bytes = part.bytes;
        self.pass_over(run.first());
        self.cursor = run.end();
        self.progress.took(self.cursor.max(self.again_until));
        Some(run)
    }

    /// What is before `until` was damaged or is left out, and will never be read.
    fn pass_over(&mut self, until: Sequence) {
        if self.cursor < until {
            self.progress.finished(self.cursor..until);
            self.cursor = until;
            self.progress.took(self.cursor.max(self.again_until));
            self.forget_emptied();
        }
    }

    /// What becomes of messages when the cursor passes them: delivered, or held. Those for which there
    /// is something to be looked at come one by one.
    fn first_time(&mut self, run: Run, now: Nanos) -> Option<(Run, u16)> {
        let message = run.messages().next()?;
        let (sequence, mut attempts, mut due) = (message.sequence, 0, message.due);
        if sequence < self.again_until {
            // A finished one is left out. Not told to the journal: it knows.
            Unfinished { attempts, due } = self.again.get(sequence)?;
        }
        if let Some(key) = message.key.filter(|_| self.config.options.ordered_by_key)
            && !self.lanes.enter(key, sequence)
        {
            self.held.insert(sequence, Held { attempts, place: Place::Waiting });
            self.progress.left(sequence, Unfinished { attempts, due });
            return None;
        }
        if due.is_some_and(|due| due > now) {
            self.hold(run, attempts, due);
            return None;
        }
        if attempts > 0 {
            self.hold(run, attempts, None);
            return None;
        }
        Some((run, 1))
    }

    /// Messages are behind the cursor, at hand, and not in flight.
    fn hold(&mut self, mut run: Run, attempts: u16, due: Option<Nanos>) {
        while !run.is_empty() {
            let sequence = run.first();
            let one = run.take_one();
            if let Some(due) = due {
                self.hold_without_body(sequence, attempts, Place::Deferred(due));
            } else if self.ready.len() >= READY_MAX {
                self.hold_without_body(sequence, attempts, Place::Ready);
            } else {
                self.held.insert(sequence, Held { attempts, place: Place::Ready });
                self.progress.left(sequence, Unfinished { attempts, due: None });
                // It may wait for long, and is not to keep its neighbours in memory.
                self.ready.push_back(one.alone().unwrap_or(one));
            }
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

    /// Messages are finished: the next of their keys may go.
    fn done(&mut self, run: &Run) {
        self.progress.finished(run.first()..run.end());
        if self.config.options.ordered_by_key {
            for key in run.messages().filter_map(|it| it.key) {
                let next = self.lanes.leave(key);
                self.release(next);
            }
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

    /// Which message a consumer means.
    fn sequence(&self, id: MessageId) -> Result<Sequence, NotInFlight> {
        id.sequence(self.config.node).ok_or(NotInFlight::Unknown)
    }

    fn owned(&self, client: ClientId, sequence: Sequence) -> Result<&Sent, NotInFlight> {
        let sent = self.in_flight.get(sequence).ok_or(NotInFlight::Unknown)?;
        if sent.client == client { Ok(sent) } else { Err(NotInFlight::Other) }
    }

    /// Takes out of flight the messages of a range that were sent together with its first, if they
    /// are this consumer's.
    fn answered(&mut self, client: ClientId, range: &Range<Sequence>) -> Result<Sent, NotInFlight> {
        self.owned(client, range.start)?;
        let sent = self.in_flight.remove(range).ok_or(NotInFlight::Unknown)?;
        if let Some(it) = self.clients.get_mut(&client) {
            it.in_flight = it.in_flight.saturating_sub(count(&sent.messages));
        }
        Ok(sent)
    }
}

/// How many of a consumer's messages these are.
fn count(run: &Run) -> u32 {
    u32::try_from(run.len()).unwrap_or(u32::MAX)
}
