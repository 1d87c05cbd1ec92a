//! What Deployments and ReplicaSets have in common: a template of pods, and a selector of those that
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

/// Checks selector and template.
pub(super) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let selector = spec.field("selector");
    if selector.is_null() {
        causes.required(path.child("selector"), "");
    } else {
        rules::label_selector(selector, path.child("selector"), causes);
        if rules::selects_everything(selector) {
            let detail = "empty selector is invalid for deployment";
            causes.invalid(path.child("selector"), selector, detail);
        }
    }
    pod_spec::template(spec.field("template"), selector, path.child("template"), causes);
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
