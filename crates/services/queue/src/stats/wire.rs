//! The figures as JSON has them. The order of keys is the original's; ours come last.

use serde::Serialize;

use super::backlog;
use crate::{broker, protocol::ClientStats};

/// Topics, and clients that publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// By name. `None` if a topic was asked for that is not there.
    pub topics: Option<Vec<TopicStats>>,
    /// In the order in which they connected. `None` if nobody published.
    pub producers: Option<Vec<ClientStats>>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopicStats {
    /// Its name.
    pub topic_name: String,
    /// By name.
    pub channels: Vec<ChannelStats>,
    /// Messages that no channel was given.
    pub depth: u64,
    /// Of those, on disk. All are, but those of an ephemeral topic.
    pub backend_depth: u64,
    /// Published since the process began.
    pub message_count: u64,
    /// Their bodies' bytes.
    pub message_bytes: u64,
    /// Whether its channels are given nothing.
    pub paused: bool,
    /// From publishing to finishing, over all channels.
    pub e2e_processing_latency: Latency,
    /// The oldest message that is kept and can be replayed.
    pub first_sequence: u64,
    /// The next message to be published.
    pub next_sequence: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Messages known to be damaged, of those that are kept.
    pub damaged_count: u64,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelStats {
    /// Its name.
    pub channel_name: String,
    /// Messages that wait.
    pub depth: u64,
    /// Of those, not in memory.
    pub backend_depth: u64,
    /// With consumers.
    pub in_flight_count: u64,
    /// Not due yet.
    pub deferred_count: u64,
    /// Came into the channel since the process began.
    pub message_count: u64,
    /// Requeued by consumers since then.
    pub requeue_count: u64,
    /// Not answered in time since then.
    pub timeout_count: u64,
    /// Consumers.
    pub client_count: u64,
    /// Each of them; `None` if they were not asked for.
    pub clients: Option<Vec<ClientStats>>,
    /// Whether nothing is handed out.
    pub paused: bool,
    /// From publishing to finishing.
    pub e2e_processing_latency: Latency,
    /// What waits and what is with consumers.
    pub backlog: u64,
    /// The first message that is not finished.
    pub first_unfinished_sequence: u64,
    /// The first message that was never handed out.
    pub cursor_sequence: u64,
    /// Left out since the process began because they were damaged.
    pub skipped_count: u64,
    /// After how many attempts a message is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u16>,
    /// The topic where it goes then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// By what messages are kept in order: `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<&'static str>,
}

/// How long messages took from publishing to finishing, in the last window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many messages that is about.
    pub count: u64,
    /// One for each that was asked for; `None` if none was.
    pub percentiles: Option<Vec<Percentile>>,
}

/// This part of the messages took no longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentile {
    /// Which part, above 0 and up to 1.
    pub quantile: f64,
    /// Nanoseconds.
    pub value: u64,
}

impl TopicStats {
    pub(super) fn new(
        stats: &broker::TopicStats,
        channels: Vec<ChannelStats>,
        latency: Latency,
    ) -> Self {
        Self {
            topic_name: stats.name.to_string(),
            channels,
            depth: stats.depth,
            backend_depth: if stats.name.is_ephemeral() { 0 } else { stats.depth },
            message_count: stats.message_count,
            message_bytes: stats.message_bytes,
            paused: stats.paused,
            e2e_processing_latency: latency,
            first_sequence: stats.first.0,
            next_sequence: stats.next.0,
            file_bytes: stats.file_bytes,
            damaged_count: stats.damaged,
        }
    }
}

impl ChannelStats {
    pub(super) fn new(
        stats: &broker::ChannelStats,
        clients: Option<Vec<ClientStats>>,
        latency: Latency,
    ) -> Self {
        let count = |it| u64::try_from(it).unwrap_or(u64::MAX);
        Self {
            channel_name: stats.name.to_string(),
            depth: stats.depth,
            backend_depth: stats.backend_depth,
            in_flight_count: count(stats.in_flight),
            deferred_count: count(stats.deferred),
            message_count: stats.counters.messages,
            requeue_count: stats.counters.requeued,
            timeout_count: stats.counters.timed_out,
            client_count: count(stats.clients.len()),
            clients,
            paused: stats.paused,
            e2e_processing_latency: latency,
            backlog: backlog(stats),
            first_unfinished_sequence: stats.first_unfinished.0,
            cursor_sequence: stats.cursor.0,
            skipped_count: stats.counters.skipped,
            max_attempts: stats.options.attempts_max,
            dead_letter: stats.options.dead_letter_topic.as_ref().map(ToString::to_string),
            ordered: stats.options.ordered_by_key.then_some("key"),
        }
    }
}
