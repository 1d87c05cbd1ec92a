//! Producers that somebody else has found: each is asked over HTTP who it is and which topics it
//! has, again and again, and stands in the registry like one that said so itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{
    Shared,
    registry::{ProducerId, Source, Topics},
    wire::PeerInfo,
};
use crate::{
    name::Name,
    web::{Client, ClientError},
};

/// How often each producer is asked. A consumer that looks for a new topic waits this long at most;
/// one that registers itself is known at once.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Asked at the same time, so that many producers, or slow ones, do not need many descriptors.
const ASKED_AT_ONCE: usize = 32;

/// Producers at most; further ones are not asked.
const FOUND_MAX: usize = 10_000;

/// How long a producer may take to answer.
const CLIENT: Client = Client { connect: Duration::from_secs(1), request: Duration::from_secs(5) };

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
pub(super) async fn watch(mut found: watch::Receiver<Vec<Found>>, shared: &Shared) {
    let mut known: BTreeSet<Found> = BTreeSet::new();
    let mut told = true;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = found.changed(), if told => {
                told = changed.is_ok();
                ticks.reset_immediately();
            }
            _ = ticks.tick() => {
                let all: BTreeSet<Found> = found.borrow_and_update().iter().cloned().collect();
                known = renew(&known, all, shared);
                let asked = stream::iter(known.clone()).map(|it| ask(it, shared));
                asked.buffer_unordered(ASKED_AT_ONCE).for_each(async |()| {}).await;
            }
        }
    }
}

/// Lets those that are no longer found leave; returns whom to ask.
fn renew(known: &BTreeSet<Found>, all: BTreeSet<Found>, shared: &Shared) -> BTreeSet<Found> {
    if FOUND_MAX < all.len() {
        tracing::warn!(found = all.len(), max = FOUND_MAX, "too many producers");
    }
    let all: BTreeSet<Found> = all.into_iter().take(FOUND_MAX).collect();
    for gone in known.difference(&all) {
        tracing::info!(producer = %gone.id(), "no longer found");
        shared.registry().leave(&gone.id());
    }
    all
}

/// Asks one producer. One that does not answer stays as it was, until it is inactive.
async fn ask(found: Found, shared: &Shared) {
    match question(&found).await {
        Ok((info, topics)) => {
            let (id, now) = (found.id(), shared.now());
            let mut registry = shared.registry();
            registry.identify(&id, info, Source::Found, now);
            if let Err(error) = registry.replace(&id, &topics) {
                tracing::error!(producer = %id, %error, "not all of a producer's topics are known");
            }
        }
        Err(error) => tracing::debug!(producer = %found.id(), %error, "a producer did not answer"),
    }
}

async fn question(found: &Found) -> Result<(PeerInfo, Topics), ClientError> {
    let http = found.http();
    let info: Info = CLIENT.get(&http, "/info").await?;
    let stats: Stats = CLIENT.get(&http, "/stats?format=json&include_clients=false").await?;
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
