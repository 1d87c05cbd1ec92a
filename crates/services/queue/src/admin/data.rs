//! What pages and the API show, from the same questions.

use std::collections::BTreeMap;

use super::{
    cluster::{self, Asked, Clients, Cluster, Partial, Unanswered},
    wire::{ChannelStats, Count, Node, Producer, TopicStats},
};

/// A topic, summed over all nsqds that have it.
pub(super) async fn topic(cluster: &Cluster, name: &str) -> Asked<TopicStats> {
    let producers = cluster.producers_of(name).await?;
    let stats = cluster.stats(&producers.value, Some(name), None, Clients::Leave).await?;
    let mut warnings = producers.warnings;
    warnings.extend(stats.warnings);
    let mut value = TopicStats { topic_name: name.to_owned(), ..TopicStats::default() };
    for it in stats.value {
        value.add(it);
    }
    Ok(Partial { value, warnings })
}

/// A channel, summed over all nsqds that have it; `None` if none has.
pub(super) async fn channel(
    cluster: &Cluster,
    topic: &str,
    name: &str,
) -> Asked<Option<ChannelStats>> {
    let producers = cluster.producers_of(topic).await?;
    let stats = cluster.stats(&producers.value, Some(topic), Some(name), Clients::Show).await?;
    let mut warnings = producers.warnings;
    warnings.extend(stats.warnings);
    let key = (topic.to_owned(), name.to_owned());
    Ok(Partial { value: cluster::channels(&stats.value).remove(&key), warnings })
}

/// All topics, with their sums as far as nsqds tell them; those that nobody has have none.
pub(super) async fn topics(cluster: &Cluster) -> Asked<Vec<(String, Option<TopicStats>)>> {
    let names = cluster.topics().await?;
    let mut warnings = names.warnings;
    let mut sums = match everything(cluster).await {
        Ok(stats) => {
            warnings.extend(stats.warnings);
            cluster::topics(stats.value)
        }
        // Nobody has any topic, or nobody answers; the names are known all the same.
        Err(_) => BTreeMap::new(),
    };
    let value = names.value.into_iter().map(|name| {
        let sum = sums.remove(&name);
        (name, sum)
    });
    Ok(Partial { value: value.collect(), warnings })
}

/// Topics that no nsqd has, with the channels that nsqlookupds know of them.
pub(super) async fn inactive(cluster: &Cluster) -> Asked<BTreeMap<String, Option<Vec<String>>>> {
    let names = cluster.topics().await?;
    let mut value = BTreeMap::new();
    if cluster.lookupds.is_empty() {
        return Ok(names.map(|_| value));
    }
    for topic in &names.value {
        // As in the original, a topic of which nobody tells counts as one that nobody has.
        let producers = cluster.producers_of(topic).await.map(|it| it.value).unwrap_or_default();
        if producers.is_empty() {
            let channels = cluster.channels(topic).await.map(|it| it.value).unwrap_or_default();
            value.insert(topic.clone(), (!channels.is_empty()).then_some(channels));
        }
    }
    Ok(names.map(|_| value))
}

/// The nsqd at `node`; `None` if it is not known.
pub(super) async fn node(cluster: &Cluster, node: &str) -> Result<Option<Node>, Unanswered> {
    let producers = cluster.producers().await?;
    let Some(producer) = producers.value.into_iter().find(|it| it.http() == node) else {
        return Ok(None);
    };
    let stats = cluster.stats(&[producer], None, None, Clients::Show).await?.value;
    let clients = stats.iter().flat_map(|it| it.channels.iter().flatten());
    let clients = clients.map(|it| it.clients.as_ref().map_or(0, Vec::len)).sum::<usize>();
    let messages = stats.iter().fold(0_i64, |sum, it| sum.saturating_add(it.message_count));
    Ok(Some(Node {
        node: node.to_owned(),
        topics: (!stats.is_empty()).then_some(stats),
        total_messages: messages,
        total_clients: i64::try_from(clients).unwrap_or(i64::MAX),
        message: warning(&producers.warnings),
    }))
}

/// How many messages every channel has had at every nsqd.
pub(super) async fn counter(cluster: &Cluster) -> Asked<BTreeMap<String, Count>> {
    let stats = everything(cluster).await?;
    Ok(stats.map(|stats| {
        let channels = stats.iter().flat_map(|it| it.channels.iter().flatten());
        let counts = channels.map(|it| {
            let key = format!("{}:{}:{}", it.topic_name, it.channel_name, it.node);
            let count = Count {
                node: it.node.clone(),
                topic_name: it.topic_name.clone(),
                channel_name: it.channel_name.clone(),
                message_count: it.message_count,
            };
            (key, count)
        });
        counts.collect()
    }))
}

/// The nsqds.
pub(super) async fn nodes(cluster: &Cluster) -> Asked<Vec<Producer>> {
    cluster.producers().await
}

async fn everything(cluster: &Cluster) -> Asked<Vec<TopicStats>> {
    let producers = cluster.producers().await?;
    let mut stats = cluster.stats(&producers.value, None, None, Clients::Leave).await?;
    stats.warnings.extend(producers.warnings);
    Ok(stats)
}

/// Warnings in one line, as the API has them; empty if there are none.
pub(super) fn warning(warnings: &[String]) -> String {
    if warnings.is_empty() { String::new() } else { format!("WARNING: {}", warnings.join("; ")) }
}
