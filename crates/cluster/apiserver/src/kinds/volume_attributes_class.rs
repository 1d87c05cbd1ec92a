//! VolumeAttributesClasses: settings of volumes that can change while they are in use.

use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    storage_class,
    value::Read,
};

pub(super) static VOLUME_ATTRIBUTES_CLASS: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    schema: "io.k8s.api.storage.v1.VolumeAttributesClass",
    validate,
    validate_update: |new, old, causes| {
        for (name, detail) in [
            ("driverName", "updates to driverName are forbidden."),
            ("parameters", "updates to parameters are forbidden."),
        ] {
            if new.field(name) != old.field(name) {
                causes.forbidden(name, detail);
            }
        }
    },
    columns: COLUMNS,
    row: |it, now| vec![print::name(it), it.text("driverName").into(), print::age(it, now)],
    unattended: true,
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] =
    &[NAME, column("DriverName", "The driver that knows the settings."), AGE];

fn validate(class: &Value, causes: &mut Causes) {
    storage_class::provisioner(class.text("driverName"), Path::new("driverName"), causes);
    let path = Path::new("parameters");
    storage_class::parameters(class, path, causes);
    if class.members("parameters").next().is_none() {
        causes.required(path, "must contain at least one key/value pair");
    }
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
    fn settings_are_there_and_stay() {
        let nothing = json!({"driverName": null, "parameters": null});
        check(
            &VOLUME_ATTRIBUTES_CLASS,
            nothing,
            expect![[r#"
            driverName: Required value
            parameters: Required value: must contain at least one key/value pair"#]],
        );
        let change = json!({"driverName": "b", "parameters": {"a": "c"}});
        check_update(
            &VOLUME_ATTRIBUTES_CLASS,
            change,
            expect![[r#"
            driverName: Forbidden: updates to driverName are forbidden.
            parameters: Forbidden: updates to parameters are forbidden."#]],
        );
        check_row(&VOLUME_ATTRIBUTES_CLASS, json!({}), expect!["a | example.com | 60m"]);
    }
}
