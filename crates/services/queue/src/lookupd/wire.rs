//! The documents of the protocol and of the HTTP API, field by field as the original has them.

use serde::{Deserialize, Serialize};

use crate::{message::Nanos, name::Name};

/// What the original shows for "never": nanoseconds from 1970 back to its runtime's year one, as
/// they overflow.
const NEVER: i64 = -6_795_364_578_871_345_152;

/// A producer, as consumers are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PeerInfo {
    pub(super) remote_address: String,
    pub(super) hostname: String,
    pub(super) broadcast_address: String,
    pub(super) tcp_port: i64,
    pub(super) http_port: i64,
    pub(super) version: String,
    pub(super) topology_zone: String,
    pub(super) topology_region: String,
}

impl PeerInfo {
    /// Where its HTTP is, as `/topic/tombstone` names a producer.
    pub(super) fn node(&self) -> String {
        format!("{}:{}", self.broadcast_address, self.http_port)
    }
}

/// What a producer says of itself with `IDENTIFY`. What is absent or null is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Identify {
    pub(super) hostname: Option<String>,
    pub(super) broadcast_address: Option<String>,
    pub(super) tcp_port: Option<i64>,
    pub(super) http_port: Option<i64>,
    pub(super) version: Option<String>,
    pub(super) topology_zone: Option<String>,
    pub(super) topology_region: Option<String>,
}

impl Identify {
    /// The producer at `remote_address`; `None` if a field that must be there is missing.
    pub(super) fn peer_info(self, remote_address: String) -> Option<PeerInfo> {
        let info = PeerInfo {
            remote_address,
            hostname: self.hostname.unwrap_or_default(),
            broadcast_address: self.broadcast_address.unwrap_or_default(),
            tcp_port: self.tcp_port.unwrap_or_default(),
            http_port: self.http_port.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            topology_zone: self.topology_zone.unwrap_or_default(),
            topology_region: self.topology_region.unwrap_or_default(),
        };
        let complete = !info.broadcast_address.is_empty()
            && info.tcp_port != 0
            && info.http_port != 0
            && !info.version.is_empty();
        complete.then_some(info)
    }
}

/// What `IDENTIFY` is answered: who this nsqlookupd is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Identified<'a> {
    pub(super) broadcast_address: &'a str,
    pub(super) hostname: &'a str,
    pub(super) http_port: u16,
    pub(super) tcp_port: u16,
    pub(super) version: &'a str,
}

/// `/lookup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lookup {
    #[serde(serialize_with = "names")]
    pub(super) channels: Vec<Name>,
    pub(super) producers: Vec<PeerInfo>,
}

/// `/channels`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Channels {
    #[serde(serialize_with = "names")]
    pub(super) channels: Vec<Name>,
}

/// `/topics`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Topics {
    #[serde(serialize_with = "names")]
    pub(super) topics: Vec<Name>,
}

/// `/nodes`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Nodes {
    pub(super) producers: Vec<Node>,
}

/// A producer with its topics; a tombstone belongs to the topic at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Node {
    #[serde(flatten)]
    pub(super) info: PeerInfo,
    pub(super) tombstones: Vec<bool>,
    #[serde(serialize_with = "names")]
    pub(super) topics: Vec<Name>,
}

impl Node {
    pub(super) const fn new(info: PeerInfo, tombstones: Vec<bool>, topics: Vec<Name>) -> Self {
        Self { info, tombstones, topics }
    }
}

/// `/info`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Info<'a> {
    pub(super) version: &'a str,
}

/// One registration of a producer, for `/debug`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Debug {
    broadcast_address: String,
    hostname: String,
    http_port: i64,
    id: String,
    last_update: i64,
    tcp_port: i64,
    tombstoned: bool,
    tombstoned_at: i64,
    topology_region: String,
    topology_zone: String,
    version: String,
}

impl Debug {
    pub(super) fn new(
        id: &str,
        info: &PeerInfo,
        updated: Nanos,
        tombstoned: Option<Nanos>,
    ) -> Self {
        Self {
            broadcast_address: info.broadcast_address.clone(),
            hostname: info.hostname.clone(),
            http_port: info.http_port,
            id: id.to_owned(),
            last_update: updated.0,
            tcp_port: info.tcp_port,
            tombstoned: tombstoned.is_some(),
            tombstoned_at: tombstoned.map_or(NEVER, |it| it.0),
            topology_region: info.topology_region.clone(),
            topology_zone: info.topology_zone.clone(),
            version: info.version.clone(),
        }
    }
}

fn names<S: serde::Serializer>(names: &[Name], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(Name::as_str))
}
