//! What an autoscaler looks at: the rules for it, and how a table shows it.

use api::names;
use serde_json::Value;

use super::reference;
use crate::kinds::{Causes, path::Path, pod_spec, print, rules, value::Read};

/// Types of metrics and their fields, in the order in which the original looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
/// The types, as messages list them.
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Metrics that a table shows before it only counts them.
const SHOWN_MAX: usize = 2;

/// Checks `metrics`.
pub(super) fn validate(spec: &Value, list: Path<'_>, causes: &mut Causes) {
    for (index, metric) in spec.items("metrics").iter().enumerate() {
        let path = list.index(index);
        let kind = metric.text("type");
        if kind.is_empty() {
            causes.required(path.child("type"), "must specify a metric source type");
        }
        if !TYPES.contains(&kind) {
            causes.not_supported(path.child("type"), &kind.into(), &TYPES);
        }
        let given: Vec<&str> = SOURCES.iter().map(|it| it.1).filter(|it| metric.has(it)).collect();
        if let Some(first) = given.first() {
            source(first, metric.field(first), path.child(first), causes);
        }
        let expected = SOURCES.iter().find(|it| it.0 == kind).map(|it| it.1);
        if let Some(expected) = expected.filter(|it| !metric.has(it)) {
            let detail = "must populate information for the given metric source";
            causes.required(path.child(expected), detail);
        }
        if 1 < given.len() {
            for other in given.iter().filter(|it| Some(**it) != expected) {
                causes.forbidden(path.child(other), "must populate the given metric source only");
            }
        }
    }
}

fn source(kind: &str, source: &Value, path: Path<'_>, causes: &mut Causes) {
    match kind {
        "resource" | "containerResource" => {
            if source.text("name").is_empty() {
                causes.required(path.child("name"), "must specify a resource name");
            } else if kind == "containerResource" {
                pod_spec::resource_name(source.text("name"), path.child("name"), causes);
            }
        }
        _ => {
            if kind == "object" {
                reference(source.field("describedObject"), path.child("describedObject"), causes);
            }
            let metric = path.child("metric");
            match source.field("metric").text("name") {
                "" => causes.required(metric.child("name"), "must specify a metric name"),
                name => rules::all(rules::path_segment(name), metric.child("name"), name, causes),
            }
        }
    }
    if kind == "containerResource" {
        match source.text("container") {
            "" => causes.required(path.child("container"), "must specify a container"),
            name => rules::all(names::dns1123_label(name), path.child("container"), name, causes),
        }
    }
    let (target, path) = (source.field("target"), path.child("target"));
    validate_target(target, path, causes);
    let has = |name| target.has(name);
    match (kind, has("value"), has("averageValue"), has("averageUtilization")) {
        ("object", false, false, _) => causes
            .required(path.child("averageValue"), "must set either a target value or averageValue"),
        ("external", false, false, _) => causes.required(
            path.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        ),
        ("external", true, true, _) => causes.forbidden(
            path.child("value"),
            "may not set both a target value for metric and a per-pod target",
        ),
        ("pods", _, false, _) => causes
            .required(path.child("averageValue"), "must specify a positive target averageValue"),
        ("resource" | "containerResource", _, false, false) => causes.required(
            path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        ("resource" | "containerResource", _, true, true) => causes.forbidden(
            path.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn validate_target(target: &Value, path: Path<'_>, causes: &mut Causes) {
    let kind = target.text("type");
    if kind.is_empty() {
        causes.required(path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        causes.invalid(path.child("type"), &kind.into(), detail);
    }
    for name in ["value", "averageValue"] {
        if rules::quantity(target.field(name)).is_some_and(|it| it.milli_value() <= 0) {
            causes.invalid(path.child(name), target.field(name), "must be positive");
        }
    }
    let name = "averageUtilization";
    if target.int(name).is_some_and(|it| it < 1) {
        causes.invalid(path.child(name), target.field(name), "must be greater than 0");
    }
}

/// The metrics as one cell: what is, and what should be.
pub(super) fn printed(metrics: &[Value], current: &[Value]) -> String {
    let texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, it)| printed_one(it, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    let more = texts.len().saturating_sub(SHOWN_MAX);
    let shown: Vec<&str> = texts.iter().map(String::as_str).take(SHOWN_MAX).collect();
    match (shown.is_empty(), more) {
        (true, _) => print::NONE.to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn printed_one(metric: &Value, current: &Value) -> String {
    let Some((_, field)) = SOURCES.iter().find(|it| it.0 == metric.text("type")) else {
        return "<unknown type>".to_owned();
    };
    let target = metric.field(field).field("target");
    let current = current.field(field).field("current");
    let known = |name: &str| match current.text(name) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    let average = target.text("averageValue");
    match *field {
        "resource" | "containerResource" => {
            let name = metric.field(field).text("name");
            let percent = |of: &Value, none: &str| {
                let percent = of.int("averageUtilization");
                percent.map_or_else(|| none.to_owned(), |it| format!("{it}%"))
            };
            if average.is_empty() {
                let (is, wanted) = (percent(current, "<unknown>"), percent(target, "<auto>"));
                format!("{name}: {is}/{wanted}")
            } else {
                format!("{name}: {}/{average}", known("averageValue"))
            }
        }
        "pods" => format!("{}/{average}", known("averageValue")),
        _ if average.is_empty() => format!("{}/{}", known("value"), target.text("value")),
        _ => format!("{}/{average} (avg)", known("averageValue")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::{horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER, testing::check};

    #[test]
    fn metrics_are_checked() {
        let metrics = json!([
            {"type": "Pods", "resource": {"target": {"type": "Some"}}},
            {"type": "External", "external": {"metric": {"name": "a"},
                "target": {"type": "Value", "value": "1", "averageValue": "-1"}}, "pods": {}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "A",
                "target": {"type": "Utilization", "averageUtilization": 0}}},
            {"type": "Object", "object": {"metric": {}, "target": {"type": "Value"}}},
            {}]);
        check(
            &HORIZONTAL_POD_AUTOSCALER,
            json!({"spec": {"metrics": metrics}}),
            expect![[r#"
            spec.metrics[0].resource.name: Required value: must specify a resource name
            spec.metrics[0].resource.target.type: Invalid value: "Some": must be either Utilization, Value, or AverageValue
            spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization
            spec.metrics[0].pods: Required value: must populate information for the given metric source
            spec.metrics[1].external.target.averageValue: Invalid value: "-1": must be positive
            spec.metrics[1].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target
            spec.metrics[1].pods: Forbidden: must populate the given metric source only
            spec.metrics[2].containerResource.container: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.metrics[2].containerResource.target.averageUtilization: Invalid value: 0: must be greater than 0
            spec.metrics[3].object.describedObject.kind: Required value
            spec.metrics[3].object.describedObject.name: Required value
            spec.metrics[3].object.metric.name: Required value: must specify a metric name
            spec.metrics[3].object.target.averageValue: Required value: must set either a target value or averageValue
            spec.metrics[4].type: Required value: must specify a metric source type
            spec.metrics[4].type: Unsupported value: "": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#]],
        );
    }

    #[test]
    fn more_are_counted() {
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "5"}}});
        let object = json!({"type": "Object", "object": {"target": {"value": "9"}}});
        expect!["<unknown>/5, <unknown>/9 + 2 more..."]
            .assert_eq(&printed(&[pods.clone(), object.clone(), pods, object], &[]));
    }
}
