//! Services. Which address a service gets is decided where the other services are known, in the
//! request path.

pub(crate) mod families;

use std::collections::BTreeSet;

use api::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Reason, Subresource, VERBS,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    rules,
    value::{Read, items_mut, keep, object_mut, remove, set, set_default},
};

pub(super) static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.Service",
    subresources: &[Subresource::Proxy, Subresource::Status],
    generation: false,
    deletion: Deletion::Immediate,
    default,
    prepare_create,
    prepare_update,
    prepare_status: |new, old| keep(new, "spec", old),
    validate,
    validate_update,
    validate_name: |name, causes| rules::metadata_name(names::dns1035_label(name), name, causes),
    columns: COLUMNS,
    row,
    fields: |service, path| match path {
        "spec.clusterIP" => Some(service.field("spec").text("clusterIP").to_owned()),
        "spec.type" => Some(service.field("spec").text("type").to_owned()),
        _ => None,
    },
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "How the service can be reached."),
    column("Cluster-IP", "Address inside the cluster."),
    column("External-IP", "Addresses from outside the cluster."),
    column("Port(s)", "Ports of the service."),
    AGE,
    wide("Selector", "Labels of the pods behind the service."),
];

/// What `clusterIP` says for a service without an address of its own.
const HEADLESS: &str = "None";
/// Seconds for which a client stays with its pod (three hours).
const AFFINITY_SECONDS: i64 = 10_800;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn default(service: &mut Value) {
    let Some(spec) = object_mut(service, "spec") else { return };
    set_default(spec, "sessionAffinity", "None");
    set_default(spec, "type", "ClusterIP");
    if spec.text("sessionAffinity") == "ClientIP"
        && let Some(client) =
            object_mut(spec, "sessionAffinityConfig").and_then(|it| object_mut(it, "clientIP"))
    {
        set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
    }
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        if matches!(port.field("targetPort"), Value::Number(it) if it.as_i64() == Some(0)) {
            remove(port, "targetPort");
        }
        if let Some(number) = port.int("port") {
            set_default(port, "targetPort", number);
        }
    }
    let kind = spec.text("type").to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
}

fn prepare_create(service: &mut Value) {
    set(service, "status", json!({"loadBalancer": {}}));
    if let Some(spec) = service.get_mut("spec") {
        families::complete(spec);
    }
}

fn prepare_update(new: &mut Value, old: &Value) {
    keep(new, "status", old);
    if let Some(spec) = new.get_mut("spec") {
        families::take_over(spec, old.field("spec"));
    }
}

fn validate(service: &Value, causes: &mut Causes) {
    let spec = service.field("spec");
    let path = Path::new("spec");
    let (kind, headless) = (spec.text("type"), spec.text("clusterIP") == HEADLESS);
    if spec.items("ports").is_empty() && !headless && kind != "ExternalName" {
        causes.required(path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => causes.invalid(
            path.child("clusterIPs").index(0),
            &Value::from(HEADLESS),
            &format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => external_name(spec, path, causes),
        _ => {}
    }
    ports(spec, path, causes);
    rules::labels(spec.field("selector"), path.child("selector"), causes);
    rules::one_of(spec, "sessionAffinity", &["ClientIP", "None"], path, causes);
    rules::one_of(spec, "type", TYPES, path, causes);
    families::validate(spec, path, causes);
    let external = path.child("externalIPs");
    for (index, address) in spec.items("externalIPs").iter().enumerate() {
        rules::ip(address.as_str().unwrap_or_default(), external.index(index), causes);
    }
    for (name, supported) in [
        ("internalTrafficPolicy", &["Cluster", "Local"][..]),
        ("externalTrafficPolicy", &["Cluster", "Local"]),
        ("trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"]),
    ] {
        if spec.has(name) {
            rules::one_of(spec, name, supported, path, causes);
        }
    }
}

fn external_name(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    // A dot at the end says that the name is complete.
    let name = spec.text("externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        causes.required(path.child("externalName"), "");
    } else {
        rules::all(names::dns1123_subdomain(name), path.child("externalName"), name, causes);
    }
}

fn ports(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("ports");
    let ports = spec.items("ports");
    let mut seen_names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = port.text("name");
        if name.is_empty() {
            if 1 < ports.len() {
                causes.required(path.child("name"), "");
            }
        } else {
            rules::all(names::dns1123_label(name), path.child("name"), name, causes);
            if !seen_names.insert(name) {
                causes.duplicate(path.child("name"), &Value::from(name));
            }
        }
        let number = port.int("port").unwrap_or_default();
        rules::all(names::port_number(number), path.child("port"), number, causes);
        rules::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
        rules::port_number_or_name(port.field("targetPort"), path.child("targetPort"), causes);
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port != 0 && spec.text("type") == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            causes.forbidden(path.child("nodePort"), detail);
        }
        if !seen.insert((port.text("protocol"), number)) {
            // The original prints its internal type, whose fields have an order and other names.
            let message = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\
                 \"TargetPort\":0,\"NodePort\":0}}",
                port.field("protocol")
            );
            causes.push(Reason::Duplicate, path, message);
        }
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    families::validate_update(new.field("spec"), old.field("spec"), causes);
}

fn row(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = service.field("spec");
    let address = spec.items("clusterIPs").first().and_then(Value::as_str);
    vec![
        print::name(service),
        spec.text("type").into(),
        print::or_none(address.unwrap_or_else(|| spec.text("clusterIP"))).into(),
        external_addresses(service).into(),
        printed_ports(spec).into(),
        print::age(service, now),
        print::labels(spec.field("selector")).into(),
    ]
}

fn external_addresses(service: &Value) -> String {
    let spec = service.field("spec");
    let given = || spec.items("externalIPs").iter().filter_map(Value::as_str);
    match spec.text("type") {
        "ClusterIP" | "NodePort" => print::joined(given()),
        "LoadBalancer" => {
            let ingress = service.at(&["status", "loadBalancer"]).items("ingress").iter();
            let balanced = ingress.map(|it| match it.text("ip") {
                "" => it.text("hostname"),
                address => address,
            });
            match print::joined(balanced.chain(given())) {
                none if none == print::NONE => "<pending>".to_owned(),
                addresses => addresses,
            }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn printed_ports(spec: &Value) -> String {
    let ports = spec.items("ports").iter().map(|port| {
        let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
        match port.int("nodePort").unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    });
    let ports: Vec<String> = ports.collect();
    print::joined(ports.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, check_update_of, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn says_what_is_not_said() {
        let service = created(&SERVICE, sample(&SERVICE));
        assert_eq!(
            service["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "selector": {"app": "a"},
                "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        );
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
        let mut headless = sample(&SERVICE);
        headless["spec"]["clusterIP"] = "None".into();
        assert_eq!(created(&SERVICE, headless)["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn ports_are_told_apart() {
        check(&SERVICE, spec(json!({"ports": null})), expect!["spec.ports: Required value"]);
        check(&SERVICE, spec(json!({"ports": null, "clusterIP": "None"})), expect![""]);
        check(
            &SERVICE,
            spec(json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]})),
            expect!["spec.ports[0].name: Required value"],
        );
        check(
            &SERVICE,
            spec(json!({"ports": [{"port": 1, "name": "b"}, {"port": 2, "name": "b"}]})),
            expect![[r#"spec.ports[1].name: Duplicate value: "b""#]],
        );
        check(
            &SERVICE,
            spec(json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]})),
            expect![[
                r#"spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":1,"TargetPort":0,"NodePort":0}"#
            ]],
        );
        check(
            &SERVICE,
            spec(json!({"ports": [{"port": 70000, "protocol": "tcp"}]})),
            expect![[r#"
            spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"
            spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"#]],
        );
        check(
            &SERVICE,
            spec(json!({"ports": [{"port": 1, "targetPort": "-a"}]})),
            expect![[
                r#"spec.ports[0].targetPort: Invalid value: "-a": must not begin or end with a hyphen"#
            ]],
        );
    }

    #[test]
    fn type_decides_what_else_there_is() {
        check(
            &SERVICE,
            spec(json!({"type": "Foo"})),
            expect![[
                r#"spec.type: Unsupported value: "Foo": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#
            ]],
        );
        check(
            &SERVICE,
            spec(json!({"type": "ExternalName"})),
            expect!["spec.externalName: Required value"],
        );
        check(
            &SERVICE,
            spec(json!({"type": "NodePort", "clusterIP": "None"})),
            expect![[
                r#"spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services"#
            ]],
        );
        check(
            &SERVICE,
            spec(json!({"clusterIP": "x"})),
            expect![[
                r#"spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#
            ]],
        );
    }

    #[test]
    fn address_stays() {
        let mut old = created(&SERVICE, sample(&SERVICE));
        old["spec"]["clusterIP"] = "10.96.0.5".into();
        old["spec"]["clusterIPs"] = json!(["10.96.0.5"]);
        let none = spec(json!({"clusterIP": null, "clusterIPs": null}));
        check_update_of(&SERVICE, &old, none, expect![""]);
        let other = spec(json!({"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6"]}));
        check_update_of(
            &SERVICE,
            &old,
            other,
            expect![[
                r#"spec.clusterIPs[0]: Invalid value: ["10.96.0.6"]: may not change once set"#
            ]],
        );
        check_update(&SERVICE, spec(json!({"selector": {"app": "b"}})), expect![""]);
    }

    #[test]
    fn names_begin_with_a_letter() {
        let mut causes = Causes::default();
        (SERVICE.validate_name)("1a", &mut causes);
        assert_eq!(causes.as_slice().len(), 1);
    }

    #[test]
    fn row_shows_addresses() {
        check_row(
            &SERVICE,
            spec(json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]})),
            expect!["a | ClusterIP | 10.96.0.5 | <none> | 80/TCP | 60m | app=a"],
        );
        let ports = json!({"type": "LoadBalancer", "selector": null, "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]});
        check_row(
            &SERVICE,
            spec(ports),
            expect!["a | LoadBalancer | <none> | <pending> | 80:30000/TCP | 60m | <none>"],
        );
        check_row(
            &SERVICE,
            spec(json!({"type": "ExternalName", "externalName": "x.y", "ports": null})),
            expect!["a | ExternalName | <none> | x.y | <none> | 60m | app=a"],
        );
    }
}
