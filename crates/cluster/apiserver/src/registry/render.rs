//! Stored bytes in the form a client asked for: as they are, as a row of a Table, or as metadata
//! alone; and the events of a watch in the client's encoding.

use std::borrow::Cow;

use api::status::{Reason, Status};
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Call, Registry};
use crate::{
    http::{
        body::Body,
        content::{Encoding, Form, Wanted},
        respond,
    },
    kinds::Kind,
    object::{
        self,
        parts::{self, Partial, Parts},
    },
    protobuf,
};

/// Whether a Table has its column definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Shown,
    /// All but the first event of a watch go without.
    Left,
}

/// What the rows of a Table carry besides their cells (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// How objects are written for one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renderer {
    pub(crate) kind: &'static Kind,
    form: Form,
    encoding: Encoding,
    meta_version: &'static str,
    include: Include,
    now: Timestamp,
}

/// Of whom only the metadata is shown, nothing else is read.
static NOTHING: Parts = Parts::Of(&[]);

impl Registry {
    /// How this call wants its objects.
    pub(crate) fn renderer(&self, call: &Call<'_>) -> Result<Renderer, Status> {
        let include = match call.query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        let Wanted { form, encoding, meta_version } = call.wanted;
        let now = self.clock.now();
        Ok(Renderer { kind: call.kind, form, encoding, meta_version, include, now })
    }
}

impl Renderer {
    /// The same at another time.
    pub(crate) fn at(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// One object.
    pub(crate) fn object(self, value: &Bytes, header: Header) -> Result<Bytes, Status> {
        match self.form {
            Form::Object => self.own_version(value),
            Form::PartialMetadata => Ok(self.partial(value)?.into()),
            Form::PartialMetadataList => Err(Status::new(
                Reason::NotAcceptable,
                format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a \
                     list (*{}.{})",
                    self.kind.version, self.kind.kind
                ),
            )),
            Form::Table => {
                let version = object::parse(value)?;
                let version = object::meta(&version, "resourceVersion");
                let metadata = json!({"resourceVersion": version});
                self.table(&metadata, std::iter::once(value), header)
            }
        }
    }

    /// The object as this version of its kind has it.
    fn own_version(self, value: &Bytes) -> Result<Bytes, Status> {
        if self.kind.conversion.is_none() {
            return Ok(value.clone());
        }
        let mut object = object::parse_whole(value)?;
        self.kind.convert_from_stored(&mut object);
        Ok(object.to_string().into())
    }

    /// A list of objects as an answer.
    pub(crate) fn list<'a>(
        self,
        metadata: &Value,
        values: impl Iterator<Item = &'a Bytes>,
    ) -> Result<Response<Body>, Status> {
        if self.encoding == Encoding::Protobuf && self.form != Form::Table {
            let (version, kind) = self.list_type()?;
            let items = values.filter_map(|it| readable(self.item(it)));
            return list_message((&version, &kind), metadata, items);
        }
        let text = self.whole(self.head(metadata, Header::Shown)?, values);
        respond::encoded(StatusCode::OK, self.encoding, text)
    }

    fn table<'a>(
        self,
        metadata: &Value,
        values: impl Iterator<Item = &'a Bytes>,
        header: Header,
    ) -> Result<Bytes, Status> {
        Ok(self.whole(self.head(metadata, header)?, values))
    }

    fn whole<'a>(self, head: String, values: impl Iterator<Item = &'a Bytes>) -> Bytes {
        let mut text = head.into_bytes();
        let begin = text.len();
        for value in values {
            let comma: &[u8] = if text.len() == begin { b"" } else { b"," };
            self.put_item(comma, value, &mut text);
        }
        text.extend_from_slice(b"]}");
        text.into()
    }

    /// `apiVersion` and `kind` of a list that is no Table.
    fn list_type(self) -> Result<(String, String), Status> {
        match self.form {
            Form::Object | Form::Table => {
                Ok((self.kind.api_version(), format!("{}List", self.kind.kind)))
            }
            Form::PartialMetadataList => {
                Ok((self.meta_version.to_owned(), "PartialObjectMetadataList".to_owned()))
            }
            Form::PartialMetadata => Err(Status::new(
                Reason::NotAcceptable,
                format!(
                    "you requested PartialObjectMetadata, but the requested object is a list \
                     (*{}.{}List)",
                    self.kind.version, self.kind.kind
                ),
            )),
        }
    }

    /// Everything of a list before its items.
    pub(super) fn head(self, metadata: &Value, header: Header) -> Result<String, Status> {
        if self.form == Form::Table {
            let columns = match header {
                Header::Shown => Cow::Owned(columns(self.kind).to_string()),
                Header::Left => Cow::Borrowed("null"),
            };
            return Ok(format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\
                 \"columnDefinitions\":{columns},\"rows\":[",
                self.meta_version
            ));
        }
        let (version, kind) = self.list_type()?;
        Ok(format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\
             \"items\":["
        ))
    }

    /// Whether items of a list are the stored bytes.
    pub(super) fn copies_items(self) -> bool {
        self.form == Form::Object && self.kind.conversion.is_none()
    }

    /// Appends an item of a list behind `comma`.
    pub(super) fn put_item(self, comma: &[u8], value: &Bytes, text: &mut Vec<u8>) {
        if let Some(item) = readable(self.item(value)) {
            text.extend_from_slice(comma);
            text.extend_from_slice(&item);
        }
    }

    fn item(self, value: &Bytes) -> Result<Bytes, Status> {
        match self.form {
            Form::Table => self.row(value).map(Bytes::from),
            Form::PartialMetadata | Form::PartialMetadataList => {
                self.partial(value).map(Bytes::from)
            }
            Form::Object => self.own_version(value),
        }
    }

    fn row(self, value: &Bytes) -> Result<Vec<u8>, Status> {
        let Partial { object, metadata } = parts::read(value, &self.kind.row_reads)?;
        let mut row = Vec::with_capacity(512 + metadata.len());
        row.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut row, &(self.kind.row)(&object, self.now))
            .map_err(|error| Status::internal(&format!("encode a row: {error}")))?;
        row.extend_from_slice(b",\"object\":");
        match self.include {
            Include::None => row.extend_from_slice(b"null"),
            Include::Metadata => row.extend_from_slice(self.only(metadata).as_bytes()),
            Include::Object => row.extend_from_slice(&self.own_version(value)?),
        }
        row.push(b'}');
        Ok(row)
    }

    fn partial(self, value: &Bytes) -> Result<String, Status> {
        Ok(self.only(parts::read(value, &NOTHING)?.metadata))
    }

    fn only(self, metadata: &str) -> String {
        format!(
            "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":{metadata}}}",
            self.meta_version
        )
    }

    /// Appends an event of a watch, in the framing of its encoding. `json` is an object as this
    /// renderer writes it, or a Status.
    pub(crate) fn put_event(self, chunk: &mut Vec<u8>, kind: &str, json: &[u8]) {
        let failed = match self.encoding {
            Encoding::Json | Encoding::Yaml => return put_line(chunk, kind, json),
            Encoding::Protobuf => match protobuf::put_event(chunk, kind, json) {
                Ok(()) => return,
                Err(error) => respond::unwritable(&error),
            },
        };
        tracing::error!(status = %failed, "an object is left out of a watch");
        let json = failed.to_json().to_string();
        if let Err(error) = protobuf::put_event(chunk, "ERROR", json.as_bytes()) {
            tracing::error!(%error, "a failure cannot be told");
        }
    }

    /// The object of a bookmark: nothing but a resource version, and what marks the end of the
    /// initial events (KEP-3157).
    pub(crate) fn bookmark(self, revision: store::Revision, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            let annotation = json!({"k8s.io/initial-events-end": "true"});
            object::set(&mut metadata, &["annotations"], annotation);
        }
        match self.form {
            Form::Table => json!({
                "kind": "Table",
                "apiVersion": self.meta_version,
                "metadata": metadata,
                "columnDefinitions": null,
                "rows": [],
            }),
            Form::PartialMetadata | Form::PartialMetadataList => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": self.meta_version,
                "metadata": metadata,
            }),
            Form::Object => json!({
                "kind": self.kind.kind,
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
            }),
        }
    }
}

/// A list of this version and kind in protobuf.
fn list_message(
    (version, kind): (&str, &str),
    metadata: &Value,
    items: impl Iterator<Item = Bytes>,
) -> Result<Response<Body>, Status> {
    let refuse = |error| respond::unwritable(&error);
    let mut list = protobuf::List::new(version, kind, &metadata.to_string()).map_err(refuse)?;
    for item in items {
        readable(list.push(&item).map_err(refuse));
    }
    Ok(respond::protobuf(StatusCode::OK, list.finish().into()))
}

/// An event as a line of JSON.
fn put_line(chunk: &mut Vec<u8>, kind: &str, json: &[u8]) {
    let parts: [&[u8]; 5] = [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", json, b"}\n"];
    for part in parts {
        chunk.extend_from_slice(part);
    }
}

/// One malformed object never stops a list: it is left out, and the log says so.
fn readable<T>(item: Result<T, Status>) -> Option<T> {
    item.inspect_err(|status| tracing::error!(%status, "a stored object is left out of a list"))
        .ok()
}

fn columns(kind: &Kind) -> Value {
    let columns = kind.columns.iter().map(|it| {
        json!({
            "name": it.name,
            "type": it.kind,
            "format": it.format,
            "description": it.description,
            "priority": it.priority,
        })
    });
    Value::Array(columns.collect())
}
