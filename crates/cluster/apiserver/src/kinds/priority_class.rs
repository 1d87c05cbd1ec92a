//! PriorityClasses: which pods come before others.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    print::{self, AGE, NAME, column, flag, number},
    rules,
    value::{Read, set_default},
};

pub(super) static PRIORITY_CLASS: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    schema: "io.k8s.api.scheduling.v1.PriorityClass",
    default: |class| {
        set_default(class, "value", 0);
        set_default(class, "preemptionPolicy", "PreemptLowerPriority");
    },
    validate,
    validate_update,
    columns: COLUMNS,
    row,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    number("Value", "The priority: greater comes first."),
    flag("Global-Default", "Whether pods that name no class have this one."),
    AGE,
    column("PreemptionPolicy", "Whether pods of this class may end others."),
];

/// The classes that every cluster has, with their values and descriptions.
pub(crate) const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        SYSTEM_VALUE + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        SYSTEM_VALUE,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
];
/// Least value of the system's own classes.
const SYSTEM_VALUE: i64 = 2 * VALUE_MAX;
/// Greatest value of a user's class.
const VALUE_MAX: i64 = 1_000_000_000;

fn validate(class: &Value, causes: &mut Causes) {
    let (name, value) = (class.field("metadata").text("name"), class.int("value").unwrap_or(0));
    if name.starts_with("system-") {
        if let Some(problem) = system_problem(name, value, class.flag("globalDefault")) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. \
                 error: {problem}"
            );
            causes.forbidden("metadata.name", &detail);
        }
    } else if VALUE_MAX < value {
        let detail = format!("maximum allowed value of a user defined priority is {VALUE_MAX}");
        causes.forbidden("value", &detail);
    }
    let policy = class.field("preemptionPolicy");
    let supported = ["Never", "PreemptLowerPriority"];
    match policy.as_str() {
        Some("") => causes.required("preemptionPolicy", ""),
        Some(text) if !supported.contains(&text) => {
            causes.not_supported("preemptionPolicy", policy, &supported);
        }
        _ => {}
    }
}

/// Why this is none of the system's classes.
fn system_problem(name: &str, value: i64, global: bool) -> Option<String> {
    let Some((_, wanted, _)) = SYSTEM.iter().find(|it| it.0 == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *wanted {
        return Some(format!("value of {name} PriorityClass must be {wanted}"));
    }
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    if new.int("value") != old.int("value") {
        causes.forbidden("value", "may not be changed in an update.");
    }
    rules::unchanged(new, old, "preemptionPolicy", "preemptionPolicy", causes);
}

fn row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        print::name(class),
        class.int("value").unwrap_or_default().into(),
        class.flag("globalDefault").into(),
        print::age(class, now),
        class.text("preemptionPolicy").into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    #[test]
    fn values_have_limits() {
        check(
            &PRIORITY_CLASS,
            json!({"value": 1_000_000_001, "preemptionPolicy": "Maybe"}),
            expect![[r#"
                value: Forbidden: maximum allowed value of a user defined priority is 1000000000
                preemptionPolicy: Unsupported value: "Maybe": supported values: "Never", "PreemptLowerPriority""#]],
        );
        check(
            &PRIORITY_CLASS,
            json!({"metadata": {"name": "system-x"}}),
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"
            ],
        );
        check(
            &PRIORITY_CLASS,
            json!({"metadata": {"name": "system-node-critical"}, "value": 5}),
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"
            ],
        );
        check(
            &PRIORITY_CLASS,
            json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
            expect![[r#""#]],
        );
    }

    #[test]
    fn values_stay() {
        check_update(
            &PRIORITY_CLASS,
            json!({"value": 9, "preemptionPolicy": "Never"}),
            expect![[r#"
                value: Forbidden: may not be changed in an update.
                preemptionPolicy: Invalid value: "Never": field is immutable"#]],
        );
        check_row(
            &PRIORITY_CLASS,
            json!({"globalDefault": true}),
            expect!["a | 5 | true | 60m | PreemptLowerPriority"],
        );
    }
}
