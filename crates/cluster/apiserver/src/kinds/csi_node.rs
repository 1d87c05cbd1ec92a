//! CSINodes: which drivers of volumes a node has.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, number},
    rules,
    value::{Read, remove},
};

pub(super) static CSI_NODE: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    namespaced: false,
    schema: "io.k8s.api.storage.v1.CSINode",
    validate,
    validate_update,
    columns: COLUMNS,
    row: |it, now| {
        let drivers = it.field("spec").items("drivers").len();
        vec![print::name(it), drivers.into(), print::age(it, now)]
    },
    unattended: true,
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, number("Drivers", "Drivers on the node."), AGE];

/// Bytes of a driver's name.
const DRIVER_NAME_MAX: usize = 63;
/// Bytes of what a driver calls the node.
const NODE_ID_MAX: usize = 256;

/// The name of a driver.
pub(super) fn driver_name(object: &Value, field: &str, path: Path<'_>, causes: &mut Causes) {
    let name = object.text(field);
    if name.is_empty() {
        causes.required(path.child(field), "");
        return;
    }
    if DRIVER_NAME_MAX < name.len() {
        rules::too_long(path.child(field), DRIVER_NAME_MAX, causes);
    }
    rules::all(names::dns1123_subdomain(&name.to_lowercase()), path.child(field), name, causes);
}

fn validate(node: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let list = path.child("drivers");
    let mut seen = BTreeSet::new();
    for (index, driver) in node.field("spec").items("drivers").iter().enumerate() {
        let path = list.index(index);
        driver_name(driver, "name", path, causes);
        let id = driver.text("nodeID");
        if id.is_empty() {
            causes.required(path.child("nodeID"), "");
        }
        if NODE_ID_MAX < id.len() {
            let detail = format!("must be {NODE_ID_MAX} characters or less");
            causes.invalid(path.child("nodeID"), &id.into(), &detail);
        }
        let allocatable = path.child("allocatable");
        rules::not_negative(driver.field("allocatable"), "count", allocatable, causes);
        if !seen.insert(driver.text("name")) {
            causes.duplicate(path.child("name"), driver.field("name"));
        }
        let mut keys = BTreeSet::new();
        for key in driver.items("topologyKeys").iter().filter_map(Value::as_str) {
            if key.is_empty() {
                causes.required(path, "");
            }
            if !keys.insert(key) {
                causes.duplicate(path, &key.into());
            }
            rules::all(names::qualified_name(key), path, key, causes);
        }
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let without_count = |driver: &Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    let before = old.field("spec").items("drivers");
    for driver in new.field("spec").items("drivers") {
        let was = before.iter().find(|it| it.text("name") == driver.text("name"));
        if was.is_some_and(|it| without_count(it) != without_count(driver)) {
            causes.invalid("spec.drivers", driver, rules::IMMUTABLE);
        }
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
    fn drivers_are_told_apart() {
        let driver = json!({"name": "a", "nodeID": "n", "topologyKeys": ["k", "k"],
            "allocatable": {"count": -1}});
        check(
            &CSI_NODE,
            json!({"spec": {"drivers": [driver, {"name": "a"}, {}]}}),
            expect![[r#"
                spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0
                spec.drivers[0]: Duplicate value: "k"
                spec.drivers[1].nodeID: Required value
                spec.drivers[1].name: Duplicate value: "a"
                spec.drivers[2].name: Required value
                spec.drivers[2].nodeID: Required value"#]],
        );
        check_update(
            &CSI_NODE,
            json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "m"}]}}),
            expect![[
                r#"spec.drivers: Invalid value: {"name":"example.com","nodeID":"m"}: field is immutable"#
            ]],
        );
        check_row(&CSI_NODE, json!({}), expect!["a | 1 | 60m"]);
    }
}
