//! CSIStorageCapacities: how much room there is for volumes of a class somewhere.

use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, NAME, column},
    rules,
    value::Read,
};

pub(super) static CSI_STORAGE_CAPACITY: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    schema: "io.k8s.api.storage.v1.CSIStorageCapacity",
    validate,
    validate_update: |new, old, causes| {
        for name in ["nodeTopology", "storageClassName"] {
            rules::unchanged(new, old, name, name, causes);
        }
    },
    columns: COLUMNS,
    row: |it, _| {
        let capacity = print::or_unset(it.text("capacity"));
        vec![print::name(it), it.text("storageClassName").into(), capacity.into()]
    },
    unattended: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("StorageClassName", "The class."),
    column("Capacity", "How much room there is."),
];

fn validate(capacity: &Value, causes: &mut Causes) {
    rules::label_selector(capacity.field("nodeTopology"), Path::new("nodeTopology"), causes);
    let class = capacity.text("storageClassName");
    let problems = api::names::dns1123_subdomain(class);
    rules::all(problems, Path::new("storageClassName"), class, causes);
    rules::amount_not_negative(capacity.field("capacity"), Path::new("capacity"), causes);
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
    fn amounts_and_classes_are_checked() {
        let capacity = json!({"capacity": "-1", "storageClassName": "A"});
        check(
            &CSI_STORAGE_CAPACITY,
            capacity,
            expect![[r#"
            storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            capacity: Invalid value: "-1": must be greater than or equal to 0"#]],
        );
        check_update(
            &CSI_STORAGE_CAPACITY,
            json!({"storageClassName": "b"}),
            expect![[r#"storageClassName: Invalid value: "b": field is immutable"#]],
        );
        check_row(&CSI_STORAGE_CAPACITY, json!({}), expect!["a | a | 1Gi"]);
    }
}
