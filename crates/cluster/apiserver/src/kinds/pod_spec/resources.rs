//! Rules for the resources a container asks for.

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

/// Resources without a domain that a container can ask for.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Checks `resources` of a container.
pub(super) fn validate(resources: &Value, path: Path<'_>, causes: &mut Causes) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (name, value) in resources.members("limits") {
        amount(name, value, limits.key(name), causes);
    }
    for (name, value) in resources.members("requests") {
        amount(name, value, requests.key(name), causes);
        let limit = resources.field("limits").field(name);
        let (Some(asked), Some(most)) = (rules::quantity(value), rules::quantity(limit)) else {
            continue;
        };
        if most < asked {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            causes.invalid(requests, &Value::from(asked.to_string()), &detail);
        }
    }
}

/// Checks the name of a resource that a container can ask for.
pub(in crate::kinds) fn resource_name(name: &str, path: Path<'_>, causes: &mut Causes) {
    rules::all(names::qualified_name(name), path, name, causes);
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !standard && !name.contains('/') {
        let name = Value::from(name);
        causes.invalid(path, &name, "must be a standard resource type or fully qualified");
        causes.invalid(path, &name, "must be a standard resource for containers");
    }
}

/// Checks how much of a resource a container asks for.
pub(in crate::kinds) fn amount(name: &str, value: &Value, path: Path<'_>, causes: &mut Causes) {
    resource_name(name, path, causes);
    if let Some(quantity) = rules::quantity(value) {
        let text = Value::from(quantity.to_string());
        if quantity.is_negative() {
            causes.invalid(path, &text, rules::NOT_NEGATIVE);
        }
        if name.contains('/') && !quantity.is_whole() {
            causes.invalid(path, &text, "must be an integer");
        }
    }
}
