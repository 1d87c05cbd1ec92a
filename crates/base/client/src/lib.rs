//! How every part of the cluster talks to the API: a client over any transport, a cache of each
//! kind, the reconcile loop, a recorder of events.
//!
//! It does not know which server answers: the apiserver of the same process (its router is a
//! `tower::Service`) and a cluster behind HTTPS are used alike. It decides nothing about objects.

mod transport;

mod key;
mod metadata;

mod cache;
mod caches;
mod reflector;
mod selector;
mod singles;
mod wire;

mod queue;
mod reconcile;

mod events;

#[cfg(test)]
mod fake;

pub use cache::{Behind, Cache, Change, Object, Subscription};
pub use caches::Caches;
pub use events::{EventType, Events};
pub use key::Key;
pub use kube::{
    Api, Client, Error, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, Status},
};
pub use metadata::Metadata;
pub use reconcile::{Loop, Next, Trigger};
pub use singles::{Single, Singles};
pub use transport::{
    ConnectError, SERVICE_ACCOUNT_TOKEN, connect, connect_as_pod, in_process, in_process_as,
};

/// The HTTP status code of an answer that was an error; `None` if no answer came.
#[must_use]
pub fn status_code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether the object (or its namespace, or its kind) was not there.
#[must_use]
pub fn is_not_found(error: &Error) -> bool {
    status_code(error) == Some(404)
}

/// Whether the write lost against another one: what was observed is no longer so.
#[must_use]
pub fn is_conflict(error: &Error) -> bool {
    status_code(error) == Some(409)
}

/// Whether a create found an object of the same name.
#[must_use]
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_already_exists())
}

/// Whether a create was refused because the namespace is on its way out.
#[must_use]
pub fn is_namespace_terminating(error: &Error) -> bool {
    /// The cause that the API names for it (`NamespaceTerminatingCause` in core/v1).
    const CAUSE: &str = "NamespaceTerminating";
    match error {
        Error::Api(status) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes.into_iter().any(|cause| cause.reason == CAUSE)
        }
        _ => false,
    }
}
