//! A NetworkPolicy, read: what it selects and what it allows, in terms of addresses as far as that
//! can be said without looking at pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::selector::LabelSelector;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1, util::intstr::IntOrString},
};

use crate::family::{next, previous};

/// One NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) namespace: String,
    /// The pods that it restricts.
    pub(super) pods: Selector,
    /// What they may get; none if that is not restricted by this policy.
    pub(super) ingress: Option<Vec<Allowed>>,
    /// What they may send.
    pub(super) egress: Option<Vec<Allowed>>,
}

/// What one rule allows: each of its peers at each of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) peers: Peers,
    pub(super) ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peers {
    Anybody,
    /// Whoever is one of these.
    Some {
        selected: Vec<Peer>,
        /// Addresses in order, from the first to the last, apart from each other, of either family: who has one of
        /// each is allowed by those that it uses.
        blocks: Vec<(IpAddr, IpAddr)>,
    },
}

/// Pods by their labels and those of their namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) namespaces: Namespaces,
    pub(super) pods: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    Named(String),
    Selected(Selector),
}

/// A selector of labels. One that cannot be read, which the API would have refused, selects nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector(Option<LabelSelector>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    All,
    Some(Vec<Port>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Range {
        protocol: u8,
        first: u16,
        last: u16,
    },
    /// Whichever port of the destination has this name.
    Named {
        protocol: u8,
        name: String,
    },
}

impl Selector {
    fn read(selector: &v1::LabelSelector) -> Self {
        Self(LabelSelector::from_object(selector).ok())
    }

    pub(super) fn matches(&self, labels: &super::Labels) -> bool {
        self.0.as_ref().is_some_and(|it| it.matches(labels))
    }
}

impl Policy {
    /// Reads a policy; none if it says nothing.
    pub(super) fn read(object: &NetworkPolicy) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let (of_ingress, of_egress) = types(spec);
        let ingress = spec.ingress.iter().flatten().map(|rule| Allowed {
            peers: Peers::read(&namespace, rule.from.as_deref()),
            ports: Ports::read(rule.ports.as_deref()),
        });
        let egress = spec.egress.iter().flatten().map(|rule| Allowed {
            peers: Peers::read(&namespace, rule.to.as_deref()),
            ports: Ports::read(rule.ports.as_deref()),
        });
        let (ingress, egress) = (ingress.collect(), egress.collect());
        Some(Self {
            pods: Selector::read(&spec.pod_selector.clone().unwrap_or_default()),
            ingress: of_ingress.then_some(ingress),
            egress: of_egress.then_some(egress),
            namespace,
        })
    }
}

/// Whether ingress and whether egress is restricted. Without types, as before they were defaulted,
/// ingress is, and egress if there are rules for it.
fn types(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|it| !it.is_empty())),
        Some(types) => {
            let has = |wanted: &str| types.iter().any(|it| it == wanted);
            (has("Ingress"), has("Egress"))
        }
    }
}

impl Peers {
    fn read(namespace: &str, peers: Option<&[NetworkPolicyPeer]>) -> Self {
        let Some(peers) = peers.filter(|it| !it.is_empty()) else { return Self::Anybody };
        let (mut selected, mut blocks) = (Vec::new(), Vec::new());
        for peer in peers {
            if let Some(block) = &peer.ip_block {
                blocks.extend(ranges(block));
                continue;
            }
            let namespaces = match &peer.namespace_selector {
                Some(selector) => Namespaces::Selected(Selector::read(selector)),
                None => Namespaces::Named(namespace.to_owned()),
            };
            let pods = Selector::read(&peer.pod_selector.clone().unwrap_or_default());
            selected.push(Peer { namespaces, pods });
        }
        Self::Some { selected, blocks: united(blocks) }
    }
}

impl Ports {
    fn read(ports: Option<&[NetworkPolicyPort]>) -> Self {
        match ports.filter(|it| !it.is_empty()) {
            None => Self::All,
            Some(ports) => Self::Some(ports.iter().filter_map(Port::read).collect()),
        }
    }
}

impl Port {
    fn read(port: &NetworkPolicyPort) -> Option<Self> {
        let protocol = protocol(port.protocol.as_deref())?;
        let (first, last) = match &port.port {
            None => (0, u16::MAX),
            Some(IntOrString::String(name)) => {
                return Some(Self::Named { protocol, name: name.clone() });
            }
            Some(IntOrString::Int(first)) => {
                let last = port.end_port.unwrap_or(*first);
                (u16::try_from(*first).ok()?, u16::try_from(last).ok()?)
            }
        };
        Some(Self::Range { protocol, first, last })
    }
}

/// The number of a protocol in the IP header.
pub(super) fn protocol(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("" | "TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    }
}

/// The first and the last address of a range in CIDR notation.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    Some(match address.parse().ok()? {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= u32::BITS).then_some(())?;
            let bits = address.to_bits();
            let ends = [bits & !rest, bits | rest].map(|it| Ipv4Addr::from_bits(it).into());
            (ends[0], ends[1])
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(prefix).unwrap_or(0);
            (prefix <= u128::BITS).then_some(())?;
            let bits = address.to_bits();
            let ends = [bits & !rest, bits | rest].map(|it| Ipv6Addr::from_bits(it).into());
            (ends[0], ends[1])
        }
    })
}

/// What a block has without its exceptions.
fn ranges(block: &IPBlock) -> Vec<(IpAddr, IpAddr)> {
    let Some((begin, end)) = range(&block.cidr) else { return Vec::new() };
    let except = block.except.iter().flatten().filter_map(|it| range(it));
    let except = except.filter(|it| it.0.is_ipv4() == begin.is_ipv4());
    let mut left = Vec::new();
    let mut from = Some(begin);
    for (first, last) in united(except.collect()) {
        let Some(at) = from else { break };
        if last < at {
            continue;
        }
        if first > end {
            break;
        }
        left.extend(previous(first).filter(|it| at <= *it).map(|it| (at, it)));
        from = next(last);
    }
    left.extend(from.filter(|it| *it <= end).map(|it| (it, end)));
    left
}

/// The same addresses as ranges that neither overlap nor touch, in order.
fn united(mut ranges: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
    ranges.sort_unstable();
    let mut united: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in ranges {
        match united.last_mut() {
            // Every address of IPv4 comes before those of IPv6.
            Some(before) if first <= before.1 || next(before.1) == Some(first) => {
                before.1 = before.1.max(last);
            }
            _ => united.push((first, last)),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check_blocks(blocks: Value, expected: Expect) {
        let blocks: Vec<NetworkPolicyPeer> = serde_json::from_value(blocks).unwrap();
        let Peers::Some { blocks, .. } = Peers::read("shop", Some(&blocks)) else { panic!() };
        let shown = blocks.iter().map(|(first, last)| format!("{first} - {last}"));
        expected.assert_eq(&shown.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn exceptions_leave_ranges() {
        check_blocks(
            json!([{"ipBlock": {"cidr": "10.0.0.7/8", "except": ["10.0.0.0/16", "10.255.255.255/32",
                "10.9.0.0/16", "10.10.0.0/16"]}}]),
            expect![[r#"
                10.1.0.0 - 10.8.255.255
                10.11.0.0 - 10.255.255.254"#]],
        );
    }

    #[test]
    fn blocks_become_one() {
        check_blocks(
            json!([{"ipBlock": {"cidr": "10.0.1.0/24"}}, {"ipBlock": {"cidr": "10.0.0.0/24"}},
                {"ipBlock": {"cidr": "10.0.0.128/25"}}, {"ipBlock": {"cidr": "192.0.2.1/32"}}]),
            expect![[r#"
                10.0.0.0 - 10.0.1.255
                192.0.2.1 - 192.0.2.1"#]],
        );
    }

    #[test]
    fn all_addresses_are_a_range() {
        check_blocks(
            json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["255.255.255.0/24"]}}]),
            expect!["0.0.0.0 - 255.255.254.255"],
        );
        check_blocks(
            json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
            expect!["0.0.0.0 - 255.255.255.255"],
        );
    }

    #[test]
    fn blocks_of_both_families_are_apart() {
        check_blocks(
            json!([{"ipBlock": {"cidr": "2001:db8::7/64", "except": ["2001:db8::/127", "10.0.0.0/8"]}},
                {"ipBlock": {"cidr": "255.255.255.255/32"}}, {"ipBlock": {"cidr": "::/128"}},
                {"ipBlock": {"cidr": "2001:db8:0:1::/64"}}, {"ipBlock": {"cidr": "::/129"}}]),
            expect![[r#"
                255.255.255.255 - 255.255.255.255
                :: - ::
                2001:db8::2 - 2001:db8:0:1:ffff:ffff:ffff:ffff"#]],
        );
        check_blocks(
            json!([{"ipBlock": {"cidr": "::/0", "except": ["ff00::/8"]}}]),
            expect![":: - feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        );
    }

    #[test]
    fn types_follow_from_rules_where_they_are_not_said() {
        let types = |spec: Value| types(&serde_json::from_value(spec).unwrap());
        assert_eq!(types(json!({})), (true, false));
        assert_eq!(types(json!({"egress": []})), (true, false));
        assert_eq!(types(json!({"egress": [{}]})), (true, true));
        assert_eq!(types(json!({"egress": [{}], "policyTypes": ["Ingress"]})), (true, false));
        assert_eq!(types(json!({"policyTypes": ["Egress"]})), (false, true));
    }
}
