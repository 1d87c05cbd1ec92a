//! Node ports, load balancers, addresses from outside: in the cluster and on the host.

use std::{
    io,
    net::{TcpListener, UdpSocket},
};

use serde_json::{Value, json};

use crate::{
    Test,
    api::SERVICES,
    namespace::{self, OUTSIDE, PATIENCE, ask, exchange, host, udp},
    world::{Pod, World, eventually, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("node_ports_lead_to_endpoints", node_ports_lead_to_endpoints),
    ("node_ports_of_programs_on_the_host", node_ports_of_programs_on_the_host),
    ("load_balancers_have_addresses_of_their_own", load_balancers_have_addresses_of_their_own),
    ("two_load_balancers_do_not_meet", two_load_balancers_do_not_meet),
    ("addresses_from_outside_lead_in", addresses_from_outside_lead_in),
];

/// A specification with port 80 for TCP and UDP, also at the node's port 30080.
fn with_node_ports(kind: &str, cluster_ip: &str) -> Value {
    json!({"type": kind, "clusterIP": cluster_ip, "ports": [
        {"name": "tcp", "port": 80, "nodePort": 30080},
        {"name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP"}]})
}

/// Waits until a pod is seen by the endpoint as who it is. As long as only the host's ports are open, and
/// the table does not have the address yet, it comes to the same pod by way of the host.
fn until_direct(from: &Pod, address: &str) {
    let expected = format!("b {}", from.address);
    until(|| ask(&from.netns, address), |it| it.as_ref().is_ok_and(|it| *it == expected));
}

fn node_ports_lead_to_endpoints() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service_with("web", with_node_ports("NodePort", "10.96.0.7"), json!({}));
    world.endpoints("web", &[&b]);
    until_direct(&a, "10.244.0.1:30080");
    assert_eq!(exchange(&udp(&a.netns, "10.244.0.1:30080"), b"?").unwrap(), b"b");
    // From an endpoint to itself.
    assert_eq!(ask(&b.netns, "10.244.0.1:30080").unwrap(), "b 10.244.0.1");
    // From the host.
    let answer = eventually(|| ask(host(), "127.0.0.1:30080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "b 10.244.0.1");
    let client = udp(host(), "127.0.0.1:30080");
    for _ in 0..3 {
        assert_eq!(exchange(&client, b"?").unwrap(), b"b");
    }
    // Without endpoints, here and there.
    world.endpoints("web", &[]);
    assert!(world.is_unrouted(b.address, PATIENCE));
    assert_eq!(ask(host(), "127.0.0.1:30080").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let error = ask(&a.netns, "10.244.0.1:30080").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    // No Service any more, so that the port is free.
    world.api.delete(SERVICES, "web");
    let at = "127.0.0.1:30080";
    let free = || TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok();
    until(|| namespace::inside(host(), free), |it| *it);
    assert_eq!(exchange(&client, b"?").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

fn node_ports_of_programs_on_the_host() {
    let world = World::start();
    let a = world.pod("a");
    namespace::serve(host(), 80, "program");
    world.service_with("web", with_node_ports("NodePort", "10.96.0.7"), json!({}));
    world.endpoints_at("web", &["10.244.0.1".parse().unwrap()]);
    let answer = eventually(|| ask(&a.netns, "10.244.0.1:30080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "program 127.0.0.1");
    let answer = eventually(|| ask(host(), "127.0.0.1:30080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "program 127.0.0.1");
}

fn load_balancers_have_addresses_of_their_own() {
    let world = World::start();
    let b = world.pod("b");
    let ingress = |of: &str| world.api.get(SERVICES, of)["status"]["loadBalancer"].clone();
    let mut spec = with_node_ports("LoadBalancer", "10.96.0.7");
    // Above 1024, so that an ordinary user may listen.
    for port in spec["ports"].as_array_mut().unwrap() {
        port["port"] = 8080.into();
    }
    world.service_with("web", spec.clone(), json!({}));
    world.endpoints("web", &[&b]);
    let written = eventually(|| ingress("web"), |it| !it["ingress"].is_null());
    let expected = json!({"ingress": [{"ip": "127.96.0.7", "ipMode": "Proxy", "ports": [
        {"port": 8080, "protocol": "TCP"}, {"port": 8080, "protocol": "UDP"}]}]});
    assert_eq!(written, expected);
    let answer = eventually(|| ask(host(), "127.96.0.7:8080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "b 10.244.0.1");
    assert_eq!(exchange(&udp(host(), "127.96.0.7:8080"), b"?").unwrap(), b"b");
    assert_eq!(ask(host(), "127.0.0.1:30080").unwrap(), "b 10.244.0.1");
    // It is one no more.
    spec["type"] = "ClusterIP".into();
    for port in spec["ports"].as_array_mut().unwrap() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    world.change("web", &spec);
    until(|| ingress("web"), Value::is_null);
    let refused = |at: &str| ask(host(), at).map_err(|it| it.kind());
    for at in ["127.96.0.7:8080", "127.0.0.1:30080"] {
        until(|| refused(at), |it| *it == Err(io::ErrorKind::ConnectionRefused));
    }
}

fn two_load_balancers_do_not_meet() {
    let world = World::start();
    let b = world.pod("b");
    // Another cluster on the host has been quicker.
    let other = namespace::inside(host(), || TcpListener::bind("127.96.0.7:8080").unwrap());
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": [
        {"name": "tcp", "port": 8080}]});
    world.service_with("web", spec, json!({}));
    world.endpoints("web", &[&b]);
    let answer = eventually(|| ask(host(), "127.97.0.7:8080"), Result::is_ok);
    assert_eq!(answer.unwrap(), "b 10.244.0.1");
    drop(other);
    let ip =
        || world.api.get(SERVICES, "web")["status"]["loadBalancer"]["ingress"][0]["ip"].clone();
    until(ip, |it| it == "127.97.0.7");
}

fn addresses_from_outside_lead_in() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let spec = json!({"clusterIP": "10.96.0.7", "externalIPs": [OUTSIDE, "192.0.2.77"],
        "ports": [{"name": "tcp", "port": 8080}]});
    world.service_with("web", spec, json!({}));
    world.endpoints("web", &[&b]);
    for external in [OUTSIDE, "192.0.2.77"] {
        until_direct(&a, &format!("{external}:8080"));
    }
    // The host has the first of them; that it does not have the other is nobody's mistake.
    let answer = eventually(|| ask(host(), &format!("{OUTSIDE}:8080")), Result::is_ok);
    assert_eq!(answer.unwrap(), "b 10.244.0.1");
    assert_eq!(world.api.recorded(), Vec::<String>::new());
}
