//! Nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    rules,
    value::{Read, keep, set_default},
};

pub(super) static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.Node",
    subresources: &[Subresource::Status],
    generation: false,
    deletion: Deletion::Immediate,
    default,
    // A node reports its status when it registers itself.
    prepare_create: |_| {},
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status: |new, old| keep(new, "spec", old),
    validate,
    validate_update,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row,
    fields: |it, path| {
        let flag = || it.field("spec").flag("unschedulable").to_string();
        (path == "spec.unschedulable").then(flag)
    },
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether the node can run pods."),
    column("Roles", "What the node is for, from its labels."),
    AGE,
    column("Version", "Version of the node's agent."),
    wide("Internal-IP", "Address inside the cluster."),
    wide("External-IP", "Address from outside."),
    wide("OS-Image", "Operating system."),
    wide("Kernel-Version", "Kernel."),
    wide("Container-Runtime", "What runs the containers, and its version."),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn default(node: &mut Value) {
    let Some(status) = node.get_mut("status") else { return };
    let capacity = status.field("capacity").clone();
    if !capacity.is_null() {
        set_default(status, "allocatable", capacity);
    }
}

fn validate(node: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let list = path.child("taints");
    for (index, taint) in node.field("spec").items("taints").iter().enumerate() {
        let path = list.index(index);
        let (key, value) = (taint.text("key"), taint.text("value"));
        rules::all(api::names::qualified_name(key), path.child("key"), key, causes);
        rules::all(api::names::label_value(value), path.child("value"), value, causes);
        rules::one_of(taint, "effect", EFFECTS, path, causes);
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let (new, old) = (new.field("spec"), old.field("spec"));
    for (name, detail) in [
        ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
        ("providerID", "node updates may not change providerID except from \"\" to valid"),
    ] {
        if old.has(name) && new.field(name) != old.field(name) {
            causes.forbidden(path.child(name), detail);
        }
    }
}

fn row(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = node.at(&["status", "nodeInfo"]);
    let known = |name| match info.text(name) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        print::name(node),
        status(node).into(),
        print::joined(roles(node).into_iter()).into(),
        print::age(node, now),
        info.text("kubeletVersion").into(),
        address(node, "InternalIP").into(),
        address(node, "ExternalIP").into(),
        known("osImage").into(),
        known("kernelVersion").into(),
        known("containerRuntimeVersion").into(),
    ]
}

fn status(node: &Value) -> String {
    let mut conditions = node.field("status").items("conditions").iter();
    let ready = conditions.find(|it| it.text("type") == "Ready").map(|it| it.text("status"));
    let status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = if node.field("spec").flag("unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{status}{closed}")
}

fn roles(node: &Value) -> Vec<&str> {
    let labels = node.field("metadata").members("labels");
    let named = labels.filter_map(|(key, value)| match key {
        ROLE => value.as_str(),
        _ => key.strip_prefix(ROLE_PREFIX),
    });
    let mut roles: Vec<&str> = named.filter(|it| !it.is_empty()).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn address(node: &Value, kind: &str) -> String {
    let mut addresses = node.field("status").items("addresses").iter();
    print::or_none(addresses.find(|it| it.text("type") == kind).map_or("", |it| it.text("address")))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn row_shows_readiness_and_roles() {
        check_row(
            &NODE,
            json!({}),
            expect![
                "a | Unknown | <none> | 60m |  | <none> | <none> | <unknown> | <unknown> | <unknown>"
            ],
        );
        let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "",
                "node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}});
        check_row(
            &NODE,
            node,
            expect![
                "a | Ready,SchedulingDisabled | control-plane,worker | 60m | v1.36.0 | 10.0.0.1 | <none> | Debian | <unknown> | <unknown>"
            ],
        );
    }

    #[test]
    fn taints_are_checked() {
        let taints = json!({"spec": {"taints": [{"key": "a", "effect": "Nope"}]}});
        check(
            &NODE,
            taints,
            expect![[
                r#"spec.taints[0].effect: Unsupported value: "Nope": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#
            ]],
        );
    }
}
