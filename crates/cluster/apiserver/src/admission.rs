//! What the cluster adds to or refuses of a new object, beyond the rules of its kind: the
//! built-in admission plugins. Webhooks and policies would be called from here too.

use api::status::{Cause, Status};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use store::Store;

use crate::{
    identity::Identity,
    kinds::{Deletion, KINDS, Kind},
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
pub(crate) fn create(
    store: &Store,
    kind: &Kind,
    user: Option<&Identity>,
    new: &mut Value,
) -> Result<(), Status> {
    if kind.namespaced {
        namespace_takes_objects(store, kind, new)?;
    }
    if (kind.group, kind.kind) == ("", "Pod") {
        service_account(store, new)?;
        default_tolerations(new);
        priority(store, new)?;
    }
    if (kind.group, kind.kind) == ("certificates.k8s.io", "CertificateSigningRequest") {
        requestor(user, new);
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

/// As much of an account as a pod takes over.
#[derive(Deserialize)]
struct Account {
    #[serde(rename = "imagePullSecrets", default)]
    image_pull_secrets: Vec<Value>,
}

/// ServiceAccount: a pod has one, and its pull secrets unless it has some of its own. Tokens are not
/// mounted, as there are none yet.
fn service_account(store: &Store, pod: &mut Value) -> Result<(), Status> {
    let given = object::text(pod, &["spec", "serviceAccountName"]);
    let old_name = object::text(pod, &["spec", "serviceAccount"]);
    let name = [given, old_name, "default"].into_iter().find(|it| !it.is_empty());
    let name = name.unwrap_or_default().to_owned();
    object::set(pod, &["spec", "serviceAccountName"], json!(name));
    object::set(pod, &["spec", "serviceAccount"], json!(name));
    let own = object::at(pod, &["spec", "imagePullSecrets"]).and_then(Value::as_array);
    if own.is_some_and(|it| !it.is_empty()) {
        return Ok(());
    }
    let Some(kind) = KINDS.iter().find(|it| it.kind == "ServiceAccount") else { return Ok(()) };
    let key = keys::object(kind, object::meta(pod, "namespace"), &name);
    // In a new namespace the account may come after the first pods.
    let Some(entry) = store.get(&key) else { return Ok(()) };
    let account: Account = serde_json::from_slice(&entry.value)
        .map_err(|error| Status::internal(&format!("decode service account `{name}`: {error}")))?;
    if !account.image_pull_secrets.is_empty() {
        object::set(pod, &["spec", "imagePullSecrets"], Value::Array(account.image_pull_secrets));
    }
    Ok(())
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

/// As much of a priority class as a pod takes over.
#[derive(Clone, Deserialize)]
struct Class {
    #[serde(default)]
    value: i64,
    #[serde(rename = "preemptionPolicy")]
    preemption_policy: Option<String>,
    #[serde(rename = "globalDefault", default)]
    is_default: bool,
    metadata: ClassMetadata,
}

#[derive(Clone, Deserialize)]
struct ClassMetadata {
    name: String,
}

/// What a pod has whose class says nothing of it, or that has none.
const PREEMPTION: &str = "PreemptLowerPriority";

/// Priority: a pod has that of its class, or of the least class that is the default.
fn priority(store: &Store, pod: &mut Value) -> Result<(), Status> {
    let name = object::text(pod, &["spec", "priorityClassName"]).to_owned();
    let Some(kind) = KINDS.iter().find(|it| it.kind == "PriorityClass") else { return Ok(()) };
    let read = |entry: &store::Entry| -> Result<Class, Status> {
        serde_json::from_slice(&entry.value)
            .map_err(|error| Status::internal(&format!("decode a priority class: {error}")))
    };
    let class = if name.is_empty() {
        let prefix = keys::collection(kind, None);
        let entries = store.range(store::Range::prefix(&prefix)).entries;
        let classes: Vec<Class> = entries.iter().map(read).collect::<Result<_, _>>()?;
        classes.into_iter().filter(|it| it.is_default).min_by_key(|it| it.value)
    } else {
        let Some(entry) = store.get(&keys::object(kind, "", &name)) else {
            let pods = api::status::GroupResource { group: "", resource: "pods" };
            let why = format!("no PriorityClass with name {name} was found");
            return Err(Status::forbidden(pods, object::meta(pod, "name"), &why));
        };
        Some(read(&entry)?)
    };
    if let Some(class) = &class {
        object::set(pod, &["spec", "priorityClassName"], json!(class.metadata.name));
    }
    let value = class.as_ref().map_or(0, |it| it.value);
    let policy = class.and_then(|it| it.preemption_policy);
    object::set(pod, &["spec", "priority"], json!(value));
    let policy = policy.unwrap_or_else(|| PREEMPTION.to_owned());
    object::set(pod, &["spec", "preemptionPolicy"], json!(policy));
    Ok(())
}

/// Who asks for a certificate is not for them to say.
fn requestor(user: Option<&Identity>, request: &mut Value) {
    for key in ["username", "uid", "groups", "extra"] {
        drop(object::remove(request, &["spec", key]));
    }
    let Some(Identity { name, uid, groups, extra }) = user else { return };
    object::set(request, &["spec", "username"], json!(name));
    object::set(request, &["spec", "groups"], json!(groups));
    if !uid.is_empty() {
        object::set(request, &["spec", "uid"], json!(uid));
    }
    if !extra.is_empty() {
        object::set(request, &["spec", "extra"], json!(extra));
    }
}
