//! The flags of `nsqd`: the original's, with its names and defaults, and a few of ours.

use std::time::Duration;

use super::{
    flags::{Flag, Program},
    value::{Number, OneOf, Parts, Size, Value},
    words::{Level, MinVersion, TlsRequired, hostname},
};
use crate::{
    Durability,
    message::NodeId,
    protocol::{self, AuthMethod, AuthOptions, ClientAuth, TlsOptions, TlsVersion},
};

/// The longest message or body that can be allowed: their lengths have 32 bits on the wire.
const BYTES_MAX: u64 = 0x7fff_ffff;

/// Everything that can be set of `nsqd`. A field has the name of its flag.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the help of the flag says it, in the table below")]
#[expect(clippy::struct_excessive_bools, reason = "the original's flags")]
pub struct Options {
    pub log_level: OneOf<Level>,
    pub log_prefix: String,
    pub node_id: Number<0, 1023>,
    pub https_address: String,
    pub http_address: String,
    pub tcp_address: String,
    pub auth_http_address: Vec<String>,
    pub auth_http_request_method: OneOf<AuthMethod>,
    pub broadcast_address: String,
    pub broadcast_tcp_port: Number<0, 65_535>,
    pub broadcast_http_port: Number<0, 65_535>,
    pub lookupd_tcp_address: Vec<String>,
    pub http_client_connect_timeout: Duration,
    pub http_client_request_timeout: Duration,
    pub topology_region: String,
    pub topology_zone: String,
    pub data_path: String,
    pub mem_queue_size: Number<0, { u64::MAX }>,
    pub max_bytes_per_file: Number<1, { u64::MAX }>,
    pub sync_every: Number<1, { u64::MAX }>,
    pub sync_timeout: Duration,
    pub queue_scan_worker_pool_max: Number<1, { u64::MAX }>,
    pub queue_scan_selection_count: Number<1, { u64::MAX }>,
    pub msg_timeout: Duration,
    pub max_msg_timeout: Duration,
    pub max_msg_size: Number<1, BYTES_MAX>,
    pub max_req_timeout: Duration,
    pub max_body_size: Number<1, BYTES_MAX>,
    pub max_heartbeat_interval: Duration,
    pub max_rdy_count: Number<1, { u32::MAX as u64 }>,
    pub max_output_buffer_size: Number<64, BYTES_MAX>,
    pub max_output_buffer_timeout: Duration,
    pub min_output_buffer_timeout: Duration,
    pub output_buffer_timeout: Duration,
    pub max_channel_consumers: Number<0, { u32::MAX as u64 }>,
    pub statsd_address: String,
    pub statsd_interval: Duration,
    pub statsd_mem_stats: bool,
    pub statsd_prefix: String,
    pub statsd_udp_packet_size: Number<64, 65_507>,
    pub statsd_exclude_ephemeral: bool,
    pub e2e_processing_latency_percentile: Parts,
    pub e2e_processing_latency_window_time: Duration,
    pub tls_cert: String,
    pub tls_key: String,
    pub tls_client_auth_policy: OneOf<ClientAuth>,
    pub tls_root_ca_file: String,
    pub tls_required: TlsRequired,
    pub tls_min_version: OneOf<MinVersion>,
    pub deflate: bool,
    pub max_deflate_level: Number<1, 9>,
    pub snappy: bool,
    pub durability: OneOf<Durability>,
    pub retention_age: Duration,
    pub retention_size: Size,
    pub verbose: bool,
    pub worker_id: bool,
}

impl Default for Options {
    fn default() -> Self {
        let protocol = protocol::Options::default();
        let host = hostname();
        Self {
            log_level: OneOf(Level::Info),
            log_prefix: "[nsqd] ".to_owned(),
            node_id: Number(node_id(&host)),
            https_address: "0.0.0.0:4152".to_owned(),
            http_address: "0.0.0.0:4151".to_owned(),
            tcp_address: "0.0.0.0:4150".to_owned(),
            auth_http_address: Vec::new(),
            auth_http_request_method: OneOf(AuthMethod::Get),
            broadcast_address: host,
            broadcast_tcp_port: Number(0),
            broadcast_http_port: Number(0),
            lookupd_tcp_address: Vec::new(),
            http_client_connect_timeout: Duration::from_secs(2),
            http_client_request_timeout: Duration::from_secs(5),
            topology_region: String::new(),
            topology_zone: String::new(),
            data_path: String::new(),
            mem_queue_size: Number(10_000),
            max_bytes_per_file: Number(100 << 20),
            sync_every: Number(2500),
            sync_timeout: Duration::from_secs(2),
            queue_scan_worker_pool_max: Number(4),
            queue_scan_selection_count: Number(20),
            msg_timeout: protocol.msg_timeout,
            max_msg_timeout: protocol.max_msg_timeout,
            max_msg_size: Number(protocol.max_msg_size.into()),
            max_req_timeout: protocol.max_req_timeout,
            max_body_size: Number(protocol.max_body_size.into()),
            max_heartbeat_interval: protocol.max_heartbeat_interval,
            max_rdy_count: Number(protocol.max_rdy_count.into()),
            max_output_buffer_size: Number(protocol.max_output_buffer_size.into()),
            max_output_buffer_timeout: protocol.max_output_buffer_timeout,
            min_output_buffer_timeout: protocol.min_output_buffer_timeout,
            output_buffer_timeout: protocol.output_buffer_timeout,
            max_channel_consumers: Number(0),
            statsd_address: String::new(),
            statsd_interval: Duration::from_secs(60),
            statsd_mem_stats: true,
            statsd_prefix: "nsq.%s".to_owned(),
            statsd_udp_packet_size: Number(508),
            statsd_exclude_ephemeral: false,
            e2e_processing_latency_percentile: Parts::default(),
            e2e_processing_latency_window_time: Duration::from_secs(600),
            tls_cert: String::new(),
            tls_key: String::new(),
            tls_client_auth_policy: OneOf(ClientAuth::None),
            tls_root_ca_file: String::new(),
            tls_required: TlsRequired::No,
            tls_min_version: OneOf(MinVersion::V10),
            deflate: protocol.deflate,
            max_deflate_level: Number(protocol.max_deflate_level.into()),
            snappy: protocol.snappy,
            durability: OneOf(Durability::default()),
            retention_age: Duration::from_secs(24 * 3600),
            retention_size: Size(1 << 30),
            verbose: false,
            worker_id: false,
        }
    }
}

/// The default `-node-id`: any part of the name of the machine that others do not share.
fn node_id(host: &str) -> u64 {
    u64::from(crc32fast::hash(host.as_bytes()) % u32::from(NodeId::END))
}

/// One flag; `at` finds its value.
const fn flag(
    name: &'static str,
    help: &'static str,
    at: fn(&mut Options) -> &mut dyn Value,
) -> Flag<Options> {
    Flag { name, key: None, help, at, idle: None }
}

/// The program.
pub(crate) const NSQD: Program<Options> = Program {
    name: "nsqd",
    flags: &[
        flag("log-level", "set log verbosity: debug, info, warn, error, or fatal", |it| {
            &mut it.log_level
        }),
        flag("log-prefix", "what every line of the log begins with", |it| &mut it.log_prefix),
        Flag {
            idle: Some("use -log-level"),
            ..flag("verbose", "[deprecated] use -log-level", |it| &mut it.verbose)
        },
        Flag {
            key: Some("id"),
            ..flag(
                "node-id",
                "unique part of message ids, from 0 to 1023 (default: from the hostname)",
                |it| &mut it.node_id,
            )
        },
        Flag {
            idle: Some("use -node-id"),
            ..flag("worker-id", "[deprecated] use -node-id", |it| &mut it.worker_id)
        },
        flag("https-address", "<addr>:<port> to listen on for HTTPS clients", |it| {
            &mut it.https_address
        }),
        flag(
            "http-address",
            "<addr>:<port>, or path of a Unix socket, to listen on for HTTP clients",
            |it| &mut it.http_address,
        ),
        flag(
            "tcp-address",
            "<addr>:<port>, or path of a Unix socket, to listen on for TCP clients",
            |it| &mut it.tcp_address,
        ),
        Flag {
            key: Some("auth_http_addresses"),
            ..flag(
                "auth-http-address",
                "<addr>:<port> or URL of an auth server (may be repeated)",
                |it| &mut it.auth_http_address,
            )
        },
        flag("auth-http-request-method", "HTTP method for auth servers: get or post", |it| {
            &mut it.auth_http_request_method
        }),
        flag(
            "broadcast-address",
            "address that lookupd gives to consumers (default: the hostname)",
            |it| &mut it.broadcast_address,
        ),
        flag(
            "broadcast-tcp-port",
            "TCP port that lookupd gives to consumers (default: the one listened on)",
            |it| &mut it.broadcast_tcp_port,
        ),
        flag(
            "broadcast-http-port",
            "HTTP port that lookupd gives to consumers (default: the one listened on)",
            |it| &mut it.broadcast_http_port,
        ),
        Flag {
            key: Some("nsqlookupd_tcp_addresses"),
            ..flag("lookupd-tcp-address", "TCP address of a lookupd (may be repeated)", |it| {
                &mut it.lookupd_tcp_address
            })
        },
        flag(
            "http-client-connect-timeout",
            "how long connecting to an HTTP server may take",
            |it| &mut it.http_client_connect_timeout,
        ),
        flag(
            "http-client-request-timeout",
            "how long the answer of an HTTP server may take",
            |it| &mut it.http_client_request_timeout,
        ),
        flag("topology-region", "region of this nsqd, told to clients", |it| {
            &mut it.topology_region
        }),
        flag("topology-zone", "zone of this nsqd in its region, told to clients", |it| {
            &mut it.topology_zone
        }),
        flag("data-path", "folder of messages and state (default: the current one)", |it| {
            &mut it.data_path
        }),
        flag("mem-queue-size", "how many messages an ephemeral topic or channel keeps", |it| {
            &mut it.mem_queue_size
        }),
        Flag {
            idle: Some("the log chooses the size of its files"),
            ..flag("max-bytes-per-file", "bytes of a file of messages", |it| {
                &mut it.max_bytes_per_file
            })
        },
        Flag {
            idle: Some("see -durability"),
            ..flag("sync-every", "messages between flushes", |it| &mut it.sync_every)
        },
        Flag {
            idle: Some("see -durability"),
            ..flag("sync-timeout", "time between flushes", |it| &mut it.sync_timeout)
        },
        Flag {
            idle: Some("timeouts are not scanned for"),
            ..flag("queue-scan-worker-pool-max", "workers that look for timeouts", |it| {
                &mut it.queue_scan_worker_pool_max
            })
        },
        Flag {
            idle: Some("timeouts are not scanned for"),
            ..flag("queue-scan-selection-count", "channels looked at for timeouts at once", |it| {
                &mut it.queue_scan_selection_count
            })
        },
        flag("msg-timeout", "how long a message may be in flight before it is requeued", |it| {
            &mut it.msg_timeout
        }),
        flag(
            "max-msg-timeout",
            "the longest a message may be in flight, whatever a client asks",
            |it| &mut it.max_msg_timeout,
        ),
        flag("max-msg-size", "the largest message, in bytes", |it| &mut it.max_msg_size),
        flag("max-req-timeout", "the longest a message may be deferred", |it| {
            &mut it.max_req_timeout
        }),
        flag("max-body-size", "the largest body of a command, in bytes", |it| {
            &mut it.max_body_size
        }),
        flag(
            "max-heartbeat-interval",
            "the longest interval between heartbeats a client may ask for",
            |it| &mut it.max_heartbeat_interval,
        ),
        flag("max-rdy-count", "the largest RDY of a client", |it| &mut it.max_rdy_count),
        flag(
            "max-output-buffer-size",
            "the largest output buffer a client may ask for, in bytes",
            |it| &mut it.max_output_buffer_size,
        ),
        flag(
            "max-output-buffer-timeout",
            "the longest time between flushes a client may ask for",
            |it| &mut it.max_output_buffer_timeout,
        ),
        flag(
            "min-output-buffer-timeout",
            "the shortest time between flushes a client may ask for",
            |it| &mut it.min_output_buffer_timeout,
        ),
        flag(
            "output-buffer-timeout",
            "time between flushes to a client that asks for none",
            |it| &mut it.output_buffer_timeout,
        ),
        flag(
            "max-channel-consumers",
            "consumers a channel may have at this nsqd (0: any number)",
            |it| &mut it.max_channel_consumers,
        ),
        flag("statsd-address", "UDP <addr>:<port> of a statsd server", |it| &mut it.statsd_address),
        flag("statsd-interval", "time between pushes to statsd", |it| &mut it.statsd_interval),
        flag("statsd-mem-stats", "whether to push figures of memory to statsd", |it| {
            &mut it.statsd_mem_stats
        }),
        flag("statsd-prefix", "what every key for statsd begins with (%s: the host)", |it| {
            &mut it.statsd_prefix
        }),
        flag("statsd-udp-packet-size", "bytes of a packet to statsd", |it| {
            &mut it.statsd_udp_packet_size
        }),
        flag(
            "statsd-exclude-ephemeral",
            "leave ephemeral topics and channels out of statsd",
            |it| &mut it.statsd_exclude_ephemeral,
        ),
        Flag {
            key: Some("e2e_processing_latency_percentiles"),
            ..flag(
                "e2e-processing-latency-percentile",
                "parts of messages, above 0 and up to 1, whose time from publishing to finishing is told (may be repeated, or given as 1.0,0.99)",
                |it| &mut it.e2e_processing_latency_percentile,
            )
        },
        flag("e2e-processing-latency-window-time", "over how long that time is told", |it| {
            &mut it.e2e_processing_latency_window_time
        }),
        flag("tls-cert", "path of the certificate", |it| &mut it.tls_cert),
        flag("tls-key", "path of its key", |it| &mut it.tls_key),
        flag(
            "tls-client-auth-policy",
            "certificates of clients: require or require-verify",
            |it| &mut it.tls_client_auth_policy,
        ),
        flag("tls-root-ca-file", "path of the certificate authority", |it| {
            &mut it.tls_root_ca_file
        }),
        flag("tls-required", "require TLS of clients: true, false, tcp-https", |it| {
            &mut it.tls_required
        }),
        flag("tls-min-version", "the oldest TLS that is spoken; below tls1.2 means tls1.2", |it| {
            &mut it.tls_min_version
        }),
        flag("deflate", "whether clients may ask for deflate", |it| &mut it.deflate),
        flag("max-deflate-level", "the highest level of deflate a client may ask for", |it| {
            &mut it.max_deflate_level
        }),
        flag("snappy", "whether clients may ask for snappy", |it| &mut it.snappy),
        flag(
            "durability",
            "what a message has survived when it is acknowledged: memory, process (its crash), disk (a power cut)",
            |it| &mut it.durability,
        ),
        flag(
            "retention-age",
            "how long a message that all have finished can be replayed (0: no limit)",
            |it| &mut it.retention_age,
        ),
        flag(
            "retention-size",
            "how large a topic may grow with messages that all have finished, such as 10GiB (0: no limit)",
            |it| &mut it.retention_size,
        ),
    ],
    refused: &[(
        "enable-experiment",
        "topology-aware-consumption, the original's only one, is not built",
    )],
    outside: &[],
};

/// Why options do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Conflict {
    /// Half of what TLS needs.
    #[error("cannot use TLS with only one of -tls-cert and -tls-key")]
    HalfTls,
    /// TLS is required, and cannot be had.
    #[error("cannot require TLS client connections without TLS key and cert")]
    NoTls,
}

impl Options {
    /// The protocol's part.
    ///
    /// # Errors
    /// If what is said of TLS does not go together.
    pub fn protocol(&self) -> Result<protocol::Options, Conflict> {
        Ok(protocol::Options {
            msg_timeout: self.msg_timeout,
            max_msg_timeout: self.max_msg_timeout,
            max_req_timeout: self.max_req_timeout,
            max_msg_size: self.max_msg_size.get(),
            max_body_size: self.max_body_size.get(),
            max_heartbeat_interval: self.max_heartbeat_interval,
            max_rdy_count: self.max_rdy_count.get(),
            max_output_buffer_size: self.max_output_buffer_size.get(),
            max_output_buffer_timeout: self.max_output_buffer_timeout,
            min_output_buffer_timeout: self.min_output_buffer_timeout,
            output_buffer_timeout: self.output_buffer_timeout,
            deflate: self.deflate,
            max_deflate_level: self.max_deflate_level.get(),
            snappy: self.snappy,
            tls: self.tls()?,
            auth: AuthOptions {
                addresses: self.auth_http_address.clone(),
                method: self.auth_http_request_method.0,
                connect_timeout: self.http_client_connect_timeout,
                request_timeout: self.http_client_request_timeout,
            },
            topology_region: self.topology_region.clone(),
            topology_zone: self.topology_zone.clone(),
            ..protocol::Options::default()
        })
    }

    /// Whether clients must use TLS. As in the original, asking for their certificates implies it.
    #[must_use]
    pub fn requires_tls(&self) -> TlsRequired {
        match self.tls_required {
            TlsRequired::No if self.tls_client_auth_policy.0 != ClientAuth::None => {
                TlsRequired::Yes
            }
            said => said,
        }
    }

    fn tls(&self) -> Result<Option<TlsOptions>, Conflict> {
        let required = self.requires_tls() != TlsRequired::No;
        match (self.tls_cert.as_str(), self.tls_key.as_str()) {
            ("", "") if required => return Err(Conflict::NoTls),
            ("", "") => return Ok(None),
            ("", _) | (_, "") => return Err(Conflict::HalfTls),
            _ => {}
        }
        let root = &self.tls_root_ca_file;
        Ok(Some(TlsOptions {
            cert: self.tls_cert.clone().into(),
            key: self.tls_key.clone().into(),
            client_auth: self.tls_client_auth_policy.0,
            root_ca_file: (!root.is_empty()).then(|| root.into()),
            required,
            min_version: match self.tls_min_version.0 {
                MinVersion::V10 | MinVersion::V11 | MinVersion::V12 => TlsVersion::V12,
                MinVersion::V13 => TlsVersion::V13,
            },
        }))
    }

    /// An option by its key in a configuration file, as `/config/…` shows it.
    #[must_use]
    pub fn json(&self, key: &str) -> Option<serde_json::Value> {
        NSQD.json(&mut self.clone(), key)
    }
}
