//! Deployments.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    pods_by_template::{self, CONTAINERS, IMAGES, SELECTOR},
    print::{self, AGE, NAME, column, number},
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
    warnings: pods_by_template::warnings_of_new,
    warnings_on_update: Some(pods_by_template::warnings),
    validate,
    validate_update: pods_by_template::validate_update,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row,
    fields: |_, _| None,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Pods that are ready, of those wanted."),
    number("Up-to-date", "Pods made from the newest template."),
    number("Available", "Pods that have been ready for `minReadySeconds`."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
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
    pods_by_template::default(spec);
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
    pods_by_template::validate(spec, path, causes);
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
            causes.forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'");
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
        pods_by_template::share_of_any(rolling, name, path, causes);
    }
    let unavailable = rolling.field("maxUnavailable");
    if pods_by_template::is_zero(unavailable)
        && pods_by_template::is_zero(rolling.field("maxSurge"))
    {
        let detail = "may not be 0 when `maxSurge` is 0";
        causes.invalid(path.child("maxUnavailable"), unavailable, detail);
    }
    let percent = unavailable.as_str().and_then(|it| it.strip_suffix('%')?.parse::<i64>().ok());
    if percent.is_some_and(|it| 100 < it) {
        let detail = "must not be greater than 100%";
        causes.invalid(path.child("maxUnavailable"), unavailable, detail);
    }
}

fn row(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (deployment.field("spec"), deployment.field("status"));
    let count = |name| status.int(name).unwrap_or_default();
    let [containers, images, selector] = pods_by_template::cells(spec);
    vec![
        print::name(deployment),
        format!("{}/{}", count("readyReplicas"), spec.int("replicas").unwrap_or_default()).into(),
        count("updatedReplicas").into(),
        count("availableReplicas").into(),
        print::age(deployment, now),
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

    #[test]
    fn replicas_and_strategy_have_defaults() {
        let deployment = created(&DEPLOYMENT, sample(&DEPLOYMENT));
        let spec = deployment.field("spec");
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
        assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(deployment["status"], json!({}));
    }

    #[test]
    fn selector_and_template_agree() {
        let spec = |it: Value| json!({"spec": it});
        check(
            &DEPLOYMENT,
            spec(json!({"selector": null})),
            expect!["spec.selector: Required value"],
        );
        check(
            &DEPLOYMENT,
            spec(json!({"selector": {"matchLabels": null}})),
            expect![[
                r#"spec.selector: Invalid value: {}: empty selector is invalid for deployment"#
            ]],
        );
        let labels = json!({"template": {"metadata": {"labels": {"app": "b"}}}});
        check(
            &DEPLOYMENT,
            spec(labels),
            expect![[
                r#"spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`"#
            ]],
        );
    }

    #[test]
    fn template_runs_for_ever() {
        let policy = json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}});
        check(
            &DEPLOYMENT,
            policy,
            expect![[
                r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#
            ]],
        );
        let deadline = json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}});
        check(
            &DEPLOYMENT,
            deadline,
            expect![
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"
            ],
        );
    }

    #[test]
    fn strategy_makes_progress_possible() {
        let rolling = |it: Value| json!({"spec": {"strategy": {"rollingUpdate": it}}});
        check(
            &DEPLOYMENT,
            rolling(json!({"maxSurge": 0, "maxUnavailable": 0})),
            expect![
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ],
        );
        check(
            &DEPLOYMENT,
            rolling(json!({"maxSurge": "x"})),
            expect![[
                r#"spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#
            ]],
        );
        check(
            &DEPLOYMENT,
            rolling(json!({"maxUnavailable": "101%"})),
            expect![[
                r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#
            ]],
        );
        let strategy = |it: &str| json!({"spec": {"strategy": {"type": it, "rollingUpdate": {"maxSurge": 1}}}});
        check(
            &DEPLOYMENT,
            strategy("Recreate"),
            expect![
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
            ],
        );
        check(
            &DEPLOYMENT,
            strategy("Slow"),
            expect![[
                r#"spec.strategy.type: Unsupported value: "Slow": supported values: "Recreate", "RollingUpdate""#
            ]],
        );
        check(
            &DEPLOYMENT,
            json!({"spec": {"replicas": -1}}),
            expect!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            &DEPLOYMENT,
            json!({"spec": {"minReadySeconds": 600}}),
            expect![
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"
            ],
        );
    }

    #[test]
    fn selector_never_changes() {
        let change = json!({"spec": {"selector": {"matchLabels": {"app": "b"}},
            "template": {"metadata": {"labels": {"app": "b"}}}}});
        check_update(
            &DEPLOYMENT,
            change,
            expect![[
                r#"spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable"#
            ]],
        );
        check_update(&DEPLOYMENT, json!({"spec": {"replicas": 5}}), expect![""]);
    }

    #[test]
    fn annotations_count_as_a_change() {
        let old = json!({"metadata": {"generation": 3}, "spec": {}});
        let mut new = json!({"metadata": {"generation": 3, "annotations": {"a": "b"}}, "spec": {}});
        prepare_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 4);
    }

    #[test]
    fn row_counts_pods() {
        let status = json!({"status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            "spec": {"replicas": 3}});
        check_row(&DEPLOYMENT, status, expect!["a | 1/3 | 2 | 1 | 60m | c | app:v1 | app=a"]);
    }
}
