//! Pushes the figures to a statsd server over UDP, with the original's keys.
//!
//! What statsd counts is what changed since the last push. The packets of one push are spread over
//! the interval, so that they do not overrun the server's socket; one that is lost is lost.

use std::{collections::BTreeMap, io, time::Duration};

use runtime::{OnExit, Tasks};
use tokio::{
    net::UdpSocket,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Source, Stats, Wanted,
    process::Process,
    wire::{ChannelStats, Latency, TopicStats},
};
use crate::name::EPHEMERAL;

/// How long looking up the server's name may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(1);

/// However short an interval was asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What of an interval is left without packets, as in the original.
const PAUSE: Duration = Duration::from_secs(1);

/// What to push and where.
#[derive(Clone, Debug)]
pub struct Push {
    /// `host:port` of the server.
    pub address: String,
    /// What every key begins with.
    pub prefix: String,
    /// From one push to the next.
    pub interval: Duration,
    /// Whether to tell of memory.
    pub memory: bool,
    /// The most bytes of a packet; a line that is longer is a packet of its own.
    pub packet_bytes: usize,
    /// Whether to leave ephemeral topics and channels out.
    pub exclude_ephemeral: bool,
}

impl Push {
    /// What every key begins with, from what was asked for and how this nsqd is reached: `%s` is
    /// the host, with `_` where a key may not have `.` or `:`.
    #[must_use]
    pub fn prefix(pattern: &str, host: &str, port: u16) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let key = format!("{host}:{port}").replace(['.', ':'], "_");
        let prefix = pattern.replace("%s", &key);
        if prefix.is_empty() || prefix.ends_with('.') { prefix } else { format!("{prefix}.") }
    }
}

/// Pushes until `tasks` are stopped.
pub fn push(push: Push, source: Source, tasks: &Tasks) {
    tasks.spawn("statsd", OnExit::StopProcess, move |stop| async move {
        let mut last = Counts::default();
        let interval = push.interval.max(INTERVAL_MIN);
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let stats = source.stats(Wanted::default());
            let packets = packets(&push, &stats, &mut last);
            if let Err(error) = send(&push, &packets, &stop).await {
                tracing::error!(address = push.address, %error, "cannot push to statsd");
            }
        }
    });
}

async fn send(push: &Push, packets: &[String], stop: &CancellationToken) -> io::Result<()> {
    let found = timeout(LOOKUP_TIME_MAX, tokio::net::lookup_host(&push.address)).await??.next();
    let address = found.ok_or_else(|| io::Error::other("the name has no address"))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let spread = push.interval.saturating_sub(PAUSE);
    let pause = spread / u32::try_from(packets.len().max(1)).unwrap_or(u32::MAX);
    for packet in packets {
        match socket.send(packet.as_bytes()).await {
            // The answer to the one before: nobody listens. Somebody may later.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            sent => drop(sent?),
        }
        // When the process ends, what is left goes out at once.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

/// What counters were at the last push.
#[derive(Debug, Default)]
struct Counts(BTreeMap<String, u64>);

struct Lines<'a> {
    prefix: &'a str,
    last: BTreeMap<String, u64>,
    now: BTreeMap<String, u64>,
    packets: Vec<String>,
    packet_bytes: usize,
}

impl Lines<'_> {
    fn line(&mut self, text: &str) {
        match self.packets.last_mut() {
            Some(packet) if packet.len() + text.len() <= self.packet_bytes => packet.push_str(text),
            _ => self.packets.push(text.to_owned()),
        }
    }

    fn gauge(&mut self, key: &str, value: u64) {
        self.line(&format!("{}{key}:{value}|g\n", self.prefix));
    }

    /// A counter that began anew, as when its topic was deleted and made again, counts from 0.
    fn count(&mut self, key: String, value: u64) {
        let before = self.last.get(&key).copied().filter(|it| *it <= value).unwrap_or(0);
        self.line(&format!("{}{key}:{}|c\n", self.prefix, value - before));
        self.now.insert(key, value);
    }

    fn latency(&mut self, of: &str, latency: &Latency) {
        for part in latency.percentiles.iter().flatten() {
            let percent = part.quantile * 100.0;
            self.gauge(&format!("{of}.e2e_processing_latency_{percent:.0}"), part.value);
        }
    }

    fn topic(&mut self, topic: &TopicStats) -> String {
        let of = format!("topic.{}", topic.topic_name);
        self.count(format!("{of}.message_count"), topic.message_count);
        self.count(format!("{of}.message_bytes"), topic.message_bytes);
        self.gauge(&format!("{of}.depth"), topic.depth);
        self.gauge(&format!("{of}.backend_depth"), topic.backend_depth);
        // The original has none to tell where nobody consumes.
        if !topic.channels.is_empty() {
            self.latency(&of, &topic.e2e_processing_latency);
        }
        of
    }

    fn channel(&mut self, of_topic: &str, channel: &ChannelStats) {
        let of = format!("{of_topic}.channel.{}", channel.channel_name);
        self.count(format!("{of}.message_count"), channel.message_count);
        self.gauge(&format!("{of}.depth"), channel.depth);
        self.gauge(&format!("{of}.backend_depth"), channel.backend_depth);
        self.gauge(&format!("{of}.in_flight_count"), channel.in_flight_count);
        self.gauge(&format!("{of}.deferred_count"), channel.deferred_count);
        self.count(format!("{of}.requeue_count"), channel.requeue_count);
        self.count(format!("{of}.timeout_count"), channel.timeout_count);
        self.gauge(&format!("{of}.clients"), channel.client_count);
        self.latency(&of, &channel.e2e_processing_latency);
    }

    fn memory(&mut self) {
        for (key, value) in Process::now().memory().figures() {
            match key {
                "gc_total_runs" => self.count("mem.gc_runs".to_owned(), value),
                key => self.gauge(&format!("mem.{key}"), value),
            }
        }
    }
}

fn packets(push: &Push, stats: &Stats, counts: &mut Counts) -> Vec<String> {
    let mut lines = Lines {
        prefix: &push.prefix,
        last: std::mem::take(&mut counts.0),
        now: BTreeMap::new(),
        packets: Vec::new(),
        packet_bytes: push.packet_bytes,
    };
    let told = |name: &str| !(push.exclude_ephemeral && name.ends_with(EPHEMERAL));
    for topic in stats.topics.iter().flatten().filter(|it| told(&it.topic_name)) {
        let of = lines.topic(topic);
        for channel in topic.channels.iter().filter(|it| told(&it.channel_name)) {
            lines.channel(&of, channel);
        }
    }
    if push.memory {
        lines.memory();
    }
    counts.0 = lines.now;
    lines.packets
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_prefix_names_the_host() {
        assert_eq!(Push::prefix("nsq.%s", "a.example", 4151), "nsq.a_example_4151.");
        assert_eq!(Push::prefix("nsq.%s.", "::1", 1), "nsq.[__1]_1.");
        assert_eq!(Push::prefix("x", "a", 1), "x.");
        assert_eq!(Push::prefix("", "a", 1), "");
    }

    fn stats(messages: u64) -> Stats {
        let channel = |name: &str| ChannelStats {
            channel_name: name.to_owned(),
            depth: 1,
            backend_depth: 2,
            in_flight_count: 3,
            deferred_count: 4,
            message_count: messages,
            requeue_count: 5,
            timeout_count: 6,
            client_count: 7,
            clients: None,
            paused: false,
            e2e_processing_latency: Latency::default(),
            backlog: 0,
            first_unfinished_sequence: 0,
            cursor_sequence: 0,
            skipped_count: 0,
            max_attempts: None,
            dead_letter: None,
            ordered: None,
        };
        let percentile = super::super::wire::Percentile { quantile: 0.99, value: 12 };
        let topic = TopicStats {
            topic_name: "t".to_owned(),
            channels: vec![channel("c"), channel("e#ephemeral")],
            depth: 8,
            backend_depth: 9,
            message_count: messages,
            message_bytes: messages * 10,
            paused: false,
            e2e_processing_latency: Latency { count: 1, percentiles: Some(vec![percentile]) },
            first_sequence: 0,
            next_sequence: 0,
            file_bytes: 0,
            damaged_count: 0,
        };
        Stats { topics: Some(vec![topic]), producers: None }
    }

    #[test]
    fn tells_what_changed_in_packets_of_whole_lines() {
        let push = Push {
            address: String::new(),
            prefix: "nsq.".to_owned(),
            interval: Duration::from_secs(60),
            memory: false,
            packet_bytes: 120,
            exclude_ephemeral: true,
        };
        let mut counts = Counts::default();
        let first = packets(&push, &stats(10), &mut counts);
        expect![[r#"
            nsq.topic.t.message_count:10|c
            nsq.topic.t.message_bytes:100|c
            nsq.topic.t.depth:8|g
            nsq.topic.t.backend_depth:9|g
            --
            nsq.topic.t.e2e_processing_latency_99:12|g
            nsq.topic.t.channel.c.message_count:10|c
            nsq.topic.t.channel.c.depth:1|g
            --
            nsq.topic.t.channel.c.backend_depth:2|g
            nsq.topic.t.channel.c.in_flight_count:3|g
            --
            nsq.topic.t.channel.c.deferred_count:4|g
            nsq.topic.t.channel.c.requeue_count:5|c
            --
            nsq.topic.t.channel.c.timeout_count:6|c
            nsq.topic.t.channel.c.clients:7|g
        "#]]
        .assert_eq(&first.join("--\n"));
        assert!(first.iter().all(|it| it.len() <= 120));
        let second = packets(&push, &stats(13), &mut counts).concat();
        assert!(second.contains("nsq.topic.t.message_count:3|c\n"), "{second}");
        assert!(second.contains("nsq.topic.t.channel.c.requeue_count:0|c\n"), "{second}");
        let anew = packets(&push, &stats(2), &mut counts).concat();
        assert!(anew.contains("nsq.topic.t.message_count:2|c\n"), "{anew}");
    }
}
