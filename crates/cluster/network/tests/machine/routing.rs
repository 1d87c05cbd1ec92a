//! Services: who is reached at a service's address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Test,
    api::{SERVICES, SLICES},
    namespace::{self, ask, exchange, udp},
    world::{Pod, Traffic, World, eventually, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_service_leads_to_its_endpoints", a_service_leads_to_its_endpoints),
    ("a_pod_reaches_itself_through_a_service", a_pod_reaches_itself_through_a_service),
    ("without_endpoints_it_is_refused_at_once", without_endpoints_it_is_refused_at_once),
    ("endpoints_are_swapped_without_a_failure", endpoints_are_swapped_without_a_failure),
    ("a_ready_endpoint_is_routed_at_once", a_ready_endpoint_is_routed_at_once),
    ("unrouted_waits_for_the_table", unrouted_waits_for_the_table),
    ("udp_flows_leave_a_removed_endpoint", udp_flows_leave_a_removed_endpoint),
    ("session_affinity_keeps_a_client_at_an_endpoint", session_affinity),
    ("affinity_lasts_as_long_as_the_service_says", affinity_lasts),
    ("a_hundred_endpoints_are_all_reached", a_hundred_endpoints),
    ("ten_thousand_endpoints_are_changed_one_by_one", ten_thousand_endpoints),
    ("many_services_at_once", many_services_at_once),
    ("routing_does_not_depend_on_br_netfilter", routing_does_not_depend_on_br_netfilter),
];

fn a_service_leads_to_its_endpoints() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b, &c]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let answers: BTreeSet<String> =
        (0..40).map(|_| ask(&a.netns, "10.96.0.7:80").unwrap()).collect();
    // Both, and both see who asks.
    let expected = [format!("b {}", a.address), format!("c {}", a.address)];
    assert_eq!(answers, BTreeSet::from(expected));
    let here = namespace::read("10.96.0.7:80".parse().unwrap()).unwrap();
    assert!(here.ends_with(" 10.244.0.1"), "{here}");
    // A port that the service does not have.
    let error = ask(&a.netns, "10.96.0.7:81").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

fn a_pod_reaches_itself_through_a_service() {
    let world = World::start();
    let a = world.pod("a");
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&a]);
    let answer = eventually(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    assert_eq!(answer.unwrap(), "a 10.244.0.1");
    let socket = udp(&a.netns, "10.96.0.7:80");
    assert_eq!(exchange(&socket, b"?").unwrap(), b"a");
}

fn without_endpoints_it_is_refused_at_once() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let refused = || {
        let started = Instant::now();
        let error = ask(&a.netns, "10.96.0.7:80").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = exchange(&udp(&a.netns, "10.96.0.7:80"), b"?").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = namespace::read("10.96.0.7:80".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    };
    refused();
    world.service("web", "10.96.0.7");
    refused();
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    world.endpoints("web", &[]);
    assert!(world.is_unrouted(b.address, namespace::PATIENCE));
    refused();
}

fn endpoints_are_swapped_without_a_failure() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let traffic = Traffic::start(&a, "10.96.0.7:80");
    for _ in 0..100 {
        world.endpoints("web", &[&c]);
        assert!(world.is_unrouted(b.address, namespace::PATIENCE));
        world.endpoints("web", &[&b]);
        assert!(world.is_unrouted(c.address, namespace::PATIENCE));
    }
    assert!(traffic.finish() > 100);
}

fn a_ready_endpoint_is_routed_at_once() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let spec = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "tcp", "port": 80}]});
    world.service_with("web", spec, json!({}));
    let mut took = Vec::new();
    for _ in 0..20 {
        world.endpoints("web", &[]);
        until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_err);
        let started = Instant::now();
        world.endpoints("web", &[&b]);
        namespace::inside(&a.netns, || {
            let address = "10.96.0.7:80".parse().unwrap();
            while namespace::read(address).is_err() {}
        });
        took.push(started.elapsed());
    }
    took.sort();
    println!("endpoint known to routed: p50 {:?}, max {:?}", took[10], took[19]);
    // The aim is 1 ms in a release build; this only finds a lost wake-up.
    assert!(took[10] < Duration::from_millis(50), "{took:?}");
}

fn unrouted_waits_for_the_table() {
    let world = World::start();
    let (b, c) = (world.pod("b"), world.pod("c"));
    assert!(world.is_unrouted(b.address, namespace::PATIENCE));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b, &c]);
    let here = "10.96.0.7:80".parse().unwrap();
    until(|| namespace::read(here), Result::is_ok);
    assert!(!world.is_unrouted(b.address, Duration::from_millis(20)));
    world.endpoints("web", &[&c]);
    assert!(world.is_unrouted(b.address, namespace::PATIENCE));
    for _ in 0..20 {
        assert_eq!(namespace::read(here).unwrap(), "c 10.244.0.1");
    }
    world.api.delete(SERVICES, "web");
    assert!(world.is_unrouted(c.address, namespace::PATIENCE));
}

fn udp_flows_leave_a_removed_endpoint() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let socket = udp(&a.netns, "10.96.0.7:80");
    assert_eq!(exchange(&socket, b"?").unwrap(), b"b");
    world.endpoints("web", &[&c]);
    // An answer on its way while the flow ends is lost, as UDP may be.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until(|| exchange(&socket, b"?").unwrap_or_default(), |it| it == b"c");
}

fn session_affinity() {
    let world = World::start();
    let pods = [world.pod("a"), world.pod("b"), world.pod("c"), world.pod("d")];
    let spec = json!({"clusterIP": "10.96.0.7", "sessionAffinity": "ClientIP"});
    world.service_with("web", spec, json!({}));
    world.endpoints("web", &pods.each_ref());
    until(|| ask(&pods[0].netns, "10.96.0.7:80"), Result::is_ok);
    for pod in &pods {
        let who = || ask(&pod.netns, "10.96.0.7:80").unwrap();
        let answers: BTreeSet<String> = (0..20).map(|_| who()).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    // The same service without affinity.
    world.service("web", "10.96.0.7");
    let several = || (0..40).map(|_| ask(&pods[0].netns, "10.96.0.7:80").unwrap()).collect();
    eventually(several, |it: &BTreeSet<String>| it.len() == 4);
}

/// Who answers each of the pods at the Service.
fn answers(pods: &[Pod]) -> Vec<String> {
    let name = |it: String| it.split(' ').next().unwrap().to_owned();
    pods.iter().map(|it| name(ask(&it.netns, "10.96.0.7:80").unwrap())).collect()
}

fn affinity_lasts() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let world = World::start();
    let pods = NAMES.map(|it| world.pod(it));
    let config = json!({"clientIP": {"timeoutSeconds": TIMEOUT.as_secs()}});
    let spec = json!({"clusterIP": "10.96.0.7", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": config});
    world.service_with("web", spec, json!({}));
    world.endpoints("web", &pods.each_ref().as_slice()[..4]);
    until(|| ask(&pods[0].netns, "10.96.0.7:80"), Result::is_ok);
    // Who keeps coming stays, for longer than the time, and while endpoints come.
    let first = answers(&pods);
    world.endpoints("web", &pods.each_ref());
    let (begun, mut last) = (Instant::now(), Instant::now());
    let mut stayed = Duration::ZERO;
    while stayed < TIMEOUT + TIMEOUT / 2 {
        let now = answers(&pods);
        assert!(last.elapsed() < TIMEOUT, "this machine stood still for {:?}", last.elapsed());
        assert_eq!(now, first);
        (last, stayed) = (Instant::now(), begun.elapsed());
    }
    // Whose endpoint goes is at another at once, and stays there; the others notice nothing.
    let gone = first[0].clone();
    let rest: Vec<&Pod> =
        pods.iter().zip(NAMES).filter(|(_, name)| *name != gone).map(|(pod, _)| pod).collect();
    world.endpoints("web", &rest);
    let leaving = pods.iter().find(|it| !rest.iter().any(|rest| rest.address == it.address));
    assert!(world.is_unrouted(leaving.unwrap().address, namespace::PATIENCE));
    let second = answers(&pods);
    for (before, now) in first.iter().zip(&second) {
        assert!(*now != gone && (*before == gone || before == now), "{first:?} {second:?}");
    }
    assert_eq!(answers(&pods), second);
    // After silence all eight of them come to the same again once in seven million times.
    thread::sleep(TIMEOUT + TIMEOUT / 4);
    assert_ne!(answers(&pods), second);
}

/// More than one of a kind of slice has: each has a port of its own.
fn a_hundred_endpoints() {
    const PORTS: std::ops::Range<u16> = 1000..1100;
    const CONNECTIONS: usize = 3_000;
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    PORTS.for_each(|port| namespace::serve(&b.netns, port, format!("{port}").leak()));
    // A Service each: one that is changed would for a while be what it was.
    for (affinity, service, address) in
        [("None", "all", "10.96.0.7"), ("ClientIP", "one", "10.96.0.8")]
    {
        let spec = json!({"clusterIP": address, "sessionAffinity": affinity});
        world.service_with(service, spec, json!({}));
        for port in PORTS {
            world.endpoints_with(service, &format!("{service}-{port}"), port, &[b.address]);
        }
        let address = format!("{address}:80");
        let mut seen = BTreeSet::new();
        let wanted = if affinity == "None" { PORTS.len() } else { 1 };
        let mut look = || {
            seen.extend(ask(&a.netns, &address).ok());
            seen.len()
        };
        until(&mut look, |it| *it == wanted);
        let counts = namespace::inside(&a.netns, || {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            let address = address.parse().unwrap();
            (0..CONNECTIONS)
                .for_each(|_| *counts.entry(namespace::read(address).unwrap()).or_default() += 1);
            counts
        });
        assert_eq!(counts.len(), wanted, "{counts:?}");
        if affinity == "None" {
            // 30 each; that one has 90 happens once in a hundred thousand million times.
            assert!(counts.values().all(|it| *it < 90), "{counts:?}");
        }
        for port in PORTS {
            world.api.delete(SLICES, &format!("{service}-{port}"));
        }
        until(|| ask(&a.netns, &address), Result::is_err);
    }
}

fn ten_thousand_endpoints() {
    const SLICES: u8 = 100;
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service("web", "10.96.0.7");
    let addresses = |slice: u8| (1..=100).map(move |it| Ipv4Addr::new(10, 244, 100 + slice, it));
    let of = |slice: u8| addresses(slice).collect::<Vec<_>>();
    let started = Instant::now();
    for slice in 0..SLICES {
        world.endpoints_with("web", &format!("web-{slice}"), 80, &of(slice));
    }
    // Each leads nowhere: the way to the world ends at once what is for no pod.
    let last = *of(SLICES - 1).last().unwrap();
    until(|| world.is_unrouted(last, Duration::ZERO), |it| !it);
    println!("10 000 endpoints: {:?}", started.elapsed());
    let mut took = Vec::new();
    for slice in 0..20 {
        let started = Instant::now();
        let gone = of(slice)[7];
        let rest: Vec<Ipv4Addr> = addresses(slice).filter(|it| *it != gone).collect();
        world.endpoints_with("web", &format!("web-{slice}"), 80, &rest);
        assert!(world.is_unrouted(gone, namespace::PATIENCE));
        took.push(started.elapsed());
    }
    took.sort();
    println!("one of 10 000 endpoints gone: p50 {:?}, max {:?}", took[10], took[19]);
    for slice in 0..SLICES {
        world.endpoints_with("web", &format!("web-{slice}"), 80, &[]);
    }
    world.endpoints("web", &[&b]);
    let answer = format!("b {}", a.address);
    until(|| ask(&a.netns, "10.96.0.7:80").unwrap_or_default(), |it| *it == answer);
}

/// More elements than one transaction takes.
fn many_services_at_once() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.stop();
    let address = |it: u32| format!("10.96.{}.{}", 1 + it / 200, 1 + it % 200);
    for number in 0..400 {
        let name = format!("web-{number}");
        world.service(&name, &address(number));
        world.endpoints(&name, &[&b]);
    }
    let started = Instant::now();
    world.resume();
    println!("400 services with 2 ports each: {:?}", started.elapsed());
    for number in [0, 1, 199, 200, 399] {
        let service = format!("{}:80", address(number));
        assert_eq!(ask(&a.netns, &service).unwrap(), format!("b {}", a.address));
    }
}

fn routing_does_not_depend_on_br_netfilter() {
    const SETTING: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    for (name, address, endpoint) in [("web", "10.96.0.7", &b), ("own", "10.96.0.8", &a)] {
        world.service(name, address);
        world.endpoints(name, &[endpoint]);
    }
    if !std::fs::exists(SETTING).unwrap() {
        println!("no br_netfilter here");
    }
    for value in ["0", "1"] {
        if std::fs::exists(SETTING).unwrap() {
            std::fs::write(SETTING, value).unwrap();
        }
        until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
        until(|| ask(&a.netns, "10.96.0.8:80"), Result::is_ok);
        assert_eq!(ask(&a.netns, "10.96.0.7:80").unwrap(), format!("b {}", a.address));
        assert_eq!(ask(&a.netns, "10.96.0.8:80").unwrap(), "a 10.244.0.1");
    }
}
