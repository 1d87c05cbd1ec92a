//! NetworkPolicies for IPv6: what they say of pods holds for both of their addresses.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Test,
    api::POLICIES,
    cuts::SILENCE,
    namespace::{self, OUTSIDE, OUTSIDE_V6, PATIENCE, ask, exchange, host, ping, udp},
    policies::{connect, is_refused, pod, policy},
    world::{Pod, World, prefix, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("policies_hold_for_ipv6", policies_hold),
    ("blocks_are_of_one_family", blocks_are_of_one_family),
    ("egress_by_ipv6_is_restricted", egress_is_restricted),
    ("nobody_goes_round_a_policy_by_ipv6", nobody_goes_round),
];

/// The IPv6 address of the Service, and port 80 there.
const WEB: &str = "fd12:3456:789a::7";
const WEB_80: &str = "[fd12:3456:789a::7]:80";

/// Where a pod is by IPv6.
fn at(pod: &Pod, port: u16) -> String {
    SocketAddr::from((pod.v6(), port)).to_string()
}

/// The same by IPv4.
fn at_v4(pod: &Pod, port: u16) -> String {
    SocketAddr::from((pod.address, port)).to_string()
}

fn is_prohibited<T: std::fmt::Debug>(answer: io::Result<T>) {
    assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

fn policies_hold() {
    let mut world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    let c = pod(&world, "c", json!({"role": "client"}));
    world.service_with("web", json!({"clusterIP": WEB, "clusterIPs": [WEB]}), json!({}));
    world.endpoints_v6("web", &[&b]);
    until(|| ask(&a.netns, WEB_80), Result::is_ok);
    policy(&world, "deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    let started = Instant::now();
    assert!(is_refused(&ask(&a.netns, WEB_80)));
    is_prohibited(exchange(&udp(&a.netns, WEB_80), b"?"));
    is_prohibited(ping(&a.netns, &b.v6().to_string(), 1, b""));
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    // A pod reaches itself, directly and through a service; the node reaches pods.
    assert!(ask(&b.netns, WEB_80).is_ok() && ask(&b.netns, &at(&b, 80)).is_ok());
    assert!(namespace::read(WEB_80.parse().unwrap()).is_ok());
    // Labels and names of ports say whom it lets in.
    let from = json!([{"podSelector": {"matchLabels": {"role": "client"}}}]);
    let ingress = json!([{"from": from, "ports": [{"port": "web"}]}]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": ingress});
    policy(&world, "deny", spec);
    until(|| ask(&c.netns, &at(&b, 80)), Result::is_ok);
    let refused = |world: &World| {
        assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
        assert!(is_refused(&connect(&c, &at(&b, 81))));
        is_prohibited(exchange(&udp(&c.netns, &at(&b, 80)), b"?"));
        assert!(ask(&c.netns, &at(&b, 80)).is_ok());
        assert!(ask(&b.netns, &at(&a, 80)).is_ok());
        assert!(world.api.has(POLICIES, "deny"));
    };
    refused(&world);
    // It is in the kernel, also while the process is away.
    world.stop();
    refused(&world);
    world.resume();
    refused(&world);
    world.api.delete(POLICIES, "deny");
    until(|| ask(&a.netns, &at(&b, 80)), Result::is_ok);
}

fn blocks_are_of_one_family() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    let c = pod(&world, "c", json!({}));
    let from = |cidr: &str, except: Value| {
        let from = json!([{"ipBlock": {"cidr": cidr, "except": except}}]);
        json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"from": from}]})
    };
    let answers = || {
        [(&a, at_v4(&b, 80)), (&a, at(&b, 80)), (&c, at_v4(&b, 80)), (&c, at(&b, 80))]
            .map(|(from, to)| ask(&from.netns, &to).is_ok())
    };
    let all = prefix().to_string();
    for (cidr, except, expected) in [
        ("0.0.0.0/0", json!([]), [true, false, true, false]),
        ("::/0", json!([]), [false, true, false, true]),
        (&*all, json!([format!("{}/128", c.v6())]), [false, true, false, false]),
        ("10.244.0.0/16", json!([format!("{}/32", a.address)]), [false, false, true, false]),
        ("2001:db8::/32", json!([]), [false; 4]),
    ] {
        policy(&world, "block", from(cidr, except));
        until(answers, |it| *it == expected);
    }
}

fn egress_is_restricted() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({"app": "a"})), pod(&world, "b", json!({})));
    namespace::serve(host(), 7100, "host");
    namespace::serve_udp(host(), 7100, "host");
    let outside = SocketAddr::from((OUTSIDE_V6, 7100)).to_string();
    let gateway = prefix().at([10, 244, 0, 1].into());
    let own = SocketAddr::from((gateway, 7100)).to_string();
    let outside_v4 = format!("{OUTSIDE}:7100");
    let spec = |egress: Value| {
        json!({"podSelector": {"matchLabels": {"app": "a"}},
        "policyTypes": ["Egress"], "egress": egress})
    };
    let flow = udp(&a.netns, &outside);
    assert_eq!(exchange(&flow, b"?").unwrap(), b"host");
    policy(&world, "egress", spec(json!([])));
    until(|| ask(&a.netns, &outside), is_refused);
    is_prohibited(exchange(&flow, b"?"));
    for to in [&outside, &own] {
        is_prohibited(exchange(&udp(&a.netns, to), b"?"));
        assert!(is_refused(&ask(&a.netns, to)), "{to}");
    }
    is_prohibited(ping(&a.netns, &OUTSIDE_V6.to_string(), 1, b""));
    assert!(is_refused(&ask(&a.netns, &at(&b, 80))));
    // Others are not concerned.
    ask(&b.netns, &outside).unwrap();
    // What a block allows of one family it does not of the other.
    let to = |cidr: &str, ports: Value| {
        spec(json!([{"to": [{"ipBlock": {"cidr": cidr}}], "ports": ports}]))
    };
    let all = [&outside, &outside_v4, &own];
    let answers = || all.map(|it| ask(&a.netns, it).is_ok());
    for (cidr, ports, expected) in [
        ("2001:db8::/64", json!([]), [true, false, false]),
        ("0.0.0.0/0", json!([]), [false, true, false]),
        ("2001:db8::7/128", json!([{"port": 7100}]), [true, false, false]),
        ("2001:db8::7/128", json!([{"port": 7101}]), [false; 3]),
        (&*format!("{gateway}/128"), json!([]), [false, false, true]),
        ("::/0", json!([]), [true, false, true]),
    ] {
        policy(&world, "egress", to(cidr, ports));
        until(answers, |it| *it == expected);
    }
    assert_eq!(exchange(&udp(&a.netns, &outside), b"?").unwrap(), b"host");
    assert!(ping(&a.netns, &OUTSIDE_V6.to_string(), 1, b"x").is_ok());
}

/// Whatever address a pod sends from: its own is refused, others are nobody's.
fn nobody_goes_round() {
    let world = World::start();
    let (a, b) = (pod(&world, "a", json!({})), pod(&world, "b", json!({"app": "b"})));
    let c = pod(&world, "c", json!({"role": "client"}));
    let from = json!([{"podSelector": {"matchLabels": {"role": "client"}}}]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"from": from}]});
    policy(&world, "some", spec);
    until(|| ask(&a.netns, &at(&b, 80)), is_refused);
    let heard = namespace::inside(&b.netns, || UdpSocket::bind("[::]:4000").unwrap());
    let to = SocketAddr::from((b.v6(), 4000));
    let send = |from: &Pod, address: Ipv6Addr, within: Duration| {
        heard.set_read_timeout(Some(within)).unwrap();
        namespace::inside(&from.netns, || {
            let socket = namespace::bind_any(SocketAddr::from((address, 0))).unwrap();
            socket.send_to(b"?", to).unwrap();
        });
        heard.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
    };
    let gateway = prefix().at([10, 244, 0, 1].into());
    let host = prefix().at([10, 244, 255, 254].into());
    let nobody = prefix().at([10, 244, 0, 77].into());
    let far = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
    for address in [a.v6(), c.v6(), gateway, host, nobody, far, b.v6()] {
        send(&a, address, SILENCE).unwrap_err();
    }
    assert_eq!(send(&c, c.v6(), PATIENCE).unwrap(), c.v6());
}
