//! StorageClasses: how volumes of a kind are made.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, flag},
    rules,
    value::{Read, set_default},
};

pub(super) static STORAGE_CLASS: Kind = Kind {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    schema: "io.k8s.api.storage.v1.StorageClass",
    default: |class| {
        set_default(class, "reclaimPolicy", "Delete");
        set_default(class, "volumeBindingMode", "Immediate");
    },
    validate,
    validate_update: |new, old, causes| {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            rules::unchanged(new, old, name, name, causes);
        }
    },
    columns: COLUMNS,
    row,
    unattended: true,
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Provisioner", "Who makes the volumes."),
    column("ReclaimPolicy", "What becomes of a volume whose claim is gone."),
    column("VolumeBindingMode", "When a claim gets its volume."),
    flag("AllowVolumeExpansion", "Whether claims may grow."),
    AGE,
];

/// Annotation of the class that claims get which name none.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// The same as it was called while it was new.
const IS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// Parameters of a class.
const PARAMETERS_MAX: usize = 512;
/// Bytes of all parameters together.
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

fn validate(class: &Value, causes: &mut Causes) {
    provisioner(class.text("provisioner"), Path::new("provisioner"), causes);
    parameters(class, Path::new("parameters"), causes);
    for (name, supported) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        let text = class.text(name);
        if !text.is_empty() && !supported.contains(&text) {
            causes.not_supported(name, class.field(name), &supported);
        }
    }
}

/// The name of a driver.
pub(super) fn provisioner(name: &str, path: Path<'_>, causes: &mut Causes) {
    if name.is_empty() {
        causes.required(path, "");
        return;
    }
    let lower = name.to_lowercase();
    rules::all(api::names::qualified_name(&lower), path, lower.as_str(), causes);
}

/// `parameters` of a class: not more than there is room for.
pub(super) fn parameters(class: &Value, path: Path<'_>, causes: &mut Causes) {
    if PARAMETERS_MAX < class.members("parameters").count() {
        rules::too_long(path, PARAMETERS_MAX, causes);
        return;
    }
    let mut bytes = 0;
    for (key, value) in class.members("parameters") {
        if key.is_empty() {
            causes.invalid(path, &Value::from(""), "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if PARAMETERS_BYTES_MAX < bytes {
        rules::too_long(path, PARAMETERS_BYTES_MAX, causes);
    }
}

fn row(class: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = [IS_DEFAULT, IS_DEFAULT_BETA].iter().any(|it| rules::is_annotated(class, it));
    vec![
        print::name_or_default(class, is_default),
        class.text("provisioner").into(),
        class.text("reclaimPolicy").into(),
        class.text("volumeBindingMode").into(),
        class.flag("allowVolumeExpansion").into(),
        print::age(class, now),
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
    fn a_class_has_a_provisioner() {
        check(
            &STORAGE_CLASS,
            json!({"provisioner": null, "reclaimPolicy": "Recycle", "volumeBindingMode": "Late",
                "parameters": {"": "a"}}),
            expect![[r#"
                provisioner: Required value
                parameters: Invalid value: "": field can not be empty.
                reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"
                volumeBindingMode: Unsupported value: "Late": supported values: "Immediate", "WaitForFirstConsumer""#]],
        );
        check(
            &STORAGE_CLASS,
            json!({"provisioner": "a b"}),
            expect![[
                r#"provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#
            ]],
        );
    }

    #[test]
    fn how_volumes_are_made_stays() {
        check_update(
            &STORAGE_CLASS,
            json!({"provisioner": "b", "parameters": {"a": "b"}, "allowVolumeExpansion": true}),
            expect![[r#"
                parameters: Invalid value: {"a":"b"}: field is immutable
                provisioner: Invalid value: "b": field is immutable"#]],
        );
        let default = json!({"metadata": {"annotations": {IS_DEFAULT: "true"}}});
        check_row(
            &STORAGE_CLASS,
            default,
            expect!["a (default) | example.com/disk | Delete | Immediate | false | 60m"],
        );
    }
}
