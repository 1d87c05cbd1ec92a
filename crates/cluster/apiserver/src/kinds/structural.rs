//! Rules that the schema alone states: defaults, required fields, choices, ranges and patterns, for
//! kinds that elsewhere are custom resources. Findings are worded as the original words those of a
//! custom resource's schema.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use super::{
    Causes, Reason,
    path::Path,
    rules,
    value::{Read, set_default},
};
use crate::schema::{self, Definition, Field, Limits, Type};

/// The type whose rules are the same wherever it is used.
const SELECTOR: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector";

/// What the names of patterns in the table stand for: those of the Gateway API.
const PATTERNS: &[(&str, &str)] = &[
    ("subdomain", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ("group", r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ("host", r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ("kind", r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
    ("label", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
    ("token", r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"),
    ("duration", r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"),
    (
        "controller",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
    ),
    (
        "address",
        r"^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
    ),
    (
        "origin",
        r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)",
    ),
    (
        "protocol",
        r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$",
    ),
];

/// Those patterns, read when the first object of such a kind is.
static READ: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &str)| Some((*name, Regex::new(text).ok()?));
    PATTERNS.iter().filter_map(read).collect()
});

/// Fills in the defaults that the schema states of what is there.
pub(super) fn default(definition: &str, value: &mut Value) {
    if let Some(definition) = schema::definition(definition) {
        default_fields(definition, value);
    }
}

fn default_fields(definition: &'static Definition, value: &mut Value) {
    for field in &definition.fields {
        if let Some(default) = field.default {
            let number = matches!(field.kind, Type::Int32 | Type::Int64);
            let default = match default.parse::<i64>() {
                Ok(it) if number => Value::from(it),
                _ => Value::from(default),
            };
            set_default(value, field.name, default);
        }
        match (field.kind.below(), value.get_mut(field.name)) {
            (Some(below), Some(Value::Array(items))) => {
                items.iter_mut().for_each(|it| default_fields(below, it));
            }
            (Some(below), Some(it @ Value::Object(_))) => default_fields(below, it),
            _ => {}
        }
    }
}

/// Reports what an object of that type says that its schema does not allow.
pub(super) fn validate(definition: &str, value: &Value, path: Path<'_>, causes: &mut Causes) {
    if let Some(definition) = schema::definition(definition) {
        fields(definition, value, path, causes);
    }
}

fn fields(definition: &'static Definition, value: &Value, path: Path<'_>, causes: &mut Causes) {
    for field in &definition.fields {
        let path = path.child(field.name);
        match value.field(field.name) {
            Value::Null if field.required => causes.required(path, ""),
            Value::Null => {}
            Value::Array(items) => {
                count(field.limits, items.len(), path, causes);
                for (index, it) in items.iter().enumerate() {
                    let path = path.index(index);
                    match field.kind.below() {
                        Some(below) => object(below, it, path, causes),
                        None => text(field, it, path, causes),
                    }
                }
            }
            it => match field.kind.below() {
                Some(below) if matches!(field.kind, Type::Object(_)) => {
                    object(below, it, path, causes);
                }
                Some(_) => {}
                None => {
                    range(field.limits, it, path, causes);
                    text(field, it, path, causes);
                }
            },
        }
    }
}

fn object(definition: &'static Definition, value: &Value, path: Path<'_>, causes: &mut Causes) {
    if definition.name == SELECTOR {
        rules::label_selector(value, path, causes);
    } else {
        fields(definition, value, path, causes);
    }
}

fn count(limits: Limits, found: usize, path: Path<'_>, causes: &mut Causes) {
    let found = i64::try_from(found).unwrap_or(i64::MAX);
    if let Some(max) = limits.max.filter(|it| *it < found) {
        let message = format!("Too many: {found}: must have at most {max} items");
        causes.push(Reason::TooMany, path, message);
    }
    if let Some(min) = limits.min.filter(|it| found < *it) {
        let detail = format!("{path} in body should have at least {min} items");
        causes.invalid(path, &Value::from(found), &detail);
    }
}

fn range(limits: Limits, value: &Value, path: Path<'_>, causes: &mut Causes) {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            if let Some(min) = limits.min.filter(|it| number < *it) {
                let detail = format!("{path} in body should be greater than or equal to {min}");
                causes.invalid(path, value, &detail);
            }
            if let Some(max) = limits.max.filter(|it| *it < number) {
                let detail = format!("{path} in body should be less than or equal to {max}");
                causes.invalid(path, value, &detail);
            }
        }
        Value::String(text) => {
            let characters = text.chars().count();
            let length = i64::try_from(characters).unwrap_or(i64::MAX);
            if let Some(min) = limits.min.filter(|it| length < *it) {
                let detail = format!("{path} in body should be at least {min} chars long");
                causes.invalid(path, value, &detail);
            }
            if let Some(max) = limits.max.filter(|it| *it < length) {
                rules::too_long(path, usize::try_from(max).unwrap_or_default(), causes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
    }
}

/// One of the choices, and as the pattern says.
fn text(field: &Field, value: &Value, path: Path<'_>, causes: &mut Causes) {
    let Some(text) = value.as_str() else { return };
    if let Some(choices) = field.choices {
        let choices: Vec<&str> = choices.split(',').collect();
        if !choices.contains(&text) {
            causes.not_supported(path, value, &choices);
        }
    }
    let pattern = field.pattern.and_then(|name| READ.iter().find(|it| it.0 == name));
    if let Some((_, pattern)) = pattern.filter(|(_, it)| !it.is_match(text)) {
        let detail = format!("{path} in body should match '{pattern}'");
        causes.invalid(path, value, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_the_table_is_known_and_can_be_read() {
        assert_eq!(READ.len(), PATTERNS.len());
        for word in schema::TEXT.split_whitespace() {
            if let Some(name) = word.strip_prefix("pattern=") {
                assert!(READ.iter().any(|it| it.0 == name), "{name}");
            }
        }
    }
}
