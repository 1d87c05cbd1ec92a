//! What a browser on this machine can open, as `status` shows it.

use std::{collections::BTreeSet, sync::Arc};

use api::{
    annotation::LISTENS,
    gateway::{CONTROLLER, Gateway, HttpRoute, Listener, ParentReference, ParentStatus, common},
};
use client::{Key, Resource};
use k8s_openapi::{
    api::{
        core::v1::Service,
        networking::v1::{Ingress, IngressClass},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};

use crate::session::Session;

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

/// What decides about addresses.
#[derive(Debug, Default)]
pub(crate) struct Objects<'a> {
    pub(crate) classes: Vec<Arc<IngressClass>>,
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) gateways: Vec<Arc<Gateway>>,
    pub(crate) routes: Vec<Arc<HttpRoute>>,
    pub(crate) services: &'a [&'a Service],
}

/// The addresses of all that a cluster serves.
pub(crate) async fn all(session: &Session) -> Vec<Url> {
    let (services, classes) = (session.caches.of::<Service>(), session.caches.of::<IngressClass>());
    let (ingresses, gateways) = (session.caches.of::<Ingress>(), session.caches.of::<Gateway>());
    let routes = session.caches.of::<HttpRoute>();
    tokio::join!(
        services.synced(),
        classes.synced(),
        ingresses.synced(),
        gateways.synced(),
        routes.synced()
    );
    let services = services.list();
    let services: Vec<&Service> = services.iter().map(AsRef::as_ref).collect();
    of(&Objects {
        classes: classes.list(),
        ingresses: ingresses.list(),
        gateways: gateways.list(),
        routes: routes.list(),
        services: &services,
    })
}

/// The addresses of all Ingresses and HTTPRoutes that are served here and of all Services; none while the
/// proxy does not listen.
pub(crate) fn of(objects: &Objects<'_>) -> Vec<Url> {
    let Some(ports) = ports(&objects.classes) else { return Vec::new() };
    let mut urls = Vec::new();
    for ingress in objects.ingresses.iter().filter(|it| is_served(it)) {
        let object = shown("Ingress", &**ingress);
        for (scheme, host) in hosts(ingress) {
            urls.extend(ports.url(scheme, &host).map(|url| Url { url, object: object.clone() }));
        }
    }
    for route in &objects.routes {
        let object = shown("HTTPRoute", &**route);
        let places =
            route.status.parents.iter().flat_map(|it| listeners(it, route, &objects.gateways));
        let urls_of = |listener: &Listener| {
            let hosts = common(listener.hostname.as_deref(), &route.spec.hostnames);
            let url = |host: &String| ports.of_listener(listener, &local(host));
            hosts.iter().filter_map(url).collect::<Vec<_>>()
        };
        let all: BTreeSet<String> = places.flat_map(urls_of).collect();
        urls.extend(all.into_iter().map(|url| Url { url, object: object.clone() }));
    }
    for service in objects.services {
        let Key { namespace, name } = Key::of(*service);
        let names = api::localhost::names(&name, &namespace.unwrap_or_default());
        let reached = api::localhost::port(service).and(names.first());
        let url = reached.and_then(|it| ports.url("http", it));
        urls.extend(url.map(|url| Url { url, object: shown("Service", *service) }));
    }
    urls
}

impl Ports {
    /// Ports other than the usual ones are listened at as they are named.
    fn of_listener(&self, listener: &Listener, host: &str) -> Option<String> {
        let scheme = if listener.protocol == "HTTPS" { "https" } else { "http" };
        match listener.port {
            80 | 443 => self.url(scheme, host),
            port => Some(format!("{scheme}://{host}:{port}/")),
        }
    }

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

/// The listeners at which a Gateway of ours serves a route.
fn listeners<'a>(
    parent: &'a ParentStatus,
    route: &'a HttpRoute,
    gateways: &'a [Arc<Gateway>],
) -> impl Iterator<Item = &'a Listener> {
    let accepted = parent.controller_name == CONTROLLER && is_true(&parent.conditions, "Accepted");
    let ParentReference { namespace, name, section_name, port, .. } = &parent.parent_ref;
    let namespace = namespace.as_ref().or(route.metadata.namespace.as_ref());
    let found = gateways.iter().filter(move |it| {
        let metadata = &it.metadata;
        accepted && metadata.namespace.as_ref() == namespace && metadata.name.as_ref() == Some(name)
    });
    found.flat_map(move |gateway| {
        gateway.spec.listeners.iter().filter(move |it| {
            let status = gateway.status.listeners.iter().find(|status| status.name == it.name);
            section_name.as_ref().is_none_or(|name| *name == it.name)
                && port.is_none_or(|port| port == it.port)
                && status.is_some_and(|it| is_true(&it.conditions, "Programmed"))
        })
    })
}

fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|it| it.type_ == type_ && it.status == "True")
}

/// The name under which this machine finds a host; a `*` stands for any label, `x` here.
fn local(host: &str) -> String {
    match host.replacen('*', "x", 1) {
        it if it.is_empty() => "localhost".to_owned(),
        it if it == "localhost" || it.ends_with(".localhost") => it,
        it => format!("{it}.localhost"),
    }
}

/// Names under which this machine finds the hosts of an Ingress.
fn hosts(ingress: &Ingress) -> BTreeSet<(&'static str, String)> {
    let Some(spec) = &ingress.spec else { return BTreeSet::new() };
    let tls = spec.tls.iter().flatten().flat_map(|it| it.hosts.iter().flatten());
    let tls: BTreeSet<&str> = tls.map(String::as_str).collect();
    let of_rules = spec.rules.iter().flatten().map(|it| it.host.as_deref().unwrap_or_default());
    let fallback = spec.default_backend.as_ref().map(|_| "");
    let reached = |host: &str| {
        let scheme = if tls.contains(host) { "https" } else { "http" };
        (scheme, local(host))
    };
    of_rules.chain(fallback).map(reached).collect()
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
        let objects = Objects {
            classes: vec![Arc::new(class)],
            ingresses: vec![Arc::new(ingress)],
            services: &[&service],
            ..Objects::default()
        };
        expected.assert_eq(&lines(&objects));
    }

    fn lines(objects: &Objects<'_>) -> String {
        let urls = of(objects).into_iter().map(|it| format!("{} {}", it.url, it.object));
        urls.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn routes_are_reached_where_their_listeners_are() {
        let metadata = |name: &str| json!({"name": name, "namespace": "shop"});
        let condition = |it: &str| {
            json!([{"type": it, "status": "True", "reason": it, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let names = ["plain", "own", "secure", "refused"];
        let status = names.map(|name| {
            let conditions = if name == "refused" { json!([]) } else { condition("Programmed") };
            json!({"name": name, "conditions": conditions})
        });
        let gateway = json!({"metadata": metadata("front"), "spec": {"listeners": [
            {"name": "plain", "port": 80, "protocol": "HTTP"},
            {"name": "own", "port": 7000, "protocol": "HTTP", "hostname": "*.test"},
            {"name": "secure", "port": 443, "protocol": "HTTPS", "hostname": "b.test"},
            {"name": "refused", "port": 81, "protocol": "HTTP"}]}, "status": {"listeners": status}});
        let parent = |name: &str, controller: &str| {
            json!({"parentRef": {"name": name}, "controllerName": controller,
                "conditions": condition("Accepted")})
        };
        let route = json!({"metadata": metadata("web"), "spec": {"hostnames": ["a.test", "b.test"]},
            "status": {"parents": [parent("front", CONTROLLER), parent("front", "example.com/other")]}});
        let annotations = json!({"annotations": {LISTENS: "http=8080,https=8443"}});
        let class = serde_json::from_value(json!({"metadata": annotations})).unwrap();
        let objects = Objects {
            classes: vec![Arc::new(class)],
            gateways: vec![Arc::new(serde_json::from_value(gateway).unwrap())],
            routes: vec![Arc::new(serde_json::from_value(route).unwrap())],
            ..Objects::default()
        };
        expect![[r#"
            http://a.test.localhost:7000/ HTTPRoute shop/web
            http://a.test.localhost:8080/ HTTPRoute shop/web
            http://b.test.localhost:7000/ HTTPRoute shop/web
            http://b.test.localhost:8080/ HTTPRoute shop/web
            https://b.test.localhost:8443/ HTTPRoute shop/web"#]]
        .assert_eq(&lines(&objects));
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
