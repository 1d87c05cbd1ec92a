//! Where Services and pods are reached on the host, as `status` shows it.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerPort, Service},
};

/// The places on the host of all Services of a Deployment, those that select its pods, and the ports of
/// the host that its pods ask for.
pub(crate) fn of_deployment(deployment: &Deployment, services: &[&Service]) -> Vec<String> {
    let labels =
        deployment.spec.as_ref().and_then(|it| it.template.metadata.as_ref()?.labels.as_ref());
    let selects = |service: &Service| {
        let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
        selector.filter(|it| !it.is_empty()).zip(labels).is_some_and(|(selector, labels)| {
            selector.iter().all(|(name, value)| labels.get(name) == Some(value))
        })
    };
    let of_it = services
        .iter()
        .filter(|it| it.metadata.namespace == deployment.metadata.namespace && selects(it));
    of_it.flat_map(|it| places(it)).chain(host_ports(deployment)).collect()
}

/// `ADDRESS:HOSTPORT` of each port of the host that the pods of a Deployment ask for.
fn host_ports(deployment: &Deployment) -> impl Iterator<Item = String> {
    let template = deployment.spec.as_ref().and_then(|it| it.template.spec.as_ref());
    let template = template.filter(|it| it.host_network != Some(true));
    let containers = template.into_iter().flat_map(|it| &it.containers);
    let ports = containers.flat_map(|it| it.ports.iter().flatten());
    ports.filter_map(|it: &ContainerPort| {
        let number = it.host_port.filter(|it| *it != 0)?;
        let address = it.host_ip.as_deref().filter(|it| !it.is_empty() && *it != "0.0.0.0");
        let protocol = it.protocol.as_deref().unwrap_or("TCP");
        Some(with_protocol(address.unwrap_or("127.0.0.1"), number, protocol))
    })
}

/// What is published of a Service: `HOSTPORT:PORT` by annotation, `ADDRESS:PORT` of a load balancer, and
/// `127.0.0.1:NODEPORT` of each port that has no other place.
fn places(service: &Service) -> Vec<String> {
    let annotation = service.metadata.annotations.iter().flatten();
    let annotation = annotation.filter(|(name, _)| *name == api::annotation::PUBLISH);
    let mut places: Vec<String> = annotation.map(|(_, it)| it.clone()).collect();
    let status = service.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let mut open = Vec::new();
    for ingress in status.and_then(|it| it.ingress.as_ref()).into_iter().flatten() {
        let ports = ingress.ports.iter().flatten().filter(|it| it.error.is_none());
        for (port, address) in ports.zip(std::iter::repeat(ingress.ip.as_deref())) {
            places.extend(address.map(|address| with_protocol(address, port.port, &port.protocol)));
            open.push((port.port, port.protocol.as_str()));
        }
    }
    for port in service.spec.iter().flat_map(|it| it.ports.iter().flatten()) {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if let Some(node_port) = port.node_port
            && !open.contains(&(port.port, protocol))
        {
            places.push(with_protocol("127.0.0.1", node_port, protocol));
        }
    }
    places
}

fn with_protocol(address: &str, port: i32, protocol: &str) -> String {
    match protocol {
        "TCP" => format!("{address}:{port}"),
        other => format!("{address}:{port}/{other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(service: Value, expected: &str) {
        let service: Service = serde_json::from_value(service).unwrap();
        assert_eq!(places(&service).join(" "), expected);
    }

    #[test]
    fn says_where_to_connect() {
        let ports = json!([{"port": 80, "nodePort": 30080},
            {"port": 53, "nodePort": 30053, "protocol": "UDP"}]);
        check(json!({"spec": {"ports": [{"port": 80}]}}), "");
        check(
            json!({"metadata": {"annotations": {"coracle.dev/publish": "8080:80"}},
                "spec": {"ports": [{"port": 80}]}}),
            "8080:80",
        );
        check(json!({"spec": {"ports": ports}}), "127.0.0.1:30080 127.0.0.1:30053/UDP");
        let ingress = json!([{"ip": "127.96.0.7", "ports": [
            {"port": 80, "protocol": "TCP", "error": "PortNotPermitted"},
            {"port": 53, "protocol": "UDP"}]}]);
        check(
            json!({"spec": {"ports": ports}, "status": {"loadBalancer": {"ingress": ingress}}}),
            "127.96.0.7:53/UDP 127.0.0.1:30080",
        );
    }

    #[test]
    fn a_deployment_has_the_ports_of_the_host_that_its_pods_ask_for() {
        let ports = json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
            {"containerPort": 53, "hostPort": 53, "hostIP": "127.0.0.9", "protocol": "UDP"}]);
        let deployment = |on_host: bool| -> Deployment {
            let spec =
                json!({"hostNetwork": on_host, "containers": [{"name": "a", "ports": ports}]});
            let spec = json!({"selector": {}, "template": {"spec": spec}});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        assert_eq!(of_deployment(&deployment(false), &[]), ["127.0.0.1:8080", "127.0.0.9:53/UDP"]);
        assert_eq!(of_deployment(&deployment(true), &[]), Vec::<String>::new());
    }

    #[test]
    fn a_deployment_has_the_services_that_select_its_pods() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "web", "tier": "a"}}}}}))
        .unwrap();
        let service = |namespace: &str, selector: Value, node_port: i32| -> Service {
            serde_json::from_value(json!({"metadata": {"namespace": namespace},
                "spec": {"selector": selector, "ports": [{"port": 80, "nodePort": node_port}]}}))
            .unwrap()
        };
        let services = [
            service("shop", json!({"app": "web"}), 30001),
            service("shop", json!({"app": "web", "tier": "b"}), 30002),
            service("shop", json!({}), 30003),
            service("other", json!({"app": "web"}), 30004),
            service("shop", json!({"tier": "a"}), 30005),
        ];
        let services: Vec<&Service> = services.iter().collect();
        assert_eq!(of_deployment(&deployment, &services), ["127.0.0.1:30001", "127.0.0.1:30005"]);
    }
}
