//! `pods/NAME/binding` and `bindings`: the scheduler names the node of a pod, once.

use api::status::{self, GroupResource, Status};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    http::{body::Body, query::Query, respond},
    kinds::{KINDS, Subresource},
    object::{self, is_terminating, meta, text},
    ownership::Draft,
    patch::read_object,
    registry::{Call, Registry, take_namespace},
};

const RESOURCE: GroupResource<'static> = GroupResource { group: "", resource: "pods/binding" };

impl Registry {
    /// `POST …/pods/NAME/binding`.
    pub(crate) async fn bind(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let binding = read_object(headers, &body)?;
        let name = meta(&binding, "name");
        if !name.is_empty() && name != call.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        self.bind_to(call, &binding).await
    }

    /// `POST …/bindings`: the pod is that of the Binding's name.
    pub(crate) async fn bind_by_name(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let decoded = call.decode(headers, &body)?;
        let mut binding = decoded.object;
        take_namespace(call, &mut binding)?;
        let Some(kind) = KINDS.iter().copied().find(|it| (it.group, it.kind) == ("", "Pod")) else {
            return Err(Status::no_such_path());
        };
        let dry_run = Query::parse(call.dry_run()?.then_some("dryRun=All"));
        let (name, subresource) = (meta(&binding, "name"), Some(Subresource::Binding));
        let call = Call { kind, name, subresource, query: dry_run, ..*call };
        let mut response = self.bind_to(&call, &binding).await?;
        respond::warn(&mut response, &decoded.warnings);
        Ok(response)
    }

    async fn bind_to(&self, call: &Call<'_>, binding: &Value) -> Result<Response<Body>, Status> {
        let node = text(binding, &["target", "name"]);
        if node.is_empty() {
            return Err(Status::bad_request("binding: target.name: Required value"));
        }
        let uid = meta(binding, "uid");
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
        let text = status::created().to_string().into();
        respond::encoded(StatusCode::CREATED, call.wanted.encoding, text)
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
