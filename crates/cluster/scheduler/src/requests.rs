//! What a pod asks of a node: resources and ports of the host.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

/// Amounts by resource name: CPU in thousandths, everything else in whole units.
pub(crate) type Amounts = BTreeMap<String, i64>;

/// A port of the host that a pod wants: address, protocol, number.
pub(crate) type HostPort = (String, String, i32);

/// The address that stands for all of the host's.
const ANY_ADDRESS: &str = "0.0.0.0";

/// Reads amounts as the API has checked them; what cannot be read counts as nothing.
pub(crate) fn amounts(texts: Option<&BTreeMap<String, Text>>) -> Amounts {
    let amount = |(name, text): (&String, &Text)| {
        let quantity: Quantity = text.0.parse().ok()?;
        let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
        Some((name.clone(), amount))
    };
    texts.into_iter().flatten().filter_map(amount).collect()
}

/// What the pod needs at any moment of its life: its containers run together with those init
/// containers that go on (sidecars), the other init containers one after another before
/// (`PodRequests` of component-helpers, KEP-753).
pub(crate) fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    let mut together = sidecars;
    for container in &spec.containers {
        add(&mut together, &of_container(container));
    }
    raise(&mut peak, &together);
    // What is said for the pod as a whole replaces the sum (KEP-2837).
    peak.extend(of_requirements(spec.resources.as_ref()));
    add(&mut peak, &amounts(spec.overhead.as_ref()));
    peak
}

fn of_container(container: &Container) -> Amounts {
    of_requirements(container.resources.as_ref())
}

fn of_requirements(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|it| it.requests.as_ref()))
}

/// Adds `more` to `sum`.
pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = sum.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

/// Takes `less` from `sum`.
pub(crate) fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        let sum = sum.entry(name.clone()).or_default();
        *sum = sum.saturating_sub(*amount);
    }
}

fn raise(peak: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let peak = peak.entry(name.clone()).or_default();
        *peak = (*peak).max(*amount);
    }
}

/// The ports of the host that the pod wants.
pub(crate) fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    let containers = pod.spec.iter().flat_map(|it| &it.containers);
    let ports = containers.flat_map(|it| it.ports.iter().flatten());
    let wanted = ports.filter_map(|it| {
        let number = it.host_port.filter(|it| 0 < *it)?;
        let address = it.host_ip.clone().filter(|it| !it.is_empty());
        let address = address.unwrap_or_else(|| ANY_ADDRESS.to_owned());
        let protocol = it.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((address, protocol, number))
    });
    wanted.collect()
}

/// Whether two pods that want these ports cannot share a host.
pub(crate) fn clash(one: &HostPort, other: &HostPort) -> bool {
    let same_address = one.0 == other.0 || one.0 == ANY_ADDRESS || other.0 == ANY_ADDRESS;
    same_address && one.1 == other.1 && one.2 == other.2
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(pod: serde_json::Value, expect: Expect) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        expect.assert_eq(&format!("{:?} {:?}", requests(&pod), host_ports(&pod)));
    }

    fn asks(cpu: &str) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_peak() {
        let mut sidecar = asks("100m");
        sidecar["restartPolicy"] = "Always".into();
        check(
            serde_json::json!({"spec": {
                "containers": [asks("1"), asks("500m")],
                "initContainers": [asks("1"), sidecar, asks("1.55")],
                "overhead": {"cpu": "1m", "memory": "1Mi"},
            }}),
            expect![[r#"{"cpu": 1651, "memory": 1048576} {}"#]],
        );
    }

    #[test]
    fn host_ports_are_read_with_their_defaults() {
        let ports = serde_json::json!([
            {"containerPort": 1, "hostPort": 80},
            {"containerPort": 2, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
            {"containerPort": 3},
        ]);
        check(
            serde_json::json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}),
            expect![[r#"{} {("0.0.0.0", "TCP", 80), ("127.0.0.1", "UDP", 53)}"#]],
        );
        let port = |address: &str, number| (address.to_owned(), "TCP".to_owned(), number);
        assert!(clash(&port(ANY_ADDRESS, 80), &port("127.0.0.1", 80)));
        assert!(!clash(&port("127.0.0.2", 80), &port("127.0.0.1", 80)));
        assert!(!clash(&port(ANY_ADDRESS, 80), &port(ANY_ADDRESS, 81)));
    }
}
