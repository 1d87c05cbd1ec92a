//! NetworkPolicies: which packets pass, and which are refused at once.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Test,
    api::{NAMESPACES, PODS, POLICIES},
    namespace::{self, OUTSIDE, PATIENCE, ask, exchange, ping, udp},
    world::{Pod, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("what_no_policy_allows_is_refused_at_once", what_no_policy_allows_is_refused_at_once),
    ("peers_are_selected_by_labels", peers_are_selected_by_labels),
    ("ports_have_names_and_ranges", ports_have_names_and_ranges),
    ("egress_is_restricted_everywhere", egress_is_restricted_everywhere),
    ("a_policy_ends_connections", a_policy_ends_connections),
    ("policies_outlast_the_process", policies_outlast_the_process),
    ("a_pod_is_restricted_before_it_begins", a_pod_is_restricted_before_it_begins),
];

/// Port of the name server.
const DNS: &str = "10.96.0.10:53";

/// A pod of which the API knows.
pub(crate) fn pod(world: &World, name: &'static str, labels: Value) -> Pod {
    pod_in(world, "shop", name, labels)
}

fn pod_in(world: &World, namespace: &str, name: &'static str, labels: Value) -> Pod {
    let metadata = json!({"namespace": namespace, "uid": name, "labels": labels});
    let ports = json!([{"name": "web", "containerPort": 80}]);
    let spec = json!({"containers": [{"name": "main", "ports": ports}]});
    world.api.put(PODS, name, json!({"metadata": metadata, "spec": spec}));
    world.pod(name)
}

pub(crate) fn policy(world: &World, name: &str, spec: Value) {
    world.api.put(POLICIES, name, json!({"spec": spec}));
}

fn namespaces(world: &World) {
    for name in ["shop", "tools", "kube-system"] {
        let labels = json!({"kubernetes.io/metadata.name": name});
        world.api.put(NAMESPACES, name, json!({"metadata": {"labels": labels}}));
    }
}

fn at(pod: &Pod, port: u16) -> String {
    format!("{}:{port}", pod.address)
}

pub(crate) fn connect(from: &Pod, address: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().unwrap();
    namespace::inside(&from.netns, || TcpStream::connect_timeout(&address, PATIENCE).map(drop))
}

pub(crate) fn is_refused<T>(answer: &io::Result<T>) -> bool {
    answer.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
}

fn what_no_policy_allows_is_refused_at_once() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    policy(&world, "deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    let started = Instant::now();
    assert!(is_refused(&ask(&a.netns, "10.96.0.7:80")));
    let error = exchange(&udp(&a.netns, "10.96.0.7:80"), b"?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    // A pod reaches itself, directly and through a service; the node reaches pods; pods send.
    assert_eq!(ask(&b.netns, "10.96.0.7:80").unwrap(), "b 10.244.0.1");
    assert!(ask(&b.netns, &at(&b, 80)).is_ok());
    assert!(namespace::read("10.96.0.7:80".parse().unwrap()).is_ok());
    connect(&a, DNS).unwrap();
    world.api.delete(POLICIES, "deny");
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
}

fn peers_are_selected_by_labels() {
    let world = World::start();
    namespaces(&world);
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    let tool = pod_in(&world, "tools", "tool", json!({"role": "client"}));
    let from = json!([{"podSelector": {"matchLabels": {"role": "client"}}}]);
    let spec = |from: &Value| {
        json!({"podSelector": {"matchLabels": {"app": "b"}},
        "policyTypes": ["Ingress"], "ingress": [{"from": from}]})
    };
    policy(&world, "some", spec(&from));
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    assert!(is_refused(&ask(&tool.netns, &at(&b, 80))), "selected in another namespace");
    let labelled = |labels: Value| {
        let metadata = json!({"uid": "a", "labels": labels});
        world.api.put(PODS, "a", json!({"metadata": metadata, "spec": {"containers": []}}));
    };
    labelled(json!({"role": "client"}));
    until(|| ask(&a.netns, &at(&b, 80)), Result::is_ok);
    labelled(json!({}));
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "tools"}});
    policy(&world, "some", spec(&json!([{"namespaceSelector": selector}])));
    until(|| ask(&tool.netns, &at(&b, 80)), Result::is_ok);
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    world.api.put(NAMESPACES, "tools", json!({"metadata": {"labels": {"other": "x"}}}));
    until(|| ask(&tool.netns, &at(&b, 80)), is_refused);
    let block = json!({"cidr": "10.244.0.0/16", "except": [format!("{}/32", a.address)]});
    policy(&world, "some", spec(&json!([{"ipBlock": block}])));
    until(|| ask(&tool.netns, &at(&b, 80)), Result::is_ok);
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
}

fn ports_have_names_and_ranges() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    for port in [81, 8000, 8099, 8100] {
        namespace::serve(&b.netns, port, "more");
    }
    let ports = json!([{"port": "web"}, {"port": 8000, "endPort": 8099}]);
    let spec =
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]});
    policy(&world, "ports", spec);
    until(|| ask(&a.netns, &at(&b, 81)), is_refused);
    assert!(is_refused(&ask(&a.netns, &at(&b, 8100))));
    for port in [80, 8000, 8099] {
        ask(&a.netns, &at(&b, port)).unwrap();
    }
    let error = exchange(&udp(&a.netns, &at(&b, 80)), b"?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "the port of this name is TCP's");
    let ports = json!([{"port": "web", "protocol": "UDP"}, {"protocol": "UDP", "port": 80}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]});
    policy(&world, "egress", spec);
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
}

fn egress_is_restricted_everywhere() {
    let world = World::start();
    namespaces(&world);
    let (a, b) = (pod(&world, "a", json!({"app": "a"})), pod(&world, "b", json!({})));
    let outside = inside_host(7100);
    let api = "10.244.0.1:6443";
    let _served_here = TcpListener::bind(api).unwrap();
    until(|| ask(&a.netns, &outside), Result::is_ok);
    connect(&a, api).unwrap();
    let spec = |egress: Value| {
        json!({"podSelector": {"matchLabels": {"app": "a"}},
        "policyTypes": ["Egress"], "egress": egress})
    };
    let datagrams = || exchange(&udp(&a.netns, &outside), b"?");
    namespace::serve_udp(namespace::host(), 7100, "host");
    let flow = udp(&a.netns, &outside);
    assert_eq!(exchange(&flow, b"?").unwrap(), b"host");
    policy(&world, "egress", spec(json!([])));
    until(|| ask(&a.netns, &outside), is_refused);
    assert_eq!(datagrams().unwrap_err().kind(), io::ErrorKind::HostUnreachable);
    assert_eq!(exchange(&flow, b"?").unwrap_err().kind(), io::ErrorKind::HostUnreachable);
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    assert!(is_refused(&connect(&a, DNS)));
    assert!(is_refused(&connect(&a, api)));
    let error = exchange(&udp(&a.netns, DNS), b"?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    // Others are not concerned, and the node's connections are answered.
    ask(&b.netns, &outside).unwrap();
    connect(&b, DNS).unwrap();
    assert!(namespace::read(at(&a, 80).parse().unwrap()).is_ok());
    assert!(ask(&b.netns, &at(&a, 80)).is_ok());
    let name = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    let dns = json!({"to": [{"namespaceSelector": name,
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": "dns-tcp"}]});
    let allowed = [
        dns,
        json!({"ports": [{"port": 53, "protocol": "TCP"}]}),
        json!({"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}),
        json!({"to": [{"namespaceSelector": {}}]}),
    ];
    for rule in allowed {
        policy(&world, "egress", spec(json!([rule])));
        until(|| connect(&a, DNS), Result::is_ok);
        assert!(is_refused(&ask(&a.netns, &outside)), "{rule}");
        policy(&world, "egress", spec(json!([])));
        until(|| connect(&a, DNS), is_refused);
    }
    let gateway = json!([{"ipBlock": {"cidr": "10.244.0.1/32"}}]);
    policy(&world, "egress", spec(json!([{"to": gateway, "ports": [{"port": 6443}]}])));
    until(|| connect(&a, api), Result::is_ok);
    assert!(is_refused(&ask(&a.netns, &outside)));
    let block = json!([{"ipBlock": {"cidr": format!("{OUTSIDE}/24")}}]);
    for rule in [json!({"to": block}), json!({"to": block, "ports": [{"port": 7100}]}), json!({})] {
        policy(&world, "egress", spec(json!([rule])));
        until(|| ask(&a.netns, &outside), Result::is_ok);
        // A rule without a protocol is one of TCP.
        assert_eq!(datagrams().is_ok(), rule["ports"].is_null(), "{rule}");
        assert_eq!(ping(&a.netns, OUTSIDE, 1, b"").is_ok(), rule["ports"].is_null(), "{rule}");
        policy(&world, "egress", spec(json!([{"to": block, "ports": [{"port": 7101}]}])));
        until(|| ask(&a.netns, &outside), is_refused);
    }
}

/// The address of a server on the host.
fn inside_host(port: u16) -> String {
    namespace::serve(namespace::host(), port, "host");
    format!("{OUTSIDE}:{port}")
}

fn a_policy_ends_connections() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({})));
    let listener = namespace::inside(&b.netns, || TcpListener::bind(("0.0.0.0", 90)).unwrap());
    let address: SocketAddr = at(&b, 90).parse().unwrap();
    let mut client = namespace::inside(&a.netns, || TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    for side in [&client, &server] {
        side.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut byte = [0];
    // What is restricted is who may begin: answers pass.
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": 90}]}], "egress": [{"ports": [{"port": 90}]}]});
    policy(&world, "some", spec);
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    server.write_all(b"s").unwrap();
    client.read_exact(&mut byte).unwrap();
    client.write_all(b"c").unwrap();
    server.read_exact(&mut byte).unwrap();
    policy(&world, "some", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    until(|| connect(&a, &at(&b, 90)), is_refused);
    client.write_all(b"c").unwrap();
    let error = client.read_exact(&mut byte).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn policies_outlast_the_process() {
    let mut world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    let deny = json!({"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]});
    policy(&world, "deny", deny);
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    world.stop();
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    world.resume();
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    ask(&b.netns, &at(&a, 80)).unwrap();
    world.stop();
    policy(
        &world,
        "deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}]}),
    );
    world.resume();
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    ask(&b.netns, &at(&a, 80)).unwrap();
    world.stop();
    world.api.delete(POLICIES, "deny");
    world.resume();
    ask(&a.netns, &at(&b, 80)).unwrap();
}

/// As many policies and pods as make up a crowd.
const CROWD: usize = 500;

fn a_pod_is_restricted_before_it_begins() {
    let world = World::start();
    namespaces(&world);
    let a = pod(&world, "a", json!({}));
    for index in 0..CROWD {
        let address = format!("10.244.{}.{}", 100 + index / 250, 1 + index % 250);
        let from = json!([{"podSelector": {"matchLabels": {"number": index.to_string()}}},
            {"ipBlock": {"cidr": format!("{address}/32")}}]);
        let ports = json!([{"port": 1000 + index}]);
        policy(
            &world,
            &format!("p{index}"),
            json!({"podSelector": {"matchLabels": {"app": "crowd"}},
            "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": from, "ports": ports}],
            "egress": [{}]}),
        );
    }
    // What has just been written is on its way to the network, as it is in every cluster.
    let first = pod(&world, "first", json!({"app": "crowd"}));
    until(|| ask(&a.netns, &at(&first, 80)), is_refused);
    let restricted = pod(&world, "b", json!({"app": "crowd"}));
    assert!(is_refused(&ask(&a.netns, &at(&restricted, 80))));
    let names: Vec<String> = (0..CROWD).map(|it| format!("crowd{it}")).collect();
    let put = |name: &String, number: usize| {
        let labels = json!({"app": "crowd", "number": number.to_string()});
        let metadata = json!({"uid": name, "labels": labels});
        world.api.put(PODS, name, json!({"metadata": metadata, "spec": {"containers": []}}));
    };
    names.iter().enumerate().for_each(|(number, name)| put(name, number));
    let mut took = Vec::new();
    let few = CROWD / 10;
    for (number, name) in names.iter().enumerate().take(few) {
        let netns = namespace::new();
        let started = Instant::now();
        world.attach(name, &netns);
        took.push(started.elapsed());
        put(name, number);
    }
    took.sort();
    let (middle, most) = (took[few / 2], took[few - 1]);
    println!("pod connected among {CROWD} policies: p50 {middle:?}, max {most:?}");
    assert!(middle < Duration::from_millis(500), "{took:?}");
}
