//! A cluster inside a Rust test: API server, controllers and scheduler in this process, on nothing but
//! memory, there in milliseconds.
//!
//! No process, no file, no port, no rights are needed. There is no node, so no pod ever runs; pods
//! are bound once a test has made a Node. What is made before a [`Cluster::fork`] is there in every fork,
//! so that a suite prepares once and each test changes a copy of its own.
//!
//! ```no_run
//! # use k8s_openapi::api::core::v1::Namespace;
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = coracle::Cluster::start().await?;
//! let namespaces: kube::Api<Namespace> = kube::Api::all(cluster.client());
//! let fork = cluster.fork().await?;
//! namespaces.delete("kube-public", &Default::default()).await?;
//! let forked: kube::Api<Namespace> = kube::Api::all(fork.client());
//! assert!(forked.get_opt("kube-public").await?.is_some_and(|it| {
//!     it.metadata.deletion_timestamp.is_none()
//! }));
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use apiserver::Server;
use client::Caches;
use runtime::{Clock, Tasks};
use store::Store;

/// How long [`Cluster::stop`] waits for each half of the cluster.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread for the store could not be started.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The API server could not be built.
    #[error(transparent)]
    Build(#[from] apiserver::BuildError),
    /// The API server could not be forked.
    #[error(transparent)]
    Fork(#[from] apiserver::ForkError),
}

/// A cluster without nodes. It ends when this value is dropped.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    api: Tasks,
    /// Controllers and scheduler.
    clients: Tasks,
}

impl Cluster {
    /// An empty cluster. Must be called inside a tokio runtime, in which it then lives.
    ///
    /// # Errors
    /// The machine refuses a thread, or has no randomness for keys.
    pub async fn start() -> Result<Self, StartError> {
        let api = Tasks::default();
        let config = apiserver::Config::in_memory(fastrand::u64(..));
        let server = Server::build(config, Store::in_memory()?, &api).await?;
        Ok(Self::around(server, api))
    }

    /// Another cluster with the same objects, uids and resource versions, which goes its own way from
    /// here on. Takes about a millisecond for 10 000 objects.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub async fn fork(&self) -> Result<Self, StartError> {
        let api = Tasks::default();
        let server = self.server.fork(&api).await?;
        Ok(Self::around(server, api))
    }

    fn around(server: Server, api: Tasks) -> Self {
        let (clients, clock) = (api.component(), Clock::system());
        let client = client::in_process(server.service());
        let caches = Caches::new(client.clone(), &clients);
        let root_ca = server.authority().to_owned();
        let config = controllers::Config { root_ca, clock: clock.clone() };
        controllers::run(config, &caches, &client, &clients);
        scheduler::run(scheduler::Config { clock }, &caches, &client, &clients);
        Self { server, api, clients }
    }

    /// A client of the API that may do everything. Its transport is a function call.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        client::in_process(self.server.service())
    }

    /// Serves the API over HTTPS on a free port of 127.0.0.1, for kubectl and clients in other
    /// languages, and returns the administrator's kubeconfig.
    ///
    /// # Errors
    /// There is no port.
    pub fn listen(&self) -> io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("https://{}", listener.local_addr()?);
        self.server.serve(listener, &self.api);
        Ok(self.server.kubeconfig("coracle", &url))
    }

    /// Ends the cluster and waits until it has; returns whether it did so in time, which is four
    /// seconds.
    pub async fn stop(self) -> bool {
        self.clients.shutdown(STOP_GRACE).await & self.api.shutdown(STOP_GRACE).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.clients.stop();
        self.api.stop();
    }
}
