//! Objects between the request path and the store: the verbs, the same for every kind.
//!
//! A write goes: decoding and defaulting, admission, preparation, validation, store. What a verb
//! answers is rendered in [`render`]; HTTP itself is elsewhere.

mod change;
mod create;
mod delete;
mod delete_collection;
pub(crate) mod filter;
pub(crate) mod keys;
mod list;
mod measured;
mod options;
mod past;
mod pieces;
pub(crate) mod render;
mod token;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};

use api::status::{Reason, Status};
use http::HeaderMap;
use jiff::Timestamp;
use runtime::Clock;
use store::{Store, WriteError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    change::{generation, warnings_on_update},
    create::take_namespace,
    delete::Options as DeleteOptions,
};
use crate::{
    addresses::Addresses,
    connector::NodeConnector,
    http::{
        content::{self, Wanted},
        query::Query,
    },
    identity::Identity,
    kinds::{Kind, Subresource},
    limits::{SNAPSHOTS_MAX, WATCHES_MAX},
    metrics::Metrics,
    object::decode::{self, Decoded, FieldValidation},
    ownership::Writer,
};

/// Everything the verbs need. One per server.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) connector: Arc<dyn NodeConnector>,
    pub(crate) addresses: Addresses,
    /// Cancelled when the server stops: ends watches and followed logs.
    pub(crate) stop: CancellationToken,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) snapshots: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    random: Mutex<fastrand::Rng>,
}

/// A request for objects, after its path and query were understood.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) kind: &'static Kind,
    /// Namespace of the path; `None` means all of them, or a kind without namespaces.
    pub(crate) namespace: Option<&'a str>,
    /// Empty for a collection.
    pub(crate) name: &'a str,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) query: Query<'a>,
    /// The `User-Agent` of the client.
    pub(crate) agent: &'a str,
    pub(crate) wanted: Wanted,
    /// Who asks; `None` for what the server does by itself.
    pub(crate) user: Option<&'a Identity>,
}

impl Call<'_> {
    /// The key of the object the call names.
    pub(crate) fn key(&self) -> bytes::Bytes {
        keys::object(self.kind, self.namespace.unwrap_or_default(), self.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.kind.resource(), self.name)
    }

    /// Who owns what this call writes; `options` is the kind of its parameters.
    pub(crate) fn writer(&self, options: &str, now: Timestamp) -> Result<Writer<'_>, Status> {
        let name = (self.query.get("fieldManager"), self.agent, options);
        Writer::new(self.kind, self.subresource, name, now)
    }

    /// Reads the body as an object of this kind, as strictly as the parameters say.
    pub(crate) fn decode(&self, headers: &HeaderMap, body: &[u8]) -> Result<Decoded, Status> {
        let validation = FieldValidation::of(&self.query)?;
        decode::object(self.kind, body, content::body_format(headers)?, validation)
    }

    /// Whether nothing is to be kept (`dryRun=All`).
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Status::bad_request(format!(
                "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
            ))),
        }
    }
}

impl Registry {
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        connector: Arc<dyn NodeConnector>,
        addresses: Addresses,
        seed: u64,
    ) -> Self {
        Self {
            store,
            clock,
            connector,
            addresses,
            stop: CancellationToken::new(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            metrics: Arc::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// Whether the store still takes writes.
    pub(crate) fn store_works(&self) -> bool {
        futures_util::FutureExt::now_or_never(self.store.failed()).is_none()
    }

    /// Uses the one source of randomness.
    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A random (version 4) UUID.
    pub(crate) fn uid(&self) -> String {
        let bits = self.random(|it| it.u128(..));
        let bits = bits & !(0xf << 76) | (4 << 76);
        let bits = bits & !(0x3 << 62) | (2 << 62);
        let hex = format!("{bits:032x}");
        let (a, rest) = hex.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        [a, b, c, d, e].join("-")
    }
}

/// What the client hears when the store did not write. A conflict is the caller's to handle.
pub(crate) fn store_failure(error: &WriteError) -> Status {
    match error {
        WriteError::Conflict { .. } => {
            Status::new(Reason::Conflict, "the object has been modified")
        }
        WriteError::TooLarge { .. } => {
            Status::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
        }
        WriteError::Busy => {
            Status::new(Reason::TooManyRequests, error.to_string()).with_retry_after(1)
        }
        WriteError::NoSpace(source) => {
            Status::internal(&format!("the state folder's disk is full: {error}: {source}"))
        }
        WriteError::Failed(source) => Status::internal(&format!("{error}: {source}")),
    }
}
