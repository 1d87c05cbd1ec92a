//! nsqd's side of nsqlookupd: tells each one which topics and channels are here, and asks them which
//! channels a new topic has elsewhere, so that none of its messages miss a channel.
//!
//! Publishers never wait for an nsqlookupd. The messages of a new topic do, before they go to its
//! channels, and not for long.

mod channels;
mod commands;
mod connection;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{Backoff, OnExit, Tasks};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, ChannelOptions, Start},
    name::Name,
    web::{Chain, Client, VERSION},
};

/// nsqlookupds at most; each costs a task and a connection. Three are usual.
pub const LOOKUPDS_MAX: usize = 64;

/// How long until a connection that broke is made again. The original tries four times a minute; one
/// that has been restarted should know its producers sooner.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(250), max: Duration::from_secs(15) };

/// What is here: every topic with its channels.
pub type Topology = BTreeMap<Name, BTreeSet<Name>>;

/// The topics and channels that nsqlookupds are told of.
pub trait Topics: Send + Sync + 'static {
    /// All there are now.
    fn topology(&self) -> Topology;

    /// Moves whenever a topic or channel came or went.
    fn changes(&self) -> watch::Receiver<u64>;

    /// From now on new topics give nothing to their channels before [`Self::release`], or do.
    fn hold_new(&self, hold: bool);

    /// The topics that give nothing yet.
    fn held(&self) -> BTreeSet<Name>;

    /// Whether there is such a topic.
    fn exists(&self, topic: &Name) -> bool;

    /// Makes `channels` of `topic`, which is new, where they are not there yet; each is to get what
    /// was published since the topic began.
    fn create(&self, topic: &Name, channels: &BTreeSet<Name>);

    /// Lets a topic that gives nothing yet begin to.
    fn release(&self, topic: &Name);
}

impl Topics for Broker {
    fn topology(&self) -> Topology {
        let topics = self.topics().into_iter().map(|topic| {
            let channels = topic.channels().iter().map(|it| it.name().clone()).collect();
            (topic.name().clone(), channels)
        });
        topics.collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        Self::changes(self)
    }

    fn hold_new(&self, hold: bool) {
        self.hold_new_topics(hold);
    }

    fn held(&self) -> BTreeSet<Name> {
        let topics = self.topics();
        topics.iter().filter(|it| it.is_held()).map(|it| it.name().clone()).collect()
    }

    fn exists(&self, topic: &Name) -> bool {
        self.existing_topic(topic).is_some()
    }

    fn create(&self, topic: &Name, channels: &BTreeSet<Name>) {
        // It may be gone again.
        let Some(topic) = self.existing_topic(topic) else { return };
        // One that is held has given nothing to anybody; one that is not has given it to others.
        let start = if topic.is_held() { Start::Routed } else { Start::Beginning };
        for channel in channels {
            if topic.existing_channel(channel).is_some() {
                continue;
            }
            let options = ChannelOptions::default();
            if let Err(error) = topic.create_channel(channel, options, start) {
                tracing::warn!(topic = %topic.name(), %channel, %error, "create a known channel");
            }
        }
    }

    fn release(&self, topic: &Name) {
        if let Some(topic) = self.existing_topic(topic) {
            topic.release();
        }
    }
}

/// What this nsqd says of itself (`IDENTIFY`).
#[derive(Clone, Debug, Serialize)]
pub struct Identity {
    /// The address at which consumers reach it (`-broadcast-address`).
    pub broadcast_address: String,
    /// The name of its machine.
    pub hostname: String,
    /// The port of its HTTP, as consumers reach it.
    pub http_port: u16,
    /// The port of its protocol, as consumers reach it.
    pub tcp_port: u16,
    /// Where it is (`-topology-region`); may be empty.
    pub topology_region: String,
    /// Where it is within that (`-topology-zone`); may be empty.
    pub topology_zone: String,
}

/// Which nsqlookupds there are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Their addresses, `host:port` (`-lookupd-tcp-address`).
    pub lookupds: Vec<String>,
    /// What they are told of this nsqd.
    pub identity: Identity,
    /// How long connecting to one to ask it may take (`-http-client-connect-timeout`).
    pub connect_timeout: Duration,
    /// How long its answer may take, and how long a new topic waits for all answers
    /// (`-http-client-request-timeout`).
    pub request_timeout: Duration,
}

/// There are more nsqlookupds than [`LOOKUPDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} nsqlookupds, at most {LOOKUPDS_MAX}")]
pub struct TooMany(pub usize);

/// The connections to nsqlookupds. Nothing is connected before [`Peers::run`].
#[derive(Debug)]
pub struct Peers<T> {
    identity: Identity,
    client: Client,
    topics: Arc<T>,
    handle: Handle,
}

/// Looks at and changes which nsqlookupds there are. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    /// The addresses as configured.
    lookupds: watch::Sender<BTreeSet<String>>,
    /// What is known of each. One that is not here was not tried yet.
    peers: Mutex<BTreeMap<String, Peer>>,
    /// Moves when more is known of one.
    news: watch::Sender<u64>,
}

/// What is known of an nsqlookupd.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    /// It is connected, and has HTTP there if it says so.
    Connected(Option<String>),
    /// It is not there.
    Away,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("peers", &*self.0.peers()).finish_non_exhaustive()
    }
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<String, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is now known of the nsqlookupd at `address`; `None` if it is no longer used.
    fn set(&self, address: &str, peer: Option<Peer>) {
        let before = match peer.clone() {
            Some(peer) => self.peers().insert(address.to_owned(), peer),
            None => self.peers().remove(address),
        };
        if before != peer {
            self.news.send_modify(|it| *it += 1);
        }
    }
}

/// Prepares the connections.
///
/// # Errors
/// If there are too many nsqlookupds.
pub fn build<T: Topics>(config: Config, topics: Arc<T>) -> Result<Peers<T>, TooMany> {
    let inner = Inner {
        lookupds: watch::Sender::default(),
        peers: Mutex::default(),
        news: watch::Sender::default(),
    };
    let handle = Handle(Arc::new(inner));
    handle.set_lookupds(config.lookupds)?;
    let client =
        Client { connect: config.connect_timeout, request: config.request_timeout, tls: None };
    Ok(Peers { identity: config.identity, client, topics, handle })
}

impl Handle {
    /// The addresses as configured, in order.
    #[must_use]
    pub fn lookupds(&self) -> Vec<String> {
        self.0.lookupds.borrow().iter().cloned().collect()
    }

    /// From now on these are the nsqlookupds; connections to others end.
    ///
    /// # Errors
    /// If there are too many; then nothing changes.
    pub fn set_lookupds(&self, addresses: Vec<String>) -> Result<(), TooMany> {
        let addresses: BTreeSet<String> = addresses.into_iter().collect();
        if LOOKUPDS_MAX < addresses.len() {
            return Err(TooMany(addresses.len()));
        }
        self.0.lookupds.send_if_modified(|it| {
            let differs = *it != addresses;
            *it = addresses;
            differs
        });
        Ok(())
    }

    /// Where the HTTP of those that are connected is, as they say.
    #[must_use]
    pub fn http_addresses(&self) -> Vec<String> {
        let peers = self.0.peers();
        let http = peers.values().filter_map(|it| match it {
            Peer::Connected(http) => http.clone(),
            Peer::Away => None,
        });
        http.collect()
    }
}

impl<T: Topics> Peers<T> {
    /// The handle.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Connects in `tasks`, which also stop it.
    pub fn run(self, tasks: &Tasks) {
        let Self { identity, client, topics, handle } = self;
        let inner = handle.0;
        let (of_channels, of_inner) = (Arc::clone(&topics), Arc::clone(&inner));
        tasks.spawn("lookup-channels", OnExit::StopProcess, move |stop| async move {
            stop.run_until_cancelled(channels::watch(of_channels, of_inner, client)).await;
            Ok(())
        });
        let of_peers = tasks.clone();
        tasks.spawn("lookup", OnExit::StopProcess, move |stop| async move {
            let mut lookupds = inner.lookupds.subscribe();
            let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
            loop {
                let wanted = lookupds.borrow_and_update().clone();
                running.retain(|address, until| {
                    let stays = wanted.contains(address);
                    if !stays {
                        tracing::info!(lookupd = address, "no longer used");
                        until.cancel();
                    }
                    stays
                });
                for address in wanted {
                    if running.contains_key(&address) {
                        continue;
                    }
                    let until = stop.child_token();
                    running.insert(address.clone(), until.clone());
                    let (topics, inner) = (Arc::clone(&topics), Arc::clone(&inner));
                    let identity = identity.clone();
                    of_peers.spawn("lookup-peer", OnExit::Log, move |_| async move {
                        let kept = keep(&address, &identity, &*topics, &inner);
                        until.run_until_cancelled(kept).await;
                        inner.set(&address, None);
                        Ok(())
                    });
                }
                let changed = stop.run_until_cancelled(lookupds.changed()).await;
                if !matches!(changed, Some(Ok(()))) {
                    return Ok(());
                }
            }
        });
    }
}

/// Connects to one nsqlookupd, again and again.
async fn keep<T: Topics>(address: &str, identity: &Identity, topics: &T, inner: &Inner) {
    let mut failures = 0;
    loop {
        let ended = connection::serve(address, identity, topics, |http| {
            inner.set(address, Some(Peer::Connected(http)));
        });
        let ended = ended.await;
        inner.set(address, Some(Peer::Away));
        failures = if ended.proven { 1 } else { failures + 1 };
        let (wait, error) = (AGAIN.delay(failures), ended.why);
        // Once is news; that it still is so is not.
        if failures == 1 {
            tracing::warn!(lookupd = address, error = %Chain(&error), "disconnected");
        } else {
            tracing::debug!(lookupd = address, error = %Chain(&error), "still disconnected");
        }
        tokio::time::sleep(wait).await;
    }
}

/// What is sent with [`Identity`] beside it.
#[derive(Serialize)]
struct Identify<'a> {
    #[serde(flatten)]
    identity: &'a Identity,
    version: &'static str,
}

impl<'a> Identify<'a> {
    const fn new(identity: &'a Identity) -> Self {
        Self { identity, version: VERSION }
    }
}

#[cfg(test)]
mod tests;
