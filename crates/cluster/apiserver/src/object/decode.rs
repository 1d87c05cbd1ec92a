//! From a request's body to an object of the kind the path names, and the strictness of it
//! (`fieldValidation`, KEP-2885).

use api::status::Status;
use serde_json::{Map, Value};

use super::{
    depth, text,
    yaml::{self, Yaml},
};
use crate::{
    http::{content::Format, query::Query},
    kinds::Kind,
    limits::DEPTH_MAX,
    protobuf, schema,
};

/// What happens to fields the kind does not know and to fields that occur twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// From the parameter; Kubernetes' default is to warn.
    pub(crate) fn of(query: &Query<'_>) -> Result<Self, Status> {
        match query.get("fieldValidation") {
            Some("Ignore") => Ok(Self::Ignore),
            None | Some("Warn") => Ok(Self::Warn),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \
                 \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// An object as its kind knows it, and what the client should hear.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Value,
    /// For `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

/// Reads a body.
pub(crate) fn value(body: &[u8], format: Format) -> Result<Value, String> {
    match format {
        Format::Json => serde_json::from_slice(body).map_err(|error| error.to_string()),
        Format::Yaml => yaml::read(body).map(|it| it.value),
        Format::Protobuf => protobuf::decode(body).map_err(|error| error.to_string()),
    }
}

/// Reads a body, and what it says twice, worded for `validation`. In protobuf there is no such thing.
fn value_and_duplicates(
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), String> {
    if validation == FieldValidation::Ignore || format == Format::Protobuf {
        return Ok((value(body, format)?, Vec::new()));
    }
    if format == Format::Json {
        return Ok((value(body, format)?, schema::duplicates(body)));
    }
    let Yaml { value, duplicates } = yaml::read(body)?;
    let duplicates = match validation {
        FieldValidation::Strict if !duplicates.is_empty() => vec![yaml::strict(&duplicates)],
        _ => duplicates,
    };
    Ok((value, duplicates))
}

/// Reads an object of `kind`.
pub(crate) fn object(
    kind: &Kind,
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Status::bad_request("the request has no body"));
    }
    let read = value_and_duplicates(body, format, validation);
    let (object, duplicates) = read.map_err(|error| {
        let kind = kind.kind;
        let why = match format {
            Format::Json => "couldn't get version/kind; json parse error: ",
            Format::Yaml | Format::Protobuf => "",
        };
        let message =
            format!("the object provided is unrecognized (must be of type {kind}): {why}{error}");
        Status::bad_request(message)
    })?;
    let object = typed(kind, object)?;
    check(kind, object, duplicates, validation).map_err(|why| Status::bad_request(why.text()))
}

/// Why an object is not one of its kind.
#[derive(Debug)]
pub(crate) enum Misfit {
    /// Unknown or duplicate fields under `Strict`: the list after `strict decoding error: `.
    Strict { kind: &'static str, api_version: String, list: String },
    /// A value of a wrong type.
    Type { kind: &'static str, api_version: String, why: String },
}

impl Misfit {
    /// The message for a whole body.
    pub(crate) fn text(&self) -> String {
        let (kind, version) = match self {
            Self::Strict { kind, api_version, .. } | Self::Type { kind, api_version, .. } => {
                (kind, api_version)
            }
        };
        let version = version.rsplit('/').next().unwrap_or_default();
        format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {}", self.cause())
    }

    /// The reason alone, for a patch.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Strict { list, .. } => format!("strict decoding error: {list}"),
            Self::Type { why, .. } => why.clone(),
        }
    }
}

/// Holds `object` against the schema of `kind` and makes it what the kind knows: unknown fields
/// dropped, defaults not yet filled in. The list of who owns its fields stays as the client sent it.
pub(crate) fn check(
    kind: &Kind,
    mut object: Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, Misfit> {
    if depth::exceeds(&object, DEPTH_MAX) {
        let why = format!("it is nested deeper than {DEPTH_MAX} levels");
        return Err(Misfit::Type { kind: kind.kind, api_version: kind.api_version(), why });
    }
    let problems = schema::check(kind.schema, &object);
    if let Some(why) = problems.mistyped {
        return Err(Misfit::Type { kind: kind.kind, api_version: kind.api_version(), why });
    }
    let mut warnings = duplicates;
    warnings.extend(problems.unknown);
    if validation == FieldValidation::Strict && !warnings.is_empty() {
        let list = warnings.join(", ");
        return Err(Misfit::Strict { kind: kind.kind, api_version: kind.api_version(), list });
    }
    if validation == FieldValidation::Ignore {
        warnings.clear();
    }
    // An empty list says something here: that nobody shall own anything.
    if let Some(Value::Array(owners)) = at_mut(&mut object, "managedFields")
        && owners.is_empty()
    {
        owners.push(Value::Object(Map::new()));
    }
    schema::prune(kind.schema, &mut object);
    ensure_metadata(&mut object);
    Ok(Decoded { object, warnings })
}

/// Refuses what is no object or one of another kind, and fills in `apiVersion` and `kind`.
pub(crate) fn typed(kind: &Kind, mut object: Value) -> Result<Value, Status> {
    let expected = kind.api_version();
    let (found_version, found_kind) = (text(&object, &["apiVersion"]), text(&object, &["kind"]));
    if !found_kind.is_empty() && found_kind != kind.kind {
        return Err(Status::bad_request(format!(
            "{found_kind} in version \"{found_version}\" cannot be handled as a {}: the kind in \
             the data ({found_kind}) does not match the expected kind ({})",
            kind.kind, kind.kind
        )));
    }
    if !found_version.is_empty() && found_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API \
             version ({expected})"
        )));
    }
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request("the body must be an object"));
    };
    map.insert("apiVersion".to_owned(), Value::String(expected));
    map.insert("kind".to_owned(), Value::String(kind.kind.to_owned()));
    Ok(object)
}

fn at_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object.get_mut("metadata")?.get_mut(key)
}

fn ensure_metadata(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let metadata = map.entry("metadata").or_insert(Value::Null);
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
}
