//! Giving out, keeping and taking back.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::kinds::KINDS;

fn service_kind() -> &'static Kind {
    KINDS.iter().copied().find(|it| it.kind == "Service").unwrap()
}

/// A cluster without IPv6.
fn single() -> Addresses {
    Addresses::new(ServiceRange { v6: None, ..ServiceRange::default() })
}

fn dual() -> Addresses {
    Addresses::new(ServiceRange::default())
}

/// Does with a Service what a write does, but for storing it.
fn write(addresses: &Addresses, spec: &Value, old: Option<&Value>) -> Result<Value, Status> {
    let kind = service_kind();
    let mut new = json!({"metadata": {"name": "web"}, "spec": spec});
    (kind.default)(&mut new);
    match old {
        None => (kind.prepare_create)(&mut new),
        Some(old) => {
            carry_over(kind, &mut new, old);
            (kind.prepare_update)(&mut new, old);
        }
    }
    addresses.settle(kind, &mut new, old)?;
    let mut causes = Causes::default();
    (kind.validate)(&new, &mut causes);
    if let Some(old) = old {
        (kind.validate_update)(&new, old, &mut causes);
    }
    kind.refuse("web", &causes)?;
    addresses.reserve(kind, &mut new, old)?.keep();
    Ok(new)
}

/// With a port, which most have to have.
fn with_port(spec: &Value) -> Value {
    let mut all = json!({"ports": [{"port": 80}]});
    json_patch::merge(&mut all, spec);
    all
}

fn show(written: &Result<Value, Status>) -> String {
    let service = match written {
        Ok(service) => service,
        Err(status) => return status.message().to_owned(),
    };
    let spec = &service["spec"];
    let list = |key: &str| {
        let items = spec[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(",")
    };
    let first = spec["clusterIPs"].get(0).unwrap_or(&Value::Null);
    assert_eq!(&spec["clusterIP"], first, "clusterIP is not the first of clusterIPs");
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or("-");
    format!("{policy} {} [{}]", list("ipFamilies"), list("clusterIPs"))
}

/// What comes of creating each of these in turn, in one cluster.
fn check_new(addresses: &Addresses, specs: &[Value], expect: Expect) {
    let lines = specs.iter().map(|it| {
        let shown = show(&write(addresses, &with_port(it), None));
        format!("{it}\n  {shown}")
    });
    expect.assert_eq(&lines.collect::<Vec<_>>().join("\n"));
}

/// What comes of merging each of these in turn into one Service. What is refused changes nothing.
fn check_changes(addresses: &Addresses, first: &Value, changes: &[Value], expect: Expect) {
    let mut now = write(addresses, &with_port(first), None).unwrap();
    let mut lines = vec![show(&Ok(now.clone()))];
    for change in changes {
        let mut spec = now["spec"].clone();
        json_patch::merge(&mut spec, change);
        let written = write(addresses, &spec, Some(&now));
        lines.push(format!("{change}\n  {}", show(&written)));
        now = written.unwrap_or(now);
    }
    expect.assert_eq(&lines.join("\n"));
}

#[track_caller]
fn check(addresses: &Addresses, spec: &Value, expect: Expect) {
    match write(addresses, &with_port(spec), None) {
        Ok(service) => {
            let spec = &service["spec"];
            let ports = spec["ports"].as_array().into_iter().flatten().filter_map(node_port);
            let ports: Vec<u32> = ports.collect();
            expect.assert_eq(&format!("{} {ports:?}", spec["clusterIP"]));
        }
        Err(status) => expect.assert_eq(status.message()),
    }
}

#[test]
fn gives_out_and_respects() {
    let addresses = Addresses::new(ServiceRange::default());
    check(&addresses, &json!({}), expect![[r#""10.96.1.0" []"#]]);
    check(&addresses, &json!({"clusterIP": "None"}), expect![[r#""None" []"#]]);
    check(
        &addresses,
        &json!({"type": "ExternalName", "externalName": "a.example"}),
        expect!["null []"],
    );
    check(&addresses, &json!({"clusterIP": "10.96.0.10"}), expect![[r#""10.96.0.10" []"#]]);
    check(
        &addresses,
        &json!({"clusterIP": "10.96.0.10"}),
        expect![[
            r#"Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"#
        ]],
    );
    check(
        &addresses,
        &json!({"clusterIP": "10.0.0.1"}),
        expect![[
            r#"Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.0.0.1"]: failed to allocate IP 10.0.0.1: the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"#
        ]],
    );
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b", "nodePort": 30080}]});
    check(&addresses, &ports, expect![[r#""10.96.1.1" [30000, 30080]"#]]);
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    check(
        &addresses,
        &port,
        expect![[
            r#"Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#
        ]],
    );
}

#[test]
fn comes_back_when_the_write_fails_or_the_service_goes() {
    let addresses = dual();
    let mut wanted = json!({"metadata": {}, "spec": {"clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}});
    let reserve = |it: &Value| addresses.reserve(service_kind(), &mut it.clone(), None).map(drop);
    for _ in 0..2 {
        reserve(&wanted).unwrap();
    }
    let mut kept = wanted.clone();
    addresses.reserve(service_kind(), &mut kept, None).unwrap().keep();
    reserve(&wanted).unwrap_err();
    // Of two addresses one is taken: the other one is not kept for that.
    wanted["spec"]["clusterIPs"] = json!(["10.96.0.8", "fd00:10:96::7"]);
    reserve(&wanted).unwrap_err();
    wanted["spec"]["clusterIPs"] = json!(["10.96.0.8", "fd00:10:96::8"]);
    reserve(&wanted).unwrap();
    // The same Service may be written again.
    let old = kept.clone();
    addresses.reserve(service_kind(), &mut kept, Some(&old)).unwrap().keep();
    addresses.release(service_kind(), &kept);
    reserve(&kept).unwrap();
}

#[test]
fn update_carries_over() {
    let old = json!({"spec": {"type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
    carry_over(service_kind(), &mut new, &old);
    assert_eq!(new, old);
    new["spec"]["type"] = json!("ClusterIP");
    carry_over(service_kind(), &mut new, &old);
    assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
}

fn policies_and_families() -> [Value; 12] {
    [
        json!({}),
        json!({"ipFamilyPolicy": "PreferDualStack"}),
        json!({"ipFamilyPolicy": "RequireDualStack"}),
        json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
        json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
        json!({"ipFamilies": ["IPv6"]}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"}),
        json!({"clusterIP": "None", "selector": {"a": "b"}}),
        json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "RequireDualStack"}),
        json!({"type": "ExternalName", "externalName": "a.example"}),
        json!({"ipFamilies": ["IPv4", "IPv6"]}),
    ]
}

#[test]
fn policies_and_families_decide() {
    check_new(
        &dual(),
        &policies_and_families(),
        expect![[r#"
        {}
          SingleStack IPv4 [10.96.1.0]
        {"ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv4,IPv6 [10.96.1.1,fd00:10:96::100]
        {"ipFamilyPolicy":"RequireDualStack"}
          RequireDualStack IPv4,IPv6 [10.96.1.2,fd00:10:96::101]
        {"ipFamilies":["IPv6"],"ipFamilyPolicy":"RequireDualStack"}
          RequireDualStack IPv6,IPv4 [fd00:10:96::102,10.96.1.3]
        {"ipFamilies":["IPv6","IPv4"],"ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv6,IPv4 [fd00:10:96::103,10.96.1.4]
        {"ipFamilies":["IPv6"]}
          SingleStack IPv6 [fd00:10:96::104]
        {"clusterIP":"None"}
          RequireDualStack IPv4,IPv6 [None]
        {"clusterIP":"None","ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv4,IPv6 [None]
        {"clusterIP":"None","selector":{"a":"b"}}
          SingleStack IPv4 [None]
        {"clusterIP":"None","ipFamilyPolicy":"RequireDualStack","selector":{"a":"b"}}
          RequireDualStack IPv4,IPv6 [None]
        {"externalName":"a.example","type":"ExternalName"}
          -  []
        {"ipFamilies":["IPv4","IPv6"]}
          Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#]],
    );
}

#[test]
fn a_cluster_of_one_family_has_no_second_one() {
    check_new(
        &single(),
        &policies_and_families(),
        expect![[r#"
        {}
          SingleStack IPv4 [10.96.1.0]
        {"ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv4 [10.96.1.1]
        {"ipFamilyPolicy":"RequireDualStack"}
          Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
        {"ipFamilies":["IPv6"],"ipFamilyPolicy":"RequireDualStack"}
          Service "web" is invalid: [spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services, spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster]
        {"ipFamilies":["IPv6","IPv4"],"ipFamilyPolicy":"PreferDualStack"}
          Service "web" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
        {"ipFamilies":["IPv6"]}
          Service "web" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
        {"clusterIP":"None"}
          RequireDualStack IPv4,IPv6 [None]
        {"clusterIP":"None","ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv4,IPv6 [None]
        {"clusterIP":"None","selector":{"a":"b"}}
          SingleStack IPv4 [None]
        {"clusterIP":"None","ipFamilyPolicy":"RequireDualStack","selector":{"a":"b"}}
          Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
        {"externalName":"a.example","type":"ExternalName"}
          -  []
        {"ipFamilies":["IPv4","IPv6"]}
          Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#]],
    );
}

#[test]
fn addresses_may_be_chosen() {
    let specs = [
        json!({"clusterIP": "fd00:10:96::7"}),
        json!({"clusterIP": "fd00:10:96::7"}),
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:10:96::8"],
            "ipFamilyPolicy": "PreferDualStack"}),
        json!({"clusterIP": "10.96.0.8", "ipFamilyPolicy": "RequireDualStack"}),
        json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:10:96::9"]}),
        json!({"clusterIP": "fd00:10:96::1"}),
        json!({"clusterIP": "fd00:10:97::7"}),
        json!({"clusterIP": "fd00:10:96::"}),
        json!({"clusterIP": "fd00:10:96::b", "ipFamilies": ["IPv4"]}),
        json!({"clusterIP": "10.96.0.11", "ipFamilies": ["IPv6", "IPv4"],
            "ipFamilyPolicy": "RequireDualStack"}),
    ];
    check_new(
        &dual(),
        &specs,
        expect![[r#"
        {"clusterIP":"fd00:10:96::7"}
          SingleStack IPv6 [fd00:10:96::7]
        {"clusterIP":"fd00:10:96::7"}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["fd00:10:96::7"]: failed to allocate IP fd00:10:96::7: provided IP is already allocated
        {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00:10:96::8"],"ipFamilyPolicy":"PreferDualStack"}
          PreferDualStack IPv4,IPv6 [10.96.0.7,fd00:10:96::8]
        {"clusterIP":"10.96.0.8","ipFamilyPolicy":"RequireDualStack"}
          RequireDualStack IPv4,IPv6 [10.96.0.8,fd00:10:96::100]
        {"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9","fd00:10:96::9"]}
          Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified
        {"clusterIP":"fd00:10:96::1"}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["fd00:10:96::1"]: failed to allocate IP fd00:10:96::1: provided IP is already allocated
        {"clusterIP":"fd00:10:97::7"}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["fd00:10:97::7"]: failed to allocate IP fd00:10:97::7: the provided IP (fd00:10:97::7) is not in the valid range. The range of valid IPs is fd00:10:96::/112
        {"clusterIP":"fd00:10:96::"}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["fd00:10:96::"]: failed to allocate IP fd00:10:96::: the provided IP (fd00:10:96::) is not in the valid range. The range of valid IPs is fd00:10:96::/112
        {"clusterIP":"fd00:10:96::b","ipFamilies":["IPv4"]}
          Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "fd00:10:96::b": expected an IPv4 value as indicated by `ipFamilies[0]`
        {"clusterIP":"10.96.0.11","ipFamilies":["IPv6","IPv4"],"ipFamilyPolicy":"RequireDualStack"}
          Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "10.96.0.11": expected an IPv6 value as indicated by `ipFamilies[0]`"#]],
    );
    check_new(
        &single(),
        &[
            json!({"clusterIP": "fd00:10:96::7"}),
            json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:10:96::8"],
                "ipFamilyPolicy": "PreferDualStack"}),
        ],
        expect![[r#"
            {"clusterIP":"fd00:10:96::7"}
              Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["fd00:10:96::7"]: IPv6 is not configured on this cluster
            {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00:10:96::8"],"ipFamilyPolicy":"PreferDualStack"}
              Service "web" is invalid: spec.clusterIPs[1]: Invalid value: ["10.96.0.7","fd00:10:96::8"]: IPv6 is not configured on this cluster"#]],
    );
}

#[test]
fn fields_have_a_form() {
    let specs = [
        json!({"ipFamilyPolicy": "Both", "ipFamilies": ["IPv5", "IPv4", "IPv4"]}),
        json!({"clusterIPs": ["10.96.0.7"]}),
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.8"]}),
        json!({"clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]}),
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "None"]}),
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "10.96.0.8"]}),
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::1", "fd00::2"]}),
        json!({"type": "ExternalName", "externalName": "a.example", "clusterIP": "10.96.0.7",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
    ];
    check_new(
        &dual(),
        &specs,
        expect![[r#"
        {"ipFamilies":["IPv5","IPv4","IPv4"],"ipFamilyPolicy":"Both"}
          Service "web" is invalid: [spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6", spec.ipFamilies[2]: Duplicate value: "IPv4", spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"]
        {"clusterIPs":["10.96.0.7"]}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.7"]: must be empty when `clusterIP` is not specified
        {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.8"]}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.8"]: first value must match `clusterIP`
        {"clusterIP":"None","clusterIPs":["None","10.96.0.8"]}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["None","10.96.0.8"]: 'None' must be the first and only value
        {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","None"]}
          Service "web" is invalid: spec.clusterIPs[1]: Invalid value: "None": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","10.96.0.8"]}
          Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.7","10.96.0.8"]: may specify no more than one IP for each IP family
        {"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00::1","fd00::2"]}
          Service "web" is invalid: [spec.clusterIPs: Invalid value: ["10.96.0.7","fd00::1","fd00::2"]: may only hold up to 2 values, spec.clusterIPs: Invalid value: ["10.96.0.7","fd00::1","fd00::2"]: may specify no more than one IP for each IP family]
        {"clusterIP":"10.96.0.7","externalName":"a.example","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","type":"ExternalName"}
          Service "web" is invalid: [spec.clusterIPs: Forbidden: may not be set for ExternalName services, spec.ipFamilies: Forbidden: may not be set for ExternalName services, spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services]"#]],
    );
}

#[test]
fn a_second_family_comes_and_goes() {
    check_changes(
        &dual(),
        &json!({}),
        &[
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            // Not said under which policy the second one goes.
            json!({"ipFamilies": ["IPv4"]}),
            json!({"clusterIPs": ["10.96.1.0"]}),
            json!({"ipFamilies": ["IPv6", "IPv4"]}),
            json!({"clusterIPs": ["10.96.1.0", "fd00:10:96::77"]}),
            json!({"ipFamilyPolicy": "SingleStack"}),
            json!({"ipFamilies": ["IPv6"]}),
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
                "clusterIPs": ["10.96.1.0", "fd00:10:96::77"]}),
            // As the manifest says that it once was made of.
            json!({"ipFamilyPolicy": null, "ipFamilies": null, "clusterIP": null, "clusterIPs": null}),
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.1.0"]}),
            json!({"ipFamilyPolicy": "RequireDualStack"}),
        ],
        expect![[r#"
            SingleStack IPv4 [10.96.1.0]
            {"ipFamilyPolicy":"PreferDualStack"}
              PreferDualStack IPv4,IPv6 [10.96.1.0,fd00:10:96::100]
            {"ipFamilies":["IPv4"]}
              Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be 'SingleStack' to release the secondary IP family
            {"clusterIPs":["10.96.1.0"]}
              Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be 'SingleStack' to release the secondary cluster IP
            {"ipFamilies":["IPv6","IPv4"]}
              Service "web" is invalid: [spec.clusterIPs[0]: Invalid value: "10.96.1.0": expected an IPv6 value as indicated by `ipFamilies[0]`, spec.clusterIPs[1]: Invalid value: "fd00:10:96::100": expected an IPv4 value as indicated by `ipFamilies[1]`]
            {"clusterIPs":["10.96.1.0","fd00:10:96::77"]}
              Service "web" is invalid: spec.clusterIPs[1]: Invalid value: ["10.96.1.0","fd00:10:96::77"]: may not change once set
            {"ipFamilyPolicy":"SingleStack"}
              SingleStack IPv4 [10.96.1.0]
            {"ipFamilies":["IPv6"]}
              Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "10.96.1.0": expected an IPv6 value as indicated by `ipFamilies[0]`
            {"ipFamilies":["IPv4","IPv6"]}
              Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified
            {"clusterIPs":["10.96.1.0","fd00:10:96::77"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"RequireDualStack"}
              RequireDualStack IPv4,IPv6 [10.96.1.0,fd00:10:96::77]
            {"clusterIP":null,"clusterIPs":null,"ipFamilies":null,"ipFamilyPolicy":null}
              RequireDualStack IPv4,IPv6 [10.96.1.0,fd00:10:96::77]
            {"clusterIPs":["10.96.1.0"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}
              SingleStack IPv4 [10.96.1.0]
            {"ipFamilyPolicy":"RequireDualStack"}
              RequireDualStack IPv4,IPv6 [10.96.1.0,fd00:10:96::101]"#]],
    );
}

#[test]
fn a_change_of_type_gives_back_both() {
    let addresses = dual();
    check_changes(
        &addresses,
        &json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
        &[
            json!({"type": "ExternalName", "externalName": "a.example", "ipFamilies": ["IPv4"]}),
            json!({"type": "ExternalName", "externalName": "a.example"}),
            json!({"type": "NodePort"}),
        ],
        expect![[r#"
            RequireDualStack IPv6,IPv4 [fd00:10:96::100,10.96.1.0]
            {"externalName":"a.example","ipFamilies":["IPv4"],"type":"ExternalName"}
              Service "web" is invalid: spec.ipFamilies: Forbidden: may not be set for ExternalName services
            {"externalName":"a.example","type":"ExternalName"}
              -  []
            {"type":"NodePort"}
              SingleStack IPv4 [10.96.1.1]"#]],
    );
    // Nobody has them now.
    check_new(
        &addresses,
        &[json!({"clusterIP": "10.96.1.0", "clusterIPs": ["10.96.1.0", "fd00:10:96::100"],
            "ipFamilyPolicy": "PreferDualStack"})],
        expect![[r#"
            {"clusterIP":"10.96.1.0","clusterIPs":["10.96.1.0","fd00:10:96::100"],"ipFamilyPolicy":"PreferDualStack"}
              PreferDualStack IPv4,IPv6 [10.96.1.0,fd00:10:96::100]"#]],
    );
}

#[test]
fn headless_services_may_change_families() {
    check_changes(
        &dual(),
        &json!({"clusterIP": "None", "selector": {"a": "b"}}),
        &[
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!({"ipFamilies": ["IPv6", "IPv4"]}),
            json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}),
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}),
        ],
        expect![[r#"
            SingleStack IPv4 [None]
            {"ipFamilyPolicy":"PreferDualStack"}
              PreferDualStack IPv4,IPv6 [None]
            {"ipFamilies":["IPv6","IPv4"]}
              PreferDualStack IPv6,IPv4 [None]
            {"ipFamilies":["IPv6"],"ipFamilyPolicy":"SingleStack"}
              SingleStack IPv6 [None]
            {"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9"]}
              Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "10.96.0.9": expected an IPv6 value as indicated by `ipFamilies[0]`"#]],
    );
}

#[test]
fn what_prefers_both_stays_when_the_cluster_changes() {
    let prefers = json!({"ipFamilyPolicy": "PreferDualStack"});
    let one = write(&single(), &with_port(&prefers), None).unwrap();
    assert_eq!(show(&Ok(one.clone())), "PreferDualStack IPv4 [10.96.1.0]");
    let two = dual();
    two.adopt(&one);
    let after = write(&two, &one["spec"], Some(&one));
    assert_eq!(show(&after), "PreferDualStack IPv4 [10.96.1.0]");
    // And the other way round: a kernel without IPv6 takes none away.
    let both = write(&two, &with_port(&prefers), None).unwrap();
    assert_eq!(show(&Ok(both.clone())), "PreferDualStack IPv4,IPv6 [10.96.1.1,fd00:10:96::100]");
    let one = single();
    one.adopt(&both);
    let after = write(&one, &both["spec"], Some(&both));
    assert_eq!(show(&after), "PreferDualStack IPv4,IPv6 [10.96.1.1,fd00:10:96::100]");
}

/// What a client may ask for in one write.
fn any_spec() -> impl Strategy<Value = Value> {
    let one = prop::sample::select(vec!["IPv4", "IPv6"]);
    let families = prop::option::of(prop::collection::vec(one, 1..3));
    let policies = vec!["SingleStack", "PreferDualStack", "RequireDualStack"];
    let policy = prop::option::of(prop::sample::select(policies));
    let address = vec!["10.96.0.7", "fd00:10:96::7", "10.96.1.0", "fd00:10:96::100", "None"];
    let address = prop::option::of(prop::sample::select(address));
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "ExternalName"]);
    (kind, families, policy, address).prop_map(|(kind, families, policy, address)| {
        let mut spec = json!({"type": kind, "externalName": "a.example"});
        for (name, value) in [
            ("ipFamilies", json!(families)),
            ("ipFamilyPolicy", json!(policy)),
            ("clusterIP", json!(address)),
        ] {
            if !value.is_null() {
                spec[name] = value;
            }
        }
        with_port(&spec)
    })
}

proptest! {
    /// Whatever is asked for: an address has one owner, and what nobody owns can be had.
    #[test]
    fn an_address_has_one_owner(
        writes in prop::collection::vec((0..3_usize, prop::option::of(any_spec())), 1..30),
    ) {
        let addresses = dual();
        let mut services: [Option<Value>; 3] = [None, None, None];
        for (index, spec) in writes {
            let old = services[index].take();
            services[index] = match spec {
                Some(spec) => write(&addresses, &spec, old.as_ref()).ok().or(old),
                None => {
                    old.iter().for_each(|it| addresses.release(service_kind(), it));
                    None
                }
            };
            let mut all = Vec::new();
            for service in services.iter().flatten() {
                let spec = &service["spec"];
                let families = spec["ipFamilies"].as_array().map_or(0, Vec::len);
                let owned = owned(service).ips;
                let headless = spec["clusterIP"] == "None";
                prop_assert!(headless || owned.len() == families, "{}", spec);
                prop_assert!(owned.iter().all(|it| addresses.range.offset(*it).is_some()));
                all.extend(owned);
            }
            let each: BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(each.len(), all.len());
        }
        for service in services.iter().flatten() {
            addresses.release(service_kind(), service);
        }
        let out = |it: &State| (it.v4.out(), it.v6.as_ref().map(Pool::out));
        prop_assert_eq!(out(&addresses.lock()), out(&dual().lock()));
    }
}
