//! What can be set about the protocol, with the original's defaults, and the limits that are not
//! for anybody to set.

use std::{path::PathBuf, time::Duration};

use crate::{bodies::Budget, stats::Latencies};

/// The longest command line, with its end. The original reads commands through a buffer of this
/// size and hangs up on what does not fit.
pub const LINE_MAX: usize = 16 * 1024;

/// How long a client may take for the TLS handshake. The original's.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Descriptors that clients may not use: files of topics, HTTP, peers.
pub const DESCRIPTORS_RESERVED: u64 = 256;

/// The protocol's part of nsqd's options; names and defaults are the original's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Until a message that is not finished is delivered again (`-msg-timeout`).
    pub msg_timeout: Duration,
    /// The longest a client may ask for, and may reach with `TOUCH` (`-max-msg-timeout`).
    pub max_msg_timeout: Duration,
    /// The longest a message may be deferred or requeued (`-max-req-timeout`).
    pub max_req_timeout: Duration,
    /// The largest body of a message, in bytes (`-max-msg-size`).
    pub max_msg_size: u32,
    /// The largest body of a command, in bytes (`-max-body-size`).
    pub max_body_size: u32,
    /// A client that asks for nothing else hears from us twice in this time, and is gone when it
    /// is silent for all of it. The original has no flag for it.
    pub client_timeout: Duration,
    /// The longest interval a client may ask for (`-max-heartbeat-interval`).
    pub max_heartbeat_interval: Duration,
    /// The largest `RDY` (`-max-rdy-count`).
    pub max_rdy_count: u32,
    /// The largest output buffer a client may ask for, in bytes (`-max-output-buffer-size`).
    pub max_output_buffer_size: u32,
    /// The longest a client may ask to buffer (`-max-output-buffer-timeout`).
    pub max_output_buffer_timeout: Duration,
    /// The shortest a client may ask to buffer (`-min-output-buffer-timeout`).
    pub min_output_buffer_timeout: Duration,
    /// How long messages are buffered at most for a client that asks for nothing else
    /// (`-output-buffer-timeout`).
    pub output_buffer_timeout: Duration,
    /// Whether clients may ask for deflate (`-deflate`).
    pub deflate: bool,
    /// The highest level of deflate, 1 to 9 (`-max-deflate-level`).
    pub max_deflate_level: u8,
    /// Whether clients may ask for snappy (`-snappy`).
    pub snappy: bool,
    /// TLS, if there is a certificate (`-tls-…`).
    pub tls: Option<TlsOptions>,
    /// Who says what a client may do; nobody is asked if empty.
    pub auth: AuthOptions,
    /// Where this nsqd stands (`-topology-region`); told to clients.
    pub topology_region: String,
    /// Where in its region (`-topology-zone`); told to clients.
    pub topology_zone: String,
    /// How many clients may be connected; more are hung up on. `None`: as many as the process may
    /// open descriptors, less [`DESCRIPTORS_RESERVED`]. Not in the original.
    pub connections_max: Option<u32>,
    /// The version that clients are told in answer to `IDENTIFY`.
    pub version: String,
    /// Told how long each message took from publishing to finishing.
    pub latencies: Latencies,
    /// How much memory commands may take that have not arrived as a whole, of all clients.
    pub bodies: Budget,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            msg_timeout: Duration::from_secs(60),
            max_msg_timeout: Duration::from_secs(15 * 60),
            max_req_timeout: Duration::from_secs(60 * 60),
            max_msg_size: 1024 * 1024,
            max_body_size: 5 * 1024 * 1024,
            client_timeout: Duration::from_secs(60),
            max_heartbeat_interval: Duration::from_secs(60),
            max_rdy_count: 2500,
            max_output_buffer_size: 64 * 1024,
            max_output_buffer_timeout: Duration::from_secs(30),
            min_output_buffer_timeout: Duration::from_millis(25),
            output_buffer_timeout: Duration::from_millis(250),
            deflate: true,
            max_deflate_level: 6,
            snappy: true,
            tls: None,
            auth: AuthOptions::default(),
            topology_region: String::new(),
            topology_zone: String::new(),
            connections_max: None,
            version: "1.3.0".to_owned(),
            latencies: Latencies::new(Vec::new(), Duration::from_mins(10)),
            bodies: Budget::default(),
        }
    }
}

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate and what signed it, PEM (`-tls-cert`).
    pub cert: PathBuf,
    /// Its key, PEM (`-tls-key`).
    pub key: PathBuf,
    /// What is asked of clients (`-tls-client-auth-policy`).
    pub client_auth: ClientAuth,
    /// Who signs the certificates of clients and of auth servers, PEM; `None`: whom the machine
    /// trusts (`-tls-root-ca-file`).
    pub root_ca_file: Option<PathBuf>,
    /// Whether a client must use TLS (`-tls-required`; `tcp-https` means yes here too).
    pub required: bool,
    /// The oldest version that is spoken (`-tls-min-version`).
    pub min_version: TlsVersion,
}

/// Which certificate a client must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    None,
    /// Any, signed by whomever (`require`).
    Require,
    /// One that our root signed (`require-verify`).
    RequireVerify,
}

/// A version of TLS. 1.0 and 1.1, which the original can still speak, are broken and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    V12,
    /// 1.3
    V13,
}

/// The servers that say what a client may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOptions {
    /// `host:port` or a URL each; one that answers suffices (`-auth-http-address`).
    pub addresses: Vec<String>,
    /// How they are asked (`-auth-http-request-method`).
    pub method: AuthMethod,
    /// How long connecting to one may take (`-http-client-connect-timeout`).
    pub connect_timeout: Duration,
    /// How long its answer may take (`-http-client-request-timeout`).
    pub request_timeout: Duration,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            method: AuthMethod::Get,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// How auth servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Parameters in the URL.
    Get,
    /// Parameters in a body of JSON.
    Post,
}
