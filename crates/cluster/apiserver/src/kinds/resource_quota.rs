//! ResourceQuotas: how much all objects of a namespace may ask for together.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(super) static RESOURCE_QUOTA: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    schema: "io.k8s.api.core.v1.ResourceQuota",
    validate,
    validate_update,
    columns: COLUMNS,
    row,
    unattended: true,
    shows_deleted: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Request", "What is used of what may be requested and made."),
    column("Limit", "What is used of the limits."),
    AGE,
];

/// Resources without a domain that a quota can be about. Those that are counted come last.
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Where in [`STANDARD`] those begin that come in whole numbers.
const COUNTED_FROM: usize = 10;
/// What a quota can be restricted to, and the resources that it can be about then.
const SCOPES: [(&str, &[&str]); 7] = [
    ("Terminating", OF_PODS),
    ("NotTerminating", OF_PODS),
    ("BestEffort", &["pods"]),
    ("NotBestEffort", OF_PODS),
    ("PriorityClass", OF_PODS),
    ("CrossNamespacePodAffinity", OF_PODS),
    ("VolumeAttributesClass", &["persistentvolumeclaims", "requests.storage"]),
];
const OF_PODS: &[&str] =
    &["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
/// Scopes that together hold for nothing.
const CONFLICTS: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const MUST_EXIST: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
    ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
    ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

fn validate(quota: &Value, causes: &mut Causes) {
    let (spec, path) = (quota.field("spec"), Path::new("spec"));
    amounts(spec, "hard", path, causes);
    let scopes: Vec<&str> = spec.items("scopes").iter().filter_map(Value::as_str).collect();
    let list = path.child("scopes");
    for scope in &scopes {
        if !SCOPES.iter().any(|it| it.0 == *scope) {
            causes.invalid(list, spec.field("scopes"), "unsupported scope");
        }
        unfit(spec, scope, list, spec.field("scopes"), causes);
    }
    conflicts(&scopes, list, spec.field("scopes"), causes);
    scope_selector(spec, path, causes);
    for name in ["hard", "used"] {
        amounts(quota.field("status"), name, Path::new("status"), causes);
    }
}

fn amounts(object: &Value, list: &str, path: Path<'_>, causes: &mut Causes) {
    let list_path = path.child(list);
    for (name, value) in object.members(list) {
        let path = list_path.key(name);
        rules::all(api::names::qualified_name(name), path, name, causes);
        let standard = STANDARD.iter().position(|it| *it == name);
        let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
        if !name.contains('/') && standard.is_none() && !huge {
            causes.invalid(path, &Value::from(name), "must be a standard resource for quota");
        }
        rules::amount_not_negative(value, path, causes);
        let counted = standard.map_or(name.contains('/'), |it| COUNTED_FROM <= it);
        if counted && rules::quantity(value).is_some_and(|it| !it.is_whole()) {
            causes.invalid(path, value, "must be an integer");
        }
    }
}

/// Reports resources of the quota that `scope` has nothing to do with.
fn unfit(spec: &Value, scope: &str, path: Path<'_>, shown: &Value, causes: &mut Causes) {
    let Some((_, fitting)) = SCOPES.iter().find(|it| it.0 == scope) else { return };
    for (name, _) in spec.members("hard") {
        if STANDARD.contains(&name) && !fitting.contains(&name) {
            causes.invalid(path, shown, "unsupported scope applied to resource");
        }
    }
}

fn conflicts(scopes: &[&str], path: Path<'_>, shown: &Value, causes: &mut Causes) {
    for pair in CONFLICTS {
        if pair.iter().all(|it| scopes.contains(it)) {
            causes.invalid(path, shown, "conflicting scopes");
        }
    }
}

fn scope_selector(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let selector = spec.field("scopeSelector");
    let path = path.child("scopeSelector");
    // The original leaves the index out of these paths.
    let path = path.child("matchExpressions");
    let mut scopes = Vec::new();
    for requirement in selector.items("matchExpressions") {
        let scope = requirement.text("scopeName");
        scopes.push(scope);
        if !SCOPES.iter().any(|it| it.0 == scope) {
            causes.invalid(path.child("scopeName"), &scope.into(), "unsupported scope");
        }
        unfit(spec, scope, path, selector, causes);
        let operator = requirement.text("operator");
        let of_values = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.iter().any(|it| it.0 == scope) && !of_values && operator != "Exists" {
            causes.invalid(path.child("operator"), &operator.into(), MUST_EXIST);
        }
        match (operator, requirement.items("values")) {
            ("In" | "NotIn", []) => causes.required(
                path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            ("Exists" | "DoesNotExist", [_, ..]) => causes.invalid(
                path.child("values"),
                requirement.field("values"),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => causes.invalid(
                path.child("operator"),
                &operator.into(),
                "not a valid selector operator",
            ),
        }
    }
    conflicts(&scopes, path, spec.field("scopes"), causes);
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let scopes = |it: &Value| -> BTreeSet<String> {
        let scopes = it.field("spec").items("scopes").iter();
        scopes.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if scopes(new) != scopes(old) {
        let value = new.field("spec").field("scopes");
        causes.invalid(Path::new("spec").child("scopes"), value, rules::IMMUTABLE);
    }
}

fn row(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = quota.field("status");
    let amounts = |limits: bool| {
        let hard = status.members("hard").filter(|(name, _)| name.starts_with("limits.") == limits);
        let texts = hard.map(|(name, hard)| {
            let used = status.field("used").field(name).as_str().unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"))
        });
        Value::from(texts.collect::<Vec<_>>().join(", "))
    };
    vec![print::name(quota), amounts(false), amounts(true), print::age(quota, now)]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn amounts_are_of_something() {
        check(
            &RESOURCE_QUOTA,
            spec(json!({"hard": {"pods": "-1", "secrets": "500m", "apples": "1", "a.com/b": "1",
                "count/deployments.apps": "2"}})),
            expect![[r#"
                spec.hard[apples]: Invalid value: "apples": must be a standard resource for quota
                spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0
                spec.hard[secrets]: Invalid value: "500m": must be an integer"#]],
        );
    }

    #[test]
    fn scopes_fit() {
        check(
            &RESOURCE_QUOTA,
            spec(json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort", "NotBestEffort", "Other"]})),
            expect![[r#"
                spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: unsupported scope applied to resource
                spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: unsupported scope
                spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: conflicting scopes"#]],
        );
        let requirements = json!([{"scopeName": "Terminating", "operator": "In"},
            {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}]);
        check(
            &RESOURCE_QUOTA,
            spec(json!({"scopeSelector": {"matchExpressions": requirements}})),
            expect![[r#"
                spec.scopeSelector.matchExpressions.operator: Invalid value: "In": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity
                spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
                spec.scopeSelector.matchExpressions.values: Invalid value: ["a"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"#]],
        );
        check_update(
            &RESOURCE_QUOTA,
            spec(json!({"scopes": ["Terminating"]})),
            expect![[r#"spec.scopes: Invalid value: ["Terminating"]: field is immutable"#]],
        );
    }

    #[test]
    fn row_says_what_is_used() {
        let status = json!({"hard": {"limits.cpu": "2", "pods": "5"}, "used": {"pods": "1"}});
        check_row(
            &RESOURCE_QUOTA,
            json!({"status": status}),
            expect!["a | pods: 1/5 | limits.cpu: 0/2 | 60m"],
        );
    }
}
