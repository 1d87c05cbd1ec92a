//! Faults: what goes wrong on purpose. `coracle chaos` makes them; docs/chaos.md.

use api::quantity::Quantity;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    rules, structural,
    value::{Read, set, set_default},
};

pub(super) static FAULT: Kind = Kind {
    group: "coracle.dev",
    version: "v1alpha1",
    kind: "Fault",
    plural: "faults",
    singular: "fault",
    namespaced: false,
    schema: "dev.coracle.v1alpha1.Fault",
    generation: true,
    default: |fault| {
        if let Some(spec) = fault.get_mut("spec") {
            structural::default(SPEC, spec);
            for side in ["target", "from"] {
                let side = spec.get_mut(side).filter(|it| it.text("kind") != "Node");
                if let Some(side) = side {
                    set_default(side, "namespace", "default");
                }
            }
        }
    },
    // Deleting one undoes it first.
    prepare_create: |fault| {
        (Kind::WITH_STATUS.prepare_create)(fault);
        if let Some(metadata) = fault.get_mut("metadata") {
            set(metadata, "finalizers", json!([FINALIZER]));
        }
    },
    validate,
    validate_update: |new, old, causes| {
        let (new, old) = (new.field("spec"), old.field("spec"));
        for name in ["action", "target", "from", "count", "network", "fill"] {
            rules::unchanged(new, old, name, Path::new("spec").child(name), causes);
        }
    },
    columns: COLUMNS,
    row: |it, now| {
        let (spec, status) = (it.field("spec"), it.field("status"));
        vec![
            print::name(it),
            spec.text("action").into(),
            target(spec.field("target")).into(),
            status.text("phase").into(),
            spec.text("duration").into(),
            print::age(it, now),
            status.text("message").into(),
        ]
    },
    ..Kind::WITH_STATUS
};

const SPEC: &str = "dev.coracle.v1alpha1.FaultSpec";
/// Who undoes a fault before it is gone: the controller of `coracle-chaos`.
const FINALIZER: &str = "coracle.dev/undo";
const COLUMNS: &[Column] = &[
    NAME,
    column("Action", "What goes wrong."),
    column("Target", "With whom."),
    column("Phase", "Whether it does."),
    column("Duration", "For how long, from its beginning."),
    AGE,
    wide("Message", "What was done."),
];

/// Percents that chance is told in.
const PERCENTS: [&str; 3] = ["lossPercent", "corruptPercent", "duplicatePercent"];

fn target(target: &Value) -> String {
    let kind = target.text("kind").to_lowercase();
    let names: Vec<&str> = target.items("names").iter().filter_map(Value::as_str).collect();
    match (names.as_slice(), target.has("selector")) {
        ([], true) => format!("{kind} -l {}", print::selector(target.field("selector"))),
        (names, _) => format!("{kind}/{}", names.join(",")),
    }
}

fn validate(fault: &Value, causes: &mut Causes) {
    let (spec, path) = (fault.field("spec"), Path::new("spec"));
    structural::validate(SPEC, spec, path, causes);
    let action = spec.text("action");
    for side in ["target", "from"] {
        let (at, side) = (path.child(side), spec.field(side));
        if side.has("kind") {
            one_side(side, at, causes);
        }
    }
    let between = matches!(action, "Partition" | "Network");
    if spec.has("from") && !between {
        causes.forbidden(path.child("from"), "only an action Partition or Network has one");
    }
    for (name, wanted) in [("network", "Network"), ("fill", "Fill")] {
        match (spec.has(name), action == wanted) {
            (true, false) => {
                causes.forbidden(path.child(name), &format!("only an action {wanted} has one"));
            }
            (false, true) => causes.required(path.child(name), &format!("for action {wanted}")),
            _ => {}
        }
    }
    network(spec.field("network"), path.child("network"), causes);
    let node = spec.field("target").text("kind") == "Node";
    if action == "Fill" && node {
        let detail = "the disk of a node is the machine's own: a volume of a pod can be filled";
        causes.forbidden(path.child("target").child("kind"), detail);
    }
}

fn one_side(side: &Value, path: Path<'_>, causes: &mut Causes) {
    let named = !side.items("names").is_empty();
    match (side.text("kind"), named, side.has("selector")) {
        (_, false, false) => causes.required(path.child("names"), "names, or a selector"),
        ("Service", _, true) => {
            causes.forbidden(path.child("selector"), "Services are named");
        }
        (_, true, true) => causes.forbidden(path.child("selector"), "there are names"),
        _ => {}
    }
    if side.text("kind") == "Node" && side.has("namespace") {
        causes.forbidden(path.child("namespace"), "a node is in none");
    }
}

fn network(network: &Value, path: Path<'_>, causes: &mut Causes) {
    let Some(members) = network.as_object() else { return };
    if members.is_empty() {
        causes.required(path, "something that becomes of packets");
    }
    for name in PERCENTS {
        let value = network.field(name);
        if value.as_f64().is_some_and(|it| !(0.0..=100.0).contains(&it)) {
            causes.invalid(path.child(name), value, "must be between 0 and 100");
        }
    }
    if network.has("jitter") && !network.has("delay") {
        causes.required(path.child("delay"), "jitter is a jitter of it");
    }
    let rate = network.field("bytesPerSecond");
    let rate_read = rate.as_str().and_then(|it| it.parse::<Quantity>().ok());
    if rate_read.is_some_and(|it| it.value() < 1) {
        causes.invalid(path.child("bytesPerSecond"), rate, "must be at least 1");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    #[test]
    fn what_is_not_said_is_usual() {
        let fault = created(&FAULT, sample(&FAULT));
        assert_eq!(fault["spec"]["target"]["namespace"], "default");
        assert_eq!(fault["metadata"]["finalizers"], json!([FINALIZER]));
    }

    #[test]
    fn targets_are_checked() {
        check(
            &FAULT,
            json!({"spec": {"action": "Explode", "target": {"names": null}, "from":
                {"kind": "Service", "names": ["a"], "selector": {"matchLabels": {"a": "b"}}}}}),
            expect![[r#"
                spec.action: Unsupported value: "Explode": supported values: "Kill", "Pause", "Partition", "Network", "Fill"
                spec.target.names: Required value: names, or a selector
                spec.from.selector: Forbidden: Services are named
                spec.from: Forbidden: only an action Partition or Network has one"#]],
        );
        check(
            &FAULT,
            json!({"spec": {"action": "Fill", "count": 0, "target": {"kind": "Node", "namespace": "x"},
                "duration": "ten"}}),
            expect![[r#"
                spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1
                spec.duration: Invalid value: "ten": spec.duration in body should match '^([0-9]{1,5}(h|m|s|ms)){1,4}$'
                spec.target.namespace: Forbidden: a node is in none
                spec.fill: Required value: for action Fill
                spec.target.kind: Forbidden: the disk of a node is the machine's own: a volume of a pod can be filled"#]],
        );
    }

    #[test]
    fn what_becomes_of_packets_is_checked() {
        check(
            &FAULT,
            json!({"spec": {"action": "Network", "network": {"lossPercent": 101, "jitter": "1ms",
                "bytesPerSecond": "0"}}}),
            expect![[r#"
                spec.network.lossPercent: Invalid value: 101: must be between 0 and 100
                spec.network.delay: Required value: jitter is a jitter of it
                spec.network.bytesPerSecond: Invalid value: "0": must be at least 1"#]],
        );
        check(
            &FAULT,
            json!({"spec": {"action": "Network", "network": {}}}),
            expect!["spec.network: Required value: something that becomes of packets"],
        );
        check(
            &FAULT,
            json!({"spec": {"network": {"delay": "100ms"}, "fill": {"volume": "data"}}}),
            expect![[r#"
                spec.fill.size: Required value
                spec.network: Forbidden: only an action Network has one
                spec.fill: Forbidden: only an action Fill has one"#]],
        );
    }

    #[test]
    fn only_the_end_can_change() {
        check_update(
            &FAULT,
            json!({"spec": {"action": "Kill", "duration": "1m"}}),
            expect![[r#"spec.action: Invalid value: "Kill": field is immutable"#]],
        );
    }

    #[test]
    fn rows_tell_what_happens() {
        check_row(
            &FAULT,
            json!({"status": {"phase": "Active", "message": "m"}}),
            expect!["a | Pause | pod/a | Active |  | 60m | m"],
        );
        check_row(
            &FAULT,
            json!({"spec": {"duration": "10s", "target": {"names": null,
                "selector": {"matchLabels": {"app": "a"}}}}}),
            expect!["a | Pause | pod -l app=a |  | 10s | 60m | "],
        );
    }
}
