//! A server: built from a config and a store, then used in process and over TLS.

use std::{net::IpAddr, sync::Arc};

use api::status::Status;
use rcgen::SanType;
use runtime::{OnExit, Tasks};
use store::Store;

use crate::{
    addresses::Addresses,
    bootstrap,
    config::Config,
    endpoints::{discovery::Discovery, openapi::OpenApi},
    flow::Flow,
    identity::Identity,
    kinds::KINDS,
    object,
    registry::{Registry, keys},
    router::{Router, Shared},
    tls::{
        kubeconfig,
        listener::{Endpoint, TlsError},
        pki::{Pki, PkiError},
    },
};

/// Why a server could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name cannot be in a certificate.
    #[error("`{0}` cannot be a name in a certificate")]
    Name(&'static str, #[source] rcgen::Error),
    /// An object every cluster has could not be made.
    #[error("cannot make the first objects of the cluster")]
    Bootstrap(#[source] Status),
}

/// Why there is no second server.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// A thread for its store could not be started.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// It could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The API of one cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
    pki: Arc<Pki>,
    endpoint: Endpoint,
    config: Arc<Config>,
}

/// Names under which the server is reached, besides addresses.
const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

impl Server {
    /// Reads or makes the certificates and the objects that every cluster has. When `tasks` are
    /// stopped, watches and followed logs end at once.
    ///
    /// # Errors
    /// The folder of certificates cannot be used, or the store refuses writes.
    pub async fn build(config: Config, store: Store, tasks: &Tasks) -> Result<Self, BuildError> {
        let (names, now) = (names(&config)?, config.clock.now());
        let pki = match &config.pki_dir {
            Some(dir) => Pki::open(dir, &names, now)?,
            None => Pki::make(&names, now)?,
        };
        Self::start(config, store, Arc::new(pki), tasks).await
    }

    /// A server of its own with the same objects, at the same resource versions, and the same
    /// certificates; it keeps nothing on the disk. What either does from here on, the other does not
    /// see. Services keep their cluster addresses.
    ///
    /// # Errors
    /// As for [`Server::build`].
    pub async fn fork(&self, tasks: &Tasks) -> Result<Self, ForkError> {
        let registry = &self.shared.registry;
        // The same seed would give the same uids again, to other objects.
        let seed = registry.random(|it| it.u64(..));
        let config = Config { seed, pki_dir: None, ..Config::clone(&self.config) };
        let store = registry.store.backup().into_memory()?;
        Ok(Self::start(config, store, Arc::clone(&self.pki), tasks).await?)
    }

    async fn start(
        config: Config,
        store: Store,
        pki: Arc<Pki>,
        tasks: &Tasks,
    ) -> Result<Self, BuildError> {
        let addresses = Addresses::new(config.service_range);
        adopt_services(&store, &addresses);
        let registry = Arc::new(Registry::new(
            store,
            config.clock.clone(),
            Arc::clone(&config.node_connector),
            addresses,
            config.seed,
        ));
        bootstrap::run(&registry, &config).await.map_err(BuildError::Bootstrap)?;
        let ended = registry.stop.clone();
        tasks.spawn("apiserver-stop", OnExit::Log, |stop| async move {
            stop.cancelled().await;
            ended.cancel();
            Ok(())
        });
        let (own, settings) = (Arc::clone(&registry), config.clone());
        tasks.spawn("apiserver-own-service", OnExit::StopProcess, |_| async move {
            bootstrap::keep_published(&own, &settings).await
        });
        let shared = Arc::new(Shared {
            registry,
            discovery: Discovery::new(config.advertised),
            openapi: OpenApi::default(),
            flow: Flow::default(),
        });
        let endpoint = Endpoint::new(&pki, &config, Arc::clone(&shared))?;
        Ok(Self { shared, pki, endpoint, config: Arc::new(config) })
    }

    /// The API for callers in this process, who may do everything.
    #[must_use]
    pub fn service(&self) -> Router {
        Router::new(Arc::clone(&self.shared), Arc::new(Identity::in_process()))
    }

    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Serves HTTPS on a bound listener, until `tasks` are stopped. May be called for several.
    pub fn serve(&self, listener: std::net::TcpListener, tasks: &Tasks) {
        self.endpoint.serve(listener, tasks);
    }

    /// The administrator's kubeconfig for cluster `name` at `server_url`. It holds a private key:
    /// keep it in a file that only its owner may read.
    #[must_use]
    pub fn kubeconfig(&self, name: &str, server_url: &str) -> String {
        kubeconfig::text(&self.pki, name, server_url)
    }

    /// A new certificate for servers at `hosts` (names, also with `*.`, and addresses) and its key, both in
    /// PEM, signed by the cluster's authority. Nothing keeps them.
    ///
    /// # Errors
    /// One of them cannot be in a certificate.
    pub fn sign_for(&self, hosts: &[String]) -> Result<(String, String), PkiError> {
        let pair = self.pki.sign_for(hosts, self.config.clock.now())?;
        Ok((pair.certificate.clone(), pair.key_pem().to_owned()))
    }

    /// The certificate of the cluster's authority in PEM, as ConfigMap `kube-root-ca.crt` has it.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.pki.authority.certificate
    }
}

fn names(config: &Config) -> Result<Vec<SanType>, BuildError> {
    let mut names = Vec::new();
    for name in NAMES {
        let text = (*name).try_into().map_err(|error| BuildError::Name(name, error))?;
        names.push(SanType::DnsName(text));
    }
    let mut addresses: Vec<IpAddr> = vec![
        IpAddr::from([127, 0, 0, 1]),
        std::net::Ipv6Addr::LOCALHOST.into(),
        config.service_range.address(1).into(),
        config.advertised.ip(),
    ];
    addresses.dedup();
    names.extend(addresses.into_iter().map(SanType::IpAddress));
    Ok(names)
}

fn adopt_services(store: &Store, addresses: &Addresses) {
    let Some(kind) = KINDS.iter().find(|it| (it.group, it.kind) == ("", "Service")) else { return };
    let page = store.range(store::Range::prefix(&keys::collection(kind, None)));
    for entry in page.entries {
        match object::parse(&entry.value) {
            Ok(service) => addresses.adopt(&service),
            Err(status) => {
                let key = String::from_utf8_lossy(&entry.key);
                tracing::error!(%key, %status, "a stored service is not readable");
            }
        }
    }
}
