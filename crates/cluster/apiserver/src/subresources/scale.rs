//! `/scale`: the replicas of a workload as an `autoscaling/v1` Scale, the same for every kind that
//! has `spec.replicas`, `status.replicas` and `spec.selector`.

use api::{selector::LabelSelector, status::Status};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    http::{
        body::Body,
        content::{self, Form},
        respond,
    },
    object::{self, at, meta},
    ownership::{Claims, Draft, Live},
    patch::{
        Patch,
        apply::{self, Applied},
        read_object, refuse_force,
    },
    registry::{Call, Registry},
    schema,
};

impl Registry {
    /// `GET`.
    pub(crate) fn get_scale(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let entry = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        answer(call, &entry.value)
    }

    /// `PUT`.
    pub(crate) async fn update_scale(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let scale = read_object(headers, &body)?;
        let writer = call.writer("UpdateOptions", self.clock.now())?;
        let draft = |live: Live<'_>| {
            let old = of(live.object)?;
            Ok(Draft {
                object: scaled(live.object, &scale)?,
                owners: Claims::Known(writer.scale(live, &old, &scale)?),
            })
        };
        let value = self.change(call, &writer, call.dry_run()?, draft).await?;
        answer(call, &value)
    }

    /// `PATCH`: the patch is about the Scale, not about the workload.
    pub(crate) async fn patch_scale(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let writer = call.writer("PatchOptions", self.clock.now())?;
        let dry_run = call.dry_run()?;
        let value = if content::media_type(headers) == apply::MEDIA_TYPE {
            let applied = Applied::read(call, &body)?;
            let draft = |live: Live<'_>| {
                let (scale, owners) =
                    writer.apply_scale(live, &of(live.object)?, &applied.wanted, applied.force)?;
                Ok(Draft { object: scaled(live.object, &scale)?, owners: Claims::Known(owners) })
            };
            self.change(call, &writer, dry_run, draft).await?
        } else {
            refuse_force(call)?;
            let patch = Patch::read(headers, &body)?;
            let draft = |live: Live<'_>| {
                let old = of(live.object)?;
                let scale = patch.apply(schema::SCALE, &old)?;
                Ok(Draft {
                    object: scaled(live.object, &scale)?,
                    owners: Claims::Known(writer.scale(live, &old, &scale)?),
                })
            };
            self.change(call, &writer, dry_run, draft).await?
        };
        answer(call, &value)
    }
}

fn answer(call: &Call<'_>, value: &Bytes) -> Result<Response<Body>, Status> {
    if call.wanted.form != Form::Object {
        return Err(Status::not_acceptable(content::SERVED));
    }
    let scale = of(&object::parse(value)?)?;
    respond::encoded(StatusCode::OK, call.wanted.encoding, scale.to_string().into())
}

/// The Scale of a workload.
fn of(workload: &Value) -> Result<Value, Status> {
    let selector = at(workload, &["spec", "selector"]).cloned().unwrap_or(json!({}));
    // The oldest kind of workload selects by labels alone.
    let selector = match object::text(workload, &["kind"]) {
        "ReplicationController" => json!({"matchLabels": selector}),
        _ => selector,
    };
    let selector = serde_json::from_value(selector)
        .map_err(|error| Status::internal(&format!("decode a stored selector: {error}")))?;
    let selector = LabelSelector::from_object(&selector)
        .map_err(|error| Status::internal(&format!("read a stored selector: {error}")))?;
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": at(workload, &["spec", "replicas"]).unwrap_or(&json!(0))},
        "status": {
            "replicas": at(workload, &["status", "replicas"]).unwrap_or(&json!(0)),
            "selector": selector.to_string(),
        },
    });
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        object::copy(&mut scale, workload, &["metadata", key]);
    }
    Ok(scale)
}

/// The workload with the replicas of a Scale, and with its resource version as precondition.
fn scaled(workload: &Value, scale: &Value) -> Result<Value, Status> {
    let name = meta(scale, "name");
    if !name.is_empty() && name != meta(workload, "name") {
        let found = meta(workload, "name");
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({found})"
        )));
    }
    let replicas = match at(scale, &["spec", "replicas"]) {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|it| i32::try_from(*it).is_ok()).ok_or_else(|| {
            Status::bad_request(format!("spec.replicas: `{value}` is not a 32-bit integer"))
        })?,
    };
    let mut new = workload.clone();
    object::set(&mut new, &["spec", "replicas"], json!(replicas));
    for key in ["resourceVersion", "uid"] {
        if at(scale, &["metadata", key]).is_some() {
            object::copy(&mut new, scale, &["metadata", key]);
        }
    }
    Ok(new)
}
