//! The figures as text for people, in the original's form: scripts cut columns out of it.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    process::Memory,
    wire::{ChannelStats, Latency, Stats, TopicStats},
};
use crate::{cli::duration, protocol::ClientStats};

/// What stands above the figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// Program and version.
    pub(crate) version: &'a str,
    /// `OK`, or what is wrong.
    pub(crate) health: &'a str,
    /// When the process began.
    pub(crate) started: Timestamp,
    /// The time.
    pub(crate) now: Timestamp,
    /// Left out if not wanted.
    pub(crate) memory: Option<Memory>,
}

/// The whole page.
pub(crate) fn text(head: Head<'_>, stats: &Stats) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _infallible = write(&mut page, head, stats);
    page
}

fn write(page: &mut String, head: Head<'_>, stats: &Stats) -> std::fmt::Result {
    let uptime = head.now.duration_since(head.started).unsigned_abs();
    let started = Timestamp::from_second(head.started.as_second()).unwrap_or_default();
    writeln!(page, "{}\nstart_time {started}", head.version)?;
    writeln!(page, "uptime {}\n\nHealth: {}", duration::format(uptime), head.health)?;
    if let Some(memory) = head.memory {
        page.push_str("\nMemory:\n");
        for (key, value) in memory.figures() {
            writeln!(page, "   {key:<25}\t{value}")?;
        }
    }
    let topics = stats.topics.as_deref().unwrap_or_default();
    page.push_str(if topics.is_empty() { "\nTopics: None\n" } else { "\nTopics:" });
    for topic in topics {
        write_topic(page, topic)?;
        for channel in &topic.channels {
            write_channel(page, channel)?;
            for client in channel.clients.iter().flatten() {
                writeln!(page, "        {}", shown(client, head.now))?;
            }
        }
    }
    let producers = stats.producers.as_deref().unwrap_or_default();
    page.push_str(if producers.is_empty() { "\nProducers: None\n" } else { "\nProducers:\n" });
    for client in producers {
        writeln!(page, "   {}", shown(client, head.now))?;
    }
    Ok(())
}

fn write_topic(page: &mut String, it: &TopicStats) -> std::fmt::Result {
    let mark = if it.paused { "*P " } else { "   " };
    writeln!(
        page,
        "\n{mark}[{:<15}] depth: {:<5} be-depth: {:<5} msgs: {:<8} e2e%: {}",
        it.topic_name,
        it.depth,
        it.backend_depth,
        it.message_count,
        percentiles(&it.e2e_processing_latency),
    )
}

fn write_channel(page: &mut String, it: &ChannelStats) -> std::fmt::Result {
    let mark = if it.paused { "   *P " } else { "      " };
    write!(page, "{mark}[{:<25}] depth: {:<5} ", it.channel_name, it.depth)?;
    write!(page, "be-depth: {:<5} inflt: {:<4} ", it.backend_depth, it.in_flight_count)?;
    write!(page, "def: {:<4} re-q: {:<5} ", it.deferred_count, it.requeue_count)?;
    write!(page, "timeout: {:<5} msgs: {:<8} ", it.timeout_count, it.message_count)?;
    writeln!(page, "e2e%: {}", percentiles(&it.e2e_processing_latency))
}

fn percentiles(latency: &Latency) -> String {
    let all = latency.percentiles.iter().flatten();
    all.map(|it| nanos(it.value)).collect::<Vec<_>>().join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "one decimal of four digits is shown")]
fn nanos(value: u64) -> String {
    let (unit, name) = match value {
        1_000_000_001.. => (1e9, "s"),
        1_000_001.. => (1e6, "ms"),
        1_001.. => (1e3, "us"),
        _ => (1.0, "ns"),
    };
    format!("{:.1}{name}", value as f64 / unit)
}

fn shown(client: &ClientStats, now: Timestamp) -> String {
    let port = client.remote_address.rsplit_once(':').map_or("", |(_, port)| port);
    let id = format!("{}:{port} {}", client.hostname, client.user_agent);
    let seconds = now.as_second().saturating_sub(client.connect_ts);
    let connected = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let connected = duration::format(connected);
    let version = client.version;
    if client.pub_counts.is_empty() {
        return format!(
            "[{version} {id:<21}] state: {} inflt: {:<4} rdy: {:<4} fin: {:<8} re-q: {:<8} \
             msgs: {:<8} connected: {connected}",
            client.state,
            client.in_flight_count,
            client.ready_count,
            client.finish_count,
            client.requeue_count,
            client.message_count,
        );
    }
    let total: u64 = client.pub_counts.iter().map(|it| it.count).sum();
    let topics: Vec<_> =
        client.pub_counts.iter().map(|it| format!("{}={}", it.topic, it.count)).collect();
    let topics = topics.join(",");
    format!("[{version} {id:<21}] msgs: {total:<8} topics: {topics} connected: {connected}")
}
