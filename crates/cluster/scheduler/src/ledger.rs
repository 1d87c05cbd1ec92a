//! What the pods on each node use. Pods that were just given a node count at once, before the API
//! has told of it, so that two decisions in a row do not give away the same place.

use std::collections::{BTreeMap, BTreeSet};

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use crate::requests::{Amounts, HostPort, add, host_ports, requests, subtract};

/// What all pods of one node use together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) pods: i64,
    pub(crate) amounts: Amounts,
    pub(crate) ports: Vec<HostPort>,
    /// How many there are of each controller, by its uid.
    pub(crate) replicas: BTreeMap<String, i64>,
}

#[derive(Clone, Debug)]
struct Entry {
    uid: Option<String>,
    controller: Option<String>,
    node: String,
    assumed: bool,
    amounts: Amounts,
    ports: BTreeSet<HostPort>,
}

/// The usage of all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<Key, Entry>,
    usages: BTreeMap<String, Usage>,
    /// Of a node without pods.
    nothing: Usage,
}

impl Ledger {
    /// What the pods on `node` use.
    pub(crate) fn usage(&self, node: &str) -> &Usage {
        self.usages.get(node).unwrap_or(&self.nothing)
    }

    /// The pod is now so, or gone. Says whether that freed anything.
    pub(crate) fn update(&mut self, key: &Key, pod: Option<&Pod>) -> bool {
        let uid = pod.and_then(|it| it.metadata.uid.clone());
        let node = pod.and_then(|it| it.spec.as_ref()?.node_name.clone());
        let known = self.entries.get(key);
        let over = pod.is_none_or(is_over);
        // News from before our decision.
        if !over && node.is_none() && known.is_some_and(|it| it.assumed && it.uid == uid) {
            return false;
        }
        let had = self.forget(key);
        let Some((pod, node)) = pod.zip(node).filter(|_| !over) else { return had };
        self.insert(key, pod, &node, false);
        false
    }

    /// The pod will be on `node`.
    pub(crate) fn assume(&mut self, key: &Key, pod: &Pod, node: &str) {
        self.forget(key);
        self.insert(key, pod, node, true);
    }

    /// The pod is on no node after all. Says whether it was on one.
    pub(crate) fn forget(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.remove(key) else { return false };
        if let Some(usage) = self.usages.get_mut(&entry.node) {
            usage.pods -= 1;
            subtract(&mut usage.amounts, &entry.amounts);
            if let Some(controller) = &entry.controller {
                let left = usage.replicas.get(controller).copied().unwrap_or_default() - 1;
                match left {
                    ..=0 => drop(usage.replicas.remove(controller)),
                    left => drop(usage.replicas.insert(controller.clone(), left)),
                }
            }
            for port in &entry.ports {
                if let Some(index) = usage.ports.iter().position(|it| it == port) {
                    usage.ports.swap_remove(index);
                }
            }
        }
        true
    }

    fn insert(&mut self, key: &Key, pod: &Pod, node: &str, assumed: bool) {
        let (amounts, ports) = (requests(pod), host_ports(pod));
        let usage = self.usages.entry(node.to_owned()).or_default();
        usage.pods += 1;
        add(&mut usage.amounts, &amounts);
        usage.ports.extend(ports.iter().cloned());
        let controller = controller(pod).map(str::to_owned);
        if let Some(controller) = &controller {
            *usage.replicas.entry(controller.clone()).or_default() += 1;
        }
        let (uid, node) = (pod.metadata.uid.clone(), node.to_owned());
        self.entries.insert(key.clone(), Entry { uid, controller, node, assumed, amounts, ports });
    }
}

/// The uid of who keeps as many pods like this one as there are to be.
pub(crate) fn controller(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|it| it.controller == Some(true)).map(|it| it.uid.as_str())
}

/// Whether the pod uses nothing any more.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: Option<&str>, phase: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"uid": "u"},
            "spec": {"nodeName": node, "containers": [{
                "name": "c",
                "ports": [{"containerPort": 1, "hostPort": 80}],
                "resources": {"requests": {"cpu": "1"}},
            }]},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn state(ledger: &Ledger) -> (i64, i64, usize) {
        let usage = ledger.usage("n");
        (usage.pods, usage.amounts.get("cpu").copied().unwrap_or(0), usage.ports.len())
    }

    #[test]
    fn an_assumed_pod_counts_once_until_it_is_over() {
        let (mut ledger, key) = (Ledger::default(), Key::namespaced("a", "p"));
        ledger.assume(&key, &pod(None, "Pending"), "n");
        assert!(!ledger.update(&key, Some(&pod(None, "Pending"))));
        assert_eq!(state(&ledger), (1, 1000, 1));
        assert!(!ledger.update(&key, Some(&pod(Some("n"), "Running"))));
        assert_eq!(state(&ledger), (1, 1000, 1));
        assert!(ledger.update(&key, Some(&pod(Some("n"), "Succeeded"))));
        assert_eq!(state(&ledger), (0, 0, 0));
        assert!(!ledger.update(&key, None));
    }
}
