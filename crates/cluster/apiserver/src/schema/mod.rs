//! The published types as a table: field names, types, merge keys, and what follows from them:
//! strict field checks and OpenAPI documents.
//!
//! Facts only; which kinds are served is the table of kinds' business.

use serde_json::Value;

/// How strategic merge patch treats one field (`x-kubernetes-patch-strategy` and
/// `x-kubernetes-patch-merge-key`), and which type is below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patching {
    /// Lists: merged (by `merge_key`, or as a set where there is none), not replaced.
    pub merge: bool,
    /// Strategy `retainKeys`.
    pub retain_keys: bool,
    /// Key by which items of a merged list are the same.
    pub merge_key: Option<&'static str>,
    /// Definition of the field's object, of its list's items or of its map's values.
    pub definition: Option<&'static str>,
    /// Whether `definition` is of a map's values: any key below the field has that definition.
    pub map: bool,
}

/// How to patch `field` of `definition`; `None` if there is no such field.
#[must_use]
pub fn patching(_definition: &str, _field: &str) -> Option<Patching> {
    None
}

/// What a body says that its type does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Wording of Kubernetes' strict decoder, such as `unknown field "spec.foo"`, in path order.
    pub unknown: Vec<String>,
    /// First value of a wrong JSON type, worded as Go's decoder does:
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type
    /// int32`.
    pub mistyped: Option<String>,
}

/// Compares `object` with `definition`.
#[must_use]
pub fn check(_definition: &str, _object: &Value) -> Problems {
    Problems::default()
}

/// Keys that occur twice in one object of a JSON text: `duplicate field "spec.replicas"`.
/// Empty if `body` is not JSON.
#[must_use]
pub fn duplicates(_body: &[u8]) -> Vec<String> {
    Vec::new()
}

/// Removes fields unknown to `definition`, as a typed decoder does.
pub fn prune(_definition: &str, _object: &mut Value) {}

/// OpenAPI v3 document of one group and version (`group` empty for core) as JSON text: paths and
/// schemas of the served kinds. `None` if nothing is served there. Not cached here.
#[must_use]
pub fn openapi_v3(_group: &str, _version: &str) -> Option<Value> {
    None
}
