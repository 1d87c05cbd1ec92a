//! What a browser on this machine can open, as `status` shows it.

use std::{collections::BTreeSet, sync::Arc};

use api::annotation::LISTENS;
use client::{Key, Resource};
use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{Ingress, IngressClass},
};

/// An address, and the object to which it leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) url: String,
    /// `Ingress shop/web`.
    pub(crate) object: String,
}

/// Where the proxy listens.
struct Ports {
    http: Option<u16>,
    https: Option<u16>,
}

/// The addresses of all Ingresses that are served here and of all Services; none while the proxy does not
/// listen.
pub(crate) fn of(
    classes: &[Arc<IngressClass>],
    ingresses: &[Arc<Ingress>],
    services: &[&Service],
) -> Vec<Url> {
    let Some(ports) = ports(classes) else { return Vec::new() };
    let mut urls = Vec::new();
    for ingress in ingresses.iter().filter(|it| is_served(it)) {
        let object = shown("Ingress", &**ingress);
        for (scheme, host) in hosts(ingress) {
            urls.extend(ports.url(scheme, &host).map(|url| Url { url, object: object.clone() }));
        }
    }
    for service in services {
        let Key { namespace, name } = Key::of(*service);
        let names = api::localhost::names(&name, &namespace.unwrap_or_default());
        let reached = api::localhost::port(service).and(names.first());
        let url = reached.and_then(|it| ports.url("http", it));
        urls.extend(url.map(|url| Url { url, object: shown("Service", *service) }));
    }
    urls
}

impl Ports {
    fn url(&self, scheme: &str, host: &str) -> Option<String> {
        match (scheme, self.http?, self.https) {
            ("https", _, Some(443)) => Some(format!("https://{host}/")),
            ("https", _, Some(port)) => Some(format!("https://{host}:{port}/")),
            (_, 80, _) => Some(format!("http://{host}/")),
            (_, port, _) => Some(format!("http://{host}:{port}/")),
        }
    }
}

fn ports(classes: &[Arc<IngressClass>]) -> Option<Ports> {
    let annotations = classes.iter().filter_map(|it| it.metadata.annotations.as_ref());
    let text = annotations.filter_map(|it| it.get(LISTENS)).next()?;
    let port = |scheme: &str| {
        let mut parts = text.split(',').filter_map(|it| it.split_once('='));
        parts.find(|(it, _)| *it == scheme).and_then(|(_, port)| port.parse().ok())
    };
    let ports = Ports { http: port("http"), https: port("https") };
    ports.http.is_some().then_some(ports)
}

/// Whether the proxy has written where it is reached.
fn is_served(ingress: &Ingress) -> bool {
    let status = ingress.status.as_ref().and_then(|it| it.load_balancer.as_ref());
    let places = status.and_then(|it| it.ingress.as_ref()).into_iter().flatten();
    places.into_iter().any(|it| it.ip.as_deref() == Some("127.0.0.1"))
}

/// Names under which this machine finds the hosts of an Ingress; a `*` stands for any label, `x` here.
fn hosts(ingress: &Ingress) -> BTreeSet<(&'static str, String)> {
    let Some(spec) = &ingress.spec else { return BTreeSet::new() };
    let tls = spec.tls.iter().flatten().flat_map(|it| it.hosts.iter().flatten());
    let tls: BTreeSet<&str> = tls.map(String::as_str).collect();
    let of_rules = spec.rules.iter().flatten().map(|it| it.host.as_deref().unwrap_or_default());
    let fallback = spec.default_backend.as_ref().map(|_| "");
    let local = |host: &str| {
        let scheme = if tls.contains(host) { "https" } else { "http" };
        let host = host.replacen('*', "x", 1);
        let name = match host.as_str() {
            "" => "localhost".to_owned(),
            it if it == "localhost" || it.ends_with(".localhost") => it.to_owned(),
            it => format!("{it}.localhost"),
        };
        (scheme, name)
    };
    of_rules.chain(fallback).map(local).collect()
}

fn shown<K: Resource<DynamicType = ()>>(kind: &str, object: &K) -> String {
    format!("{kind} {}", Key::of(object))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(listens: &str, ingress: Value, service: Value, expected: Expect) {
        let class = json!({"metadata": {"annotations": {LISTENS: listens}}});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}});
        let metadata = json!({"name": "web", "namespace": "shop"});
        let ingress = json!({"metadata": metadata, "spec": ingress, "status": status});
        let service = json!({"metadata": metadata, "spec": service});
        let (class, ingress) =
            (serde_json::from_value(class).unwrap(), serde_json::from_value(ingress).unwrap());
        let service: Service = serde_json::from_value(service).unwrap();
        let urls = of(&[Arc::new(class)], &[Arc::new(ingress)], &[&service]);
        let urls: Vec<String> =
            urls.into_iter().map(|it| format!("{} {}", it.url, it.object)).collect();
        expected.assert_eq(&urls.join("\n"));
    }

    #[test]
    fn says_what_to_open() {
        let rules = json!({"rules": [{"host": "shop.example.com"}, {"host": "a.localhost"}, {}],
            "tls": [{"hosts": ["a.localhost"]}]});
        let ports = json!({"ports": [{"port": 80}]});
        check(
            "http=80,https=8443",
            rules.clone(),
            ports.clone(),
            expect![[r#"
                http://localhost/ Ingress shop/web
                http://shop.example.com.localhost/ Ingress shop/web
                https://a.localhost:8443/ Ingress shop/web
                http://web.shop.localhost/ Service shop/web"#]],
        );
        check("", rules, ports, expect![[""]]);
        let service = json!({"ports": [{"port": 80}]});
        check(
            "http=8080",
            json!({"rules": [{"host": "*.dev"}]}),
            service,
            expect![[r#"
                http://x.dev.localhost:8080/ Ingress shop/web
                http://web.shop.localhost:8080/ Service shop/web"#]],
        );
    }
}
