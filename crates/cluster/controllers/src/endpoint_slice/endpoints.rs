//! What one pod contributes to a Service: its address, its ports, whether traffic may go there.

use api::selector::LabelSelector;
use client::Resource as _;
use k8s_openapi::{
    api::{
        core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    owner::is_deleting,
    pod::{is_ready, is_terminal},
};

/// The label of a Node that says where it stands.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Whether this controller is to keep slices for the Service at all.
pub(crate) fn has_selector(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let external = spec.type_.as_deref() == Some("ExternalName");
    !external && spec.selector.as_ref().is_some_and(|it| !it.is_empty())
}

/// Whether the Service selects the pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    let Some(selector) = selector.filter(|it| !it.is_empty()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|it| LabelSelector::from_labels(selector).matches(it))
}

/// Whether two states of a pod give the same endpoints to every Service.
pub(super) fn look_alike(one: &Pod, other: &Pod) -> bool {
    let parts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.metadata.uid.clone(),
            pod.metadata.labels.clone(),
            is_deleting(&pod.metadata),
            is_ready(pod),
            is_terminal(pod),
            pod.status.as_ref().and_then(|it| it.pod_ips.clone()),
            pod.status.as_ref().and_then(|it| it.pod_ip.clone()),
            spec.and_then(|it| it.node_name.clone()),
        )
    };
    parts(one) == parts(other)
}

/// Where a Node stands, if it says so.
pub(super) fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

/// Kinds of addresses that slices of the Service have: one per IP family.
pub(crate) fn address_types(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|it| it.ip_families.as_ref());
    let families = families.into_iter().flatten();
    let mut types: Vec<_> = families.map(|it| if it == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    types.dedup();
    if types.is_empty() { vec!["IPv4"] } else { types }
}

/// The endpoint of a pod; `None` if it has no address of this type, or has ended.
///
/// A pod that is asked to go is at once no longer ready, while it may go on serving: this is what
/// lets a Service lose no request when its pods are replaced (KEP-1672).
pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    zone: Option<&String>,
    address_type: &str,
) -> Option<Endpoint> {
    if is_terminal(pod) {
        return None;
    }
    let spec = service.spec.as_ref()?;
    let address = address(pod, address_type)?;
    let (serving, terminating) = (is_ready(pod), is_deleting(&pod.metadata));
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let target_ref =
        ObjectReference { api_version: None, resource_version: None, ..pod.object_ref(&()) };
    let mut endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|it| it.node_name.clone()),
        target_ref: Some(target_ref),
        zone: zone.cloned(),
        ..Default::default()
    };
    endpoint.hints = hints(spec.traffic_distribution.as_deref(), &endpoint);
    Some(endpoint)
}

/// Whose traffic an endpoint that is ready should get before others, by a Service's `trafficDistribution`.
/// Who prefers the same node is content with the same zone.
fn hints(distribution: Option<&str>, endpoint: &Endpoint) -> Option<EndpointHints> {
    let same_node = match distribution? {
        "PreferSameNode" => true,
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    endpoint.conditions.as_ref().filter(|it| it.ready == Some(true))?;
    let node = endpoint.node_name.clone().filter(|_| same_node);
    let for_nodes = node.map(|name| vec![ForNode { name }]);
    let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let some = for_nodes.is_some() || for_zones.is_some();
    some.then_some(EndpointHints { for_nodes, for_zones })
}

/// The pod's address of a type.
pub(crate) fn address(pod: &Pod, address_type: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|it| it.ip.clone());
    let mut all = listed.chain(status.pod_ip.clone()).filter(|it| !it.is_empty());
    all.find(|it| it.contains(':') == (address_type == "IPv6"))
}

/// A pod that names the Service as its subdomain gets a DNS name of its own below it.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|it| !it.is_empty())?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then_some(hostname)
}

/// The Service's ports as they are on this pod. A port whose name the pod does not know is left
/// out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|it| it.ports.iter().flatten());
    let on_pod = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, &protocol, pod)?),
            protocol: Some(protocol),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(on_pod).collect()
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Init containers that go on running (sidecars) have ports like the others.
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
            spec.containers.iter().chain(sidecars).find_map(|it| named_port(it, name, protocol))
        }
    }
}

fn named_port(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    let mut ports = container.ports.iter().flatten();
    let found = ports.find(|it| {
        it.name.as_deref() == Some(name) && it.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found.map(|it| it.container_port)
}
