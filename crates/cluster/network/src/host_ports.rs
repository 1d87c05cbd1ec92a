//! Ports of the host that pods ask for (`hostPort`), and where they lead. Pure.

use std::net::{Ipv4Addr, SocketAddrV4};

use client::{Caches, Subscription};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use crate::{
    directory,
    nft::{Frontend, Transport},
};

/// One port of the host that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// None: every address.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) transport: Transport,
    pub(crate) number: u16,
    pub(crate) target: SocketAddrV4,
}

/// Changes of pods that ask for ports of the host.
pub(crate) fn asking(caches: &Caches) -> Subscription<Pod> {
    caches.of::<Pod>().subscribe_to(|old, new| old.or(new).is_some_and(is_asking))
}

/// Whether a pod asks for ports of the host that it does not have by being on the host's network.
fn is_asking(pod: &Pod) -> bool {
    asked(pod).next().is_some()
}

/// The ports of the host that lead to a pod now: from when it has an address until it has ended.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let status = pod.status.as_ref();
    let ended = status.and_then(|it| it.phase.as_deref());
    let address = status.and_then(|it| it.pod_ip.as_deref()?.parse::<Ipv4Addr>().ok());
    let Some(pod_ip) = address.filter(|_| !matches!(ended, Some("Succeeded" | "Failed"))) else {
        return Vec::new();
    };
    let port = |it: &ContainerPort| {
        let number = u16::try_from(it.host_port?).ok()?;
        let target = SocketAddrV4::new(pod_ip, u16::try_from(it.container_port).ok()?);
        let transport = directory::transport(it.protocol.as_deref())?;
        let address = match it.host_ip.as_deref() {
            None | Some("") => None,
            // An address of IPv6 is none of ours.
            Some(text) => Some(text.parse::<Ipv4Addr>().ok()?).filter(|it| !it.is_unspecified()),
        };
        Some(HostPort { address, transport, number, target })
    };
    asked(pod).filter_map(port).collect()
}

/// Where in the cluster's network the ports are reached: at the node's address.
pub(crate) fn frontends(pod: &Pod, node: Ipv4Addr) -> Vec<(Frontend, SocketAddrV4)> {
    let here = host_ports(pod).into_iter().filter(|it| it.address.is_none_or(|it| it == node));
    here.map(|HostPort { transport, number, target, .. }| {
        (Frontend { address: node, transport, port: number }, target)
    })
    .collect()
}

fn asked(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.as_ref().filter(|it| it.host_network != Some(true));
    let sidecars = spec.into_iter().flat_map(|it| it.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = spec.into_iter().flat_map(|it| &it.containers).chain(sidecars);
    let ports = containers.flat_map(|it: &Container| it.ports.iter().flatten());
    ports.filter(|it| it.host_port.is_some_and(|it| it != 0))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(pod: Value, expected: Expect) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let node = Ipv4Addr::new(10, 244, 0, 1);
        let inside: Vec<Frontend> = frontends(&pod, node).into_iter().map(|it| it.0).collect();
        let show = |it: HostPort| {
            let HostPort { address, transport, number, target } = it;
            let address = address.map_or("*".to_owned(), |it| it.to_string());
            let at = Frontend { address: node, transport, port: number };
            let inside = if inside.contains(&at) { ", inside too" } else { "" };
            format!("{address}:{number}/{transport:?} > {target}{inside}")
        };
        let ports: Vec<String> = host_ports(&pod).into_iter().map(show).collect();
        expected.assert_eq(&ports.join("\n"));
    }

    fn containers() -> Value {
        json!([{"name": "a", "ports": [
            {"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
            {"containerPort": 81, "hostPort": 8081, "hostIP": "10.244.0.1"},
            {"containerPort": 82, "hostPort": 8082, "hostIP": "0.0.0.0"},
            {"containerPort": 83, "hostPort": 8083, "hostIP": "::1"},
            {"containerPort": 84}, {"containerPort": 7, "hostPort": 7, "protocol": "SCTP"}]}])
    }

    #[test]
    fn ports_lead_to_the_pod() {
        let status = json!({"podIP": "10.244.0.9", "phase": "Running"});
        check(
            json!({"spec": {"containers": containers(), "initContainers": [
                {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 2}]},
                {"name": "i", "ports": [{"containerPort": 3, "hostPort": 4}]}]}, "status": status}),
            expect![[r"
                *:8080/Tcp > 10.244.0.9:80, inside too
                127.0.0.1:53/Udp > 10.244.0.9:53
                10.244.0.1:8081/Tcp > 10.244.0.9:81, inside too
                *:8082/Tcp > 10.244.0.9:82, inside too
                *:2/Tcp > 10.244.0.9:1, inside too"]],
        );
    }

    #[test]
    fn some_pods_have_none() {
        let spec = json!({"containers": containers()});
        check(json!({"spec": spec, "status": {"phase": "Pending"}}), expect![""]);
        let ended = json!({"podIP": "10.244.0.9", "phase": "Succeeded"});
        check(json!({"spec": spec, "status": ended}), expect![""]);
        let running = json!({"podIP": "10.244.0.1", "phase": "Running"});
        let spec = json!({"containers": containers(), "hostNetwork": true});
        check(json!({"spec": spec, "status": running}), expect![""]);
    }
}
