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
pub(crate) use prometheus::{Whole, exposition};
pub use statsd::{Push, push};
pub(crate) use text::{Head, text};
pub use wire::{ChannelStats, Latency as LatencyStats, Percentile, Stats, TopicStats};

use crate::{
    broker::{self, Broker, Topic},
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
        let topics = match wanted.topic {
            None => self.broker.topics(),
            Some(name) => {
                let named = Name::parse(name).and_then(|it| self.broker.existing_topic(&it));
                let Some(topic) = named else { return Stats::default() };
                vec![topic]
            }
        };
        let clients = if wanted.clients { self.clients.snapshot() } else { Vec::new() };
        let topics = topics.iter().filter_map(|it| self.topic(it, wanted, &clients)).collect();
        Stats { topics: Some(topics), producers: producers(clients, wanted.topic) }
    }

    /// `None` if it has not the channel that is wanted.
    fn topic(
        &self,
        topic: &Topic,
        wanted: Wanted<'_>,
        clients: &[ClientStats],
    ) -> Option<TopicStats> {
        let channels = match wanted.channel {
            None => topic.channels(),
            Some(name) => vec![Name::parse(name).and_then(|it| topic.existing_channel(&it))?],
        };
        let channels: Vec<_> = channels
            .iter()
            .map(|channel| {
                let latency = self.latencies.of_channel(topic.name(), channel.name());
                let who = wanted.clients.then(|| consumers(clients, topic.name(), channel.name()));
                ChannelStats::new(&channel.stats(), who, latency)
            })
            .collect();
        Some(TopicStats::new(&topic.stats(), channels, self.latencies.of_topic(topic.name())))
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
