//! One nsqd, put together: the broker, and what serves it and tells of it. Decides nothing; every
//! part can do without this.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use runtime::{Clock, OnExit, Tasks};
use tokio::sync::watch;

use crate::{
    broker::{self, Broker},
    cli::{
        Level,
        nsqd::{Conflict, Options},
        words::hostname,
    },
    disk::Folders,
    http::{self, Api},
    listen::Listener,
    log::Retention,
    message::NodeId,
    peers,
    protocol::{self, Clients},
    stats::{self, Latencies, Push, Source},
};

/// How long clients may take to end, and then the topics.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// Why an nsqd cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Flags do not go together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// `-node-id` is out of range.
    #[error("-node-id must be from 0 to {max}", max = NodeId::END - 1)]
    Node,
    /// An address cannot be had.
    #[error("listen ({address}) failed")]
    Listen {
        /// Which.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The folder the process is in is gone.
    #[error("find the current folder, which messages are to be kept in")]
    Folder(#[source] io::Error),
    /// The data folder cannot be used.
    #[error("open the data folder")]
    Open(#[from] broker::OpenError),
    /// TLS cannot be had.
    #[error("build the TLS configuration")]
    Tls(#[from] protocol::TlsError),
    /// More nsqlookupds than can be.
    #[error(transparent)]
    Lookupds(#[from] peers::TooMany),
}

/// An nsqd whose folder and sockets are open. Nobody is served before [`Nsqd::run`].
#[derive(Debug)]
pub struct Nsqd {
    options: watch::Sender<Options>,
    core: Tasks,
    source: Source,
    protocol: protocol::Server,
    api: Api,
    http: Option<Listener>,
    https: Option<Listener>,
    peers: peers::Peers<Broker>,
}

/// An nsqd at work.
#[derive(Debug)]
#[must_use = "it must be ended, or what is only in memory is lost"]
pub struct Running {
    broker: Broker,
    core: Tasks,
    doors: Tasks,
}

/// Opens the data folder and the sockets.
///
/// # Errors
/// What is in the way.
pub async fn build(mut options: Options, clock: Clock) -> Result<Nsqd, BuildError> {
    let mut protocol_options = options.protocol()?;
    let started = clock.now();
    let core = Tasks::default();
    let broker = open(&options, &clock, &core).await?;
    let tcp = listen(&options.tcp_address).await?;
    let http = listen_unless_empty(&options.http_address).await?;
    let https = match protocol_options.tls {
        Some(_) => listen_unless_empty(&options.https_address).await?,
        None => None,
    };
    let port =
        |it: &Option<Listener>| it.as_ref().and_then(Listener::tcp_address).map(|it| it.port());
    let (tcp_port, http_port) = (tcp.tcp_address().map(|it| it.port()), port(&http));
    tell_ports(&mut options, tcp_port, http_port);

    let parts = options.e2e_processing_latency_percentile.0.clone();
    let latencies = Latencies::new(parts, options.e2e_processing_latency_window_time);
    protocol_options.latencies = latencies.clone();
    let source = Source { broker: broker.clone(), clients: Clients::default(), latencies };
    let (clients, bodies) = (source.clients.clone(), protocol_options.bodies.clone());
    let protocol = protocol::build(tcp, protocol_options, broker.clone(), clients, clock.clone())?;
    let peers = peers::build(peers_config(&options), Arc::new(broker))?;
    let options = watch::Sender::new(options);
    let api = Api::new(http::Config {
        source: source.clone(),
        options: options.clone(),
        clock,
        started,
        hostname: hostname(),
        tcp_port,
        http_port,
        https_port: port(&https),
        bodies,
    });
    Ok(Nsqd { options, core, source, protocol, api, http, https, peers })
}

async fn open(options: &Options, clock: &Clock, tasks: &Tasks) -> Result<Broker, BuildError> {
    let node = NodeId::new(options.node_id.get()).ok_or(BuildError::Node)?;
    let consumers = options.max_channel_consumers.get();
    let (age, bytes) = (options.retention_age, options.retention_size.0);
    let config = broker::Config {
        durability: options.durability.0,
        retention: Retention {
            age: (!age.is_zero()).then_some(age),
            bytes: (bytes > 0).then_some(bytes),
        },
        msg_timeout_max: options.max_msg_timeout,
        mem_queue_size: options.mem_queue_size.get(),
        consumers_max: (consumers > 0).then_some(consumers),
        hold_new_topics: !options.lookupd_tcp_address.is_empty(),
        ..broker::Config::new(node)
    };
    let folder = match options.data_path.as_str() {
        "" => std::env::current_dir().map_err(BuildError::Folder)?,
        path => PathBuf::from(path),
    };
    Ok(Broker::open(config, Arc::new(Folders), folder, clock.clone(), tasks.clone()).await?)
}

async fn listen(address: &str) -> Result<Listener, BuildError> {
    let listener = Listener::bind(address).await;
    listener.map_err(|source| BuildError::Listen { address: address.to_owned(), source })
}

async fn listen_unless_empty(address: &str) -> Result<Option<Listener>, BuildError> {
    if address.is_empty() { Ok(None) } else { listen(address).await.map(Some) }
}

/// What others are told of this nsqd depends on where it listens, if it was not said.
fn tell_ports(options: &mut Options, tcp: Option<u16>, http: Option<u16>) {
    if let (0, Some(port)) = (options.broadcast_tcp_port.0, tcp) {
        options.broadcast_tcp_port.0 = port.into();
    }
    if let (0, Some(port)) = (options.broadcast_http_port.0, http) {
        options.broadcast_http_port.0 = port.into();
    }
    let port = options.broadcast_http_port.get();
    options.statsd_prefix = Push::prefix(&options.statsd_prefix, &options.broadcast_address, port);
}

fn peers_config(options: &Options) -> peers::Config {
    peers::Config {
        lookupds: options.lookupd_tcp_address.clone(),
        connect_timeout: options.http_client_connect_timeout,
        request_timeout: options.http_client_request_timeout,
        identity: peers::Identity {
            broadcast_address: options.broadcast_address.clone(),
            hostname: hostname(),
            http_port: options.broadcast_http_port.get(),
            tcp_port: options.broadcast_tcp_port.get(),
            topology_region: options.topology_region.clone(),
            topology_zone: options.topology_zone.clone(),
        },
    }
}

impl Nsqd {
    /// Where HTTP is served, if it is at a TCP address.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(Listener::tcp_address)
    }

    /// Where the TCP protocol is.
    #[must_use]
    pub const fn tcp(&self) -> &Listener {
        self.protocol.listener()
    }

    /// Where HTTP is, if it is.
    #[must_use]
    pub const fn http(&self) -> Option<&Listener> {
        self.http.as_ref()
    }

    /// Serves until [`Running::end`]. A part that fails fails `tasks`. `log` is called when another
    /// level of the log is asked for.
    pub fn run(self, tasks: &Tasks, log: impl Fn(Level) + Send + Sync + 'static) -> Running {
        let doors = tasks.component();
        let failed = self.core.clone();
        tasks.spawn("nsqd-core", OnExit::StopProcess, move |stop| async move {
            tokio::select! {
                () = failed.failed() => anyhow::bail!("a topic failed"),
                () = stop.cancelled() => Ok(()),
            }
        });
        let tls = self.protocol.tls();
        self.protocol.run(&doors);
        if let Some(listener) = self.http {
            tracing::info!(address = listener.shown(), "serving HTTP");
            self.api.serve(listener, None, &doors);
        }
        if let Some(listener) = self.https {
            tracing::info!(address = listener.shown(), "serving HTTPS");
            self.api.serve(listener, tls, &doors);
        }
        follow_options(&self.options, self.peers.handle(), log, &doors);
        self.peers.run(&doors);
        forget_latencies(&self.source, &doors);
        if let Some(push) = push(&self.options.borrow()) {
            stats::push(push, self.source.clone(), &doors);
        }
        Running { broker: self.source.broker, core: self.core, doors }
    }
}

impl Running {
    /// Lets clients go, then ends the topics with everything written.
    ///
    /// # Errors
    /// What could not be written.
    pub async fn end(self) -> anyhow::Result<()> {
        end(&self.doors, "clients").await;
        end(&self.core, "topics").await;
        self.broker.close().await?;
        tracing::info!("ended; everything is written");
        Ok(())
    }
}

/// Stops some tasks, and waits for them.
async fn end(tasks: &Tasks, what: &'static str) {
    if !tasks.shutdown(END_TIME_MAX).await {
        tracing::warn!(what, "some did not end in time");
    }
}

/// `/config/…` can change which nsqlookupds there are and how much is logged.
fn follow_options(
    options: &watch::Sender<Options>,
    peers: peers::Handle,
    log: impl Fn(Level) + Send + Sync + 'static,
    tasks: &Tasks,
) {
    let mut changed = options.subscribe();
    tasks.spawn("nsqd-options", OnExit::Log, move |stop| async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                more = changed.changed() => more?,
            }
            let (level, lookupds) = {
                let options = changed.borrow_and_update();
                (options.log_level.0, options.lookupd_tcp_address.clone())
            };
            log(level);
            if let Err(error) = peers.set_lookupds(lookupds) {
                tracing::error!(%error, "the nsqlookupds stay as they were");
            }
        }
    });
}

/// Forgets the latencies of channels that are gone.
fn forget_latencies(source: &Source, tasks: &Tasks) {
    let source = source.clone();
    let mut changes = source.broker.changes();
    tasks.spawn("nsqd-latencies", OnExit::Log, move |stop| async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                more = changes.changed() => more?,
            }
            source.latencies.retain(|topic, channel| {
                let topic = source.broker.existing_topic(topic);
                topic.is_some_and(|it| it.existing_channel(channel).is_some())
            });
        }
    });
}

/// What to tell statsd, if it is to be told.
fn push(options: &Options) -> Option<Push> {
    let address = options.statsd_address.clone();
    (!address.is_empty()).then(|| Push {
        address,
        prefix: options.statsd_prefix.clone(),
        interval: options.statsd_interval,
        memory: options.statsd_mem_stats,
        packet_bytes: options.statsd_udp_packet_size.get(),
        exclude_ephemeral: options.statsd_exclude_ephemeral,
    })
}
