//! Rules for where a pod may be put: node selectors, affinities, tolerations, spreading.

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks everything in `spec` that says where the pod may be.
pub(super) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::labels(spec.field("nodeSelector"), path.child("nodeSelector"), causes);
    let affinity = path.child("affinity");
    let node = spec.at(&["affinity", "nodeAffinity"]);
    node_affinity(node, affinity.child("nodeAffinity"), causes);
    for name in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(spec.at(&["affinity", name]), affinity.child(name), causes);
    }
    tolerations(spec, path, causes);
    let spreads = path.child("topologySpreadConstraints");
    for (index, it) in spec.items("topologySpreadConstraints").iter().enumerate() {
        spread(it, spreads.index(index), causes);
    }
}

/// Checks `tolerations`.
pub(in crate::kinds) fn tolerations(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("tolerations");
    for (index, it) in spec.items("tolerations").iter().enumerate() {
        toleration(it, list.index(index), causes);
    }
}

fn node_affinity(affinity: &Value, path: Path<'_>, causes: &mut Causes) {
    if affinity.has(REQUIRED) {
        node_selector(affinity.field(REQUIRED), path.child(REQUIRED), causes);
    }
    let list = path.child(PREFERRED);
    for (index, preferred) in affinity.items(PREFERRED).iter().enumerate() {
        let path = list.index(index);
        weight(preferred, path, causes);
        node_selector_term(preferred.field("preference"), path.child("preference"), causes);
    }
}

/// Checks a selector of nodes that must hold.
pub(in crate::kinds) fn node_selector(selector: &Value, path: Path<'_>, causes: &mut Causes) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.items("nodeSelectorTerms");
    if terms.is_empty() {
        causes.required(path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(term, path.index(index), causes);
    }
}

fn node_selector_term(term: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("matchExpressions");
    for (index, requirement) in term.items("matchExpressions").iter().enumerate() {
        let path = list.index(index);
        match (requirement.text("operator"), requirement.items("values")) {
            ("In" | "NotIn", []) => causes.required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            ("Exists" | "DoesNotExist", [_, ..]) => causes.forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            ("Gt" | "Lt", [] | [_, _, ..]) => causes.required(
                path.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
            (operator, _) => causes.invalid(
                path.child("operator"),
                &Value::from(operator),
                "not a valid selector operator",
            ),
        }
        let key = requirement.text("key");
        rules::all(names::qualified_name(key), path.child("key"), key, causes);
    }
}

fn pod_affinity(affinity: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child(REQUIRED);
    for (index, term) in affinity.items(REQUIRED).iter().enumerate() {
        pod_affinity_term(term, list.index(index), causes);
    }
    let list = path.child(PREFERRED);
    for (index, preferred) in affinity.items(PREFERRED).iter().enumerate() {
        let path = list.index(index);
        weight(preferred, path, causes);
        pod_affinity_term(
            preferred.field("podAffinityTerm"),
            path.child("podAffinityTerm"),
            causes,
        );
    }
}

fn pod_affinity_term(term: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::label_selector(term.field("labelSelector"), path.child("labelSelector"), causes);
    rules::label_selector(term.field("namespaceSelector"), path.child("namespaceSelector"), causes);
    topology_key(term, path, causes);
}

fn topology_key(object: &Value, path: Path<'_>, causes: &mut Causes) {
    match object.text("topologyKey") {
        "" => causes.required(path.child("topologyKey"), "can not be empty"),
        key => rules::all(names::qualified_name(key), path.child("topologyKey"), key, causes),
    }
}

fn weight(preferred: &Value, path: Path<'_>, causes: &mut Causes) {
    let weight = preferred.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        causes.invalid(path.child("weight"), &Value::from(weight), "must be in the range 1-100");
    }
}

fn toleration(toleration: &Value, path: Path<'_>, causes: &mut Causes) {
    let (key, operator) = (toleration.text("key"), toleration.text("operator"));
    if !key.is_empty() {
        rules::all(names::qualified_name(key), path.child("key"), key, causes);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values \
                      and all keys\"";
        causes.invalid(path.child("operator"), &Value::from(operator), detail);
    }
    let effect = toleration.text("effect");
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.invalid(path.child("effect"), &Value::from(effect), detail);
    }
    let value = toleration.text("value");
    match operator {
        // Kubernetes reports a bad value under the operator's name.
        "" | "Equal" => {
            rules::all(names::label_value(value), path.child("operator"), value, causes);
        }
        "Exists" if value.is_empty() => {}
        "Exists" => causes.invalid(
            path.child("operator"),
            &Value::from(value),
            "value must be empty when `operator` is 'Exists'",
        ),
        _ => {
            let operator = toleration.field("operator");
            causes.not_supported(path.child("operator"), operator, &["Equal", "Exists"]);
        }
    }
    if !effect.is_empty() {
        rules::one_of(toleration, "effect", EFFECTS, path, causes);
    }
}

fn spread(constraint: &Value, path: Path<'_>, causes: &mut Causes) {
    let skew = constraint.int("maxSkew").unwrap_or_default();
    if skew <= 0 {
        causes.invalid(path.child("maxSkew"), &Value::from(skew), "must be greater than zero");
    }
    topology_key(constraint, path, causes);
    let answers = ["DoNotSchedule", "ScheduleAnyway"];
    rules::one_of(constraint, "whenUnsatisfiable", &answers, path, causes);
    rules::label_selector(constraint.field("labelSelector"), path.child("labelSelector"), causes);
}
