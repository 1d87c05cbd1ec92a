//! Rules for the resources a container asks for.

use api::{names, quantity::Quantity};
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
        let (Some(asked), Some(most)) = (quantity(value), quantity(limit)) else { continue };
        if most < asked {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            causes.invalid(requests, &Value::from(asked.to_string()), &detail);
        }
    }
}

fn amount(name: &str, value: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::all(names::qualified_name(name), path, name, causes);
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !standard && !name.contains('/') {
        let name = Value::from(name);
        causes.invalid(path, &name, "must be a standard resource type or fully qualified");
        causes.invalid(path, &name, "must be a standard resource for containers");
    }
    if let Some(quantity) = quantity(value) {
        let text = Value::from(quantity.to_string());
        if quantity.is_negative() {
            causes.invalid(path, &text, rules::NOT_NEGATIVE);
        }
        if name.contains('/') && !quantity.is_whole() {
            causes.invalid(path, &text, "must be an integer");
        }
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}
