//! Where a Service is reached. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::{
    addresses::Addresses,
    family::IpFamily,
    nft::{Frontend, Transport},
};

/// Where clients in the cluster's network reach a Service by addresses of a family, each with the port that they reach: its
/// cluster address, its node ports at the gateway, and addresses from outside (`externalIPs`, and those
/// of a load balancer that does not want to be passed through, KEP-1860).
///
/// An address from outside that is one of the cluster's own is left out: a Service could take the
/// place of another (CVE-2020-8554), or of the API.
pub(crate) fn frontends<'a>(
    service: &'a Service,
    family: IpFamily,
    addresses: &Addresses,
) -> Vec<(Frontend, &'a ServicePort)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let status = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let ingress = status.and_then(|it| it.ingress.as_ref()).into_iter().flatten();
    let balanced = ingress.filter(|it| it.ip_mode.as_deref() != Some("Proxy"));
    let outside =
        balanced.filter_map(|it| it.ip.as_ref()).chain(spec.external_ips.iter().flatten());
    let outside = outside.filter_map(|it| family.parse(it));
    let outside = outside.filter(|it| {
        !addresses.pods.contains(*it) && !addresses.services.contains(*it) && !it.is_loopback()
    });
    let cluster_ip = family.cluster_ip(service);
    let places: Vec<Ipv4Addr> = cluster_ip.into_iter().chain(outside).collect();
    let mut frontends = Vec::new();
    for port in spec.ports.iter().flatten() {
        // SCTP is not routed.
        let Some(transport) = transport(port.protocol.as_deref()) else { continue };
        let mut add = |address, number: i32| {
            if let Some(port_number) = u16::try_from(number).ok().filter(|it| *it != 0) {
                frontends.push((Frontend { address, transport, port: port_number }, port));
            }
        };
        for place in &places {
            add(*place, port.port);
        }
        if cluster_ip.is_some() {
            add(addresses.gateway(), port.node_port.unwrap_or_default());
        }
    }
    frontends
}

/// The protocol of a port; none if it is not one that is routed.
pub(crate) fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        None | Some("" | "TCP") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(service: Value, expected: Expect) {
        let service: Service = serde_json::from_value(service).unwrap();
        let frontends = frontends(&service, IpFamily::V4, &Addresses::default());
        let show = |(at, port): &(Frontend, &ServicePort)| {
            let Frontend { address, transport, port: number } = at;
            format!("{address}:{number}/{transport:?} is port {}", port.port)
        };
        expected.assert_eq(&frontends.iter().map(show).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_load_balancer_is_reached_at_three_places() {
        check(
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": [
                {"port": 80, "nodePort": 30080}, {"port": 53, "nodePort": 30053, "protocol": "UDP"},
                {"port": 9, "nodePort": 30009, "protocol": "SCTP"}]},
              "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.example"},
                {"ip": "192.0.2.2", "ipMode": "Proxy"}]}}}),
            expect![[r"
                10.96.0.7:80/Tcp is port 80
                192.0.2.1:80/Tcp is port 80
                10.244.0.1:30080/Tcp is port 80
                10.96.0.7:53/Udp is port 53
                192.0.2.1:53/Udp is port 53
                10.244.0.1:30053/Udp is port 53"]],
        );
    }

    #[test]
    fn nobody_takes_the_place_of_the_cluster() {
        check(
            json!({"spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 443}],
                "externalIPs": ["10.96.0.1", "10.244.0.1", "127.0.0.1", "2001:db8::1", "192.0.2.1"]}}),
            expect![[r"
                10.96.0.7:443/Tcp is port 443
                192.0.2.1:443/Tcp is port 443"]],
        );
    }

    #[test]
    fn some_are_reached_nowhere() {
        check(json!({}), expect![""]);
        check(json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}), expect![""]);
        check(
            json!({"spec": {"type": "ExternalName", "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]}}),
            expect![""],
        );
    }
}
