//! The variables by which a container finds services without DNS: `WORKER_SERVICE_HOST`,
//! `WORKER_PORT_80_TCP_ADDR`, … as of the moment it starts.
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables of the services a pod of `namespace` is told about, in the order of the services:
/// those of its own namespace if `links` (`enableServiceLinks`), and always `default/kubernetes`.
/// Services without an address (headless, external name) have none.
pub(super) fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut result = Vec::new();
    for service in services {
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        if (links && own) || is_kubernetes(service) {
            result.extend(of_service(service));
        }
    }
    result
}

fn is_kubernetes(service: &Service) -> bool {
    service.metadata.namespace.as_deref() == Some("default")
        && service.metadata.name.as_deref() == Some("kubernetes")
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref();
    let address = spec.and_then(|it| it.cluster_ip.as_deref()).filter(|it| *it != "None");
    let ports = spec.and_then(|it| it.ports.as_deref()).unwrap_or_default();
    let (Some(address), Some(first)) = (address.filter(|it| !it.is_empty()), ports.first()) else {
        return Vec::new();
    };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut result = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|it| !it.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable_name(name));
            result.push((name, port.port.to_string()));
        }
    }
    result.push((format!("{prefix}_PORT"), url(address, first)));
    for port in ports {
        let name = format!("{prefix}_PORT_{}_{}", port.port, protocol(port));
        result.extend([
            (name.clone(), url(address, port)),
            (format!("{name}_PROTO"), protocol(port).to_ascii_lowercase()),
            (format!("{name}_PORT"), port.port.to_string()),
            (format!("{name}_ADDR"), address.to_owned()),
        ]);
    }
    result
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn url(address: &str, port: &ServicePort) -> String {
    let (protocol, port) = (protocol(port).to_ascii_lowercase(), port.port);
    if address.contains(':') {
        return format!("{protocol}://[{address}]:{port}");
    }
    format!("{protocol}://{address}:{port}")
}

fn variable_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ipv6_address_is_in_brackets_where_a_port_follows() {
        let service = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": "web" },
            "spec": { "clusterIP": "fd12:3456:789a::7", "ports": [{ "port": 80 }] },
        }));
        let variables = variables([&service.unwrap()], "shop", true);
        let lines: Vec<_> = variables.iter().map(|(name, it)| format!("{name}={it}")).collect();
        expect![[r#"
            WEB_SERVICE_HOST=fd12:3456:789a::7
            WEB_SERVICE_PORT=80
            WEB_PORT=tcp://[fd12:3456:789a::7]:80
            WEB_PORT_80_TCP=tcp://[fd12:3456:789a::7]:80
            WEB_PORT_80_TCP_PROTO=tcp
            WEB_PORT_80_TCP_PORT=80
            WEB_PORT_80_TCP_ADDR=fd12:3456:789a::7"#]]
        .assert_eq(&lines.join("\n"));
    }

    fn check(namespace: &str, links: bool, expected: &Expect) {
        let service = |namespace: &str, name: &str, address: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": { "namespace": namespace, "name": name },
                "spec": { "clusterIP": address, "ports": [
                    { "port": 80, "name": "http" }, { "port": 53, "protocol": "UDP" }] },
            }))
            .unwrap()
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("shop", "cart-api", "10.96.0.7"),
            service("shop", "headless", "None"),
        ];
        let text: Vec<String> = variables(&services, namespace, links)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        expected.assert_eq(&text.concat());
    }

    #[test]
    fn own_namespace_and_kubernetes() {
        check(
            "shop",
            true,
            &expect![[r#"
                KUBERNETES_SERVICE_HOST=10.96.0.1
                KUBERNETES_SERVICE_PORT=80
                KUBERNETES_SERVICE_PORT_HTTP=80
                KUBERNETES_PORT=tcp://10.96.0.1:80
                KUBERNETES_PORT_80_TCP=tcp://10.96.0.1:80
                KUBERNETES_PORT_80_TCP_PROTO=tcp
                KUBERNETES_PORT_80_TCP_PORT=80
                KUBERNETES_PORT_80_TCP_ADDR=10.96.0.1
                KUBERNETES_PORT_53_UDP=udp://10.96.0.1:53
                KUBERNETES_PORT_53_UDP_PROTO=udp
                KUBERNETES_PORT_53_UDP_PORT=53
                KUBERNETES_PORT_53_UDP_ADDR=10.96.0.1
                CART_API_SERVICE_HOST=10.96.0.7
                CART_API_SERVICE_PORT=80
                CART_API_SERVICE_PORT_HTTP=80
                CART_API_PORT=tcp://10.96.0.7:80
                CART_API_PORT_80_TCP=tcp://10.96.0.7:80
                CART_API_PORT_80_TCP_PROTO=tcp
                CART_API_PORT_80_TCP_PORT=80
                CART_API_PORT_80_TCP_ADDR=10.96.0.7
                CART_API_PORT_53_UDP=udp://10.96.0.7:53
                CART_API_PORT_53_UDP_PROTO=udp
                CART_API_PORT_53_UDP_PORT=53
                CART_API_PORT_53_UDP_ADDR=10.96.0.7
            "#]],
        );
    }

    #[test]
    fn without_service_links_only_kubernetes() {
        let services = |links| variables(&[] as &[Service], "shop", links);
        assert_eq!(services(false), services(true));
        check(
            "shop",
            false,
            &expect![[r#"
                KUBERNETES_SERVICE_HOST=10.96.0.1
                KUBERNETES_SERVICE_PORT=80
                KUBERNETES_SERVICE_PORT_HTTP=80
                KUBERNETES_PORT=tcp://10.96.0.1:80
                KUBERNETES_PORT_80_TCP=tcp://10.96.0.1:80
                KUBERNETES_PORT_80_TCP_PROTO=tcp
                KUBERNETES_PORT_80_TCP_PORT=80
                KUBERNETES_PORT_80_TCP_ADDR=10.96.0.1
                KUBERNETES_PORT_53_UDP=udp://10.96.0.1:53
                KUBERNETES_PORT_53_UDP_PROTO=udp
                KUBERNETES_PORT_53_UDP_PORT=53
                KUBERNETES_PORT_53_UDP_ADDR=10.96.0.1
            "#]],
        );
    }
}
