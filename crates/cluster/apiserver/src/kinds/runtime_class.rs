//! RuntimeClasses: what runs the containers of a pod.

use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    pod_spec,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(super) static RUNTIME_CLASS: Kind = Kind {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    schema: "io.k8s.api.node.v1.RuntimeClass",
    validate,
    validate_update: |new, old, causes| rules::unchanged(new, old, "handler", "handler", causes),
    columns: COLUMNS,
    row: |it, now| vec![print::name(it), it.text("handler").into(), print::age(it, now)],
    unattended: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, column("Handler", "The runtime, as nodes call it."), AGE];

fn validate(class: &Value, causes: &mut Causes) {
    match class.text("handler") {
        "" => causes.required("handler", ""),
        name => rules::all(api::names::dns1123_label(name), Path::new("handler"), name, causes),
    }
    let path = Path::new("overhead");
    let path = path.child("podFixed");
    for (name, value) in class.field("overhead").members("podFixed") {
        pod_spec::amount(name, value, path.key(name), causes);
    }
    let scheduling = class.field("scheduling");
    let path = Path::new("scheduling");
    rules::labels(scheduling.field("nodeSelector"), path.child("nodeSelector"), causes);
    pod_spec::tolerations(scheduling, path, causes);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_update},
        *,
    };

    #[test]
    fn handlers_are_labels_and_stay() {
        check(&RUNTIME_CLASS, json!({"handler": null}), expect!["handler: Required value"]);
        check(
            &RUNTIME_CLASS,
            json!({"handler": "A", "overhead": {"podFixed": {"cpu": "-1"}},
                "scheduling": {"tolerations": [{"operator": "Maybe", "key": "a"}]}}),
            expect![[r#"
                handler: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                overhead.podFixed[cpu]: Invalid value: "-1": must be greater than or equal to 0
                scheduling.tolerations[0].operator: Unsupported value: "Maybe": supported values: "Equal", "Exists""#]],
        );
        check_update(
            &RUNTIME_CLASS,
            json!({"handler": "b"}),
            expect![[r#"handler: Invalid value: "b": field is immutable"#]],
        );
    }
}
