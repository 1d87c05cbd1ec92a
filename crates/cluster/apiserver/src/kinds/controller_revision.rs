//! ControllerRevisions: templates of the past, as StatefulSets and DaemonSets keep them.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, set_default},
};

pub(super) static CONTROLLER_REVISION: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    schema: "io.k8s.api.apps.v1.ControllerRevision",
    default: |revision| set_default(revision, "revision", 0),
    validate,
    validate_update: |new, old, causes| rules::unchanged(new, old, "data", "data", causes),
    columns: COLUMNS,
    row,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Controller", "The object whose past this is."),
    number("Revision", "Number of the template: greater is later."),
    AGE,
];

fn validate(revision: &Value, causes: &mut Causes) {
    if revision.int("revision").is_some_and(|it| it < 0) {
        causes.invalid(Path::new("revision"), revision.field("revision"), rules::NOT_NEGATIVE);
    }
    match revision.field("data") {
        Value::Object(_) => {}
        Value::Null => causes.required("data", "data is mandatory"),
        _ => causes.required("data", "data must be a valid JSON object"),
    }
}

fn row(revision: &Value, now: Timestamp) -> Vec<Value> {
    let mut owners = revision.field("metadata").items("ownerReferences").iter();
    let owner = owners.find(|it| it.flag("controller"));
    let owner = owner.map_or_else(
        || print::NONE.to_owned(),
        |it| {
            let kind = match it.text("apiVersion").split_once('/') {
                Some((group, _)) => format!("{}.{group}", it.text("kind")),
                None => it.text("kind").to_owned(),
            };
            format!("{}/{}", kind.to_lowercase(), it.text("name"))
        },
    );
    vec![
        print::name(revision),
        owner.into(),
        revision.int("revision").unwrap_or_default().into(),
        print::age(revision, now),
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
    fn data_is_an_object_and_stays() {
        check(
            &CONTROLLER_REVISION,
            json!({"data": null, "revision": -1}),
            expect![[r#"
            revision: Invalid value: -1: must be greater than or equal to 0
            data: Required value: data is mandatory"#]],
        );
        check(
            &CONTROLLER_REVISION,
            json!({"data": 5}),
            expect!["data: Required value: data must be a valid JSON object"],
        );
        check_update(
            &CONTROLLER_REVISION,
            json!({"data": {"b": 1}}),
            expect![[r#"data: Invalid value: {"a":1,"b":1}: field is immutable"#]],
        );
    }

    #[test]
    fn row_names_the_owner() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "a", "controller": true}]);
        let owned = json!({"metadata": {"ownerReferences": owner}});
        check_row(&CONTROLLER_REVISION, owned, expect!["a | statefulset.apps/a | 0 | 60m"]);
    }
}
