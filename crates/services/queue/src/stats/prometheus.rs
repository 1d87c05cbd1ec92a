//! The figures for Prometheus, in its text format (version 0.0.4). Each is documented in
//! `docs/queue-metrics.md`; a test compares.
//!
//! Written by hand: a registry of counters would have to follow every topic and channel that comes
//! and goes, while here what is told is what there is. Written piece by piece, as the client reads:
//! the page of 50 000 channels is some 50 MB, and the format wants all lines of a figure together.

use std::{
    collections::VecDeque,
    fmt::{Display, Write as _},
};

use bytes::Bytes;

use super::{Source, Wanted, backlog, process::Process};
use crate::{
    broker::{Channel, ChannelStats, Topic, TopicStats},
    name::Name,
};

/// Nanoseconds of a second, which Prometheus counts in.
const NANOS: f64 = 1e9;

/// A piece ends with the line that reaches this: some hundred lines, which take less than a
/// millisecond. Then others have their turn.
const PIECE_BYTES: usize = 32 << 10;

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
    ("nsq_topic_first_sequence", "gauge", "Oldest message that is kept.", |it| it.first.0),
    ("nsq_topic_file_bytes", "gauge", "Bytes of its files.", |it| it.file_bytes),
    ("nsq_topic_next_sequence", "gauge", "Next message to be published.", |it| it.next.0),
    ("nsq_topic_damaged_messages", "gauge", "Messages known to be damaged.", |it| it.damaged),
];

/// Name, kind, help and value of what is told of a channel.
const CHANNEL: &[OfChannel] = &[
    ("nsq_channel_backlog", "gauge", "Messages that wait or are in flight.", backlog),
    ("nsq_channel_depth", "gauge", "Messages that wait.", |it| it.depth),
    ("nsq_channel_backend_depth", "gauge", "Of those, not in memory.", |it| it.backend_depth),
    ("nsq_channel_in_flight", "gauge", "Messages with consumers.", |it| count(it.in_flight)),
    ("nsq_channel_deferred", "gauge", "Messages that are not due yet.", |it| count(it.deferred)),
    ("nsq_channel_consumers", "gauge", "Consumers connected.", |it| count(it.clients.len())),
    ("nsq_channel_paused", "gauge", "1 if the channel is paused.", |it| it.paused.into()),
    ("nsq_channel_messages_total", "counter", "Messages that came in.", |it| it.counters.messages),
    ("nsq_channel_requeued_total", "counter", "Messages requeued.", |it| it.counters.requeued),
    ("nsq_channel_timed_out_total", "counter", "Messages not answered in time.", |it| {
        it.counters.timed_out
    }),
    ("nsq_channel_skipped_total", "counter", "Messages left out, being damaged.", |it| {
        it.counters.skipped
    }),
    ("nsq_channel_cursor_sequence", "gauge", "First message never handed out.", |it| it.cursor.0),
];

fn count(it: usize) -> u64 {
    u64::try_from(it).unwrap_or(u64::MAX)
}

/// A part of the page.
#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    Topic(&'static OfTopic),
    Channel(&'static OfChannel),
    Latency,
    Process,
}

/// The page, being written. It has handles of what is told, and no figures.
#[derive(Debug)]
pub(crate) struct Exposition {
    whole: Whole,
    source: Source,
    topics: Vec<Topic>,
    /// With the topic's name.
    channels: Vec<(Name, Channel)>,
    /// What is still to be written.
    parts: VecDeque<Part>,
    /// Of the first part, how many lines have been.
    lines: usize,
}

impl Exposition {
    /// The page of what is wanted.
    pub(crate) fn new(whole: Whole, source: Source, wanted: Wanted<'_>) -> Self {
        let (mut topics, mut channels) = (Vec::new(), Vec::new());
        for (topic, of_topic) in source.wanted(wanted).unwrap_or_default() {
            channels.extend(of_topic.into_iter().map(|it| (topic.name().clone(), it)));
            topics.push(topic);
        }
        let parts = [Part::Whole].into_iter();
        let parts = parts.chain(TOPIC.iter().map(Part::Topic));
        let parts = parts.chain(CHANNEL.iter().map(Part::Channel));
        let parts = parts.chain([Part::Latency, Part::Process]).collect();
        Self { whole, source, topics, channels, parts, lines: 0 }
    }

    /// What comes next, of some kilobytes, with the figures of now; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let mut page = Page(String::new());
        while page.0.len() < PIECE_BYTES
            && let Some(part) = self.parts.front().copied()
        {
            if self.write(part, &mut page) {
                self.lines += 1;
            } else {
                self.parts.pop_front();
                self.lines = 0;
            }
        }
        (!page.0.is_empty()).then(|| page.0.into())
    }

    /// Writes the next of a part; whether there may be more of it.
    fn write(&self, part: Part, page: &mut Page) -> bool {
        match part {
            Part::Whole => self.whole(page),
            Part::Process => process(page, self.whole),
            Part::Topic((name, kind, help, value)) => {
                page.head_before(self.lines, name, kind, help);
                if let Some(topic) = self.topics.get(self.lines) {
                    let labels = format!("topic=\"{}\"", topic.name());
                    page.line(name, &labels, value(&topic.stats()));
                    return true;
                }
            }
            Part::Channel((name, kind, help, value)) => {
                page.head_before(self.lines, name, kind, help);
                if let Some((topic, channel)) = self.channels.get(self.lines) {
                    page.line(name, &labels(topic, channel), value(&channel.stats()));
                    return true;
                }
            }
            Part::Latency => {
                let help =
                    "Time from publishing to finishing; needs -e2e-processing-latency-percentile.";
                page.head_before(self.lines, LATENCY, "gauge", help);
                if let Some((topic, channel)) = self.channels.get(self.lines) {
                    self.latency(page, topic, channel);
                    return true;
                }
            }
        }
        false
    }

    fn whole(&self, page: &mut Page) {
        page.head("nsq_info", "gauge", "Always 1; what this is stands in the labels.");
        let (theirs, ours) = (crate::web::VERSION, env!("CARGO_PKG_VERSION"));
        page.line("nsq_info", &format!("version=\"{theirs}\",coracle=\"{ours}\""), 1);
        let healthy = u8::from(self.whole.healthy);
        page.single("nsq_healthy", "gauge", "1 if nothing is wrong.", healthy);
        let clients = self.whole.clients;
        page.single("nsq_clients", "gauge", "Connections of the TCP protocol.", clients);
        page.single("nsq_topics", "gauge", "Topics.", self.topics.len());
        page.single("nsq_channels", "gauge", "Channels.", self.channels.len());
    }

    #[expect(clippy::cast_precision_loss, reason = "they are known to one part in a hundred")]
    fn latency(&self, page: &mut Page, topic: &Name, channel: &Channel) {
        let latency = self.source.latencies.of_channel(topic, channel.name());
        for part in latency.percentiles.iter().flatten() {
            let labels = format!("{},quantile=\"{}\"", labels(topic, channel), part.quantile);
            page.line(LATENCY, &labels, part.value as f64 / NANOS);
        }
    }
}

const LATENCY: &str = "nsq_channel_latency_seconds";

/// Names have no character that would have to be escaped.
fn labels(topic: &Name, channel: &Channel) -> String {
    format!("topic=\"{topic}\",channel=\"{}\"", channel.name())
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

    /// Before the first line.
    fn head_before(&mut self, line: usize, name: &str, kind: &str, help: &str) {
        if line == 0 {
            self.head(name, kind, help);
        }
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _infallible = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _infallible = writeln!(self.0, "{name} {value}");
    }
}
