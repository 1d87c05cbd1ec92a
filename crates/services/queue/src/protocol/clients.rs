//! Who is connected: what `/stats` tells of each client. Does not decide anything.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use serde::Serialize;

use crate::{
    broker::{Channel, ClientId},
    name::Name,
};

/// The clients of one nsqd. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    all: Arc<Mutex<BTreeMap<u64, Arc<Client>>>>,
    last: Arc<AtomicU64>,
}

/// What is told of one client; the keys are those of the original's `/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the original's keys")]
pub struct ClientStats {
    /// Its number at this nsqd, which `ChannelStats` has too.
    #[serde(skip)]
    pub id: u64,
    /// What it consumes, if anything.
    #[serde(skip)]
    pub subscribed: Option<(Name, Name)>,
    /// As it calls itself; until then its address without port.
    pub client_id: String,
    /// As it calls its machine.
    pub hostname: String,
    /// The protocol: `V2`.
    pub version: &'static str,
    /// Its address and port.
    pub remote_address: String,
    /// [`State`] as a number.
    pub state: u8,
    /// Its last `RDY`.
    pub ready_count: u32,
    /// Messages it has and has not answered.
    pub in_flight_count: u64,
    /// Messages it was sent.
    pub message_count: u64,
    /// Messages it finished.
    pub finish_count: u64,
    /// Messages it requeued.
    pub requeue_count: u64,
    /// When it connected, in seconds since 1970.
    pub connect_ts: i64,
    /// How many of a hundred messages it wants; 0: all.
    pub sample_rate: u8,
    /// Whether the connection is compressed with deflate.
    pub deflate: bool,
    /// Whether it is compressed with snappy.
    pub snappy: bool,
    /// As it calls its program.
    pub user_agent: String,
    /// Whether an auth server vouched for it.
    #[serde(skip_serializing_if = "is_false")]
    pub authed: bool,
    /// As the auth server calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_identity: String,
    /// Where a person finds more about that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_identity_url: String,
    /// Where it says it stands.
    pub topology_zone: String,
    /// Where its zone is.
    pub topology_region: String,
    /// What it published, by topic. A client with any is a producer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pub_counts: Vec<PubCount>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// With what.
    pub tls_cipher_suite: String,
    /// By which version of TLS: `TLS1.2`, `TLS1.3`.
    pub tls_version: String,
    /// What was agreed to be spoken in it: nothing.
    pub tls_negotiated_protocol: String,
    /// Whether both agreed.
    pub tls_negotiated_protocol_is_mutual: bool,
}

/// How much a client published to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PubCount {
    /// The topic.
    pub topic: String,
    /// Messages.
    pub count: u64,
}

/// What a connection may do next. The numbers are the original's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It may identify and authorise itself, and subscribe once.
    #[default]
    Init = 0,
    /// It gets messages.
    Subscribed = 3,
    /// It asked to be closed: it may still answer what it has.
    Closing = 4,
}

/// What a client says of itself with `IDENTIFY`, and what its connection negotiated.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) client_id: String,
    pub(super) hostname: String,
    pub(super) user_agent: String,
    pub(super) topology_zone: String,
    pub(super) topology_region: String,
    pub(super) sample_rate: u8,
    pub(super) identity: Option<(String, String)>,
    pub(super) tls: Option<TlsStats>,
    pub(super) subscribed: Option<(Name, Name)>,
    /// That channel, which knows what the client has in flight.
    pub(super) channel: Option<Channel>,
}

/// What was negotiated for an encrypted connection.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsStats {
    pub(super) cipher_suite: String,
    pub(super) version: &'static str,
}

/// One client: its connection writes, `/stats` reads.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) remote: SocketAddr,
    connect_ts: i64,
    state: AtomicU8,
    pub(super) ready: AtomicU32,
    pub(super) messages: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) requeued: AtomicU64,
    pub(super) deflate: AtomicBool,
    pub(super) snappy: AtomicBool,
    about: Mutex<About>,
    published: Mutex<BTreeMap<Name, u64>>,
}

/// Takes the client out of the registry when its connection ends.
#[derive(Debug)]
pub(super) struct Registered {
    clients: Clients,
    client: Arc<Client>,
}

impl Clients {
    /// What there is to tell of every client, in the order in which they came.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ClientStats> {
        let all: Vec<_> = lock(&self.all).values().cloned().collect();
        all.iter().map(|it| it.stats()).collect()
    }

    /// How many are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.all).len()
    }

    /// Adds one that connected from `remote` at `connect_ts` seconds since 1970.
    pub(super) fn register(&self, remote: SocketAddr, connect_ts: i64) -> Registered {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let address = remote.ip().to_string();
        let about = About { client_id: address.clone(), hostname: address, ..About::default() };
        let client = Arc::new(Client {
            id,
            remote,
            connect_ts,
            state: AtomicU8::new(State::Init as u8),
            ready: AtomicU32::default(),
            messages: AtomicU64::default(),
            finished: AtomicU64::default(),
            requeued: AtomicU64::default(),
            deflate: AtomicBool::default(),
            snappy: AtomicBool::default(),
            about: Mutex::new(about),
            published: Mutex::default(),
        });
        lock(&self.all).insert(id, Arc::clone(&client));
        Registered { clients: self.clone(), client }
    }
}

impl std::ops::Deref for Registered {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.clients.all).remove(&self.client.id);
    }
}

impl Client {
    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Changes what is known of it.
    pub(super) fn about(&self) -> MutexGuard<'_, About> {
        lock(&self.about)
    }

    /// Counts what it published.
    pub(super) fn published(&self, topic: &Name, count: u64) {
        let mut published = lock(&self.published);
        if let Some(counted) = published.get_mut(topic) {
            *counted += count;
        } else {
            published.insert(topic.clone(), count);
        }
    }

    fn stats(&self) -> ClientStats {
        let about = lock(&self.about).clone();
        let pub_counts = lock(&self.published)
            .iter()
            .map(|(topic, &count)| PubCount { topic: topic.to_string(), count })
            .collect();
        let channel = about.channel.as_ref();
        let in_flight_count = channel.map_or(0, |it| it.in_flight_of(ClientId(self.id)).into());
        let (auth_identity, auth_identity_url) = about.identity.clone().unwrap_or_default();
        let tls = about.tls.clone().unwrap_or_default();
        ClientStats {
            id: self.id,
            subscribed: about.subscribed,
            client_id: about.client_id,
            hostname: about.hostname,
            version: "V2",
            remote_address: self.remote.to_string(),
            state: self.state.load(Ordering::Relaxed),
            ready_count: self.ready.load(Ordering::Relaxed),
            in_flight_count,
            message_count: self.messages.load(Ordering::Relaxed),
            finish_count: self.finished.load(Ordering::Relaxed),
            requeue_count: self.requeued.load(Ordering::Relaxed),
            connect_ts: self.connect_ts,
            sample_rate: about.sample_rate,
            deflate: self.deflate.load(Ordering::Relaxed),
            snappy: self.snappy.load(Ordering::Relaxed),
            user_agent: about.user_agent,
            authed: about.identity.is_some(),
            auth_identity,
            auth_identity_url,
            topology_zone: about.topology_zone,
            topology_region: about.topology_region,
            pub_counts,
            tls: about.tls.is_some(),
            tls_cipher_suite: tls.cipher_suite,
            tls_version: tls.version.to_owned(),
            tls_negotiated_protocol: String::new(),
            tls_negotiated_protocol_is_mutual: false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A panic under one of these locks leaves numbers that are at worst a little old.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn tells_of_a_client_as_the_original_does() {
        let clients = Clients::default();
        let client = clients.register("127.0.0.1:4000".parse().unwrap(), 1_600_000_000);
        client.about().user_agent = "me/1".to_owned();
        client.set_state(State::Closing);
        client.published(&Name::parse("b").unwrap(), 2);
        client.published(&Name::parse("a").unwrap(), 1);
        client.published(&Name::parse("b").unwrap(), 3);
        expect![[r#"[{"client_id":"127.0.0.1","hostname":"127.0.0.1","version":"V2","remote_address":"127.0.0.1:4000","state":4,"ready_count":0,"in_flight_count":0,"message_count":0,"finish_count":0,"requeue_count":0,"connect_ts":1600000000,"sample_rate":0,"deflate":false,"snappy":false,"user_agent":"me/1","topology_zone":"","topology_region":"","pub_counts":[{"topic":"a","count":1},{"topic":"b","count":5}],"tls":false,"tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false}]"#]]
            .assert_eq(&serde_json::to_string(&clients.snapshot()).unwrap());
        drop(client);
        assert_eq!(clients.count(), 0);
    }
}
