//! `hostPort`: a pod at a port of the host.

use std::{io, net::TcpListener};

use serde_json::{Value, json};

use crate::{
    Test,
    api::PODS,
    namespace::{self, OUTSIDE, PATIENCE, ask, exchange, host, udp},
    world::{Pod, World, eventually, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("host_ports_lead_to_their_pod", host_ports_lead_to_their_pod),
    ("host_ports_of_addresses_do_not_meet", host_ports_of_addresses_do_not_meet),
    ("a_host_port_that_is_taken_is_told_of", a_host_port_that_is_taken),
];

/// The pod with this address asks for these ports.
fn put(world: &World, name: &str, pod: &Pod, ports: Value) {
    let containers = json!([{"name": "c", "ports": ports}]);
    let status = json!({"phase": "Running", "podIP": pod.address});
    world.api.put(PODS, name, json!({"spec": {"containers": containers}, "status": status}));
}

fn host_ports_lead_to_their_pod() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let ports = json!([{"containerPort": 80, "hostPort": 8080},
        {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]);
    put(&world, "b", &b, ports);
    // In the cluster at the node's address, and b sees who asks.
    let direct = format!("b {}", a.address);
    until(|| ask(&a.netns, "10.244.0.1:8080"), |it| it.as_ref().is_ok_and(|it| *it == direct));
    assert_eq!(exchange(&udp(&a.netns, "10.244.0.1:8080"), b"?").unwrap(), b"b");
    assert_eq!(ask(&b.netns, "10.244.0.1:8080").unwrap(), "b 10.244.0.1");
    // From the host.
    let answer = eventually(|| ask(host(), "127.0.0.1:8080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "b 10.244.0.1");
    let client = udp(host(), "127.0.0.1:8080");
    assert_eq!(exchange(&client, b"?").unwrap(), b"b");
    // It is no reason to wait with the pod's end.
    assert!(world.is_unrouted(b.address, PATIENCE));
    // The pod is another one, at another address, while this process was away.
    world.stop();
    put(&world, "b", &a, json!([{"containerPort": 80, "hostPort": 8080}]));
    world.resume();
    world.attach("a", &a.netns);
    world.attach("b", &b.netns);
    let answer = eventually(|| ask(host(), "127.0.0.1:8080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "a 10.244.0.1");
    assert_eq!(ask(&b.netns, "10.244.0.1:8080").unwrap(), format!("a {}", b.address));
    // It goes with the pod.
    world.api.delete(PODS, "b");
    let listen = || namespace::inside(host(), || TcpListener::bind("127.0.0.1:8080").map(drop));
    until(listen, Result::is_ok);
    until(|| ask(&b.netns, "10.244.0.1:8080"), Result::is_err);
}

/// What differs in address or protocol is no conflict: as `hostIP` says.
fn host_ports_of_addresses_do_not_meet() {
    let world = World::start();
    let (a, b, c, d) = (world.pod("a"), world.pod("b"), world.pod("c"), world.pod("d"));
    let port = |ip: &str, protocol: &str| json!([{"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}]);
    put(&world, "a", &a, port("127.0.0.1", "TCP"));
    put(&world, "b", &b, port("10.244.0.1", "TCP"));
    put(&world, "c", &c, port("10.244.0.1", "UDP"));
    put(&world, "d", &d, port(OUTSIDE, "TCP"));
    let answer = eventually(|| ask(host(), "127.0.0.1:8080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "a 10.244.0.1");
    let answer = eventually(|| ask(host(), &format!("{OUTSIDE}:8080")), Result::is_ok);
    assert_eq!(answer.unwrap(), "d 10.244.0.1");
    let direct = format!("b {}", a.address);
    until(|| ask(&a.netns, "10.244.0.1:8080"), |it| it.as_ref().is_ok_and(|it| *it == direct));
    let client = udp(&a.netns, "10.244.0.1:8080");
    assert_eq!(exchange(&client, b"?").unwrap(), b"c");
}

fn a_host_port_that_is_taken() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let taken = namespace::inside(host(), || TcpListener::bind("127.0.0.1:8080").unwrap());
    put(&world, "b", &b, json!([{"containerPort": 80, "hostPort": 8080}]));
    let events = eventually(|| world.api.recorded(), |it| !it.is_empty());
    assert_eq!(
        events,
        [
            "port 8080 of the host is in use: stop the program that has it (`ss -ltnp 'sport = :8080'` \
          names it) or choose another `hostPort`"
        ]
    );
    // Inside it leads to the pod all the same, and outside once the port is free.
    let direct = format!("b {}", a.address);
    until(|| ask(&a.netns, "10.244.0.1:8080"), |it| it.as_ref().is_ok_and(|it| *it == direct));
    drop(taken);
    let published = |it: &io::Result<String>| it.as_ref().is_ok_and(|it| it == "b 10.244.0.1");
    until(|| ask(host(), "127.0.0.1:8080"), published);
}
