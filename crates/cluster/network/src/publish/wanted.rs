//! What a Service wants published on the host. Pure.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use api::annotation::{PUBLISH, Publish};
use client::ResourceExt as _;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};

use crate::{
    addresses::Addresses,
    directory::transport,
    family::IpFamily,
    host_ports::{HostPort, host_ports},
    nft::Transport,
};

/// A port on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) address: SocketAddrV4,
    pub(super) transport: Transport,
}

/// Who asks for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    /// The annotation [`PUBLISH`].
    Annotation,
    /// `nodePort` of a Service's port.
    NodePort,
    /// `type: LoadBalancer`.
    Balancer,
    /// `externalIPs`: addresses that lead to this node. If the host has one, it is meant.
    ExternalAddress,
    /// `hostPort` of a pod.
    HostPort,
}

/// Where connections to a port go, and who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) target: SocketAddr,
    pub(super) asker: Asker,
}

/// What a Service wants published, and what of it cannot be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ports: BTreeMap<At, Lead>,
    pub(super) problems: Vec<String>,
}

/// How many clusters side by side may give the same address and ports to a balancer.
const BALANCERS_MAX: u8 = 16;

/// What a Service wants, but for its load balancer, whose address is to be found first.
pub(super) fn wanted(service: &Service, addresses: &Addresses) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(spec) = &service.spec else { return wanted };
    let reached = reached(service, addresses);
    annotated(service, reached, spec, &mut wanted);
    let (Some((family, low)), false) = (reached, is_external_name(spec)) else { return wanted };
    for (port, number, transport) in ports(spec) {
        if let Some(node_port) =
            port.node_port.and_then(|it| u16::try_from(it).ok()).filter(|it| *it != 0)
        {
            let at = At { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, node_port), transport };
            let target = SocketAddr::new(family.at(addresses.gateway()), node_port);
            wanted.ports.insert(at, Lead { target, asker: Asker::NodePort });
        }
        for external in spec.external_ips.iter().flatten().filter_map(|it| it.parse().ok()) {
            let at = At { address: SocketAddrV4::new(external, number), transport };
            let target = SocketAddr::new(family.at(low), number);
            wanted.ports.insert(at, Lead { target, asker: Asker::ExternalAddress });
        }
    }
    wanted
}

/// The ports of the host that lead to a pod: at the address that it names, which the node's own is not
/// on the host, or at `127.0.0.1`.
pub(super) fn of_pod(pod: &Pod, addresses: &Addresses) -> BTreeMap<At, Lead> {
    let ports = host_ports(pod).into_iter().filter(|it| it.address != Some(addresses.gateway()));
    let lead = |HostPort { address, transport, number, target }| {
        let address = SocketAddrV4::new(address.unwrap_or(Ipv4Addr::LOCALHOST), number);
        (At { address, transport }, Lead { target: target.into(), asker: Asker::HostPort })
    };
    ports.map(lead).collect()
}

/// The ports of a Service's load balancer, if it is to have one here, at an address.
pub(super) fn balanced(
    service: &Service,
    at: Ipv4Addr,
    addresses: &Addresses,
) -> BTreeMap<At, Lead> {
    let (Some(spec), Some((family, low))) = (&service.spec, reached(service, addresses)) else {
        return BTreeMap::new();
    };
    let lead = |(_, number, transport)| {
        let at = At { address: SocketAddrV4::new(at, number), transport };
        let target = SocketAddr::new(family.at(low), number);
        (at, Lead { target, asker: Asker::Balancer })
    };
    ports(spec).map(lead).collect()
}

/// Addresses for a Service's load balancer, the best first; none if it does not want one of ours.
///
/// Each Service has one of the host's loopback addresses to itself, `127.` and then as its cluster
/// address goes on, so that two can have the same port, and a restart finds the same one. Where
/// another cluster on the host has it, the next in the second place of four is tried.
pub(super) fn balancers(service: &Service, addresses: &Addresses) -> Vec<Ipv4Addr> {
    let (Some(spec), Some((_, low))) = (&service.spec, reached(service, addresses)) else {
        return Vec::new();
    };
    if spec.type_.as_deref() != Some("LoadBalancer") || spec.load_balancer_class.is_some() {
        return Vec::new();
    }
    if let Some(wish) = spec.load_balancer_ip.as_deref().filter(|it| !it.is_empty()) {
        return wish.parse().into_iter().collect();
    }
    let [_, second, third, fourth] = low.octets();
    let own =
        (0..BALANCERS_MAX).map(|it| Ipv4Addr::new(127, second.wrapping_add(it), third, fourth));
    let own = own.filter(|it| *it != Ipv4Addr::LOCALHOST);
    balancer(service).into_iter().chain(own).collect()
}

/// By what a Service is reached in here: its IPv4 address, if it has one.
fn reached(service: &Service, addresses: &Addresses) -> Option<(IpFamily, Ipv4Addr)> {
    let families = IpFamily::all(addresses).into_iter();
    families.map(|it| it.0).find_map(|family| Some((family, family.cluster_ip(service)?)))
}

/// The address of ours that a Service's load balancer has already.
pub(super) fn balancer(service: &Service) -> Option<Ipv4Addr> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    let ingress = status.ingress.as_ref()?.first()?;
    let address: Ipv4Addr = ingress.ip.as_deref()?.parse().ok()?;
    address.is_loopback().then_some(address)
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("ExternalName")
}

/// The ports that are routed.
fn ports(spec: &ServiceSpec) -> impl Iterator<Item = (&ServicePort, u16, Transport)> {
    let ports = spec.ports.iter().flatten();
    ports.filter_map(|it| {
        Some((it, u16::try_from(it.port).ok()?, transport(it.protocol.as_deref())?))
    })
}

/// What the annotation asks for.
fn annotated(
    service: &Service,
    reached: Option<(IpFamily, Ipv4Addr)>,
    spec: &ServiceSpec,
    wanted: &mut Wanted,
) {
    let Some(text) = service.annotations().get(PUBLISH) else { return };
    let list = match Publish::parse_list(text) {
        Ok(list) => list,
        Err(error) => return wanted.problems.push(format!("annotation {PUBLISH}: {error}")),
    };
    let Some((family, low)) = reached else {
        let problem = "a Service without a cluster address cannot be published";
        return wanted.problems.push(problem.to_owned());
    };
    for Publish { host_port, service_port } in list {
        let mut transports: Vec<Transport> = ports(spec)
            .filter_map(|(_, it, transport)| (it == service_port).then_some(transport))
            .collect();
        transports.dedup();
        if transports.is_empty() {
            let problem = format!("the Service has no port {service_port} to publish");
            wanted.problems.push(problem);
        }
        for transport in transports {
            let at = At { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, host_port), transport };
            let target = SocketAddr::new(family.at(low), service_port);
            wanted.ports.insert(at, Lead { target, asker: Asker::Annotation });
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::addresses::Prefix;

    fn show(ports: &BTreeMap<At, Lead>) -> Vec<String> {
        let show = |(at, lead): (&At, &Lead)| {
            let (At { address, transport }, Lead { target, asker }) = (at, lead);
            format!("{address}/{transport:?} > {target} {asker:?}")
        };
        ports.iter().map(show).collect()
    }

    fn check(service: Value, expected: Expect) {
        let service: Service = serde_json::from_value(service).unwrap();
        let v6 = Some(Prefix::local([0x12, 0x34, 0x56, 0x78, 0x9a]));
        let addresses = Addresses { v6, ..Addresses::default() };
        let Wanted { ports, problems } = wanted(&service, &addresses);
        let balancers = balancers(&service, &addresses);
        let balanced =
            balancers.first().map(|it| balanced(&service, *it, &addresses)).unwrap_or_default();
        let lines = [show(&ports), show(&balanced), problems].concat();
        expected.assert_eq(&lines.join("\n"));
    }

    fn annotated(annotation: &str, cluster_ip: &str, expected: Expect) {
        let service = json!({
            "metadata": {"annotations": {PUBLISH: annotation}},
            "spec": {"clusterIP": cluster_ip, "ports": [
                {"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 7, "protocol": "SCTP"},
            ]},
        });
        check(service, expected);
    }

    #[test]
    fn a_service_of_ipv6_alone_is_reached_by_it() {
        check(
            json!({"metadata": {"annotations": {"coracle.dev/publish": "8080:80"}}, "spec": {
                "type": "LoadBalancer", "clusterIP": "fd12:3456:789a::107",
                "clusterIPs": ["fd12:3456:789a::107"], "ports": [{"port": 80, "nodePort": 30080}]}}),
            expect![[r#"
                127.0.0.1:8080/Tcp > [fd12:3456:789a::107]:80 Annotation
                127.0.0.1:30080/Tcp > [fd12:3456:789a::af4:1]:30080 NodePort
                127.0.1.7:80/Tcp > [fd12:3456:789a::107]:80 Balancer"#]],
        );
        check(
            json!({"metadata": {"annotations": {"coracle.dev/publish": "8080:80"}}, "spec": {
                "clusterIP": "fd12:3456:789a::107", "clusterIPs": ["fd12:3456:789a::107", "10.96.0.7"],
                "ports": [{"port": 80, "nodePort": 30080}]}}),
            expect![[r#"
                127.0.0.1:8080/Tcp > 10.96.0.7:80 Annotation
                127.0.0.1:30080/Tcp > 10.244.0.1:30080 NodePort"#]],
        );
    }

    #[test]
    fn a_pod_has_the_ports_of_the_host_that_it_asks_for() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080},
            {"containerPort": 53, "hostPort": 8080, "protocol": "UDP", "hostIP": "127.0.0.9"},
            {"containerPort": 80, "hostPort": 8080, "hostIP": "10.244.0.1"}]);
        let pod = json!({"spec": {"containers": [{"name": "a", "ports": ports}]},
            "status": {"podIP": "10.244.0.9"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        expect![[r"
            127.0.0.1:8080/Tcp > 10.244.0.9:80 HostPort
            127.0.0.9:8080/Udp > 10.244.0.9:53 HostPort"]]
        .assert_eq(&show(&of_pod(&pod, &Addresses::default())).join("\n"));
    }

    #[test]
    fn publishes_ports_of_cluster_addresses() {
        annotated(
            "8080:80, 80, 5353:53",
            "10.96.0.7",
            expect![[r"
                127.0.0.1:80/Tcp > 10.96.0.7:80 Annotation
                127.0.0.1:5353/Udp > 10.96.0.7:53 Annotation
                127.0.0.1:8080/Tcp > 10.96.0.7:80 Annotation"]],
        );
        annotated(
            "8080:81,7",
            "10.96.0.7",
            expect![[r"
                the Service has no port 81 to publish
                the Service has no port 7 to publish"]],
        );
        annotated(
            "8080:80",
            "None",
            expect!["a Service without a cluster address cannot be published"],
        );
        annotated(
            "http",
            "10.96.0.7",
            expect![
                "annotation coracle.dev/publish: `http` is not HOSTPORT:PORT with ports from 1 to 65535"
            ],
        );
    }

    #[test]
    fn a_load_balancer_has_node_ports_and_an_address() {
        let mut service = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.3.7", "ports": [
            {"port": 80, "nodePort": 30080}, {"port": 53, "nodePort": 30053, "protocol": "UDP"}]}});
        check(
            service.clone(),
            expect![[r"
                127.0.0.1:30053/Udp > 10.244.0.1:30053 NodePort
                127.0.0.1:30080/Tcp > 10.244.0.1:30080 NodePort
                127.96.3.7:53/Udp > 10.96.3.7:53 Balancer
                127.96.3.7:80/Tcp > 10.96.3.7:80 Balancer"]],
        );
        service["spec"]["loadBalancerClass"] = "example.com/other".into();
        check(
            service,
            expect![[r"
                127.0.0.1:30053/Udp > 10.244.0.1:30053 NodePort
                127.0.0.1:30080/Tcp > 10.244.0.1:30080 NodePort"]],
        );
    }

    #[test]
    fn a_load_balancer_keeps_its_address() {
        let service = |cluster_ip: &str, spec: Value, had: &str| {
            let mut service = json!({"spec": {"type": "LoadBalancer", "clusterIP": cluster_ip},
                "status": {"loadBalancer": {"ingress": [{"ip": had}]}}});
            for (key, value) in spec.as_object().unwrap() {
                service["spec"][key] = value.clone();
            }
            let service: Service = serde_json::from_value(service).unwrap();
            let all = balancers(&service, &Addresses::default());
            all.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(service("10.96.0.7", json!({}), ""), "127.96.0.7 127.97.0.7 127.98.0.7");
        assert_eq!(
            service("10.96.0.7", json!({}), "127.97.0.7"),
            "127.97.0.7 127.96.0.7 127.97.0.7"
        );
        assert_eq!(
            service("10.96.0.7", json!({}), "192.0.2.1"),
            "127.96.0.7 127.97.0.7 127.98.0.7"
        );
        assert_eq!(service("10.0.0.1", json!({}), ""), "127.1.0.1 127.2.0.1 127.3.0.1");
        assert_eq!(service("10.0.0.1", json!({"loadBalancerIP": "192.0.2.1"}), ""), "192.0.2.1");
    }

    #[test]
    fn addresses_from_outside_are_tried() {
        check(
            json!({"spec": {"clusterIP": "10.96.3.7", "externalIPs": ["192.0.2.1", "2001:db8::1"],
                "ports": [{"port": 80}]}}),
            expect!["192.0.2.1:80/Tcp > 10.96.3.7:80 ExternalAddress"],
        );
    }
}
