//! Names of Services on this machine: below `localhost`, which browsers and curl look up at the loopback
//! address by themselves (RFC 6761).

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The namespace whose Services need not name it.
const DEFAULT: &str = "default";

/// The names of a Service: `SERVICE.NAMESPACE.localhost`, and `SERVICE.localhost` in the namespace
/// `default`, the shortest first.
#[must_use]
pub fn names(service: &str, namespace: &str) -> Vec<String> {
    let short = (namespace == DEFAULT).then(|| format!("{service}.localhost"));
    short.into_iter().chain([format!("{service}.{namespace}.localhost")]).collect()
}

/// The port of a Service that its names lead to: the first one that is HTTP by its `appProtocol` or its
/// name (`http`, `web`, `http-admin`), or else the first one of TCP. The API's own Service wants a client
/// certificate, so it has none.
#[must_use]
pub fn port(service: &Service) -> Option<&ServicePort> {
    let metadata = &service.metadata;
    let named = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let spec = service.spec.as_ref().filter(|it| it.type_.as_deref() != Some("ExternalName"))?;
    if named == (Some(DEFAULT), Some("kubernetes")) {
        return None;
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut tcp = ports.iter().filter(|it| it.protocol.as_deref().is_none_or(|it| it == "TCP"));
    let first = tcp.clone().next();
    tcp.find(|it| is_http(it)).or(first)
}

fn is_http(port: &ServicePort) -> bool {
    /// What `appProtocol` calls it: names of IANA, and of Kubernetes (KEP-3726).
    const PROTOCOLS: [&str; 7] = [
        "http",
        "https",
        "grpc",
        "h2c",
        "kubernetes.io/h2c",
        "kubernetes.io/ws",
        "kubernetes.io/wss",
    ];
    let name = port.name.as_deref().unwrap_or_default();
    let rest = ["http", "web"].iter().find_map(|it| name.strip_prefix(it));
    let of_name = rest.is_some_and(|it| it.is_empty() || it.starts_with('-'));
    let protocol = port.app_protocol.as_deref();
    of_name
        || protocol.is_some_and(|it| PROTOCOLS.iter().any(|known| it.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_default_namespace_has_short_names() {
        assert_eq!(names("web", "default"), ["web.localhost", "web.default.localhost"]);
        assert_eq!(names("web", "shop"), ["web.shop.localhost"]);
    }

    fn check(spec: Value, expected: Option<i32>) {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        let service: Service = serde_json::from_value(service).unwrap();
        assert_eq!(port(&service).map(|it| it.port), expected);
    }

    #[test]
    fn a_port_for_http_is_preferred() {
        check(json!({"ports": [{"port": 5432}, {"port": 80, "name": "http"}]}), Some(80));
        check(json!({"ports": [{"port": 5432}, {"port": 81, "name": "web-admin"}]}), Some(81));
        check(
            json!({"ports": [{"port": 1, "name": "webhook"}, {"port": 2, "name": "x"}]}),
            Some(1),
        );
        check(json!({"ports": [{"port": 1}, {"port": 2, "appProtocol": "HTTP"}]}), Some(2));
        check(
            json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 9, "name": "a"}]}),
            Some(9),
        );
        check(json!({"ports": [{"port": 53, "protocol": "UDP"}]}), None);
        check(json!({"ports": [{"port": 80}], "type": "ExternalName"}), None);
    }
}
