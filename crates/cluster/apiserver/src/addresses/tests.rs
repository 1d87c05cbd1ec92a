//! Giving out, keeping and taking back.

use expect_test::{Expect, expect};

use super::*;
use crate::kinds::KINDS;

fn service_kind() -> &'static Kind {
    KINDS.iter().copied().find(|it| it.kind == "Service").unwrap()
}

#[track_caller]
fn check(addresses: &Addresses, spec: &Value, expect: Expect) {
    let mut service = json!({"metadata": {"name": "web"}, "spec": spec});
    match addresses.reserve(service_kind(), &mut service, None) {
        Ok(reserved) => {
            reserved.keep();
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
    check(&addresses, &json!({"type": "ExternalName"}), expect!["null []"]);
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
    let ports =
        json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30080}]});
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
    let addresses = Addresses::new(ServiceRange::default());
    let mut wanted = json!({"metadata": {}, "spec": {"clusterIP": "10.96.0.7"}});
    for _ in 0..2 {
        drop(addresses.reserve(service_kind(), &mut wanted.clone(), None).unwrap());
    }
    let mut kept = wanted.clone();
    addresses.reserve(service_kind(), &mut kept, None).unwrap().keep();
    assert!(addresses.reserve(service_kind(), &mut wanted.clone(), None).is_err());
    // The same Service may be written again.
    let old = kept.clone();
    addresses.reserve(service_kind(), &mut kept, Some(&old)).unwrap().keep();
    addresses.release(service_kind(), &kept);
    drop(addresses.reserve(service_kind(), &mut wanted, None).unwrap());
}

#[test]
fn update_carries_over() {
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.1.0", "clusterIPs": ["10.96.1.0"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
    let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
    carry_over(service_kind(), &mut new, &old);
    assert_eq!(new, old);
    new["spec"]["type"] = json!("ClusterIP");
    carry_over(service_kind(), &mut new, &old);
    assert_eq!(new["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    new["spec"]["type"] = json!("ExternalName");
    carry_over(service_kind(), &mut new, &old);
    assert_eq!(new["spec"]["clusterIP"], Value::Null);
}
