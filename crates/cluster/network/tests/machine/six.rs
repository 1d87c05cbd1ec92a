//! IPv6 beside IPv4: pods among themselves, and Services of one family and of both.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Test,
    cuts::SILENCE,
    namespace::{self, ask, exchange, udp},
    world::{Pod, Traffic, World, eventually, prefix, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("pods_reach_each_other_by_ipv6", pods_reach_each_other),
    ("a_service_of_both_families_leads_to_its_endpoints", a_service_of_both_families),
    ("a_service_of_ipv6_alone_is_reached_by_it", a_service_of_ipv6_alone),
    ("without_endpoints_ipv6_is_refused_at_once", without_endpoints),
    ("ipv6_endpoints_are_swapped_without_a_failure", endpoints_are_swapped),
    ("udp_flows_leave_a_removed_ipv6_endpoint", udp_flows_leave),
    ("session_affinity_holds_for_ipv6", session_affinity),
    ("a_restart_interrupts_no_ipv6_traffic", a_restart),
    ("nobody_has_another_pods_ipv6_address", nobody_has_anothers_address),
];

/// The IPv6 address of the Service.
const WEB: &str = "fd12:3456:789a::7";
/// Its port.
const WEB_80: &str = "[fd12:3456:789a::7]:80";

fn both() -> Value {
    json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", WEB]})
}

fn at(pod: &Pod) -> String {
    SocketAddr::from((pod.v6(), 80)).to_string()
}

fn gateway() -> Ipv6Addr {
    prefix().at("10.244.0.1".parse().unwrap())
}

fn pods_reach_each_other() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod_on(2, "b"));
    assert_eq!(ask(&a.netns, &at(&b)).unwrap(), format!("b {}", a.v6()));
    assert_eq!(ask(&b.netns, &at(&a)).unwrap(), format!("a {}", b.v6()));
    assert_eq!(exchange(&udp(&a.netns, &at(&b)), b"?").unwrap(), b"b");
    // The cluster itself, too.
    let here = namespace::read(at(&b).parse().unwrap()).unwrap();
    assert_eq!(here, format!("b {}", gateway()));
    // An address of the range that nobody has is refused.
    ask(&a.netns, "[fd12:3456:789a::af4:9999]:80").unwrap_err();
    world.detach("b");
    until(|| ask(&a.netns, &at(&b)), Result::is_err);
}

fn a_service_of_both_families() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let mut spec = both();
    spec["ports"] = json!([
        {"name": "tcp", "port": 80, "nodePort": 30_080}, {"name": "udp", "port": 80, "protocol": "UDP"},
    ]);
    world.service_with("web", spec, json!({}));
    world.endpoints("web", &[&b]);
    world.endpoints_v6("web", &[&b, &c]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let six: BTreeSet<String> = (0..40).map(|_| ask(&a.netns, WEB_80).unwrap()).collect();
    let expected = [format!("b {}", a.v6()), format!("c {}", a.v6())];
    assert_eq!(six, BTreeSet::from(expected));
    assert_eq!(ask(&a.netns, "10.96.0.7:80").unwrap(), format!("b {}", a.address));
    let here = namespace::read(WEB_80.parse().unwrap()).unwrap();
    assert!(here.ends_with(&format!(" {}", gateway())), "{here}");
    let node_port = SocketAddr::from((gateway(), 30_080)).to_string();
    assert!(ask(&a.netns, &node_port).unwrap().ends_with(&a.v6().to_string()));
    // An endpoint that asks itself.
    world.endpoints_v6("web", &[&a]);
    let own = format!("a {}", gateway());
    until(|| ask(&a.netns, WEB_80).unwrap_or_default(), |it| *it == own);
    assert_eq!(exchange(&udp(&a.netns, WEB_80), b"?").unwrap(), b"a");
}

fn a_service_of_ipv6_alone() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let ports = json!([{"name": "tcp", "port": 80, "nodePort": 30_080}]);
    let spec = json!({"clusterIP": WEB, "clusterIPs": [WEB], "ports": ports});
    world.service_with("web", spec, json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    // From the host, by the port that is open there, and so from a pod.
    let published = || ask(namespace::host(), "127.0.0.1:30080").unwrap_or_default();
    let answer = format!("b {}", gateway());
    until(published, |it| *it == answer);
    assert_eq!(ask(&a.netns, "10.244.0.1:30080").unwrap(), answer);
    // It becomes one of both, and one of IPv4 alone.
    world.change(
        "web",
        &json!({"clusterIP": WEB, "clusterIPs": [WEB, "10.96.0.7"], "ports": ports}),
    );
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    assert!(ask(&a.netns, WEB_80).is_ok());
    let spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": ports});
    world.change("web", &spec);
    until(|| ask(&a.netns, WEB_80), Result::is_err);
    assert!(ask(&a.netns, "10.96.0.7:80").is_ok());
}

fn without_endpoints() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let refused = || {
        let started = Instant::now();
        let error = ask(&a.netns, WEB_80).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = exchange(&udp(&a.netns, WEB_80), b"?").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = namespace::read(WEB_80.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    };
    refused();
    world.service_with("web", both(), json!({}));
    refused();
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    world.endpoints_v6("web", &[]);
    assert!(world.is_unrouted(b.address, namespace::PATIENCE));
    refused();
}

fn endpoints_are_swapped() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service_with("web", both(), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    let traffic = Traffic::start(&a, WEB_80);
    for _ in 0..100 {
        world.endpoints_v6("web", &[&c]);
        assert!(world.is_unrouted(b.address, namespace::PATIENCE));
        world.endpoints_v6("web", &[&b]);
        assert!(world.is_unrouted(c.address, namespace::PATIENCE));
    }
    assert!(traffic.finish() > 100);
}

fn udp_flows_leave() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service_with("web", both(), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    let socket = udp(&a.netns, WEB_80);
    assert_eq!(exchange(&socket, b"?").unwrap(), b"b");
    world.endpoints_v6("web", &[&c]);
    // An answer on its way while the flow ends is lost, as UDP may be.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until(|| exchange(&socket, b"?").unwrap_or_default(), |it| it == b"c");
}

fn session_affinity() {
    let world = World::start();
    let pods = [world.pod("a"), world.pod("b"), world.pod("c"), world.pod("d")];
    let mut spec = both();
    spec["sessionAffinity"] = "ClientIP".into();
    world.service_with("web", spec, json!({}));
    world.endpoints_v6("web", &pods.each_ref());
    until(|| ask(&pods[0].netns, WEB_80), Result::is_ok);
    for pod in &pods {
        let who = || ask(&pod.netns, WEB_80).unwrap();
        let answers: BTreeSet<String> = (0..20).map(|_| who()).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    world.service_with("web", both(), json!({}));
    let several = || (0..40).map(|_| ask(&pods[0].netns, WEB_80).unwrap()).collect();
    eventually(several, |it: &BTreeSet<String>| it.len() == 4);
}

fn a_restart() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service_with("web", both(), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    let traffic = Traffic::start(&a, WEB_80);
    for port in 0..10 {
        world.stop();
        // Other rules make another table.
        world.config.local_ports = vec![7000 + port];
        world.resume();
        assert_eq!(world.attach("a", &a.netns), a.address);
        assert_eq!(world.attach("b", &b.netns), b.address);
    }
    assert!(traffic.finish() > 10);
}

/// What a pod sends under another's address goes nowhere: policies tell pods by their addresses.
fn nobody_has_anothers_address() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let heard = namespace::inside(&b.netns, || UdpSocket::bind("[::]:4000").unwrap());
    let to = SocketAddr::from((b.v6(), 4000));
    let send = |address: Ipv6Addr, within: Duration| {
        heard.set_read_timeout(Some(within)).unwrap();
        namespace::inside(&a.netns, || {
            let socket = namespace::bind_any(SocketAddr::from((address, 0))).unwrap();
            socket.send_to(b"?", to).unwrap();
        });
        heard.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
    };
    assert_eq!(send(a.v6(), namespace::PATIENCE).unwrap(), a.v6());
    send(c.v6(), SILENCE).unwrap_err();
    assert_eq!(send(a.v6(), namespace::PATIENCE).unwrap(), a.v6());
}
