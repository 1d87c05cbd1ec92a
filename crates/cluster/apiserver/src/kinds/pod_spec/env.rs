//! Rules for a container's environment.

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

/// Fields of a pod that a variable can have as its value.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Resources of a container that a variable can have as its value.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Where a variable's value can come from.
const SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// Checks `env` and `envFrom` of the container at `path`.
pub(super) fn validate(container: &Value, path: Path<'_>, causes: &mut Causes) {
    let env = path.child("env");
    for (index, variable) in container.items("env").iter().enumerate() {
        let path = env.index(index);
        match variable.text("name") {
            "" => causes.required(path.child("name"), ""),
            name => rules::all(names::env_var_name(name), path.child("name"), name, causes),
        }
        if variable.has("valueFrom") {
            value_from(variable, path.child("valueFrom"), causes);
        }
    }
    let env_from = path.child("envFrom");
    for (index, source) in container.items("envFrom").iter().enumerate() {
        from(source, env_from.index(index), causes);
    }
}

fn value_from(variable: &Value, path: Path<'_>, causes: &mut Causes) {
    let source = variable.field("valueFrom");
    match SOURCES.iter().filter(|it| source.has(it)).count() {
        0 => causes.invalid(
            path,
            &Value::from(""),
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
             `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !variable.text("value").is_empty() => {
            causes.invalid(
                path,
                &Value::from(""),
                "may not be specified when `value` is not empty",
            );
        }
        1 => {}
        _ => causes.invalid(
            path,
            &Value::from(""),
            "may not have more than one field specified at a time",
        ),
    }
    if source.has("fieldRef") {
        field_ref(source.field("fieldRef"), path.child("fieldRef"), causes);
    }
    if source.has("resourceFieldRef") {
        resource_ref(source.field("resourceFieldRef"), path.child("resourceFieldRef"), causes);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if source.has(name) {
            key_ref(source.field(name), path.child(name), causes);
        }
    }
}

fn field_ref(field: &Value, path: Path<'_>, causes: &mut Causes) {
    if field.text("apiVersion").is_empty() {
        causes.required(path.child("apiVersion"), "");
        return;
    }
    let field_path = field.text("fieldPath");
    if field_path.is_empty() {
        causes.required(path.child("fieldPath"), "");
    } else if let Some((map, key)) = subscript(field_path) {
        let problems = match map {
            "metadata.annotations" => names::qualified_name(&key.to_ascii_lowercase()),
            "metadata.labels" => names::qualified_name(key),
            _ => vec!["does not support subscript".to_owned()],
        };
        rules::all(problems, path.child("fieldPath"), field_path, causes);
    } else if !FIELDS.contains(&field_path) {
        causes.not_supported(path.child("fieldPath"), field.field("fieldPath"), FIELDS);
    }
}

/// `map['key']` taken apart.
fn subscript(field_path: &str) -> Option<(&str, &str)> {
    field_path.strip_suffix("']")?.split_once("['")
}

fn resource_ref(resource: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = resource.text("resource");
    if name.is_empty() {
        causes.required(path.child("resource"), "");
    } else if !RESOURCES.contains(&name) && !name.contains("hugepages-") {
        causes.not_supported(path.child("resource"), resource.field("resource"), RESOURCES);
    }
}

fn key_ref(selector: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = selector.text("name");
    rules::all(names::dns1123_subdomain(name), path.child("name"), name, causes);
    match selector.text("key") {
        "" => causes.required(path.child("key"), ""),
        key => rules::all(names::config_key(key), path.child("key"), key, causes),
    }
}

fn from(source: &Value, path: Path<'_>, causes: &mut Causes) {
    let prefix = source.text("prefix");
    if !prefix.is_empty() {
        rules::all(names::env_var_name(prefix), path.child("prefix"), prefix, causes);
    }
    let references = ["configMapRef", "secretRef"];
    for name in references.iter().filter(|it| source.has(it)) {
        let object = source.field(name).text("name");
        let field = path.child(name);
        rules::all(names::dns1123_subdomain(object), field.child("name"), object, causes);
    }
    match references.iter().filter(|it| source.has(it)).count() {
        0 => causes.invalid(
            path,
            &Value::from(""),
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        1 => {}
        _ => causes.invalid(
            path,
            &Value::from(""),
            "may not have more than one field specified at a time",
        ),
    }
}
