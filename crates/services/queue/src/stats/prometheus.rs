//! The figures for Prometheus, in its text format (version 0.0.4). Each is documented in
//! `docs/queue-metrics.md`; a test compares.
//!
//! Written by hand: a registry of counters would have to follow every topic and channel that comes
//! and goes, while here what is told is what there is.

use std::fmt::{Display, Write as _};

use super::{
    process::Process,
    wire::{ChannelStats, Stats, TopicStats},
};

/// Nanoseconds of a second, which Prometheus counts in.
const NANOS: f64 = 1e9;

/// What is not about topics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    pub(crate) healthy: bool,
    pub(crate) clients: u64,
    pub(crate) started_seconds: i64,
    pub(crate) process: Process,
}

type OfTopic = (&'static str, &'static str, &'static str, fn(&TopicStats) -> u64);
type OfChannel = (&'static str, &'static str, &'static str, fn(&ChannelStats) -> u64);

/// Name, kind, help and value of what is told of a topic.
const TOPIC: &[OfTopic] = &[
    ("nsq_topic_depth", "gauge", "Messages that no channel was given.", |it| it.depth),
    ("nsq_topic_messages_total", "counter", "Messages published.", |it| it.message_count),
    ("nsq_topic_bytes_total", "counter", "Bytes of messages published.", |it| it.message_bytes),
    ("nsq_topic_paused", "gauge", "1 if the topic is paused.", |it| it.paused.into()),
    ("nsq_topic_first_sequence", "gauge", "Oldest message that is kept.", |it| it.first_sequence),
    ("nsq_topic_file_bytes", "gauge", "Bytes of its files.", |it| it.file_bytes),
    ("nsq_topic_next_sequence", "gauge", "Next message to be published.", |it| it.next_sequence),
    ("nsq_topic_damaged_messages", "gauge", "Messages known to be damaged.", |it| it.damaged_count),
];

/// Name, kind, help and value of what is told of a channel.
const CHANNEL: &[OfChannel] = &[
    ("nsq_channel_backlog", "gauge", "Messages that wait or are in flight.", |it| it.backlog),
    ("nsq_channel_depth", "gauge", "Messages that wait.", |it| it.depth),
    ("nsq_channel_backend_depth", "gauge", "Of those, not in memory.", |it| it.backend_depth),
    ("nsq_channel_in_flight", "gauge", "Messages with consumers.", |it| it.in_flight_count),
    ("nsq_channel_deferred", "gauge", "Messages that are not due yet.", |it| it.deferred_count),
    ("nsq_channel_consumers", "gauge", "Consumers connected.", |it| it.client_count),
    ("nsq_channel_paused", "gauge", "1 if the channel is paused.", |it| it.paused.into()),
    ("nsq_channel_messages_total", "counter", "Messages that came in.", |it| it.message_count),
    ("nsq_channel_requeued_total", "counter", "Messages requeued.", |it| it.requeue_count),
    ("nsq_channel_timed_out_total", "counter", "Messages not answered in time.", |it| {
        it.timeout_count
    }),
    ("nsq_channel_skipped_total", "counter", "Messages left out, being damaged.", |it| {
        it.skipped_count
    }),
    ("nsq_channel_cursor_sequence", "gauge", "First message never handed out.", |it| {
        it.cursor_sequence
    }),
];

/// The whole page.
pub(crate) fn exposition(whole: Whole, stats: &Stats) -> String {
    let mut page = Page(String::new());
    let topics = stats.topics.as_deref().unwrap_or_default();
    page.head("nsq_info", "gauge", "Always 1; what this is stands in the labels.");
    let (theirs, ours) = (crate::web::VERSION, env!("CARGO_PKG_VERSION"));
    page.line("nsq_info", &format!("version=\"{theirs}\",coracle=\"{ours}\""), 1);
    page.single("nsq_healthy", "gauge", "1 if nothing is wrong.", u8::from(whole.healthy));
    page.single("nsq_clients", "gauge", "Connections of the TCP protocol.", whole.clients);
    page.single("nsq_topics", "gauge", "Topics.", topics.len());
    let channels: usize = topics.iter().map(|it| it.channels.len()).sum();
    page.single("nsq_channels", "gauge", "Channels.", channels);
    for (name, kind, help, value) in TOPIC {
        page.head(name, kind, help);
        for topic in topics {
            page.line(name, &format!("topic=\"{}\"", topic.topic_name), value(topic));
        }
    }
    for (name, kind, help, value) in CHANNEL {
        page.head(name, kind, help);
        for (topic, channel) in pairs(topics) {
            page.line(name, &labels(topic, channel), value(channel));
        }
    }
    latencies(&mut page, topics);
    process(&mut page, whole);
    page.0
}

fn pairs(topics: &[TopicStats]) -> impl Iterator<Item = (&TopicStats, &ChannelStats)> {
    topics.iter().flat_map(|topic| topic.channels.iter().map(move |channel| (topic, channel)))
}

/// Names have no character that would have to be escaped.
fn labels(topic: &TopicStats, channel: &ChannelStats) -> String {
    format!("topic=\"{}\",channel=\"{}\"", topic.topic_name, channel.channel_name)
}

#[expect(clippy::cast_precision_loss, reason = "they are known to one part in a hundred")]
fn latencies(page: &mut Page, topics: &[TopicStats]) {
    let name = "nsq_channel_latency_seconds";
    let help = "Time from publishing to finishing; needs -e2e-processing-latency-percentile.";
    page.head(name, "gauge", help);
    for (topic, channel) in pairs(topics) {
        for part in channel.e2e_processing_latency.percentiles.iter().flatten() {
            let labels = format!("{},quantile=\"{}\"", labels(topic, channel), part.quantile);
            page.line(name, &labels, part.value as f64 / NANOS);
        }
    }
}

fn process(page: &mut Page, whole: Whole) {
    let it = whole.process;
    let started = whole.started_seconds;
    page.single("process_start_time_seconds", "gauge", "When it began, since 1970.", started);
    page.single("process_resident_memory_bytes", "gauge", "Memory in use.", it.resident_bytes);
    page.single("process_virtual_memory_bytes", "gauge", "Address space.", it.virtual_bytes);
    page.single("process_open_fds", "gauge", "Files open.", it.files);
    page.single("process_max_fds", "gauge", "How many there may be.", it.files_max);
    page.single("process_cpu_seconds_total", "counter", "Processor time.", it.processor_seconds);
}

struct Page(String);

// Writing to a string cannot fail.
impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _infallible = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _infallible = writeln!(self.0, "{name} {value}");
    }
}
