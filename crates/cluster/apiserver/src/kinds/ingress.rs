//! Ingresses: which requests from outside go to which Service.

use api::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, set},
};

pub(super) static INGRESS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    schema: "io.k8s.api.networking.v1.Ingress",
    generation: true,
    prepare_create: |ingress| set(ingress, "status", json!({"loadBalancer": {}})),
    validate,
    columns: COLUMNS,
    row,
    warnings,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Class", "Who serves it."),
    column("Hosts", "Hosts that are served."),
    column("Address", "Where it is reached."),
    column("Ports", "Ports that are open."),
    AGE,
];

/// Annotation that named the class before there was a field.
const CLASS: &str = "kubernetes.io/ingress.class";
/// What a path may not have in it, and how it may not end.
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];
/// Hosts that a table shows before it only counts them.
const HOSTS_SHOWN: usize = 3;
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid \
    DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end \
    with an alphanumeric character (e.g. '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn validate(ingress: &Value, causes: &mut Causes) {
    let (spec, path) = (ingress.field("spec"), Path::new("spec"));
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.invalid(path, &Value::Null, detail);
    }
    if spec.has("defaultBackend") {
        backend(spec.field("defaultBackend"), path.child("defaultBackend"), causes);
    }
    let list = path.child("rules");
    for (index, rule) in spec.items("rules").iter().enumerate() {
        let path = list.index(index);
        let name = rule.text("host");
        if !name.is_empty() {
            if name.parse::<std::net::IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                causes.invalid(path.child("host"), &name.into(), detail);
            }
            host(name, path.child("host"), causes);
        }
        if rule.has("http") {
            http(rule.field("http"), path.child("http"), causes);
        }
    }
    tls(spec, path.child("tls"), causes);
    let class = spec.field("ingressClassName");
    if let Some(class) = class.as_str() {
        let path = path.child("ingressClassName");
        rules::all(names::dns1123_subdomain(class), path, class, causes);
    }
    let old = ingress.at(&["metadata", "annotations"]).field(CLASS);
    if !class.is_null() && !old.is_null() && class != old {
        let detail = "must match `ingressClassName` when both are specified";
        causes.invalid(format!("annotations.{CLASS}"), old, detail);
    }
}

fn host(name: &str, path: Path<'_>, causes: &mut Causes) {
    if !name.contains('*') {
        rules::all(names::dns1123_subdomain(name), path, name, causes);
        return;
    }
    let rest = name.strip_prefix("*.").unwrap_or_default();
    if !names::dns1123_subdomain(rest).is_empty() {
        causes.invalid(path, &name.into(), WILDCARD);
    }
}

fn tls(spec: &Value, list: Path<'_>, causes: &mut Causes) {
    for (index, tls) in spec.items("tls").iter().enumerate() {
        let path = list.index(index);
        let hosts = path.child("hosts");
        for (index, name) in tls.items("hosts").iter().enumerate() {
            host(name.as_str().unwrap_or_default(), hosts.index(index), causes);
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            let path = path.child("secretName");
            rules::all(names::dns1123_subdomain(secret), path, secret, causes);
        }
    }
}

fn http(http: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("paths");
    if http.items("paths").is_empty() {
        causes.required(list, "");
    }
    for (index, one) in http.items("paths").iter().enumerate() {
        http_path(one, list.index(index), causes);
    }
}

fn http_path(one: &Value, path: Path<'_>, causes: &mut Causes) {
    let text = one.text("path");
    let mut refuse = |detail: &str| causes.invalid(path.child("path"), &text.into(), detail);
    match one.text("pathType") {
        "" => {
            causes.required(path.child("pathType"), "pathType must be specified");
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                refuse("must be an absolute path");
            }
            for bad in BAD_SEQUENCES.iter().filter(|it| text.contains(*it)) {
                refuse(&format!("must not contain '{bad}'"));
            }
            for bad in BAD_SUFFIXES.iter().filter(|it| text.ends_with(*it)) {
                refuse(&format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                refuse("must be an absolute path");
            }
        }
        _ => causes.not_supported(
            path.child("pathType"),
            one.field("pathType"),
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    backend(one.field("backend"), path.child("backend"), causes);
}

fn backend(backend: &Value, path: Path<'_>, causes: &mut Causes) {
    let empty = Value::from("");
    match (backend.has("resource"), backend.has("service")) {
        (true, true) => {
            causes.invalid(path, &empty, "cannot set both resource and service backends");
        }
        (true, false) => resource(backend.field("resource"), path.child("resource"), causes),
        (false, true) => service(backend.field("service"), path, causes),
        (false, false) => causes.invalid(path, &empty, "resource or service backend is required"),
    }
}

fn resource(resource: &Value, path: Path<'_>, causes: &mut Causes) {
    if let Some(group) = resource.field("apiGroup").as_str() {
        rules::all(names::dns1123_subdomain(group), path.child("apiGroup"), group, causes);
    }
    rules::required_name(resource, "kind", rules::path_segment, path, causes);
    rules::required_name(resource, "name", rules::path_segment, path, causes);
}

/// `path` is that of the backend: problems of its port are reported there.
fn service(service: &Value, path: Path<'_>, causes: &mut Causes) {
    let below = path.child("service");
    rules::required_name(service, "name", names::dns1123_label, below, causes);
    let port = service.field("port");
    let port_path = below.child("port");
    match (port.text("name"), port.int("number").unwrap_or_default()) {
        ("", 0) => causes.required(path, "port name or number is required"),
        (name, 0) => rules::all(names::port_name(name), port_path.child("name"), name, causes),
        ("", number) => {
            rules::all(names::port_number(number), port_path.child("number"), number, causes);
        }
        _ => causes.invalid(path, &"".into(), "cannot set both port name & port number"),
    }
}

fn warnings(ingress: &Value) -> Vec<String> {
    let old = ingress.at(&["metadata", "annotations"]).has(CLASS);
    let warning = || {
        format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")
    };
    old.then(warning).into_iter().collect()
}

fn row(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = ingress.field("spec");
    let balanced = ingress.at(&["status", "loadBalancer"]).items("ingress").iter();
    let addresses: std::collections::BTreeSet<&str> = balanced
        .map(|it| match it.text("ip") {
            "" => it.text("hostname"),
            address => address,
        })
        .filter(|it| !it.is_empty())
        .collect();
    let addresses: Vec<&str> = addresses.into_iter().collect();
    vec![
        print::name(ingress),
        print::or_none(spec.text("ingressClassName")).into(),
        hosts(spec.items("rules")).into(),
        addresses.join(",").into(),
        if spec.items("tls").is_empty() { "80" } else { "80, 443" }.into(),
        print::age(ingress, now),
    ]
}

fn hosts(list: &[Value]) -> String {
    let named: Vec<&str> =
        list.iter().map(|it| it.text("host")).filter(|it| !it.is_empty()).collect();
    let shown: Vec<&str> = named.iter().copied().take(HOSTS_SHOWN).collect();
    match (shown.is_empty(), list.len().saturating_sub(HOSTS_SHOWN)) {
        (true, _) => "*".to_owned(),
        (false, more) if HOSTS_SHOWN < named.len() => {
            format!("{} + {more} more...", shown.join(","))
        }
        (false, _) => shown.join(","),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    fn rule(it: Value) -> Value {
        json!({"spec": {"rules": [it]}})
    }

    #[test]
    fn something_is_served() {
        check(
            &INGRESS,
            json!({"spec": {"rules": null}}),
            expect![
                "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"
            ],
        );
        check(&INGRESS, rule(json!({"host": "*.a.com"})), expect![""]);
        check(
            &INGRESS,
            rule(json!({"host": "1.2.3.4", "http": {}})),
            expect![[r#"
            spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
            spec.rules[0].http.paths: Required value"#]],
        );
        check(
            &INGRESS,
            rule(json!({"host": "a*.com"})),
            expect![[
                r#"spec.rules[0].host: Invalid value: "a*.com": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#
            ]],
        );
    }

    #[test]
    fn paths_are_absolute() {
        let path = |it: Value| rule(json!({"http": {"paths": [it]}}));
        check(
            &INGRESS,
            path(json!({})),
            expect![
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"
            ],
        );
        check(
            &INGRESS,
            path(json!({"path": "a//b/..", "pathType": "Prefix", "backend": {}})),
            expect![[r#"
                spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path
                spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//'
                spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..'
                spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required"#]],
        );
        check(
            &INGRESS,
            path(json!({"path": "/", "pathType": "Some",
                "backend": {"service": {"name": "A", "port": {"name": "a", "number": 1}}}})),
            expect![[r#"
                spec.rules[0].http.paths[0].pathType: Unsupported value: "Some": supported values: "Exact", "ImplementationSpecific", "Prefix"
                spec.rules[0].http.paths[0].backend.service.name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both port name & port number"#]],
        );
    }

    #[test]
    fn names_are_good() {
        check(
            &INGRESS,
            json!({"metadata": {"annotations": {CLASS: "b"}}, "spec": {"ingressClassName": "a",
                "defaultBackend": {"resource": {"kind": "a/b"}},
                "tls": [{"hosts": ["A"], "secretName": "_"}]}}),
            expect![[r#"
                spec.defaultBackend.resource.kind: Invalid value: "a/b": may not contain '/'
                spec.defaultBackend.resource.name: Required value
                spec.tls[0].hosts[0]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.tls[0].secretName: Invalid value: "_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                annotations.kubernetes.io/ingress.class: Invalid value: "b": must match `ingressClassName` when both are specified"#]],
        );
    }

    #[test]
    fn row_shows_hosts() {
        check_row(
            &INGRESS,
            json!({"spec": {"rules": [{}]}}),
            expect!["a | <none> | * |  | 80 | 60m"],
        );
        let hosts = json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]);
        let spec = json!({"rules": hosts, "tls": [{}], "ingressClassName": "x"});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "h"}]}});
        check_row(
            &INGRESS,
            json!({"spec": spec, "status": status}),
            expect!["a | x | a,b,c + 1 more... | 10.0.0.1,h | 80, 443 | 60m"],
        );
    }
}
