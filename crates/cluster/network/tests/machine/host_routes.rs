//! Routes from the host, and ranges that clash with what it has.

use std::net::Ipv4Addr;

use coracle_network::{HostRoutes, Keeping, forget};
use serde_json::json;

use crate::{
    Test,
    api::{NODES, PODS, POLICIES},
    namespace::{self, ask, exchange, host, udp},
    sys,
    world::{World, eventually, prefix, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("the_host_reaches_pods_and_services", the_host_reaches_pods_and_services),
    ("a_host_without_ipv6_has_routes_of_ipv4", a_host_without_ipv6),
    ("routes_yield_to_those_of_the_host", routes_yield_to_those_of_the_host),
    ("without_root_there_are_no_routes", without_root_there_are_no_routes),
];

/// Name of the Node that is told.
const NODE: &str = "machine";
/// What the link on the host is known by.
const ALIAS: &str = "coracle test";
/// What pods see of the host.
const SEEN: &str = "b 10.244.255.254";

fn keep(world: &World, as_root: bool) {
    if !world.api.has(NODES, NODE) {
        world.api.put(NODES, NODE, json!({}));
    }
    let routes = namespace::inside(host(), || HostRoutes::open().unwrap());
    let (node, alias) = (NODE.to_owned(), ALIAS.to_owned());
    let keeping = Keeping { addresses: world.config.addresses, alias, as_root, node };
    world.keep(routes, keeping);
}

fn annotation(world: &World, name: &str) -> String {
    let node = world.api.get(NODES, NODE);
    node["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned()
}

fn routes(world: &World) -> String {
    annotation(world, "coracle.dev/host-routes")
}

fn the_host_reaches_pods_and_services() {
    let mut world = World::start();
    let b = world.pod("b");
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    let at_pod = format!("{}:80", b.address);
    assert!(ask(host(), &at_pod).is_err());
    keep(&world, true);
    until(|| routes(&world), |it| it == "routed from the host over `coracle0`");
    assert_eq!(ask(host(), &at_pod).unwrap(), SEEN);
    assert_eq!(eventually(|| ask(host(), "10.96.0.7:80"), Result::is_ok).unwrap(), SEEN);
    assert_eq!(exchange(&udp(host(), "10.96.0.7:80"), b"?").unwrap(), b"b");
    // What pods send to the host by that address comes back.
    namespace::serve(host(), 8080, "host");
    let from_pod = format!("host {}", b.address);
    assert_eq!(ask(&b.netns, "10.244.255.254:8080").unwrap(), from_pod);
    // By IPv6 all the same.
    let web = prefix().at([0, 0, 0, 7].into());
    world.service_with("six", json!({"clusterIP": web, "clusterIPs": [web]}), json!({}));
    world.endpoints_v6("six", &[&b]);
    let (at_pod_v6, web_v6) = (format!("[{}]:80", b.v6()), format!("[{web}]:80"));
    let host_v6 = prefix().at([10, 244, 255, 254].into());
    let seen_v6 = format!("b {host_v6}");
    assert_eq!(ask(host(), &at_pod_v6).unwrap(), seen_v6);
    assert_eq!(eventually(|| ask(host(), &web_v6), Result::is_ok).unwrap(), seen_v6);
    assert_eq!(exchange(&udp(host(), &web_v6), b"?").unwrap(), b"b");
    let from_pod_v6 = format!("host {}", b.v6());
    assert_eq!(ask(&b.netns, &format!("[{host_v6}]:8080")).unwrap(), from_pod_v6);
    // No policy keeps the host from its pods.
    for name in ["b", "c"] {
        let metadata = json!({"namespace": "shop", "uid": name, "labels": {}});
        world.api.put(PODS, name, json!({"metadata": metadata, "spec": {"containers": []}}));
    }
    let deny = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
    world.api.put(POLICIES, "deny", deny);
    let c = world.pod("c");
    until(|| ask(&c.netns, &at_pod), Result::is_err);
    assert!(ask(&c.netns, &at_pod_v6).is_err());
    assert_eq!(ask(host(), &at_pod).unwrap(), SEEN);
    assert_eq!(ask(host(), &at_pod_v6).unwrap(), seen_v6);
    // Somebody removes the link: it is made again.
    namespace::inside(host(), || forget(ALIAS).unwrap());
    until(|| ask(host(), &at_pod), Result::is_ok);
    until(|| ask(host(), &at_pod_v6), Result::is_ok);
    // It stays while the process is away, and is taken over.
    world.stop();
    assert_eq!(ask(host(), &at_pod).unwrap(), SEEN);
    assert_eq!(ask(host(), &at_pod_v6).unwrap(), seen_v6);
    world.resume();
    world.api.put(NODES, NODE, json!({}));
    keep(&world, true);
    until(|| routes(&world), |it| it == "routed from the host over `coracle0`");
    assert_eq!(ask(host(), &at_pod).unwrap(), SEEN);
}

fn a_host_without_ipv6() {
    let world = World::start();
    let b = world.pod("b");
    // As an administrator does it.
    let file = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    namespace::inside(host(), || std::fs::write(file, "1")).unwrap();
    keep(&world, true);
    let said = "routed from the host over `coracle0`, but not by IPv6: cannot add address";
    until(|| routes(&world), |it| it.starts_with(said));
    assert_eq!(ask(host(), &format!("{}:80", b.address)).unwrap(), SEEN);
    assert!(ask(host(), &format!("[{}]:80", b.v6())).is_err());
}

fn routes_yield_to_those_of_the_host() {
    let world = World::start();
    let b = world.pod("b");
    let at_pod = format!("{}:80", b.address);
    keep(&world, true);
    until(|| ask(host(), &at_pod), Result::is_ok);
    // As with a VPN that has all of 10.0.0.0/8.
    let address = |it: Ipv4Addr| {
        namespace::inside(host(), || sys::set_up_loopback("lo:2", it).unwrap());
    };
    address(Ipv4Addr::new(10, 9, 8, 7));
    let yielded = "not routed from the host: the ranges clash with its own";
    until(|| routes(&world), |it| it == yielded);
    let clash = annotation(&world, "coracle.dev/range-clash");
    let expected =
        "the range 10.244.0.0/16 of pods overlaps 10.0.0.0/8, which the host routes over `lo`";
    assert!(clash.starts_with(expected), "{clash}");
    let events = eventually(|| world.api.recorded(), |it| !it.is_empty());
    assert!(events[0].contains(expected) && events[0].contains("--pod-cidr"), "{events:?}");
    // The host has its own way there again; pods have theirs.
    assert!(ask(host(), &at_pod).is_err());
    let c = world.pod("c");
    assert_eq!(ask(&c.netns, &at_pod).unwrap(), format!("b {}", c.address));
    address(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(eventually(|| ask(host(), &at_pod), Result::is_ok).unwrap(), SEEN);
    until(|| annotation(&world, "coracle.dev/range-clash"), String::is_empty);
}

fn without_root_there_are_no_routes() {
    let world = World::start();
    let b = world.pod("b");
    keep(&world, false);
    until(|| routes(&world), |it| it == "not routed from the host: only root can do that");
    assert!(ask(host(), &format!("{}:80", b.address)).is_err());
    assert!(ask(host(), &format!("[{}]:80", b.v6())).is_err());
}
