//! What becomes of a node that says nothing any more, or says that it is not well, as a function of what was
//! seen.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Pod, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::pod;

/// A node is lost when it has not renewed its Lease for so many fifths of the time for which it holds: 50 s of
/// 40, as with the original.
const GRACE_FIFTHS: u32 = 5;
const HELD_FIFTHS: u32 = 4;

/// Conditions that a kubelet keeps.
const KEPT: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", READY];
const READY: &str = "Ready";

/// The taints that follow from conditions that hold.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) node: Arc<Node>,
    /// For how long its Lease holds, and how long ago it was seen to be renewed; none if it has none: then it
    /// is somebody else's to judge.
    pub(super) lease: Option<(Duration, Duration)>,
    /// Whether a node is ready to which pods could go.
    pub(super) others_ready: bool,
    /// The pods that it has.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) now: Timestamp,
}

/// What to do, in this order, and why.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    /// Its conditions, if others are to be written.
    pub(super) conditions: Option<Vec<NodeCondition>>,
    /// Its taints, if others are to be written.
    pub(super) taints: Option<Vec<Taint>>,
    /// Pods that are not ready any more: nobody knows how they are.
    pub(super) unready: Vec<Arc<Pod>>,
    /// When time alone may change this.
    pub(super) wait: Option<Duration>,
    pub(super) reason: &'static str,
}

/// What makes the node's object say how it is.
pub(super) fn decide(seen: &Seen) -> Decision {
    let grace = |held: Duration| held * GRACE_FIFTHS / HELD_FIFTHS;
    let lost = seen.lease.is_some_and(|(held, silent)| grace(held) <= silent);
    let wait = seen.lease.filter(|_| !lost).map(|(held, silent)| grace(held) - silent);
    let said = conditions_of(&seen.node);
    let conditions = if lost { unknown(said, seen.now) } else { None };
    let ready = status_of(conditions.as_deref().unwrap_or(said), READY);
    let taints = taints(seen, conditions.as_deref().unwrap_or(said));
    let unready = match ready {
        // Who has never said how it is has no pods that are ready.
        None | Some("True") => Vec::new(),
        Some(_) => seen.pods.iter().filter(|it| pod::is_ready(it)).cloned().collect(),
    };
    let reason = match ready {
        _ if lost => "its Lease has run out",
        Some("True") => "it is ready",
        _ => "it is not ready",
    };
    Decision { conditions, taints, unready, wait, reason }
}

/// What a node says of itself.
pub(super) fn conditions_of(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default()
}

/// Whether a node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    status_of(conditions_of(node), READY) == Some("True")
}

fn status_of<'a>(conditions: &'a [NodeCondition], kind: &str) -> Option<&'a str> {
    conditions.iter().find(|it| it.type_ == kind).map(|it| it.status.as_str())
}

/// The conditions of a node that says nothing any more; none if they are so already.
fn unknown(said: &[NodeCondition], now: Timestamp) -> Option<Vec<NodeCondition>> {
    if KEPT.iter().all(|it| status_of(said, it) == Some("Unknown")) {
        return None;
    }
    let mut conditions = said.to_vec();
    for kind in KEPT {
        let place = match conditions.iter().position(|it| it.type_ == kind) {
            Some(place) => place,
            None => {
                conditions.push(NodeCondition { type_: kind.to_owned(), ..Default::default() });
                conditions.len() - 1
            }
        };
        let Some(it) = conditions.get_mut(place).filter(|it| it.status != "Unknown") else {
            continue;
        };
        it.status = "Unknown".to_owned();
        it.reason = Some("NodeStatusUnknown".to_owned());
        it.message = Some("Kubelet stopped posting node status.".to_owned());
        it.last_transition_time = Some(Time(now));
    }
    Some(conditions)
}

/// The taints that the node is to have; none if it has them.
fn taints(seen: &Seen, conditions: &[NodeCondition]) -> Option<Vec<Taint>> {
    let spec = seen.node.spec.as_ref();
    let has = spec.and_then(|it| it.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let away = match status_of(conditions, READY) {
        None | Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        Some(_) => Some(NOT_READY),
    };
    if let Some(key) = away {
        wanted.push((key, NO_SCHEDULE));
        // Where no node is ready, pods could go nowhere, and what is broken is likely to be here.
        if seen.others_ready {
            wanted.push((key, NO_EXECUTE));
        }
    }
    let pressed = PRESSURES.iter().filter(|(kind, _)| status_of(conditions, kind) == Some("True"));
    wanted.extend(pressed.map(|(_, key)| (*key, NO_SCHEDULE)));
    if spec.and_then(|it| it.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_own = |it: &Taint| {
        let of_pressure = PRESSURES.iter().any(|(_, key)| it.key == *key);
        of_pressure || [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&it.key.as_str())
    };
    let is_wanted =
        |it: &Taint| wanted.iter().any(|(key, effect)| it.key == *key && it.effect == *effect);
    let mut taints: Vec<Taint> =
        has.iter().filter(|it| !is_own(it) || is_wanted(it)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|it| it.key == *key && it.effect == *effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                time_added: Some(Time(seen.now)),
                value: None,
            });
        }
    }
    (taints != has).then_some(taints)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    /// `lease`: for how many seconds it holds, and how many ago it was renewed.
    fn check(node: Value, lease: Option<(u64, u64)>, others_ready: bool, expected: Expect) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": ready}});
        let seconds = Duration::from_secs;
        let seen = Seen {
            node: Arc::new(serde_json::from_value(node).unwrap()),
            lease: lease.map(|(held, silent)| (seconds(held), seconds(silent))),
            others_ready,
            pods: vec![Arc::new(serde_json::from_value(pod).unwrap())],
            now: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let Decision { conditions, taints, unready, wait, reason } = decide(&seen);
        let conditions = conditions.map(|it| {
            let it = it.into_iter().map(|it| format!("{}={}", it.type_, it.status));
            it.collect::<Vec<String>>().join(" ")
        });
        let shown = taints.clone().map(|it| {
            let it = it.into_iter().map(|it| format!("{}:{}", it.key, it.effect));
            it.collect::<Vec<String>>().join(" ")
        });
        expected.assert_eq(&format!(
            "{reason}: conditions {conditions:?}, taints {shown:?}, {} unready, {wait:?}",
            unready.len()
        ));
        // When that is done, nothing is left to do.
        let mut node = (*seen.node).clone();
        let status = node.status.get_or_insert_default();
        status.conditions = decide(&seen).conditions.or(status.conditions.take());
        let spec = node.spec.get_or_insert_default();
        spec.taints = taints.or(spec.taints.take());
        let again = decide(&Seen { node: Arc::new(node), pods: Vec::new(), ..seen });
        assert!(again.conditions.is_none() && again.taints.is_none());
    }

    fn node(ready: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn a_node_that_renews_its_lease_is_left_alone() {
        check(
            node("True"),
            Some((40, 49)),
            true,
            expect!["it is ready: conditions None, taints None, 0 unready, Some(1s)"],
        );
        // Whoever has made it without a Lease says how it is.
        check(
            node("True"),
            None,
            true,
            expect!["it is ready: conditions None, taints None, 0 unready, None"],
        );
    }

    #[test]
    fn a_lost_node_is_unreachable() {
        check(
            node("True"),
            Some((40, 50)),
            true,
            expect![[
                r#"its Lease has run out: conditions Some("Ready=Unknown MemoryPressure=Unknown DiskPressure=Unknown PIDPressure=Unknown"), taints Some("node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute"), 1 unready, None"#
            ]],
        );
        // Nobody is sent away when there is nowhere to go.
        check(
            node("True"),
            Some((4, 5)),
            false,
            expect![[
                r#"its Lease has run out: conditions Some("Ready=Unknown MemoryPressure=Unknown DiskPressure=Unknown PIDPressure=Unknown"), taints Some("node.kubernetes.io/unreachable:NoSchedule"), 1 unready, None"#
            ]],
        );
    }

    #[test]
    fn taints_follow_and_others_stay() {
        let mut back = node("True");
        back["spec"] = json!({"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
            {"key": "gpu", "effect": "NoSchedule"}]});
        check(
            back,
            Some((40, 0)),
            true,
            expect![[
                r#"it is ready: conditions None, taints Some("gpu:NoSchedule node.kubernetes.io/unschedulable:NoSchedule"), 0 unready, Some(50s)"#
            ]],
        );
        let mut pressed = node("False");
        let disk = json!({"type": "DiskPressure", "status": "True"});
        pressed["status"]["conditions"].as_array_mut().unwrap().push(disk);
        check(
            pressed,
            Some((40, 0)),
            true,
            expect![[
                r#"it is not ready: conditions None, taints Some("node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute node.kubernetes.io/disk-pressure:NoSchedule"), 1 unready, Some(50s)"#
            ]],
        );
    }
}
