//! ResourceClaims and ResourceClaimTemplates: devices that are asked for.

use std::collections::BTreeSet;

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{ITEMS_MAX, PLAIN, class_name, configurations, selectors};
use crate::kinds::{
    Causes, Kind, Subresource,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, items_mut, keep, set, set_default},
};

pub(in crate::kinds) static RESOURCE_CLAIM: Kind = Kind {
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    schema: "io.k8s.api.resource.v1.ResourceClaim",
    subresources: &[Subresource::Status],
    default: |claim| {
        if let Some(spec) = claim.get_mut("spec") {
            default(spec);
        }
    },
    prepare_create: |claim| set(claim, "status", serde_json::json!({})),
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status: |new, old| keep(new, "spec", old),
    validate: |claim, causes| validate(claim.field("spec"), Path::new("spec"), causes),
    validate_update: |new, old, causes| rules::unchanged(new, old, "spec", "spec", causes),
    columns: &[NAME, column("State", "How far it is."), AGE],
    row,
    ..PLAIN
};

pub(in crate::kinds) static RESOURCE_CLAIM_TEMPLATE: Kind = Kind {
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    schema: "io.k8s.api.resource.v1.ResourceClaimTemplate",
    default: |template| {
        if let Some(spec) = template.get_mut("spec").and_then(|it| it.get_mut("spec")) {
            default(spec);
        }
    },
    validate: |template, causes| {
        let path = Path::new("spec");
        validate(template.at(&["spec", "spec"]), path.child("spec"), causes);
    },
    validate_update: |new, old, causes| rules::unchanged(new, old, "spec", "spec", causes),
    columns: &[NAME, AGE],
    row: |it, now| vec![print::name(it), print::age(it, now)],
    ..PLAIN
};

/// Ways in which one request can be met.
const ALTERNATIVES_MAX: usize = 8;

fn default(spec: &mut Value) {
    let fill = |request: &mut Value| {
        set_default(request, "allocationMode", "ExactCount");
        let none = request.int("count").unwrap_or_default() == 0;
        if none && request.text("allocationMode") == "ExactCount" {
            set(request, "count", 1);
        }
    };
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            fill(exactly);
        }
        items_mut(request, "firstAvailable").for_each(fill);
    }
}

fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let (devices, path) = (spec.field("devices"), path.child("devices"));
    let list = path.child("requests");
    let requests = devices.items("requests");
    rules::not_too_many(requests.len(), ITEMS_MAX, list, causes);
    let mut names = BTreeSet::new();
    for (index, it) in requests.iter().enumerate() {
        request(it, list.index(index), causes);
        if !names.insert(it.text("name")) {
            causes.duplicate(list.index(index), it.field("name"));
        }
    }
    let list = path.child("constraints");
    rules::not_too_many(devices.items("constraints").len(), ITEMS_MAX, list, causes);
    for (index, constraint) in devices.items("constraints").iter().enumerate() {
        let path = list.index(index);
        if !constraint.has("matchAttribute") && !constraint.has("distinctAttribute") {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, \
                          but multiple fields are set";
            causes.required(path, detail);
        }
        let list = path.child("requests");
        for (index, name) in constraint.items("requests").iter().enumerate() {
            let text = name.as_str().unwrap_or_default();
            if !names.contains(text.split('/').next().unwrap_or_default()) {
                let detail = "must be the name of a request in the claim or the name of a request and a \
                     subrequest separated by '/'";
                causes.invalid(list.index(index), name, detail);
            }
        }
    }
    configurations(devices, path, causes);
}

fn request(request: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::required_name(request, "name", names::dns1123_label, path, causes);
    let one_of = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = request.items("firstAvailable");
    match (request.has("exactly"), !alternatives.is_empty()) {
        (false, false) => causes.required(path, one_of),
        (true, true) => {
            let detail = format!("{one_of}, but multiple fields are set");
            causes.invalid(path, &Value::Null, &detail);
        }
        (true, false) => exactly(request.field("exactly"), path.child("exactly"), causes),
        (false, true) => {
            let list = path.child("firstAvailable");
            rules::not_too_many(alternatives.len(), ALTERNATIVES_MAX, list, causes);
            for (index, it) in alternatives.iter().enumerate() {
                let path = list.index(index);
                rules::required_name(it, "name", names::dns1123_label, path, causes);
                exactly(it, path, causes);
            }
        }
    }
}

fn exactly(request: &Value, path: Path<'_>, causes: &mut Causes) {
    class_name(request, path, causes);
    selectors(request, path, causes);
    let count = request.int("count").unwrap_or_default();
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            causes.invalid(path.child("count"), &count.into(), detail);
        }
        "All" => {}
        "ExactCount" if count <= 0 => {
            causes.invalid(path.child("count"), &count.into(), "must be greater than zero");
        }
        "ExactCount" => {}
        mode => {
            let supported = &["All", "ExactCount"];
            causes.not_supported(path.child("allocationMode"), &mode.into(), supported);
        }
    }
}

fn row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = claim.field("metadata").has("deletionTimestamp");
    let status = claim.field("status");
    let mut states = if deleted { vec!["deleted"] } else { Vec::new() };
    if status.has("allocation") {
        states.push("allocated");
        if !status.items("reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    vec![print::name(claim), states.join(",").into(), print::age(claim, now)]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check, check_row, check_update};

    #[test]
    fn requests_are_told_apart() {
        let requests = json!([{"name": "a"}, {"name": "a", "exactly": {"count": -1}},
            {"name": "B", "firstAvailable": [{"allocationMode": "All", "count": 2}]},
            {"name": "c", "exactly": {"deviceClassName": "d", "allocationMode": "Some"}}]);
        let constraints = json!([{"requests": ["x"]}]);
        let devices = json!({"requests": requests, "constraints": constraints});
        check(
            &RESOURCE_CLAIM,
            json!({"spec": {"devices": devices}}),
            expect![[r#"
            spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required
            spec.devices.requests[1].exactly.deviceClassName: Required value
            spec.devices.requests[1].exactly.count: Invalid value: -1: must be greater than zero
            spec.devices.requests[1]: Duplicate value: "a"
            spec.devices.requests[2].name: Invalid value: "B": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.devices.requests[2].firstAvailable[0].name: Required value
            spec.devices.requests[2].firstAvailable[0].deviceClassName: Required value
            spec.devices.requests[2].firstAvailable[0].count: Invalid value: 2: must not be specified when allocationMode is 'All'
            spec.devices.requests[3].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"
            spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set
            spec.devices.constraints[0].requests[0]: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#]],
        );
        check_update(
            &RESOURCE_CLAIM,
            json!({"spec": {"devices": null}}),
            expect!["spec: Invalid value: {}: field is immutable"],
        );
        let status = json!({"allocation": {}, "reservedFor": [{"name": "p"}]});
        check_row(
            &RESOURCE_CLAIM,
            json!({"status": status}),
            expect!["a | allocated,reserved | 60m"],
        );
    }
}
