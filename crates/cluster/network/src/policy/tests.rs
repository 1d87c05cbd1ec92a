//! What is decided, shown; and compared with what Kubernetes says of the same objects, by an evaluator
//! that looks at the objects alone, packet for packet.

use expect_test::{Expect, expect};
use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::nft::policy::Ports as RulePorts;
use crate::{addresses::Prefix, family::IpFamily};

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The table in the kernel, as strict as that.
#[derive(Debug, Default, PartialEq)]
struct Kernel(Contents);

impl Kernel {
    fn apply(&mut self, change: Change) {
        let Contents { sets, chains, leads } = &mut self.0;
        match change {
            Change::AddSet(set) => assert!(sets.insert(set, BTreeSet::new()).is_none()),
            Change::AddItems(set, items) => {
                let set = sets.get_mut(&set).unwrap();
                items.into_iter().for_each(|it| assert!(set.insert(it), "{it:?} is there"));
            }
            Change::RemoveItems(set, items) => {
                let set = sets.get_mut(&set).unwrap();
                items.iter().for_each(|it| assert!(set.remove(it), "{it:?} is not there"));
            }
            Change::AddChain(chain) => assert!(chains.insert(chain, Vec::new()).is_none()),
            Change::Empty(chain) => chains.get_mut(&chain).unwrap().clear(),
            Change::Append(chain, rules) => {
                for rule in &rules {
                    match rule {
                        Rule::Accept(peer, ports) => {
                            if let nft::Peer::In(set) = peer {
                                assert!(sets.contains_key(set));
                            }
                            if let RulePorts::In(set) = ports {
                                assert!(sets.contains_key(set));
                            }
                        }
                        Rule::Ask(other) => assert!(chains.contains_key(other)),
                        Rule::Refuse => {}
                    }
                }
                chains.get_mut(&chain).unwrap().extend(rules);
            }
            Change::Release(question, addresses) => {
                addresses.iter().for_each(|it| assert!(leads.remove(&(question, *it)).is_some()));
            }
            Change::Lead(question, added) => {
                for (address, pods) in added {
                    assert!(chains.contains_key(&Chain::Pods(question, pods)));
                    assert!(leads.insert((question, address), pods).is_none());
                }
            }
            Change::RemoveChain(chain) => {
                assert!(chains.remove(&chain).is_some());
                let asks = |it: &Vec<Rule>| it.contains(&Rule::Ask(chain));
                assert!(!chains.values().any(asks), "{chain:?} is asked");
                let led = |(&(question, _), &pods): (&(Question, Ipv4Addr), &u32)| {
                    Chain::Pods(question, pods) == chain
                };
                assert!(!leads.iter().any(led), "{chain:?} is led to");
            }
            Change::RemoveSet(set) => {
                assert!(sets.remove(&set).is_some());
                let uses = |rule: &Rule| match rule {
                    Rule::Accept(peer, ports) => {
                        *peer == nft::Peer::In(set) || *ports == RulePorts::In(set)
                    }
                    Rule::Ask(_) | Rule::Refuse => false,
                };
                assert!(!chains.values().flatten().any(uses), "{set:?} is used");
            }
        }
    }

    /// Whether the rules let a packet pass that opens a connection.
    fn passes(&self, packet: Packet) -> bool {
        let (from, to) = (low(packet.from).unwrap(), low(packet.to));
        let own = self.0.sets[&Set::Own].contains(&Item::Address(from));
        if own && Some(from) == to {
            return true;
        }
        let way_out = if to.is_none() { Question::World } else { Question::Egress };
        let ingress = to.map(|it| (Question::Ingress, it));
        let mut asked = [Some((way_out, from)), ingress].into_iter().flatten();
        asked.all(|asked| match self.0.leads.get(&asked) {
            Some(pods) => self.run(Chain::Pods(asked.0, *pods), asked.0, packet).unwrap(),
            None => true,
        })
    }

    fn run(&self, chain: Chain, question: Question, packet: Packet) -> Option<bool> {
        self.0.chains[&chain].iter().find_map(|rule| match rule {
            Rule::Refuse => Some(false),
            Rule::Ask(other) => self.run(*other, question, packet),
            Rule::Accept(peer, ports) => {
                let other = if question == Question::Ingress { packet.from } else { packet.to };
                let has = |set: &Set, item| self.0.sets[set].contains(&item);
                let is_peer = match peer {
                    nft::Peer::Anybody => true,
                    nft::Peer::In(set @ Set::Blocks(_)) => self.0.sets[set].iter().any(|it| {
                        let Item::Range(first, last) = *it else { panic!("{it:?}") };
                        (first..=last).contains(&other)
                    }),
                    nft::Peer::In(set) => low(other).is_some_and(|it| has(set, Item::Address(it))),
                };
                let Packet { protocol, port, .. } = packet;
                let is_port = match ports {
                    RulePorts::All => true,
                    RulePorts::Range { protocol, first, last } => {
                        packet.protocol == *protocol && (first..=last).contains(&&packet.port)
                    }
                    RulePorts::In(set) => low(packet.to)
                        .is_some_and(|address| has(set, Item::Port { address, protocol, port })),
                };
                (is_peer && is_port).then_some(true)
            }
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
}

/// What IPv6 addresses begin with.
fn prefix() -> Prefix {
    Prefix::local([1, 2, 3, 4, 5])
}

/// By what the table tells an address; none if it is of the world.
fn low(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address).filter(Ipv4Addr::is_private),
        IpAddr::V6(_) => IpFamily::V6(prefix()).low(address),
    }
}

/// What Kubernetes says, from the objects alone.
#[derive(Debug, Default)]
struct Reference {
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<String, Pod>,
    policies: BTreeMap<Key, NetworkPolicy>,
}

impl Reference {
    fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.values().find(|it| both(it.address).contains(&address))
    }

    fn passes(&self, packet: Packet) -> bool {
        let (from, to) = (self.pod_at(packet.from), self.pod_at(packet.to));
        if packet.from == packet.to {
            return true;
        }
        let may_send = from.is_none_or(|it| self.may(it, "Egress", packet));
        may_send && to.is_none_or(|it| self.may(it, "Ingress", packet))
    }

    /// Whether all that is said of a pod lets it send, or get, the packet.
    fn may(&self, pod: &Pod, direction: &str, packet: Packet) -> bool {
        let about = self.policies.iter().filter(|(key, policy)| {
            let spec = policy.spec.as_ref().unwrap();
            pod.is_subject
                && key.namespace.as_deref() == Some(&*pod.namespace)
                && selects(spec.pod_selector.as_ref(), &pod.labels)
                && spec.policy_types.iter().flatten().any(|it| it == direction)
        });
        let about: Vec<_> = about.collect();
        about.is_empty()
            || about.iter().any(|(key, policy)| {
                let spec = policy.spec.clone().unwrap();
                let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> =
                    if direction == "Ingress" {
                        let rules = spec.ingress.unwrap_or_default().into_iter();
                        rules
                            .map(|it| (it.from.unwrap_or_default(), it.ports.unwrap_or_default()))
                            .collect()
                    } else {
                        let rules = spec.egress.unwrap_or_default().into_iter();
                        rules
                            .map(|it| (it.to.unwrap_or_default(), it.ports.unwrap_or_default()))
                            .collect()
                    };
                let other = if direction == "Ingress" { packet.from } else { packet.to };
                rules.iter().any(|(peers, ports)| {
                    let namespace = key.namespace_or_empty();
                    (peers.is_empty() || peers.iter().any(|it| self.is_peer(it, namespace, other)))
                        && (ports.is_empty() || ports.iter().any(|it| self.is_port(it, packet)))
                })
            })
    }

    fn is_peer(&self, peer: &NetworkPolicyPeer, namespace: &str, address: IpAddr) -> bool {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten();
            return contains(&block.cidr, address)
                && !except.into_iter().any(|it| contains(it, address));
        }
        let Some(pod) = self.pod_at(address) else { return false };
        let of_namespace = match &peer.namespace_selector {
            None => pod.namespace == namespace,
            Some(it) => {
                let labels = self.namespaces.get(&pod.namespace);
                labels.is_some_and(|labels| selects(Some(it), labels))
            }
        };
        of_namespace && selects(peer.pod_selector.as_ref(), &pod.labels)
    }

    fn is_port(&self, port: &NetworkPolicyPort, packet: Packet) -> bool {
        let protocol = if port.protocol.as_deref() == Some("UDP") { UDP } else { TCP };
        let number = i32::from(packet.port);
        protocol == packet.protocol
            && match &port.port {
                None => true,
                Some(IntOrString::Int(first)) => {
                    (*first..=port.end_port.unwrap_or(*first)).contains(&number)
                }
                Some(IntOrString::String(name)) => {
                    let named = self
                        .pod_at(packet.to)
                        .and_then(|pod| pod.ports.get(&(protocol, name.clone())));
                    named == Some(&packet.port)
                }
            }
    }
}

/// Written out, so that it shares nothing with what is tested.
fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let equal = selector.match_labels.iter().flatten().all(|(key, it)| labels.get(key) == Some(it));
    let expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.into_iter().all(|it| match (it.operator.as_str(), labels.get(&it.key)) {
            ("Exists", value) => value.is_some(),
            ("DoesNotExist", value) => value.is_none(),
            ("NotIn", value) => {
                !value.is_some_and(|it_| it.values.iter().flatten().any(|v| v == it_))
            }
            (operator, _) => panic!("{operator}"),
        })
}

fn contains(cidr: &str, address: IpAddr) -> bool {
    let Some((net, bits)) = cidr.split_once('/') else { panic!("{cidr}") };
    let bits: u32 = bits.parse().unwrap();
    match (net.parse().unwrap(), address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            bits == 0 || (net.to_bits() ^ address.to_bits()) >> (32 - bits) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            bits == 0 || (net.to_bits() ^ address.to_bits()) >> (128 - bits) == 0
        }
        _ => false,
    }
}

/// The addresses of who has this one.
fn both(address: Ipv4Addr) -> [IpAddr; 2] {
    [address.into(), prefix().at(address).into()]
}

fn labels(number: u8) -> Labels {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = [label("a", "x"), label("a", "y"), label("b", "x")];
    all.into_iter().zip(0..).filter(|(_, bit)| number & (1 << bit) != 0).map(|it| it.0).collect()
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, number + 2)
}

fn pod(namespace: &str, number: u8, bits: u8, ports: u8) -> Pod {
    let port = |protocol, name: &str, port| ((protocol, name.to_owned()), port);
    let all = [port(TCP, "web", 80), port(UDP, "web", 81), port(TCP, "web", 81)];
    let ports = all.into_iter().zip(0..).filter(|(_, bit)| ports & (1 << bit) != 0).map(|it| it.0);
    Pod {
        namespace: namespace.to_owned(),
        labels: labels(bits),
        ports: ports.collect(),
        address: address(number),
        is_subject: true,
    }
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    prop_oneof![
        Just(json!({})),
        Just(json!({"matchLabels": {"a": "x"}})),
        Just(json!({"matchLabels": {"b": "x"}})),
        Just(expression("a", "Exists", Value::Null)),
        Just(expression("b", "DoesNotExist", Value::Null)),
        Just(expression("a", "NotIn", json!(["y"]))),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = prop_oneof![
        Just(json!({"cidr": "10.244.0.0/30"})),
        Just(json!({"cidr": "10.244.0.0/16", "except": ["10.244.0.4/31", "10.244.0.2/32"]})),
        Just(json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]})),
        Just(json!({"cidr": "198.51.100.7/24"})),
        Just(json!({"cidr": "2001:db8::/64"})),
        Just(json!({"cidr": "2001:db8::/32", "except": ["2001:db8::/64"]})),
        Just(json!({"cidr": "fd01:203:405::af4:0/126"})),
        Just(json!({"cidr": "::/0", "except": ["fd01:203:405::af4:4/127"]})),
    ];
    prop_oneof![
        selector().prop_map(|it| json!({"podSelector": it})),
        selector().prop_map(|it| json!({"namespaceSelector": it})),
        (selector(), selector())
            .prop_map(|(a, b)| json!({"podSelector": a, "namespaceSelector": b})),
        block.prop_map(|it| json!({"ipBlock": it})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        Just(json!({})),
        Just(json!({"port": 80})),
        Just(json!({"port": 80, "endPort": 81})),
        Just(json!({"port": "web"})),
        Just(json!({"port": 53})),
    ];
    let protocol = prop_oneof![Just("TCP"), Just("UDP")];
    (port, protocol).prop_map(|(mut port, protocol)| {
        port["protocol"] = protocol.into();
        port
    })
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let one = proptest::collection::vec(peer(), 0..3);
    let rule = (one, proptest::collection::vec(port(), 0..3));
    let rule = rule.prop_map(move |(who, ports)| json!({peers: who, "ports": ports}));
    proptest::collection::vec(rule, 0..3).prop_map(Value::from)
}

fn spec() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just(json!(["Ingress"])),
        Just(json!(["Egress"])),
        Just(json!(["Ingress", "Egress"]))
    ];
    (selector(), types, rules("from"), rules("to")).prop_map(|(pods, types, ingress, egress)| {
        json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress})
    })
}

#[derive(Clone, Debug)]
enum Step {
    Namespace(u8, Option<u8>),
    Pod { number: u8, namespace: u8, labels: u8, ports: u8 },
    NoPod(u8),
    Policy { namespace: u8, name: u8, spec: Value },
    NoPolicy(u8, u8),
    Decide,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..2_u8, proptest::option::weighted(0.8, 0..8_u8)).prop_map(|(a, b)| Step::Namespace(a, b)),
        4 => (0..5_u8, 0..2_u8, 0..8_u8, 0..8_u8).prop_map(|(number, namespace, labels, ports)| {
            Step::Pod { number, namespace, labels, ports }
        }),
        1 => (0..5_u8).prop_map(Step::NoPod),
        4 => (0..2_u8, 0..3_u8, spec())
            .prop_map(|(namespace, name, spec)| Step::Policy { namespace, name, spec }),
        1 => (0..2_u8, 0..3_u8).prop_map(|(namespace, name)| Step::NoPolicy(namespace, name)),
        2 => Just(Step::Decide),
    ]
}

fn namespace(number: u8) -> String {
    format!("n{number}")
}

fn object(namespace: &str, spec: &Value) -> NetworkPolicy {
    serde_json::from_value(json!({"metadata": {"namespace": namespace}, "spec": spec})).unwrap()
}

fn take(step: Step, model: &mut Model, reference: &mut Reference) {
    match step {
        Step::Namespace(number, bits) => {
            let (name, labels) = (namespace(number), bits.map(labels));
            model.namespace_changed(&name, labels.as_ref());
            reference.namespaces.remove(&name);
            reference.namespaces.extend(labels.map(|it| (name, it)));
        }
        Step::Pod { number, namespace: at, labels, ports } => {
            let pod = pod(&namespace(at), number, labels, ports);
            model.pod_changed(&number.to_string(), Some(pod.clone()));
            reference.pods.insert(number.to_string(), pod);
        }
        Step::NoPod(number) => {
            model.pod_changed(&number.to_string(), None);
            reference.pods.remove(&number.to_string());
        }
        Step::Policy { namespace: at, name, spec } => {
            let key = Key::namespaced(namespace(at), name.to_string());
            let object = object(&namespace(at), &spec);
            model.policy_changed(&key, Policy::read(&object));
            reference.policies.insert(key, object);
        }
        Step::NoPolicy(at, name) => {
            let key = Key::namespaced(namespace(at), name.to_string());
            model.policy_changed(&key, None);
            reference.policies.remove(&key);
        }
        Step::Decide => {}
    }
}

fn name_server() -> Pod {
    let ports = BTreeMap::from([((UDP, "dns".to_owned()), 53)]);
    let labels = labels(1);
    Pod { namespace: "n0".to_owned(), labels, ports, address: DNS, is_subject: false }
}

/// Packets of both families, between all who may have an address and to the world.
fn packets() -> Vec<Packet> {
    let world: [IpAddr; 2] = [[198, 51, 100, 7].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()];
    let mut packets = Vec::new();
    for (family, world) in world.into_iter().enumerate() {
        let of = |low| both(low)[family];
        for from in (0..5).map(address).map(of) {
            for to in (0..5).map(address).chain([DNS]).map(of).chain([world]) {
                let ports = [(TCP, 80), (TCP, 81), (UDP, 81), (UDP, 53), (1, 0)];
                let about = |(protocol, port)| Packet { from, to, protocol, port };
                packets.extend(ports.map(about));
            }
        }
    }
    packets
}

proptest! {
    #[test]
    fn packets_pass_as_kubernetes_says(steps in proptest::collection::vec(step(), 1..25)) {
        let (mut model, mut reference) = (Model::default(), Reference::default());
        model.pod_changed("dns", Some(name_server()));
        reference.pods.insert("dns".to_owned(), name_server());
        let mut kernel = Kernel::default();
        for step in steps.into_iter().chain([Step::Decide]) {
            let decide = matches!(step, Step::Decide);
            take(step, &mut model, &mut reference);
            if !decide {
                continue;
            }
            model.decide().into_iter().for_each(|it| kernel.apply(it));
            prop_assert_eq!(&kernel.0, model.contents());
            prop_assert_eq!(model.decide(), vec![]);
            for packet in packets() {
                let (got, said) = (kernel.passes(packet), reference.passes(packet));
                // Only TCP goes to the world.
                let applies = low(packet.to).is_some() || packet.protocol == TCP;
                prop_assert!(!applies || got == said, "{packet:?}: {got}");
            }
        }
        // What a new table is made of is the same.
        let mut anew = Kernel::default();
        model.contents().changes().into_iter().for_each(|it| anew.apply(it));
        prop_assert_eq!(anew, kernel);
        // Nothing is left of what went.
        for (key, _) in std::mem::take(&mut reference.policies) {
            model.policy_changed(&key, None);
        }
        model.decide();
        let only_own = BTreeMap::from([(Set::Own, BTreeSet::new())]);
        prop_assert_eq!(model.contents(), &Contents { sets: only_own, ..Contents::default() });
    }
}

fn check(model: &mut Model, expected: Expect) {
    let changes = model.decide();
    expected.assert_eq(&changes.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join("\n"));
}

fn policy(model: &mut Model, name: &str, spec: Value) {
    let policy = Policy::read(&object("n0", &spec));
    model.policy_changed(&Key::namespaced("n0", name), policy);
}

#[test]
fn pods_come_and_go_in_few_changes() {
    let mut model = Model::default();
    let from =
        json!([{"from": [{"podSelector": {"matchLabels": {"b": "x"}}}], "ports": [{"port": 80}]}]);
    policy(
        &mut model,
        "p",
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": from}),
    );
    check(
        &mut model,
        expect![[r#"
        AddSet(Own)
        AddSet(Peers(2))
        AddChain(Policy(Ingress, 1))
        Append(Policy(Ingress, 1), [Accept(In(Peers(2)), Range { protocol: 6, first: 80, last: 80 })])"#]],
    );
    model.pod_changed("u0", Some(pod("n0", 0, 0, 0)));
    check(
        &mut model,
        expect![[r#"
        AddItems(Own, [Address(10.244.0.2)])
        AddChain(Pods(Ingress, 3))
        Append(Pods(Ingress, 3), [Ask(Policy(Ingress, 1)), Refuse])
        Lead(Ingress, [(10.244.0.2, 3)])"#]],
    );
    model.pod_changed("u1", Some(pod("n0", 1, 4, 0)));
    check(
        &mut model,
        expect![[r#"
        AddItems(Own, [Address(10.244.0.3)])
        AddItems(Peers(2), [Address(10.244.0.3)])
        Lead(Ingress, [(10.244.0.3, 3)])"#]],
    );
    model.pod_changed("u1", Some(pod("n0", 1, 0, 0)));
    check(&mut model, expect!["RemoveItems(Peers(2), [Address(10.244.0.3)])"]);
}

#[test]
fn a_direction_has_a_chain_of_its_own() {
    let mut model = Model::default();
    for number in [0, 1] {
        model.pod_changed(&format!("u{number}"), Some(pod("n0", number, 0, 0)));
    }
    policy(
        &mut model,
        "q",
        json!({"podSelector": {"matchLabels": {"b": "x"}},
        "policyTypes": ["Egress"]}),
    );
    check(
        &mut model,
        expect![[r#"
            AddSet(Own)
            AddChain(Policy(Egress, 1))
            AddChain(Policy(World, 1))"#]],
    );
    model.pod_changed("u1", Some(pod("n0", 1, 4, 0)));
    check(
        &mut model,
        expect![[r#"
            AddItems(Own, [Address(10.244.0.3)])
            AddChain(Pods(Egress, 2))
            AddChain(Pods(World, 2))
            Append(Pods(Egress, 2), [Ask(Policy(Egress, 1)), Refuse])
            Append(Pods(World, 2), [Ask(Policy(World, 1)), Refuse])
            Lead(Egress, [(10.244.0.3, 2)])
            Lead(World, [(10.244.0.3, 2)])"#]],
    );
    model.pod_changed("u0", None);
    model.pod_changed("u1", None);
    check(
        &mut model,
        expect![[r#"
            RemoveItems(Own, [Address(10.244.0.3)])
            Release(Egress, [10.244.0.3])
            Release(World, [10.244.0.3])
            RemoveChain(Pods(World, 2))
            RemoveChain(Pods(Egress, 2))"#]],
    );
}
