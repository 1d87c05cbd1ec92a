//! `nsqlookupd`: knows which nsqd has which topic. Producers register over TCP, consumers ask over
//! HTTP. It keeps nothing on disk: producers come back by themselves.
//!
//! Producers may also be told of from outside ([`Config::found`]); these are asked for their topics.

mod connection;
mod found;
mod http;
mod registry;
mod session;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::{Clock, OnExit, Tasks};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::Instant,
};

pub use found::Found;

use self::{
    registry::{Lifetimes, Moment, Registry},
    session::Identity,
};
use crate::{
    message::Nanos,
    web::{self, Serve},
};

/// Producers connected at once; further ones wait. Ten times the nodes an NSQ cluster ever has.
const PRODUCERS_MAX: usize = 10_000;

/// HTTP clients at once; further ones wait. Each consumer asks once a minute or so.
const CLIENTS_MAX: usize = 1_000;

/// A connection on which nothing came for this long, and for twice the time after which its producer
/// counts as inactive, is dead: producers ping four times a minute. The original keeps it forever.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// Wait before another `accept` after one failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What an nsqlookupd is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where producers connect, `host:port` (`-tcp-address`).
    pub tcp_address: String,
    /// Where HTTP is served, `host:port` (`-http-address`).
    pub http_address: String,
    /// The address of this machine as nsqd shall know it (`-broadcast-address`).
    pub broadcast_address: String,
    /// The name of this machine.
    pub hostname: String,
    /// A producer from which nothing came for longer than this is not given to consumers
    /// (`-inactive-producer-timeout`).
    pub inactive_producer_timeout: Duration,
    /// How long a tombstone hides a producer (`-tombstone-lifetime`).
    pub tombstone_lifetime: Duration,
    /// Producers found by other means, as in a cluster by its endpoints: all there are, each time
    /// they change.
    pub found: Option<watch::Receiver<Vec<Found>>>,
}

impl Config {
    /// The original's defaults, on a machine called `hostname`.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        Self {
            tcp_address: "0.0.0.0:4160".to_owned(),
            http_address: "0.0.0.0:4161".to_owned(),
            broadcast_address: hostname.to_owned(),
            hostname: hostname.to_owned(),
            inactive_producer_timeout: Duration::from_secs(300),
            tombstone_lifetime: Duration::from_secs(45),
            found: None,
        }
    }
}

/// Why there is no nsqlookupd.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct BuildError {
    /// Where it should have listened.
    pub address: String,
    /// Why it cannot.
    pub source: io::Error,
}

/// An nsqlookupd whose sockets are open. Nobody is served before [`Lookupd::run`].
#[derive(Debug)]
pub struct Lookupd {
    tcp: TcpListener,
    http: TcpListener,
    found: Option<watch::Receiver<Vec<Found>>>,
    handle: Handle,
}

/// Where an nsqlookupd is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    tcp: SocketAddr,
    http: SocketAddr,
    shared: Arc<Shared>,
}

/// What every connection uses.
#[derive(Debug)]
struct Shared {
    registry: Mutex<Registry>,
    identity: Identity,
    silence_max: Duration,
    clock: Clock,
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment { instant: Instant::now(), wall: Nanos::of(self.clock.now()) }
    }
}

/// Opens the sockets.
///
/// # Errors
/// If an address cannot be had.
pub async fn build(config: Config, clock: Clock) -> Result<Lookupd, BuildError> {
    let listen = async |address: &str| {
        let listener = crate::listen::tcp(address).await;
        let listener = listener.and_then(|it| it.local_addr().map(|at| (it, at)));
        listener.map_err(|source| BuildError { address: address.to_owned(), source })
    };
    let (tcp, tcp_address) = listen(&config.tcp_address).await?;
    let (http, http_address) = listen(&config.http_address).await?;
    let lifetimes = Lifetimes {
        inactive: config.inactive_producer_timeout,
        tombstone: config.tombstone_lifetime,
    };
    let identity = Identity {
        broadcast_address: config.broadcast_address,
        hostname: config.hostname,
        tcp_port: tcp_address.port(),
        http_port: http_address.port(),
    };
    let shared = Shared {
        registry: Mutex::new(Registry::new(lifetimes)),
        identity,
        silence_max: SILENCE_MAX.max(config.inactive_producer_timeout.saturating_mul(2)),
        clock,
    };
    let handle = Handle { tcp: tcp_address, http: http_address, shared: Arc::new(shared) };
    Ok(Lookupd { tcp, http, found: config.found, handle })
}

impl Handle {
    /// Where producers connect.
    #[must_use]
    pub const fn tcp_address(&self) -> SocketAddr {
        self.tcp
    }

    /// Where HTTP is served.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http
    }
}

impl Lookupd {
    /// Tells where it is.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves in `tasks`, which also stop it.
    pub fn run(self, tasks: &Tasks) {
        let Self { tcp, http, found, handle } = self;
        tracing::info!(tcp = %handle.tcp, http = %handle.http, "nsqlookupd listens");
        let shared = handle.shared;
        let of_http = Arc::clone(&shared);
        let how =
            Serve { name: "nsqlookupd-http", clients_max: CLIENTS_MAX, answers_half_closed: true };
        web::serve(http, how, tasks, move |request, peer| {
            let response = http::answer(&of_http, &request, peer);
            async move { response }
        });
        if let Some(found) = found {
            let shared = Arc::clone(&shared);
            tasks.spawn("nsqlookupd-found", OnExit::StopProcess, move |stop| async move {
                let watch = found::watch(found, found::Pace::default(), &shared);
                stop.run_until_cancelled(watch).await;
                Ok(())
            });
        }
        accept(tcp, shared, tasks);
    }
}

/// Serves producers.
fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: &Tasks) {
    let of_producers = tasks.clone();
    tasks.spawn("nsqlookupd-tcp", OnExit::StopProcess, move |stop| async move {
        let places = Arc::new(Semaphore::new(PRODUCERS_MAX));
        loop {
            let producer = async {
                let place = Arc::clone(&places).acquire_owned().await?;
                anyhow::Ok((place, listener.accept().await))
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                producer = producer => producer?,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a producer");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let shared = Arc::clone(&shared);
            of_producers.spawn("nsqlookupd-producer", OnExit::Log, move |stop| async move {
                let served = stop.run_until_cancelled(connection::serve(socket, &shared)).await;
                if let Some(Err(error)) = served {
                    tracing::debug!(%peer, %error, "a producer's connection");
                }
                drop(place);
                Ok(())
            });
        }
    });
}

#[cfg(test)]
mod tests;
