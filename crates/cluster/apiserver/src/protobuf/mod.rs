//! Objects in the protobuf encoding of Kubernetes, made from and into JSON by the table of types.
//!
//! An object on the wire is four bytes that say so and a message `runtime.Unknown`: what
//! `apiVersion` and `kind` say, and the message of the object itself. Nothing is kept in this form.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use self::wire::{Fields, Scalar};
use crate::schema::{self, Definition, Type};

/// Media type of these bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Fields of `runtime.Unknown`.
const UNKNOWN_TYPE: u32 = 1;
const UNKNOWN_RAW: u32 = 2;
const UNKNOWN_ENCODING: u32 = 3;
/// Fields of `runtime.TypeMeta`.
const TYPE_API_VERSION: u32 = 1;
const TYPE_KIND: u32 = 2;
/// Fields of `metav1.WatchEvent`, and of the `runtime.RawExtension` in it.
const EVENT_TYPE: u32 = 1;
const EVENT_OBJECT: u32 = 2;
const EXTENSION_RAW: u32 = 1;

/// Types whose message does not follow from their JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    /// JSON text in field 1: `RawExtension`, `FieldsV1`, `JSON`.
    Raw,
    /// A schema in field 1 or a list of schemas in field 2.
    OrSchemas,
    /// A schema in field 1 or a list of texts in field 2.
    OrTexts,
    /// A truth in field 1, a schema in field 2.
    OrBool,
}

/// The type that some of these have.
const JSON_SCHEMA: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl Special {
    fn of(definition: &Definition) -> Option<Self> {
        if !definition.any {
            return None;
        }
        match definition.short_name() {
            "JSONSchemaPropsOrArray" => Some(Self::OrSchemas),
            "JSONSchemaPropsOrStringArray" => Some(Self::OrTexts),
            "JSONSchemaPropsOrBool" => Some(Self::OrBool),
            _ => Some(Self::Raw),
        }
    }
}

/// Why bytes are no object. The texts are what the original's decoder says, where it has a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("empty data")]
    Empty,
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    #[error("empty body")]
    EmptyBody,
    #[error("unexpected EOF")]
    End,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal wireType {0}")]
    WireType(u32),
    #[error("proto: illegal tag 0")]
    Tag,
    #[error("proto: wrong wireType for field {0}")]
    Mismatch(&'static str),
    #[error("proto: field {0} is not valid UTF-8")]
    Text(&'static str),
    #[error("proto: field {0} is not JSON")]
    Json(&'static str),
    #[error("proto: field {0} is out of range")]
    Range(&'static str),
    #[error("proto: messages are nested more than {max} deep", max = decode::DEPTH_MAX)]
    Depth,
    #[error("the content encoding {0:?} is not supported")]
    Encoding(String),
    #[error("Object 'Kind' is missing in the protobuf message")]
    NoKind,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
}

/// Why an object cannot be written so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The kind has no message, as a Table.
    #[error(
        "object {0} does not implement the protobuf marshalling interface and cannot be encoded \
         to a protobuf message"
    )]
    NotMarshalable(String),
    #[error("the object is not of its type")]
    Json(#[source] serde_json::Error),
}

/// The object of a body, as JSON with `apiVersion` and `kind`.
pub(crate) fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Empty);
    }
    let rest = body.strip_prefix(MAGIC).ok_or(DecodeError::Prefix)?;
    if rest.is_empty() {
        return Err(DecodeError::EmptyBody);
    }
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), Vec::new());
    for field in Fields::new(rest) {
        match field? {
            (UNKNOWN_TYPE, Scalar::Bytes(bytes)) => {
                for field in Fields::new(bytes) {
                    match field? {
                        (TYPE_API_VERSION, Scalar::Bytes(it)) => api_version = text(it)?,
                        (TYPE_KIND, Scalar::Bytes(it)) => kind = text(it)?,
                        _ => {}
                    }
                }
            }
            // Parts of one message that stand apart are the same as one after the other.
            (UNKNOWN_RAW, Scalar::Bytes(bytes)) => raw.extend_from_slice(bytes),
            (UNKNOWN_ENCODING, Scalar::Bytes(bytes)) if !bytes.is_empty() => {
                return Err(DecodeError::Encoding(text(bytes)?));
            }
            _ => {}
        }
    }
    if kind.is_empty() {
        return Err(DecodeError::NoKind);
    }
    let Some(definition) = definition_of(&api_version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut object = decode::object(definition, &raw)?;
    object.insert("apiVersion".to_owned(), Value::String(api_version));
    object.insert("kind".to_owned(), Value::String(kind));
    Ok(Value::Object(object))
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Text("typeMeta"))
}

/// Whether there are messages of the objects of a definition.
pub(crate) fn has_message(definition: &str) -> bool {
    schema::definition(definition).is_some_and(encode::has_message)
}

/// An object from its JSON text, which has `apiVersion` and `kind`.
pub(crate) fn encode(json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(json.len());
    envelope(json, &mut out)?;
    Ok(out)
}

/// A list that is written item by item: one that cannot be is left out, not the others.
pub(crate) struct List {
    head: Head,
    item: (&'static Definition, u32),
    raw: Vec<u8>,
}

impl List {
    /// A list with this metadata, as JSON text, and no items yet.
    pub(crate) fn new(api_version: &str, kind: &str, metadata: &str) -> Result<Self, EncodeError> {
        let head = Head { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let unknown = || EncodeError::NotMarshalable(head.kind.clone());
        let definition = head.definition()?;
        let items = definition.field("items").ok_or_else(unknown)?;
        let item = match (&items.kind, items.wire.numbers.as_slice()) {
            (Type::List(item), [number]) => item.below().map(|it| (it, *number)),
            _ => None,
        };
        let item = item.ok_or_else(unknown)?;
        let mut raw = Vec::new();
        let json = format!("{{\"metadata\":{metadata}}}");
        encode::object(definition, json.as_bytes(), &mut raw).map_err(EncodeError::Json)?;
        Ok(Self { head, item, raw })
    }

    /// Appends an object from its JSON text; nothing if it is not of its type.
    pub(crate) fn push(&mut self, json: &[u8]) -> Result<(), EncodeError> {
        let ((definition, number), end) = (self.item, self.raw.len());
        let put = |out: &mut Vec<u8>| encode::object(definition, json, out);
        wire::try_put_message(&mut self.raw, number, put).map_err(|error| {
            self.raw.truncate(end);
            EncodeError::Json(error)
        })
    }

    /// The body.
    pub(crate) fn finish(self) -> Vec<u8> {
        // Room for the envelope, so that the items are moved once.
        let mut out = Vec::with_capacity(self.raw.len() + 64);
        self.head.put(&mut out);
        wire::put_bytes(&mut out, UNKNOWN_RAW, &self.raw);
        out
    }
}

fn envelope(json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let head = Head::of(json);
    let definition = head.definition()?;
    head.put(out);
    wire::try_put_message(out, UNKNOWN_RAW, |out| encode::object(definition, json, out))
        .map_err(EncodeError::Json)
}

/// Appends an event of a watch: its length in four bytes, then the event with the object's JSON
/// text as a body of its own. Nothing is appended if that fails.
pub(crate) fn put_event(out: &mut Vec<u8>, kind: &str, json: &[u8]) -> Result<(), EncodeError> {
    let mut event = Vec::with_capacity(json.len());
    wire::put_bytes(&mut event, EVENT_TYPE, kind.as_bytes());
    wire::try_put_message(&mut event, EVENT_OBJECT, |out| {
        wire::try_put_message(out, EXTENSION_RAW, |out| envelope(json, out))
    })?;
    // An event is no larger than an object, which is far from this.
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&event);
    Ok(())
}

/// The type of bodies that say they are this. Bodies that every group shares are the same in each.
fn definition_of(api_version: &str, kind: &str) -> Option<&'static Definition> {
    let shared = match kind {
        "DeleteOptions" => Some(schema::DELETE_OPTIONS),
        "Status" => Some(schema::STATUS),
        _ => None,
    };
    if let Some(name) = shared {
        return schema::definition(name);
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::definition_of_kind(group, version, kind)
}

/// What an object says it is.
#[derive(Default)]
struct Head {
    api_version: String,
    kind: String,
}

impl Head {
    /// The type, if it has a message.
    fn definition(&self) -> Result<&'static Definition, EncodeError> {
        definition_of(&self.api_version, &self.kind)
            .filter(|it| encode::has_message(it))
            .ok_or_else(|| EncodeError::NotMarshalable(self.kind.clone()))
    }

    /// Appends what stands before the object.
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        wire::put_message(out, UNKNOWN_TYPE, |out| {
            wire::put_bytes(out, TYPE_API_VERSION, self.api_version.as_bytes());
            wire::put_bytes(out, TYPE_KIND, self.kind.as_bytes());
        });
    }

    fn of(json: &[u8]) -> Self {
        let mut head = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        // The text is left where both are known, which is an error to the parser. A text that is
        // no object has neither, and so no type.
        drop(deserializer.deserialize_map(&mut head));
        head
    }
}

impl<'de> Visitor<'de> for &mut Head {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while self.api_version.is_empty() || self.kind.is_empty() {
            match map.next_key::<String>()?.as_deref() {
                Some("apiVersion") => self.api_version = map.next_value()?,
                Some("kind") => self.kind = map.next_value()?,
                Some(_) => drop(map.next_value::<IgnoredAny>()?),
                None => break,
            }
        }
        Ok(())
    }
}
