//! `PATCH`: which of the patch languages it is, and what it makes of an object.

pub(crate) mod apply;
mod json;
mod strategic;

use std::borrow::Cow;

use api::status::{Cause, Reason, Status};
use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::Value;

use crate::{
    http::{
        body::Body,
        content::{self, Format},
    },
    limits::JSON_PATCH_OPERATIONS_MAX,
    object::{
        self,
        decode::{self, FieldValidation},
    },
    ownership::{Draft, Live},
    registry::{Call, Registry, generation, warnings_on_update},
};

/// The patch languages that are read.
const READ: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA_TYPE,
];

/// A patch, read but not applied.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows how lists are merged.
    Strategic(Value),
}

impl Patch {
    /// Reads a body by its media type.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        let media_type = content::media_type(headers);
        match media_type {
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(unreadable)?;
                if patch.len() > JSON_PATCH_OPERATIONS_MAX {
                    let message = format!(
                        "The allowed maximum operations in a JSON patch is \
                         {JSON_PATCH_OPERATIONS_MAX}, got {}",
                        patch.len()
                    );
                    return Err(Status::new(Reason::RequestEntityTooLarge, message));
                }
                Ok(Self::Json(patch))
            }
            "application/merge-patch+json" => {
                Ok(Self::Merge(serde_json::from_slice(body).map_err(unreadable)?))
            }
            "application/strategic-merge-patch+json" => {
                Ok(Self::Strategic(serde_json::from_slice(body).map_err(unreadable)?))
            }
            _ => Err(Status::unsupported_media_type(READ, "")),
        }
    }

    /// The object after the patch; `schema` is the name of its type.
    pub(crate) fn apply(&self, schema: &str, old: &Value) -> Result<Value, Status> {
        let mut new = old.clone();
        match self {
            Self::Json(patch) => {
                json::apply(&mut new, patch)?;
            }
            Self::Merge(patch) => json_patch::merge(&mut new, patch),
            Self::Strategic(patch) => {
                let refuse = |error: strategic::Error| Status::bad_request(error.to_string());
                new = strategic::apply(new, patch, schema).map_err(refuse)?;
            }
        }
        if new.is_object() {
            Ok(new)
        } else {
            Err(Status::bad_request("the patch leaves no object"))
        }
    }
}

fn unreadable(error: serde_json::Error) -> Status {
    Status::bad_request(format!("error decoding patch: {error}"))
}

/// 422 as Kubernetes answers a JSON patch that does not apply: without the reason, which is in the
/// log instead.
fn unprocessable(error: &json_patch::PatchError) -> Status {
    tracing::debug!(%error, "JSON patch does not apply");
    Status::new(Reason::Invalid, "the server rejected our request due to an error in our request")
}

impl Registry {
    /// `PATCH …/NAME` and `PATCH …/NAME/status`.
    pub(crate) async fn patch(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        if content::media_type(headers) == apply::MEDIA_TYPE {
            return self.apply(call, body).await;
        }
        refuse_force(call)?;
        let validation = FieldValidation::of(&call.query)?;
        let dry_run = call.dry_run()?;
        let patch = Patch::read(headers, &body)?;
        let writer = call.writer("PatchOptions", self.clock.now())?;
        let (mut warnings, mut before) = (Vec::new(), None);
        let value = self
            .change(call, &writer, dry_run, |live| {
                before = generation(live.object);
                let new = patch.apply(call.kind.schema, &patched(live, &body))?;
                let new = decode::typed(call.kind, new)?;
                let decoded =
                    decode::check(call.kind, new, duplicates(&body, validation), validation);
                let decoded = decoded.map_err(|why| invalid(&body, &why.cause()))?;
                warnings = decoded.warnings;
                Ok(Draft::compared(decoded.object))
            })
            .await?;
        warnings.extend(warnings_on_update(call, before, &value)?);
        self.changed(call, &value, &warnings)
    }
}

/// What a patch is laid over: with the list of who owns what, if it may be about that.
fn patched<'a>(live: Live<'a>, body: &[u8]) -> Cow<'a, Value> {
    let says = |what: &[u8]| body.windows(what.len()).any(|it| it == what);
    let asked = live.owners.filter(|_| says(b"managedFields") || says(b"\\u"));
    match asked.and_then(|it| serde_json::from_str::<Value>(it).ok()) {
        None => Cow::Borrowed(live.object),
        Some(owners) => {
            let mut object = live.object.clone();
            object::set(&mut object, &["metadata", "managedFields"], owners);
            Cow::Owned(object)
        }
    }
}

/// Only an apply can be forced.
pub(crate) fn refuse_force(call: &Call<'_>) -> Result<(), Status> {
    if call.query.optional_flag("force").is_none() {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueForbidden",
        message: "Forbidden: may not be specified for non-apply patch".to_owned(),
        field: "force".to_owned(),
    };
    Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]))
}

fn duplicates(body: &[u8], validation: FieldValidation) -> Vec<String> {
    match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => crate::schema::duplicates(body),
    }
}

/// 422 about the patch itself.
fn invalid(body: &[u8], why: &str) -> Status {
    let patch = Value::String(String::from_utf8_lossy(body).into_owned());
    let cause = Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {patch}: {why}"),
        field: "patch".to_owned(),
    };
    Status::invalid("", "", "", vec![cause])
}

/// Reads the body of a subresource that is an object of its own (Scale, Binding).
pub(crate) fn read_object(headers: &HeaderMap, body: &[u8]) -> Result<Value, Status> {
    let format: Format = content::body_format(headers)?;
    decode::value(body, format)
        .map_err(|error| Status::bad_request(format!("the body could not be read: {error}")))
}

#[cfg(test)]
mod tests;
