//! The one table of kinds: routes, discovery, defaulting, validation, patching and printing all
//! derive from [`KINDS`]. A kind is one file here plus one line in the table.
//!
//! Nothing here reads or writes the store, and nothing here knows HTTP.

mod admission;
mod binding;
mod certificate_signing_request;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod daemon_set;
mod deployment;
mod devices;
mod endpoint_slice;
mod endpoints;
mod event;
mod fault;
mod flow_schema;
mod gateway;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod metrics;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod reviews;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
pub(crate) mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod volume_attachment;
mod volume_attributes_class;

mod pod_spec;
mod pods_by_template;
mod rules;
mod structural;

mod causes;
mod path;
mod print;
mod subresource;
mod value;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::Value;

pub use self::causes::{Cause, Causes, Reason};
pub(crate) use self::metrics::{cpu as cpu_quantity, memory as memory_quantity};
pub(crate) use self::priority_class::SYSTEM as SYSTEM_PRIORITIES;
pub use self::subresource::Subresource;
pub use crate::object::parts::Parts;

/// Every built-in kind, in the order in which discovery lists them.
pub static KINDS: &[&Kind] = &[
    &binding::BINDING,
    &component_status::COMPONENT_STATUS,
    &config_map::CONFIG_MAP,
    &endpoints::ENDPOINTS,
    &event::EVENT,
    &limit_range::LIMIT_RANGE,
    &namespace::NAMESPACE,
    &node::NODE,
    &persistent_volume_claim::PERSISTENT_VOLUME_CLAIM,
    &persistent_volume::PERSISTENT_VOLUME,
    &pod::POD,
    &pod_template::POD_TEMPLATE,
    &replication_controller::REPLICATION_CONTROLLER,
    &resource_quota::RESOURCE_QUOTA,
    &secret::SECRET,
    &service::SERVICE,
    &service_account::SERVICE_ACCOUNT,
    &controller_revision::CONTROLLER_REVISION,
    &daemon_set::DAEMON_SET,
    &deployment::DEPLOYMENT,
    &replica_set::REPLICA_SET,
    &stateful_set::STATEFUL_SET,
    &event::EVENT_OF_EVENTS,
    &reviews::SELF_SUBJECT_REVIEW,
    &reviews::TOKEN_REVIEW,
    &reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_RULES_REVIEW,
    &reviews::SUBJECT_ACCESS_REVIEW,
    &horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER,
    &horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER_V1,
    &cron_job::CRON_JOB,
    &job::JOB,
    &certificate_signing_request::CERTIFICATE_SIGNING_REQUEST,
    &ingress_class::INGRESS_CLASS,
    &ingress::INGRESS,
    &ip_address::IP_ADDRESS,
    &network_policy::NETWORK_POLICY,
    &service_cidr::SERVICE_CIDR,
    &pod_disruption_budget::POD_DISRUPTION_BUDGET,
    &role_binding::CLUSTER_ROLE_BINDING,
    &role::CLUSTER_ROLE,
    &role_binding::ROLE_BINDING,
    &role::ROLE,
    &csi_driver::CSI_DRIVER,
    &csi_node::CSI_NODE,
    &csi_storage_capacity::CSI_STORAGE_CAPACITY,
    &storage_class::STORAGE_CLASS,
    &volume_attachment::VOLUME_ATTACHMENT,
    &volume_attributes_class::VOLUME_ATTRIBUTES_CLASS,
    &admission::MUTATING_ADMISSION_POLICY,
    &admission::MUTATING_ADMISSION_POLICY_BINDING,
    &admission::MUTATING_WEBHOOK_CONFIGURATION,
    &admission::VALIDATING_ADMISSION_POLICY,
    &admission::VALIDATING_ADMISSION_POLICY_BINDING,
    &admission::VALIDATING_WEBHOOK_CONFIGURATION,
    &priority_class::PRIORITY_CLASS,
    &lease::LEASE,
    &runtime_class::RUNTIME_CLASS,
    &endpoint_slice::ENDPOINT_SLICE,
    &devices::DEVICE_CLASS,
    &devices::RESOURCE_CLAIM,
    &devices::RESOURCE_CLAIM_TEMPLATE,
    &devices::RESOURCE_SLICE,
    &flow_schema::FLOW_SCHEMA,
    &priority_level_configuration::PRIORITY_LEVEL_CONFIGURATION,
    &fault::FAULT,
    &gateway::GATEWAY_CLASS,
    &gateway::GATEWAY,
    &gateway::HTTP_ROUTE,
    &gateway::REFERENCE_GRANT,
    &gateway::GATEWAY_CLASS_V1BETA1,
    &gateway::GATEWAY_V1BETA1,
    &gateway::HTTP_ROUTE_V1BETA1,
    &gateway::REFERENCE_GRANT_V1BETA1,
    &metrics::NODE_METRICS,
    &metrics::POD_METRICS,
];

/// Everything the generic request path must know about one kind of object.
///
/// The functions are pure; objects are JSON as on the wire. The order for a write is: `default`,
/// then `prepare_*`, then `validate` and, for a write over an existing object, `validate_update`.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a table, not states of a thing")]
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
    /// Where objects come from.
    pub source: Source,
    /// Which subresources exist.
    pub subresources: &'static [Subresource],
    /// Whether `metadata.generation` counts changes outside `metadata` and `status`. The request
    /// path starts it at 1 and adds 1 for such an update; `prepare_update` may add 1 itself for
    /// more (a Deployment's annotations).
    pub generation: bool,
    /// What becomes of an object that a client creates.
    pub creation: Creation,
    /// What a delete does beyond finalizers.
    pub deletion: Deletion,
    /// Whether a delete answers with the object that is gone; with a `Status` if not.
    pub shows_deleted: bool,
    /// Set if what an object owns is left alone when it is deleted and the request does not say so;
    /// then the client hears these warnings.
    pub orphans: Option<&'static [&'static str]>,
    /// Fills in defaults; must be idempotent.
    pub default: fn(&mut Value),
    /// Makes a new object ready: drops what a client may not set (`status`), sets initial values.
    /// Name and uid are there; runs again when a generated name was taken.
    pub prepare_create: fn(&mut Value),
    /// Makes the new version ready for a write to the main resource: usually keeps the old
    /// `status`. `metadata` that no client may change has been restored already.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// The same for a write to `/status`: usually keeps the old `spec` and labels.
    pub prepare_status: fn(new: &mut Value, old: &Value),
    /// The same for a write to another subresource that is a part of the object (`/approval`…).
    pub prepare_part: fn(Subresource, new: &mut Value, old: &Value),
    /// Checks a whole object; `metadata` common to all kinds (name, labels, owner references…) is
    /// checked by the request path.
    pub validate: fn(&Value, &mut Causes),
    /// Checks what only a new object must be, beyond `validate`.
    pub validate_create: fn(&Value, &mut Causes),
    /// Checks what may change from `old` to `new`.
    pub validate_update: fn(new: &Value, old: &Value, &mut Causes),
    /// The same through a subresource of `prepare_part`, in the place of `validate_update`.
    pub validate_part: fn(Subresource, new: &Value, old: &Value, &mut Causes),
    /// Whether this is a good `metadata.name`; pushes causes with field `metadata.name`.
    pub validate_name: fn(name: &str, &mut Causes),
    /// Columns of the Table form, as kubectl prints them.
    pub columns: &'static [Column],
    /// Which parts of an object `row` looks at; it gets no others.
    pub row_reads: Parts,
    /// One cell a column. `now` is for ages.
    pub row: fn(&Value, now: Timestamp) -> Vec<Value>,
    /// Value of a selectable field (`status.phase`); `None` if `path` is not selectable for this
    /// kind. `metadata.name` and `metadata.namespace` are handled by the request path. Must not
    /// depend on the object whether it is `None`.
    pub fields: fn(&Value, path: &str) -> Option<String>,
    /// What a client should hear of an object that it writes, for `Warning` headers; as it sent it.
    pub warnings: fn(&Value) -> Vec<String>,
    /// The same of an object that it changes: as it is stored, if the kind counts no generations or the
    /// change counts as one.
    pub warnings_on_update: Option<fn(&Value) -> Vec<String>>,
    /// Said with every answer about a kind that Kubernetes wants to be rid of; empty for others.
    pub deprecation: &'static str,
    /// Whether objects are only kept: nothing acts on them yet. Who makes one hears of it.
    pub unattended: bool,
    /// For a version whose objects are stored in another one.
    pub conversion: Option<&'static Conversion>,
}

/// How objects of one version of a kind are made of those of the version that is stored.
///
/// A client sees objects of its version only, and `schema` and `default` are about these. All other
/// functions of a kind, the columns' too, get objects of the stored version; so a version usually
/// takes them over from it.
#[derive(Debug)]
pub struct Conversion {
    /// The version that is stored. It has no conversion itself.
    pub stored: &'static Kind,
    /// Makes an object of the stored version.
    pub to_stored: fn(&mut Value),
    /// Makes an object of this version.
    pub from_stored: fn(&mut Value),
}

impl Kind {
    /// A kind that has nothing special: stored as it comes, in namespaces, printed by name. Kinds
    /// say what they have beyond that.
    const PLAIN: Self = Self {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: VERBS,
        schema: "",
        source: Source::Store,
        subresources: &[],
        generation: false,
        creation: Creation::Kept,
        deletion: Deletion::Immediate,
        shows_deleted: false,
        orphans: None,
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        prepare_status: |_, _| {},
        prepare_part: |_, _, _| {},
        validate: |_, _| {},
        validate_create: |_, _| {},
        validate_update: |_, _, _| {},
        validate_part: |_, _, _, _| {},
        validate_name: rules::subdomain_name,
        columns: print::NAME_AND_CREATION,
        row_reads: Parts::All,
        row: print::name_and_creation,
        fields: |_, _| None,
        warnings: |_| Vec::new(),
        warnings_on_update: None,
        deprecation: "",
        unattended: false,
        conversion: None,
    };

    /// A plain kind whose status is written through `/status` and nowhere else.
    const WITH_STATUS: Self = Self {
        subresources: &[Subresource::Status],
        prepare_create: |new| value::set(new, "status", Value::Object(serde_json::Map::new())),
        prepare_update: |new, old| value::keep(new, "status", old),
        prepare_status: keep_all_but_status,
        ..Self::PLAIN
    };

    /// Whether there are objects of this kind in the store, under no other version's name.
    pub(crate) fn is_stored(&self) -> bool {
        self.conversion.is_none()
            && self.creation == Creation::Kept
            && self.verbs.contains(&"create")
    }

    /// The version of this kind that is stored; itself where there is no other.
    #[must_use]
    pub fn stored(&self) -> &Self {
        self.conversion.map_or(self, |it| it.stored)
    }

    /// Makes an object of this version one of the stored version.
    pub(crate) fn convert_to_stored(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion {
            (conversion.to_stored)(object);
            value::set(object, "apiVersion", conversion.stored.api_version());
        }
    }

    /// Makes an object of the stored version one of this version.
    pub(crate) fn convert_from_stored(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion {
            (conversion.from_stored)(object);
            value::set(object, "apiVersion", self.api_version());
        }
    }

    /// What the client hears that makes this object.
    pub(crate) fn warnings_on_create(&self, object: &Value) -> Vec<String> {
        let mut warnings = (self.warnings)(object);
        if self.unattended {
            warnings.push(format!("{} is stored, but nothing acts on it yet", self.kind));
        }
        warnings
    }
}

/// A write to `/status` changes nothing else but what every write may change of `metadata`.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut whole = old.clone();
    value::keep(&mut whole, "status", new);
    value::keep(&mut whole, "metadata", new);
    *new = whole;
}

/// The verbs of an ordinary resource, in discovery's order.
pub const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Where objects of a kind come from when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are stored.
    Store,
    /// Nodes measure them.
    Measured(Measured),
}

/// What nodes measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Themselves.
    Nodes,
    /// Their pods.
    Pods,
}

impl Measured {
    /// The kind of what is measured.
    pub(crate) fn kind(self) -> &'static Kind {
        match self {
            Self::Nodes => &node::NODE,
            Self::Pods => &pod::POD,
        }
    }
}

/// What a create request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Stores the object.
    Kept,
    /// Bindings: changes a pod, and stores nothing else.
    Bound,
    /// Reviews: answers with the object and its status, and stores nothing.
    Answered(Question),
}

/// What a review asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who asks.
    WhoAmI,
    /// Whose a bearer token is.
    WhoseToken,
    /// Whether who asks may do something.
    MayI,
    /// Whether somebody may do something.
    MayThey,
    /// Everything that who asks may do.
    WhatMayI,
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
