//! Where the proxy listens on the host: at the usual port if that may be had, otherwise at the first free
//! one from the alternative on. What was had once is tried first, so that addresses stay.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::host::HostSockets;

/// Ports after the alternative that are tried.
const TRIES_MAX: u16 = 100;

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn usual(self) -> (u16, u16) {
        match self {
            Self::Http => (80, 8080),
            Self::Https => (443, 8443),
        }
    }

    /// The port that listeners of Gateways name.
    pub(crate) const fn named(self) -> u16 {
        self.usual().0
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Listeners at one port.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) port: u16,
    pub(crate) listeners: Vec<TcpListener>,
}

/// Listens at the loopback addresses, at no port of `taken`.
pub(crate) async fn open(
    sockets: &dyn HostSockets,
    scheme: Scheme,
    remembered: Option<u16>,
    taken: &BTreeSet<u16>,
) -> io::Result<Opened> {
    let (usual, alternative) = scheme.usual();
    let others = alternative..alternative.saturating_add(TRIES_MAX);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in remembered.into_iter().chain([usual]).chain(others) {
        if taken.contains(&port) {
            continue;
        }
        match at(sockets, port).await {
            Ok(listeners) => return Ok(Opened { port, listeners }),
            Err(error) => match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => last = error,
                _ => return Err(error),
            },
        }
    }
    Err(last)
}

/// Listens at the loopback addresses, at this port.
pub(crate) async fn at(sockets: &dyn HostSockets, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        match sockets.listen(SocketAddr::new(address, port)).await {
            Ok(socket) => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                listeners.push(TcpListener::from_std(listener)?);
            }
            // Where a name is looked up to both, another program must not have the other.
            Err(error) if address.is_ipv4() || error.kind() == io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            Err(error) => tracing::debug!(%error, "the host has no IPv6 loopback address"),
        }
    }
    Ok(listeners)
}

/// What port was had; none if that is not known.
pub(crate) fn remembered(path: &Path, scheme: Scheme) -> Option<u16> {
    let text = fs::read_to_string(path).ok()?;
    let ports: Value = serde_json::from_str(&text).ok()?;
    ports.get(scheme.word())?.as_u64()?.try_into().ok()
}

/// Remembers ports.
pub(crate) fn remember(path: &Path, ports: &[(Scheme, u16)]) -> io::Result<()> {
    let ports: serde_json::Map<String, Value> =
        ports.iter().map(|(scheme, port)| (scheme.word().to_owned(), json!(port))).collect();
    let draft = path.with_extension("draft");
    fs::write(&draft, Value::Object(ports).to_string())?;
    fs::rename(draft, path)
}
