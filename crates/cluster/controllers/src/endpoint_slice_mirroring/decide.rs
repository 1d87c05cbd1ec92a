//! What the slices that mirror Endpoints have, as a function of what was seen.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    endpoint_slice::{
        MANAGED_BY, SERVICE_NAME,
        layout::{Action, Groups},
    },
    owner::{controller_reference, is_deleting},
};

/// The value of the label that says who keeps a slice, the original's.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// A label on Endpoints that want no slices.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// An annotation on Endpoints by which programs elect a leader.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints themselves.
const OWN_ANNOTATIONS: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) endpoints: Option<Arc<Endpoints>>,
    /// The Service of the same name.
    pub(super) service: Option<Arc<Service>>,
    /// The slices that mirror them, by name.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
}

/// How much is mirrored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) addresses_per_subset: usize,
    pub(super) endpoints_per_slice: usize,
}

/// What to do, in this order, and why.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    pub(super) reason: &'static str,
    /// Addresses that are in no slice: not valid, or too many.
    pub(super) skipped: usize,
}

/// What makes the slices say what the Endpoints say.
pub(super) fn decide(seen: &Seen, limits: Limits) -> Decision {
    let (endpoints, reason) = match wanted(seen) {
        Ok(endpoints) => (endpoints, "the Service's endpoints are its author's"),
        Err(reason) => {
            let gone = |it: &Arc<EndpointSlice>| Action::Delete(Arc::clone(it));
            return Decision {
                actions: seen.slices.iter().map(gone).collect(),
                reason,
                skipped: 0,
            };
        }
    };
    let mut groups = Groups::default();
    let mut skipped = 0;
    for subset in endpoints.subsets.iter().flatten() {
        skipped += add(subset, limits.addresses_per_subset, &mut groups);
    }
    let metadata = metadata(endpoints);
    let actions = groups.lay_out(&metadata, &seen.slices, limits.endpoints_per_slice);
    Decision { actions, reason, skipped }
}

/// The Endpoints, if they are to be mirrored; otherwise why not.
fn wanted(seen: &Seen) -> Result<&Endpoints, &'static str> {
    let endpoints = seen.endpoints.as_deref().ok_or("there are no Endpoints")?;
    let service = seen.service.as_deref().ok_or("there is no Service")?;
    if is_deleting(&endpoints.metadata) || is_deleting(&service.metadata) {
        return Err("they are going");
    }
    let has = |map: Option<&std::collections::BTreeMap<String, String>>, key: &str| {
        map.and_then(|it| it.get(key)).cloned()
    };
    if has(endpoints.metadata.labels.as_ref(), SKIP).is_some_and(|it| it == "true") {
        return Err("their label says not to");
    }
    if has(endpoints.metadata.annotations.as_ref(), LEADER).is_some() {
        return Err("they elect a leader");
    }
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    if selector.is_some_and(|it| !it.is_empty()) {
        return Err("the Service selects its pods");
    }
    Ok(endpoints)
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

/// Adds a subset; how many addresses of it are left out.
fn add(subset: &EndpointSubset, addresses_max: usize, groups: &mut Groups) -> usize {
    let port = |it: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        app_protocol: it.app_protocol.clone(),
        name: Some(it.name.clone().unwrap_or_default()),
        port: Some(it.port),
        protocol: Some(it.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
    };
    let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
    let ready = subset.addresses.iter().flatten().map(|it| (it, true));
    let others = subset.not_ready_addresses.iter().flatten().map(|it| (it, false));
    let (mut added, mut skipped) = (0, 0);
    for (address, is_ready) in ready.chain(others) {
        match address.ip.parse::<IpAddr>().ok().filter(|_| added < addresses_max) {
            Some(ip) => {
                let kind = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                groups.add(kind, ports.clone(), endpoint(address, is_ready));
                added += 1;
            }
            None => skipped += 1,
        }
    }
    skipped
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    let conditions = EndpointConditions { ready: Some(ready), ..EndpointConditions::default() };
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(conditions),
        hostname: address.hostname.clone().filter(|it| !it.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const LIMITS: Limits = Limits { addresses_per_subset: 5, endpoints_per_slice: 3 };

    fn endpoints(labels: &Value, annotations: &Value, subsets: &Value) -> Arc<Endpoints> {
        let metadata = json!({"name": "db", "namespace": "shop", "uid": "u", "labels": labels,
            "annotations": annotations});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap())
    }

    fn service(selector: &Value) -> Arc<Service> {
        let metadata = json!({"name": "db", "namespace": "shop"});
        let spec = json!({"selector": selector});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn show(slice: &EndpointSlice) -> String {
        let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|it| it.port).collect();
        let mut shown = format!("{}{ports:?}", slice.address_type);
        for it in slice.endpoints.iter().flatten() {
            let ready = it.conditions.as_ref().unwrap().ready == Some(true);
            shown += &format!(" {}{}", it.addresses[0], if ready { "" } else { "?" });
        }
        shown
    }

    fn apply(actions: &[Action], slices: &mut Vec<Arc<EndpointSlice>>) -> String {
        let mut shown = Vec::new();
        for action in actions {
            match action {
                Action::Create(slice) => {
                    shown.push(format!("create {}", show(slice)));
                    let mut slice = slice.clone();
                    let taken = |it: &usize| {
                        let name = Some(format!("db-{it}"));
                        slices.iter().any(|it| it.metadata.name == name)
                    };
                    let free = (0..).find(|it| !taken(it)).unwrap();
                    slice.metadata.name = Some(format!("db-{free}"));
                    slices.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    shown.push(format!("update {}", show(slice)));
                    let old = slices.iter_mut().find(|it| it.metadata.name == slice.metadata.name);
                    *old.unwrap() = Arc::new((**slice).clone());
                }
                Action::Delete(slice) => {
                    shown.push(format!("delete {}", show(slice)));
                    slices.retain(|it| it.metadata.name != slice.metadata.name);
                }
            }
        }
        shown.join("\n")
    }

    /// What there is at a moment.
    type State = (Option<Arc<Endpoints>>, Option<Arc<Service>>);

    fn check(states: &[State], expect: Expect) {
        let mut slices = Vec::new();
        let mut shown = Vec::new();
        for (endpoints, service) in states {
            let (endpoints, service) = (endpoints.clone(), service.clone());
            let decision = decide(&Seen { endpoints, service, slices: slices.clone() }, LIMITS);
            let actions = apply(&decision.actions, &mut slices);
            shown.push(format!("{} ({})\n{actions}", decision.reason, decision.skipped));
        }
        expect.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn what_is_written_by_hand_is_mirrored_and_followed() {
        let of = |subsets: Value| Some(endpoints(&json!({}), &json!({}), &subsets));
        let service = Some(service(&json!(null)));
        check(
            &[
                (
                    of(
                        json!([{"addresses": [{"ip": "10.1.2.3"}], "notReadyAddresses": [{"ip": "10.1.2.4"}, {"ip": "fd00::1"}],
                    "ports": [{"name": "sql", "port": 5432}]}]),
                    ),
                    service.clone(),
                ),
                (
                    of(json!([{"addresses": [{"ip": "10.1.2.3"}, {"ip": "10.1.2.4"}],
                    "ports": [{"name": "sql", "port": 5432}]}])),
                    service.clone(),
                ),
                (of(json!([])), service.clone()),
                (None, service),
            ],
            expect![[r#"
                the Service's endpoints are its author's (0)
                create IPv4[5432] 10.1.2.3 10.1.2.4?
                create IPv6[5432] fd00::1?
                the Service's endpoints are its author's (0)
                update IPv4[5432] 10.1.2.3 10.1.2.4
                delete IPv6[5432] fd00::1?
                the Service's endpoints are its author's (0)
                delete IPv4[5432] 10.1.2.3 10.1.2.4
                there are no Endpoints (0)
            "#]],
        );
    }

    #[test]
    fn some_are_not_mirrored() {
        let subsets = json!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]);
        let (none, plain) = (json!({}), Some(service(&json!(null))));
        let of =
            |labels: &Value, annotations: &Value| Some(endpoints(labels, annotations, &subsets));
        check(
            &[
                (of(&none, &none), plain.clone()),
                (
                    of(&json!({"endpointslice.kubernetes.io/skip-mirror": "true"}), &none),
                    plain.clone(),
                ),
                (of(&none, &none), plain.clone()),
                (of(&none, &json!({"control-plane.alpha.kubernetes.io/leader": "{}"})), plain),
                (of(&none, &none), Some(service(&json!({"app": "db"})))),
                (of(&none, &none), None),
            ],
            expect![[r#"
                the Service's endpoints are its author's (0)
                create IPv4[80] 10.1.2.3
                their label says not to (0)
                delete IPv4[80] 10.1.2.3
                the Service's endpoints are its author's (0)
                create IPv4[80] 10.1.2.3
                they elect a leader (0)
                delete IPv4[80] 10.1.2.3
                the Service selects its pods (0)

                there is no Service (0)
            "#]],
        );
    }

    #[test]
    fn of_too_many_the_ready_ones_come_first() {
        let ip = |it: u8| json!({"ip": format!("10.1.2.{it}")});
        let subset = json!({"notReadyAddresses": [ip(1), ip(2)], "addresses": [ip(3), ip(4), ip(5), ip(6)],
            "ports": [{"port": 80}]});
        check(
            &[(
                Some(endpoints(&json!({}), &json!({}), &json!([subset]))),
                Some(service(&json!(null))),
            )],
            expect![[r#"
                the Service's endpoints are its author's (1)
                create IPv4[80] 10.1.2.1? 10.1.2.3 10.1.2.4
                create IPv4[80] 10.1.2.5 10.1.2.6"#]],
        );
    }

    #[test]
    fn slices_are_labelled_and_owned() {
        let annotations =
            json!({"note": "ours", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        let subsets =
            json!([{"addresses": [{"ip": "10.1.2.3", "hostname": "a"}], "ports": [{"port": 80}]}]);
        let endpoints = Some(endpoints(&json!({"app": "db"}), &annotations, &subsets));
        let seen = Seen { endpoints, service: Some(service(&json!(null))), slices: Vec::new() };
        let decision = decide(&seen, LIMITS);
        let [Action::Create(slice)] = decision.actions.as_slice() else { panic!("{decision:?}") };
        expect![[r#"
            {
              "apiVersion": "discovery.k8s.io/v1",
              "kind": "EndpointSlice",
              "addressType": "IPv4",
              "endpoints": [
                {
                  "addresses": [
                    "10.1.2.3"
                  ],
                  "conditions": {
                    "ready": true
                  },
                  "hostname": "a"
                }
              ],
              "metadata": {
                "annotations": {
                  "note": "ours"
                },
                "generateName": "db-",
                "labels": {
                  "app": "db",
                  "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
                  "kubernetes.io/service-name": "db"
                },
                "namespace": "shop",
                "ownerReferences": [
                  {
                    "apiVersion": "v1",
                    "blockOwnerDeletion": true,
                    "controller": true,
                    "kind": "Endpoints",
                    "name": "db",
                    "uid": "u"
                  }
                ]
              },
              "ports": [
                {
                  "name": "",
                  "port": 80,
                  "protocol": "TCP"
                }
              ]
            }"#]].assert_eq(&serde_json::to_string_pretty(slice).unwrap());
    }

    proptest! {
        #[test]
        fn converges(
            states in proptest::collection::vec(
                proptest::collection::vec((0..3_u16, 0..20_u8, any::<bool>()), 0..12), 1..5),
        ) {
            let mut slices = Vec::new();
            for state in states {
                let mut subsets = Vec::new();
                for number in 0..3 {
                    let of = |wanted: bool| -> Vec<Value> {
                        let mine = state.iter().filter(|it| it.0 == number && it.2 == wanted);
                        mine.map(|it| json!({"ip": format!("10.1.2.{}", it.1)})).collect()
                    };
                    subsets.push(json!({"addresses": of(true), "notReadyAddresses": of(false),
                        "ports": [{"port": 80 + number}]}));
                }
                let endpoints = Some(endpoints(&json!({}), &json!({}), &json!(subsets)));
                let mut seen = Seen { endpoints, service: Some(service(&json!(null))), slices };
                let decision = decide(&seen, LIMITS);
                apply(&decision.actions, &mut seen.slices);
                prop_assert!(decide(&seen, LIMITS).actions.is_empty());
                prop_assert!(seen.slices.iter().all(|it| it.endpoints.as_ref().unwrap().len() <= 3));
                slices = seen.slices;
            }
        }
    }
}
