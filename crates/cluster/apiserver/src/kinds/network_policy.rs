//! NetworkPolicies: who may speak with which pods.

use std::net::IpAddr;

use api::names;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::{Read, items_mut, object_mut, set, set_default},
};

pub(super) static NETWORK_POLICY: Kind = Kind {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    schema: "io.k8s.api.networking.v1.NetworkPolicy",
    generation: true,
    default,
    validate,
    columns: COLUMNS,
    row: |it, now| {
        let selector = print::selector(it.at(&["spec", "podSelector"]));
        vec![print::name(it), selector.into(), print::age(it, now)]
    },
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, column("Pod-Selector", "Labels of the pods it is about."), AGE];

const TYPES: [&str; 2] = ["Ingress", "Egress"];
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

fn default(policy: &mut Value) {
    let Some(spec) = object_mut(policy, "spec") else { return };
    object_mut(spec, "podSelector");
    for list in ["ingress", "egress"] {
        for rule in items_mut(spec, list) {
            items_mut(rule, "ports").for_each(|it| set_default(it, "protocol", "TCP"));
        }
    }
    if spec.items("policyTypes").is_empty() {
        let both = !spec.items("egress").is_empty();
        set(spec, "policyTypes", if both { json!(TYPES) } else { json!(["Ingress"]) });
    }
}

fn validate(policy: &Value, causes: &mut Causes) {
    let (spec, path) = (policy.field("spec"), Path::new("spec"));
    rules::label_selector(spec.field("podSelector"), path.child("podSelector"), causes);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        let list_path = path.child(list);
        for (index, rule) in spec.items(list).iter().enumerate() {
            let path = list_path.index(index);
            let ports = path.child("ports");
            for (index, it) in rule.items("ports").iter().enumerate() {
                port(it, ports.index(index), causes);
            }
            let peers_path = path.child(peers);
            for (index, it) in rule.items(peers).iter().enumerate() {
                peer(it, peers_path.index(index), causes);
            }
        }
    }
    let (types, path) = (spec.items("policyTypes"), path.child("policyTypes"));
    if TYPES.len() < types.len() {
        let detail = "may not specify more than two policyTypes";
        causes.invalid(path, spec.field("policyTypes"), detail);
        return;
    }
    for (index, it) in types.iter().enumerate() {
        if !TYPES.contains(&it.as_str().unwrap_or_default()) {
            causes.not_supported(path.index(index), it, &TYPES);
        }
    }
}

fn port(port: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::optional_one_of(port, "protocol", &["TCP", "UDP", "SCTP"], path, causes);
    let (first, last) = (port.field("port"), port.field("endPort"));
    match (first, last.as_i64()) {
        (Value::Null, Some(_)) => {
            let detail = "may not be specified when `port` is not specified";
            causes.invalid(path.child("endPort"), last, detail);
        }
        (Value::String(name), end) => {
            if end.is_some() {
                let detail = "may not be specified when `port` is non-numeric";
                causes.invalid(path.child("endPort"), last, detail);
            }
            rules::all(names::port_name(name), path.child("port"), name.as_str(), causes);
        }
        (Value::Number(_), end) => {
            let number = first.as_i64().unwrap_or_default();
            rules::all(names::port_number(number), path.child("port"), number, causes);
            let Some(end) = end else { return };
            if end < number {
                let detail = "must be greater than or equal to `port`";
                causes.invalid(path.child("endPort"), first, detail);
            }
            rules::all(names::port_number(end), path.child("endPort"), end, causes);
        }
        _ => {}
    }
}

fn peer(peer: &Value, path: Path<'_>, causes: &mut Causes) {
    let selectors = ["podSelector", "namespaceSelector"];
    for name in selectors.iter().filter(|it| peer.has(it)) {
        rules::label_selector(peer.field(name), path.child(name), causes);
    }
    let (block, selected) = (peer.has("ipBlock"), selectors.iter().any(|it| peer.has(it)));
    if block {
        ip_block(peer.field("ipBlock"), path.child("ipBlock"), causes);
    }
    match (block, selected) {
        (false, false) => causes.required(path, "must specify a peer"),
        (true, true) => causes.forbidden(path, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn ip_block(block: &Value, path: Path<'_>, causes: &mut Causes) {
    let text = block.text("cidr");
    if text.is_empty() {
        causes.required(path.child("cidr"), "");
        return;
    }
    let whole = cidr(text);
    if whole.is_none() {
        causes.invalid(path.child("cidr"), &text.into(), CIDR);
    }
    let list = path.child("except");
    for (index, except) in block.items("except").iter().enumerate() {
        match (whole, cidr(except.as_str().unwrap_or_default())) {
            (_, None) => causes.invalid(list.index(index), except, CIDR),
            (Some(whole), Some(part)) if !is_strict_part(part, whole) => {
                causes.invalid(list.index(index), except, "must be a strict subset of `cidr`");
            }
            _ => {}
        }
    }
}

/// Address and length of prefix of `10.0.0.0/8`.
pub(super) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (length <= bits).then_some((address, length))
}

fn is_strict_part(part: (IpAddr, u8), whole: (IpAddr, u8)) -> bool {
    let common = match (part.0, whole.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    whole.1 < part.1 && u32::from(whole.1) <= common
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, created, sample},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn types_follow_from_rules() {
        let types = |egress: Value| {
            let mut policy = sample(&NETWORK_POLICY);
            policy["spec"]["egress"] = egress;
            created(&NETWORK_POLICY, policy)["spec"]["policyTypes"].clone()
        };
        assert_eq!(types(json!([])), json!(["Ingress"]));
        assert_eq!(types(json!([{}])), json!(["Ingress", "Egress"]));
    }

    #[test]
    fn ports_and_peers_are_checked() {
        let rule = json!({"ports": [{"protocol": "ICMP", "port": "A"}, {"endPort": 5},
                {"port": 8, "endPort": 7}],
            "from": [{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8",
                "except": ["10.1.0.0/16", "11.0.0.0/16", "x"]}}, {"ipBlock": {"cidr": "10.0.0.0/33"}}]});
        check(
            &NETWORK_POLICY,
            spec(json!({"ingress": [rule], "policyTypes": ["Both"]})),
            expect![[r#"
                spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"
                spec.ingress[0].ports[0].port: Invalid value: "A": must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)
                spec.ingress[0].ports[0].port: Invalid value: "A": must contain at least one letter (a-z)
                spec.ingress[0].ports[1].endPort: Invalid value: 5: may not be specified when `port` is not specified
                spec.ingress[0].ports[2].endPort: Invalid value: 8: must be greater than or equal to `port`
                spec.ingress[0].from[0]: Required value: must specify a peer
                spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`
                spec.ingress[0].from[1].ipBlock.except[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
                spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer
                spec.ingress[0].from[2].ipBlock.cidr: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
                spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress""#]],
        );
        check_row(
            &NETWORK_POLICY,
            spec(json!({"podSelector": {"matchLabels": {"a": "b"}}})),
            expect!["a | a=b,app=a | 60m"],
        );
    }
}
