//! ReplicationControllers: what ReplicaSets replaced.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind, Subresource,
    path::Path,
    pod_spec,
    pods_by_template::{self, CONTAINERS, IMAGES, SELECTOR},
    print::{self, AGE, NAME, number},
    rules,
    value::{Read, object_mut, set, set_default},
};

pub(super) static REPLICATION_CONTROLLER: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.ReplicationController",
    subresources: &[Subresource::Status, Subresource::Scale],
    generation: true,
    orphans: Some(&[]),
    default,
    prepare_create: |controller| set(controller, "status", json!({"replicas": 0})),
    warnings: pods_by_template::warnings_of_new,
    warnings_on_update: Some(pods_by_template::warnings),
    validate,
    columns: COLUMNS,
    row,
    fields: |it, path| {
        let replicas = || it.field("status").int("replicas").unwrap_or_default().to_string();
        (path == "status.replicas").then(replicas)
    },
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    number("Desired", "Pods that are wanted."),
    number("Current", "Pods that there are."),
    number("Ready", "Pods that are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn default(controller: &mut Value) {
    let Some(spec) = object_mut(controller, "spec") else { return };
    set_default(spec, "replicas", 1);
    let labels = spec.at(&["template", "metadata", "labels"]).clone();
    if spec.get("template").is_some() {
        pods_by_template::default(spec);
    }
    if labels.as_object().is_some_and(|it| !it.is_empty()) {
        set_default(spec, "selector", labels.clone());
        if let Some(metadata) = object_mut(controller, "metadata") {
            set_default(metadata, "labels", labels);
        }
    }
}

fn validate(controller: &Value, causes: &mut Causes) {
    let (spec, path) = (controller.field("spec"), Path::new("spec"));
    rules::not_negative(spec, "minReadySeconds", path, causes);
    let selector = spec.field("selector");
    if spec.members("selector").next().is_none() {
        causes.required(path.child("selector"), "");
    }
    if !spec.has("replicas") {
        causes.required(path.child("replicas"), "");
    }
    rules::not_negative(spec, "replicas", path, causes);
    if !spec.has("template") {
        causes.required(path.child("template"), "");
        return;
    }
    let selector = json!({"matchLabels": selector});
    let template = spec.field("template");
    let path = path.child("template");
    pod_spec::template(template, &selector, "ReplicationController", path, causes);
}

fn row(controller: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (controller.field("spec"), controller.field("status"));
    let [containers, images, _] = pods_by_template::cells(spec);
    let count = |of: &Value, name| Value::from(of.int(name).unwrap_or_default());
    vec![
        print::name(controller),
        count(spec, "replicas"),
        count(status, "replicas"),
        count(status, "readyReplicas"),
        print::age(controller, now),
        containers,
        images,
        print::labels(spec.field("selector")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, created, sample},
        *,
    };

    #[test]
    fn the_template_says_who_belongs() {
        let controller = created(&REPLICATION_CONTROLLER, sample(&REPLICATION_CONTROLLER));
        assert_eq!(controller["spec"]["selector"], json!({"app": "a"}));
        assert_eq!(controller["metadata"]["labels"], json!({"app": "a"}));
        check_row(
            &REPLICATION_CONTROLLER,
            json!({}),
            expect!["a | 1 | 0 | 0 | 60m | c | app:v1 | app=a"],
        );
        check(
            &REPLICATION_CONTROLLER,
            json!({"spec": {"template": null}}),
            expect![[r#"
            spec.selector: Required value
            spec.template: Required value"#]],
        );
        check(
            &REPLICATION_CONTROLLER,
            json!({"spec": {"selector": {"app": "b"}, "replicas": -1}}),
            expect![[r#"
                spec.replicas: Invalid value: -1: must be greater than or equal to 0
                spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`"#]],
        );
    }
}
