//! PriorityLevelConfigurations: how many requests of a priority are answered at once.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    flow_schema::conditions,
    path::Path,
    print::{self, AGE, NAME, column},
    value::{Read, object_mut, set, set_default},
};

pub(super) static PRIORITY_LEVEL_CONFIGURATION: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    namespaced: false,
    schema: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    generation: true,
    default,
    validate,
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "Whether there is a limit."),
    column("NominalConcurrencyShares", "The part of all requests that it has."),
    column("Queues", "Queues in which requests wait."),
    column("HandSize", "Queues that one flow may use."),
    column("QueueLengthLimit", "Requests that wait in a queue."),
    AGE,
];

/// What a limited level has that says nothing: shares, queues, queues of a flow, length.
const SHARES: i64 = 30;
const QUEUING: [(&str, i64); 3] = [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)];
/// Greatest number of queues.
const QUEUES_MAX: i64 = 10_000_000;
/// The level of requests that never wait.
const EXEMPT: &str = "exempt";

fn default(level: &mut Value) {
    let Some(spec) = object_mut(level, "spec") else { return };
    for (name, shares) in [("exempt", 0), ("limited", SHARES)] {
        if let Some(settings) = spec.get_mut(name) {
            set_default(settings, "nominalConcurrencyShares", shares);
            set_default(settings, "lendablePercent", 0);
        }
    }
    let response = spec.get_mut("limited").and_then(|it| it.get_mut("limitResponse"));
    if let Some(queuing) = response.and_then(|it| it.get_mut("queuing")) {
        for (name, value) in QUEUING {
            if queuing.int(name).unwrap_or_default() == 0 {
                set(queuing, name, value);
            }
        }
    }
}

fn validate(level: &Value, causes: &mut Causes) {
    let (spec, path) = (level.field("spec"), Path::new("spec"));
    let kind = spec.text("type");
    if (level.field("metadata").text("name") == EXEMPT) != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        causes.invalid(path.child("type"), &kind.into(), detail);
    }
    match kind {
        "Exempt" if spec.has("limited") => {
            causes.forbidden(path.child("limited"), "must be nil if the type is not Limited");
        }
        "Exempt" => shares(spec.field("exempt"), path.child("exempt"), causes),
        "Limited" => {
            if spec.has("exempt") {
                causes.forbidden(path.child("exempt"), "must be nil if the type is Limited");
            }
            if spec.has("limited") {
                limited(spec.field("limited"), path.child("limited"), causes);
            } else {
                let detail = "must not be empty when type is Limited";
                causes.required(path.child("limited"), detail);
            }
        }
        _ => causes.not_supported(path.child("type"), &kind.into(), &["Exempt", "Limited"]),
    }
    conditions(level, causes);
}

fn shares(settings: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "nominalConcurrencyShares";
    if settings.int(name).is_some_and(|it| it < 0) {
        causes.invalid(path.child(name), settings.field(name), "must be a non-negative integer");
    }
    let name = "lendablePercent";
    if settings.int(name).is_some_and(|it| !(0..=100).contains(&it)) {
        let detail = "must be between 0 and 100, inclusive";
        causes.invalid(path.child(name), settings.field(name), detail);
    }
}

fn limited(limited: &Value, path: Path<'_>, causes: &mut Causes) {
    shares(limited, path, causes);
    let name = "borrowingLimitPercent";
    if limited.int(name).is_some_and(|it| it < 0) {
        let detail = "if specified, must be a non-negative integer";
        causes.invalid(path.child(name), limited.field(name), detail);
    }
    let (response, path) = (limited.field("limitResponse"), path.child("limitResponse"));
    match (response.text("type"), response.has("queuing")) {
        ("Reject", true) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            causes.forbidden(path.child("queuing"), detail);
        }
        ("Queue", false) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            causes.required(path.child("queuing"), detail);
        }
        ("Queue", true) => queuing(response.field("queuing"), path.child("queuing"), causes),
        ("Reject", false) => {}
        (kind, _) => causes.not_supported(path.child("type"), &kind.into(), &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, path: Path<'_>, causes: &mut Causes) {
    let queues = queuing.int("queues").unwrap_or_default();
    for name in ["queueLengthLimit", "queues", "handSize"] {
        let number = queuing.int(name).unwrap_or_default();
        let detail = match name {
            _ if number <= 0 => "must be positive".to_owned(),
            "queues" if QUEUES_MAX < number => format!("must not be greater than {QUEUES_MAX}"),
            "handSize" if queues < number => {
                format!("should not be greater than queues ({queues})")
            }
            _ => continue,
        };
        causes.invalid(path.child(name), &number.into(), &detail);
    }
}

fn row(level: &Value, now: Timestamp) -> Vec<Value> {
    let spec = level.field("spec");
    let queuing = spec.at(&["limited", "limitResponse", "queuing"]);
    let number = |of: &Value, name| match of.int(name) {
        Some(number) => Value::from(number),
        None => print::NONE.into(),
    };
    vec![
        print::name(level),
        spec.text("type").into(),
        number(spec.field("limited"), "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        print::age(level, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn limits_fit_the_type() {
        check(
            &PRIORITY_LEVEL_CONFIGURATION,
            spec(json!({"type": "Exempt", "limited": {}})),
            expect![[r#"
                spec.type: Invalid value: "Exempt": must be 'Exempt' if and only if `name` is 'exempt'
                spec.limited: Forbidden: must be nil if the type is not Limited"#]],
        );
        let queuing = json!({"queues": 5, "handSize": 6, "queueLengthLimit": -1});
        check(
            &PRIORITY_LEVEL_CONFIGURATION,
            spec(json!({"exempt": {}, "limited": {"nominalConcurrencyShares": -1,
                "lendablePercent": 101, "borrowingLimitPercent": -1,
                "limitResponse": {"type": "Queue", "queuing": queuing}}})),
            expect![[r#"
                spec.exempt: Forbidden: must be nil if the type is Limited
                spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer
                spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive
                spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer
                spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive
                spec.limited.limitResponse.queuing.handSize: Invalid value: 6: should not be greater than queues (5)"#]],
        );
        check(
            &PRIORITY_LEVEL_CONFIGURATION,
            spec(json!({"type": "Some"})),
            expect![[
                r#"spec.type: Unsupported value: "Some": supported values: "Exempt", "Limited""#
            ]],
        );
    }

    #[test]
    fn row_shows_queues() {
        let response = json!({"type": "Queue", "queuing": {"queues": 5}});
        check_row(
            &PRIORITY_LEVEL_CONFIGURATION,
            spec(json!({"limited": {"limitResponse": response}})),
            expect!["a | Limited | 30 | 5 | <none> | <none> | 60m"],
        );
    }
}
