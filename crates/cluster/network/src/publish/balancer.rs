//! What the status of a Service says of its load balancer.

use std::{collections::BTreeMap, net::Ipv4Addr};

use client::{Api, Client, Key, Patch, PatchParams, is_not_found};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, PortStatus, Service};
use serde_json::json;

use super::{
    Obstacle, Problem,
    wanted::{self, At, Lead},
};
use crate::nft::Transport;

/// Passed through a program, not translated: KEP-1860. In the cluster such an address is none.
const PROXY: &str = "Proxy";

/// Writes where the load balancer is, unless it is written already; what was written before is taken
/// away when there is to be none.
pub(super) async fn write(
    client: &Client,
    key: &Key,
    service: &Service,
    balancer: Option<(Ipv4Addr, &BTreeMap<At, Lead>)>,
    failed: &BTreeMap<At, Problem>,
) -> Result<(), client::Error> {
    let status = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let written = status.and_then(|it| it.ingress.clone()).unwrap_or_default();
    let wanted: Vec<LoadBalancerIngress> = match balancer {
        Some((address, ports)) => vec![ingress(address, ports, failed)],
        None if wanted::balancer(service).is_some() => Vec::new(),
        None => return Ok(()),
    };
    if wanted == written {
        return Ok(());
    }
    let services: Api<Service> = Api::namespaced(client.clone(), key.namespace_or_empty());
    // An empty list is none: the field goes.
    let ingress = if wanted.is_empty() { json!(null) } else { json!(wanted) };
    let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    match services.patch_status(&key.name, &PatchParams::default(), &patch).await {
        Err(error) if !is_not_found(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn ingress(
    address: Ipv4Addr,
    ports: &BTreeMap<At, Lead>,
    failed: &BTreeMap<At, Problem>,
) -> LoadBalancerIngress {
    let port = |at: &At| PortStatus {
        port: at.address.port().into(),
        protocol: match at.transport {
            Transport::Tcp => "TCP".to_owned(),
            Transport::Udp => "UDP".to_owned(),
        },
        error: failed.get(at).map(|it| it.obstacle.word().to_owned()),
    };
    LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some(PROXY.to_owned()),
        ports: Some(ports.keys().map(port).collect()),
        ..LoadBalancerIngress::default()
    }
}

impl Obstacle {
    /// In the form of `ports[].error`: a word in camel case.
    fn word(self) -> &'static str {
        match self {
            Self::InUse => "PortInUse",
            Self::NotPermitted => "PortNotPermitted",
            Self::NotHere => "AddressNotAvailable",
            Self::Other => "ListenFailed",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::addresses::Addresses;

    #[test]
    fn says_which_ports_are_not_open() {
        let service: Service = serde_json::from_value(json!({"spec": {"type": "LoadBalancer",
            "clusterIP": "10.96.0.7", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}}))
        .unwrap();
        let ports = wanted::balanced(&service, Ipv4Addr::new(127, 96, 0, 7), &Addresses::default());
        let problem = Problem { obstacle: Obstacle::NotPermitted, text: String::new() };
        let at = *ports.keys().find(|it| it.transport == Transport::Tcp).unwrap();
        let ingress =
            ingress(Ipv4Addr::new(127, 96, 0, 7), &ports, &BTreeMap::from([(at, problem)]));
        let expected: Value = json!({"ip": "127.96.0.7", "ipMode": "Proxy", "ports": [
            {"port": 53, "protocol": "UDP"},
            {"port": 80, "protocol": "TCP", "error": "PortNotPermitted"},
        ]});
        assert_eq!(serde_json::to_value(ingress).unwrap(), expected);
    }
}
