//! `pods/NAME/binding`: the scheduler names the node of a pod, once.

use api::status::{self, Details, GroupResource, Status};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    http::{body::Body, respond},
    object::{self, is_terminating, meta, text},
    ownership::Draft,
    patch::read_object,
    registry::{Call, Registry},
};

const RESOURCE: GroupResource<'static> = GroupResource { group: "", resource: "pods/binding" };

impl Registry {
    /// `POST` of a Binding.
    pub(crate) async fn bind(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let binding = read_object(headers, &body)?;
        let node = text(&binding, &["target", "name"]);
        if node.is_empty() {
            return Err(Status::bad_request("binding: target.name: Required value"));
        }
        let uid = meta(&binding, "uid");
        let now = object::time(self.clock.now());
        let writer = call.writer("CreateOptions", self.clock.now())?;
        self.change(call, &writer, call.dry_run()?, |live| {
            check(call.name, node, uid, live.object)?;
            let mut bound = live.object.clone();
            object::set(&mut bound, &["spec", "nodeName"], json!(node));
            set_scheduled(&mut bound, &now);
            Ok(Draft::kept(bound))
        })
        .await?;
        let success = status::success(&Details::default());
        respond::encoded(StatusCode::CREATED, call.wanted.encoding, success.to_string().into())
    }
}

fn check(name: &str, node: &str, uid: &str, pod: &Value) -> Result<(), Status> {
    let found = meta(pod, "uid");
    if !uid.is_empty() && uid != found {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Status::conflict(RESOURCE, name, &why));
    }
    if is_terminating(pod) {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(Status::conflict(RESOURCE, name, &why));
    }
    let bound = text(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        let why = if bound == node {
            format!("pod {name} is already assigned to node \"{bound}\"")
        } else {
            format!("pod {name} is already assigned to node \"{bound}\", not to \"{node}\"")
        };
        return Err(Status::conflict(RESOURCE, name, &why));
    }
    Ok(())
}

/// Sets the condition `PodScheduled`.
fn set_scheduled(pod: &mut Value, now: &Value) {
    let conditions = object::at(pod, &["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.cloned().unwrap_or_default();
    conditions.retain(|it| text(it, &["type"]) != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    }));
    object::set(pod, &["status", "conditions"], Value::Array(conditions));
}
