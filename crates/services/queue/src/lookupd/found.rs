//! Producers that somebody else has found: each is asked over HTTP who it is and which topics it
//! has, again and again, and stands in the registry like one that said so itself.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, abortable},
    stream::FuturesUnordered,
};
use serde::Deserialize;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use super::{
    Shared,
    registry::{ProducerId, Source, Topics},
    wire::PeerInfo,
};
use crate::{
    name::Name,
    web::{Chain, Client, ClientError},
};

/// How often a producer is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between two questions. A consumer that looks for a new topic waits this long at most;
    /// a producer that registers itself is known at once.
    pub(super) every: Duration,
    /// Producers asked in a second at most, so that a thousand of them are asked less often, and not
    /// a thousand times as often.
    pub(super) per_second: u32,
    /// A producer whose answer took some time is left alone for so many times as long: to tell of
    /// very many topics is work for it, of which this may be a small share only.
    pub(super) rest: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(2), per_second: 100, rest: 10 }
    }
}

impl Pace {
    /// How long to wait when `count` are asked, after an answer that took so long.
    fn wait(&self, count: usize, took: Duration) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let turn = Duration::from_secs(count.into()) / self.per_second;
        self.every.max(turn).max(took.saturating_mul(self.rest))
    }
}

/// Asked at the same time, so that many producers, or slow ones, do not need many descriptors.
const ASKED_AT_ONCE: usize = 64;

/// A producer that did not answer so many times in a row is away. More than one, because a machine
/// may be busy for a moment.
const FAILURES_MAX: u32 = 3;

/// Producers at most; further ones are not asked.
const FOUND_MAX: usize = 10_000;

/// How long a producer may take to answer.
const CLIENT: Client =
    Client { connect: Duration::from_secs(1), request: Duration::from_secs(5), tls: None };

/// The topics and channels, without what costs more.
const STATS: &str = "/stats?format=json&include_clients=false&include_mem=false";

/// A producer that somebody else has found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The address at which consumers reach it.
    pub address: String,
    /// The port of its protocol.
    pub tcp_port: u16,
    /// The port of its HTTP.
    pub http_port: u16,
}

impl Found {
    fn id(&self) -> ProducerId {
        ProducerId::new(&format!("found:{}:{}", self.address, self.tcp_port))
    }

    fn http(&self) -> String {
        let is_v6 = self.address.contains(':') && !self.address.starts_with('[');
        if is_v6 {
            format!("[{}]:{}", self.address, self.http_port)
        } else {
            format!("{}:{}", self.address, self.http_port)
        }
    }
}

/// `/info`, what matters of it here.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(default)]
    version: String,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    topology_zone: String,
    #[serde(default)]
    topology_region: String,
}

/// `/stats`, what matters of it here.
#[derive(Debug, Deserialize)]
struct Stats {
    #[serde(default)]
    topics: Vec<StatsTopic>,
}

#[derive(Debug, Deserialize)]
struct StatsTopic {
    topic_name: String,
    #[serde(default)]
    channels: Vec<StatsChannel>,
}

#[derive(Debug, Deserialize)]
struct StatsChannel {
    channel_name: String,
}

/// Keeps the registry as `found` says, until whoever tells has gone; what was known then stays.
///
/// Each producer is asked on its own, so that one that is slow delays no other, and one that is no
/// longer found leaves at once.
pub(super) async fn watch(
    mut found: watch::Receiver<Vec<Found>>,
    pace: Pace,
    shared: &Shared,
) -> Infallible {
    let asker =
        Asker { shared, pace, slots: Semaphore::new(ASKED_AT_ONCE), count: AtomicUsize::new(0) };
    let mut asking = FuturesUnordered::new();
    let mut known: BTreeMap<Found, AbortHandle> = BTreeMap::new();
    let mut told = true;
    found.mark_changed();
    loop {
        tokio::select! {
            biased;
            changed = found.changed(), if told => {
                told = changed.is_ok();
                let all = wanted(&found.borrow_and_update());
                asker.count.store(all.len(), Ordering::Relaxed);
                known.retain(|it, asks| {
                    let stays = all.contains(it);
                    if !stays {
                        // From here on it is not polled any more: it cannot come back.
                        asks.abort();
                        tracing::info!(producer = %it.id(), "no longer found");
                        shared.registry().leave(&it.id());
                    }
                    stays
                });
                for new in all {
                    if let Entry::Vacant(place) = known.entry(new) {
                        let (asks, handle) = abortable(asker.keep(place.key().clone()));
                        place.insert(handle);
                        asking.push(asks);
                    }
                }
            }
            // Each goes on for ever, or was aborted.
            Some(_) = asking.next() => {}
            else => return std::future::pending().await,
        }
    }
}

/// Those who are to be asked.
fn wanted(found: &[Found]) -> BTreeSet<Found> {
    let all: BTreeSet<&Found> = found.iter().collect();
    if FOUND_MAX < all.len() {
        tracing::warn!(found = all.len(), max = FOUND_MAX, "too many producers");
    }
    all.into_iter().take(FOUND_MAX).cloned().collect()
}

struct Asker<'a> {
    shared: &'a Shared,
    pace: Pace,
    slots: Semaphore,
    /// How many are asked.
    count: AtomicUsize,
}

impl Asker<'_> {
    /// Asks one producer, again and again.
    async fn keep(&self, found: Found) -> Infallible {
        let id = found.id();
        let mut failures = 0_u32;
        loop {
            // The semaphore is never closed.
            let slot = self.slots.acquire().await.ok();
            let asked = Instant::now();
            let answer = question(&found).await;
            let took = asked.elapsed();
            drop(slot);
            let count = self.count.load(Ordering::Relaxed);
            let wait = match answer {
                Ok(answer) => {
                    self.answered(&id, answer, failures);
                    failures = 0;
                    self.pace.wait(count, took)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.failed(&id, &error, failures);
                    self.pace.wait(count, Duration::ZERO)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes an answer, after so many failures.
    fn answered(&self, id: &ProducerId, (info, topics): (PeerInfo, Topics), failures: u32) {
        if FAILURES_MAX <= failures {
            tracing::info!(producer = %id, "answers again");
        }
        let now = self.shared.now();
        let mut registry = self.shared.registry();
        registry.identify(id, info, Source::Found, now);
        if let Err(error) = registry.replace(id, &topics, now) {
            tracing::error!(producer = %id, %error, "not all of a producer's topics are known");
        }
    }

    /// Notes a failure, the how manyth it is.
    fn failed(&self, id: &ProducerId, error: &ClientError, failures: u32) {
        let error = Chain(error);
        if failures == FAILURES_MAX {
            tracing::warn!(producer = %id, %error, "does not answer, and is left out");
            self.shared.registry().leave(id);
        } else {
            tracing::debug!(producer = %id, %error, failures, "did not answer");
        }
    }
}

async fn question(found: &Found) -> Result<(PeerInfo, Topics), ClientError> {
    let http = found.http();
    let info: Info = CLIENT.get(&http, "/info").await?;
    let stats: Stats = CLIENT.get(&http, STATS).await?;
    let peer = PeerInfo {
        remote_address: http,
        hostname: info.hostname,
        broadcast_address: found.address.clone(),
        tcp_port: found.tcp_port.into(),
        http_port: found.http_port.into(),
        version: info.version,
        topology_zone: info.topology_zone,
        topology_region: info.topology_region,
    };
    Ok((peer, topics(stats)))
}

/// The topics of valid names; an nsqd has no others.
fn topics(stats: Stats) -> Topics {
    let topics = stats.topics.into_iter().filter_map(|topic| {
        let channels = topic.channels.iter().filter_map(|it| Name::parse(&it.channel_name));
        Some((Name::parse(&topic.topic_name)?, channels.collect()))
    });
    topics.collect::<BTreeMap<_, _>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_slow_ones_are_asked_less_often() {
        let pace = Pace::default();
        let wait = |count, took_ms| pace.wait(count, Duration::from_millis(took_ms)).as_millis();
        assert_eq!([wait(1, 0), wait(200, 0), wait(201, 0)], [2_000, 2_000, 2_010]);
        assert_eq!([wait(FOUND_MAX, 0), wait(1, 500), wait(0, 100)], [100_000, 5_000, 2_000]);
    }
}
