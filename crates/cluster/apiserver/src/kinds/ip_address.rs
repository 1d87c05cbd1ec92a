//! IPAddresses: an address of a Service, as an object of its name.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(super) static IP_ADDRESS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    schema: "io.k8s.api.networking.v1.IPAddress",
    validate,
    validate_update: |new, old, causes| {
        let (new, old) = (new.field("spec"), old.field("spec"));
        rules::unchanged(new, old, "parentRef", "spec.parentRef", causes);
    },
    validate_name: |name, causes| {
        let good = name.parse::<std::net::IpAddr>().is_ok_and(|it| it.to_string() == name);
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        let problems = if good { Vec::new() } else { vec![detail.to_owned()] };
        rules::metadata_name(problems, name, causes);
    },
    columns: COLUMNS,
    row,
    unattended: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, column("ParentRef", "Whose address it is."), AGE];

fn validate(address: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("parentRef");
    let parent = address.field("spec").field("parentRef");
    if parent.is_null() {
        causes.required(path, "");
        return;
    }
    let group = parent.text("group");
    if !group.is_empty() {
        rules::all(api::names::dns1123_subdomain(group), path.child("group"), group, causes);
    }
    for name in ["resource", "name"] {
        rules::required_name(parent, name, rules::path_segment, path, causes);
    }
    let namespace = parent.text("namespace");
    rules::all(rules::path_segment(namespace), path.child("namespace"), namespace, causes);
}

fn row(address: &Value, now: Timestamp) -> Vec<Value> {
    let parent = address.field("spec").field("parentRef");
    let mut shown = parent.text("resource").to_owned();
    for (before, name) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
        if !parent.text(name).is_empty() {
            shown = format!("{shown}{before}{}", parent.text(name));
        }
    }
    let shown = if parent.is_null() { print::NONE.to_owned() } else { shown };
    vec![print::name(address), shown.into(), print::age(address, now)]
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
    fn an_address_is_somebodys() {
        check(
            &IP_ADDRESS,
            json!({"spec": {"parentRef": null}}),
            expect!["spec.parentRef: Required value"],
        );
        let parent = json!({"spec": {"parentRef": {"group": "A", "resource": null}}});
        check(
            &IP_ADDRESS,
            parent,
            expect![[r#"
            spec.parentRef.group: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.parentRef.resource: Required value"#]],
        );
        let other = json!({"spec": {"parentRef": {"name": "b"}}});
        check_update(
            &IP_ADDRESS,
            other,
            expect![[
                r#"spec.parentRef: Invalid value: {"name":"b","namespace":"n","resource":"services"}: field is immutable"#
            ]],
        );
        check_row(&IP_ADDRESS, json!({}), expect!["10.96.0.1 | services/n/a | 60m"]);
        let mut causes = Causes::default();
        (IP_ADDRESS.validate_name)("10.0.0.01", &mut causes);
        assert_eq!(causes.as_slice().len(), 1);
    }
}
