//! What a pod may say of itself in a variable: `fieldRef` and `resourceFieldRef`.
//! <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{context::PodAddress, quantity};

/// What only the node knows of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The pod's addresses.
    pub pod_ip: PodAddress,
    /// The node's address.
    pub host_ip: Ipv4Addr,
    /// CPU of the node in thousandths: the limit of a container that names none.
    pub cpu_millis: u64,
    /// Memory of the node in bytes: the limit of a container that names none.
    pub memory_bytes: u64,
}

/// The value of the field that `path` names, or the kubelet's words for why there is none.
pub(super) fn field(pod: &Pod, place: &Place, path: &str) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |it: Option<&String>| it.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(metadata.name.as_ref()),
        "metadata.namespace" => text(metadata.namespace.as_ref()),
        "metadata.uid" => text(metadata.uid.as_ref()),
        "spec.nodeName" => text(spec.and_then(|it| it.node_name.as_ref())),
        "spec.serviceAccountName" => {
            spec.and_then(|it| it.service_account_name.clone()).unwrap_or_default()
        }
        "status.podIP" => place.pod_ip.v4.to_string(),
        "status.podIPs" => {
            let all: Vec<String> = place.pod_ip.all().map(|it| it.to_string()).collect();
            all.join(",")
        }
        "status.hostIP" | "status.hostIPs" => place.host_ip.to_string(),
        _ => match subscript(path) {
            Some(("metadata.labels", key)) => {
                text(metadata.labels.as_ref().and_then(|it| it.get(key)))
            }
            Some(("metadata.annotations", key)) => {
                text(metadata.annotations.as_ref().and_then(|it| it.get(key)))
            }
            _ => return Err(format!("unsupported fieldPath: {path}")),
        },
    })
}

/// Splits `metadata.labels['app']` into the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

/// The value of one of a container's requests or limits, in units of the divisor, rounded up.
pub(super) fn resource(
    pod: &Pod,
    own: &Container,
    place: &Place,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let containers = pod.spec.as_ref().map(|it| it.containers.as_slice()).unwrap_or_default();
    let container = match selector.container_name.as_deref().filter(|it| !it.is_empty()) {
        None => own,
        Some(name) => containers
            .iter()
            .find(|it| it.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|it| it.requests.as_ref());
    let limits = resources.and_then(|it| it.limits.as_ref());
    let (kind, resource) = selector.resource.split_once('.').unwrap_or_default();
    let stated = match kind {
        "limits" => limits.and_then(|it| it.get(resource)),
        "requests" => requests
            .and_then(|it| it.get(resource))
            .or_else(|| limits.and_then(|it| it.get(resource))),
        _ => None,
    };
    let millis = match (stated, kind, resource) {
        (Some(quantity), ..) => {
            quantity::millis(&quantity.0).ok_or_else(|| format!("bad quantity {}", quantity.0))?
        }
        (None, "limits", "cpu") => i128::from(place.cpu_millis),
        (None, "limits", "memory") => i128::from(place.memory_bytes) * 1000,
        (None, "requests", "cpu" | "memory" | "ephemeral-storage")
        | (None, "limits", "ephemeral-storage") => 0,
        _ => {
            return Err(format!("unsupported container resource : {}", selector.resource));
        }
    };
    let divisor = selector.divisor.as_ref().and_then(|it| quantity::millis(&it.0));
    let divisor = divisor.filter(|it| *it > 0).unwrap_or(1000);
    Ok(((millis + divisor - 1) / divisor).to_string())
}
