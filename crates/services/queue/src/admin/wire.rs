//! The documents of the API, field by field as the original has them, and what is read of those of
//! nsqd and nsqlookupd. How the statistics of several nsqd add up is here too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// Nanoseconds of a second.
const NANOS: i64 = 1_000_000_000;

/// Stands for all nsqd where one is named.
const ALL: &str = "*";

/// `host:port`, with brackets around an address of version 6.
pub(super) fn join(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A producer as nsqlookupd shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) remote_address: String,
    pub(super) hostname: String,
    pub(super) broadcast_address: String,
    pub(super) tcp_port: i64,
    pub(super) http_port: i64,
    pub(super) version: String,
    pub(super) topics: Vec<String>,
    pub(super) tombstones: Vec<bool>,
    pub(super) topology_zone: String,
    pub(super) topology_region: String,
}

/// A topic of a producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ProducerTopic {
    pub(super) topic: String,
    pub(super) tombstoned: bool,
}

/// An nsqd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Producer {
    pub(super) remote_addresses: Option<Vec<String>>,
    pub(super) remote_address: String,
    pub(super) hostname: String,
    pub(super) broadcast_address: String,
    pub(super) tcp_port: i64,
    pub(super) http_port: i64,
    pub(super) version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) topology_zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) topology_region: String,
    pub(super) topics: Option<Vec<ProducerTopic>>,
    pub(super) out_of_date: bool,
}

impl Producer {
    /// Where its HTTP is. Names it in the API.
    pub(super) fn http(&self) -> String {
        join(&self.broadcast_address, self.http_port)
    }

    /// Where its protocol is.
    pub(super) fn tcp(&self) -> String {
        join(&self.broadcast_address, self.tcp_port)
    }
}

impl From<Peer> for Producer {
    fn from(peer: Peer) -> Self {
        let tombstones = peer.tombstones.into_iter().chain(std::iter::repeat(false));
        let topics = peer.topics.into_iter().zip(tombstones);
        let topics = topics.map(|(topic, tombstoned)| ProducerTopic { topic, tombstoned });
        let mut topics: Vec<_> = topics.collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Self {
            remote_addresses: None,
            remote_address: peer.remote_address,
            hostname: peer.hostname,
            broadcast_address: peer.broadcast_address,
            tcp_port: peer.tcp_port,
            http_port: peer.http_port,
            version: peer.version,
            topology_zone: peer.topology_zone,
            topology_region: peer.topology_region,
            topics: (!topics.is_empty()).then_some(topics),
            out_of_date: false,
        }
    }
}

/// How long messages took from publishing to the end of their processing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) count: i64,
    pub(super) percentiles: Option<Vec<Percentile>>,
    pub(super) topic: String,
    pub(super) channel: String,
    pub(super) host: String,
}

/// One of them, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Percentile {
    #[serde(serialize_with = "number")]
    pub(super) average: f64,
    #[serde(serialize_with = "number")]
    pub(super) count: f64,
    #[serde(serialize_with = "number")]
    pub(super) max: f64,
    #[serde(serialize_with = "number")]
    pub(super) min: f64,
    #[serde(serialize_with = "number")]
    pub(super) quantile: f64,
    /// As an nsqd says it; a sum has none.
    #[serde(serialize_with = "perhaps_number", skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
}

impl Latency {
    /// Fills in what an nsqd leaves to be known.
    fn complete(&mut self) {
        let count = from_i64(self.count);
        for it in self.percentiles.iter_mut().flatten() {
            let value = it.value.unwrap_or_default();
            (it.min, it.max, it.average, it.count) = (value, value, value, count);
        }
    }

    /// Adds another: averages are weighted by how many messages each stands for.
    fn add(&mut self, other: &Self) {
        ALL.clone_into(&mut self.host);
        self.count = self.count.saturating_add(other.count);
        for it in other.percentiles.iter().flatten() {
            let all = self.percentiles.get_or_insert_default();
            let known = all.iter().position(|known| known.quantile.total_cmp(&it.quantile).is_eq());
            let Some(known) = known.and_then(|known| all.get_mut(known)) else {
                all.push(Percentile { value: None, ..it.clone() });
                continue;
            };
            known.max = known.max.max(it.max);
            known.min = known.min.min(it.min);
            known.count += it.count;
            if known.count > 0.0 {
                known.average += (it.average - known.average) * it.count / known.count;
            }
        }
    }
}

/// A topic, at one nsqd or at all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct TopicStats {
    pub(super) node: String,
    pub(super) hostname: String,
    pub(super) topic_name: String,
    pub(super) depth: i64,
    pub(super) memory_depth: i64,
    pub(super) backend_depth: i64,
    pub(super) message_count: i64,
    pub(super) delivery_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) zone_local_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) region_local_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) global_msg_count: i64,
    pub(super) nodes: Option<Vec<Self>>,
    pub(super) channels: Option<Vec<ChannelStats>>,
    pub(super) paused: bool,
    pub(super) e2e_processing_latency: Option<Latency>,
}

impl TopicStats {
    /// Fills in what an nsqd leaves to be known: where it is, what follows from its numbers and from
    /// the time, `now`, in seconds since 1970.
    pub(super) fn complete(&mut self, producer: &Producer, now: i64) {
        self.node = producer.http();
        self.hostname.clone_from(&producer.hostname);
        self.memory_depth = self.depth.saturating_sub(self.backend_depth);
        self.delivery_msg_count = self
            .zone_local_msg_count
            .saturating_add(self.region_local_msg_count)
            .saturating_add(self.global_msg_count);
        if let Some(latency) = &mut self.e2e_processing_latency {
            latency.complete();
        }
        for channel in self.channels.iter_mut().flatten() {
            channel.complete(&self.topic_name, producer, now);
        }
    }

    /// Adds the same topic at another nsqd.
    pub(super) fn add(&mut self, other: Self) {
        ALL.clone_into(&mut self.node);
        self.depth = self.depth.saturating_add(other.depth);
        self.memory_depth = self.memory_depth.saturating_add(other.memory_depth);
        self.backend_depth = self.backend_depth.saturating_add(other.backend_depth);
        self.message_count = self.message_count.saturating_add(other.message_count);
        self.delivery_msg_count = self.delivery_msg_count.saturating_add(other.delivery_msg_count);
        self.zone_local_msg_count =
            self.zone_local_msg_count.saturating_add(other.zone_local_msg_count);
        self.region_local_msg_count =
            self.region_local_msg_count.saturating_add(other.region_local_msg_count);
        self.global_msg_count = self.global_msg_count.saturating_add(other.global_msg_count);
        self.paused |= other.paused;
        for channel in other.channels.iter().flatten() {
            let all = self.channels.get_or_insert_default();
            match all.iter_mut().find(|it| it.channel_name == channel.channel_name) {
                Some(known) => known.add(channel.clone()),
                None => all.push(channel.clone()),
            }
        }
        let latency = self.e2e_processing_latency.get_or_insert_default();
        latency.topic.clone_from(&self.topic_name);
        latency.add(&other.e2e_processing_latency.clone().unwrap_or_default());
        let nodes = self.nodes.get_or_insert_default();
        nodes.push(other);
        nodes.sort_by(|a, b| (&a.hostname, &a.node).cmp(&(&b.hostname, &b.node)));
    }
}

/// A channel, at one nsqd or at all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct ChannelStats {
    pub(super) node: String,
    pub(super) hostname: String,
    pub(super) topic_name: String,
    pub(super) channel_name: String,
    pub(super) depth: i64,
    pub(super) memory_depth: i64,
    pub(super) backend_depth: i64,
    pub(super) in_flight_count: i64,
    pub(super) deferred_count: i64,
    pub(super) requeue_count: i64,
    pub(super) timeout_count: i64,
    pub(super) message_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) delivery_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) zone_local_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) region_local_msg_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) global_msg_count: i64,
    pub(super) client_count: i64,
    pub(super) nodes: Option<Vec<Self>>,
    pub(super) clients: Option<Vec<ClientStats>>,
    pub(super) paused: bool,
    pub(super) e2e_processing_latency: Option<Latency>,
}

impl ChannelStats {
    fn complete(&mut self, topic: &str, producer: &Producer, now: i64) {
        self.node = producer.http();
        self.hostname.clone_from(&producer.hostname);
        topic.clone_into(&mut self.topic_name);
        self.memory_depth = self.depth.saturating_sub(self.backend_depth);
        self.delivery_msg_count = self
            .zone_local_msg_count
            .saturating_add(self.region_local_msg_count)
            .saturating_add(self.global_msg_count);
        if let Some(latency) = &mut self.e2e_processing_latency {
            latency.complete();
        }
        for client in self.clients.iter_mut().flatten() {
            client.node = producer.http();
            client.connected = now.saturating_sub(client.connect_ts).saturating_mul(NANOS);
            client.node_topology_region.clone_from(&producer.topology_region);
            client.node_topology_zone.clone_from(&producer.topology_zone);
        }
    }

    /// Adds the same channel at another nsqd.
    pub(super) fn add(&mut self, other: Self) {
        ALL.clone_into(&mut self.node);
        let sums = [
            (&mut self.depth, other.depth),
            (&mut self.memory_depth, other.memory_depth),
            (&mut self.backend_depth, other.backend_depth),
            (&mut self.in_flight_count, other.in_flight_count),
            (&mut self.deferred_count, other.deferred_count),
            (&mut self.requeue_count, other.requeue_count),
            (&mut self.timeout_count, other.timeout_count),
            (&mut self.message_count, other.message_count),
            (&mut self.delivery_msg_count, other.delivery_msg_count),
            (&mut self.zone_local_msg_count, other.zone_local_msg_count),
            (&mut self.region_local_msg_count, other.region_local_msg_count),
            (&mut self.global_msg_count, other.global_msg_count),
            (&mut self.client_count, other.client_count),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        self.paused |= other.paused;
        let latency = self.e2e_processing_latency.get_or_insert_default();
        latency.topic.clone_from(&self.topic_name);
        latency.channel.clone_from(&self.channel_name);
        latency.add(&other.e2e_processing_latency.clone().unwrap_or_default());
        // Nobody is null, as in the original.
        if let Some(clients) = other.clients.as_ref().filter(|it| !it.is_empty()) {
            let all = self.clients.get_or_insert_default();
            all.extend(clients.iter().cloned());
            all.sort_by(|a, b| {
                (&a.node, &a.hostname, &a.remote_address).cmp(&(
                    &b.node,
                    &b.hostname,
                    &b.remote_address,
                ))
            });
        }
        let nodes = self.nodes.get_or_insert_default();
        nodes.push(other);
        nodes.sort_by(|a, b| (&a.hostname, &a.node).cmp(&(&b.hostname, &b.node)));
    }
}

/// A consumer of a channel at one nsqd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the original's document has them")]
pub(super) struct ClientStats {
    pub(super) node: String,
    pub(super) remote_address: String,
    pub(super) version: String,
    pub(super) client_id: String,
    pub(super) hostname: String,
    pub(super) user_agent: String,
    pub(super) connect_ts: i64,
    /// Nanoseconds since it connected.
    pub(super) connected: i64,
    pub(super) in_flight_count: i64,
    pub(super) ready_count: i64,
    pub(super) finish_count: i64,
    pub(super) requeue_count: i64,
    pub(super) message_count: i64,
    pub(super) sample_rate: i64,
    pub(super) deflate: bool,
    pub(super) snappy: bool,
    pub(super) authed: bool,
    pub(super) auth_identity: String,
    pub(super) auth_identity_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node_topology_region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node_topology_zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) topology_region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) topology_zone: String,
    pub(super) tls: bool,
    pub(super) tls_cipher_suite: String,
    pub(super) tls_version: String,
    pub(super) tls_negotiated_protocol: String,
    pub(super) tls_negotiated_protocol_is_mutual: bool,
}

/// `/api/topics`.
#[derive(Debug, Serialize)]
pub(super) struct TopicList {
    pub(super) topics: Option<Vec<String>>,
    pub(super) message: String,
}

/// `/api/topics?inactive=true`: topics that nobody produces, with their channels.
#[derive(Debug, Serialize)]
pub(super) struct Inactive {
    pub(super) topics: BTreeMap<String, Option<Vec<String>>>,
    pub(super) message: String,
}

/// A document with warnings beside it.
#[derive(Debug, Serialize)]
pub(super) struct Warned<T> {
    #[serde(flatten)]
    pub(super) document: T,
    pub(super) message: String,
}

/// Nothing but warnings.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) message: String,
}

/// `/api/nodes`.
#[derive(Debug, Serialize)]
pub(super) struct NodeList {
    pub(super) nodes: Option<Vec<Producer>>,
    pub(super) message: String,
}

/// `/api/nodes/:node`.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) node: String,
    pub(super) topics: Option<Vec<TopicStats>>,
    pub(super) total_messages: i64,
    pub(super) total_clients: i64,
    pub(super) message: String,
}

/// `/api/counter`: by topic, channel and node.
#[derive(Debug, Serialize)]
pub(super) struct Counter {
    pub(super) stats: BTreeMap<String, Count>,
    pub(super) message: String,
}

/// How many messages a channel has had at one nsqd.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    pub(super) node: String,
    pub(super) topic_name: String,
    pub(super) channel_name: String,
    pub(super) message_count: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Counts are exact in a float as long as they are below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a weight in an average")]
fn from_i64(number: i64) -> f64 {
    number as f64
}

/// Writes a float as the original does: without a fraction that is zero.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "has no fraction and is in range")]
        return serializer.serialize_i64(*number as i64);
    }
    serializer.serialize_f64(*number)
}

#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn perhaps_number<S: Serializer>(it: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number(&it.unwrap_or_default(), serializer)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn at(host: &str, stats: &str) -> TopicStats {
        let mut topic: TopicStats = serde_json::from_str(stats).unwrap();
        let producer = Producer {
            broadcast_address: host.to_owned(),
            hostname: host.to_owned(),
            http_port: 4151,
            ..Producer::default()
        };
        topic.complete(&producer, 0);
        topic
    }

    const STATS: &str = r#"{"topic_name":"t","channels":[{"channel_name":"c","depth":3,"backend_depth":1,
        "message_count":5,"client_count":1,"clients":[],"paused":false,
        "e2e_processing_latency":{"count":2,"percentiles":[{"quantile":0.99,"value":1000}]}}],
        "depth":4,"backend_depth":4,"message_count":9,"message_bytes":90,"paused":true,
        "e2e_processing_latency":{"count":0,"percentiles":null}}"#;

    #[test]
    fn one_node_is_shown_as_the_original_does() {
        let mut all = TopicStats { topic_name: "t".to_owned(), ..TopicStats::default() };
        all.add(at("a", STATS));
        expect![[r#"{"node":"*","hostname":"","topic_name":"t","depth":4,"memory_depth":0,"backend_depth":4,"message_count":9,"delivery_msg_count":0,"nodes":[{"node":"a:4151","hostname":"a","topic_name":"t","depth":4,"memory_depth":0,"backend_depth":4,"message_count":9,"delivery_msg_count":0,"nodes":null,"channels":[{"node":"a:4151","hostname":"a","topic_name":"t","channel_name":"c","depth":3,"memory_depth":2,"backend_depth":1,"in_flight_count":0,"deferred_count":0,"requeue_count":0,"timeout_count":0,"message_count":5,"client_count":1,"nodes":null,"clients":[],"paused":false,"e2e_processing_latency":{"count":2,"percentiles":[{"average":1000,"count":2,"max":1000,"min":1000,"quantile":0.99,"value":1000}],"topic":"","channel":"","host":""}}],"paused":true,"e2e_processing_latency":{"count":0,"percentiles":null,"topic":"","channel":"","host":""}}],"channels":[{"node":"a:4151","hostname":"a","topic_name":"t","channel_name":"c","depth":3,"memory_depth":2,"backend_depth":1,"in_flight_count":0,"deferred_count":0,"requeue_count":0,"timeout_count":0,"message_count":5,"client_count":1,"nodes":null,"clients":[],"paused":false,"e2e_processing_latency":{"count":2,"percentiles":[{"average":1000,"count":2,"max":1000,"min":1000,"quantile":0.99,"value":1000}],"topic":"","channel":"","host":""}}],"paused":true,"e2e_processing_latency":{"count":0,"percentiles":null,"topic":"t","channel":"","host":"*"}}"#]]
            .assert_eq(&serde_json::to_string(&all).unwrap());
    }

    #[test]
    fn two_nodes_add_up() {
        let mut all = TopicStats { topic_name: "t".to_owned(), ..TopicStats::default() };
        all.add(at("b", STATS));
        all.add(at("a", &STATS.replace("\"count\":2", "\"count\":6").replace("1000", "2000")));
        let nodes: Vec<_> = all.nodes.iter().flatten().map(|it| it.node.as_str()).collect();
        assert_eq!(nodes, ["a:4151", "b:4151"]);
        assert_eq!((all.depth, all.message_count, all.paused), (8, 18, true));
        let channel = &all.channels.unwrap()[0];
        assert_eq!((channel.depth, channel.message_count, channel.client_count), (6, 10, 2));
        let latency = channel.e2e_processing_latency.as_ref().unwrap();
        let it = &latency.percentiles.as_ref().unwrap()[0];
        assert_eq!((it.min, it.max, it.average, it.count), (1000.0, 2000.0, 1750.0, 8.0));
    }
}
