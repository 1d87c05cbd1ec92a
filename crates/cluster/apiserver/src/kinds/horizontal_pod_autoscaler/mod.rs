//! HorizontalPodAutoscalers: how many pods there are, by what they have to do. Stored as
//! `autoscaling/v2`; `autoscaling/v1` is made of that in [`v1`].

mod metrics;
mod v1;

use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) use self::v1::HORIZONTAL_POD_AUTOSCALER_V1;
use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, object_mut, set, set_default},
};

pub(super) static HORIZONTAL_POD_AUTOSCALER: Kind = AUTOSCALER;

const AUTOSCALER: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    schema: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    default,
    prepare_create: |autoscaler| set(autoscaler, "status", status(json!({}))),
    validate,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Reference", "What is scaled."),
    column("Targets", "What is measured, and what it should be."),
    column("MinPods", "Least number of pods."),
    column("MaxPods", "Greatest number of pods."),
    column("Replicas", "Pods that there are."),
    AGE,
];

/// Use of the processor that is aimed at when nothing is said, in percent of what was requested.
const CPU_PERCENT: i64 = 80;
/// Longest time that is looked back at, in seconds.
const WINDOW_SECONDS_MAX: i64 = 3600;
/// Longest period of a policy, in seconds.
const PERIOD_SECONDS_MAX: i64 = 1800;
/// Period of the policies that hold when none are given, in seconds.
const PERIOD_SECONDS: i64 = 15;

/// The fields that a status always has.
fn status(mut status: Value) -> Value {
    set_default(&mut status, "desiredReplicas", 0);
    set_default(&mut status, "currentMetrics", Value::Null);
    status
}

/// The metric that counts when none is given.
fn default_metrics() -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}}}])
}

fn default(autoscaler: &mut Value) {
    if autoscaler.get("status").is_some() {
        let kept = status(autoscaler.field("status").clone());
        set(autoscaler, "status", kept);
    }
    let Some(spec) = object_mut(autoscaler, "spec") else { return };
    set_default(spec, "minReplicas", 1);
    if spec.items("metrics").is_empty() {
        set(spec, "metrics", default_metrics());
    }
    let Some(behavior) = spec.get_mut("behavior") else { return };
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": PERIOD_SECONDS});
    let up = json!([policy("Pods", 4), policy("Percent", 100)]);
    for (name, policies) in [("scaleUp", up), ("scaleDown", json!([policy("Percent", 100)]))] {
        let Some(scaling) = object_mut(behavior, name) else { continue };
        set_default(scaling, "selectPolicy", "Max");
        if name == "scaleUp" {
            set_default(scaling, "stabilizationWindowSeconds", 0);
        }
        set_default(scaling, "policies", policies);
    }
}

fn validate(autoscaler: &Value, causes: &mut Causes) {
    let (spec, path) = (autoscaler.field("spec"), Path::new("spec"));
    let min = spec.int("minReplicas");
    // Zero needs a feature that is off (`HPAScaleToZero`).
    if min.is_some_and(|it| it < 1) {
        let detail = "must be greater than or equal to 1";
        causes.invalid(path.child("minReplicas"), spec.field("minReplicas"), detail);
    }
    let max = spec.int("maxReplicas").unwrap_or_default();
    if max == 0 {
        causes.required(path.child("maxReplicas"), "must be set and greater than 0");
    } else if max < 0 {
        causes.invalid(
            path.child("maxReplicas"),
            &max.into(),
            "must be greater than or equal to 1",
        );
    }
    if min.is_some_and(|it| max < it) {
        let detail = "must be greater than or equal to `minReplicas`";
        causes.invalid(path.child("maxReplicas"), &max.into(), detail);
    }
    reference(spec.field("scaleTargetRef"), path.child("scaleTargetRef"), causes);
    metrics::validate(spec, path.child("metrics"), causes);
    let behavior = path.child("behavior");
    for name in ["scaleUp", "scaleDown"] {
        let scaling = spec.field("behavior").field(name);
        if !scaling.is_null() {
            validate_scaling(scaling, behavior.child(name), causes);
        }
    }
    for name in ["currentReplicas", "desiredReplicas"] {
        rules::not_negative(autoscaler.field("status"), name, Path::new("status"), causes);
    }
}

/// An object of any kind, which is named with its kind.
fn reference(object: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::required_name(object, "kind", rules::path_segment, path, causes);
    rules::required_name(object, "name", rules::path_segment, path, causes);
    let version = object.text("apiVersion");
    if 1 < version.matches('/').count() {
        let detail = format!("unexpected GroupVersion string: {version}");
        causes.invalid(path.child("apiVersion"), &version.into(), &detail);
    }
}

fn validate_scaling(scaling: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "stabilizationWindowSeconds";
    let detail = match scaling.int(name) {
        Some(..0) => "must be greater than or equal to zero".to_owned(),
        Some(seconds) if WINDOW_SECONDS_MAX < seconds => {
            format!("must be less than or equal to {WINDOW_SECONDS_MAX}")
        }
        _ => String::new(),
    };
    if !detail.is_empty() {
        causes.invalid(path.child(name), scaling.field(name), &detail);
    }
    rules::optional_one_of(scaling, "selectPolicy", &["Disabled", "Max", "Min"], path, causes);
    let list = path.child("policies");
    if scaling.items("policies").is_empty() {
        causes.required(list, "must specify at least one Policy");
    }
    for (index, policy) in scaling.items("policies").iter().enumerate() {
        let path = list.index(index);
        let kind = policy.text("type");
        if !matches!(kind, "Pods" | "Percent") {
            causes.not_supported(path.child("type"), &kind.into(), &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            if policy.int(name).unwrap_or_default() <= 0 {
                causes.invalid(path.child(name), policy.field(name), "must be greater than zero");
            }
        }
        if policy.int("periodSeconds").is_some_and(|it| PERIOD_SECONDS_MAX < it) {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            let period = policy.field("periodSeconds");
            causes.invalid(path.child("periodSeconds"), period, &detail);
        }
    }
    rules::amount_not_negative(scaling.field("tolerance"), path.child("tolerance"), causes);
}

fn row(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (autoscaler.field("spec"), autoscaler.field("status"));
    let target = spec.field("scaleTargetRef");
    let min = spec.int("minReplicas").map_or_else(|| "<unset>".to_owned(), |it| it.to_string());
    vec![
        print::name(autoscaler),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics::printed(spec.items("metrics"), status.items("currentMetrics")).into(),
        min.into(),
        spec.int("maxReplicas").unwrap_or_default().into(),
        status.int("currentReplicas").unwrap_or_default().into(),
        print::age(autoscaler, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn says_what_is_not_said() {
        let mut autoscaler = sample(&HORIZONTAL_POD_AUTOSCALER);
        autoscaler["spec"]["behavior"] = json!({"scaleDown": {"selectPolicy": "Min"}});
        let autoscaler = created(&HORIZONTAL_POD_AUTOSCALER, autoscaler);
        expect![[r#"{"behavior":{"scaleDown":{"policies":[{"periodSeconds":15,"type":"Percent","value":100}],"selectPolicy":"Min"},"scaleUp":{"policies":[{"periodSeconds":15,"type":"Pods","value":4},{"periodSeconds":15,"type":"Percent","value":100}],"selectPolicy":"Max","stabilizationWindowSeconds":0}},"maxReplicas":5,"metrics":[{"resource":{"name":"cpu","target":{"averageUtilization":80,"type":"Utilization"}},"type":"Resource"}],"minReplicas":1,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}"#]].assert_eq(&autoscaler["spec"].to_string());
    }

    #[test]
    fn limits_make_sense() {
        check(
            &HORIZONTAL_POD_AUTOSCALER,
            spec(json!({"minReplicas": 0, "maxReplicas": null, "scaleTargetRef": {"kind": "a/b"}})),
            expect![[r#"
                spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
                spec.maxReplicas: Required value: must be set and greater than 0
                spec.scaleTargetRef.kind: Invalid value: "a/b": may not contain '/'"#]],
        );
        let policy = json!({"type": "Bits", "value": 0, "periodSeconds": 5000});
        let up = json!({"policies": [policy], "stabilizationWindowSeconds": 5000,
            "selectPolicy": "Any"});
        check(
            &HORIZONTAL_POD_AUTOSCALER,
            spec(json!({"minReplicas": 9, "behavior": {"scaleUp": up}})),
            expect![[r#"
                spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`
                spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 5000: must be less than or equal to 3600
                spec.behavior.scaleUp.selectPolicy: Unsupported value: "Any": supported values: "Disabled", "Max", "Min"
                spec.behavior.scaleUp.policies[0].type: Unsupported value: "Bits": supported values: "Percent", "Pods"
                spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
                spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 5000: must be less than or equal to 1800"#]],
        );
    }

    #[test]
    fn row_shows_targets() {
        check_row(
            &HORIZONTAL_POD_AUTOSCALER,
            json!({}),
            expect!["a | Deployment/d | cpu: <unknown>/80% | 1 | 5 | 0 | 60m"],
        );
        let current = json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 30, "averageValue": "30m"}}}]);
        check_row(
            &HORIZONTAL_POD_AUTOSCALER,
            json!({"status": {"currentMetrics": current, "currentReplicas": 2}}),
            expect!["a | Deployment/d | cpu: 30%/80% | 1 | 5 | 2 | 60m"],
        );
    }
}
