//! Which node a pod gets, or why it waits, as a function of what was seen.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{
    filter::{Pair, objections},
    ledger::Ledger,
    score::{Spread, score},
};

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It gets this node.
    Bind { node: String },
    /// It waits; `reason` and `message` are those of its condition `PodScheduled`.
    Wait { reason: &'static str, message: String },
}

/// Finds the best of `nodes` (by name) for `pod`. Of equally good ones the first is taken.
pub(crate) fn decide(pod: &Pod, nodes: &[Arc<Node>], ledger: &Ledger) -> Decision {
    if nodes.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Decision::Wait { reason: "SchedulerError", message };
    }
    let mut reasons = BTreeMap::<String, usize>::new();
    let mut best: Option<(i64, String)> = None;
    let spread = Spread::of(pod, nodes, ledger);
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let usage = ledger.usage(&name);
        let pair = Pair { pod, node, usage };
        let objections = objections(pair);
        if objections.is_empty() {
            let score = score(pair, &spread);
            if best.as_ref().is_none_or(|(other, _)| *other < score) {
                best = Some((score, name));
            }
        }
        for reason in objections {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    match best {
        Some((_, node)) => Decision::Bind { node },
        None => Decision::Wait { reason: "Unschedulable", message: message(nodes.len(), &reasons) },
    }
}

/// The original's sentence (`FitError` of kube-scheduler).
fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut reasons: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use client::Key;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"disk": name}},
            "spec": {},
            "status": {
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }

    fn read(node: &Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(node.clone()).unwrap())
    }

    fn pod(spec: &Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        let fields = spec.as_object().unwrap().clone();
        pod["spec"].as_object_mut().unwrap().extend(fields);
        serde_json::from_value(pod).unwrap()
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    /// `used` are pods on the first node.
    #[track_caller]
    fn check(nodes: &[Value], used: &[Value], spec: &Value, expect: Expect) {
        let nodes: Vec<Arc<Node>> = nodes.iter().map(read).collect();
        let mut ledger = Ledger::default();
        for (index, spec) in used.iter().enumerate() {
            ledger.assume(&Key::cluster(index.to_string()), &pod(spec), "a");
        }
        expect.assert_eq(&match decide(&pod(spec), &nodes, &ledger) {
            Decision::Bind { node } => node,
            Decision::Wait { reason, message } => format!("{reason}: {message}"),
        });
    }

    #[test]
    fn the_emptier_node_wins() {
        check(&[node("a")], &[], &json!({}), expect!["a"]);
        check(&[node("a"), node("b")], &[asks("1")], &json!({}), expect!["b"]);
        check(&[node("a"), node("b")], &[], &json!({}), expect!["a"]);
    }

    #[test]
    fn replicas_are_spread() {
        let in_zone = |name: &str, zone: &str| {
            let mut node = node(name);
            node["status"]["allocatable"]["pods"] = "9".into();
            node["metadata"]["labels"]["topology.kubernetes.io/zone"] = zone.into();
            read(&node)
        };
        let replica = |of: &str| {
            let mut pod = pod(&json!({}));
            let owner = json!([{"apiVersion": "v1", "kind": "K", "name": "k", "uid": of, "controller": true}]);
            pod.metadata.owner_references = Some(serde_json::from_value(owner).unwrap());
            pod
        };
        let places = |nodes: &[Arc<Node>], of: &[&str]| {
            let mut ledger = Ledger::default();
            let places = of.iter().enumerate().map(|(index, of)| {
                let Decision::Bind { node } = decide(&replica(of), nodes, &ledger) else {
                    panic!("no place");
                };
                ledger.assume(&Key::cluster(index.to_string()), &replica(of), &node);
                node
            });
            places.collect::<String>()
        };
        let three = [in_zone("a", "x"), in_zone("b", "y"), in_zone("c", "z")];
        assert_eq!(places(&three, &["u", "u", "u", "u", "u", "u"]), "abcabc");
        // Each for itself.
        assert_eq!(places(&three, &["u", "v", "u", "v"]), "aabb");
        let two_zones = [in_zone("a", "x"), in_zone("b", "x"), in_zone("c", "y")];
        assert_eq!(places(&two_zones, &["u", "u", "u", "u"]), "acbc");
    }

    #[test]
    fn says_why_no_node_will_do() {
        check(&[], &[], &json!({}), expect!["SchedulerError: no nodes available to schedule pods"]);
        let mut broken = node("b");
        broken["status"]["conditions"][0]["status"] = "Unknown".into();
        let mut cordoned = node("c");
        cordoned["spec"]["unschedulable"] = true.into();
        check(
            &[node("a"), broken, cordoned],
            &[asks("1500m")],
            &asks("1"),
            expect![
                "Unschedulable: 0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
            ],
        );
    }

    #[test]
    fn a_node_takes_so_many_pods() {
        check(
            &[node("a")],
            &[json!({}), json!({}), json!({})],
            &asks("3"),
            expect!["Unschedulable: 0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods."],
        );
    }

    #[test]
    fn taints_must_be_tolerated() {
        let mut tainted = node("a");
        tainted["spec"]["taints"] = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
        let with = |toleration: Value| json!({"tolerations": [toleration]});
        let tainted = [tainted];
        check(
            &tainted,
            &[],
            &json!({}),
            expect!["Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint(s)."],
        );
        check(
            &tainted,
            &[],
            &with(json!({"key": "gpu", "value": "no"})),
            expect!["Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint(s)."],
        );
        check(&tainted, &[], &with(json!({"key": "gpu", "value": "yes"})), expect!["a"]);
        check(&tainted, &[], &with(json!({"key": "gpu", "operator": "Exists"})), expect!["a"]);
        check(
            &tainted,
            &[],
            &with(json!({"operator": "Exists", "effect": "NoExecute"})),
            expect!["Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint(s)."],
        );
    }

    #[test]
    fn selectors_and_affinity_must_match() {
        let nodes = [node("a"), node("b")];
        check(&nodes, &[], &json!({"nodeSelector": {"disk": "b"}}), expect!["b"]);
        check(
            &nodes,
            &[],
            &json!({"nodeSelector": {"disk": "c"}}),
            expect![
                "Unschedulable: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
            ],
        );
        let term = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]});
        let required = |term: Value| {
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
        };
        check(&nodes, &[], &required(term("NotIn", json!(["a"]))), expect!["b"]);
        check(
            &nodes,
            &[],
            &required(json!({})),
            expect![
                "Unschedulable: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
            ],
        );
        let preferred = json!({"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 1, "preference": term("In", json!(["b"]))}]}}});
        check(&nodes, &[], &preferred, expect!["b"]);
    }

    #[test]
    fn a_port_of_the_host_is_given_once() {
        let with_port =
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        check(
            &[node("a")],
            std::slice::from_ref(&with_port),
            &with_port,
            expect![
                "Unschedulable: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
            ],
        );
    }

    proptest! {
        #[test]
        fn never_gives_more_than_there_is(pods in prop::collection::vec(1..2000_u32, 0..12)) {
            let nodes = ["a", "b"].map(|it| read(&node(it)));
            let mut ledger = Ledger::default();
            for (index, cpu) in pods.iter().enumerate() {
                let pod = pod(&asks(&format!("{cpu}m")));
                if let Decision::Bind { node } = decide(&pod, &nodes, &ledger) {
                    ledger.assume(&Key::cluster(index.to_string()), &pod, &node);
                }
                for node in ["a", "b"] {
                    let usage = ledger.usage(node);
                    prop_assert!(usage.pods <= 3);
                    prop_assert!(usage.amounts.get("cpu").is_none_or(|it| *it <= 2000));
                }
            }
        }
    }
}
