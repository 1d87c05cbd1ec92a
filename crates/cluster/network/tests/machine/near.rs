//! Services that lead pods to what is near: on their own node, or in its zone.

use std::io::ErrorKind;

use serde_json::{Value, json};

use crate::{
    Test,
    namespace::{ask, exchange, udp},
    world::{Pod, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("pods_reach_what_is_on_their_node", pods_reach_what_is_on_their_node),
    ("pods_prefer_what_is_near", pods_prefer_what_is_near),
];

/// Connections of each client: of two endpoints both would be seen.
const ROUNDS: usize = 20;

/// Three nodes in two zones, each with a client, the first two with a server.
struct Nodes {
    world: World,
    clients: [Pod; 3],
    servers: [Pod; 2],
}

impl Nodes {
    fn start() -> Self {
        let world = World::start();
        for (number, (name, zone)) in (0..).zip([("one", "a"), ("two", "b"), ("three", "a")]) {
            world.node(name, number, zone);
        }
        let servers = [world.pod_on(0, "one"), world.pod_on(1, "two")];
        let clients = [("c", 0), ("d", 1), ("e", 2)].map(|(name, node)| world.pod_on(node, name));
        Self { world, clients, servers }
    }

    /// What the Service's endpoints are: the servers, with hints.
    fn serve(&self, hints: [Value; 2]) {
        let servers = self.servers.iter().zip(["one", "two"]).zip(hints);
        let endpoints = servers.map(|((pod, node), hints)| {
            json!({"addresses": [pod.address], "nodeName": node, "hints": hints})
        });
        self.world.slice("web", "web", 80, endpoints.collect());
    }

    /// Who answers each of the clients, in the order of their names; empty if they are refused.
    fn answers(&self) -> [String; 3] {
        [0, 1, 2].map(|client| {
            let mut names: Vec<String> = (0..ROUNDS).map(|_| self.answer(client)).collect();
            names.sort();
            names.dedup();
            names.join(" ")
        })
    }

    fn answer(&self, client: usize) -> String {
        let Pod { netns, address } = &self.clients[client];
        match ask(netns, "10.96.0.7:80") {
            Ok(answer) => answer.strip_suffix(&format!(" {address}")).unwrap().to_owned(),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => String::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn pods_reach_what_is_on_their_node() {
    let mut nodes = Nodes::start();
    let local = json!({"clusterIP": "10.96.0.7", "internalTrafficPolicy": "Local"});
    nodes.world.service_with("web", local, json!({}));
    nodes.serve([json!(null), json!(null)]);
    until(|| nodes.answers(), |it| *it == ["one", "two", ""]);
    let [first, second, _] = &nodes.clients;
    for (client, name) in [(first, "one"), (second, "two")] {
        let answer = exchange(&udp(&client.netns, "10.96.0.7:80"), b"who?").unwrap();
        assert!(String::from_utf8(answer).unwrap().starts_with(name));
    }
    // It is all in the kernel, and is found there.
    nodes.world.stop();
    assert_eq!(nodes.answers(), ["one", "two", ""]);
    nodes.world.resume();
    assert_eq!(nodes.answers(), ["one", "two", ""]);
    let spec = json!({"clusterIP": "10.96.0.7", "internalTrafficPolicy": "Cluster", "ports": [
        {"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]});
    nodes.world.change("web", &spec);
    until(|| nodes.answers(), |it| it.iter().all(|it| it == "one two"));
}

fn pods_prefer_what_is_near() {
    let nodes = Nodes::start();
    let sticky = json!({"clusterIP": "10.96.0.7", "sessionAffinity": "ClientIP"});
    nodes.world.service_with("web", sticky, json!({}));
    let named = |name: &str| json!([{"name": name}]);
    nodes.serve(["a", "b"].map(|it| json!({"forZones": named(it)})));
    until(|| nodes.answers(), |it| *it == ["one", "two", "one"]);
    // The third node's zone has nobody now, so its pods go anywhere; a client that is remembered stays.
    nodes.world.service("web", "10.96.0.7");
    nodes.serve(["b", "b"].map(|it| json!({"forZones": named(it)})));
    until(|| nodes.answers(), |it| *it == ["one two", "one two", "one two"]);
    let near = [("one", "a"), ("two", "a")];
    nodes.serve(near.map(|(node, of)| json!({"forNodes": named(node), "forZones": named(of)})));
    until(|| nodes.answers(), |it| *it == ["one", "two", "one two"]);
}
