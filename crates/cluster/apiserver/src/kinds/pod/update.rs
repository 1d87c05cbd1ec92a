//! What may change in a pod: almost nothing, because it is already running.

use serde_json::Value;

use crate::kinds::{
    Causes,
    path::Path,
    rules,
    value::{Read, items_mut, keep, remove, set},
};

const CHANGEABLE: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks the update of a pod.
pub(super) fn validate(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let (new, old) = (new.field("spec"), old.field("spec"));
    for (list, detail) in [
        ("containers", "pod updates may not add or remove containers"),
        ("initContainers", "pod updates may not add or remove init containers"),
    ] {
        if new.items(list).len() != old.items(list).len() {
            causes.forbidden(path.child(list), detail);
            return;
        }
    }
    active_deadline(new, old, path, causes);
    tolerations(new, old, path, causes);
    gates(new, old, path, causes);
    let rest = with_changes_undone(new, old);
    if rest != *old {
        causes.forbidden(path, &format!("{CHANGEABLE}\n{}", rules::difference(&rest, old)));
    }
}

/// May only become sooner.
fn active_deadline(new: &Value, old: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "activeDeadlineSeconds";
    match (new.int(name), old.int(name)) {
        (None, Some(_)) => causes.invalid(
            path.child(name),
            &Value::Null,
            "must not update from a positive integer to nil value",
        ),
        (Some(new), Some(old)) if old < new => causes.invalid(
            path.child(name),
            &Value::from(new),
            "must be less than or equal to previous value",
        ),
        _ => {}
    }
}

/// May only be added to.
fn tolerations(new: &Value, old: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "tolerations";
    let same = |a: &Value, b: &Value| {
        let [mut a, mut b] = [a.clone(), b.clone()];
        remove(&mut a, "tolerationSeconds");
        remove(&mut b, "tolerationSeconds");
        a == b
    };
    let kept = old.items(name).iter().all(|old| new.items(name).iter().any(|it| same(it, old)));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        causes.forbidden(path.child(name), detail);
    }
}

/// May only be removed.
fn gates(new: &Value, old: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "schedulingGates";
    for gate in new.items(name) {
        if !old.items(name).contains(gate) {
            let gate = gate.text("name");
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{gate}'");
            causes.forbidden(path.child(name), &detail);
        }
    }
}

/// `new` with everything that may change put back.
fn with_changes_undone(new: &Value, old: &Value) -> Value {
    let mut rest = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in items_mut(&mut rest, list).zip(old.items(list)) {
            keep(container, "image", old);
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        keep(&mut rest, name, old);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.int(grace).is_some_and(|it| it < 0) && new.int(grace) == Some(1) {
        set(&mut rest, grace, old.field(grace).clone());
    }
    rest
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn check(change: impl Fn(&mut Value), expected: Expect) {
        let old = json!({"spec": {"nodeName": "n", "tolerations": [{"key": "a"}],
            "containers": [{"name": "a", "image": "x"}]}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut causes = Causes::default();
        validate(&new, &old, &mut causes);
        let lines: Vec<String> =
            causes.as_slice().iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn images_may_change() {
        check(|spec| spec["containers"][0]["image"] = "y".into(), expect![""]);
        check(|spec| spec["activeDeadlineSeconds"] = 5.into(), expect![""]);
        let more = json!([{"key": "a", "tolerationSeconds": 5}, {"key": "b"}]);
        check(|spec| spec["tolerations"] = more.clone(), expect![""]);
    }

    #[test]
    fn nothing_else_may() {
        check(
            |spec| spec["nodeName"] = "m".into(),
            expect![[r#"
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
            - nodeName: "n"
            + nodeName: "m"
        "#]],
        );
        check(
            |spec| spec["containers"] = json!([]),
            expect!["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
        check(
            |spec| spec["tolerations"] = json!([]),
            expect![
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
            ],
        );
    }
}
