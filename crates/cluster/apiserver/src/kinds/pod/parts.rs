//! Subresources of pods that are a part of the pod: containers added to a running one, and other
//! amounts of what containers ask for.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use super::quality_of_service;
use crate::kinds::{
    Causes, Reason, Subresource,
    path::Path,
    rules,
    value::{Read, items_mut, keep},
};

/// Fields that a container cannot have that is added to a running pod.
const NOT_EPHEMERAL: [&str; 8] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "startupProbe",
];
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Leaves everything of `new` as it was but the part.
pub(super) fn prepare(part: Subresource, new: &mut Value, old: &Value) {
    let mut whole = old.clone();
    if let Some(spec) = whole.get_mut("spec") {
        match part {
            Subresource::EphemeralContainers => {
                keep(spec, "ephemeralContainers", new.field("spec"));
            }
            Subresource::Resize => {
                for list in ["containers", "initContainers"] {
                    let asked = new.field("spec").items(list);
                    for container in items_mut(spec, list) {
                        let name = container.text("name").to_owned();
                        if let Some(asked) = asked.iter().find(|it| it.text("name") == name) {
                            keep(container, "resources", asked);
                            keep(container, "resizePolicy", asked);
                        }
                    }
                }
            }
            Subresource::Status
            | Subresource::Scale
            | Subresource::Log
            | Subresource::Proxy
            | Subresource::Binding
            | Subresource::Approval
            | Subresource::Eviction
            | Subresource::Finalize => {}
        }
    }
    *new = whole;
}

/// Checks what became of the part.
pub(super) fn validate_update(part: Subresource, new: &Value, old: &Value, causes: &mut Causes) {
    if part == Subresource::Resize {
        resize(new, old, causes);
        return;
    }
    let name = "ephemeralContainers";
    let (containers, path) = (new.field("spec").items(name), Path::new("spec"));
    for before in old.field("spec").items(name) {
        let own = before.text("name");
        let detail = match containers.iter().find(|it| it.text("name") == own) {
            None => format!("existing ephemeral containers {own:?} may not be removed\n"),
            Some(after) if after != before => {
                let difference = rules::difference(after, before);
                format!("existing ephemeral containers {own:?} may not be changed\n{difference}")
            }
            Some(_) => continue,
        };
        causes.forbidden(path.child(name), &detail);
    }
}

fn resize(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    if quality_of_service(new.field("spec")) != quality_of_service(old.field("spec")) {
        let class = new.field("status").field("qosClass");
        causes.invalid(path, class, "Pod QOS Class may not change as a result of resizing");
    }
    // A node that can do this reports what containers have.
    let mut statuses = old.field("status").items("containerStatuses").iter();
    let running = statuses.find(|it| it.field("state").has("running"));
    let is_running = old.field("status").text("phase") == "Running";
    if is_running && running.is_some_and(|it| !it.has("resources")) {
        causes.forbidden(path, "Pod running on node without support for resize");
    }
    for list in ["containers", "initContainers"] {
        for container in new.field("spec").items(list) {
            let name = container.text("name");
            let mut others = old.field("spec").items(list).iter();
            let before = others.find(|it| it.text("name") == name).unwrap_or(&Value::Null);
            if other_amounts(container) != other_amounts(before) {
                causes.forbidden(path, "only cpu and memory resources are mutable");
            }
        }
    }
}

/// What a container asks for beyond what can change.
fn other_amounts(container: &Value) -> BTreeSet<(&str, &str, String)> {
    let resources = container.field("resources");
    let lists = ["limits", "requests"].into_iter();
    let all = lists.flat_map(|list| resources.members(list).map(move |it| (list, it.0, it.1)));
    let others = all.filter(|it| !matches!(it.1, "cpu" | "memory"));
    others.map(|(list, name, amount)| (list, name, amount.to_string())).collect()
}

/// Checks the containers that were added to a running pod.
pub(super) fn validate_ephemeral(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let lists = ["containers", "initContainers"].into_iter();
    let others: BTreeSet<&str> =
        lists.flat_map(|it| spec.items(it)).map(|it| it.text("name")).collect();
    let mut seen = others.clone();
    let list = path.child("ephemeralContainers");
    for (index, container) in spec.items("ephemeralContainers").iter().enumerate() {
        let path = list.index(index);
        let name = container.text("name");
        rules::required_name(container, "name", names::dns1123_label, path, causes);
        if container.text("image").is_empty() {
            causes.required(path.child("image"), "");
        }
        if !seen.insert(name) {
            causes.duplicate(path.child("name"), &name.into());
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            let message = format!("Not found: {target:?}");
            causes.push(Reason::NotFound, path.child("targetContainerName"), message);
        }
        let says_something = |name: &&&str| match container.field(name) {
            Value::Object(members) => !members.is_empty(),
            other => !other.is_null(),
        };
        for field in NOT_EPHEMERAL.iter().filter(says_something) {
            causes.forbidden(path.child(field), NOT_FOR_EPHEMERAL);
        }
        let mounts = path.child("volumeMounts");
        for (index, mount) in container.items("volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].iter().filter(|it| mount.has(it)) {
                causes.forbidden(mounts.index(index).child(field), NOT_FOR_EPHEMERAL);
            }
        }
    }
}
