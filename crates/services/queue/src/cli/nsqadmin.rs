//! The flags of `nsqadmin`, with the original's names and defaults.

use std::{path::PathBuf, time::Duration};

use super::{
    flags::{Flag, Program},
    value::{OneOf, Value},
    words::Level,
};
use crate::tls::ClientOptions;

/// Everything that can be set. A field has the name of its flag.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the help of the flag says it, in the table below")]
pub struct Options {
    pub log_level: OneOf<Level>,
    pub log_prefix: String,
    pub http_address: String,
    pub base_path: String,
    pub lookupd_http_address: Vec<String>,
    pub nsqd_http_address: Vec<String>,
    pub http_client_connect_timeout: Duration,
    pub http_client_request_timeout: Duration,
    pub http_client_tls_insecure_skip_verify: bool,
    pub http_client_tls_root_ca_file: String,
    pub http_client_tls_cert: String,
    pub http_client_tls_key: String,
    pub allow_config_from_cidr: String,
    pub acl_http_header: String,
    pub admin_user: Vec<String>,
    pub notification_http_endpoint: String,
    pub graphite_url: String,
    pub proxy_graphite: bool,
    pub statsd_counter_format: String,
    pub statsd_gauge_format: String,
    pub statsd_prefix: String,
    pub statsd_interval: Duration,
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_level: OneOf(Level::Info),
            log_prefix: "[nsqadmin] ".to_owned(),
            http_address: "0.0.0.0:4171".to_owned(),
            base_path: "/".to_owned(),
            lookupd_http_address: Vec::new(),
            nsqd_http_address: Vec::new(),
            http_client_connect_timeout: Duration::from_secs(2),
            http_client_request_timeout: Duration::from_secs(5),
            http_client_tls_insecure_skip_verify: false,
            http_client_tls_root_ca_file: String::new(),
            http_client_tls_cert: String::new(),
            http_client_tls_key: String::new(),
            allow_config_from_cidr: "127.0.0.1/8".to_owned(),
            acl_http_header: "X-Forwarded-User".to_owned(),
            admin_user: Vec::new(),
            notification_http_endpoint: String::new(),
            graphite_url: String::new(),
            proxy_graphite: false,
            statsd_counter_format: "stats.counters.%s.count".to_owned(),
            statsd_gauge_format: "stats.gauges.%s".to_owned(),
            statsd_prefix: "nsq.%s".to_owned(),
            statsd_interval: Duration::from_secs(60),
            verbose: false,
        }
    }
}

/// A certificate without its key, or the other way round.
#[derive(Debug, thiserror::Error)]
#[error("-http-client-tls-{missing} must be given with -http-client-tls-{given}")]
pub struct HalfIdentity {
    missing: &'static str,
    given: &'static str,
}

impl Options {
    /// How servers that want it are asked over TLS.
    ///
    /// # Errors
    /// If a certificate or a key stands alone.
    pub fn tls(&self) -> Result<ClientOptions, HalfIdentity> {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let identity = match (path(&self.http_client_tls_cert), path(&self.http_client_tls_key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(HalfIdentity { missing: "key", given: "cert" }),
            (None, Some(_)) => return Err(HalfIdentity { missing: "cert", given: "key" }),
        };
        Ok(ClientOptions {
            insecure_skip_verify: self.http_client_tls_insecure_skip_verify,
            root_ca_file: path(&self.http_client_tls_root_ca_file),
            identity,
        })
    }
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
pub(crate) const NSQADMIN: Program<Options> = Program {
    name: "nsqadmin",
    flags: &[
        flag("log-level", "set log verbosity: debug, info, warn, error, or fatal", |it| {
            &mut it.log_level
        }),
        flag("log-prefix", "what every line of the log begins with", |it| &mut it.log_prefix),
        Flag {
            idle: Some("use -log-level"),
            ..flag("verbose", "[deprecated] use -log-level", |it| &mut it.verbose)
        },
        flag("http-address", "<addr>:<port> to listen on for HTTP clients", |it| {
            &mut it.http_address
        }),
        flag("base-path", "path of the page, if not /", |it| &mut it.base_path),
        Flag {
            key: Some("nsqlookupd_http_addresses"),
            ..flag("lookupd-http-address", "HTTP address of a lookupd (may be repeated)", |it| {
                &mut it.lookupd_http_address
            })
        },
        Flag {
            key: Some("nsqd_http_addresses"),
            ..flag("nsqd-http-address", "HTTP address of an nsqd (may be repeated)", |it| {
                &mut it.nsqd_http_address
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
        flag(
            "http-client-tls-insecure-skip-verify",
            "believe whoever answers over TLS, whatever its certificate",
            |it| &mut it.http_client_tls_insecure_skip_verify,
        ),
        flag(
            "http-client-tls-root-ca-file",
            "path of the certificates of those who sign the servers' certificates",
            |it| &mut it.http_client_tls_root_ca_file,
        ),
        flag("http-client-tls-cert", "path of the certificate to show to servers", |it| {
            &mut it.http_client_tls_cert
        }),
        flag("http-client-tls-key", "path of that certificate's key", |it| {
            &mut it.http_client_tls_key
        }),
        flag("allow-config-from-cidr", "from where /config may be asked", |it| {
            &mut it.allow_config_from_cidr
        }),
        flag("acl-http-header", "HTTP header that names who is asking", |it| {
            &mut it.acl_http_header
        }),
        Flag {
            key: Some("admin_users"),
            ..flag(
                "admin-user",
                "who may change things; all, if none is named (may be repeated)",
                |it| &mut it.admin_user,
            )
        },
        flag("notification-http-endpoint", "URL that is told of what was changed", |it| {
            &mut it.notification_http_endpoint
        }),
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("graphite-url", "URL of graphite", |it| &mut it.graphite_url)
        },
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("proxy-graphite", "ask graphite for clients", |it| &mut it.proxy_graphite)
        },
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("statsd-counter-format", "how statsd names counters", |it| {
                &mut it.statsd_counter_format
            })
        },
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("statsd-gauge-format", "how statsd names gauges", |it| {
                &mut it.statsd_gauge_format
            })
        },
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("statsd-prefix", "what every key in statsd begins with", |it| {
                &mut it.statsd_prefix
            })
        },
        Flag {
            idle: Some("the page draws no graphs; see docs/queue-metrics.md"),
            ..flag("statsd-interval", "time between pushes to statsd", |it| &mut it.statsd_interval)
        },
    ],
    refused: &[("dev-static-dir", "the page has no files of its own")],
    outside: &[],
};
