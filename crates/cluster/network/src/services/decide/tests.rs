//! What is decided, and that the table follows.

use std::sync::LazyLock;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::target::outside, *};
use crate::{directory, family::IpFamily};

fn nodes() -> &'static BTreeMap<u8, NodePlace> {
    static NODES: LazyLock<BTreeMap<u8, NodePlace>> = LazyLock::new(|| {
        let place = |name: &str, zone: &str| {
            let (name, zone) = (name.to_owned(), Some(zone.to_owned()));
            NodePlace { name, zone }
        };
        let places = [place("one", "a"), place("two", "b"), place("three", "a")];
        (0..).zip(places).collect()
    });
    &NODES
}

fn service(spec: Value) -> Service {
    let mut service: Service =
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.7".to_owned());
    service
}

fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "addressType": "IPv4", "metadata": {"name": "web-1"},
        "ports": ports, "endpoints": endpoints,
    }))
    .unwrap()
}

fn run(installed: &Installed, service: Option<&Service>, slices: &[EndpointSlice]) -> Decision {
    let key = Key::namespaced("shop", "web");
    let frontends = service.map(|it| directory::frontends(it, IpFamily::V4, &layout().addresses));
    let mut services: BTreeMap<_, _> =
        frontends.into_iter().flatten().map(|(it, port)| (it, Some(port))).collect();
    for at in installed.frontends() {
        services.entry(at).or_default();
    }
    let place = |(at, port): (Frontend, Option<_>)| Place {
        at,
        service: service.zip(port).map(|(service, port)| (&key, service, port)),
        slices: slices.iter().collect(),
        pod: None,
        nodes: nodes(),
    };
    decide(&Seen {
        installed,
        places: services.into_iter().map(place).collect(),
        api: "10.244.0.1:6443".parse().unwrap(),
        layout: &layout(),
    })
}

fn layout() -> Layout {
    let (egress_port, local_ports) = (15001, vec![6443]);
    let addresses = crate::addresses::Addresses::default();
    Layout { family: IpFamily::V4, addresses, egress_port, local_ports }
}

fn whose(clients: Clients) -> String {
    match clients {
        Clients::All => String::new(),
        Clients::OfNode(node) => format!(" from {}", nodes()[&node].name),
    }
}

fn picks(picker: Option<Picker>) -> String {
    picker.map_or("-".to_owned(), Picker::chain)
}

fn show(decision: &Decision) -> String {
    let mut lines = Vec::new();
    for unit in &decision.units {
        let mut moves: BTreeMap<String, usize> = BTreeMap::new();
        for change in unit {
            let name = |it: Option<SocketAddrV4>| it.map_or("-".into(), |it| it.to_string());
            let line = match change {
                Change::Slot {
                    entry: Entry { at: Frontend { address, transport, port }, clients },
                    from,
                    to,
                    ..
                } => {
                    let (from, to) = (name(*from), name(*to));
                    let whose = whose(*clients);
                    format!("{address}:{port}/{transport:?}{whose} {from} > {to}")
                }
                Change::Port {
                    entry: Entry { at: Frontend { address, transport, port }, clients },
                    to,
                    ..
                } => {
                    format!("{address}:{port}/{transport:?}{} {}", whose(*clients), picks(*to))
                }
                Change::AddPicker(it) => format!("+ {}", picks(Some(*it))),
                Change::RemovePicker(it) => format!("- {}", picks(Some(*it))),
                Change::AddMember(_, it) => format!("+ {it}"),
                Change::RemoveMember(_, it) => format!("- {it}"),
                other => format!("{other:?}"),
            };
            *moves.entry(line).or_default() += 1;
        }
        lines.extend(moves.iter().map(|(line, count)| format!("{line} x{count}")));
    }
    lines.extend(decision.stale.iter().map(|it| format!("{it:?}")));
    lines.join("\n")
}

#[test]
fn endpoints_on_the_host_are_reached_through_the_proxy() {
    let service = service(json!({"ports": [
        {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"},
    ]}));
    let both =
        json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let endpoints = json!([{"addresses": ["10.244.0.1"]}, {"addresses": ["10.244.0.2"]}]);
    let slices = [slice(both, endpoints)];
    let decision = run(&Installed::default(), Some(&service), &slices);
    expect![[r#"
        + pick-2 x1
        AddHairpin(10.244.0.1) x1
        AddHairpin(10.244.0.2) x1
        10.96.0.7:80/Tcp - > 10.244.0.1:15001 x1
        10.96.0.7:80/Tcp - > 10.244.0.2:8080 x1
        10.96.0.7:80/Tcp pick-2 x1
        10.96.0.7:53/Udp - > 10.244.0.1:53 x1
        10.96.0.7:53/Udp - > 10.244.0.2:53 x1
        10.96.0.7:53/Udp pick-2 x1"#]]
    .assert_eq(&show(&decision));
    let key = Key::namespaced("shop", "web");
    let of = |number: u16, slices: &[EndpointSlice]| {
        let address = Ipv4Addr::new(10, 96, 0, 7);
        let at = Frontend { address, transport: Transport::Tcp, port: number };
        let frontends = directory::frontends(&service, IpFamily::V4, &layout().addresses);
        let port = frontends.iter().find_map(|(it, port)| (*it == at).then_some(*port));
        let service = port.map(|port| (&key, &service, port));
        let slices = slices.iter().collect();
        outside(&Place { at, service, slices, pod: None, nodes: nodes() }, &layout())
    };
    assert_eq!(of(80, &slices), ["10.244.0.1:8080".parse().unwrap()]);
    assert_eq!(of(53, &slices), []);
    assert_eq!(of(81, &slices), []);
    // What the cluster serves itself is no port of the host; who is on the way out comes last.
    let ports = json!([{"name": "http", "port": 6443}]);
    assert_eq!(of(80, &[slice(ports, json!([{"addresses": ["10.244.0.1"]}]))]), []);
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    let endpoints = json!([{"addresses": ["10.244.0.1"], "conditions": draining}]);
    let leaving = [slice(json!([{"name": "http", "port": 1}]), endpoints)];
    assert_eq!(of(80, &leaving), ["10.244.0.1:1".parse().unwrap()]);
}

/// Decides about the same service as it is described by one state after the other.
fn check(states: &[(Value, Value, Value)], expected: Expect) {
    let mut installed = Installed::default();
    let mut shown = Vec::new();
    for (spec, ports, endpoints) in states {
        let slices = [slice(ports.clone(), endpoints.clone())];
        let decision = run(&installed, Some(&service(spec.clone())), &slices);
        shown.push(show(&decision));
        installed.done(decision);
    }
    expected.assert_eq(&shown.join("\n--\n"));
}

fn pod(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}})
}

#[test]
fn two_ports_by_name() {
    check(
        &[(
            json!({"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
            json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"},
                   {"name": "dns", "port": 5354, "protocol": "TCP"}]),
            json!([pod("10.244.0.2")]),
        )],
        expect![[r#"
            + pick-1 x1
            AddHairpin(10.244.0.2) x1
            10.96.0.7:80/Tcp - > 10.244.0.2:8080 x1
            10.96.0.7:80/Tcp pick-1 x1
            10.96.0.7:53/Udp - > 10.244.0.2:5353 x1
            10.96.0.7:53/Udp pick-1 x1"#]],
    );
}

#[test]
fn a_draining_endpoint_serves_only_when_no_other_does() {
    let draining = json!({"addresses": ["10.244.0.2"],
        "conditions": {"ready": false, "serving": true, "terminating": true}});
    let down = json!({"addresses": ["10.244.0.4"], "conditions": {"ready": false}});
    let spec = json!({"ports": [{"port": 80}]});
    let ports = json!([{"name": "", "port": 80}]);
    check(
        &[
            (spec.clone(), ports.clone(), json!([pod("10.244.0.2"), down])),
            (spec.clone(), ports.clone(), json!([draining])),
            (spec.clone(), ports.clone(), json!([draining, pod("10.244.0.3")])),
            (spec, ports, json!([])),
        ],
        expect![[r#"
            + pick-1 x1
            AddHairpin(10.244.0.2) x1
            10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp pick-1 x1
            --

            --
            AddHairpin(10.244.0.3) x1
            10.96.0.7:80/Tcp 10.244.0.2:80 > 10.244.0.3:80 x1
            RemoveHairpin(10.244.0.2) x1
            --
            10.96.0.7:80/Tcp - x1
            10.96.0.7:80/Tcp 10.244.0.3:80 > - x1
            RemoveHairpin(10.244.0.3) x1"#]],
    );
}

#[test]
fn udp_flows_of_a_removed_endpoint_are_forgotten() {
    let spec = json!({"ports": [{"port": 53, "protocol": "UDP"}]});
    let ports = json!([{"port": 53, "protocol": "UDP"}]);
    check(
        &[
            (spec.clone(), ports.clone(), json!([pod("10.244.0.2"), pod("10.244.0.3")])),
            (spec, ports, json!([pod("10.244.0.3")])),
        ],
        expect![[r#"
            + pick-2 x1
            AddHairpin(10.244.0.2) x1
            AddHairpin(10.244.0.3) x1
            10.96.0.7:53/Udp - > 10.244.0.2:53 x1
            10.96.0.7:53/Udp - > 10.244.0.3:53 x1
            10.96.0.7:53/Udp pick-2 x1
            --
            + pick-1 x1
            10.96.0.7:53/Udp 10.244.0.2:53 > 10.244.0.3:53 x1
            10.96.0.7:53/Udp 10.244.0.3:53 > - x1
            10.96.0.7:53/Udp pick-1 x1
            RemoveHairpin(10.244.0.2) x1
            Flow { service: 10.96.0.7:53, endpoint: 10.244.0.2:53 }"#]],
    );
}

#[test]
fn clients_are_remembered_as_long_as_the_service_says() {
    let ports = json!([{"port": 80}]);
    let spec = |affinity: Value, config: Value| json!({"ports": [{"port": 80}], "sessionAffinity": affinity, "sessionAffinityConfig": config});
    let both = json!([pod("10.244.0.2"), pod("10.244.0.3")]);
    check(
        &[
            (
                spec(json!("ClientIP"), json!({"clientIP": {"timeoutSeconds": 5}})),
                ports.clone(),
                both.clone(),
            ),
            (spec(json!("ClientIP"), json!(null)), ports.clone(), json!([pod("10.244.0.3")])),
            (spec(json!("None"), json!(null)), ports, both),
        ],
        expect![[r#"
            + pick-2-for-5s x1
            AddHairpin(10.244.0.2) x1
            AddHairpin(10.244.0.3) x1
            + 10.244.0.2:80 x1
            + 10.244.0.3:80 x1
            10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp - > 10.244.0.3:80 x1
            10.96.0.7:80/Tcp pick-2-for-5s x1
            --
            + pick-1-for-10800s x1
            - 10.244.0.2:80 x1
            10.96.0.7:80/Tcp 10.244.0.2:80 > 10.244.0.3:80 x1
            10.96.0.7:80/Tcp 10.244.0.3:80 > - x1
            10.96.0.7:80/Tcp pick-1-for-10800s x1
            - pick-2-for-5s x1
            RemoveHairpin(10.244.0.2) x1
            --
            + pick-2 x1
            AddHairpin(10.244.0.2) x1
            - 10.244.0.3:80 x1
            10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp pick-2 x1
            - pick-1-for-10800s x1"#]],
    );
}

#[test]
fn a_port_of_the_host_leads_to_its_pod_for_want_of_a_service() {
    let at =
        Frontend { address: Ipv4Addr::new(10, 244, 0, 1), transport: Transport::Tcp, port: 8080 };
    let pod: Option<SocketAddrV4> = Some("10.244.0.9:80".parse().unwrap());
    let mut installed = Installed::default();
    let mut shown = Vec::new();
    for pod in [pod, None] {
        let places = vec![Place { at, service: None, slices: Vec::new(), pod, nodes: nodes() }];
        let (api, layout) = ("10.244.0.1:6443".parse().unwrap(), &layout());
        let decision = decide(&Seen { installed: &installed, places, api, layout });
        shown.push(show(&decision));
        installed.done(decision);
        // Else the pod would never be asked to end.
        assert!(!installed.is_ready(Ipv4Addr::new(10, 244, 0, 9)));
    }
    expect![[r#"
        + pick-1 x1
        AddHairpin(10.244.0.9) x1
        10.244.0.1:8080/Tcp - > 10.244.0.9:80 x1
        10.244.0.1:8080/Tcp pick-1 x1
        --
        10.244.0.1:8080/Tcp - x1
        10.244.0.1:8080/Tcp 10.244.0.9:80 > - x1
        RemoveHairpin(10.244.0.9) x1"#]]
    .assert_eq(&shown.join("\n--\n"));
}

fn located(address: &str, node: &str, hints: Value) -> Value {
    json!({"addresses": [address], "nodeName": node, "hints": hints})
}

#[test]
fn a_local_service_leads_pods_to_their_own_node() {
    let ports = json!([{"port": 80}]);
    let spec = |policy: &str| json!({"ports": [{"port": 80}], "internalTrafficPolicy": policy});
    let both = json!([
        located("10.244.0.2", "one", json!(null)),
        located("10.244.16.2", "two", json!(null))
    ]);
    check(
        &[(spec("Local"), ports.clone(), both.clone()), (spec("Cluster"), ports, both)],
        expect![[r#"
            + pick-1-of-node-0 x1
            + pick-1-of-node-1 x1
            + pick-1-of-node-2 x1
            + pick-2-by-node x1
            AddHairpin(10.244.0.2) x1
            AddHairpin(10.244.16.2) x1
            10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp - > 10.244.16.2:80 x1
            10.96.0.7:80/Tcp from one - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp from one pick-1-of-node-0 x1
            10.96.0.7:80/Tcp from three pick-1-of-node-2 x1
            10.96.0.7:80/Tcp from two - > 10.244.16.2:80 x1
            10.96.0.7:80/Tcp from two pick-1-of-node-1 x1
            10.96.0.7:80/Tcp pick-2-by-node x1
            --
            + pick-2 x1
            10.96.0.7:80/Tcp from one - x1
            10.96.0.7:80/Tcp from one 10.244.0.2:80 > - x1
            10.96.0.7:80/Tcp from three - x1
            10.96.0.7:80/Tcp from two - x1
            10.96.0.7:80/Tcp from two 10.244.16.2:80 > - x1
            10.96.0.7:80/Tcp pick-2 x1
            - pick-1-of-node-0 x1
            - pick-1-of-node-1 x1
            - pick-1-of-node-2 x1
            - pick-2-by-node x1"#]],
    );
}

#[test]
fn hints_lead_to_the_same_node_then_the_same_zone() {
    let near = |node: &str, zone: &str| json!({"forNodes": [{"name": node}], "forZones": [{"name": zone}]});
    let one = located("10.244.0.2", "one", near("one", "a"));
    let two = located("10.244.16.2", "two", near("two", "b"));
    let ports = json!([{"port": 80}]);
    let spec = json!({"ports": [{"port": 80}]});
    let unsure = located("10.244.16.3", "two", json!(null));
    check(
        &[
            (spec.clone(), ports.clone(), json!([one, two])),
            (spec, ports, json!([one, two, unsure])),
        ],
        expect![[r#"
            + pick-1-of-node-0 x1
            + pick-1-of-node-1 x1
            + pick-1-of-node-2 x1
            + pick-2-by-node x1
            AddHairpin(10.244.0.2) x1
            AddHairpin(10.244.16.2) x1
            10.96.0.7:80/Tcp - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp - > 10.244.16.2:80 x1
            10.96.0.7:80/Tcp from one - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp from one pick-1-of-node-0 x1
            10.96.0.7:80/Tcp from three - > 10.244.0.2:80 x1
            10.96.0.7:80/Tcp from three pick-1-of-node-2 x1
            10.96.0.7:80/Tcp from two - > 10.244.16.2:80 x1
            10.96.0.7:80/Tcp from two pick-1-of-node-1 x1
            10.96.0.7:80/Tcp pick-2-by-node x1
            --
            + pick-4 x1
            AddHairpin(10.244.16.3) x1
            10.96.0.7:80/Tcp - > 10.244.16.3:80 x1
            10.96.0.7:80/Tcp from one - x1
            10.96.0.7:80/Tcp from one 10.244.0.2:80 > - x1
            10.96.0.7:80/Tcp from three - x1
            10.96.0.7:80/Tcp from three 10.244.0.2:80 > - x1
            10.96.0.7:80/Tcp from two - x1
            10.96.0.7:80/Tcp from two 10.244.16.2:80 > - x1
            10.96.0.7:80/Tcp pick-4 x1
            - pick-1-of-node-0 x1
            - pick-1-of-node-1 x1
            - pick-1-of-node-2 x1
            - pick-2-by-node x1"#]],
    );
}

#[test]
fn draining_is_not_ready() {
    let mut installed = Installed::default();
    let web = service(json!({"ports": [{"port": 80}]}));
    let address = Ipv4Addr::new(10, 244, 0, 2);
    for (conditions, expected) in [
        (json!({}), true),
        (json!({"ready": false, "serving": true, "terminating": true}), false),
        (json!({"ready": false}), false),
    ] {
        let endpoints = json!([{"addresses": [address], "conditions": conditions}]);
        let slices = [slice(json!([{"port": 80}]), endpoints)];
        installed.done(run(&installed, Some(&web), &slices));
        assert_eq!(installed.is_ready(address), expected);
    }
}

/// What a table has after the changes; every change must fit what is there.
fn change(contents: &mut Contents, units: &[Vec<Change>]) {
    for change in units.iter().flatten() {
        match *change {
            Change::AddPicker(picker) => assert!(contents.pickers.insert(picker)),
            Change::RemovePicker(picker) => {
                assert!(contents.pickers.remove(&picker));
                assert!(!contents.ports.values().any(|it| it.picker == Some(picker)));
            }
            Change::Port { entry, from, to } => {
                assert!(to.is_none_or(|it| contents.pickers.contains(&it)));
                let port = contents.ports.entry(entry).or_default();
                assert_eq!(std::mem::replace(&mut port.picker, to), from);
            }
            Change::Slot { entry, slot, from, to } => {
                let slots = &mut contents.ports.entry(entry).or_default().slots;
                let before = match to {
                    None => slots.remove(&slot),
                    Some(it) => slots.insert(slot, it),
                };
                assert_eq!(before, from);
            }
            Change::AddMember(at, member) => {
                assert!(contents.ports.entry(at.all()).or_default().members.insert(member));
            }
            Change::RemoveMember(at, member) => {
                assert!(contents.ports.entry(at.all()).or_default().members.remove(&member));
            }
            Change::AddHairpin(address) => assert!(contents.hairpin.insert(address)),
            Change::RemoveHairpin(address) => assert!(contents.hairpin.remove(&address)),
        }
    }
    contents.ports.retain(|_, port| *port != Port::default());
}

prop_compose! {
    fn any_state()(
        (exists, sticky, udp, local) in any::<(bool, bool, bool, bool)>(), timeout in 1..3_u32,
        pods in proptest::collection::vec((2..9_u8, 0..3_u8, 0..4_usize), 0..6), hinted: bool,
    ) -> (Option<Service>, EndpointSlice) {
        let affinity = if sticky { "ClientIP" } else { "None" };
        let protocol = if udp { "UDP" } else { "TCP" };
        let spec = json!({"sessionAffinity": affinity,
            "internalTrafficPolicy": if local { "Local" } else { "Cluster" },
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}},
            "ports": [{"name": "a", "port": 80, "protocol": protocol}, {"name": "b", "port": 81}]});
        let names = ["one", "two", "three", "four"];
        let endpoints: Vec<Value> = pods.iter().map(|&(host, state, node)| {
            let (name, zone) = (names[node], ["a", "b"][node % 2]);
            let hints = if hinted { json!({"forZones": [{"name": zone}]}) } else { json!(null) };
            json!({
                "addresses": [format!("10.244.0.{host}")], "nodeName": name, "hints": hints,
                "conditions": {"ready": state == 0, "serving": state == 1, "terminating": true},
            })
        }).collect();
        let ports = json!([{"name": "a", "port": 1, "protocol": protocol}, {"name": "b", "port": 2}]);
        (exists.then(|| service(spec)), slice(ports, endpoints.into()))
    }
}

proptest! {
    #[test]
    fn converges_and_the_table_follows(states in proptest::collection::vec(any_state(), 1..8)) {
        let mut installed = Installed::default();
        let mut contents = Contents::default();
        for (service, slice) in &states {
            let slices = [slice.clone()];
            let decision = run(&installed, service.as_ref(), &slices);
            change(&mut contents, &decision.units);
            installed.done(decision);
            prop_assert_eq!(run(&installed, service.as_ref(), &slices), Decision::default());
            let endpoints: BTreeSet<_> = installed.endpoints.keys().copied().collect();
            prop_assert_eq!(&contents.hairpin, &endpoints);
            for (entry, port) in &contents.ports {
                let same = contents.ports.iter().filter(|(it, _)| it.at == entry.at);
                let members = same.flat_map(|(_, it)| it.slots.values().copied()).collect();
                let remembers = port.picker.unwrap().remembers() && entry.clients == Clients::All;
                let nobody = BTreeSet::new();
                prop_assert_eq!(&port.members, if remembers { &members } else { &nobody });
                prop_assert!(contents.pickers.contains(&port.picker.unwrap()));
            }
            let used = |it: &Picker| contents.ports.values().any(|port| port.picker == Some(*it));
            prop_assert!(contents.pickers.iter().all(|it| used(it) || !it.is_rare()));
            let found = Installed::found(contents.clone());
            prop_assert_eq!(&found.pickers, &installed.pickers);
            prop_assert_eq!(found.endpoints, installed.endpoints.clone());
        }
    }
}
