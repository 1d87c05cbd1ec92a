//! ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    pods_by_template::{self, CONTAINERS, IMAGES, SELECTOR},
    print::{self, AGE, NAME, number},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static REPLICA_SET: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    subresources: &[Subresource::Status, Subresource::Scale],
    generation: true,
    deletion: Deletion::Immediate,
    default,
    prepare_create: |set_of_pods| set(set_of_pods, "status", json!({"replicas": 0})),
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status: |new, old| keep(new, "spec", old),
    warnings: pods_by_template::warnings_of_new,
    warnings_on_update: Some(pods_by_template::warnings),
    validate,
    validate_update: pods_by_template::validate_update,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row,
    fields,
    ..Kind::PLAIN
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

fn default(replica_set: &mut Value) {
    if let Some(spec) = object_mut(replica_set, "spec") {
        set_default(spec, "replicas", 1);
        pods_by_template::default(spec);
    }
}

fn validate(replica_set: &Value, causes: &mut Causes) {
    let spec = replica_set.field("spec");
    let path = Path::new("spec");
    rules::not_negative(spec, "replicas", path, causes);
    rules::not_negative(spec, "minReadySeconds", path, causes);
    pods_by_template::validate(spec, path, causes);
}

fn row(replica_set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (replica_set.field("spec"), replica_set.field("status"));
    let [containers, images, selector] = pods_by_template::cells(spec);
    vec![
        print::name(replica_set),
        spec.int("replicas").unwrap_or_default().into(),
        status.int("replicas").unwrap_or_default().into(),
        status.int("readyReplicas").unwrap_or_default().into(),
        print::age(replica_set, now),
        containers,
        images,
        selector,
    ]
}

fn fields(replica_set: &Value, path: &str) -> Option<String> {
    let replicas = || replica_set.field("status").int("replicas").unwrap_or_default();
    (path == "status.replicas").then(|| replicas().to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check_row, check_update},
        *,
    };

    #[test]
    fn selector_never_changes() {
        let change = json!({"spec": {"selector": {"matchLabels": {"app": "b"}},
            "template": {"metadata": {"labels": {"app": "b"}}}}});
        check_update(
            &REPLICA_SET,
            change,
            expect![[
                r#"spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable"#
            ]],
        );
    }

    #[test]
    fn row_counts_pods() {
        check_row(
            &REPLICA_SET,
            json!({"status": {"replicas": 1}}),
            expect!["a | 1 | 1 | 0 | 60m | c | app:v1 | app=a"],
        );
    }
}
