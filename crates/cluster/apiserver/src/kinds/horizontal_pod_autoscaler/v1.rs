//! `autoscaling/v1`, which knows no metric but the processor's use. All else is in annotations, so
//! that an object can be read in this version and written again without loss.

use serde_json::{Map, Value, json};

use super::{AUTOSCALER, HORIZONTAL_POD_AUTOSCALER, default_metrics};
use crate::kinds::{
    Conversion, Kind,
    value::{Read, object_mut, remove, set, set_default},
};

pub(in crate::kinds) static HORIZONTAL_POD_AUTOSCALER_V1: Kind = Kind {
    version: "v1",
    schema: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    default: |autoscaler| {
        if let Some(spec) = object_mut(autoscaler, "spec") {
            set_default(spec, "minReplicas", 1);
        }
    },
    conversion: Some(&Conversion { stored: &HORIZONTAL_POD_AUTOSCALER, to_stored, from_stored }),
    ..AUTOSCALER
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// The field that this version has for a metric.
const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";

/// A field of a metric in this version, and the way to it in the stored one.
type Renamed = (&'static str, &'static [&'static str]);

/// Where the fields of each source are in the two versions: what is aimed at.
const TARGETS: [(&str, &[Renamed]); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// The same for what is measured.
const MEASURED: [(&str, &[Renamed]); 5] = [
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// Whether this is the metric for which there is a field.
fn is_cpu(metric: &Value, percent: &[&str]) -> bool {
    metric.text("type") == "Resource"
        && metric.field("resource").text("name") == "cpu"
        && !metric.field("resource").at(percent).is_null()
}

fn from_stored(autoscaler: &mut Value) {
    drop_annotations(autoscaler);
    let mut saved = Vec::new();
    if let Some(spec) = autoscaler.get_mut("spec") {
        let percent = &["target", "averageUtilization"];
        let metrics = spec.items("metrics").to_vec();
        remove(spec, "metrics");
        let (cpu, others): (Vec<_>, Vec<_>) = metrics.iter().partition(|it| is_cpu(it, percent));
        if let Some(cpu) = cpu.last() {
            set(spec, CPU_TARGET, cpu.field("resource").at(percent).clone());
        }
        saved.push((METRICS, others.into_iter().map(|it| older(it, &TARGETS)).collect()));
        if let Some(behavior) = spec.as_object_mut().and_then(|it| it.remove("behavior")) {
            saved.push((BEHAVIOR, recased(&behavior, char::to_ascii_uppercase)));
        }
    }
    if let Some(status) = autoscaler.get_mut("status") {
        let percent = &["current", "averageUtilization"];
        let current = status.items("currentMetrics").to_vec();
        if let Some(cpu) = current.iter().find(|it| is_cpu(it, percent)) {
            set(status, CPU_CURRENT, cpu.field("resource").at(percent).clone());
        }
        saved.push((CURRENT, current.iter().map(|it| older(it, &MEASURED)).collect()));
        saved.push((CONDITIONS, status.field("conditions").clone()));
        for name in ["currentMetrics", "conditions"] {
            remove(status, name);
        }
        set_default(status, "currentReplicas", 0);
    }
    saved.retain(|(_, value)| !is_empty(value));
    if saved.is_empty() {
        return;
    }
    let annotations =
        object_mut(autoscaler, "metadata").and_then(|it| object_mut(it, "annotations"));
    if let Some(annotations) = annotations {
        for (name, value) in saved {
            set(annotations, name, value.to_string());
        }
    }
}

fn to_stored(autoscaler: &mut Value) {
    let annotation = |name: &str| -> Option<Value> {
        let text = autoscaler.at(&["metadata", "annotations"]).text(name);
        serde_json::from_str(text).ok()
    };
    let newer_all = |list: Option<Value>, names: &[(&str, &[Renamed])]| -> Option<Vec<Value>> {
        Some(list?.as_array()?.iter().map(|it| newer(it, names)).collect())
    };
    let mut metrics = newer_all(annotation(METRICS), &TARGETS).unwrap_or_default();
    let current = newer_all(annotation(CURRENT), &MEASURED);
    let (conditions, behavior) = (annotation(CONDITIONS), annotation(BEHAVIOR));
    drop_annotations(autoscaler);
    if let Some(spec) = object_mut(autoscaler, "spec") {
        if let Some(percent) = spec.int(CPU_TARGET) {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}));
        }
        remove(spec, CPU_TARGET);
        set(spec, "metrics", if metrics.is_empty() { default_metrics() } else { metrics.into() });
        if let Some(behavior) = behavior.filter(|it| !is_empty(it)) {
            set(spec, "behavior", recased(&behavior, char::to_ascii_lowercase));
        }
    }
    let Some(status) = autoscaler.get_mut("status") else { return };
    if let Some(percent) = status.int(CPU_CURRENT) {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percent}}}]);
        set(status, "currentMetrics", cpu);
    }
    remove(status, CPU_CURRENT);
    if let Some(current) = current {
        set(status, "currentMetrics", current);
    }
    set_default(status, "currentMetrics", Value::Null);
    if let Some(conditions) = conditions {
        set(status, "conditions", conditions);
    }
}

fn drop_annotations(autoscaler: &mut Value) {
    let Some(metadata) = autoscaler.get_mut("metadata") else { return };
    let Some(annotations) = metadata.get_mut("annotations") else { return };
    for name in [METRICS, CURRENT, CONDITIONS, BEHAVIOR] {
        remove(annotations, name);
    }
    if annotations.as_object().is_some_and(Map::is_empty) {
        remove(metadata, "annotations");
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// A metric as this version has it.
fn older(metric: &Value, names: &[(&str, &[Renamed])]) -> Value {
    let mut out = json!({"type": metric.field("type")});
    for (source, fields) in names.iter().filter(|it| metric.has(it.0)) {
        let mut made = json!({});
        for (name, way) in *fields {
            let value = metric.field(source).at(way);
            if !value.is_null() {
                set(&mut made, name, value.clone());
            }
        }
        set(&mut out, source, made);
    }
    out
}

/// A metric as the stored version has it.
fn newer(metric: &Value, names: &[(&str, &[Renamed])]) -> Value {
    let mut out = json!({"type": metric.field("type")});
    for (source, fields) in names.iter().filter(|it| metric.has(it.0)) {
        let mut made = json!({});
        for (name, way) in *fields {
            let value = metric.field(source).field(name);
            if !value.is_null() {
                crate::object::set(&mut made, way, value.clone());
            }
        }
        if let Some(target) = made.get_mut("target") {
            let kind = match (target.has("averageUtilization"), target.has("averageValue")) {
                (true, _) => "Utilization",
                (false, true) => "AverageValue",
                (false, false) => "Value",
            };
            set(target, "type", kind);
        }
        set(&mut out, source, made);
    }
    out
}

/// The original writes this annotation with the names of its Go fields, which begin with a capital.
fn recased(value: &Value, case: fn(&char) -> char) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|it| !it.1.is_null())
            .map(|(name, value)| {
                let mut letters = name.chars();
                let first = letters.next().map(|it| case(&it));
                (first.into_iter().chain(letters).collect::<String>(), recased(value, case))
            })
            .collect(),
        Value::Array(items) => items.iter().map(|it| recased(it, case)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn stored() -> Value {
        json!({"metadata": {"name": "a", "annotations": {"mine": "x"}}, "spec": {
            "minReplicas": 1, "maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max"}},
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "m"},
                    "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                    "metric": {"name": "o"}, "target": {"type": "Value", "value": "9"}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"desiredReplicas": 2, "currentReplicas": 1,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 30, "averageValue": "30m"}}}]}})
    }

    #[test]
    fn nothing_is_lost_on_the_way() {
        let mut object = stored();
        from_stored(&mut object);
        expect![[r#"{"metadata":{"annotations":{"autoscaling.alpha.kubernetes.io/behavior":"{\"ScaleUp\":{\"SelectPolicy\":\"Max\"}}","autoscaling.alpha.kubernetes.io/conditions":"[{\"status\":\"True\",\"type\":\"AbleToScale\"}]","autoscaling.alpha.kubernetes.io/current-metrics":"[{\"resource\":{\"currentAverageUtilization\":30,\"currentAverageValue\":\"30m\",\"name\":\"cpu\"},\"type\":\"Resource\"}]","autoscaling.alpha.kubernetes.io/metrics":"[{\"pods\":{\"metricName\":\"m\",\"targetAverageValue\":\"5\"},\"type\":\"Pods\"},{\"object\":{\"metricName\":\"o\",\"target\":{\"kind\":\"Service\",\"name\":\"s\"},\"targetValue\":\"9\"},\"type\":\"Object\"}]","mine":"x"},"name":"a"},"spec":{"maxReplicas":3,"minReplicas":1,"targetCPUUtilizationPercentage":50},"status":{"currentCPUUtilizationPercentage":30,"currentReplicas":1,"desiredReplicas":2}}"#]].assert_eq(&object.to_string());
        to_stored(&mut object);
        assert_eq!(object, stored());
    }

    #[test]
    fn the_processor_counts_when_nothing_does() {
        let mut object = json!({"spec": {"maxReplicas": 3}});
        to_stored(&mut object);
        assert_eq!(object["spec"]["metrics"], default_metrics());
        let mut object = json!({"spec": {"targetCPUUtilizationPercentage": 7}});
        to_stored(&mut object);
        let percent = "/spec/metrics/0/resource/target/averageUtilization";
        assert_eq!(object.pointer(percent), Some(&json!(7)));
    }
}
