//! Kinds of `resource.k8s.io`: devices that pods can ask for. Here is what they share. Expressions
//! are not compiled: whether they are CEL is found out by who evaluates them.

mod claims;
mod classes;
mod slices;

use api::names;
use serde_json::Value;

pub(super) use self::{
    claims::{RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE},
    classes::DEVICE_CLASS,
    slices::RESOURCE_SLICE,
};
use super::{Causes, Kind, path::Path, rules, value::Read};

/// What all of them have in common.
const PLAIN: Kind =
    Kind { group: "resource.k8s.io", shows_deleted: true, unattended: true, ..Kind::PLAIN };

/// Selectors, configurations and constraints of one request, class or claim.
const ITEMS_MAX: usize = 32;
/// Bytes of one expression.
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;

/// Checks `selectors`.
fn selectors(object: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("selectors");
    rules::not_too_many(object.items("selectors").len(), ITEMS_MAX, list, causes);
    for (index, selector) in object.items("selectors").iter().enumerate() {
        let path = list.index(index);
        let expression = path.child("cel");
        if !selector.has("cel") {
            causes.required(expression, "");
            continue;
        }
        let text = selector.field("cel").text("expression");
        if EXPRESSION_BYTES_MAX < text.len() {
            rules::too_long(expression.child("expression"), EXPRESSION_BYTES_MAX, causes);
        } else if text.trim().is_empty() {
            causes.required(expression.child("expression"), "");
        }
    }
}

/// Checks `config`: settings that a driver reads.
fn configurations(object: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("config");
    rules::not_too_many(object.items("config").len(), ITEMS_MAX, list, causes);
    for (index, config) in object.items("config").iter().enumerate() {
        let path = list.index(index);
        let opaque = config.field("opaque");
        if opaque.is_null() {
            causes.required(path.child("opaque"), "");
            continue;
        }
        let path = path.child("opaque");
        super::csi_node::driver_name(opaque, "driver", path, causes);
        match opaque.field("parameters") {
            Value::Null => causes.required(path.child("parameters"), ""),
            Value::Object(_) => {}
            _ => {
                let detail = "must be a valid JSON object";
                let text = Value::from("<value omitted>");
                causes.invalid(path.child("parameters"), &text, detail);
            }
        }
    }
}

/// Checks the name of a device class.
fn class_name(object: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::required_name(object, "deviceClassName", names::dns1123_subdomain, path, causes);
}
