//! What the slices of a Service have, as a function of what was seen.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    endpoints::{address_types, endpoint, ports},
    layout::{Action, Groups},
};
use crate::owner::controller_reference;

/// The label that says whose slice it is.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who keeps it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of it, the original's.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// On slices of Services without an address of their own.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) service: Arc<Service>,
    /// The pods it selects, by name.
    pub(super) pods: Vec<Arc<Pod>>,
    /// Where each of them runs.
    pub(super) zones: Vec<Option<String>>,
    /// The slices it has from us, by name.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
}

/// What to do, in this order, and why.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    pub(super) reason: &'static str,
}

/// What makes the slices say what the pods are, with at most `endpoints_max` in each.
pub(super) fn decide(seen: &Seen, endpoints_max: usize) -> Decision {
    let mut groups = Groups::default();
    let types = address_types(&seen.service);
    for kind in &types {
        for (pod, zone) in seen.pods.iter().zip(&seen.zones) {
            let Some(endpoint) = endpoint(&seen.service, pod, zone.as_ref(), kind) else {
                continue;
            };
            let ports = ports(&seen.service, pod);
            groups.add(kind, ports, endpoint);
        }
        groups.show(kind);
    }
    let actions = groups.lay_out(&metadata(&seen.service), &seen.slices, endpoints_max);
    let reason = if actions.is_empty() { "slices are right" } else { "pods or Service changed" };
    Decision { actions, reason }
}

/// What the metadata of the slices should be.
fn metadata(service: &Service) -> ObjectMeta {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    if service.spec.as_ref().is_some_and(|it| it.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::{
        api::core::v1::{
            Container, ContainerPort, PodCondition, PodIP, PodSpec, PodStatus, ServicePort,
            ServiceSpec,
        },
        apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
    };
    use proptest::prelude::*;

    use super::*;

    fn service() -> Service {
        let port = ServicePort {
            port: 80,
            target_port: Some(IntOrString::String("http".to_owned())),
            ..Default::default()
        };
        let metadata = ObjectMeta { name: Some("web".to_owned()), ..Default::default() };
        let spec = ServiceSpec { ports: Some(vec![port]), ..Default::default() };
        Service { metadata, spec: Some(spec), status: None }
    }

    /// `NAME` with marks: `!` ready, `x` going, `-` without address, `d` done, `2` with another
    /// port.
    fn pod(text: &str) -> Arc<Pod> {
        let has = |mark: char| text.contains(mark);
        let name = text.trim_end_matches(|it: char| "!x-d2".contains(it)).to_owned();
        let ready = PodCondition {
            type_: "Ready".to_owned(),
            status: if has('!') { "True" } else { "False" }.to_owned(),
            ..Default::default()
        };
        let container_port = if has('2') { 8082 } else { 8080 };
        let port =
            ContainerPort { name: Some("http".to_owned()), container_port, ..Default::default() };
        let container = Container { ports: Some(vec![port]), ..Default::default() };
        Arc::new(Pod {
            metadata: ObjectMeta {
                uid: Some(name.clone()),
                name: Some(name.clone()),
                deletion_timestamp: has('x').then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..Default::default()
            },
            spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            status: Some(PodStatus {
                phase: Some(if has('d') { "Succeeded" } else { "Running" }.to_owned()),
                conditions: Some(vec![ready]),
                pod_ip: (!has('-')).then(|| format!("ip-{name}")),
                ..Default::default()
            }),
        })
    }

    fn seen(service: Service, pods: &str, slices: Vec<Arc<EndpointSlice>>) -> Seen {
        let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
        let zones = vec![None; pods.len()];
        Seen { service: Arc::new(service), pods, zones, slices }
    }

    fn show_slice(slice: &EndpointSlice) -> String {
        let mut shown = String::new();
        for it in slice.ports.iter().flatten() {
            shown += &format!(":{}", it.port.unwrap());
        }
        for it in slice.endpoints.iter().flatten() {
            let is = it.conditions.as_ref().unwrap();
            let flags =
                [(is.ready, "ready"), (is.serving, "serving"), (is.terminating, "terminating")];
            let flags = flags.iter().filter(|(holds, _)| *holds == Some(true));
            let flags: Vec<_> = flags.map(|(_, name)| *name).collect();
            shown += &format!(" {}[{}]", it.addresses[0], flags.join(" "));
        }
        shown
    }

    fn show(decision: &Decision) -> String {
        let lines = decision.actions.iter().map(|it| match it {
            Action::Create(slice) => format!("create {}", show_slice(slice)),
            Action::Update(slice) => format!("update {}", show_slice(slice)),
            Action::Delete(slice) => format!("delete {}", show_slice(slice)),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Carries a decision out.
    fn apply(decision: Decision, slices: &mut Vec<Arc<EndpointSlice>>, names: &mut u32) {
        for action in decision.actions {
            match action {
                Action::Create(mut slice) => {
                    *names += 1;
                    slice.metadata.name = Some(format!("web-{names}"));
                    slices.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    let slice = Arc::new(*slice);
                    let name = &slice.metadata.name;
                    let old = slices.iter_mut().find(|it| it.metadata.name == *name);
                    *old.unwrap() = slice;
                }
                Action::Delete(slice) => {
                    slices.retain(|it| it.metadata.name != slice.metadata.name);
                }
            }
        }
    }

    /// Decides for `before`, applies that, then decides for `after`.
    #[track_caller]
    fn check(service: Service, before: &str, after: &str, expect: Expect) {
        let mut slices = Vec::new();
        let first = decide(&seen(service.clone(), before, Vec::new()), 2);
        apply(first, &mut slices, &mut 0);
        expect.assert_eq(&show(&decide(&seen(service, after, slices), 2)));
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        expect!["create "].assert_eq(&show(&decide(&seen(service(), "", Vec::new()), 2)));
        check(
            service(),
            "",
            "a!",
            expect![[r#"
            create :8080 ip-a[ready serving]
            delete "#]],
        );
        check(
            service(),
            "a!",
            "",
            expect![[r#"
            create 
            delete :8080 ip-a[ready serving]"#]],
        );
    }

    #[test]
    fn a_pod_that_goes_is_not_ready_at_once() {
        check(
            service(),
            "a! b!",
            "a!x b!",
            expect!["update :8080 ip-a[serving terminating] ip-b[ready serving]"],
        );
    }

    #[test]
    fn pods_without_address_or_future_are_no_endpoints() {
        check(
            service(),
            "",
            "a- b!d c",
            expect![[r#"
            create :8080 ip-c[]
            delete "#]],
        );
    }

    #[test]
    fn publishes_unready_addresses_on_request() {
        let mut service = service();
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        check(
            service,
            "",
            "a b!x",
            expect![[r#"
            create :8080 ip-a[ready] ip-b[ready serving terminating]
            delete "#]],
        );
    }

    #[test]
    fn slices_are_filled_up_and_split_by_port() {
        check(
            service(),
            "a! b! c!",
            "a! b! c! d! e! f!2",
            expect![[r#"
            update :8080 ip-c[ready serving] ip-e[ready serving]
            create :8082 ip-f[ready serving]"#]],
        );
    }

    #[test]
    fn hints_say_who_is_near() {
        let mut lines = Vec::new();
        for distribution in ["PreferSameZone", "PreferClose", "PreferSameNode", "Another"] {
            let mut service = service();
            service.spec.as_mut().unwrap().traffic_distribution = Some(distribution.to_owned());
            let mut seen = seen(service, "a! b", Vec::new());
            for pod in &mut seen.pods {
                Arc::make_mut(pod).spec.as_mut().unwrap().node_name = Some("ship".to_owned());
            }
            seen.zones = vec![Some("zone-a".to_owned()); 2];
            let decision = decide(&seen, 2);
            let Action::Create(slice) = &decision.actions[0] else { panic!("no slice") };
            let hints = slice.endpoints.iter().flatten().map(|it| serde_json::json!(it.hints));
            let hints: Vec<_> = hints.map(|it| it.to_string()).collect();
            lines.push(format!("{distribution}: {}", hints.join(" ")));
        }
        expect![[r#"
            PreferSameZone: {"forZones":[{"name":"zone-a"}]} null
            PreferClose: {"forZones":[{"name":"zone-a"}]} null
            PreferSameNode: {"forNodes":[{"name":"ship"}],"forZones":[{"name":"zone-a"}]} null
            Another: null null"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn an_emptied_slice_goes() {
        check(service(), "a! b! c!", "a! b!", expect!["delete :8080 ip-c[ready serving]"]);
    }

    #[test]
    fn slices_are_labelled_and_owned() {
        let mut service = service();
        service.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        service.spec.as_mut().unwrap().cluster_ip = Some("None".to_owned());
        let decision = decide(&seen(service, "", Vec::new()), 2);
        let Action::Create(slice) = &decision.actions[0] else { panic!("no slice") };
        let labels = slice.metadata.labels.iter().flatten();
        let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        expect![[r#"
            app=web
            endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io
            kubernetes.io/service-name=web
            service.kubernetes.io/headless="#]]
        .assert_eq(&labels.join("\n"));
        let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Service", "web"));
    }

    /// The service with these families, and a pod that has an address of each beside one that has only
    /// the first.
    fn seen_of_families(families: &[&str], slices: Vec<Arc<EndpointSlice>>) -> Seen {
        let mut service = service();
        let families = families.iter().map(|it| (*it).to_owned()).collect();
        service.spec.as_mut().unwrap().ip_families = Some(families);
        let mut seen = seen(service, "a! b!", slices);
        let ips = ["10.244.0.7", "fd00::af4:7"].map(|it| PodIP { ip: it.to_owned() });
        let status = Arc::make_mut(&mut seen.pods[0]).status.as_mut().unwrap();
        status.pod_ip = Some("10.244.0.7".to_owned());
        status.pod_ips = Some(ips.to_vec());
        seen
    }

    #[test]
    fn slices_follow_the_families() {
        let (mut slices, mut names, mut lines) = (Vec::new(), 0, Vec::new());
        for families in [&["IPv4"][..], &["IPv4", "IPv6"], &["IPv6", "IPv4"], &["IPv6"], &["IPv4"]]
        {
            let decision = decide(&seen_of_families(families, slices.clone()), 2);
            lines.push(format!("{families:?}\n{}", show(&decision)));
            apply(decision, &mut slices, &mut names);
            let again = decide(&seen_of_families(families, slices.clone()), 2);
            assert!(again.actions.is_empty(), "{again:?}");
            // What a slice says of itself is what it has.
            for slice in &slices {
                let v6 = slice.address_type == "IPv6";
                let addresses = slice.endpoints.iter().flatten().flat_map(|it| &it.addresses);
                assert!(addresses.into_iter().all(|it| it.contains(':') == v6), "{slice:?}");
            }
        }
        expect![[r#"
            ["IPv4"]
            create :8080 10.244.0.7[ready serving] ip-b[ready serving]
            ["IPv4", "IPv6"]
            create :8080 fd00::af4:7[ready serving]
            ["IPv6", "IPv4"]

            ["IPv6"]
            delete :8080 10.244.0.7[ready serving] ip-b[ready serving]
            ["IPv4"]
            create :8080 10.244.0.7[ready serving] ip-b[ready serving]
            delete :8080 fd00::af4:7[ready serving]"#]]
        .assert_eq(&lines.join("\n"));
    }

    proptest! {
        #[test]
        fn converges_at_once_and_says_what_is(
            rounds in prop::collection::vec(
                prop::collection::btree_map(0..12_u32, "[!x2-]{0,2}", 0..12), 1..6),
        ) {
            let (mut slices, mut names) = (Vec::new(), 0);
            for pods in rounds {
                let pods = pods.iter().map(|(name, marks)| format!("p{name}n{marks}"));
                let pods = pods.collect::<Vec<_>>().join(" ");
                let now = seen(service(), &pods, slices.clone());
                apply(decide(&now, 3), &mut slices, &mut names);
                let then = seen(service(), &pods, slices.clone());
                prop_assert_eq!(show(&decide(&then, 3)), "");
                prop_assert!(slices.iter().all(|it| it.endpoints.as_ref().unwrap().len() <= 3));
                let listed = slices.iter().flat_map(|it| it.endpoints.iter().flatten());
                let mut listed: Vec<_> = listed.map(|it| it.addresses[0].clone()).collect();
                listed.sort();
                let wanted = then.pods.iter().filter_map(|it| it.status.as_ref()?.pod_ip.clone());
                let mut wanted: Vec<_> = wanted.collect();
                wanted.sort();
                prop_assert_eq!(listed, wanted);
            }
        }
    }
}
