//! The rules of `metadata`, which are the same for every kind
//! (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use api::names;
use serde_json::{Value, json};

use super::{at, copy, finalizers, is_terminating, meta};
use crate::kinds::{Causes, Kind, Reason};

/// Fields that the server alone sets; a client's value is silently replaced by what is stored.
const SERVER_OWNED: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "selfLink",
    "uid",
];

/// Takes over what the server alone sets.
pub(crate) fn keep_server_owned(new: &mut Value, old: &Value) {
    for key in SERVER_OWNED {
        copy(new, old, &["metadata", key]);
    }
}

/// Drops what the server alone sets from a new object.
pub(crate) fn drop_server_owned(new: &mut Value) {
    for key in SERVER_OWNED.iter().chain(&["resourceVersion"]) {
        drop(super::remove(new, &["metadata", key]));
    }
}

/// Checks the metadata of a whole object.
pub(crate) fn validate(kind: &Kind, object: &Value, causes: &mut Causes) {
    let (name, generate) = (meta(object, "name"), meta(object, "generateName"));
    if !generate.is_empty() {
        let mut found = Causes::default();
        (kind.validate_name)(&names::without_trailing_dash(generate), &mut found);
        for it in found.as_slice() {
            causes.push(it.reason, "metadata.generateName", it.message.clone());
        }
    }
    if name.is_empty() {
        causes.required("metadata.name", "name or generateName is required");
    } else {
        (kind.validate_name)(name, causes);
    }
    if kind.namespaced {
        for it in names::dns1123_label(meta(object, "namespace")) {
            causes.invalid("metadata.namespace", &json!(meta(object, "namespace")), &it);
        }
    }
    validate_labels(object, causes);
    validate_annotations(object, causes);
    for (index, it) in finalizers(object).into_iter().enumerate() {
        for found in names::qualified_name(it) {
            causes.invalid(format!("metadata.finalizers[{index}]"), &json!(it), &found);
        }
    }
    validate_owners(object, causes);
}

fn validate_labels(object: &Value, causes: &mut Causes) {
    let labels = at(object, &["metadata", "labels"]).and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        for it in names::qualified_name(key) {
            causes.invalid("metadata.labels", &json!(key), &it);
        }
        for it in names::label_value(value.as_str().unwrap_or_default()) {
            causes.invalid("metadata.labels", value, &it);
        }
    }
}

fn validate_annotations(object: &Value, causes: &mut Causes) {
    let annotations = at(object, &["metadata", "annotations"]).and_then(Value::as_object);
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        for it in names::qualified_name(&key.to_lowercase()) {
            causes.invalid("metadata.annotations", &json!(key), &it);
        }
    }
    let bytes_max = names::ANNOTATIONS_BYTES_MAX;
    if bytes > bytes_max {
        let message = format!("Too long: may not be more than {bytes_max} bytes");
        causes.push(Reason::TooLong, "metadata.annotations", message);
    }
}

fn validate_owners(object: &Value, causes: &mut Causes) {
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    let mut controllers = Vec::new();
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        let path = format!("metadata.ownerReferences[{index}]");
        for key in ["apiVersion", "kind", "name", "uid"] {
            if super::text(owner, &[key]).is_empty() {
                let detail = if key == "apiVersion" { "version" } else { key };
                causes.invalid(
                    format!("{path}.{key}"),
                    &json!(""),
                    &format!("{detail} must not be empty"),
                );
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            controllers.push(super::text(owner, &["kind"]));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references \
             for {first} and {second}"
        );
        causes.invalid("metadata.ownerReferences", &json!(owners), &detail);
    }
}

/// Checks what may change.
pub(crate) fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    for key in ["name", "namespace"] {
        if meta(new, key) != meta(old, key) {
            let path = format!("metadata.{key}");
            causes.invalid(path, &json!(meta(new, key)), "field is immutable");
        }
    }
    if is_terminating(old) {
        let before = finalizers(old);
        let added: Vec<_> = finalizers(new).into_iter().filter(|it| !before.contains(it)).collect();
        if !added.is_empty() {
            let list: Vec<_> = added.iter().map(|it| format!("\"{it}\"")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                list.join(", ")
            );
            causes.forbidden("metadata.finalizers", &detail);
        }
    }
}
