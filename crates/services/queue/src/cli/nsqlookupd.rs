//! The flags of `nsqlookupd`, with the original's names and defaults.

use std::time::Duration;

use super::{
    flags::{Flag, Program},
    value::{OneOf, Value},
    words::{Level, hostname},
};

/// Everything that can be set. A field has the name of its flag.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the help of the flag says it, in the table below")]
pub struct Options {
    pub log_level: OneOf<Level>,
    pub log_prefix: String,
    pub tcp_address: String,
    pub http_address: String,
    pub broadcast_address: String,
    pub inactive_producer_timeout: Duration,
    pub tombstone_lifetime: Duration,
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_level: OneOf(Level::Info),
            log_prefix: "[nsqlookupd] ".to_owned(),
            tcp_address: "0.0.0.0:4160".to_owned(),
            http_address: "0.0.0.0:4161".to_owned(),
            broadcast_address: hostname(),
            inactive_producer_timeout: Duration::from_secs(300),
            tombstone_lifetime: Duration::from_secs(45),
            verbose: false,
        }
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
pub(crate) const NSQLOOKUPD: Program<Options> = Program {
    name: "nsqlookupd",
    flags: &[
        flag("log-level", "set log verbosity: debug, info, warn, error, or fatal", |it| {
            &mut it.log_level
        }),
        flag("log-prefix", "what every line of the log begins with", |it| &mut it.log_prefix),
        Flag {
            idle: Some("use -log-level"),
            ..flag("verbose", "[deprecated] use -log-level", |it| &mut it.verbose)
        },
        flag("tcp-address", "<addr>:<port> to listen on for TCP clients", |it| &mut it.tcp_address),
        flag("http-address", "<addr>:<port> to listen on for HTTP clients", |it| {
            &mut it.http_address
        }),
        flag("broadcast-address", "address of this lookupd (default: the hostname)", |it| {
            &mut it.broadcast_address
        }),
        flag(
            "inactive-producer-timeout",
            "how long a producer that is silent is given to consumers",
            |it| &mut it.inactive_producer_timeout,
        ),
        flag("tombstone-lifetime", "how long a tombstone hides a producer", |it| {
            &mut it.tombstone_lifetime
        }),
    ],
    refused: &[],
    outside: &[],
};
