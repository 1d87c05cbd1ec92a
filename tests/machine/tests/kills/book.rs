//! What was promised and what was seen: one history of the checker for each channel, and how often
//! each message was delivered. Does no IO; every thread of the load writes into it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use fault::history::{Delivery, DeliveryRules, Duplicates};

use crate::{nsqd::now, wire::Message};

/// Topics that are published to.
pub(crate) const TOPICS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Publishers. Each numbers what it publishes to a topic.
pub(crate) const PUBLISHERS: usize = 3;

/// How much earlier than told a deferred message may seem to come: what the test's clock, which only
/// goes forward, may differ from nsqd's.
const CLOCKS_DIFFER: Duration = Duration::from_millis(5);

/// Complaints that are kept; the first ones explain the others.
const COMPLAINTS_KEPT: usize = 20;

/// A message's number among those of its publisher to its topic, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) id: u64,
    pub(crate) body: Vec<u8>,
}

/// A place in the book.
pub(crate) type Key = (&'static str, String);

pub(crate) struct Book {
    begun: Instant,
    /// What each publisher sends next to each topic.
    next: BTreeMap<(&'static str, usize), u64>,
    channels: BTreeMap<Key, Channel>,
    pub(crate) complaints: Vec<String>,
    /// Deliveries to consumers, again or not.
    pub(crate) deliveries: u64,
    /// Attempts that were known to be written down when the process was killed, and were higher
    /// after that.
    pub(crate) attempts_kept: u64,
}

struct Channel {
    history: Delivery<usize>,
    /// From which message of each publisher on it was there for sure.
    since: [u64; PUBLISHERS],
    /// How often each message was delivered in this life of the process, or is known to have been.
    seen: HashMap<[u8; 16], u16>,
    /// How often it was for sure, also for the next life.
    kept: HashMap<[u8; 16], u16>,
}

/// Whether who gets a message later also reads it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A message goes to somebody else only after whoever had it let it go.
    InOrder,
    /// The process ends: it closes a connection, whose consumer has not read all that was sent to it,
    /// and gives that to the next, who has.
    AtWill,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            begun: now(),
            next: BTreeMap::new(),
            channels: BTreeMap::new(),
            complaints: Vec::new(),
            deliveries: 0,
            attempts_kept: 0,
        }
    }

    fn time(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS_KEPT {
            self.complaints.push(complaint);
        }
    }

    /// A channel was made, which gets all that is sent from now on, and may get what was sent before.
    pub(crate) fn made(&mut self, topic: &'static str, channel: &str, duplicates: Duplicates) {
        let at = self.time();
        let mut history = Delivery::new(DeliveryRules { duplicates, ordered: false });
        let mut since = [0; PUBLISHERS];
        for (publisher, since) in since.iter_mut().enumerate() {
            *since = self.next.get(&(topic, publisher)).copied().unwrap_or_default();
            (0..*since).for_each(|it| history.sent(&publisher, it, at));
        }
        let channel_of = Channel { history, since, seen: HashMap::new(), kept: HashMap::new() };
        self.channels.insert((topic, channel.to_owned()), channel_of);
    }

    /// A channel that began at the topic's first message: it gets all that was ever acknowledged,
    /// once. To be called before anything is sent, and never for one that is consumed.
    pub(crate) fn replayed(&mut self, topic: &'static str, channel: &str) {
        self.made(topic, channel, Duplicates::Forbidden);
    }

    /// The channels of all topics.
    pub(crate) fn channels(&self) -> Vec<Key> {
        self.channels.keys().cloned().collect()
    }

    /// A message about to be sent; it is not to come before `delay` has passed.
    pub(crate) fn send(
        &mut self,
        topic: &'static str,
        publisher: usize,
        delay: Duration,
        filling: usize,
    ) -> Post {
        let at = self.time();
        let next = self.next.entry((topic, publisher)).or_default();
        let id = *next;
        *next += 1;
        for (_, channel) in self.channels.iter_mut().filter(|(key, _)| key.0 == topic) {
            channel.history.sent(&publisher, id, at);
        }
        let due = if delay.is_zero() { Duration::ZERO } else { at + delay };
        Post { id, body: body(publisher, id, due, filling) }
    }

    pub(crate) fn acknowledged(&mut self, topic: &'static str, publisher: usize, id: u64) {
        let at = self.time();
        for (_, channel) in self.channels.iter_mut().filter(|(key, _)| key.0 == topic) {
            if channel.since.get(publisher).is_some_and(|since| *since <= id) {
                channel.history.acknowledged(&publisher, id, at);
            }
        }
    }

    /// A consumer got a message. Checks what it says and, unless consumers read at their own pace,
    /// how often it was delivered.
    pub(crate) fn delivered(&mut self, key: &Key, message: &Message, reading: Reading) {
        let at = self.time();
        self.deliveries += 1;
        let Some((_, _, due)) = parse(&message.body) else {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            return self.complain(format!("{key:?}: nobody published {text:?}"));
        };
        if at + CLOCKS_DIFFER < due {
            self.complain(format!("{key:?}: {message} came at {at:?}, is due at {due:?}"));
        }
        let Some(channel) = self.channels.get_mut(key) else { return };
        let seen = channel.seen.entry(message.id).or_default();
        let before = *seen;
        *seen = before.max(message.attempts);
        if message.attempts <= before && reading == Reading::InOrder {
            let complaint = format!("{key:?}: delivered {before} times before: {message}");
            return self.complain(complaint);
        }
        if channel.kept.contains_key(&message.id) {
            self.attempts_kept += 1;
        }
    }

    /// A consumer is about to finish a message, and is done with it.
    pub(crate) fn finished(&mut self, key: &Key, message: &Message) {
        let at = self.time();
        let Some((publisher, id, _)) = parse(&message.body) else { return };
        let Some(channel) = self.channels.get_mut(key) else { return };
        channel.history.received(&publisher, id, at);
        // Whether that is known after a crash is open, and then nothing is promised of it.
        channel.seen.remove(&message.id);
        channel.kept.remove(&message.id);
    }

    /// These were delivered so often, and that is written down.
    pub(crate) fn keep(&mut self, key: &Key, attempts: &[([u8; 16], u16)]) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        for (id, attempts) in attempts {
            let kept = channel.kept.entry(*id).or_default();
            *kept = (*kept).max(*attempts);
        }
    }

    /// The process was killed: it may have forgotten what was not written down.
    pub(crate) fn killed(&mut self) {
        for channel in self.channels.values_mut() {
            channel.seen.clone_from(&channel.kept);
        }
    }

    /// What each channel's history comes to, if it is bad; and how much was judged.
    pub(crate) fn judge(self) -> (Vec<String>, u64) {
        let Self { channels, mut complaints, .. } = self;
        let mut operations = 0;
        for (key, channel) in channels {
            let report = channel.history.finish();
            operations += report.operations;
            if !report.is_good() {
                complaints.push(format!("{key:?}: {report}"));
            }
        }
        (complaints, operations)
    }
}

/// What a message says: who published it, its number, when it is due, and a filling that follows from
/// these.
fn body(publisher: usize, id: u64, due: Duration, filling: usize) -> Vec<u8> {
    let mut body = format!("{publisher} {id} {} {filling} ", due.as_micros()).into_bytes();
    let letters = (id..).map(|it| b'a' + u8::try_from(it % 26).unwrap_or_default());
    body.extend(letters.take(filling));
    body
}

/// The publisher, number and due time of a message; `None` if it is not as it was published.
fn parse(bytes: &[u8]) -> Option<(usize, u64, Duration)> {
    let mut words = std::str::from_utf8(bytes).ok()?.splitn(5, ' ');
    let publisher = words.next()?.parse().ok()?;
    let id = words.next()?.parse().ok()?;
    let due = Duration::from_micros(words.next()?.parse().ok()?);
    let filling = words.next()?.parse().ok()?;
    (body(publisher, id, due, filling) == bytes).then_some((publisher, id, due))
}
