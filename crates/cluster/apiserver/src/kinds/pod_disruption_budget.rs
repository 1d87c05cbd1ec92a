//! PodDisruptionBudgets: how many pods may be evicted at once.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    pods_by_template,
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, set, set_default},
};

pub(super) static POD_DISRUPTION_BUDGET: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    schema: "io.k8s.api.policy.v1.PodDisruptionBudget",
    generation: true,
    default: |budget| {
        if budget.get("status").is_some() {
            let kept = status(budget.field("status").clone());
            set(budget, "status", kept);
        }
    },
    prepare_create: |budget| set(budget, "status", status(json!({}))),
    validate,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Min Available", "Pods that must be there."),
    column("Max Unavailable", "Pods that may be missing."),
    number("Allowed Disruptions", "Pods that may be evicted now."),
    AGE,
];

/// Counts that a status always has.
const COUNTS: [&str; 4] =
    ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];

fn status(mut status: Value) -> Value {
    for name in COUNTS {
        set_default(&mut status, name, 0);
    }
    status
}

fn validate(budget: &Value, causes: &mut Causes) {
    let (spec, path) = (budget.field("spec"), Path::new("spec"));
    let shares = ["minAvailable", "maxUnavailable"];
    if shares.iter().all(|it| spec.has(it)) {
        causes.invalid(path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for name in shares {
        pods_by_template::share(spec, name, path, causes);
    }
    rules::label_selector(spec.field("selector"), path.child("selector"), causes);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    rules::optional_one_of(spec, "unhealthyPodEvictionPolicy", &policies, path, causes);
    for name in COUNTS {
        rules::not_negative(budget.field("status"), name, Path::new("status"), causes);
    }
}

fn row(budget: &Value, now: Timestamp) -> Vec<Value> {
    let share = |name| match budget.field("spec").field(name) {
        Value::Null => Value::from("N/A"),
        Value::String(text) => text.as_str().into(),
        number => number.to_string().into(),
    };
    vec![
        print::name(budget),
        share("minAvailable"),
        share("maxUnavailable"),
        budget.field("status").int("disruptionsAllowed").unwrap_or_default().into(),
        print::age(budget, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn one_of_two_shares() {
        check(
            &POD_DISRUPTION_BUDGET,
            json!({"spec": {"minAvailable": "101%", "maxUnavailable": -1,
                "unhealthyPodEvictionPolicy": "Maybe"}}),
            expect![[r#"
                spec: Invalid value: {"maxUnavailable":-1,"minAvailable":"101%","selector":{"matchLabels":{"app":"a"}},"unhealthyPodEvictionPolicy":"Maybe"}: minAvailable and maxUnavailable cannot be both set
                spec.minAvailable: Invalid value: "101%": must not be greater than 100%
                spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0
                spec.unhealthyPodEvictionPolicy: Unsupported value: "Maybe": supported values: "AlwaysAllow", "IfHealthyBudget""#]],
        );
        check_row(&POD_DISRUPTION_BUDGET, json!({}), expect!["a | 1 | N/A | 0 | 60m"]);
    }
}
