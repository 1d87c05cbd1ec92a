//! Asks the nsqlookupds and nsqds, several at once, and puts together what they say. One that does
//! not answer is a warning; only if none answers there is nothing to show.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::wire::{ChannelStats, Peer, Producer, ProducerTopic, TopicStats};
use crate::web::{Chain, Client, ClientError, encode};

/// Questions at the same time: an admin page shall not take all descriptors of its machine.
const ASKED_AT_ONCE: usize = 32;

/// What was found out, and what those say who did not answer.
#[derive(Debug)]
pub(super) struct Partial<T> {
    pub(super) value: T,
    pub(super) warnings: Vec<String>,
}

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(pub(super) String);

/// The result of asking several.
pub(super) type Asked<T> = Result<Partial<T>, Unanswered>;

/// Who is asked: nsqlookupds or, if there are none, nsqds.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) lookupds: Vec<String>,
    pub(super) nsqds: Vec<String>,
    /// The time, in seconds since 1970.
    pub(super) now: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Names {
    topics: Vec<String>,
    channels: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Peers {
    #[serde(default)]
    producers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Stats {
    #[serde(default)]
    topics: Vec<TopicStats>,
}

impl Cluster {
    /// Names of all topics, in order.
    pub(super) async fn topics(&self) -> Asked<Vec<String>> {
        let asked = if self.lookupds.is_empty() {
            let path = "/stats?format=json&include_clients=false";
            let asked = self.each::<Stats>("nsqd", &self.nsqds, |_| path.to_owned()).await?;
            asked.map(|all| {
                let topics = all.into_iter().flat_map(|(_, it)| it.topics);
                topics.map(|it| it.topic_name).collect::<BTreeSet<_>>()
            })
        } else {
            let asked = self.each::<Names>("nsqlookupd", &self.lookupds, |_| "/topics".to_owned());
            asked.await?.map(|all| all.into_iter().flat_map(|(_, it)| it.topics).collect())
        };
        Ok(asked.map(|names| names.into_iter().collect()))
    }

    /// Names of the channels that nsqlookupds know of a topic.
    pub(super) async fn channels(&self, topic: &str) -> Asked<Vec<String>> {
        let path = format!("/channels?topic={}", encode(topic));
        let asked = self.each::<Names>("nsqlookupd", &self.lookupds, |_| path.clone()).await?;
        Ok(asked.map(|all| {
            let names: BTreeSet<_> = all.into_iter().flat_map(|(_, it)| it.channels).collect();
            names.into_iter().collect()
        }))
    }

    /// All nsqds, by name of their machines.
    pub(super) async fn producers(&self) -> Asked<Vec<Producer>> {
        let mut asked = if self.lookupds.is_empty() {
            self.each_nsqd(None).await?
        } else {
            let asked = self.each::<Peers>("nsqlookupd", &self.lookupds, |_| "/nodes".to_owned());
            asked.await?.map(known)
        };
        asked.value.sort_by(|a, b| (&a.hostname, a.http()).cmp(&(&b.hostname, b.http())));
        Ok(asked)
    }

    /// The nsqds that have a topic.
    pub(super) async fn producers_of(&self, topic: &str) -> Asked<Vec<Producer>> {
        if self.lookupds.is_empty() {
            return self.each_nsqd(Some(topic)).await;
        }
        let path = format!("/lookup?topic={}", encode(topic));
        let asked = self.each::<Peers>("nsqlookupd", &self.lookupds, |_| path.clone()).await?;
        Ok(asked.map(|all| {
            let mut seen = BTreeSet::new();
            let producers = all.into_iter().flat_map(|(_, it)| it.producers);
            producers.map(Producer::from).filter(|it| seen.insert(it.http())).collect()
        }))
    }

    /// What `producers` say of their topics; of one topic and of one channel if these are given.
    pub(super) async fn stats(
        &self,
        producers: &[Producer],
        topic: Option<&str>,
        channel: Option<&str>,
        clients: Clients,
    ) -> Asked<Vec<TopicStats>> {
        let mut path = "/stats?format=json".to_owned();
        for (key, value) in [("topic", topic), ("channel", channel)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encode(value)));
            }
        }
        if clients == Clients::Leave {
            path.push_str("&include_clients=false");
        }
        let addresses: Vec<String> = producers.iter().map(Producer::http).collect();
        let asked = self.each::<Stats>("nsqd", &addresses, |_| path.clone()).await?;
        Ok(asked.map(|all| {
            let mut stats = Vec::new();
            for (address, it) in all {
                let Some(producer) = producers.iter().find(|it| it.http() == address) else {
                    continue;
                };
                for mut of_topic in it.topics {
                    if topic.is_none_or(|it| it == of_topic.topic_name) {
                        of_topic.complete(producer, self.now);
                        stats.push(of_topic);
                    }
                }
            }
            stats.sort_by(|a, b| (&a.hostname, &a.node).cmp(&(&b.hostname, &b.node)));
            stats
        }))
    }

    /// Has every nsqlookupd do something; what those say who did not.
    pub(super) async fn post_lookupds(&self, path: &str) -> Vec<String> {
        self.post(self.lookupds.clone(), path).await
    }

    /// Has `producers` do something; what those say who did not.
    pub(super) async fn post_producers(&self, producers: &[Producer], path: &str) -> Vec<String> {
        self.post(producers.iter().map(Producer::http).collect(), path).await
    }

    async fn post(&self, addresses: Vec<String>, path: &str) -> Vec<String> {
        let asked = stream::iter(addresses).map(|address| async move {
            self.client.post(&address, path).await.err().map(|error| Chain(&error).to_string())
        });
        asked.buffered(ASKED_AT_ONCE).filter_map(|it| async { it }).collect().await
    }

    /// The nsqds that were configured: all, or those with a topic.
    async fn each_nsqd(&self, topic: Option<&str>) -> Asked<Vec<Producer>> {
        let mut path = "/stats?format=json&include_clients=false".to_owned();
        if let Some(topic) = topic {
            path.push_str(&format!("&topic={}", encode(topic)));
        }
        let path = path.as_str();
        let asked = self.ask("nsqd", &self.nsqds, |address| async move {
            let stats: Stats = self.client.get(&address, path).await?;
            let has = |it: &str| stats.topics.iter().any(|of| of.topic_name == it);
            if topic.is_some_and(|it| !has(it)) {
                return Ok(None);
            }
            let info: Peer = self.client.get(&address, "/info").await?;
            let mut producer = Producer::from(info);
            // As nsqds before 0.2.21 answer, the original says.
            if producer.broadcast_address.is_empty() {
                let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
                host.clone_into(&mut producer.broadcast_address);
                producer.http_port = port.parse().unwrap_or_default();
            }
            let topics = stats.topics.into_iter();
            let topics = topics.map(|it| ProducerTopic { topic: it.topic_name, tombstoned: false });
            producer.topics = Some(topics.collect::<Vec<_>>()).filter(|it| !it.is_empty());
            Ok(Some(producer))
        });
        Ok(asked.await?.map(|all| all.into_iter().filter_map(|(_, it)| it).collect()))
    }

    /// A document of each of `addresses`.
    async fn each<T: serde::de::DeserializeOwned>(
        &self,
        kind: &str,
        addresses: &[String],
        path: impl Fn(&str) -> String,
    ) -> Asked<Vec<(String, T)>> {
        let path = &path;
        let ask = |address: String| async move { self.client.get(&address, &path(&address)).await };
        self.ask(kind, addresses, ask).await
    }

    async fn ask<T, F>(
        &self,
        kind: &str,
        addresses: &[String],
        ask: impl Fn(String) -> F,
    ) -> Asked<Vec<(String, T)>>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let asked = stream::iter(addresses.to_vec()).map(|address| {
            let answer = ask(address.clone());
            async move { (address, answer.await) }
        });
        let mut value = Vec::new();
        let mut warnings = Vec::new();
        let answers: Vec<_> = asked.buffered(ASKED_AT_ONCE).collect().await;
        for (address, answer) in answers {
            match answer {
                Ok(answer) => value.push((address, answer)),
                Err(error) => warnings.push(Chain(&error).to_string()),
            }
        }
        if value.is_empty() {
            let why = warnings.join("\n");
            return Err(Unanswered(format!("failed to query any {kind}: {why}")));
        }
        for warning in &warnings {
            tracing::warn!(warning, "not everybody answered");
        }
        Ok(Partial { value, warnings })
    }
}

/// Whether the consumers of channels are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    /// Yes.
    Show,
    /// No: there can be thousands.
    Leave,
}

impl<T> Partial<T> {
    pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> Partial<U> {
        Partial { value: with(self.value), warnings: self.warnings }
    }
}

/// The producers that nsqlookupds know, each with who knows it.
fn known(all: Vec<(String, Peers)>) -> Vec<Producer> {
    let mut producers: BTreeMap<String, Producer> = BTreeMap::new();
    for (lookupd, peers) in all {
        for producer in peers.producers.into_iter().map(Producer::from) {
            let at = match producer.remote_address.as_str() {
                "" => format!("{lookupd}/N/A"),
                remote => format!("{lookupd}/{remote}"),
            };
            let known = producers.entry(producer.tcp()).or_insert(producer);
            known.remote_addresses.get_or_insert_default().push(at);
        }
    }
    let newest = producers.values().map(|it| release(&it.version)).max();
    for producer in producers.values_mut() {
        producer.out_of_date = Some(release(&producer.version)) < newest;
    }
    producers.into_values().collect()
}

/// A release as numbers that can be compared; a preview comes before its release, nonsense first.
fn release(version: &str) -> (u64, u64, u64, bool) {
    let (numbers, preview) = version.split_once('-').unwrap_or((version, ""));
    let mut numbers = numbers.split('.').map(|it| it.parse().ok());
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
            (major, minor, patch, preview.is_empty())
        }
        _ => (0, 0, 0, false),
    }
}

/// The channels of all topics, each summed over the nsqds that have it, by topic and name.
pub(super) fn channels(stats: &[TopicStats]) -> BTreeMap<(String, String), ChannelStats> {
    let mut all: BTreeMap<(String, String), ChannelStats> = BTreeMap::new();
    for channel in stats.iter().flat_map(|it| it.channels.iter().flatten()) {
        let key = (channel.topic_name.clone(), channel.channel_name.clone());
        let sum = all.entry(key).or_insert_with(|| ChannelStats {
            topic_name: channel.topic_name.clone(),
            channel_name: channel.channel_name.clone(),
            ..ChannelStats::default()
        });
        sum.add(channel.clone());
    }
    all
}

/// The topics, each summed over the nsqds that have it, by name.
pub(super) fn topics(stats: Vec<TopicStats>) -> BTreeMap<String, TopicStats> {
    let mut all: BTreeMap<String, TopicStats> = BTreeMap::new();
    for topic in stats {
        let name = topic.topic_name.clone();
        let sum = all
            .entry(name.clone())
            .or_insert_with(|| TopicStats { topic_name: name, ..TopicStats::default() });
        sum.add(topic);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare() {
        assert!(release("1.10.0") > release("1.9.9"));
        assert!(release("1.3.0-alpha") < release("1.3.0"));
        assert!(release("unknown") < release("0.0.1"));
    }

    #[test]
    fn a_producer_is_shown_once_with_all_who_know_it() {
        let peer = |version: &str, host: &str| Peer {
            broadcast_address: host.to_owned(),
            remote_address: "r".to_owned(),
            tcp_port: 4150,
            version: version.to_owned(),
            ..Peer::default()
        };
        let one = Peers { producers: vec![peer("1.3.0", "a"), peer("1.2.1", "b")] };
        let two = Peers { producers: vec![peer("1.3.0", "a")] };
        let known = known(vec![("l1".to_owned(), one), ("l2".to_owned(), two)]);
        assert_eq!(known[0].remote_addresses, Some(vec!["l1/r".to_owned(), "l2/r".to_owned()]));
        assert!(!known[0].out_of_date);
        assert!(known[1].out_of_date);
    }
}
