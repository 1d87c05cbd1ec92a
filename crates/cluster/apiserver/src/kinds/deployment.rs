//! Deployments.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    pod_spec,
    print::{self, AGE, NAME, column, number, wide},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static DEPLOYMENT: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.apps.v1.Deployment",
    subresources: &[Subresource::Status, Subresource::Scale],
    generation: true,
    deletion: Deletion::Immediate,
    default,
    prepare_create: |deployment| set(deployment, "status", json!({})),
    prepare_update,
    prepare_status,
    validate,
    validate_update,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row,
    fields: |_, _| None,
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Pods that are ready, of those wanted."),
    number("Up-to-date", "Pods made from the newest template."),
    number("Available", "Pods that have been ready for `minReadySeconds`."),
    AGE,
    wide("Containers", "Names of the template's containers."),
    wide("Images", "Images of the template's containers."),
    wide("Selector", "Labels of the pods that belong here."),
];

/// How many old versions of a template are kept.
const REVISIONS_KEPT: i64 = 10;
/// Seconds without progress after which a rollout counts as failed.
const PROGRESS_SECONDS: i64 = 600;
/// How many pods more or fewer than wanted there may be during a rollout.
const SURGE: &str = "25%";

fn default(deployment: &mut Value) {
    let Some(spec) = object_mut(deployment, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
    set_default(spec, "progressDeadlineSeconds", PROGRESS_SECONDS);
    if let Some(strategy) = object_mut(spec, "strategy") {
        set_default(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxSurge", SURGE);
            set_default(rolling, "maxUnavailable", SURGE);
        }
    }
    default_template(spec);
}

/// Fills in the template of a Deployment's or ReplicaSet's `spec`.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(template) = object_mut(spec, "template") {
        object_mut(template, "metadata");
        if let Some(spec) = object_mut(template, "spec") {
            pod_spec::default(spec);
        }
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep(new, "status", old);
    // Annotations are copied to replica sets, so their change is work for the controller too.
    let annotations = |it: &Value| it.at(&["metadata", "annotations"]).clone();
    let generation = old.field("metadata").int("generation");
    if let (Some(generation), Some(metadata)) = (generation, new.get("metadata"))
        && new.field("spec") == old.field("spec")
        && annotations(new) != annotations(old)
        && metadata.int("generation") == Some(generation)
        && let Some(metadata) = new.get_mut("metadata")
    {
        set(metadata, "generation", generation + 1);
    }
}

fn prepare_status(new: &mut Value, old: &Value) {
    keep(new, "spec", old);
    if let Some(metadata) = new.get_mut("metadata") {
        keep(metadata, "labels", old.field("metadata"));
    }
}

fn validate(deployment: &Value, causes: &mut Causes) {
    let spec = deployment.field("spec");
    let path = Path::new("spec");
    rules::not_negative(spec, "replicas", path, causes);
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
    strategy(spec.field("strategy"), path.child("strategy"), causes);
    for name in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        rules::not_negative(spec, name, path, causes);
    }
    let deadline = "progressDeadlineSeconds";
    let ready = spec.int("minReadySeconds").unwrap_or_default();
    if spec.int(deadline).is_some_and(|it| it <= ready) {
        let detail = "must be greater than minReadySeconds";
        causes.invalid(path.child(deadline), spec.field(deadline), detail);
    }
}

fn strategy(strategy: &Value, path: Path<'_>, causes: &mut Causes) {
    let rolling = path.child("rollingUpdate");
    match strategy.text("type") {
        "RollingUpdate" => rolling_update(strategy.field("rollingUpdate"), rolling, causes),
        "Recreate" if strategy.has("rollingUpdate") => {
            causes.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
        }
        "Recreate" => {}
        _ => causes.not_supported(
            path.child("type"),
            strategy.field("type"),
            &["Recreate", "RollingUpdate"],
        ),
    }
}

fn rolling_update(rolling: &Value, path: Path<'_>, causes: &mut Causes) {
    for name in ["maxUnavailable", "maxSurge"] {
        let value = rolling.field(name);
        match value {
            Value::String(text) => {
                rules::all(api::names::percent(text), path.child(name), text, causes);
            }
            _ => rules::not_negative(rolling, name, path, causes),
        }
    }
    let unavailable = rolling.field("maxUnavailable");
    if is_zero(unavailable) && is_zero(rolling.field("maxSurge")) {
        let detail = "may not be 0 when `maxSurge` is 0";
        causes.invalid(path.child("maxUnavailable"), unavailable, detail);
    }
    let percent = unavailable.as_str().and_then(|it| it.strip_suffix('%')?.parse::<i64>().ok());
    if percent.is_some_and(|it| 100 < it) {
        let detail = "must not be greater than 100%";
        causes.invalid(path.child("maxUnavailable"), unavailable, detail);
    }
}

fn is_zero(number_or_percent: &Value) -> bool {
    match number_or_percent {
        Value::String(text) => text.trim_end_matches('%').parse() == Ok(0),
        other => other.as_i64() == Some(0),
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec").child("selector").to_string();
    rules::unchanged(new.field("spec"), old.field("spec"), "selector", path, causes);
}

fn row(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (deployment.field("spec"), deployment.field("status"));
    let count = |name| status.int(name).unwrap_or_default();
    let [names, images] = print::containers(spec.at(&["template", "spec"]));
    vec![
        print::name(deployment),
        format!("{}/{}", count("readyReplicas"), spec.int("replicas").unwrap_or_default()).into(),
        count("updatedReplicas").into(),
        count("availableReplicas").into(),
        print::age(deployment, now),
        names.into(),
        images.into(),
        print::selector(spec.field("selector")).into(),
    ]
}
