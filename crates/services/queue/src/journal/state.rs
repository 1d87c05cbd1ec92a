//! What the journal keeps: the [`State`] of all topics and channels, and how each [`Change`]
//! changes it.
//!
//! Pure. The same code runs when a change is made and when it is read back. It is written for the
//! second: a change that speaks of what is not known follows one that was lost, and is read so that
//! more is delivered again, never less.

use std::{collections::BTreeMap, mem, ops::Range};

use super::{
    progress::{Progress, join},
    runs::{Runs, Unfinished},
};
use crate::{broker::ChannelOptions, message::Sequence, name::Name};

/// A channel: where it is in its topic's log, and what it still owes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// All below were taken from the topic.
    pub cursor: Sequence,
    /// Of what is below the cursor, what is not finished.
    pub unfinished: Runs,
    /// What is not below the cursor and not to be taken: the topic was emptied of it before the
    /// channel was given it. In order; none is empty, and none meet.
    pub emptied: Vec<Range<Sequence>>,
    /// Whether it hands out nothing.
    pub paused: bool,
    /// What it was made with.
    pub options: ChannelOptions,
    /// Number of the change that made or placed it. A [`Progress`] with another number follows a
    /// change that was lost.
    pub(super) life: u64,
    /// Where its life began was lost: it may owe anything, until it is compared with the log.
    pub(super) lost: bool,
}

impl ChannelState {
    /// The first message it owes; what is below may be retired.
    #[must_use]
    pub fn floor(&self) -> Sequence {
        self.unfinished.iter().next().map_or(self.cursor, |(range, _)| range.start)
    }

    /// Whether what is told of a life continues what is known; if not, it may owe anything.
    fn lives(&mut self, life: u64) -> bool {
        let known = self.life == life;
        if !known {
            let Self { paused, options, .. } = mem::take(self);
            *self = Self { paused, options, life, lost: true, ..Self::default() };
        }
        known
    }

    /// Whether this continues what is known.
    fn progress(&mut self, progress: &Progress, life: u64) -> bool {
        if !self.lives(life) {
            return false;
        }
        if self.lost {
            return true;
        }
        let cursor = self.cursor.max(progress.cursor);
        self.unfinished.put(self.cursor..cursor, Unfinished::TAKEN);
        for range in &self.emptied {
            self.unfinished.remove(range.start..range.end.min(cursor));
        }
        self.cursor = cursor;
        self.pass_emptied();
        for (range, what) in &progress.left {
            self.unfinished.put(range.start..range.end.min(cursor), *what);
        }
        for range in &progress.finished {
            self.unfinished.remove(range.clone());
        }
        true
    }

    /// Whether this continues what is known.
    fn emptied(&mut self, range: &Range<Sequence>, life: u64) -> bool {
        if !self.lives(life) {
            return false;
        }
        // One that owes everything need not know what it does not owe.
        if !self.lost && range.start < range.end {
            self.emptied.push(range.clone());
            join(&mut self.emptied);
            self.pass_emptied();
        }
        true
    }

    /// Forgets of what is emptied what is below the cursor.
    fn pass_emptied(&mut self) {
        clip(&mut self.emptied, &(self.cursor..Sequence(u64::MAX)));
    }

    /// Whether anything had to be corrected.
    fn reconcile(&mut self, log: &Range<Sequence>) -> bool {
        self.lost = false;
        let outside =
            self.unfinished.iter().any(|(it, _)| it.start < log.start || it.end > log.end);
        let cursor = self.cursor.clamp(log.start, log.end.max(log.start));
        let outside = outside || self.emptied.iter().any(|it| it.end > log.end);
        let wrong = outside || cursor != self.cursor;
        self.unfinished.remove(Sequence(0)..log.start);
        self.unfinished.remove(cursor..Sequence(u64::MAX));
        self.cursor = cursor;
        clip(&mut self.emptied, &(cursor..log.end));
        wrong
    }
}

/// Leaves of ranges what is within another.
fn clip(ranges: &mut Vec<Range<Sequence>>, within: &Range<Sequence>) {
    for it in &mut *ranges {
        *it = it.start.max(within.start)..it.end.min(within.end);
    }
    ranges.retain(|it| it.start < it.end);
}

/// A topic: how far its messages were handed to its channels, and these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// All below were handed to the channels that were there; a new one begins here.
    pub routed: Sequence,
    /// Whether it hands nothing to its channels.
    pub paused: bool,
    /// Whether it hands nothing to its channels before it is known which it is to have.
    pub held: bool,
    /// Its channels by name.
    pub channels: BTreeMap<Name, ChannelState>,
}

impl TopicState {
    /// Makes the state fit the log, which has the messages `log.start..log.end`; whether anything
    /// had to be corrected.
    ///
    /// The two are different files. After a power cut either may be older than the other, and
    /// segments are deleted without asking the journal. What the log has and the state called
    /// unfinished or not yet taken stays so. What is beyond the log's end was lost with it, and its
    /// numbers will be given to new messages: a cursor must not stay there.
    #[must_use]
    pub fn reconcile(&mut self, log: &Range<Sequence>) -> bool {
        let routed = self.routed.clamp(log.start, log.end.max(log.start));
        let mut wrong = routed != self.routed;
        self.routed = routed;
        for channel in self.channels.values_mut() {
            wrong |= channel.reconcile(log);
        }
        wrong
    }
}

/// What happened to a topic or channel. One that is ephemeral has no place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A topic was made; one of this name that was there is forgotten with its channels.
    TopicCreated {
        /// Its name.
        topic: Name,
        /// Where its log begins.
        routed: Sequence,
    },
    /// A topic went, with its channels.
    TopicDeleted {
        /// Its name.
        topic: Name,
    },
    /// A topic was paused or goes on.
    TopicPaused {
        /// Its name.
        topic: Name,
        /// Whether it is paused now.
        paused: bool,
    },
    /// A new topic waits until it is known which channels it is to have, or goes on.
    TopicHeld {
        /// Its name.
        topic: Name,
        /// Whether it waits.
        held: bool,
    },
    /// All below were handed to the topic's channels, or thrown away by emptying it.
    Routed {
        /// Its name.
        topic: Name,
        /// The mark; it does not go back.
        routed: Sequence,
    },
    /// A channel was made; one of this name that was there is forgotten.
    ChannelCreated {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
        /// Where it begins.
        cursor: Sequence,
        /// What it was made with.
        options: ChannelOptions,
    },
    /// A channel went.
    ChannelDeleted {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
    },
    /// A channel was paused or goes on.
    ChannelPaused {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
        /// Whether it is paused now.
        paused: bool,
    },
    /// A channel was rewound or emptied: whatever was unfinished is forgotten, and it goes on from
    /// here, forward or back. What it took since is told by a [`Progress`] after this.
    Placed {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
        /// Where it went on, not where it has come since.
        cursor: Sequence,
    },
    /// A channel will not take these messages: its topic was emptied of them before it gave them to
    /// the channel.
    Emptied {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
        /// Which messages. What of it is below the channel's cursor is no concern of it.
        range: Range<Sequence>,
    },
    /// Messages were taken, finished, requeued.
    Progress {
        /// Its topic.
        topic: Name,
        /// Its name.
        channel: Name,
        /// What was done.
        progress: Progress,
    },
    /// The topic's log was found to have these messages ([`TopicState::reconcile`]). Made by the
    /// journal when it starts.
    Reconciled {
        /// Its name.
        topic: Name,
        /// From its first to, and without, the one it will write next.
        log: Range<Sequence>,
    },
}

/// A change with the number that says which life of a channel it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) change: Change,
    /// Of `ChannelCreated` and `Placed`, its own number; of `Emptied` and `Progress`, that of the
    /// channel it continues; else 0.
    pub(super) life: u64,
}

impl Record {
    /// The same in records that are not too long.
    pub(super) fn pieces(self) -> Vec<Self> {
        let Self { change, life } = self;
        let Change::Progress { topic, channel, progress } = change else {
            return vec![Self { change, life }];
        };
        let pieces = progress.pieces(RUNS_PER_RECORD).into_iter().map(|progress| {
            let (topic, channel) = (topic.clone(), channel.clone());
            Self { change: Change::Progress { topic, channel, progress }, life }
        });
        pieces.collect()
    }
}

/// All topics, and the greatest number of a life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) topics: BTreeMap<Name, TopicState>,
    pub(super) lives: u64,
}

impl State {
    fn channel(&self, topic: &Name, channel: &Name) -> Option<&ChannelState> {
        self.topics.get(topic)?.channels.get(channel)
    }

    /// Numbers a change that is made now. `None` if it is of a topic or channel that is not there
    /// (any more): then there is nothing to change, and written down it would be read as a sign of
    /// loss.
    pub(super) fn number(&self, mut change: Change) -> Option<Record> {
        let life = match &mut change {
            Change::TopicCreated { .. } => 0,
            Change::TopicDeleted { topic }
            | Change::TopicPaused { topic, .. }
            | Change::TopicHeld { topic, .. }
            | Change::Routed { topic, .. }
            | Change::Reconciled { topic, .. } => self.topics.get(topic).map(|_| 0)?,
            Change::ChannelCreated { topic, .. } => {
                self.topics.get(topic).map(|_| self.lives.saturating_add(1))?
            }
            Change::ChannelDeleted { topic, channel }
            | Change::ChannelPaused { topic, channel, .. } => {
                self.channel(topic, channel).map(|_| 0)?
            }
            Change::Placed { topic, channel, .. } => {
                self.channel(topic, channel).map(|_| self.lives.saturating_add(1))?
            }
            Change::Emptied { topic, channel, range } => {
                let channel = self.channel(topic, channel)?;
                // What was taken may be owed, and whoever reads this may not know that it was.
                range.start = range.start.max(channel.cursor);
                (range.start < range.end).then_some(channel.life)?
            }
            Change::Progress { topic, channel, .. } => self.channel(topic, channel)?.life,
        };
        Some(Record { change, life })
    }

    /// Makes a change, or makes it again. Whether it fitted: if not, changes before it were lost.
    pub(super) fn apply(&mut self, record: &Record) -> bool {
        let Record { change, life } = record;
        self.lives = self.lives.max(*life);
        match change {
            Change::TopicCreated { topic, routed } => {
                let state = TopicState { routed: *routed, ..TopicState::default() };
                self.topics.insert(topic.clone(), state);
                true
            }
            Change::TopicDeleted { topic } => self.topics.remove(topic).is_some(),
            Change::TopicPaused { topic, paused } => self.on_topic(topic, |it| it.paused = *paused),
            Change::TopicHeld { topic, held } => self.on_topic(topic, |it| it.held = *held),
            Change::Routed { topic, routed } => {
                self.on_topic(topic, |it| it.routed = it.routed.max(*routed))
            }
            Change::Reconciled { topic, log } => self.on_topic(topic, |it| {
                let _: bool = it.reconcile(log);
            }),
            Change::ChannelCreated { topic, channel, cursor, options } => {
                let state = ChannelState {
                    cursor: *cursor,
                    options: options.clone(),
                    life: *life,
                    ..ChannelState::default()
                };
                self.on_topic(topic, |it| {
                    it.channels.insert(channel.clone(), state);
                })
            }
            Change::ChannelDeleted { topic, channel } => {
                let mut known = false;
                self.on_topic(topic, |it| known = it.channels.remove(channel).is_some()) && known
            }
            Change::ChannelPaused { topic, channel, paused } => {
                self.on_channel(topic, channel, |it| it.paused = *paused)
            }
            Change::Placed { topic, channel, cursor } => self.on_channel(topic, channel, |it| {
                it.cursor = *cursor;
                it.unfinished = Runs::default();
                it.emptied.clear();
                it.life = *life;
                it.lost = false;
            }),
            Change::Emptied { topic, channel, range } => {
                let mut continues = false;
                let known = self.on_channel(topic, channel, |it| {
                    continues = it.emptied(range, *life);
                });
                known && continues
            }
            Change::Progress { topic, channel, progress } => {
                let mut continues = false;
                let known = self.on_channel(topic, channel, |it| {
                    continues = it.progress(progress, *life);
                });
                known && continues
            }
        }
    }

    /// Changes a topic; whether it was known. One that was not owes all that its log has.
    fn on_topic(&mut self, topic: &Name, change: impl FnOnce(&mut TopicState)) -> bool {
        let known = self.topics.contains_key(topic);
        change(self.topics.entry(topic.clone()).or_default());
        known
    }

    /// Changes a channel; whether it was known. One that was not owes all that its log has.
    fn on_channel(
        &mut self,
        topic: &Name,
        channel: &Name,
        change: impl FnOnce(&mut ChannelState),
    ) -> bool {
        let mut known = false;
        let topic_known = self.on_topic(topic, |it| {
            known = it.channels.contains_key(channel);
            change(it.channels.entry(channel.clone()).or_default());
        });
        topic_known && known
    }

    /// The changes that make this state from nothing, in an order in which they can be made.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.topics.iter().flat_map(|(name, state)| {
            let channels = state.channels.iter();
            topic_records(name, state)
                .chain(channels.flat_map(|(channel, it)| channel_records(name, channel, it)))
        })
    }
}

fn topic_records(name: &Name, state: &TopicState) -> impl Iterator<Item = Record> {
    let made = Change::TopicCreated { topic: name.clone(), routed: state.routed };
    let paused = state.paused.then(|| Change::TopicPaused { topic: name.clone(), paused: true });
    let held = state.held.then(|| Change::TopicHeld { topic: name.clone(), held: true });
    std::iter::once(made).chain(paused).chain(held).map(|change| Record { change, life: 0 })
}

fn channel_records<'a>(
    topic: &'a Name,
    channel: &'a Name,
    state: &'a ChannelState,
) -> impl Iterator<Item = Record> + 'a {
    let names = || (topic.clone(), channel.clone());
    let (topic, channel) = names();
    let (cursor, options) = (state.cursor, state.options.clone());
    let made = Change::ChannelCreated { topic, channel, cursor, options };
    let paused = state.paused.then(|| {
        let (topic, channel) = names();
        Change::ChannelPaused { topic, channel, paused: true }
    });
    let emptied = state.emptied.iter().map(move |range| {
        let (topic, channel) = names();
        Change::Emptied { topic, channel, range: range.clone() }
    });
    let mut runs = state.unfinished.iter();
    let left = std::iter::from_fn(move || {
        let left: Vec<_> = runs.by_ref().take(RUNS_PER_RECORD).collect();
        let progress = Progress { left, ..Progress::default() };
        let (topic, channel) = names();
        (!progress.is_empty()).then_some(Change::Progress { topic, channel, progress })
    });
    let life = state.life;
    let all = std::iter::once(made).chain(paused).chain(emptied).chain(left);
    all.map(move |change| Record { change, life })
}

/// At most this many ranges of each kind in one record, so that a frame stays small (about 200 KiB)
/// whatever a channel has deferred. More are written as several records.
pub(super) const RUNS_PER_RECORD: usize = 4096;
