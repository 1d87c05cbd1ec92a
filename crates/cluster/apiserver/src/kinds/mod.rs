//! The one table of kinds: routes, discovery, defaulting, validation, patching and printing all
//! derive from [`KINDS`]. A kind is one file here plus one line in the table.
//!
//! Nothing here reads or writes the store, and nothing here knows HTTP.

mod config_map;
mod deployment;
mod endpoint_slice;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod replica_set;
mod secret;
mod service;
mod service_account;

mod pod_spec;
mod pods_by_template;
mod rules;

mod causes;
mod path;
mod print;
mod value;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::Value;

pub use self::causes::{Cause, Causes, Reason};

/// Every built-in kind, in the order in which discovery lists them.
pub static KINDS: &[&Kind] = &[
    &config_map::CONFIG_MAP,
    &event::EVENT,
    &namespace::NAMESPACE,
    &node::NODE,
    &pod::POD,
    &secret::SECRET,
    &service::SERVICE,
    &service_account::SERVICE_ACCOUNT,
    &deployment::DEPLOYMENT,
    &replica_set::REPLICA_SET,
    &lease::LEASE,
    &endpoint_slice::ENDPOINT_SLICE,
];

/// Everything the generic request path must know about one kind of object.
///
/// The functions are pure; objects are JSON as on the wire. The order for a write is: `default`,
/// then `prepare_*`, then `validate` and, for a write over an existing object, `validate_update`.
#[derive(Debug)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version in that group, such as `v1`.
    pub version: &'static str,
    /// Kind, such as `Pod`.
    pub kind: &'static str,
    /// Resource name in paths, such as `pods`.
    pub plural: &'static str,
    /// Singular resource name, such as `pod`.
    pub singular: &'static str,
    /// Short names kubectl accepts, such as `po`.
    pub short_names: &'static [&'static str],
    /// Categories kubectl accepts, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs as discovery shows them; usually [`VERBS`]. A verb not listed is answered with 405.
    pub verbs: &'static [&'static str],
    /// Name of the type in the published schema, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Which subresources exist.
    pub subresources: &'static [Subresource],
    /// Whether `metadata.generation` counts changes outside `metadata` and `status`. The request
    /// path starts it at 1 and adds 1 for such an update; `prepare_update` may add 1 itself for
    /// more (a Deployment's annotations).
    pub generation: bool,
    /// What a delete does beyond finalizers.
    pub deletion: Deletion,
    /// Fills in defaults; must be idempotent.
    pub default: fn(&mut Value),
    /// Makes a new object ready: drops what a client may not set (`status`), sets initial values.
    pub prepare_create: fn(&mut Value),
    /// Makes the new version ready for a write to the main resource: usually keeps the old
    /// `status`. `metadata` that no client may change has been restored already.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// The same for a write to `/status`: usually keeps the old `spec` and labels.
    pub prepare_status: fn(new: &mut Value, old: &Value),
    /// Checks a whole object; `metadata` common to all kinds (name, labels, owner references…) is
    /// checked by the request path.
    pub validate: fn(&Value, &mut Causes),
    /// Checks what may change from `old` to `new`.
    pub validate_update: fn(new: &Value, old: &Value, &mut Causes),
    /// Whether this is a good `metadata.name`; pushes causes with field `metadata.name`.
    pub validate_name: fn(name: &str, &mut Causes),
    /// Columns of the Table form, as kubectl prints them.
    pub columns: &'static [Column],
    /// One cell a column. `now` is for ages.
    pub row: fn(&Value, now: Timestamp) -> Vec<Value>,
    /// Value of a selectable field (`status.phase`); `None` if `path` is not selectable for this
    /// kind. `metadata.name` and `metadata.namespace` are handled by the request path. Must not
    /// depend on the object whether it is `None`.
    pub fields: fn(&Value, path: &str) -> Option<String>,
}

/// The verbs of an ordinary resource, in discovery's order.
pub const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: get, update and patch of the object with only the status changing.
    Status,
    /// `/scale` as `autoscaling/v1` Scale.
    Scale,
    /// `/log` of a pod.
    Log,
    /// `/binding` of a pod: sets the node.
    Binding,
    /// `/finalize` of a namespace: changes `spec.finalizers`.
    Finalize,
}

/// What a delete request does when no finalizer holds the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Removes the object at once.
    Immediate,
    /// Pods: a pod on a node gets `deletionTimestamp` and is removed when the node deletes it with
    /// grace period 0.
    Graceful,
    /// Namespaces: gets `deletionTimestamp` and phase `Terminating`; removed when
    /// `spec.finalizers` is empty.
    Finalized,
}

/// One column of the Table form of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Title as kubectl prints it, before upper-casing.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`…
    pub kind: &'static str,
    /// OpenAPI format, `name` for the name column, else empty.
    pub format: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// 0 is always shown; greater only with `-o wide`.
    pub priority: i32,
}
