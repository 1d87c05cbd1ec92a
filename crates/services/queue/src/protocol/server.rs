//! Takes in clients, as many as there may be.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use runtime::{Clock, OnExit, Tasks};
use tokio::{sync::Semaphore, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    auth::Authority,
    clients::Clients,
    greeting,
    options::{DESCRIPTORS_RESERVED, Options},
    tls,
};
use crate::{broker::Broker, listen::Listener, tls::TlsError};

/// How long nobody is taken in when the kernel has no connection to give: mostly for want of
/// descriptors, which come back when clients leave.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The most clients, however many descriptors there are: each costs some kilobytes.
const CONNECTIONS_MAX: u64 = 100_000;

/// What serves the protocol. Nobody is served before [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    shared: Arc<Shared>,
}

/// What every connection uses.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) broker: Broker,
    pub(super) clients: Clients,
    pub(super) clock: Clock,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) auth: Option<Authority>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Prepares serving the topics of `broker` at `listener`; `clients` will tell who is there.
///
/// # Errors
/// If certificates cannot be read or used.
pub fn build(
    listener: Listener,
    options: Options,
    broker: Broker,
    clients: Clients,
    clock: Clock,
) -> Result<Server, TlsError> {
    let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
    let auth = if options.auth.addresses.is_empty() {
        None
    } else {
        let connector = tls::connector(options.tls.as_ref())?;
        Some(Authority::new(options.auth.clone(), connector))
    };
    let shared = Arc::new(Shared { options, broker, clients, clock, tls, auth });
    Ok(Server { listener, shared })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What encrypts connections, if anything does: HTTPS shows the same certificate.
    pub(crate) fn tls(&self) -> Option<TlsAcceptor> {
        self.shared.tls.clone()
    }

    /// Serves until `tasks` are stopped.
    pub fn run(self, tasks: &Tasks) {
        let clients = tasks.clone();
        tasks.spawn("protocol", OnExit::StopProcess, |stop| self.accept(clients, stop));
    }

    async fn accept(self, tasks: Tasks, stop: CancellationToken) -> anyhow::Result<()> {
        let limit = connections_max(&self.shared.options);
        runtime::reserve_files(limit as u64).context("make room for clients")?;
        let places = Arc::new(Semaphore::new(limit));
        let full = AtomicBool::new(false);
        tracing::info!(address = self.listener.shown(), limit, "serving clients");
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                it = self.listener.accept() => match it {
                    Ok(it) => it,
                    Err(error) => {
                        refused(&error);
                        sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                // Said once each time it begins: there may be many that try again and again.
                if !full.swap(true, Ordering::Relaxed) {
                    no_place(limit, peer);
                }
                continue;
            };
            full.store(false, Ordering::Relaxed);
            let shared = Arc::clone(&self.shared);
            // Boxed: the task that watches it would hold room for it a second time.
            tasks.spawn("client", OnExit::Log, |stop| {
                Box::pin(async move {
                    let _place = place;
                    greeting::serve(shared, stream, peer, stop).await
                })
            });
        }
    }
}

fn no_place(limit: usize, peer: SocketAddr) {
    tracing::warn!(limit, client = %peer, "no place for more clients");
}

/// A client that left before it was taken in is nothing; anything else is told.
fn refused(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "cannot take in clients");
    }
}

/// How many clients there may be.
fn connections_max(options: &Options) -> usize {
    let given = options.connections_max.map(u64::from);
    let limit = given.unwrap_or_else(|| {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let files = files.current.unwrap_or(CONNECTIONS_MAX);
        // A process that may have few files has some clients all the same.
        files.saturating_sub(DESCRIPTORS_RESERVED).max(files / 2).min(CONNECTIONS_MAX)
    });
    usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}
