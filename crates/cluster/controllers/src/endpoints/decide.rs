//! What the Endpoints of a Service are, as a function of what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use client::Resource as _;
use k8s_openapi::{
    api::core::v1::{
        EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    endpoint_slice::endpoints::{address, address_types, hostname, ports},
    owner::is_deleting,
    pod::{is_ready, is_terminal},
};

/// The label that says who keeps it.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Our value of it, the original's.
pub(super) const MANAGER: &str = "endpoint-controller";
/// On Endpoints of Services without an address of their own.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// On Endpoints that do not name all there are.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) service: Arc<Service>,
    /// The pods it selects, by name.
    pub(super) pods: Vec<Arc<Pod>>,
    /// What there is.
    pub(super) endpoints: Option<Arc<Endpoints>>,
}

/// One step, safe to repeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) action: Option<Action>,
    pub(super) reason: &'static str,
}

/// An address of an endpoint, in the order of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    ip: IpAddr,
    pod: String,
}

/// A port, in the order in which they are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: Option<String>,
    number: i32,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

/// Who has a port, and whether it is ready.
type Having = BTreeMap<Address, bool>;

/// What makes the Endpoints say what the pods are, with at most `addresses_max` of them.
pub(super) fn decide(seen: &Seen, addresses_max: usize) -> Decision {
    let subsets = subsets(seen);
    let all: usize = subsets.iter().map(|it| ready(it).len() + not_ready(it).len()).sum();
    let subsets = truncated(subsets, addresses_max);
    let old = seen.endpoints.as_deref();
    let metadata = metadata(&seen.service, old, all > addresses_max);
    let new = Endpoints { metadata, subsets: Some(subsets) };
    let same = |old: &Endpoints| {
        let subsets = |it: &Endpoints| it.subsets.clone().unwrap_or_default();
        old.metadata == new.metadata && subsets(old) == subsets(&new)
    };
    let (action, reason) = match old {
        Some(old) if same(old) => (None, "endpoints are right"),
        Some(_) => (Some(Action::Update(Box::new(new))), "pods or Service changed"),
        None => (Some(Action::Create(Box::new(new))), "Service has no endpoints"),
    };
    Decision { action, reason }
}

fn metadata(service: &Service, old: Option<&Endpoints>, truncated: bool) -> ObjectMeta {
    let mut metadata = old.map(|it| it.metadata.clone()).unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_some_and(|it| it.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), TRUNCATED.to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|it| !it.is_empty()),
        ..metadata
    }
}

/// Ports that the same addresses have are listed together.
fn subsets(seen: &Seen) -> Vec<EndpointSubset> {
    let service = &*seen.service;
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|it| it.publish_not_ready_addresses).unwrap_or(false);
    let kind = address_types(service).into_iter().next().unwrap_or("IPv4");
    let headless = spec.is_some_and(|it| it.cluster_ip.as_deref() == Some("None"));
    let portless = headless && spec.is_some_and(|it| it.ports.iter().flatten().next().is_none());
    let mut having: BTreeMap<Option<Port>, Having> = BTreeMap::new();
    let mut listed: BTreeMap<Address, EndpointAddress> = BTreeMap::new();
    for pod in &seen.pods {
        if is_terminal(pod) || (is_deleting(&pod.metadata) && !publish) {
            continue;
        }
        let Some(ip) = address(pod, kind).and_then(|it| it.parse().ok()) else { continue };
        let key = Address { ip, pod: pod.metadata.uid.clone().unwrap_or_default() };
        let ready = publish || is_ready(pod);
        let its_ports = ports(service, pod).into_iter().map(|it| {
            let name = it.name.filter(|it| !it.is_empty());
            let number = it.port.unwrap_or_default();
            Some(Port { name, number, protocol: it.protocol, app_protocol: it.app_protocol })
        });
        for port in its_ports.chain(portless.then_some(None)) {
            having.entry(port).or_default().insert(key.clone(), ready);
        }
        listed.insert(key, endpoint_address(service, pod, ip));
    }
    let mut together: BTreeMap<Having, Vec<Port>> = BTreeMap::new();
    for (port, having) in having {
        together.entry(having).or_default().extend(port);
    }
    let subset = |(having, ports): (Having, Vec<Port>)| {
        let of = |wanted: bool| {
            let addresses = having.iter().filter(|(_, ready)| **ready == wanted);
            let addresses: Vec<_> =
                addresses.filter_map(|(it, _)| listed.get(it)).cloned().collect();
            Some(addresses).filter(|it| !it.is_empty())
        };
        let ports: Vec<EndpointPort> = ports.into_iter().map(Port::listed).collect();
        EndpointSubset {
            addresses: of(true),
            not_ready_addresses: of(false),
            ports: Some(ports).filter(|it| !it.is_empty()),
        }
    };
    let mut subsets: Vec<EndpointSubset> = together.into_iter().map(subset).collect();
    subsets.sort_by_cached_key(|it| {
        let ports: BTreeSet<_> = it.ports.iter().flatten().map(|it| it.port).collect();
        ports.into_iter().collect::<Vec<_>>()
    });
    subsets
}

fn endpoint_address(service: &Service, pod: &Pod, ip: IpAddr) -> EndpointAddress {
    let target_ref =
        ObjectReference { api_version: None, resource_version: None, ..pod.object_ref(&()) };
    EndpointAddress {
        hostname: hostname(service, pod),
        ip: ip.to_string(),
        node_name: pod.spec.as_ref().and_then(|it| it.node_name.clone()),
        target_ref: Some(target_ref),
    }
}

impl Port {
    fn listed(self) -> EndpointPort {
        EndpointPort {
            app_protocol: self.app_protocol,
            name: self.name,
            port: self.number,
            protocol: self.protocol,
        }
    }
}

fn ready(subset: &EndpointSubset) -> &[EndpointAddress] {
    subset.addresses.as_deref().unwrap_or_default()
}

fn not_ready(subset: &EndpointSubset) -> &[EndpointAddress] {
    subset.not_ready_addresses.as_deref().unwrap_or_default()
}

/// As many as there may be: ready ones first, and of each subset its share.
fn truncated(mut subsets: Vec<EndpointSubset>, max: usize) -> Vec<EndpointSubset> {
    let all_ready: usize = subsets.iter().map(|it| ready(it).len()).sum();
    let all_others: usize = subsets.iter().map(|it| not_ready(it).len()).sum();
    if all_ready + all_others <= max {
        return subsets;
    }
    let ready_max = all_ready.min(max);
    let others_max = all_others.min(max - ready_max);
    for subset in &mut subsets {
        cut(&mut subset.addresses, ready_max, all_ready);
        cut(&mut subset.not_ready_addresses, others_max, all_others);
    }
    subsets.retain(|it| !ready(it).is_empty() || !not_ready(it).is_empty());
    subsets
}

/// Leaves of a list its share of `max`, when `all` are in the lists together.
fn cut(list: &mut Option<Vec<EndpointAddress>>, max: usize, all: usize) {
    let share = |count: usize| (count * max).checked_div(all).unwrap_or(0);
    if let Some(addresses) = list {
        addresses.truncate(share(addresses.len()));
    }
    *list = list.take().filter(|it| !it.is_empty());
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Arc<Service> {
        let metadata = json!({"name": "web", "namespace": "shop", "labels": {"app": "web"}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    /// `NAME` with marks: `!` ready, `x` going, `-` without address, `d` done, `2` with another port.
    fn pod((number, text): (usize, &str)) -> Arc<Pod> {
        let has = |mark: char| text.contains(mark);
        let name = text.trim_end_matches(|it: char| "!x-d2".contains(it));
        let port = if has('2') { 8082 } else { 8080 };
        let ports = json!([{"name": "http", "containerPort": port}]);
        let deleted = has('x').then_some("2026-01-01T00:00:00Z");
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "deletionTimestamp": deleted},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": ports}]},
            "status": {
                "phase": if has('d') { "Succeeded" } else { "Running" },
                "podIP": (!has('-')).then(|| format!("10.244.{}.{}", number / 250, number % 250)),
                "conditions": [{"type": "Ready", "status": if has('!') { "True" } else { "False" }}],
            },
        }));
        Arc::new(pod.unwrap())
    }

    fn seen(service: &Arc<Service>, pods: &str, endpoints: Option<Arc<Endpoints>>) -> Seen {
        let pods = (1..).zip(pods.split_whitespace()).map(pod).collect();
        Seen { service: Arc::clone(service), pods, endpoints }
    }

    fn show(endpoints: &Endpoints) -> String {
        let addresses = |it: &[EndpointAddress]| {
            let ips: Vec<&str> = it.iter().map(|it| it.ip.as_str()).collect();
            ips.join(" ")
        };
        let subset = |it: &EndpointSubset| {
            let ports: Vec<String> = it
                .ports
                .iter()
                .flatten()
                .map(|it| format!("{}:{}", it.name.as_deref().unwrap_or("-"), it.port))
                .collect();
            format!(
                "{} [{}] not [{}]",
                ports.join(","),
                addresses(ready(it)),
                addresses(not_ready(it))
            )
        };
        endpoints.subsets.iter().flatten().map(subset).collect::<Vec<_>>().join("\n")
    }

    fn made(decision: Decision) -> Endpoints {
        match decision.action.unwrap() {
            Action::Create(it) | Action::Update(it) => *it,
        }
    }

    #[track_caller]
    fn check(spec: Value, pods: &str, expect: Expect) {
        let made = made(decide(&seen(&service(spec), pods, None), 1000));
        expect.assert_eq(&show(&made));
    }

    fn http() -> Value {
        json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80, "targetPort": "http"}]})
    }

    #[test]
    fn pods_are_listed_by_readiness() {
        check(http(), "a! b c!x d!d e-", expect!["-:8080 [10.244.0.1] not [10.244.0.2]"]);
        check(http(), "", expect![""]);
        let mut spec = http();
        spec["publishNotReadyAddresses"] = true.into();
        check(spec, "a! b c!x", expect!["-:8080 [10.244.0.1 10.244.0.2 10.244.0.3] not []"]);
    }

    /// Only slices have addresses of both families.
    #[test]
    fn addresses_are_of_the_first_family() {
        let mut lines = Vec::new();
        for families in [json!(["IPv4", "IPv6"]), json!(["IPv6", "IPv4"]), json!(["IPv6"])] {
            let mut spec = http();
            spec["ipFamilies"] = families.clone();
            let mut seen = seen(&service(spec), "a! b!", None);
            let status = Arc::make_mut(&mut seen.pods[0]).status.as_mut().unwrap();
            let ips = json!([{"ip": "10.244.0.1"}, {"ip": "fd00::af4:1"}]);
            status.pod_ips = serde_json::from_value(ips).unwrap();
            lines.push(format!("{families} {}", show(&made(decide(&seen, 1000)))));
        }
        expect![[r#"
            ["IPv4","IPv6"] -:8080 [10.244.0.1 10.244.0.2] not []
            ["IPv6","IPv4"] -:8080 [fd00::af4:1] not []
            ["IPv6"] -:8080 [fd00::af4:1] not []"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn ports_of_the_same_addresses_are_together() {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"},
            {"name": "metrics", "port": 9090}, {"name": "admin", "port": 9091}]);
        check(
            json!({"clusterIP": "10.96.0.7", "ports": ports}),
            "a! b!2 c",
            expect![[r"
                http:8080 [10.244.0.1] not [10.244.0.3]
                http:8082 [10.244.0.2] not []
                admin:9091,metrics:9090 [10.244.0.1 10.244.0.2] not [10.244.0.3]"]],
        );
    }

    #[test]
    fn a_headless_service_needs_no_ports() {
        check(json!({"clusterIP": "None"}), "a! b", expect![" [10.244.0.1] not [10.244.0.2]"]);
        check(json!({"clusterIP": "10.96.0.7"}), "a! b", expect![""]);
    }

    #[test]
    fn they_are_labelled_as_the_service_and_as_ours() {
        let service = service(json!({"clusterIP": "None"}));
        let made = made(decide(&seen(&service, "a!", None), 1000));
        let labels = made.metadata.labels.iter().flatten();
        let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        expect![[r"
            app=web
            endpoints.kubernetes.io/managed-by=endpoint-controller
            service.kubernetes.io/headless="]]
        .assert_eq(&labels.join("\n"));
        assert_eq!(made.metadata.annotations, None);
    }

    #[test]
    fn of_too_many_the_ready_ones_come_first() {
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let service = service(json!({"clusterIP": "10.96.0.7", "ports": ports}));
        let many = made(decide(&seen(&service, "a! b! c!2 g! e f", None), 5));
        expect![[r#"
            http:8080 [10.244.0.1 10.244.0.2 10.244.0.4] not [10.244.0.5]
            http:8082 [10.244.0.3] not []"#]]
        .assert_eq(&show(&many));
        let annotations = many.metadata.annotations.clone().unwrap();
        assert_eq!(annotations.get(OVER_CAPACITY).unwrap(), TRUNCATED);
        let few = made(decide(&seen(&service, "a!", Some(Arc::new(many))), 5));
        assert_eq!(few.metadata.annotations, None);
    }

    proptest! {
        #[test]
        fn converges_within_the_limit(
            states in proptest::collection::vec(
                proptest::collection::vec(proptest::sample::select(
                    vec!["a!", "b", "c!2", "d2", "e!x", "f!d", "g-"]), 0..9), 1..4),
            publish: bool, max in 1..6_usize,
        ) {
            let mut spec = http();
            spec["publishNotReadyAddresses"] = publish.into();
            let service = service(spec);
            let mut endpoints: Option<Arc<Endpoints>> = None;
            for pods in states {
                let pods = pods.join(" ");
                if let Some(action) = decide(&seen(&service, &pods, endpoints.clone()), max).action {
                    let (Action::Create(made) | Action::Update(made)) = action;
                    let subsets = made.subsets.iter().flatten();
                    prop_assert!(subsets.map(|it| ready(it).len() + not_ready(it).len()).sum::<usize>() <= max);
                    endpoints = Some(Arc::new(*made));
                }
                prop_assert_eq!(decide(&seen(&service, &pods, endpoints.clone()), max).action, None);
            }
        }
    }
}
