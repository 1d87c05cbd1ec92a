//! The document of version 2 in protobuf, as the messages of `openapi.v2` in gnostic. Clients from
//! before OpenAPI version 3 read nothing else.

use serde_json::{Map, Value};

use crate::protobuf::wire::{put_bytes, put_message, put_varint};

type Out = Vec<u8>;
type Members = Map<String, Value>;

/// What becomes of a member of a JSON object.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Texts,
    /// A message of these fields.
    Message(&'static [Field]),
    /// A message whose every entry is a message in field 1 with name and value.
    Named(&'static [Field]),
    /// Members that begin with `x-`, as entries of any JSON.
    Extensions,
    Special(fn(&mut Out, u32, &Value)),
}

/// A member's name, its field's number, and what it is.
type Field = (&'static str, u32, Kind);

static INFO: [Field; 2] = [("title", 1, Kind::Text), ("version", 2, Kind::Text)];

static OPERATION: [Field; 8] = [
    ("tags", 1, Kind::Texts),
    ("operationId", 5, Kind::Text),
    ("produces", 6, Kind::Texts),
    ("consumes", 7, Kind::Texts),
    ("parameters", 8, Kind::Special(put_parameters)),
    ("responses", 9, Kind::Named(&RESPONSE_VALUE)),
    ("schemes", 10, Kind::Texts),
    ("x-", 13, Kind::Extensions),
];

static PATH_ITEM: [Field; 5] = [
    ("get", 2, Kind::Message(&OPERATION)),
    ("put", 3, Kind::Message(&OPERATION)),
    ("post", 4, Kind::Message(&OPERATION)),
    ("delete", 5, Kind::Message(&OPERATION)),
    ("patch", 8, Kind::Message(&OPERATION)),
];

/// A response value is a choice, of which field 1 is a response itself.
static RESPONSE_VALUE: [Field; 1] = [("", 1, Kind::Message(&RESPONSE))];
static RESPONSE: [Field; 2] =
    [("description", 1, Kind::Text), ("schema", 2, Kind::Message(&SCHEMA_ITEM))];
static SCHEMA_ITEM: [Field; 1] = [("", 1, Kind::Message(&SCHEMA))];

static SCHEMA: [Field; 9] = [
    ("$ref", 1, Kind::Text),
    ("format", 2, Kind::Text),
    ("description", 4, Kind::Text),
    ("required", 19, Kind::Texts),
    ("additionalProperties", 21, Kind::Message(&SCHEMA_ITEM)),
    ("type", 22, Kind::Special(put_type)),
    ("items", 23, Kind::Message(&SCHEMA_ITEM)),
    ("properties", 25, Kind::Named(&SCHEMA)),
    ("x-", 31, Kind::Extensions),
];

static BODY_PARAMETER: [Field; 4] = [
    ("name", 2, Kind::Text),
    ("in", 3, Kind::Text),
    ("required", 4, Kind::Flag),
    ("schema", 5, Kind::Message(&SCHEMA)),
];
static QUERY_PARAMETER: [Field; 5] = [
    ("required", 1, Kind::Flag),
    ("in", 2, Kind::Text),
    ("name", 4, Kind::Text),
    ("type", 6, Kind::Text),
    ("uniqueItems", 20, Kind::Flag),
];
static PATH_PARAMETER: [Field; 5] = [
    ("required", 1, Kind::Flag),
    ("in", 2, Kind::Text),
    ("name", 4, Kind::Text),
    ("type", 5, Kind::Text),
    ("uniqueItems", 19, Kind::Flag),
];
static API_KEY: [Field; 4] = [
    ("type", 1, Kind::Text),
    ("name", 2, Kind::Text),
    ("in", 3, Kind::Text),
    ("description", 4, Kind::Text),
];

/// The document.
pub(super) fn document(
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, b"2.0");
    let info = serde_json::json!({"title": "Kubernetes", "version": "v1.36.0"});
    put_message(&mut out, 2, |out| put_members(out, &INFO, &info));
    put_message(&mut out, 8, |out| {
        paths.for_each(|(name, value)| {
            put_named(out, 2, &name, |out| {
                put_members(out, &PATH_ITEM, &value);
            });
        });
    });
    put_message(&mut out, 9, |out| {
        definitions.for_each(|(name, value)| {
            put_named(out, 1, &name, |out| {
                put_members(out, &SCHEMA, &value);
            });
        });
    });
    // One requirement, of one entry that names a list of scopes, which is empty.
    put_message(&mut out, 12, |out| put_named(out, 1, "BearerToken", |_| {}));
    put_message(&mut out, 13, |out| {
        put_named(out, 1, "BearerToken", |out| {
            put_message(out, 2, |out| {
                if let Some(token) = super::security().get("BearerToken") {
                    put_members(out, &API_KEY, token);
                }
            });
        });
    });
    out
}

/// An entry: its name in field 1, its value in field 2.
fn put_named(out: &mut Out, number: u32, name: &str, value: impl FnOnce(&mut Out)) {
    put_message(out, number, |out| {
        put_bytes(out, 1, name.as_bytes());
        put_message(out, 2, value);
    });
}

fn put_members(out: &mut Out, fields: &[Field], value: &Value) {
    let none = Members::new();
    let members = value.as_object().unwrap_or(&none);
    for (name, number, kind) in fields {
        let value = match *name {
            // The value itself is in the message around a choice, and the extensions beside.
            "" | "x-" => Some(value),
            name => members.get(name),
        };
        if let Some(value) = value {
            put(out, *number, *kind, value);
        }
    }
}

fn put(out: &mut Out, number: u32, kind: Kind, value: &Value) {
    let texts = |value: &Value| value.as_array().cloned().unwrap_or_default();
    match kind {
        Kind::Text => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Kind::Flag => put_varint(out, number, u64::from(value == &Value::Bool(true))),
        Kind::Texts => {
            for it in texts(value) {
                put_bytes(out, number, it.as_str().unwrap_or_default().as_bytes());
            }
        }
        Kind::Message(fields) => put_message(out, number, |out| put_members(out, fields, value)),
        Kind::Named(fields) => put_message(out, number, |out| {
            for (name, value) in value.as_object().into_iter().flatten() {
                put_named(out, 1, name, |out| put_members(out, fields, value));
            }
        }),
        Kind::Extensions => {
            let members = value.as_object().into_iter().flatten();
            for (name, value) in members.filter(|(name, _)| name.starts_with("x-")) {
                // As YAML, which JSON is.
                put_named(out, number, name, |out| {
                    put_bytes(out, 2, format!("{value}\n").as_bytes());
                });
            }
        }
        Kind::Special(special) => special(out, number, value),
    }
}

/// `TypeItem`: a list, of one.
fn put_type(out: &mut Out, number: u32, value: &Value) {
    put_message(out, number, |out| put(out, 1, Kind::Text, value));
}

/// `ParametersItem`: a choice in a choice in a choice.
fn put_parameters(out: &mut Out, number: u32, value: &Value) {
    for it in value.as_array().into_iter().flatten() {
        put_message(out, number, |out| {
            put_message(out, 1, |out| match it.get("in").and_then(Value::as_str) {
                Some("body") => put(out, 1, Kind::Message(&BODY_PARAMETER), it),
                Some("path") => {
                    put_message(out, 2, |out| put(out, 4, Kind::Message(&PATH_PARAMETER), it));
                }
                _ => put_message(out, 2, |out| put(out, 3, Kind::Message(&QUERY_PARAMETER), it)),
            });
        });
    }
}
