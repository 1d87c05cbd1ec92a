//! DaemonSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    pod_spec,
    pods_by_template::{self, CONTAINERS, IMAGES, SELECTOR},
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static DAEMON_SET: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.DaemonSet",
    generation: true,
    default,
    prepare_create: |set_of_pods| {
        set(set_of_pods, "status", status(json!({})));
        count_templates(set_of_pods, 1);
    },
    prepare_update,
    warnings: pods_by_template::warnings,
    warnings_on_update: Some(pods_by_template::warnings),
    validate,
    validate_update: pods_by_template::validate_update,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    number("Desired", "Nodes that should run a pod."),
    number("Current", "Nodes that run one."),
    number("Ready", "Nodes whose pod is ready."),
    number("Up-to-date", "Nodes whose pod is made from the newest template."),
    number("Available", "Nodes whose pod has been ready for `minReadySeconds`."),
    column("Node Selector", "Labels of the nodes."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Counts that a status always has.
const COUNTS: [&str; 4] =
    ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];
/// Old templates that are kept.
const REVISIONS_KEPT: i64 = 10;
/// Annotation with the number of templates there have been; once a field of `spec`.
const TEMPLATES: &str = "deprecated.daemonset.template.generation";

fn status(mut status: Value) -> Value {
    for name in COUNTS {
        set_default(&mut status, name, 0);
    }
    status
}

fn default(set_of_pods: &mut Value) {
    if set_of_pods.get("status").is_some() {
        let kept = status(set_of_pods.field("status").clone());
        set(set_of_pods, "status", kept);
    }
    let Some(spec) = object_mut(set_of_pods, "spec") else { return };
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        set_default(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
    }
    set_default(spec, "revisionHistoryLimit", REVISIONS_KEPT);
    pods_by_template::default(spec);
}

fn count_templates(set_of_pods: &mut Value, number: i64) {
    let annotations =
        object_mut(set_of_pods, "metadata").and_then(|it| object_mut(it, "annotations"));
    if let Some(annotations) = annotations {
        set(annotations, TEMPLATES, number.to_string());
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep(new, "status", old);
    let before = old.at(&["metadata", "annotations"]).text(TEMPLATES).parse().unwrap_or(1_i64);
    let changed = new.at(&["spec", "template"]) != old.at(&["spec", "template"]);
    count_templates(new, before + i64::from(changed));
}

fn validate(set_of_pods: &Value, causes: &mut Causes) {
    let (spec, path) = (set_of_pods.field("spec"), Path::new("spec"));
    pods_by_template::selector(spec, "daemonset", path, causes);
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    pod_spec::template(template, selector, "DaemonSet", path.child("template"), causes);
    rules::not_negative(spec, "minReadySeconds", path, causes);
    let (strategy, strategy_path) = (spec.field("updateStrategy"), path.child("updateStrategy"));
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = strategy_path.child("rollingUpdate");
            rolling_update(strategy.field("rollingUpdate"), path, causes);
        }
        _ => causes.not_supported(strategy_path, strategy, &["RollingUpdate", "OnDelete"]),
    }
    rules::not_negative(spec, "revisionHistoryLimit", path, causes);
}

fn rolling_update(rolling: &Value, path: Path<'_>, causes: &mut Causes) {
    for name in ["maxUnavailable", "maxSurge"] {
        pods_by_template::share(rolling, name, path, causes);
    }
    let surge = rolling.field("maxSurge");
    let none = pods_by_template::is_zero(rolling.field("maxUnavailable"));
    match (none, pods_by_template::is_zero(surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            causes.invalid(path.child("maxSurge"), surge, detail);
        }
        (true, true) => {
            causes.required(path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        _ => {}
    }
}

fn row(set_of_pods: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (set_of_pods.field("spec"), set_of_pods.field("status"));
    let count = |name| Value::from(status.int(name).unwrap_or_default());
    let [containers, images, selector] = pods_by_template::cells(spec);
    vec![
        print::name(set_of_pods),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        print::labels(spec.at(&["template", "spec", "nodeSelector"])).into(),
        print::age(set_of_pods, now),
        containers,
        images,
        selector,
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn templates_are_counted() {
        let old = created(&DAEMON_SET, sample(&DAEMON_SET));
        assert_eq!(old["metadata"]["annotations"], json!({TEMPLATES: "1"}));
        let mut new = old.clone();
        new["spec"]["template"]["metadata"]["labels"]["x"] = "y".into();
        prepare_update(&mut new, &old);
        assert_eq!(new["metadata"]["annotations"], json!({TEMPLATES: "2"}));
    }

    #[test]
    fn updates_make_progress() {
        let rolling = |it: Value| spec(json!({"updateStrategy": {"rollingUpdate": it}}));
        check(
            &DAEMON_SET,
            rolling(json!({"maxUnavailable": 0})),
            expect![
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ],
        );
        check(
            &DAEMON_SET,
            rolling(json!({"maxSurge": "101%"})),
            expect![[r#"
            spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%
            spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": may not be set when maxUnavailable is non-zero"#]],
        );
        check(
            &DAEMON_SET,
            spec(json!({"updateStrategy": {"type": "Now"}})),
            expect![[
                r#"spec.updateStrategy: Unsupported value: {"type":"Now"}: supported values: "RollingUpdate", "OnDelete""#
            ]],
        );
        check(
            &DAEMON_SET,
            spec(json!({"selector": {"matchLabels": null},
                "template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}})),
            expect![[r#"
                spec.selector: Invalid value: {}: empty selector is invalid for daemonset
                spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
                spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"#]],
        );
    }

    #[test]
    fn selector_never_changes() {
        let change = json!({"selector": {"matchLabels": {"app": "b"}},
            "template": {"metadata": {"labels": {"app": "b"}}}});
        check_update(
            &DAEMON_SET,
            spec(change),
            expect![[
                r#"spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable"#
            ]],
        );
        check_row(
            &DAEMON_SET,
            json!({"status": {"numberReady": 1}}),
            expect!["a | 0 | 0 | 1 | 0 | 0 | <none> | 60m | c | app:v1 | app=a"],
        );
    }
}
