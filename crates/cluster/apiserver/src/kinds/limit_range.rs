//! LimitRanges: how much one pod, container or claim of a namespace may ask for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Causes, Kind, path::Path, pod_spec, rules, value::Read};
use crate::kinds::value::{items_mut, object_mut, set_default};

pub(super) static LIMIT_RANGE: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    schema: "io.k8s.api.core.v1.LimitRange",
    default,
    validate,
    unattended: true,
    ..Kind::PLAIN
};

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

/// For containers, what is said of one amount says something of those that are not said.
fn default(range: &mut Value) {
    let Some(spec) = range.get_mut("spec") else { return };
    for limit in items_mut(spec, "limits").filter(|it| it.text("type") == "Container") {
        for (name, from) in
            [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            let known = limit.field(from).clone();
            let Some(known) = known.as_object().filter(|it| !it.is_empty()) else { continue };
            let Some(amounts) = object_mut(limit, name) else { continue };
            for (resource, amount) in known {
                set_default(amounts, resource, amount.clone());
            }
        }
    }
}

fn validate(range: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let list = path.child("limits");
    let mut seen = BTreeSet::new();
    for (index, limit) in range.field("spec").items("limits").iter().enumerate() {
        let path = list.index(index);
        let kind = limit.text("type");
        type_name(kind, path.child("type"), causes);
        if !seen.insert(kind) {
            causes.duplicate(path.child("type"), &Value::from(kind));
        }
        for name in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            let below = path.child(name);
            if kind == "Pod" && name.starts_with("default") {
                if limit.members(name).next().is_some() {
                    causes.forbidden(below, "may not be specified when `type` is 'Pod'");
                }
                continue;
            }
            for (resource, _) in limit.members(name) {
                if matches!(kind, "Pod" | "Container") {
                    pod_spec::resource_name(resource, below.key(resource), causes);
                } else {
                    let problems = api::names::qualified_name(resource);
                    rules::all(problems, below.key(resource), resource, causes);
                }
            }
        }
        let has_storage = |name| limit.field(name).has("storage");
        if kind == "PersistentVolumeClaim" && !has_storage("min") && !has_storage("max") {
            let detail =
                "either minimum or maximum storage value is required, but neither was provided";
            causes.required(path.child("limits"), detail);
        }
        orders(limit, path, causes);
    }
}

fn type_name(kind: &str, path: Path<'_>, causes: &mut Causes) {
    let problems = api::names::qualified_name(kind);
    if problems.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
        let detail = "must be a standard limit type or fully qualified";
        causes.invalid(path, &Value::from(kind), detail);
    }
    rules::all(problems, path, kind, causes);
}

/// Which amount must not be greater than which: field and words of the lesser, of the greater, and
/// the field that is reported.
const ORDERS: [(&str, &str, &str, &str, &str); 6] = [
    ("min", "min", "max", "max", "min"),
    ("min", "min", "defaultRequest", "default request", "defaultRequest"),
    ("defaultRequest", "default request", "max", "max", "defaultRequest"),
    ("defaultRequest", "default request", "default", "default limit", "defaultRequest"),
    ("min", "min", "default", "default", "default"),
    ("default", "default", "max", "max", "default"),
];

fn orders(limit: &Value, path: Path<'_>, causes: &mut Causes) {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let resources: BTreeSet<&str> =
        lists.iter().flat_map(|it| limit.members(it).map(|(name, _)| name)).collect();
    for resource in resources {
        let amount = |list: &str| rules::quantity(limit.field(list).field(resource));
        for (lesser, lesser_words, greater, greater_words, reported) in ORDERS {
            let (Some(low), Some(high)) = (amount(lesser), amount(greater)) else { continue };
            if high < low {
                let detail = format!(
                    "{lesser_words} value {low} is greater than {greater_words} value {high}"
                );
                let value = Value::from(if reported == greater { high } else { low }.to_string());
                causes.invalid(path.child(reported).key(resource), &value, &detail);
            }
        }
        let Some(ratio) = amount("maxLimitRequestRatio") else { continue };
        if ratio.milli_value() < 1000 {
            let at = path.child("maxLimitRequestRatio");
            let detail = format!("ratio {ratio} is less than 1");
            causes.invalid(at.key(resource), &Value::from(ratio.to_string()), &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, created, sample},
        *,
    };

    fn limits(it: Value) -> Value {
        json!({"spec": {"limits": [it]}})
    }

    #[test]
    fn defaults_follow_from_each_other() {
        let mut range = sample(&LIMIT_RANGE);
        range["spec"]["limits"] =
            json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]);
        let range = created(&LIMIT_RANGE, range);
        assert_eq!(
            range["spec"]["limits"][0],
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
                "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}})
        );
    }

    #[test]
    fn amounts_are_in_order() {
        check(
            &LIMIT_RANGE,
            limits(json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"},
                "maxLimitRequestRatio": {"cpu": "500m"}})),
            expect![[r#"
                spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
                spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1
                spec.limits[0].default[cpu]: Invalid value: "1": min value 2 is greater than default value 1
                spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#]],
        );
        check(
            &LIMIT_RANGE,
            limits(json!({"type": "Pod", "default": {"cpu": "1"}, "max": {"apples": "1"}})),
            expect![[r#"
                spec.limits[0].max[apples]: Invalid value: "apples": must be a standard resource type or fully qualified
                spec.limits[0].max[apples]: Invalid value: "apples": must be a standard resource for containers
                spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"#]],
        );
        check(
            &LIMIT_RANGE,
            limits(json!({"type": "PersistentVolumeClaim"})),
            expect![
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"
            ],
        );
        check(
            &LIMIT_RANGE,
            limits(json!({"type": "Thing"})),
            expect![[
                r#"spec.limits[0].type: Invalid value: "Thing": must be a standard limit type or fully qualified"#
            ]],
        );
    }
}
