//! EndpointSlices: the addresses behind a service.

use std::collections::BTreeSet;

use api::names;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Deletion, Kind, VERBS,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, items_mut, set_default},
};

pub(super) static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    subresources: &[],
    generation: true,
    deletion: Deletion::Immediate,
    default,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    prepare_status: |_, _| {},
    validate,
    validate_update: |new, old, causes| {
        rules::unchanged(new, old, "addressType", "addressType", causes);
    },
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row,
    fields: |_, _| None,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("AddressType", "What the addresses are."),
    column("Ports", "Ports of every endpoint."),
    column("Endpoints", "Addresses of the endpoints."),
    AGE,
];

/// Endpoints in one slice.
const ENDPOINTS_MAX: usize = 1000;
/// Addresses of one endpoint.
const ADDRESSES_MAX: usize = 100;
/// Ports in one slice.
const PORTS_MAX: usize = 20_000;
/// Ports and endpoints shown in a table before the rest is only counted.
const SHOWN_MAX: usize = 3;

fn default(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        // Here the empty name says something, so it is written out.
        if !port.has("name") {
            set_default(port, "name", "");
        }
        set_default(port, "protocol", "TCP");
    }
}

fn validate(slice: &Value, causes: &mut Causes) {
    let kind = slice.text("addressType");
    match kind {
        "" => causes.required("addressType", ""),
        "IPv4" | "IPv6" | "FQDN" => {}
        _ => causes.not_supported(
            "addressType",
            slice.field("addressType"),
            &["FQDN", "IPv4", "IPv6"],
        ),
    }
    let list = Path::new("endpoints");
    too_many(slice.items("endpoints").len(), ENDPOINTS_MAX, list, causes);
    for (index, endpoint) in slice.items("endpoints").iter().enumerate() {
        endpoint_addresses(endpoint, kind, list.index(index), causes);
    }
    ports(slice, causes);
}

fn endpoint_addresses(endpoint: &Value, kind: &str, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("addresses");
    let addresses = endpoint.items("addresses");
    if addresses.is_empty() {
        causes.required(list, "must contain at least 1 address");
    }
    too_many(addresses.len(), ADDRESSES_MAX, list, causes);
    for (index, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        let (good, detail) = match kind {
            "IPv4" => (text.parse::<std::net::Ipv4Addr>().is_ok(), "must be an IPv4 address"),
            "IPv6" => (text.parse::<std::net::Ipv6Addr>().is_ok(), "must be an IPv6 address"),
            "FQDN" => {
                rules::all(names::dns1123_subdomain(text), list.index(index), text, causes);
                continue;
            }
            _ => continue,
        };
        if !good {
            causes.invalid(list.index(index), address, detail);
        }
    }
}

fn ports(slice: &Value, causes: &mut Causes) {
    let list = Path::new("ports");
    too_many(slice.items("ports").len(), PORTS_MAX, list, causes);
    let mut seen = BTreeSet::new();
    for (index, port) in slice.items("ports").iter().enumerate() {
        let path = list.index(index);
        let name = port.text("name");
        if !seen.insert(name) {
            causes.duplicate(path.child("name"), &Value::from(name));
        }
        if !name.is_empty() {
            rules::all(names::dns1123_label(name), path.child("name"), name, causes);
        }
        rules::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
    }
}

fn too_many(count: usize, max: usize, path: Path<'_>, causes: &mut Causes) {
    if max < count {
        let message = format!("Too many: {count}: must have at most {max} items");
        causes.push(super::Reason::TooMany, path, message);
    }
}

fn row(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = slice.items("ports").iter().map(|it| match it.int("port") {
        Some(port) => port.to_string(),
        None => "*".to_owned(),
    });
    let addresses = slice.items("endpoints").iter().flat_map(|it| it.items("addresses"));
    let addresses = addresses.filter_map(Value::as_str).map(str::to_owned);
    vec![
        print::name(slice),
        slice.text("addressType").into(),
        abridged(ports.collect()).into(),
        abridged(addresses.collect()).into(),
        print::age(slice, now),
    ]
}

/// The first few, and how many more there are.
fn abridged(mut texts: Vec<String>) -> String {
    let more = texts.len().saturating_sub(SHOWN_MAX);
    texts.truncate(SHOWN_MAX);
    match (texts.is_empty(), more) {
        (true, _) => "<unset>".to_owned(),
        (false, 0) => texts.join(","),
        (false, more) => format!("{} + {more} more...", texts.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    #[test]
    fn addresses_are_of_their_type() {
        check(
            &ENDPOINT_SLICE,
            json!({"addressType": "IPv5"}),
            expect![[
                r#"addressType: Unsupported value: "IPv5": supported values: "FQDN", "IPv4", "IPv6""#
            ]],
        );
        check(
            &ENDPOINT_SLICE,
            json!({"endpoints": [{"addresses": ["x"]}, {}]}),
            expect![[r#"
            endpoints[0].addresses[0]: Invalid value: "x": must be an IPv4 address
            endpoints[1].addresses: Required value: must contain at least 1 address"#]],
        );
        check_update(
            &ENDPOINT_SLICE,
            json!({"addressType": "FQDN", "endpoints": []}),
            expect![[r#"addressType: Invalid value: "FQDN": field is immutable"#]],
        );
    }

    #[test]
    fn ports_have_a_name_even_if_empty() {
        let slice = created(&ENDPOINT_SLICE, sample(&ENDPOINT_SLICE));
        assert_eq!(slice["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
        check(
            &ENDPOINT_SLICE,
            json!({"ports": [{"port": 1}, {"port": 2}]}),
            expect![[r#"ports[1].name: Duplicate value: """#]],
        );
    }

    #[test]
    fn row_abridges() {
        check_row(&ENDPOINT_SLICE, json!({}), expect!["a | IPv4 | 80 | 10.244.0.2 | 60m"]);
        let endpoints: Vec<Value> =
            (1..6).map(|it| json!({"addresses": [format!("10.0.0.{it}")]})).collect();
        check_row(
            &ENDPOINT_SLICE,
            json!({"endpoints": endpoints, "ports": null}),
            expect!["a | IPv4 | <unset> | 10.0.0.1,10.0.0.2,10.0.0.3 + 2 more... | 60m"],
        );
    }
}
