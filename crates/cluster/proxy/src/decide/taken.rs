//! Ports of the host that objects ask for: the proxy leaves them.

use std::{collections::BTreeSet, sync::Arc};

use api::annotation::{PUBLISH, Publish};
use k8s_openapi::api::core::v1::{Pod, Service};

/// The ports at which Services are to be published, and those of pods on the host's network or with a port
/// there.
pub(super) fn ports(services: &[Arc<Service>], pods: &[Arc<Pod>]) -> BTreeSet<u16> {
    let annotations = services.iter().filter_map(|it| it.metadata.annotations.as_ref());
    let lists = annotations.filter_map(|it| it.get(PUBLISH));
    let published = lists.filter_map(|it| Publish::parse_list(it).ok()).flatten();
    let of_services = published.map(|it| it.host_port);
    of_services.chain(pods.iter().flat_map(|it| of_pod(it))).collect()
}

/// The ports of the host that a pod has, until it has ended. One on the host's network has all of its ports
/// there, as the API says in `hostPort`.
pub(crate) fn of_pod(pod: &Pod) -> impl Iterator<Item = u16> {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    let spec = pod.spec.as_ref().filter(|_| !matches!(phase, Some("Succeeded" | "Failed")));
    let containers = spec.into_iter().flat_map(|it| &it.containers);
    let ports = containers.flat_map(|it| it.ports.iter().flatten());
    ports.filter_map(|it| it.host_port.and_then(|it| u16::try_from(it).ok()))
}
