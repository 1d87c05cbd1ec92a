//! Gateways: where requests come in.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::{
        Causes, Column, Conversion, Kind,
        path::Path,
        print::{self, AGE, NAME, column},
        structural,
        value::{Read, items_mut, object_mut, set},
    },
    CATEGORIES, GROUP, V1BETA1, broken, condition, pending,
};

pub(in crate::kinds) static GATEWAY: Kind = GATEWAY_V1;

const GATEWAY_V1: Kind = Kind {
    group: GROUP,
    kind: "Gateway",
    plural: "gateways",
    singular: "gateway",
    short_names: &["gtw"],
    categories: CATEGORIES,
    schema: "io.k8s.networking.gateway.v1.Gateway",
    generation: true,
    default,
    prepare_create: |gateway| {
        let conditions = json!([pending("Accepted"), pending("Programmed")]);
        set(gateway, "status", json!({"conditions": conditions}));
    },
    validate,
    columns: COLUMNS,
    row: |it, now| {
        let status = it.field("status");
        let addresses = status.items("addresses").iter().map(|it| it.text("value"));
        vec![
            print::name(it),
            it.field("spec").text("gatewayClassName").into(),
            addresses.collect::<Vec<_>>().join(",").into(),
            condition(it, "Programmed").into(),
            print::age(it, now),
        ]
    },
    ..Kind::WITH_STATUS
};

pub(in crate::kinds) static GATEWAY_V1BETA1: Kind = Kind {
    version: V1BETA1,
    schema: "io.k8s.networking.gateway.v1beta1.Gateway",
    conversion: Some(&Conversion { stored: &GATEWAY, to_stored: |_| {}, from_stored: |_| {} }),
    ..GATEWAY_V1
};

const SPEC: &str = "io.k8s.networking.gateway.v1.GatewaySpec";
const COLUMNS: &[Column] = &[
    NAME,
    column("Class", "Who serves it."),
    column("Address", "Where it is reached."),
    column("Programmed", "Whether it serves."),
    AGE,
];

fn default(gateway: &mut Value) {
    let Some(spec) = object_mut(gateway, "spec") else { return };
    for listener in items_mut(spec, "listeners") {
        if let Some(allowed) = object_mut(listener, "allowedRoutes") {
            object_mut(allowed, "namespaces");
        }
    }
    if let Some(allowed) = spec.get_mut("allowedListeners") {
        object_mut(allowed, "namespaces");
    }
    structural::default(SPEC, spec);
}

fn validate(gateway: &Value, causes: &mut Causes) {
    let (spec, path) = (gateway.field("spec"), Path::new("spec"));
    structural::validate(SPEC, spec, path, causes);
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    let path = path.child("listeners");
    for (index, listener) in spec.items("listeners").iter().enumerate() {
        let (protocol, host) = (listener.text("protocol"), listener.text("hostname"));
        encryption(protocol, listener, path, causes);
        if matches!(protocol, "TCP" | "UDP") && !host.is_empty() {
            broken(path, "hostname must not be specified for protocols ['TCP', 'UDP']", causes);
        }
        if !names.insert(listener.text("name")) {
            broken(path, "Listener name must be unique within the Gateway", causes);
        }
        if !places.insert((listener.int("port"), protocol, host)) {
            let rule =
                "Combination of port, protocol and hostname must be unique for each listener";
            broken(path, rule, causes);
        }
        let tls = listener.field("tls");
        let named = !tls.items("certificateRefs").is_empty() || tls.has("options");
        if tls.text("mode") == "Terminate" && !named {
            let rule = "certificateRefs or options must be specified when mode is Terminate";
            broken(path.index(index).child("tls"), rule, causes);
        }
    }
}

fn encryption(protocol: &str, listener: &Value, path: Path<'_>, causes: &mut Causes) {
    let mode = listener.field("tls").text("mode");
    match (protocol, listener.has("tls")) {
        ("HTTP" | "TCP" | "UDP", true) => {
            broken(path, "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']", causes);
        }
        ("HTTPS", true) if mode != "Terminate" => {
            broken(path, "tls mode must be Terminate for protocol HTTPS", causes);
        }
        ("TLS", false) => broken(path, "tls mode must be set for protocol TLS", causes),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::super::testing::{check, check_row, created, sample},
        *,
    };

    #[test]
    fn defaults_are_the_originals() {
        let gateway = json!({"metadata": {"name": "a"}, "spec": {"gatewayClassName": "c",
            "listeners": [{"name": "a", "port": 443, "protocol": "HTTPS",
                "tls": {"certificateRefs": [{"name": "s"}]}}]}});
        let created = created(&GATEWAY, gateway);
        expect![[r#"
            {
              "gatewayClassName": "c",
              "listeners": [
                {
                  "allowedRoutes": {
                    "namespaces": {
                      "from": "Same"
                    }
                  },
                  "name": "a",
                  "port": 443,
                  "protocol": "HTTPS",
                  "tls": {
                    "certificateRefs": [
                      {
                        "group": "",
                        "kind": "Secret",
                        "name": "s"
                      }
                    ],
                    "mode": "Terminate"
                  }
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&created["spec"]).unwrap());
    }

    #[test]
    fn listeners_are_checked() {
        check(
            &GATEWAY,
            json!({"spec": {"listeners": [
                {"name": "a", "port": 0, "protocol": "HTTP", "tls": {}, "hostname": "A.example.com"},
                {"name": "a", "port": 80, "protocol": "TCP", "hostname": "a.example.com"},
                {"name": "b", "port": 80, "protocol": "TCP", "hostname": "a.example.com",
                    "allowedRoutes": {"namespaces": {"from": "Some"}}},
                {"name": "c", "port": 81, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}},
                {"name": "d", "port": 82, "protocol": "TLS"}]}}),
            expect![[r#"
                spec.listeners[0].hostname: Invalid value: "A.example.com": spec.listeners[0].hostname in body should match '^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'
                spec.listeners[0].port: Invalid value: 0: spec.listeners[0].port in body should be greater than or equal to 1
                spec.listeners[2].allowedRoutes.namespaces.from: Unsupported value: "Some": supported values: "All", "Selector", "Same"
                spec.listeners: Invalid value: "object": tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']
                spec.listeners[0].tls: Invalid value: "object": certificateRefs or options must be specified when mode is Terminate
                spec.listeners: Invalid value: "object": hostname must not be specified for protocols ['TCP', 'UDP']
                spec.listeners: Invalid value: "object": Listener name must be unique within the Gateway
                spec.listeners: Invalid value: "object": hostname must not be specified for protocols ['TCP', 'UDP']
                spec.listeners: Invalid value: "object": Combination of port, protocol and hostname must be unique for each listener
                spec.listeners: Invalid value: "object": tls mode must be Terminate for protocol HTTPS
                spec.listeners: Invalid value: "object": tls mode must be set for protocol TLS"#]],
        );
        check(
            &GATEWAY,
            json!({"spec": {"gatewayClassName": null, "listeners": null}}),
            expect![[r#"
            spec.gatewayClassName: Required value
            spec.listeners: Required value"#]],
        );
    }

    #[test]
    fn rows_show_where_it_is() {
        check_row(
            &GATEWAY,
            json!({"status": {"addresses": [{"value": "127.0.0.1"}, {"value": "::1"}],
                "conditions": [{"type": "Programmed", "status": "True"}]}}),
            expect!["a | a | 127.0.0.1,::1 | True | 60m"],
        );
    }

    #[test]
    fn a_sample_is_valid() {
        assert_eq!(
            created(&GATEWAY, sample(&GATEWAY))["status"]["conditions"][0]["reason"],
            "Pending"
        );
    }
}
