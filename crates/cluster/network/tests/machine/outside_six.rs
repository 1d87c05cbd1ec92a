//! The way to the host and the world by IPv6.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    Test,
    namespace::{self, OUTSIDE_V6, ask, exchange, host, ping, udp},
    outside::echo_much,
    world::{World, prefix, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("tcp_leaves_by_ipv6", tcp_leaves),
    ("udp_leaves_by_ipv6", udp_leaves),
    ("pings_leave_by_ipv6", pings_leave),
    ("services_on_the_host_are_reached_by_ipv6", services_on_the_host),
    ("what_cannot_leave_by_ipv6_fails_at_once", what_cannot_leave),
];

/// Where the host has no way.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

fn at(address: Ipv6Addr, port: u16) -> String {
    SocketAddr::from((address, port)).to_string()
}

/// The address of a node of the cluster, which stands for the host.
fn node(low: [u8; 4]) -> Ipv6Addr {
    prefix().at(low.into())
}

fn gateway() -> Ipv6Addr {
    node([10, 244, 0, 1])
}

fn tcp_leaves() {
    let world = World::start();
    let a = world.pod("a");
    namespace::serve(host(), 8080, "host");
    // The host sees its own addresses: the connection is made on its side.
    assert_eq!(ask(&a.netns, &at(gateway(), 8080)).unwrap(), "host 127.0.0.1");
    assert_eq!(ask(&a.netns, &at(OUTSIDE_V6, 8080)).unwrap(), format!("host {OUTSIDE_V6}"));
    // What listens at `::1` alone is found by both families.
    let only_six = namespace::inside(host(), || TcpListener::bind("[::1]:8083").unwrap());
    for to in [at(gateway(), 8083), "10.244.0.1:8083".to_owned()] {
        let asking = a.netns.try_clone().unwrap();
        let client = std::thread::spawn(move || ask(&asking, &to));
        drop(only_six.accept().unwrap());
        assert_eq!(client.join().unwrap().unwrap(), "");
    }
    // Nobody answers there: accepted by the proxy, then reset.
    for to in [at(OUTSIDE_V6, 8081), at(gateway(), 8081)] {
        let error = ask(&a.netns, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    echo_much(&a.netns, &OUTSIDE_V6.to_string());
}

fn udp_leaves() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    namespace::serve_udp(host(), 9090, "host");
    namespace::serve_udp(host(), 9091, "other");
    // Answers come from whom the pod asked: the sockets are connected.
    for pod in [&a, &b] {
        let socket = udp(&pod.netns, &at(OUTSIDE_V6, 9090));
        for _ in 0..3 {
            assert_eq!(exchange(&socket, b"?").unwrap(), b"host");
        }
    }
    // One port of the pod's, several targets, of both families.
    let socket = namespace::inside(&a.netns, || UdpSocket::bind("[::]:5000").unwrap());
    socket.set_read_timeout(Some(namespace::PATIENCE)).unwrap();
    let mapped = "[::ffff:198.51.100.7]:9091".to_owned();
    let targets = [at(OUTSIDE_V6, 9090), at(OUTSIDE_V6, 9091), at(gateway(), 9091), mapped];
    for (target, name) in targets.iter().zip(["host", "other", "other", "other"]) {
        socket.send_to(b"?", target).unwrap();
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from.to_string()), (name.as_bytes(), target.clone()));
    }
    // The largest packet there is, in fragments.
    let echo = namespace::inside(host(), || UdpSocket::bind((OUTSIDE_V6, 9092)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        let (length, from) = echo.recv_from(&mut buffer).unwrap();
        echo.send_to(&buffer[..length], from).unwrap();
    });
    let socket = udp(&a.netns, &at(OUTSIDE_V6, 9092));
    let large = vec![7; 65_507];
    assert_eq!(socket.send(&large).unwrap(), large.len());
    let mut answer = vec![0; 65_535];
    assert_eq!(socket.recv(&mut answer).unwrap(), large.len());
}

fn pings_leave() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    // The world, the host's name, a pod.
    for to in [OUTSIDE_V6, gateway(), b.v6()] {
        for (sequence, data) in [(1, &b"x"[..]), (2, b""), (9, &[7; 1400])] {
            let answer = ping(&a.netns, &to.to_string(), sequence, data).unwrap();
            assert_eq!(answer, data, "{to}");
        }
    }
    let outside = OUTSIDE_V6.to_string();
    assert_eq!(ping(&b.netns, &outside, 1, b"b").unwrap(), b"b");
    // Where the host has no way, the pod hears of it.
    let error = ping(&a.netns, &NOWHERE.to_string(), 1, b"").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    // Nobody answers for who does not.
    let answers = |it: &str| {
        let file = "/proc/sys/net/ipv6/icmp/echo_ignore_all";
        namespace::inside(host(), || std::fs::write(file, it)).unwrap();
    };
    answers("1");
    let error = ping(&a.netns, &outside, 1, b"").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    answers("0");
    assert_eq!(ping(&a.netns, &outside, 1, b"again").unwrap(), b"again");
}

fn services_on_the_host() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod_on(1, "b"));
    namespace::serve(host(), 9090, "host");
    namespace::serve_udp(host(), 9090, "host");
    let web = prefix().at([0, 0, 0, 7].into());
    world.service_with("web", json!({"clusterIPs": [web], "clusterIP": web}), json!({}));
    let on_host = [gateway(), node([10, 244, 16, 1])];
    world.endpoints_v6_at("web", 9090, &on_host);
    until(|| ask(&a.netns, &at(web, 80)), |it| it.as_ref().is_ok_and(|it| it == "host 127.0.0.1"));
    let socket = udp(&a.netns, &at(web, 80));
    for _ in 0..3 {
        assert_eq!(exchange(&socket, b"?").unwrap(), b"host");
    }
    // By the cluster itself, as published ports are.
    for _ in 0..8 {
        assert_eq!(namespace::read((web, 80).into()).unwrap(), "host 127.0.0.1");
    }
    // A client that stays is led on, and hears when nobody is left.
    world.endpoints_v6_at("web", 80, &[b.v6()]);
    let from_b = format!("b {}", a.v6());
    until(|| ask(&a.netns, &at(web, 80)), |it| it.as_ref().is_ok_and(|it| *it == from_b));
    until(|| exchange(&socket, b"?").ok(), |it| it.as_deref() == Some(b"b"));
    world.endpoints_v6_at("web", 9091, &on_host);
    let refused = |it: &io::Result<_>| {
        it.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
    };
    until(|| exchange(&socket, b"?"), refused);
}

fn what_cannot_leave() {
    let world = World::start();
    let a = world.pod("a");
    let started = Instant::now();
    let refused = |to: &str| asked(&a.netns, to).kind();
    // Nobody is there: the host says so, and the pod hears it.
    for nobody in [at(OUTSIDE_V6, 123), at(gateway(), 123)] {
        assert_eq!(refused(&nobody), io::ErrorKind::ConnectionRefused, "{nobody}");
    }
    // The host has no way there.
    assert_eq!(refused(&at(NOWHERE, 123)), io::ErrorKind::PermissionDenied);
    let error = ask(&a.netns, &at(NOWHERE, 80)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(started.elapsed() < Duration::from_millis(500));
}

/// What is heard of a datagram that does not arrive.
fn asked(netns: &OwnedFd, to: &str) -> io::Error {
    exchange(&udp(netns, to), b"?").unwrap_err()
}
