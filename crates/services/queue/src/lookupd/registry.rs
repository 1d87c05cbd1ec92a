//! Who produces what: the state behind the protocol and the HTTP API. No input or output, no clock;
//! every method that needs the time is handed it.
//!
//! As in the original, what was once registered stays known when its producers have left, until
//! somebody deletes it, so that a consumer finds a topic that is only just away. Topics and channels
//! are independent entries: to forget a topic is not to forget its channels, unless
//! [`Registry::delete_topic`] does both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::wire::{Debug, Lookup, Node, PeerInfo};
use crate::{message::Nanos, name::Name};

/// Stands for every topic where a topic is asked for. The original's, and its tools use it.
const EVERY: &str = "*";

/// Entries at most: topics, channels, and each producer's registration for one. At some hundred
/// bytes each this bounds the memory at a few hundred MiB; beyond, registering fails.
pub(super) const ENTRIES_MAX: usize = 1_000_000;

/// How long what was deleted is not learnt again from producers that are asked. Whoever deletes a
/// topic everywhere does so here first and at its producers then, and one may be asked in between;
/// the time is that of `nsqadmin`'s requests.
pub(super) const DELETED_FOR: Duration = Duration::from_secs(5);

/// Names a producer: where its connection comes from. One that reconnects is another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProducerId(Arc<str>);

impl ProducerId {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A time: for comparing, and for showing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Never goes backwards or jumps.
    pub(super) instant: Instant,
    /// The time of day.
    pub(super) wall: Nanos,
}

impl Moment {
    fn since(self, earlier: Self) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }
}

/// How a producer came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It said so itself, from this address.
    Registered(IpAddr),
    /// Whoever runs this nsqlookupd said so. It is not shown beside itself if it also registered.
    Found,
}

/// There are [`ENTRIES_MAX`] entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many registrations: at most {ENTRIES_MAX}")]
pub(super) struct TooMany;

/// How long things count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    /// A producer from which nothing came for longer than this is not given to consumers.
    pub(super) inactive: Duration,
    /// How long a tombstone hides a producer.
    pub(super) tombstone: Duration,
}

#[derive(Debug)]
struct Producer {
    info: PeerInfo,
    source: Source,
    last_update: Moment,
}

/// Producers of one topic or channel, each with when it was tombstoned.
type Registration = BTreeMap<ProducerId, Option<Moment>>;

/// Who produces what.
#[derive(Debug)]
pub(super) struct Registry {
    lifetimes: Lifetimes,
    producers: BTreeMap<ProducerId, Producer>,
    topics: BTreeMap<Name, Registration>,
    channels: BTreeMap<(Name, Name), Registration>,
    entries: usize,
    /// What was deleted lately, and found producers had: topics, and channels of topics.
    deleted: BTreeMap<(Name, Option<Name>), Moment>,
}

/// What one producer has: topics, each with its channels.
pub(super) type Topics = BTreeMap<Name, BTreeSet<Name>>;

impl Registry {
    pub(super) const fn new(lifetimes: Lifetimes) -> Self {
        Self {
            lifetimes,
            producers: BTreeMap::new(),
            topics: BTreeMap::new(),
            channels: BTreeMap::new(),
            entries: 0,
            deleted: BTreeMap::new(),
        }
    }

    /// A producer is there, or has said again what it is.
    pub(super) fn identify(
        &mut self,
        id: &ProducerId,
        info: PeerInfo,
        source: Source,
        now: Moment,
    ) {
        let producer = Producer { info, source, last_update: now };
        self.producers.insert(id.clone(), producer);
    }

    /// A producer is still there.
    pub(super) fn ping(&mut self, id: &ProducerId, now: Moment) {
        if let Some(producer) = self.producers.get_mut(id) {
            producer.last_update = now;
        }
    }

    /// A producer has a topic, and perhaps a channel of it.
    ///
    /// # Errors
    /// If there are too many; then it may be registered for the channel only.
    pub(super) fn register(
        &mut self,
        id: &ProducerId,
        topic: &Name,
        channel: Option<&Name>,
    ) -> Result<(), TooMany> {
        if let Some(channel) = channel {
            let key = (topic.clone(), channel.clone());
            add(&mut self.channels, key, Some(id), &mut self.entries)?;
        }
        add(&mut self.topics, topic.clone(), Some(id), &mut self.entries)
    }

    /// A producer no longer has a channel or, without one, a topic with all its channels. What is
    /// ephemeral is forgotten with its last producer.
    pub(super) fn unregister(&mut self, id: &ProducerId, topic: &Name, channel: Option<&Name>) {
        let Some(channel) = channel else {
            for (_, registration) in of_topic_mut(&mut self.channels, topic) {
                self.entries -= usize::from(registration.remove(id).is_some());
            }
            withdraw(&mut self.topics, topic, id, topic.is_ephemeral(), &mut self.entries);
            return;
        };
        let key = (topic.clone(), channel.clone());
        withdraw(&mut self.channels, &key, id, channel.is_ephemeral(), &mut self.entries);
    }

    /// Makes `topics` all that a producer has, but for those that were deleted a moment ago.
    ///
    /// # Errors
    /// If there are too many; then only some are registered.
    pub(super) fn replace(
        &mut self,
        id: &ProducerId,
        topics: &Topics,
        now: Moment,
    ) -> Result<(), TooMany> {
        self.deleted.retain(|_, at| now.since(*at) < DELETED_FOR);
        let has = |registration: &Registration| registration.contains_key(id);
        let gone: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, it)| has(it))
            .map(|(key, _)| key.clone())
            .filter(|(topic, channel)| !topics.get(topic).is_some_and(|it| it.contains(channel)))
            .collect();
        for (topic, channel) in gone {
            self.unregister(id, &topic, Some(&channel));
        }
        let topics_had = self.topics.iter().filter(|(_, it)| has(it)).map(|(name, _)| name);
        let gone: Vec<_> = topics_had.filter(|it| !topics.contains_key(it)).cloned().collect();
        for topic in gone {
            self.unregister(id, &topic, None);
        }
        for (topic, channels) in topics {
            if self.deleted.contains_key(&(topic.clone(), None)) {
                continue;
            }
            self.register(id, topic, None)?;
            for channel in channels {
                if !self.deleted.contains_key(&(topic.clone(), Some(channel.clone()))) {
                    self.register(id, topic, Some(channel))?;
                }
            }
        }
        Ok(())
    }

    /// A producer is no longer there. Its topics and channels stay known.
    pub(super) fn leave(&mut self, id: &ProducerId) {
        self.producers.remove(id);
        let registrations = self.channels.values_mut().chain(self.topics.values_mut());
        for registration in registrations {
            self.entries -= usize::from(registration.remove(id).is_some());
        }
    }

    /// Makes a topic known.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn create_topic(&mut self, topic: &Name) -> Result<(), TooMany> {
        self.deleted.remove(&(topic.clone(), None));
        add(&mut self.topics, topic.clone(), None, &mut self.entries)
    }

    /// Makes a channel and its topic known.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn create_channel(&mut self, topic: &Name, channel: &Name) -> Result<(), TooMany> {
        let key = (topic.clone(), channel.clone());
        self.deleted.remove(&(topic.clone(), Some(channel.clone())));
        add(&mut self.channels, key, None, &mut self.entries)?;
        self.create_topic(topic)
    }

    /// Forgets a topic, its channels and who had them.
    pub(super) fn delete_topic(&mut self, topic: &str, now: Moment) {
        let channels: Vec<_> = self.matching_channels(topic).cloned().collect();
        for key in channels {
            remove(&mut self.channels, &key, &mut self.entries);
        }
        for topic in self.matching(topic) {
            if self.topics.get(&topic).is_some_and(|it| self.has_found(it)) {
                self.deleted.insert((topic.clone(), None), now);
            }
            remove(&mut self.topics, &topic, &mut self.entries);
        }
    }

    /// Forgets a channel and who had it; whether it was known.
    pub(super) fn delete_channel(&mut self, topic: &Name, channel: &Name, now: Moment) -> bool {
        let key = (topic.clone(), channel.clone());
        if self.channels.get(&key).is_some_and(|it| self.has_found(it)) {
            self.deleted.insert((topic.clone(), Some(channel.clone())), now);
        }
        remove(&mut self.channels, &key, &mut self.entries)
    }

    /// Whether one of the producers did not register itself, and will be asked again.
    fn has_found(&self, registration: &Registration) -> bool {
        let source = |id: &ProducerId| self.producers.get(id).map(|it| it.source);
        registration.keys().any(|id| source(id) == Some(Source::Found))
    }

    /// Hides the producers at `node`, which is `host:port` of their HTTP, from those who look for
    /// `topic`, for a while.
    pub(super) fn tombstone(&mut self, topic: &str, node: &str, now: Moment) {
        for topic in self.matching(topic) {
            let Some(registration) = self.topics.get_mut(&topic) else { continue };
            for (id, tombstoned) in registration {
                let producer = self.producers.get(id);
                if producer.is_some_and(|it| it.info.node() == node) {
                    *tombstoned = Some(now);
                }
            }
        }
    }

    /// Names of all topics.
    pub(super) fn topics(&self) -> Vec<Name> {
        self.topics.keys().cloned().collect()
    }

    /// Names of the channels of `topic`.
    pub(super) fn channels(&self, topic: &str) -> Vec<Name> {
        self.matching_channels(topic).map(|(_, channel)| channel.clone()).collect()
    }

    /// What a consumer is told of `topic`; `None` if nothing is known of it.
    pub(super) fn lookup(&self, topic: &str, now: Moment) -> Option<Lookup> {
        let topics = self.matching(topic);
        if topics.is_empty() {
            return None;
        }
        let registered = self.registered();
        let mut seen = BTreeSet::new();
        let mut producers = Vec::new();
        for (id, tombstoned) in topics.iter().filter_map(|it| self.topics.get(it)).flatten() {
            if !seen.insert(id) || self.is_tombstoned(*tombstoned, now) {
                continue;
            }
            if let Some(producer) = self.active(id, &registered, now) {
                producers.push(producer.info.clone());
            }
        }
        Some(Lookup { channels: self.channels(topic), producers })
    }

    /// Every producer from which something came lately, with its topics. A tombstone is shown, and
    /// hides nothing.
    pub(super) fn nodes(&self, now: Moment) -> Vec<Node> {
        let mut of_producer: BTreeMap<&ProducerId, Vec<(&Name, bool)>> = BTreeMap::new();
        for (topic, registration) in &self.topics {
            for (id, tombstoned) in registration {
                let tombstoned = self.is_tombstoned(*tombstoned, now);
                of_producer.entry(id).or_default().push((topic, tombstoned));
            }
        }
        let registered = self.registered();
        let active = self.producers.keys().filter_map(|id| {
            let producer = self.active(id, &registered, now)?;
            let topics = of_producer.remove(id).unwrap_or_default();
            let tombstones = topics.iter().map(|(_, it)| *it).collect();
            let topics = topics.into_iter().map(|(name, _)| name.clone()).collect();
            Some(Node::new(producer.info.clone(), tombstones, topics))
        });
        active.collect()
    }

    /// Every registration of every producer.
    pub(super) fn debug(&self) -> BTreeMap<String, Vec<Debug>> {
        let clients = self.producers.keys().map(|id| (id.clone(), None)).collect();
        let clients = ("client::".to_owned(), &clients);
        let channels = self.channels.iter();
        let channels = channels.map(|((topic, it), of)| (format!("channel:{topic}:{it}"), of));
        let topics = self.topics.iter().map(|(topic, of)| (format!("topic:{topic}:"), of));
        let all = std::iter::once(clients).chain(channels).chain(topics);
        let shown = all.map(|(key, registration): (String, &Registration)| {
            let producers = registration.iter().filter_map(|(id, tombstoned)| {
                let producer = self.producers.get(id)?;
                let tombstoned = tombstoned.map(|it| it.wall);
                let updated = producer.last_update.wall;
                Some(Debug::new(&id.0, &producer.info, updated, tombstoned))
            });
            (key, producers.collect::<Vec<_>>())
        });
        shown.filter(|(_, producers)| !producers.is_empty()).collect()
    }

    fn is_tombstoned(&self, tombstoned: Option<Moment>, now: Moment) -> bool {
        tombstoned.is_some_and(|at| now.since(at) < self.lifetimes.tombstone)
    }

    /// The producer, if it is to be shown.
    fn active(
        &self,
        id: &ProducerId,
        registered: &Addresses<'_>,
        now: Moment,
    ) -> Option<&Producer> {
        let producer = self.producers.get(id)?;
        let fresh = now.since(producer.last_update) <= self.lifetimes.inactive;
        let address = (producer.info.broadcast_address.as_str(), producer.info.tcp_port);
        let doubled = producer.source == Source::Found && registered.has(address);
        (fresh && !doubled).then_some(producer)
    }

    /// Where those are who registered themselves.
    fn registered(&self) -> Addresses<'_> {
        let mut addresses = Addresses::default();
        for producer in self.producers.values() {
            if let Source::Registered(from) = producer.source {
                let port = producer.info.tcp_port;
                addresses.named.insert((producer.info.broadcast_address.as_str(), port));
                addresses.seen.insert((from, port));
            }
        }
        addresses
    }

    /// The topics that `topic` means.
    fn matching(&self, topic: &str) -> Vec<Name> {
        if topic == EVERY {
            return self.topics();
        }
        Name::parse(topic).filter(|it| self.topics.contains_key(it)).into_iter().collect()
    }

    /// The channels of the topics that `topic` means.
    fn matching_channels<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a (Name, Name)> {
        let every = topic == EVERY;
        self.channels.keys().filter(move |(it, _)| every || it.as_str() == topic)
    }
}

/// Where producers are: as they say, and as their connections show.
#[derive(Default)]
struct Addresses<'a> {
    named: BTreeSet<(&'a str, i64)>,
    seen: BTreeSet<(IpAddr, i64)>,
}

impl Addresses<'_> {
    fn has(&self, (host, port): (&str, i64)) -> bool {
        let seen = host.parse().is_ok_and(|it| self.seen.contains(&(it, port)));
        seen || self.named.contains(&(host, port))
    }
}

/// Adds an entry, and a producer to it.
fn add<K: Ord>(
    map: &mut BTreeMap<K, Registration>,
    key: K,
    id: Option<&ProducerId>,
    entries: &mut usize,
) -> Result<(), TooMany> {
    let known = map.get(&key);
    let new_key = usize::from(known.is_none());
    let new_id = usize::from(id.is_some_and(|id| !known.is_some_and(|it| it.contains_key(id))));
    if new_key + new_id == 0 {
        return Ok(());
    }
    if ENTRIES_MAX < *entries + new_key + new_id {
        return Err(TooMany);
    }
    *entries += new_key + new_id;
    let registration = map.entry(key).or_default();
    if let (Some(id), 1) = (id, new_id) {
        registration.insert(id.clone(), None);
    }
    Ok(())
}

/// Removes a producer from an entry, and the entry if nobody is left and it is `ephemeral`.
fn withdraw<K: Ord>(
    map: &mut BTreeMap<K, Registration>,
    key: &K,
    id: &ProducerId,
    ephemeral: bool,
    entries: &mut usize,
) {
    let Some(registration) = map.get_mut(key) else { return };
    *entries -= usize::from(registration.remove(id).is_some());
    if ephemeral && registration.is_empty() {
        remove(map, key, entries);
    }
}

/// Removes an entry with all in it; whether it was there.
fn remove<K: Ord>(map: &mut BTreeMap<K, Registration>, key: &K, entries: &mut usize) -> bool {
    let removed = map.remove(key);
    *entries -= removed.as_ref().map_or(0, |it| 1 + it.len());
    removed.is_some()
}

/// The channels of one topic. `Name`s are not empty, so the smallest key of a topic is found by
/// walking; topics have few channels, and this is called when a topic goes.
fn of_topic_mut<'a>(
    channels: &'a mut BTreeMap<(Name, Name), Registration>,
    topic: &'a Name,
) -> impl Iterator<Item = (&'a (Name, Name), &'a mut Registration)> {
    channels.iter_mut().filter(move |((it, _), _)| it == topic)
}

#[cfg(test)]
mod tests;
