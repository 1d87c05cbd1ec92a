//! The built-in HTTP proxy: from the host into the cluster, by Ingresses, HTTPRoutes and names
//! of Services.
//!
//! Follows objects, decides a routing table (`decide`, a pure function), and puts it in the place of the
//! last one as a whole. Requests are served from the table alone (`serve`, `upstream`), and go to
//! endpoints directly. It sees the API and sockets of the host that others make; it does not know how
//! endpoints come about, and nothing of the host is changed.

mod limits;

mod decide;
mod table;

mod serve;
mod upstream;

mod act;
mod follow;
mod host;
mod listen;
mod observe;

mod metrics;
mod record;
mod tls;

#[cfg(test)]
mod testing;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use client::{Caches, Client, Events};
use metrics::Metrics;
use record::Recorder;
use runtime::{Clock, OnExit, Tasks};
use tokio::sync::watch;

pub use host::HostSockets;
pub use tls::Authority;

use follow::Follower;
use serve::Proxy;
use table::Table;
use tls::Certificates;
use upstream::{Dialer, Pool};

/// How the proxy is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address at which endpoints are programs of the host.
    pub host_address: IpAddr,
    /// File in which the ports on the host are remembered.
    pub ports_file: PathBuf,
    /// The access log.
    pub log_file: PathBuf,
    /// Time of day.
    pub clock: Clock,
    /// Signs the certificates of hosts that have none.
    pub authority: Arc<dyn Authority>,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The cryptography that was built in does not work.
    #[error("TLS is not possible")]
    Tls(#[from] rustls::Error),
}

/// The proxy, as others use it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    table: watch::Receiver<Arc<Table>>,
    metrics: Arc<Metrics>,
}

impl Handle {
    /// What is counted of requests, in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    /// Waits until no new request goes to `address` as to a ready endpoint.
    pub async fn unrouted(&self, address: IpAddr) {
        let mut table = self.table.clone();
        // When the proxy has ended, nothing goes anywhere.
        drop(table.wait_for(|it| !it.leads_to(address)).await);
    }
}

/// Starts the proxy in `tasks`. It listens as soon as there is something to ask for.
///
/// # Errors
/// The cryptography that was built in does not work.
pub fn build(
    config: Config,
    caches: &Caches,
    (client, events): (Client, Events),
    sockets: Arc<dyn HostSockets>,
    tasks: &Tasks,
) -> Result<Handle, BuildError> {
    let dialer = Dialer::new(Arc::clone(&sockets), config.host_address, tasks)?;
    let pool = Pool::new(dialer);
    let (sender, table) = watch::channel(Arc::default());
    let certificates = Certificates::new(table.clone(), config.authority);
    let acceptor = tls::acceptor(certificates)?;
    let recorder = Recorder::new(config.log_file, config.clock.clone(), tasks);
    let metrics = Arc::clone(&recorder.metrics);
    let proxy = Proxy::new((table.clone(), pool), acceptor, recorder, tasks.clone());
    let of_follower = (config.ports_file, config.clock);
    let follower = Follower::new(of_follower, caches, (client, events), sockets, proxy, sender);
    tasks.spawn("proxy", OnExit::StopProcess, |stop| follower.run(stop));
    Ok(Handle { table, metrics })
}
