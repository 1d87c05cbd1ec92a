//! What nsqd tells of itself: assembled here from the broker, the clients and the process, and told
//! as JSON, as text, to Prometheus and to statsd. The JSON keys and the text are the original's; a
//! few keys about replay are ours.

mod latency;
mod process;
mod prometheus;
mod statsd;
mod text;
mod wire;

pub use latency::{Latencies, Latency};
pub(crate) use process::{Memory, Process};
pub(crate) use prometheus::{Exposition, Whole};
pub use statsd::{Push, push};
pub(crate) use text::{Head, text};
pub use wire::{ChannelStats, Latency as LatencyStats, Percentile, Stats, TopicStats};

use crate::{
    broker::{self, Broker, Channel, Topic},
    name::Name,
    protocol::{ClientStats, Clients},
};

/// Where the figures come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    /// Topics and channels.
    pub broker: Broker,
    /// Who is connected.
    pub clients: Clients,
    /// How long messages took.
    pub latencies: Latencies,
}

/// Which figures are wanted. Without names: all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Of this topic only.
    pub topic: Option<&'a str>,
    /// Of topics that have this channel, and of that channel only.
    pub channel: Option<&'a str>,
    /// With every client.
    pub clients: bool,
}

impl Source {
    /// The figures now. Those of one channel belong together; those of several may be moments
    /// apart.
    #[must_use]
    pub fn stats(&self, wanted: Wanted<'_>) -> Stats {
        let Some(topics) = self.wanted(wanted) else { return Stats::default() };
        let clients = if wanted.clients { self.clients.snapshot() } else { Vec::new() };
        let told = |(topic, channels): &(Topic, Vec<Channel>)| {
            let channels = channels.iter().map(|channel| {
                let latency = self.latencies.of_channel(topic.name(), channel.name());
                let who = wanted.clients.then(|| consumers(&clients, topic.name(), channel.name()));
                ChannelStats::new(&channel.stats(), who, latency)
            });
            let latency = self.latencies.of_topic(topic.name());
            TopicStats::new(&topic.stats(), channels.collect(), latency)
        };
        let topics = topics.iter().map(told).collect();
        Stats { topics: Some(topics), producers: producers(clients, wanted.topic) }
    }

    /// The topics and channels that are wanted; `None` if the topic is not there.
    fn wanted(&self, wanted: Wanted<'_>) -> Option<Vec<(Topic, Vec<Channel>)>> {
        let topics = match wanted.topic {
            None => self.broker.topics(),
            Some(name) => vec![self.broker.existing_topic(&Name::parse(name)?)?],
        };
        let Some(name) = wanted.channel else {
            return Some(topics.into_iter().map(|it| (it.clone(), it.channels())).collect());
        };
        let name = Name::parse(name);
        let of_topic = |it: Topic| {
            let channel = it.existing_channel(name.as_ref()?)?;
            Some((it, vec![channel]))
        };
        Some(topics.into_iter().filter_map(of_topic).collect())
    }
}

fn consumers(clients: &[ClientStats], topic: &Name, channel: &Name) -> Vec<ClientStats> {
    let here = |it: &&ClientStats| {
        it.subscribed.as_ref().is_some_and(|(of, at)| of == topic && at == channel)
    };
    clients.iter().filter(here).cloned().collect()
}

/// Clients that published anything; of what they published, what is wanted. `None`, which JSON has
/// as `null`, if there are none: so does the original.
fn producers(clients: Vec<ClientStats>, topic: Option<&str>) -> Option<Vec<ClientStats>> {
    let mut producers: Vec<_> =
        clients.into_iter().filter(|it| !it.pub_counts.is_empty()).collect();
    for producer in &mut producers {
        producer.pub_counts.retain(|it| topic.is_none_or(|topic| it.topic == topic));
    }
    (!producers.is_empty()).then_some(producers)
}

/// What a channel still has to do: what waits and what is with consumers. What is deferred and due
/// waits; what is not due yet is no work. The number to scale consumers by.
fn backlog(stats: &broker::ChannelStats) -> u64 {
    stats.depth.saturating_add(u64::try_from(stats.in_flight).unwrap_or(u64::MAX))
}
