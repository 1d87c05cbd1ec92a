//! Kinds that say who else is asked before an object is stored: webhooks, policies and what binds
//! these. Nobody is asked yet. Here is what they share: which requests they are about.
//!
//! Expressions are not compiled: whether they are CEL is found out by who evaluates them.

mod bindings;
mod policies;
mod webhooks;

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

pub(super) use self::{
    bindings::{MUTATING_ADMISSION_POLICY_BINDING, VALIDATING_ADMISSION_POLICY_BINDING},
    policies::{MUTATING_ADMISSION_POLICY, VALIDATING_ADMISSION_POLICY},
    webhooks::{MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION},
};
use super::{
    Causes, Kind,
    path::Path,
    rules,
    value::{Read, items_mut, object_mut, set_default},
};

/// What all of them have in common.
const PLAIN: Kind = Kind {
    group: "admissionregistration.k8s.io",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    unattended: true,
    ..Kind::PLAIN
};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Operations after which there is an object to change.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
/// Conditions of one webhook or policy.
const CONDITIONS_MAX: usize = 64;

/// Fills in which requests are meant.
fn default_match(object: &mut Value, lists: &[&str]) {
    set_default(object, "matchPolicy", "Equivalent");
    object_mut(object, "namespaceSelector");
    object_mut(object, "objectSelector");
    for list in lists {
        items_mut(object, list).for_each(|it| set_default(it, "scope", "*"));
    }
}

/// The lists of rules in `matchConstraints` and `matchResources`.
const RESOURCE_RULES: [&str; 2] = ["resourceRules", "excludeResourceRules"];

/// Checks policy and selectors, which webhooks and policies name alike.
fn selectors(object: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::one_of(object, "matchPolicy", &MATCH_POLICIES, path, causes);
    for name in ["namespaceSelector", "objectSelector"] {
        rules::label_selector(object.field(name), path.child(name), causes);
    }
}

/// Checks `matchConstraints` or `matchResources`.
fn match_resources(matching: &Value, path: Path<'_>, causes: &mut Causes) {
    selectors(matching, path, causes);
    for name in RESOURCE_RULES {
        let list = path.child(name);
        for (index, it) in matching.items(name).iter().enumerate() {
            let path = list.index(index);
            let names = path.child("resourceNames");
            let mut seen = BTreeSet::new();
            for (index, name) in it.items("resourceNames").iter().enumerate() {
                let text = name.as_str().unwrap_or_default();
                rules::all(rules::path_segment(text), names.index(index), text, causes);
                if !seen.insert(text) {
                    causes.duplicate(names.index(index), name);
                }
            }
            rule(it, path, causes);
        }
    }
}

/// Only some operations leave an object that could be changed.
fn mutating_operations(matching: &Value, path: Path<'_>, causes: &mut Causes) {
    let path = path.child("resourceRules");
    for operation in matching.items("resourceRules").iter().flat_map(|it| it.items("operations")) {
        if !MUTATING_OPERATIONS.contains(&operation.as_str().unwrap_or_default()) {
            causes.not_supported(path.child("operations"), operation, &MUTATING_OPERATIONS);
        }
    }
}

/// Checks which operations on which resources are meant.
fn rule(rule: &Value, path: Path<'_>, causes: &mut Causes) {
    wildcard(rule, "operations", "operations", path, causes);
    let list = path.child("operations");
    for (index, operation) in rule.items("operations").iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str().unwrap_or_default()) {
            causes.not_supported(list.index(index), operation, &OPERATIONS);
        }
    }
    wildcard(rule, "apiGroups", "API groups", path, causes);
    wildcard(rule, "apiVersions", "API versions", path, causes);
    let list = path.child("apiVersions");
    for (index, version) in rule.items("apiVersions").iter().enumerate() {
        if version == "" {
            causes.required(list.index(index), "");
        }
    }
    resources(rule, path.child("resources"), causes);
    let scopes = ["*", "Cluster", "Namespaced"];
    rules::optional_one_of(rule, "scope", &scopes, path, causes);
}

/// There must be something, and `*` stands alone.
fn wildcard(rule: &Value, name: &str, words: &str, path: Path<'_>, causes: &mut Causes) {
    let items = rule.items(name);
    if items.is_empty() {
        causes.required(path.child(name), "");
    }
    if 1 < items.len() && items.iter().any(|it| it == "*") {
        let detail = format!("if '*' is present, must not specify other {words}");
        causes.invalid(path.child(name), rule.field(name), &detail);
    }
}

fn resources(rule: &Value, path: Path<'_>, causes: &mut Causes) {
    let all = rule.field("resources");
    let list: Vec<&str> = rule.items("resources").iter().filter_map(Value::as_str).collect();
    if list.is_empty() {
        causes.required(path, "");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    for (index, text) in list.iter().enumerate() {
        if text.is_empty() {
            causes.required(path.index(index), "");
            continue;
        }
        let Some((resource, part)) = text.split_once('/') else { continue };
        let mut refuse = |present: String| {
            let detail = format!("if '{present}' is present, must not specify {text}");
            causes.invalid(path.index(index), &(*text).into(), &detail);
        };
        if whole.contains(resource) {
            refuse(format!("{resource}/*"));
        }
        if everywhere.contains(part) {
            refuse(format!("*/{part}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(part);
        }
    }
    if 1 < list.len() && list.contains(&"*/*") {
        causes.invalid(path, all, "if '*/*' is present, must not specify other resources");
    }
    if list.contains(&"*") && list.iter().any(|it| *it != "*" && !it.contains('/')) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        causes.invalid(path, all, detail);
    }
}

/// Checks `matchConditions`.
fn conditions(object: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("matchConditions");
    let conditions = object.items("matchConditions");
    rules::not_too_many(conditions.len(), CONDITIONS_MAX, list, causes);
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = list.index(index);
        if condition.text("expression").trim().is_empty() {
            causes.required(path.child("expression"), "");
        }
        rules::required_name(condition, "name", names::qualified_name, path, causes);
        let name = condition.text("name");
        if !name.is_empty() && !seen.insert(name) {
            causes.duplicate(path.child("name"), &name.into());
        }
    }
}
