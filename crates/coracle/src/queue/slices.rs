//! Which nsqds the EndpointSlices of some Services name. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use queue::lookupd::Found;

/// The port of nsqd's protocol: its name in a slice, and what it is where a slice has none of that
/// name, nsqd's default.
const TCP: (&str, u16) = ("tcp", 4150);

/// The port of its HTTP, likewise.
const HTTP: (&str, u16) = ("http", 4151);

/// All nsqds that take clients, each once, in order.
///
/// An endpoint that is not ready, or on its way out, is none. One pod may be in several slices: while
/// its endpoint moves from one to another, or because it has an address of each IP family; then it
/// is given out under its IPv4 address, since a consumer connects to every address it is told.
pub(super) fn producers(slices: &[Arc<EndpointSlice>]) -> Vec<Found> {
    let mut found: BTreeMap<(Pod<'_>, u16), Found> = BTreeMap::new();
    for address_type in ["IPv4", "IPv6"] {
        for slice in slices.iter().filter(|it| it.address_type == address_type) {
            let (tcp_port, http_port) = (port(slice, TCP), port(slice, HTTP));
            for endpoint in slice.endpoints.iter().flatten().filter(|it| takes_clients(it)) {
                // Where there are several, they lead to the same place.
                let Some(address) = endpoint.addresses.first() else { continue };
                let uid = endpoint.target_ref.as_ref().and_then(|it| it.uid.as_deref());
                let pod = uid.map_or(Pod::Address(address), Pod::Target);
                let one = Found { address: address.clone(), tcp_port, http_port };
                found.entry((pod, tcp_port)).or_insert(one);
            }
        }
    }
    let mut found: Vec<Found> = found.into_values().collect();
    found.sort();
    found
}

/// What makes endpoints of several slices one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pod<'a> {
    /// They lead to the same object.
    Target(&'a str),
    /// Nobody knows what they lead to, but it is at the same address.
    Address(&'a str),
}

/// What is not said means yes, and is not known to be on its way out.
fn takes_clients(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return true };
    conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false)
}

/// The port of that name. A slice without a number for it means all ports, so the usual one too.
fn port(slice: &EndpointSlice, (name, usual): (&str, u16)) -> u16 {
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|it| {
        it.name.as_deref() == Some(name) && it.protocol.as_deref().unwrap_or("TCP") == "TCP"
    });
    found.and_then(|it| it.port).and_then(|it| u16::try_from(it).ok()).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(slices: &[Value], expected: &Expect) {
        let read = |it: &Value| Arc::new(serde_json::from_value(it.clone()).unwrap());
        let slices: Vec<_> = slices.iter().map(read).collect();
        let shown = |it: &Found| format!("{} {} {}\n", it.address, it.tcp_port, it.http_port);
        expected.assert_eq(&producers(&slices).iter().map(shown).collect::<String>());
    }

    fn endpoint(address: &str, uid: &str, conditions: &Value) -> Value {
        let target = json!({"kind": "Pod", "uid": uid});
        json!({"addresses": [address], "conditions": conditions, "targetRef": target})
    }

    #[test]
    fn only_what_takes_clients_is_given_out() {
        let endpoints = [
            endpoint("10.0.0.9", "a", &json!({"ready": true, "terminating": false})),
            endpoint("10.0.0.2", "b", &json!({"ready": false})),
            // A Service may publish what is not ready; that it goes is told all the same.
            endpoint("10.0.0.3", "c", &json!({"ready": true, "terminating": true})),
            endpoint(
                "10.0.0.4",
                "d",
                &json!({"ready": false, "serving": true, "terminating": true}),
            ),
            endpoint("10.0.0.5", "e", &json!({})),
            json!({"addresses": ["10.0.0.6"]}),
        ];
        check(
            &[
                json!({"addressType": "IPv4", "endpoints": endpoints}),
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["nsqd.example"]}]}),
                json!({"addressType": "IPv4", "endpoints": null}),
            ],
            &expect![[r#"
                10.0.0.5 4150 4151
                10.0.0.6 4150 4151
                10.0.0.9 4150 4151
            "#]],
        );
    }

    #[test]
    fn ports_have_names_or_are_the_usual_ones() {
        let slice = |last: u8, ports: Value| {
            let endpoint = endpoint(&format!("10.0.0.{last}"), &last.to_string(), &json!({}));
            json!({"addressType": "IPv4", "endpoints": [endpoint], "ports": ports})
        };
        check(
            &[
                slice(1, json!([{"name": "tcp", "port": 1}, {"name": "http", "port": 2}])),
                slice(2, json!([{"name": "http", "port": 2, "protocol": "UDP"}, {"name": "tcp"}])),
                slice(3, json!([{"name": "", "port": 3}, {"name": "tcp", "port": 70_000}])),
                slice(4, json!(null)),
            ],
            &expect![[r#"
                10.0.0.1 1 2
                10.0.0.2 4150 4151
                10.0.0.3 4150 4151
                10.0.0.4 4150 4151
            "#]],
        );
    }

    #[test]
    fn a_pod_is_one_nsqd_however_often_it_is_listed() {
        let ready = json!({"ready": true});
        let of = |address_type: &str, endpoints: Value| json!({"addressType": address_type, "endpoints": endpoints});
        let mut other_ports = of("IPv4", json!([endpoint("10.0.0.1", "a", &ready)]));
        other_ports["ports"] =
            json!([{"name": "tcp", "port": 5150}, {"name": "http", "port": 5151}]);
        check(
            &[
                of(
                    "IPv6",
                    json!([endpoint("fd00::1", "a", &ready), endpoint("fd00::2", "b", &ready)]),
                ),
                of("IPv4", json!([endpoint("10.0.0.1", "a", &ready)])),
                // It moves to another slice, and the old one is older than what it says.
                of("IPv4", json!([endpoint("10.0.0.1", "a", &json!({"ready": false}))])),
                of("IPv4", json!([{"addresses": ["10.0.0.7"]}])),
                of("IPv4", json!([{"addresses": ["10.0.0.7"]}])),
                // Another nsqd in the same pod.
                other_ports,
            ],
            &expect![[r#"
                10.0.0.1 4150 4151
                10.0.0.1 5150 5151
                10.0.0.7 4150 4151
                fd00::2 4150 4151
            "#]],
        );
    }
}
