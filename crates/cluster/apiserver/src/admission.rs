//! What the cluster adds to or refuses of a new object, beyond the rules of its kind: the
//! built-in admission plugins. Webhooks and policies would be called from here too.

use api::status::{Cause, Status};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use store::Store;

use crate::{
    kinds::{Deletion, Kind},
    object,
    registry::keys,
};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// As much of a namespace as is needed to know whether it is going.
#[derive(Deserialize)]
struct Namespace {
    metadata: NamespaceMetadata,
}

#[derive(Deserialize)]
struct NamespaceMetadata {
    #[serde(rename = "deletionTimestamp")]
    deletion_timestamp: Option<IgnoredAny>,
}

/// Looks at a new object: may change it, or refuse it.
pub(crate) fn create(store: &Store, kind: &Kind, new: &mut Value) -> Result<(), Status> {
    if kind.namespaced {
        namespace_takes_objects(store, kind, new)?;
    }
    if (kind.group, kind.kind) == ("", "Pod") {
        service_account(new);
        default_tolerations(new);
        priority(new);
    }
    Ok(())
}

/// Looks at a deletion: may refuse it.
pub(crate) fn delete(kind: &Kind, name: &str) -> Result<(), Status> {
    if kind.deletion == Deletion::Finalized && IMMORTAL.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(kind.resource(), name, why));
    }
    Ok(())
}

/// NamespaceLifecycle: an object needs its namespace, and one that is not being deleted.
fn namespace_takes_objects(store: &Store, kind: &Kind, new: &Value) -> Result<(), Status> {
    let (namespace, name) = (object::meta(new, "namespace"), object::meta(new, "name"));
    let Some(entry) = keys::namespace(namespace).and_then(|key| store.get(&key)) else {
        let of = api::status::GroupResource { group: "", resource: "namespaces" };
        return Err(Status::not_found(of, namespace));
    };
    let found: Namespace = serde_json::from_slice(&entry.value)
        .map_err(|error| Status::internal(&format!("decode namespace `{namespace}`: {error}")))?;
    if found.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    Err(Status::forbidden(kind.resource(), name, &why).with_cause(Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    }))
}

/// ServiceAccount: a pod has one. Tokens are not mounted, as there are none yet.
fn service_account(pod: &mut Value) {
    let given = object::text(pod, &["spec", "serviceAccountName"]);
    let old_name = object::text(pod, &["spec", "serviceAccount"]);
    let name = [given, old_name, "default"].into_iter().find(|it| !it.is_empty());
    let name = json!(name.unwrap_or_default());
    object::set(pod, &["spec", "serviceAccountName"], name.clone());
    object::set(pod, &["spec", "serviceAccount"], name);
}

/// DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or reachable.
fn default_tolerations(pod: &mut Value) {
    const SECONDS: u32 = 300;
    let given = object::at(pod, &["spec", "tolerations"]).and_then(Value::as_array);
    let mut all = given.cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |it: &Value| {
            let (found, effect) = (object::text(it, &["key"]), object::text(it, &["effect"]));
            (found == key || found.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if !all.iter().any(tolerates) {
            all.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": SECONDS,
            }));
        }
    }
    object::set(pod, &["spec", "tolerations"], Value::Array(all));
}

/// Priority: there are no priority classes, so every pod has the default one.
fn priority(pod: &mut Value) {
    object::set(pod, &["spec", "priority"], json!(0));
    object::set(pod, &["spec", "preemptionPolicy"], json!("PreemptLowerPriority"));
}
