//! Faults are about pods, so they hold for what goes by IPv6 too.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::json;

use crate::{
    Test,
    cuts::{SILENCE, connection_at, cut, does_not_connect, is_not_answered, is_silent},
    namespace::{PATIENCE, ask, exchange, udp},
    shaping::{DELAY, NOTHING, Shape, bulk_at, round_trip, shaped, shapers},
    world::{Pod, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("nobody_goes_round_a_cut_by_ipv6", nobody_goes_round_a_cut),
    ("packets_of_ipv6_come_late", packets_come_late),
    ("bulk_by_ipv6_arrives_intact", bulk_arrives_intact),
];

/// The IPv6 address of the Service, and port 80 there.
const WEB: &str = "fd12:3456:789a::7";
const WEB_80: &str = "[fd12:3456:789a::7]:80";

fn on(pod: &Pod, port: u16) -> SocketAddr {
    (pod.v6(), port).into()
}

fn at(pod: &Pod) -> String {
    on(pod, 80).to_string()
}

fn nobody_goes_round_a_cut() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service_with("web", json!({"clusterIP": WEB, "clusterIPs": [WEB]}), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    let (mut client, mut server) = connection_at(&a, &b, on(&b, 90));
    for from in [None, Some([&a].as_slice())] {
        world.disturb(vec![cut(&[&b], from)]);
        client.write_all(b"1").unwrap();
        server.set_read_timeout(Some(SILENCE)).unwrap();
        is_silent(server.read(&mut [0]));
        does_not_connect(&a, &at(&b));
        does_not_connect(&b, &at(&a));
        does_not_connect(&a, WEB_80);
        is_not_answered(&a, &at(&b));
        // The cluster's own process is one of everybody.
        let here = TcpStream::connect_timeout(&on(&b, 80), SILENCE);
        match from {
            None => is_silent(here),
            Some(_) => drop(here.unwrap()),
        }
        ask(&c.netns, &at(&a)).unwrap();
        world.disturb(Vec::new());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.read_exact(&mut [0]).unwrap();
        ask(&a.netns, WEB_80).unwrap();
    }
    assert_eq!(exchange(&udp(&a.netns, &at(&b)), b"?").unwrap(), b"b");
}

/// Whether something leads to the shaper.
fn is_led() -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    routes.contains("chaos")
}

fn packets_come_late() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.service_with("web", json!({"clusterIP": WEB, "clusterIPs": [WEB]}), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    let late = |from| shaped(&[&b], from, Shape { delay: DELAY, ..NOTHING });
    let quickest = |from: &Pod, to: &str| (0..20).map(|_| round_trip(from, to)).min().unwrap();
    world.disturb(vec![late(None)]);
    assert!(is_led());
    for to in [at(&b), WEB_80.to_owned()] {
        assert!(quickest(&a, &to) >= DELAY, "{to}");
    }
    assert!(quickest(&b, &at(&a)) >= DELAY);
    // In several packets, which are put together again.
    assert_eq!(exchange(&udp(&a.netns, &at(&b)), &[0; 4000]).unwrap(), b"b");
    assert!(quickest(&a, &at(&c)) < DELAY);
    // What comes from some alone.
    world.disturb(vec![late(Some(&[&a]))]);
    assert!(quickest(&a, WEB_80) >= DELAY && quickest(&c, WEB_80) < DELAY);
    world.disturb(vec![shaped(&[&b], None, Shape { loss: 1.0, ..NOTHING })]);
    is_not_answered(&a, &at(&b));
    world.disturb(Vec::new());
    assert!(quickest(&a, &at(&b)) < DELAY);
    until(shapers, |it| *it == 0);
    assert!(!is_led());
}

fn bulk_arrives_intact() {
    const TOTAL: usize = 10_000_000;
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let straight = bulk_at(&a, &b, on(&b, 90), TOTAL);
    world.disturb(vec![shaped(&[&b], None, NOTHING)]);
    let through = bulk_at(&a, &b, on(&b, 91), TOTAL);
    println!("10 MB by IPv6: {straight:?}, through the shaper {through:?}");
    let all = Shape {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(1),
        loss: 0.002,
        duplicate: 0.01,
        corrupt: 0.002,
        bytes_per_second: None,
    };
    world.disturb(vec![shaped(&[&a, &b], None, all)]);
    bulk_at(&a, &b, on(&b, 92), TOTAL / 10);
    let rate = Shape { bytes_per_second: Some(1_000_000), ..NOTHING };
    world.disturb(vec![shaped(&[&b], None, rate)]);
    let took = bulk_at(&a, &b, on(&b, 93), 500_000);
    assert!(took >= Duration::from_millis(400), "{took:?}");
}
