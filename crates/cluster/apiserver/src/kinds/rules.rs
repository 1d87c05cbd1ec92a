//! Checks that many kinds share: names, labels, selectors, references, numbers.

use std::{collections::BTreeSet, fmt::Write as _};

use api::{names, quantity::Quantity};
use serde_json::Value;

use super::{Causes, path::Path, value::Read};

/// Text of every refusal to change a field that cannot change.
pub(super) const IMMUTABLE: &str = "field is immutable";
/// Text for a number below zero.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Reports each problem a rule of [`names`] found with a text or number.
pub(super) fn all(
    problems: Vec<String>,
    path: Path<'_>,
    value: impl Into<Value> + Copy,
    causes: &mut Causes,
) {
    for problem in problems {
        causes.invalid(path, &value.into(), &problem);
    }
}

/// `metadata.name` is a DNS subdomain, as for most kinds.
pub(super) fn subdomain_name(name: &str, causes: &mut Causes) {
    metadata_name(names::dns1123_subdomain(name), name, causes);
}

/// `metadata.name` is a DNS label.
pub(super) fn label_name(name: &str, causes: &mut Causes) {
    metadata_name(names::dns1123_label(name), name, causes);
}

/// Reports problems of `metadata.name`.
pub(super) fn metadata_name(problems: Vec<String>, name: &str, causes: &mut Causes) {
    all(problems, Path::new("metadata").child("name"), name, causes);
}

/// Labels of something that is not the object itself (that one's are checked for all kinds).
pub(super) fn labels(labels: &Value, path: Path<'_>, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        all(names::qualified_name(key), path, key.as_str(), causes);
        let value = value.as_str().unwrap_or_default();
        all(names::label_value(value), path, value, causes);
    }
}

/// Annotations of something that is not the object itself.
pub(super) fn annotations(annotations: &Value, path: Path<'_>, causes: &mut Causes) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        all(names::qualified_name(&key.to_ascii_lowercase()), path, key.as_str(), causes);
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if names::ANNOTATIONS_BYTES_MAX < bytes {
        too_long(path, names::ANNOTATIONS_BYTES_MAX, causes);
    }
}

/// `Too long: may not be more than N bytes`.
pub(super) fn too_long(path: impl Into<String>, max: usize, causes: &mut Causes) {
    let message = format!("Too long: may not be more than {max} bytes");
    causes.push(super::Reason::TooLong, path, message);
}

/// A label selector with `matchLabels` and `matchExpressions`.
pub(super) fn label_selector(selector: &Value, path: Path<'_>, causes: &mut Causes) {
    labels(selector.field("matchLabels"), path.child("matchLabels"), causes);
    let expressions = path.child("matchExpressions");
    for (index, expression) in selector.items("matchExpressions").iter().enumerate() {
        let path = expressions.index(index);
        match (expression.text("operator"), expression.items("values")) {
            ("In" | "NotIn", []) => causes.required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            ("Exists" | "DoesNotExist", [_, ..]) => causes.forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (operator, _) => causes.invalid(
                path.child("operator"),
                &Value::from(operator),
                "not a valid selector operator",
            ),
        }
        let key = expression.text("key");
        all(names::qualified_name(key), path.child("key"), key, causes);
        let values = path.child("values");
        for (index, value) in expression.items("values").iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            all(names::label_value(value), values.index(index), value, causes);
        }
    }
}

/// Whether a label selector selects nothing in particular.
pub(super) fn selects_everything(selector: &Value) -> bool {
    selector.members("matchLabels").next().is_none()
        && selector.items("matchExpressions").is_empty()
}

/// Whether `labels` satisfy a label selector.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.field(key).as_str();
    let equal = |(key, value): (&str, &Value)| label(key) == value.as_str();
    selector.members("matchLabels").all(equal)
        && selector.items("matchExpressions").iter().all(|it| {
            let label = label(it.text("key"));
            let listed = it.items("values").iter().any(|it| it.as_str() == label);
            match it.text("operator") {
                "In" => label.is_some() && listed,
                "NotIn" => label.is_none() || !listed,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

/// A number that may be absent but not below zero.
pub(super) fn not_negative(object: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    if object.int(name).is_some_and(|it| it < 0) {
        causes.invalid(path.child(name), object.field(name), NOT_NEGATIVE);
    }
}

/// One of a fixed set of texts; absent is reported as required.
pub(super) fn one_of(
    object: &Value,
    name: &str,
    supported: &[&str],
    path: Path<'_>,
    causes: &mut Causes,
) {
    match object.text(name) {
        "" => causes.required(path.child(name), ""),
        text if supported.contains(&text) => {}
        _ => causes.not_supported(path.child(name), object.field(name), supported),
    }
}

/// A port as a number or as a name.
pub(super) fn port_number_or_name(port: &Value, path: Path<'_>, causes: &mut Causes) {
    match port {
        Value::String(name) if name.is_empty() => {
            all(vec!["must be non-empty".to_owned()], path, "", causes);
        }
        Value::String(name) => all(names::port_name(name), path, name.as_str(), causes),
        _ => {
            let number = port.as_i64().unwrap_or_default();
            all(names::port_number(number), path, number, causes);
        }
    }
}

/// The field is as it was.
pub(super) fn unchanged(
    new: &Value,
    old: &Value,
    name: &str,
    path: impl Into<String>,
    causes: &mut Causes,
) {
    if new.field(name) != old.field(name) {
        causes.invalid(path, new.field(name), IMMUTABLE);
    }
}

/// An IP address.
pub(super) fn ip(text: &str, path: Path<'_>, causes: &mut Causes) {
    if text.parse::<std::net::IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        causes.invalid(path, &Value::from(text), detail);
    }
}

/// A name that may be a part of a path, of kinds that have no narrower rule.
pub(super) fn path_segment_name(name: &str, causes: &mut Causes) {
    metadata_name(path_segment(name), name, causes);
}

/// A text that may be a part of a path.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => ["/", "%"]
            .into_iter()
            .filter(|it| text.contains(it))
            .map(|it| format!("may not contain '{it}'"))
            .collect(),
    }
}

/// A name of something else, which must be there and good.
pub(super) fn required_name(
    object: &Value,
    name: &str,
    rule: fn(&str) -> Vec<String>,
    path: Path<'_>,
    causes: &mut Causes,
) {
    match object.text(name) {
        "" => causes.required(path.child(name), ""),
        text => all(rule(text), path.child(name), text, causes),
    }
}

/// An amount, if that is what the value is.
pub(super) fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

/// An amount that is not below zero.
pub(super) fn amount_not_negative(value: &Value, path: Path<'_>, causes: &mut Causes) {
    if quantity(value).is_some_and(Quantity::is_negative) {
        causes.invalid(path, value, NOT_NEGATIVE);
    }
}

/// One of a fixed set of texts, or absent.
pub(super) fn optional_one_of(
    object: &Value,
    name: &str,
    supported: &[&str],
    path: Path<'_>,
    causes: &mut Causes,
) {
    if !object.text(name).is_empty() {
        one_of(object, name, supported, path, causes);
    }
}

/// `Too many: N: must have at most M items` if there are more than that.
pub(super) fn not_too_many(count: usize, max: usize, path: Path<'_>, causes: &mut Causes) {
    if max < count {
        let message = format!("Too many: {count}: must have at most {max} items");
        causes.push(super::Reason::TooMany, path, message);
    }
}

/// Whether an object carries an annotation that says `true`.
pub(super) fn is_annotated(object: &Value, annotation: &str) -> bool {
    object.at(&["metadata", "annotations"]).text(annotation) == "true"
}

/// `domain/path`, as controllers and signers are named.
pub(super) fn domain_prefixed_path(text: &str, path: Path<'_>, causes: &mut Causes) {
    if text.is_empty() {
        causes.required(path, "");
        return;
    }
    let Some((domain, rest)) =
        text.split_once('/').filter(|it| !it.0.is_empty() && !it.1.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        causes.invalid(path, &Value::from(text), detail);
        return;
    };
    all(names::dns1123_subdomain(domain), path, domain, causes);
    let good = |it: u8| it.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:/%@".contains(&it);
    if !rest.bytes().all(good) {
        let detail = "Invalid path";
        causes.invalid(path, &Value::from(rest), detail);
    }
}

/// One line for what was and one for what would be, for each field that differs.
pub(super) fn difference(new: &Value, old: &Value) -> String {
    let members = |it: &Value| it.as_object().cloned().unwrap_or_default();
    let names: BTreeSet<String> =
        members(new).into_iter().chain(members(old)).map(|it| it.0).collect();
    let mut lines = String::new();
    for name in names.iter().filter(|it| new.field(it) != old.field(it)) {
        for (sign, value) in [('-', old), ('+', new)] {
            if value.has(name) {
                // Writing to a string cannot fail.
                let _written = writeln!(lines, "{sign} {name}: {}", value.field(name));
            }
        }
    }
    lines
}
