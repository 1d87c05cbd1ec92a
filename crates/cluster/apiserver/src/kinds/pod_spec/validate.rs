//! Rules for a pod's specification as a whole, and for templates of pods.

use api::names;
use serde_json::{Value, json};

use super::{
    container::{self, Pod},
    volume,
};
use crate::kinds::{Causes, path::Path, rules, value::Read};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks the `spec` of a pod or template at `path`.
pub(in crate::kinds) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let volumes = volume::validate(spec, path, causes);
    let pod = Pod { volumes: &volumes, host_network: spec.flag("hostNetwork") };
    container::validate(spec, pod, path, causes);
    rules::one_of(spec, "restartPolicy", RESTART_POLICIES, path, causes);
    rules::one_of(spec, "dnsPolicy", DNS_POLICIES, path, causes);
    rules::labels(spec.field("nodeSelector"), path.child("nodeSelector"), causes);
    optional_name(spec, "serviceAccountName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "nodeName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "hostname", names::dns1123_label, path, causes);
    optional_name(spec, "subdomain", names::dns1123_label, path, causes);
    optional_name(spec, "priorityClassName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "runtimeClassName", names::dns1123_subdomain, path, causes);
    rules::not_negative(spec, "terminationGracePeriodSeconds", path, causes);
    if let Some(seconds) = spec.int("activeDeadlineSeconds") {
        for problem in names::in_range(seconds, 1, i64::from(i32::MAX)) {
            causes.invalid(path.child("activeDeadlineSeconds"), &json!(seconds), &problem);
        }
    }
    tolerations(spec, path, causes);
    host_aliases(spec, path, causes);
    image_pull_secrets(spec, path, causes);
}

/// Checks a template of pods that are to run for ever: its labels must match `selector`, and its
/// pods must always be restarted. `owner` is the kind that has the template.
pub(in crate::kinds) fn template(
    template: &Value,
    selector: &Value,
    path: Path<'_>,
    causes: &mut Causes,
) {
    let labels = template.field("metadata").field("labels");
    if !rules::selects_everything(selector) && !rules::selects(selector, labels) {
        let metadata = path.child("metadata");
        let value = if labels.is_null() { json!({}) } else { labels.clone() };
        causes.invalid(
            metadata.child("labels"),
            &value,
            "`selector` does not match template `labels`",
        );
    }
    // Kubernetes leaves `metadata` out of these two paths.
    rules::labels(labels, path.child("labels"), causes);
    let annotations = template.field("metadata").field("annotations");
    rules::annotations(annotations, path.child("annotations"), causes);
    let spec = template.field("spec");
    let path = path.child("spec");
    validate(spec, path, causes);
    let policy = spec.text("restartPolicy");
    if RESTART_POLICIES.contains(&policy) && policy != "Always" {
        causes.not_supported(path.child("restartPolicy"), spec.field("restartPolicy"), &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        causes.forbidden(
            path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn optional_name(
    spec: &Value,
    name: &str,
    rule: fn(&str) -> Vec<String>,
    path: Path<'_>,
    causes: &mut Causes,
) {
    let text = spec.text(name);
    if !text.is_empty() {
        rules::all(rule(text), path.child(name), text, causes);
    }
}

fn tolerations(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("tolerations");
    for (index, toleration) in spec.items("tolerations").iter().enumerate() {
        let path = list.index(index);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        if !key.is_empty() {
            rules::all(names::qualified_name(key), path.child("key"), key, causes);
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all \
                          values and all keys\"";
            causes.invalid(path.child("operator"), toleration.field("operator"), detail);
        }
        let effect = toleration.text("effect");
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.invalid(path.child("effect"), &Value::from(effect), detail);
        }
        match operator {
            "" | "Equal" => {
                let value = toleration.text("value");
                rules::all(names::label_value(value), path.child("operator"), value, causes);
            }
            "Exists" if toleration.text("value").is_empty() => {}
            "Exists" => causes.invalid(
                path.child("operator"),
                toleration.field("value"),
                "value must be empty when `operator` is 'Exists'",
            ),
            _ => causes.not_supported(
                path.child("operator"),
                toleration.field("operator"),
                &["Equal", "Exists"],
            ),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            causes.not_supported(path.child("effect"), toleration.field("effect"), EFFECTS);
        }
    }
}

fn host_aliases(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("hostAliases");
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = list.index(index);
        rules::ip(alias.text("ip"), path.child("ip"), causes);
        let hostnames = path.child("hostnames");
        for (index, name) in alias.items("hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            rules::all(names::dns1123_subdomain(name), hostnames.index(index), name, causes);
        }
    }
}

fn image_pull_secrets(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("imagePullSecrets");
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            causes.required(list.index(index).child("name"), "");
        }
    }
}
