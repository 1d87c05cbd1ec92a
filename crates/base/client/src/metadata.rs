//! Any object, of which only the metadata is read.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{Deserialize, Deserializer};

/// An object of some kind that is known only at run time, without its spec and status. For work
/// that is the same for all kinds: owners, finalizers, emptying a namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    /// The object's metadata: its names, revision, owners, finalizers and times. All else is empty,
    /// labels and annotations too: there is one of these for every object in the cluster.
    #[serde(default, deserialize_with = "needed")]
    pub metadata: ObjectMeta,
}

fn needed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Needed {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let it = Needed::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: it.name,
        namespace: it.namespace,
        uid: it.uid,
        resource_version: it.resource_version,
        creation_timestamp: it.creation_timestamp,
        deletion_timestamp: it.deletion_timestamp,
        deletion_grace_period_seconds: it.deletion_grace_period_seconds,
        finalizers: it.finalizers,
        owner_references: it.owner_references,
        ..ObjectMeta::default()
    })
}

impl Resource for Metadata {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
