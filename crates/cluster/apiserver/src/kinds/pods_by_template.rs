//! What Deployments, ReplicaSets, StatefulSets and DaemonSets have in common: a template of pods, and a selector of those that
//! belong to them. What a pod in a template may be is in [`pod_spec`](super::pod_spec).

use serde_json::Value;

use super::{
    Causes, Column,
    path::Path,
    pod_spec,
    print::{self, wide},
    rules,
    value::{Read, object_mut},
};

/// The last columns; [`cells`] fills them.
pub(super) const CONTAINERS: Column = wide("Containers", "Names of the template's containers.");
pub(super) const IMAGES: Column = wide("Images", "Images of the template's containers.");
pub(super) const SELECTOR: Column = wide("Selector", "Labels of the pods that belong here.");

/// Fills in the template.
pub(super) fn default(spec: &mut Value) {
    if let Some(template) = object_mut(spec, "template") {
        object_mut(template, "metadata");
        if let Some(spec) = object_mut(template, "spec") {
            pod_spec::default(spec);
        }
    }
}

/// What is said of the template.
pub(super) fn warnings(object: &Value) -> Vec<String> {
    pod_spec::warnings(object.at(&["spec", "template"]), "spec.template.")
}

/// The same of a new object, and of its name.
pub(super) fn warnings_of_new(object: &Value) -> Vec<String> {
    let name = name_warning(object, "Pod names and hostnames");
    name.into_iter().chain(warnings(object)).collect()
}

/// What is said of a name that cannot be the host name of a pod, for which it is used in these words.
pub(super) fn name_warning(object: &Value, used: &str) -> Option<String> {
    let name = object.field("metadata").text("name");
    let problems = api::names::dns1123_label(name);
    (!name.is_empty() && !problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a \
             DNS label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// Checks selector and template of a Deployment or ReplicaSet.
pub(super) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    // The original calls both by each other's name.
    selector(spec, "deployment", path, causes);
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    pod_spec::template(template, selector, "ReplicaSet", path.child("template"), causes);
}

/// Checks the selector of an object that messages call `kind`.
pub(super) fn selector(spec: &Value, kind: &str, path: Path<'_>, causes: &mut Causes) {
    let selector = spec.field("selector");
    if selector.is_null() {
        causes.required(path.child("selector"), "");
    } else {
        rules::label_selector(selector, path.child("selector"), causes);
        if rules::selects_everything(selector) {
            let detail = format!("empty selector is invalid for {kind}");
            causes.invalid(path.child("selector"), selector, &detail);
        }
    }
}

/// A number or a percentage of pods, at most all of them.
pub(super) fn share(object: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    share_of_any(object, name, path, causes);
    let value = object.field(name);
    let percent = value.as_str().and_then(|it| it.strip_suffix('%')?.parse::<i64>().ok());
    if percent.is_some_and(|it| 100 < it) {
        causes.invalid(path.child(name), value, "must not be greater than 100%");
    }
}

/// A number or a percentage of pods.
pub(super) fn share_of_any(object: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    match object.field(name) {
        Value::String(text) => {
            rules::all(api::names::percent(text), path.child(name), text.as_str(), causes);
        }
        _ => rules::not_negative(object, name, path, causes),
    }
}

/// Whether a number or percentage of pods is none.
pub(super) fn is_zero(number_or_percent: &Value) -> bool {
    match number_or_percent {
        Value::String(text) => text.trim_end_matches('%').parse() == Ok(0),
        other => other.as_i64().unwrap_or_default() == 0,
    }
}

/// Which pods belong to an object is settled when it is created.
pub(super) fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    rules::unchanged(new, old, "selector", Path::new("spec").child("selector"), causes);
}

/// Cells of [`CONTAINERS`], [`IMAGES`] and [`SELECTOR`].
pub(super) fn cells(spec: &Value) -> [Value; 3] {
    let [names, images] = print::containers(spec.at(&["template", "spec"]));
    [names.into(), images.into(), print::selector(spec.field("selector")).into()]
}
