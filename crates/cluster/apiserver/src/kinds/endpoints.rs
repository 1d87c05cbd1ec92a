//! Endpoints: addresses behind a Service, as they were listed before EndpointSlices.

use std::net::IpAddr;

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, items_mut, set_default},
};

pub(super) static ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    schema: "io.k8s.api.core.v1.Endpoints",
    default: |endpoints| {
        for subset in items_mut(endpoints, "subsets") {
            items_mut(subset, "ports").for_each(|it| set_default(it, "protocol", "TCP"));
        }
    },
    validate,
    columns: COLUMNS,
    row,
    deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, column("Endpoints", "Addresses and ports."), AGE];

/// Addresses that a table shows before it only counts them.
const SHOWN_MAX: usize = 3;

fn validate(endpoints: &Value, causes: &mut Causes) {
    let list = Path::new("subsets");
    for (index, subset) in endpoints.items("subsets").iter().enumerate() {
        let path = list.index(index);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|it| subset.items(it).is_empty()) {
            causes.required(path, "must specify `addresses` or `notReadyAddresses`");
        }
        for name in lists {
            let list = path.child(name);
            for (index, it) in subset.items(name).iter().enumerate() {
                address(it, list.index(index), causes);
            }
        }
        let ports = path.child("ports");
        let count = subset.items("ports").len();
        for (index, it) in subset.items("ports").iter().enumerate() {
            port(it, count, ports.index(index), causes);
        }
    }
}

fn address(address: &Value, path: Path<'_>, causes: &mut Causes) {
    let ip = address.text("ip");
    rules::ip(ip, path.child("ip"), causes);
    let hostname = address.text("hostname");
    if !hostname.is_empty() {
        rules::all(names::dns1123_label(hostname), path.child("hostname"), hostname, causes);
    }
    if let Some(node) = address.field("nodeName").as_str() {
        rules::all(names::dns1123_subdomain(node), path.child("nodeName"), node, causes);
    }
    ordinary_ip(ip, path.child("ip"), causes);
}

/// An address that other machines can reach.
pub(super) fn ordinary_ip(text: &str, path: Path<'_>, causes: &mut Causes) {
    let mut refuse = |detail: &str| causes.invalid(path, &Value::from(text), detail);
    let Ok(ip) = text.parse::<IpAddr>() else {
        refuse("must be a valid IP address");
        return;
    };
    let (local, local_group) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.segments().first().is_some_and(|it| it & 0xff0f == 0xff02),
        ),
    };
    if ip.is_unspecified() {
        refuse(&format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_group {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn port(port: &Value, ports: usize, path: Path<'_>, causes: &mut Causes) {
    let name = port.text("name");
    if !name.is_empty() {
        rules::all(names::dns1123_label(name), path.child("name"), name, causes);
    } else if 1 < ports {
        causes.required(path.child("name"), "");
    }
    let number = port.int("port").unwrap_or_default();
    rules::all(names::port_number(number), path.child("port"), number, causes);
    rules::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
    if let Some(protocol) = port.field("appProtocol").as_str() {
        rules::all(names::qualified_name(protocol), path.child("appProtocol"), protocol, causes);
    }
}

fn row(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    vec![print::name(endpoints), printed(endpoints).into(), print::age(endpoints, now)]
}

fn printed(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in endpoints.items("subsets") {
        let addresses = || subset.items("addresses").iter().map(|it| it.text("ip"));
        if subset.items("ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in subset.items("ports") {
            let port = port.int("port").unwrap_or_default();
            all.extend(addresses().map(|it| match it.contains(':') {
                true => format!("[{it}]:{port}"),
                false => format!("{it}:{port}"),
            }));
        }
    }
    let more = all.len().saturating_sub(SHOWN_MAX);
    all.truncate(SHOWN_MAX);
    match (endpoints.items("subsets").is_empty(), more) {
        (true, _) => print::NONE.to_owned(),
        (false, 0) => all.join(","),
        (false, more) => format!("{} + {more} more...", all.join(",")),
    }
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
    fn addresses_are_ordinary() {
        let bad = json!([{"ip": "127.0.0.1"}, {"ip": "x"}, {"ip": "224.0.0.5", "hostname": "A"}]);
        check(
            &ENDPOINTS,
            json!({"subsets": [{"ports": [{"port": 0}, {"port": 1, "protocol": "X"}]},
                {"addresses": bad}]}),
            expect![[r#"
                subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
                subsets[0].ports[0].name: Required value
                subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
                subsets[0].ports[1].name: Required value
                subsets[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"
                subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
                subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
                subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address
                subsets[1].addresses[2].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
                subsets[1].addresses[2].ip: Invalid value: "224.0.0.5": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"#]],
        );
    }

    #[test]
    fn row_counts_the_rest() {
        check_row(&ENDPOINTS, json!({"subsets": null}), expect!["a | <none> | 60m"]);
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        let subset = json!({"addresses": addresses, "ports": [{"port": 1}, {"port": 2}]});
        check_row(
            &ENDPOINTS,
            json!({"subsets": [subset]}),
            expect!["a | 10.0.0.1:1,[fd00::1]:1,10.0.0.1:2 + 1 more... | 60m"],
        );
    }
}
