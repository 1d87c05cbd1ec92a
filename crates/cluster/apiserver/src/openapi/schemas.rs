//! Schemas: what values of a type may be.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Descriptions, Flavour};
use crate::schema::{Definition, Field, Type, Zero};

pub(super) const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
/// Body of every patch.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
/// Each value of a watch.
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Types that are no objects and so have no definition in the table.
pub(super) const SCALARS: [&str; 4] = [QUANTITY, INT_OR_STRING, TIME, MICRO_TIME];

/// Name and schema of one of [`SCALARS`].
pub(super) fn scalar(name: &str, flavour: Flavour, descriptions: &Descriptions) -> (String, Value) {
    let mut schema = match (name, flavour) {
        (QUANTITY, Flavour::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (QUANTITY, Flavour::V2) => json!({"type": "string"}),
        (INT_OR_STRING, Flavour::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (INT_OR_STRING, Flavour::V2) => json!({"format": "int-or-string", "type": "string"}),
        _ => json!({"type": "string", "format": "date-time"}),
    };
    describe(&mut schema, descriptions.of_type(name));
    (name.to_owned(), schema)
}

/// Schema of a definition.
pub(super) fn object(
    definition: &Definition,
    flavour: Flavour,
    descriptions: &Descriptions,
) -> Value {
    let mut schema = Map::new();
    // Of what need not be an object (JSON, a choice of schemas) nothing is said.
    if !definition.any || !definition.name.contains(".apiextensions.") {
        schema.insert("type".into(), "object".into());
    }
    let described = descriptions.of_fields(definition.name);
    let properties: Map<String, Value> = definition
        .fields
        .iter()
        .map(|it| (it.name.to_owned(), field_schema(it, flavour, &described)))
        .collect();
    if !properties.is_empty() {
        schema.insert("properties".into(), Value::Object(properties));
    }
    let required: Vec<&str> =
        definition.fields.iter().filter(|it| it.required).map(|it| it.name).collect();
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    if let Some(map_type) = definition.map_type {
        schema.insert("x-kubernetes-map-type".into(), map_type.into());
    }
    if let Some(kind) = definition.kind {
        let kinds = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
        schema.insert("x-kubernetes-group-version-kind".into(), kinds);
    }
    let mut schema = Value::Object(schema);
    describe(&mut schema, descriptions.of_type(definition.name));
    schema
}

fn describe(schema: &mut Value, description: Option<&str>) {
    if let (Some(text), Some(members)) = (description, schema.as_object_mut()) {
        members.insert("description".into(), text.into());
    }
}

fn field_schema(field: &Field, flavour: Flavour, described: &HashMap<&str, &str>) -> Value {
    let mut schema = type_schema(&field.kind, field, flavour);
    describe(&mut schema, described.get(field.name).copied());
    let Some(members) = schema.as_object_mut() else { return schema };
    let mut set = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value.into());
        }
    };
    set("x-kubernetes-list-type", field.list_type);
    set("x-kubernetes-map-type", field.map_type);
    set("x-kubernetes-patch-merge-key", field.merge_key);
    set(
        "x-kubernetes-patch-strategy",
        match (field.merge, field.retain_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        },
    );
    if let Some(keys) = field.list_keys {
        let keys: Vec<&str> = keys.split(',').collect();
        members.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    }
    if let (Flavour::V3, Some(default)) = (flavour, default_of(field)) {
        members.insert("default".into(), default);
    }
    schema
}

/// Version 2 documents have no defaults. In version 3, what is always written has its zero for one.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(text) = field.default {
        let parsed = match field.kind {
            Type::String => None,
            _ => serde_json::from_str(text).ok(),
        };
        return Some(parsed.unwrap_or_else(|| text.into()));
    }
    match (&field.kind, field.zero) {
        (_, Zero::Distinct) => None,
        (Type::Object(_), _) if field.kind.below().is_some_and(|it| !it.any) => Some(json!({})),
        (kind, Zero::Written) => zero(kind),
        (_, Zero::Absent) => None,
    }
}

fn zero(kind: &Type) -> Option<Value> {
    match kind {
        Type::String => Some("".into()),
        Type::Int32 | Type::Int64 | Type::Double => Some(0.into()),
        Type::Bool => Some(false.into()),
        _ => None,
    }
}

fn type_schema(kind: &Type, field: &Field, flavour: Flavour) -> Value {
    // In a list or map, every value is written.
    let inside = |kind: &Type| {
        let mut schema = type_schema(kind, field, flavour);
        let default = match kind {
            Type::Object(_) if kind.below().is_some_and(|it| !it.any) => Some(json!({})),
            _ => zero(kind),
        };
        if let (Flavour::V3, Some(default), Some(members)) =
            (flavour, default, schema.as_object_mut())
        {
            members.insert("default".into(), default);
        }
        schema
    };
    match kind {
        Type::String => match (flavour, field.choices) {
            (Flavour::V3, Some(choices)) => {
                let choices: Vec<&str> = choices.split(',').collect();
                json!({"type": "string", "enum": choices})
            }
            _ => json!({"type": "string"}),
        },
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Quantity => within(QUANTITY, flavour),
        Type::IntOrString => within(INT_OR_STRING, flavour),
        Type::Time => within(TIME, flavour),
        Type::MicroTime => within(MICRO_TIME, flavour),
        Type::Any => json!({"type": "object"}),
        Type::Object(_) => within(kind.below().map_or("", |it| it.name), flavour),
        Type::List(items) => json!({"type": "array", "items": inside(items)}),
        Type::Map(values) => json!({"type": "object", "additionalProperties": inside(values)}),
    }
}

/// A reference to a schema, beside which more may be said.
fn within(name: &str, flavour: Flavour) -> Value {
    match flavour {
        Flavour::V2 => reference(name, flavour),
        Flavour::V3 => json!({"allOf": [reference(name, flavour)]}),
    }
}

/// A reference to a schema.
pub(super) fn reference(name: &str, flavour: Flavour) -> Value {
    match flavour {
        Flavour::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Flavour::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}
