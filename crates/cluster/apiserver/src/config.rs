//! What a server is started with.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use runtime::Clock;

use crate::{
    addresses::ServiceRange,
    connector::{NoNode, NodeConnector},
    limits::CONNECTIONS_MAX,
};

/// What a server is started with. Plain data.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of keys and certificates; made if it is not there. Without one they are made at
    /// every start and kept nowhere.
    pub pki_dir: Option<PathBuf>,
    /// Where cluster IPs come from. Its first address is the API's.
    pub service_range: ServiceRange,
    /// Where pods reach the API: the endpoint of Service `default/kubernetes`.
    pub advertised: SocketAddr,
    /// How many connections there may be, over all listeners; more wait. Each needs a descriptor, so a
    /// process that may have few files must allow fewer than the usual 12 000.
    pub connections_max: usize,
    /// The way to nodes, for logs.
    pub node_connector: Arc<dyn NodeConnector>,
    /// Time of day.
    pub clock: Clock,
    /// Seed of uids and generated names. The same one gives the same, so that tests repeat; give
    /// a random one otherwise.
    pub seed: u64,
}

impl Config {
    /// A server without nodes on the usual addresses; its certificates are in `pki_dir`.
    #[must_use]
    pub fn new(pki_dir: PathBuf, seed: u64) -> Self {
        Self {
            pki_dir: Some(pki_dir),
            service_range: ServiceRange::default(),
            advertised: SocketAddr::from((Ipv4Addr::LOCALHOST, 6443)),
            connections_max: CONNECTIONS_MAX,
            node_connector: Arc::new(NoNode),
            clock: Clock::system(),
            seed,
        }
    }

    /// The same, and nothing is kept.
    #[must_use]
    pub fn in_memory(seed: u64) -> Self {
        Self { pki_dir: None, ..Self::new(PathBuf::new(), seed) }
    }
}
