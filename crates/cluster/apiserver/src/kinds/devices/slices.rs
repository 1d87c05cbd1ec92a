//! ResourceSlices: devices that there are.

use std::collections::BTreeSet;

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::PLAIN;
use crate::kinds::{
    Causes, Kind,
    csi_node::driver_name,
    path::Path,
    pod_spec,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(in crate::kinds) static RESOURCE_SLICE: Kind = Kind {
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    namespaced: false,
    schema: "io.k8s.api.resource.v1.ResourceSlice",
    generation: true,
    validate,
    validate_update: |new, old, causes| {
        let (new, old) = (new.field("spec"), old.field("spec"));
        rules::unchanged(new.field("pool"), old.field("pool"), "name", "spec.pool.name", causes);
        rules::unchanged(new, old, "driver", "spec.driver", causes);
        rules::unchanged(new, old, "nodeName", "spec.nodeName", causes);
    },
    columns: &[
        NAME,
        column("Node", "Where the devices are."),
        column("Driver", "The driver that has them."),
        column("Pool", "The pool that they are part of."),
        AGE,
    ],
    row,
    fields: |it, path| match path {
        "spec.nodeName" => Some(it.field("spec").text("nodeName").to_owned()),
        "spec.driver" => Some(it.field("spec").text("driver").to_owned()),
        _ => None,
    },
    warnings: |it| {
        let driver = it.field("spec").text("driver");
        let warning = || {
            format!(
                "spec.driver: driver names should be lowercase; {driver:?} contains uppercase \
                 characters"
            )
        };
        (driver != driver.to_lowercase()).then(warning).into_iter().collect()
    },
    ..PLAIN
};

/// Devices of one slice, and of one whose devices have taints or counters.
const DEVICES_MAX: usize = 128;
const SPECIAL_DEVICES_MAX: usize = 64;
/// Sets of counters that devices share.
const COUNTER_SETS_MAX: usize = 8;
const EXACTLY_ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
    `perDeviceNodeSelection` is required";

fn validate(slice: &Value, causes: &mut Causes) {
    let (spec, path) = (slice.field("spec"), Path::new("spec"));
    driver_name(spec, "driver", path, causes);
    pool(spec.field("pool"), path.child("pool"), causes);
    place(spec, path, causes);
    let (devices, counters) = (spec.items("devices"), spec.items("sharedCounters"));
    if !devices.is_empty() && !counters.is_empty() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        causes.invalid(path, &"".into(), detail);
    }
    let special =
        |it: &Value| ["taints", "consumesCounters"].iter().any(|list| !it.items(list).is_empty());
    let max = if devices.iter().any(special) { SPECIAL_DEVICES_MAX } else { DEVICES_MAX };
    for (name, items, max) in
        [("devices", devices, max), ("sharedCounters", counters, COUNTER_SETS_MAX)]
    {
        let list = path.child(name);
        rules::not_too_many(items.len(), max, list, causes);
        let mut seen = BTreeSet::new();
        for (index, it) in items.iter().enumerate() {
            let path = list.index(index);
            rules::required_name(it, "name", names::dns1123_label, path, causes);
            if !seen.insert(it.text("name")) {
                causes.duplicate(path, it.field("name"));
            }
        }
    }
}

fn pool(pool: &Value, path: Path<'_>, causes: &mut Causes) {
    match pool.text("name") {
        "" => causes.required(path.child("name"), ""),
        name => {
            let problems = name.split('/').flat_map(names::dns1123_subdomain).collect();
            rules::all(problems, path.child("name"), name, causes);
        }
    }
    let name = "resourceSliceCount";
    let count = pool.int(name).unwrap_or_default();
    if count <= 0 {
        causes.invalid(path.child(name), &count.into(), "must be greater than zero");
    }
    if pool.int("generation").is_some_and(|it| it < 0) {
        let detail = "must be greater than or equal to zero";
        causes.invalid(path.child("generation"), pool.field("generation"), detail);
    }
}

/// Where the devices can be reached from.
fn place(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let mut given = Vec::new();
    match spec.field("nodeName").as_str() {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            causes.invalid(path.child("nodeName"), &"".into(), detail);
        }
        Some(name) => {
            given.push("`nodeName`");
            rules::all(names::dns1123_subdomain(name), path.child("nodeName"), name, causes);
        }
        None => {}
    }
    if spec.has("nodeSelector") {
        given.push("`nodeSelector`");
        let selector = spec.field("nodeSelector");
        let below = path.child("nodeSelector");
        pod_spec::node_selector(selector, below, causes);
        if selector.items("nodeSelectorTerms").len() != 1 {
            let terms = selector.field("nodeSelectorTerms");
            let detail = "must have exactly one node selector term";
            causes.invalid(below.child("nodeSelectorTerms"), terms, detail);
        }
    }
    for (name, quoted) in
        [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match spec.field(name).as_bool() {
            Some(true) => given.push(quoted),
            Some(false) => {
                let detail = "must be either unset or set to true";
                causes.invalid(path.child(name), spec.field(name), detail);
            }
            None => {}
        }
    }
    match given.len() {
        0 => causes.required(path, EXACTLY_ONE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            let detail = format!("{EXACTLY_ONE}, but multiple fields are set");
            causes.invalid(path, &shown.into(), &detail);
        }
    }
}

fn row(slice: &Value, now: Timestamp) -> Vec<Value> {
    let spec = slice.field("spec");
    vec![
        print::name(slice),
        spec.text("nodeName").into(),
        spec.text("driver").into(),
        spec.field("pool").text("name").into(),
        print::age(slice, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check, check_row, check_update};

    #[test]
    fn devices_are_somewhere() {
        check(
            &RESOURCE_SLICE,
            json!({"spec": {"driver": null, "nodeName": "n", "allNodes": true, "pool": {"name": "_"},
                "perDeviceNodeSelection": false, "devices": [{"name": "a"}, {"name": "a"}, {}]}}),
            expect![[r#"
                spec.driver: Required value
                spec.pool.name: Invalid value: "_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true
                spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set
                spec.devices[1]: Duplicate value: "a"
                spec.devices[2].name: Required value"#]],
        );
        check(
            &RESOURCE_SLICE,
            json!({"spec": {"allNodes": null}}),
            expect![
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
            ],
        );
        check_update(
            &RESOURCE_SLICE,
            json!({"spec": {"driver": "b.com"}}),
            expect![[r#"spec.driver: Invalid value: "b.com": field is immutable"#]],
        );
        check_row(&RESOURCE_SLICE, json!({}), expect!["a |  | example.com | p | 60m"]);
    }
}
