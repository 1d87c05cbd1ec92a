//! Connections to endpoints that wait for the next request. Those to endpoints that take none any more are
//! closed at once.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::dial::{Dialed, Dialer};
use crate::{
    limits::{IDLE_MAX, IDLE_TIME_MAX},
    serve::Body,
    table::Protocol,
};

/// Connections that are not in use, by endpoint. HTTP/2 connections are shared instead.
pub(crate) struct Pool {
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where requests go now.
    current: HashSet<SocketAddr>,
    idle: HashMap<(SocketAddr, Protocol), Vec<Idle>>,
    shared: HashMap<(SocketAddr, Protocol), Http2>,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// One to send one request over.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// A connection that only one request has at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Body>,
    protocol: Protocol,
    used: bool,
}

/// A connection for many requests at a time.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) tls: bool,
    used: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Connection {
    /// Whether there were requests before.
    pub(super) const fn used(&self) -> bool {
        match self {
            Self::Http1(it) => it.used,
            Self::Http2(it) => it.used,
        }
    }
}

impl Pool {
    pub(crate) fn new(dialer: Dialer) -> Arc<Self> {
        Arc::new(Self { dialer, state: Mutex::default() })
    }

    /// Every change below is complete before anything can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that waits, or makes one; always makes one if it is to be `fresh`. One that is
    /// to be upgraded speaks HTTP/1.1.
    pub(super) async fn take(
        &self,
        endpoint: SocketAddr,
        protocol: Protocol,
        fresh: bool,
        upgrade: bool,
    ) -> io::Result<Connection> {
        if !fresh && let Some(kept) = self.kept(endpoint, protocol) {
            return Ok(kept);
        }
        Ok(match self.dialer.dial(endpoint, protocol, upgrade).await? {
            Dialed::Http1(sender) => Connection::Http1(Http1 { sender, protocol, used: false }),
            Dialed::Http2(sender) => {
                let tls = protocol == Protocol::Https;
                let shared = Http2 { sender, tls, used: false };
                let mut state = self.state();
                if state.current.contains(&endpoint) {
                    let kept = Http2 { used: true, ..shared.clone() };
                    state.shared.insert((endpoint, protocol), kept);
                }
                Connection::Http2(shared)
            }
        })
    }

    fn kept(&self, endpoint: SocketAddr, protocol: Protocol) -> Option<Connection> {
        let mut state = self.state();
        let key = (endpoint, protocol);
        if let Some(shared) = state.shared.get(&key) {
            if !shared.sender.is_closed() {
                return Some(Connection::Http2(shared.clone()));
            }
            state.shared.remove(&key);
        }
        let idle = state.idle.get_mut(&key)?;
        idle.retain(|it| !it.sender.is_closed() && it.since.elapsed() < IDLE_TIME_MAX);
        // The last one is the least likely to be closed by the endpoint just now.
        let at = idle.iter().rposition(|it| it.sender.is_ready())?;
        let Idle { sender, .. } = idle.remove(at);
        Some(Connection::Http1(Http1 { sender, protocol, used: true }))
    }

    /// What brings a connection back once the answer has been read.
    pub(super) fn lease(self: &Arc<Self>, endpoint: SocketAddr, connection: Http1) -> Lease {
        let Http1 { sender, protocol, .. } = connection;
        Lease(Some(Leased { pool: Arc::downgrade(self), endpoint, protocol, sender }))
    }

    fn put(&self, endpoint: SocketAddr, protocol: Protocol, sender: http1::SendRequest<Body>) {
        let mut state = self.state();
        if sender.is_closed() || !state.current.contains(&endpoint) {
            return;
        }
        let idle = state.idle.entry((endpoint, protocol)).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Requests go to these endpoints from now on: what is kept to others is closed, and what is in use
    /// will be.
    pub(crate) fn keep_to(&self, endpoints: HashSet<SocketAddr>) {
        let mut state = self.state();
        state.idle.retain(|(endpoint, _), _| endpoints.contains(endpoint));
        state.shared.retain(|(endpoint, _), _| endpoints.contains(endpoint));
        state.current = endpoints;
    }

    /// Closes what has waited too long.
    pub(crate) fn close_idle(&self) {
        let mut state = self.state();
        state.idle.retain(|_, idle| {
            idle.retain(|it| !it.sender.is_closed() && it.since.elapsed() < IDLE_TIME_MAX);
            !idle.is_empty()
        });
        state.shared.retain(|_, it| !it.sender.is_closed());
    }
}

/// A connection while its answer is read. Dropped before the end, it is closed, by which the endpoint
/// hears that nobody waits any more.
pub(crate) struct Lease(Option<Leased>);

struct Leased {
    pool: Weak<Pool>,
    endpoint: SocketAddr,
    protocol: Protocol,
    sender: http1::SendRequest<Body>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Lease {
    /// Of a connection that others use meanwhile.
    pub(super) const fn shared() -> Self {
        Self(None)
    }

    /// The answer has been read to its end.
    pub(crate) fn keep(self) {
        let Some(Leased { pool, endpoint, protocol, sender }) = self.0 else { return };
        if let Some(pool) = pool.upgrade() {
            pool.put(endpoint, protocol, sender);
        }
    }
}
