//! Which pods have to leave a node, and when, as a function of what was seen.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::owner::is_deleting;

/// The effect of taints that pods must tolerate to stay.
const NO_EXECUTE: &str = "NoExecute";

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) node: Arc<Node>,
    /// The pods that it has.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) now: Timestamp,
}

/// What to do, and why.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    /// Pods that have to leave now.
    pub(super) evict: Vec<Arc<Pod>>,
    /// When the next one has to.
    pub(super) wait: Option<Duration>,
    pub(super) reason: &'static str,
}

/// Whether a node has taints that pods must tolerate to stay.
pub(super) fn is_tainted(node: &Node) -> bool {
    taints(node).next().is_some()
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    taints.filter(|it| it.effect == NO_EXECUTE)
}

/// Which pods have to leave.
pub(super) fn decide(seen: &Seen) -> Decision {
    let (mut evict, mut wait) = (Vec::new(), None::<Duration>);
    for pod in seen.pods.iter().filter(|it| !is_deleting(&it.metadata)) {
        let ends: Vec<Option<Timestamp>> =
            taints(&seen.node).map(|it| end(pod, it, seen.now)).collect();
        let Some(first) = ends.into_iter().flatten().min() else { continue };
        match Duration::try_from(first.duration_since(seen.now)) {
            Ok(left) if !left.is_zero() => wait = Some(wait.map_or(left, |it| it.min(left))),
            _ => evict.push(Arc::clone(pod)),
        }
    }
    let reason = match (is_tainted(&seen.node), evict.is_empty()) {
        (false, _) => "nothing keeps pods away",
        (true, true) => "all pods tolerate the taints for now",
        (true, false) => "pods do not tolerate a taint any longer",
    };
    Decision { evict, wait, reason }
}

/// When a pod has to leave because of a taint; none if it may stay.
fn end(pod: &Pod, taint: &Taint, now: Timestamp) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(now, |it| it.0);
    let tolerations = pod.spec.iter().flat_map(|it| it.tolerations.iter().flatten());
    let seconds: Vec<Option<i64>> =
        tolerations.filter(|it| covers(it, taint)).map(|it| it.toleration_seconds).collect();
    if seconds.is_empty() {
        return Some(since);
    }
    // The least of those that are limited; who is limited by none stays.
    let least = seconds.into_iter().flatten().min()?.max(0);
    Some(since.checked_add(jiff::SignedDuration::from_secs(least)).unwrap_or(Timestamp::MAX))
}

/// Whether a toleration is about a taint.
fn covers(it: &Toleration, taint: &Taint) -> bool {
    let word = |it: &Option<String>| it.clone().unwrap_or_default();
    let (key, effect) = (word(&it.key), word(&it.effect));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match it.operator.as_deref() {
            Some("Exists") => true,
            _ => !key.is_empty() && word(&it.value) == word(&taint.value),
        }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    /// A taint was added 10 s ago; `tolerations` are those of pods a, b….
    fn check(effect: &str, tolerations: &[Value], expected: Expect) {
        let now = Timestamp::from_second(1_700_000_010).unwrap();
        let taint = json!({"key": "k", "value": "v", "effect": effect,
            "timeAdded": Timestamp::from_second(1_700_000_000).unwrap()});
        let node = json!({"spec": {"taints": [taint]}});
        let pods = ["a", "b", "c", "d"].iter().zip(tolerations).map(|(name, it)| {
            let pod =
                json!({"metadata": {"name": name}, "spec": {"containers": [], "tolerations": it}});
            Arc::new(serde_json::from_value(pod).unwrap())
        });
        let node = Arc::new(serde_json::from_value(node).unwrap());
        let Decision { evict, wait, reason } = decide(&Seen { node, pods: pods.collect(), now });
        let names: Vec<_> = evict.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
        expected.assert_eq(&format!("{reason}: {names:?}, then {wait:?}"));
    }

    #[test]
    fn who_does_not_tolerate_leaves_at_once() {
        let all = [
            json!([]),
            json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 5}]),
            json!([{"key": "k", "value": "v", "tolerationSeconds": 15}]),
            json!([{"operator": "Exists"}]),
        ];
        check(
            "NoExecute",
            &all,
            expect![[r#"pods do not tolerate a taint any longer: ["a", "b"], then Some(5s)"#]],
        );
        check("NoSchedule", &all, expect!["nothing keeps pods away: [], then None"]);
    }

    #[test]
    fn the_shortest_time_counts() {
        let both = json!([{"operator": "Exists"}, {"key": "k", "operator": "Exists", "tolerationSeconds": 30}]);
        let other = json!([{"key": "k", "value": "other", "effect": "NoExecute"}]);
        check(
            "NoExecute",
            &[both, other],
            expect![[r#"pods do not tolerate a taint any longer: ["b"], then Some(20s)"#]],
        );
    }
}
