//! What must be true of every world after every change, checked over its diary.

use std::collections::BTreeMap;

use serde_json::Value;
use world::Entry;

/// How many pods of the Deployment `web` there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) pods_max: usize,
    pub(crate) available_min: usize,
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn is_active(pod: &Value) -> bool {
    let phase = text(pod, "/status/phase");
    pod.pointer("/metadata/deletionTimestamp").is_none()
        && phase != "Succeeded"
        && phase != "Failed"
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// During a rollout there are never more pods than the surge allows, and never fewer available
/// ones than the minimum. `from` is the number of entries before the rollout, when all pods were
/// there.
pub(crate) fn invariant_rollout_stays_in_bounds(entries: &[Entry], from: usize, bounds: Bounds) {
    let mut pods = BTreeMap::<String, Value>::new();
    for (index, entry) in entries.iter().enumerate() {
        if entry.kind != "Pod" || text(&entry.object, "/metadata/namespace") != "default" {
            continue;
        }
        let name = text(&entry.object, "/metadata/name").to_owned();
        match entry.verb {
            "DELETED" => drop(pods.remove(&name)),
            _ => drop(pods.insert(name, entry.object.clone())),
        }
        if index < from {
            continue;
        }
        let active = pods.values().filter(|it| is_active(it));
        let (active, ready): (Vec<_>, Vec<_>) =
            (active.clone().collect(), active.filter(|it| is_ready(it)).collect());
        assert!(active.len() <= bounds.pods_max, "{} pods after {entry}", active.len());
        assert!(bounds.available_min <= ready.len(), "{} ready after {entry}", ready.len());
    }
}

/// No pod is bound twice, and none is bound without a Node.
pub(crate) fn invariant_pods_are_bound_once(entries: &[Entry]) {
    let mut bound = BTreeMap::<String, String>::new();
    for entry in entries.iter().filter(|it| it.kind == "Pod") {
        let node = text(&entry.object, "/spec/nodeName");
        let uid = text(&entry.object, "/metadata/uid").to_owned();
        if node.is_empty() {
            assert!(!bound.contains_key(&uid), "unbound again: {entry}");
        } else {
            let before = bound.insert(uid, node.to_owned());
            assert!(before.is_none_or(|it| it == node), "bound twice: {entry}");
        }
    }
}

/// An endpoint that is ready belongs to a pod that was ready a moment ago, and is not going.
pub(crate) fn invariant_ready_endpoints_are_ready_pods(entries: &[Entry]) {
    let mut was_ready = BTreeMap::<String, bool>::new();
    for entry in entries {
        match entry.kind.as_str() {
            "Pod" => {
                let uid = text(&entry.object, "/metadata/uid").to_owned();
                *was_ready.entry(uid).or_default() |= is_ready(&entry.object);
            }
            "EndpointSlice" if entry.verb != "DELETED" => {
                let endpoints = entry.object.get("endpoints").and_then(Value::as_array);
                for endpoint in endpoints.into_iter().flatten() {
                    let uid = text(endpoint, "/targetRef/uid");
                    let ready = endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true));
                    let known = was_ready.get(uid).copied().unwrap_or(false);
                    assert!(uid.is_empty() || !ready || known, "never ready: {entry}");
                }
            }
            _ => {}
        }
    }
}
