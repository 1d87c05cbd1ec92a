//! `nsqadmin`: shows the topics, channels and nodes of a cluster to a person, who may create, pause,
//! empty and delete them. It keeps nothing: everything is asked from nsqlookupd and nsqd over HTTP.
//!
//! The API is the original's. The pages are made here and not in the browser, work without a script,
//! and with one renew themselves.

mod actions;
mod api;
mod cluster;
mod data;
mod events;
mod guard;
mod notify;
mod pages;
mod route;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use runtime::{Clock, OnExit, Tasks};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use self::{
    actions::Target,
    cluster::Cluster,
    guard::{Admins, Range},
    notify::{Asker, Endpoint, Notice, Notices, Told},
};
use crate::{
    cli::Level,
    tls::{ClientOptions, TlsError},
    web::{self, Client, Serve},
};

/// HTTP clients at once; further ones wait. Pages that renew themselves keep one each.
const CLIENTS_MAX: usize = 256;

/// nsqlookupds or nsqds that can be named. Each is asked for every page.
pub const ADDRESSES_MAX: usize = 1_000;

/// What an nsqadmin is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served, `host:port` (`-http-address`).
    pub http_address: String,
    /// What every path begins with, for a proxy in front (`-base-path`).
    pub base_path: String,
    /// HTTP addresses of nsqlookupds (`-lookupd-http-address`). These, or nsqds, must be given.
    pub lookupd_http_addresses: Vec<String>,
    /// HTTP addresses of nsqds (`-nsqd-http-address`).
    pub nsqd_http_addresses: Vec<String>,
    /// How long connecting to one of them may take (`-http-client-connect-timeout`).
    pub http_client_connect_timeout: Duration,
    /// How long its answer may take (`-http-client-request-timeout`).
    pub http_client_request_timeout: Duration,
    /// How nsqds that want it are asked over TLS (`-http-client-tls-…`).
    pub http_client_tls: ClientOptions,
    /// From where `/config` may be asked, as `127.0.0.1/8`; from anywhere if it is empty
    /// (`-allow-config-from-cidr`).
    pub allow_config_from_cidr: String,
    /// URL that is told of what was done, if it is not empty (`-notification-http-endpoint`).
    pub notification_http_endpoint: String,
    /// The header in which a proxy in front says who asks (`-acl-http-header`).
    pub acl_http_header: String,
    /// Who may change things; everybody if nobody is named (`-admin-user`).
    pub admin_users: Vec<String>,
    /// The name of this machine, for notices.
    pub hostname: String,
    /// How much is logged at first (`-log-level`).
    pub log_level: Level,
}

impl Config {
    /// The original's defaults, on a machine called `hostname`.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        Self {
            http_address: "0.0.0.0:4171".to_owned(),
            base_path: "/".to_owned(),
            lookupd_http_addresses: Vec::new(),
            nsqd_http_addresses: Vec::new(),
            http_client_connect_timeout: Duration::from_secs(2),
            http_client_request_timeout: Duration::from_secs(5),
            http_client_tls: ClientOptions::default(),
            allow_config_from_cidr: "127.0.0.1/8".to_owned(),
            notification_http_endpoint: String::new(),
            acl_http_header: "X-Forwarded-User".to_owned(),
            admin_users: Vec::new(),
            hostname: hostname.to_owned(),
            log_level: Level::default(),
        }
    }
}

/// Why there is no nsqadmin.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nobody to ask.
    #[error("-nsqd-http-address or -lookupd-http-address is needed")]
    Nobody,
    /// Two answers to one question.
    #[error("use -nsqd-http-address or -lookupd-http-address, not both")]
    Both,
    /// More than [`ADDRESSES_MAX`].
    #[error("{0} addresses, at most {ADDRESSES_MAX}")]
    TooMany(usize),
    /// The range cannot be read.
    #[error("-allow-config-from-cidr `{0}` is not a range of addresses")]
    Range(String),
    /// The endpoint cannot be told.
    #[error("-notification-http-endpoint `{0}` is not of the form http://host:port/path")]
    Endpoint(String),
    /// The header cannot be one.
    #[error("-acl-http-header `{0}` is not the name of a header")]
    Header(String),
    /// Nobody can be asked over TLS as asked for.
    #[error("prepare TLS for what nsqadmin asks (-http-client-tls-…)")]
    Tls(#[source] TlsError),
    /// It cannot listen.
    #[error("listen on {address}")]
    Listen {
        /// Where it should have.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// An nsqadmin whose socket is open. Nobody is served before [`Admin::run`].
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    notices: Option<(Told, Endpoint)>,
    handle: Handle,
}

/// Where an nsqadmin is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    http: SocketAddr,
    shared: Arc<Shared>,
}

/// What every request uses.
#[derive(Debug)]
struct Shared {
    /// Without a `/` at its end; empty if there is none.
    base: String,
    client: Client,
    lookupds: RwLock<Vec<String>>,
    nsqds: Vec<String>,
    config_from: Option<Range>,
    admins: Admins,
    notices: Option<Notices>,
    notification_http_endpoint: String,
    http_address: String,
    hostname: String,
    log_level: watch::Sender<Level>,
    clock: Clock,
    /// Places for pages that renew themselves.
    watchers: Arc<Semaphore>,
    /// The process ends: pages no longer renew themselves.
    ending: CancellationToken,
}

impl Shared {
    fn lookupds(&self) -> Vec<String> {
        self.lookupds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_lookupds(&self, addresses: Vec<String>) {
        *self.lookupds.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Whom to ask.
    fn cluster(&self) -> Cluster {
        Cluster {
            client: self.client.clone(),
            lookupds: self.lookupds(),
            nsqds: self.nsqds.clone(),
            now: self.clock.now().as_second(),
        }
    }

    /// Has something told that was done.
    fn notify(&self, action: &str, target: Target<'_>, node: &str, asker: &Asker) {
        tracing::info!(
            action,
            topic = target.topic,
            channel = target.channel,
            node,
            user = asker.user,
            from = asker.remote_ip,
            "done"
        );
        let Some(notices) = &self.notices else { return };
        let asker = asker.clone();
        notices.add(Notice {
            action: action.to_owned(),
            topic: target.topic.to_owned(),
            channel: target.channel.unwrap_or_default().to_owned(),
            node: node.to_owned(),
            timestamp: self.clock.now().as_second(),
            user: asker.user,
            remote_ip: asker.remote_ip,
            user_agent: asker.user_agent,
            url: asker.url,
            via: self.hostname.clone(),
        });
    }
}

/// Opens the socket.
///
/// # Errors
/// If the address cannot be had, or something of the configuration is not possible.
pub async fn build(config: Config, clock: Clock) -> Result<Admin, BuildError> {
    let (lookupds, nsqds) = (config.lookupd_http_addresses, config.nsqd_http_addresses);
    match (lookupds.len(), nsqds.len()) {
        (0, 0) => return Err(BuildError::Nobody),
        (1.., 1..) => return Err(BuildError::Both),
        (many, 0) | (0, many) if ADDRESSES_MAX < many => return Err(BuildError::TooMany(many)),
        _ => {}
    }
    let range = config.allow_config_from_cidr;
    let config_from = match range.as_str() {
        "" => None,
        text => Some(Range::parse(text).ok_or_else(|| BuildError::Range(range.clone()))?),
    };
    let header = config.acl_http_header;
    if header.parse::<http::HeaderName>().is_err() {
        return Err(BuildError::Header(header));
    }
    let url = config.notification_http_endpoint;
    let (notices, told) = match url.as_str() {
        "" => (None, None),
        text => {
            let endpoint =
                Endpoint::parse(text).ok_or_else(|| BuildError::Endpoint(url.clone()))?;
            let (notices, told) = Notices::new();
            (Some(notices), Some((told, endpoint)))
        }
    };
    let listener = crate::listen::tcp(&config.http_address).await;
    let listener = listener.and_then(|it| it.local_addr().map(|at| (it, at)));
    let (listener, http) = listener
        .map_err(|source| BuildError::Listen { address: config.http_address.clone(), source })?;
    let shared = Shared {
        base: normal(&config.base_path),
        client: Client {
            connect: config.http_client_connect_timeout,
            request: config.http_client_request_timeout,
            tls: Some(config.http_client_tls.connector().map_err(BuildError::Tls)?),
        },
        lookupds: RwLock::new(lookupds),
        nsqds,
        config_from,
        admins: Admins { header, users: config.admin_users },
        notices,
        notification_http_endpoint: url,
        http_address: config.http_address,
        hostname: config.hostname,
        log_level: watch::Sender::new(config.log_level),
        clock,
        watchers: Arc::new(Semaphore::new(events::WATCHERS_MAX)),
        ending: CancellationToken::new(),
    };
    let handle = Handle { http, shared: Arc::new(shared) };
    Ok(Admin { listener, notices: told, handle })
}

/// A base path with a `/` before it and none after it; nothing for the root.
fn normal(base: &str) -> String {
    let pieces: Vec<&str> = base.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    pieces.iter().map(|it| format!("/{it}")).collect()
}

impl Handle {
    /// Where HTTP is served.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// How much is to be logged, as somebody may have said since (`PUT /config/log_level`).
    #[must_use]
    pub fn log_level(&self) -> watch::Receiver<Level> {
        self.shared.log_level.subscribe()
    }
}

impl Admin {
    /// Tells where it is.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves in `tasks`, which also stop it.
    pub fn run(self, tasks: &Tasks) {
        let Self { listener, notices, handle } = self;
        tracing::info!(http = %handle.http, "nsqadmin listens");
        let shared = handle.shared;
        let ending = shared.ending.clone();
        tasks.spawn("nsqadmin-end", OnExit::StopProcess, move |stop| async move {
            stop.cancelled().await;
            ending.cancel();
            Ok(())
        });
        if let Some((told, endpoint)) = notices {
            let client = shared.client.clone();
            tasks.spawn("nsqadmin-notices", OnExit::StopProcess, move |stop| async move {
                stop.run_until_cancelled(notify::tell(told, endpoint, client)).await;
                Ok(())
            });
        }
        let how =
            Serve { name: "nsqadmin-http", clients_max: CLIENTS_MAX, answers_half_closed: false };
        web::serve(listener, how, tasks, move |request, peer| {
            let shared = Arc::clone(&shared);
            async move { route::answer(&shared, request, peer).await }
        });
    }
}

#[cfg(test)]
mod tests;
