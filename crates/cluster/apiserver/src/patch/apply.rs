//! `PATCH` as server-side apply: `application/apply-patch+yaml`, to an object that need not exist
//! yet or to its
//! status. A scale is applied in [`crate::subresources`].

use api::status::{Cause, Reason, Status};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    http::{body::Body, respond},
    limits::WRITE_ATTEMPTS_MAX,
    object::{
        self,
        decode::{self, FieldValidation},
        meta, yaml,
    },
    ownership::{Draft, Live, Writer},
    registry::{Call, Registry, generation, render::Header, warnings_on_update},
    schema,
};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// A body, read: what is applied, and what the client should hear.
pub(crate) struct Applied {
    pub(crate) wanted: Value,
    pub(crate) force: bool,
    warnings: Vec<String>,
}

impl Applied {
    /// Reads parameters and body.
    pub(crate) fn read(call: &Call<'_>, body: &[u8]) -> Result<Self, Status> {
        if call.query.get("fieldManager").is_none() {
            let cause = Cause {
                reason: "FieldValueRequired",
                message: "Required value: is required for apply patch".to_owned(),
                field: "fieldManager".to_owned(),
            };
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        let validation = FieldValidation::of(&call.query)?;
        let force = call.query.flag("force");
        let (wanted, duplicates) = read(body)?;
        let wanted = match wanted {
            Value::Object(_) => wanted,
            Value::Null => json!({}),
            _ => {
                let why = "error decoding YAML: the configuration must be an object";
                return Err(Status::bad_request(why));
            }
        };
        let warnings = match validation {
            FieldValidation::Strict if !duplicates.is_empty() => {
                let why = yaml::strict(&duplicates);
                return Err(Status::bad_request(format!(
                    "error strict decoding YAML: error converting YAML to JSON: {why}"
                )));
            }
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn | FieldValidation::Strict => duplicates,
        };
        Ok(Self { wanted, force, warnings })
    }
}

/// A body, which may be JSON, and what it says twice: of JSON in the same words.
fn read(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    if let Ok(value) = serde_json::from_slice(body)
        && schema::duplicates(body).is_empty()
    {
        return Ok((value, Vec::new()));
    }
    let yaml::Yaml { value, duplicates } = yaml::read(body).map_err(|why| {
        Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}"))
    })?;
    Ok((value, duplicates))
}

impl Registry {
    /// Applies a configuration.
    pub(super) async fn apply(
        &self,
        call: &Call<'_>,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let applied = Applied::read(call, &body)?;
        let dry_run = call.dry_run()?;
        let writer = call.writer("PatchOptions", self.clock.now())?;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let exists = self.store.get(&call.key()).is_some();
            let mut before = None;
            let written = if exists {
                let draft = |live: Live<'_>| {
                    before = generation(live.object);
                    over(call, &writer, &applied, live)
                };
                self.change(call, &writer, dry_run, draft).await
            } else if call.subresource.is_none() {
                self.apply_new(call, &writer, &applied, dry_run).await
            } else {
                Err(call.not_found())
            };
            match written {
                // Somebody else was faster.
                Err(status) if status.reason() == Reason::AlreadyExists => {}
                Err(status) if exists && status.reason() == Reason::NotFound => {}
                Err(status) => return Err(status),
                Ok(value) if exists => {
                    let mut warnings = applied.warnings.clone();
                    warnings.extend(warnings_on_update(call, before, &value)?);
                    return self.changed(call, &value, &warnings);
                }
                Ok(value) => {
                    let text = self.renderer(call)?.object(&value, Header::Shown)?;
                    let mut response =
                        respond::encoded(StatusCode::CREATED, call.wanted.encoding, text)?;
                    respond::warn(&mut response, &applied.warnings);
                    return Ok(response);
                }
            }
        }
        Err(Status::modified(call.kind.resource(), call.name))
    }

    async fn apply_new(
        &self,
        call: &Call<'_>,
        writer: &Writer<'_>,
        applied: &Applied,
        dry_run: bool,
    ) -> Result<Bytes, Status> {
        let draft = writer.apply(None, &applied.wanted, applied.force)?;
        let uid = meta(&applied.wanted, "uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was \
                 found"
            );
            return Err(Status::conflict(call.kind.resource(), call.name, &why));
        }
        let mut draft = fitting(call, draft)?;
        object::remove(&mut draft.object, &["metadata", "resourceVersion"]);
        self.create_object(call, writer, draft, dry_run).await
    }
}

fn over(
    call: &Call<'_>,
    writer: &Writer<'_>,
    applied: &Applied,
    live: Live<'_>,
) -> Result<Draft, Status> {
    fitting(call, writer.apply(Some(live), &applied.wanted, applied.force)?)
}

/// The draft as an object of the kind, if it is the one that the path names.
fn fitting(call: &Call<'_>, draft: Draft) -> Result<Draft, Status> {
    let object = decode::typed(call.kind, draft.object)?;
    let decoded = decode::check(call.kind, object, Vec::new(), FieldValidation::Ignore);
    let mut object = decoded.map_err(|why| Status::bad_request(why.text()))?.object;
    match meta(&object, "name") {
        name if name == call.name => {}
        "" => {
            return Err(Status::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                call.name
            )));
        }
        name => {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name
            )));
        }
    }
    crate::registry::take_namespace(call, &mut object)?;
    Ok(Draft { object, ..draft })
}
