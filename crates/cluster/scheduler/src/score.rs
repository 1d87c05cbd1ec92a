//! How well a pod and a node that will do suit each other.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{
    filter::{Pair, term_matches, tolerates},
    ledger::{Ledger, controller},
    requests::{amounts, requests},
};

/// The score of a perfect node in one respect.
const SCORE_MAX: i64 = 100;

/// Weights of the respects, as the original's default plugins have them.
const TAINTS_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const ROOM_WEIGHT: i64 = 1;

/// The label of a Node that says where it stands.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Higher is better.
pub(crate) fn score(pair: Pair<'_>, spread: &Spread) -> i64 {
    let spread = SPREAD_WEIGHT * spread.score(pair);
    spread
        + TAINTS_WEIGHT * taints(pair)
        + AFFINITY_WEIGHT * affinity(pair)
        + ROOM_WEIGHT * room(pair)
}

/// Where the replicas are that the pod is one of. A replica should not be lost with the others, be it that a
/// node is or a zone (the original's default constraints).
#[derive(Debug, Default)]
pub(crate) struct Spread {
    controller: String,
    /// By zone.
    zones: BTreeMap<String, i64>,
    /// How crowded the most crowded node is.
    most: i64,
}

impl Spread {
    /// Nobody's replica is spread, and nothing is over one node.
    pub(crate) fn of(pod: &Pod, nodes: &[Arc<Node>], ledger: &Ledger) -> Self {
        let Some(controller) = controller(pod).filter(|_| 1 < nodes.len()) else {
            return Self::default();
        };
        let controller = controller.to_owned();
        let mut spread = Self { controller, ..Self::default() };
        let replicas = |node: &Node| {
            let usage = ledger.usage(node.metadata.name.as_deref().unwrap_or_default());
            usage.replicas.get(&spread.controller).copied().unwrap_or_default()
        };
        let counts: Vec<i64> = nodes.iter().map(|it| replicas(it)).collect();
        for (node, count) in nodes.iter().zip(&counts) {
            if let Some(zone) = zone(node) {
                *spread.zones.entry(zone.to_owned()).or_default() += count;
            }
        }
        let crowds = nodes.iter().zip(counts).map(|(node, it)| it + spread.in_zone(node));
        spread.most = crowds.max().unwrap_or_default();
        spread
    }

    fn in_zone(&self, node: &Node) -> i64 {
        zone(node).and_then(|it| self.zones.get(it)).copied().unwrap_or_default()
    }

    fn score(&self, pair: Pair<'_>) -> i64 {
        if self.most == 0 {
            return SCORE_MAX;
        }
        let own = pair.usage.replicas.get(&self.controller).copied().unwrap_or_default();
        SCORE_MAX * (self.most - own - self.in_zone(pair.node)) / self.most
    }
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}

/// Fewer taints that the pod had better avoid.
fn taints(pair: Pair<'_>) -> i64 {
    let taints = pair.node.spec.iter().flat_map(|it| it.taints.iter().flatten());
    let soft = taints.filter(|it| it.effect == "PreferNoSchedule" && !tolerates(pair.pod, it));
    SCORE_MAX / (1 + i64::try_from(soft.count()).unwrap_or(SCORE_MAX))
}

/// The share of the pod's preferences that the node meets, by weight.
fn affinity(pair: Pair<'_>) -> i64 {
    let affinity =
        pair.pod.spec.as_ref().and_then(|it| it.affinity.as_ref()?.node_affinity.as_ref());
    let preferred =
        affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
    let weights = |node: Option<&Node>| -> i64 {
        let terms = preferred.into_iter().flatten();
        let met = terms.filter(|it| node.is_none_or(|node| term_matches(&it.preference, node)));
        met.map(|it| i64::from(it.weight)).sum()
    };
    match weights(None) {
        0 => 0,
        all => SCORE_MAX * weights(Some(pair.node)) / all,
    }
}

/// What CPU and memory would be left, on average (`LeastAllocated`).
fn room(pair: Pair<'_>) -> i64 {
    let status = pair.node.status.as_ref();
    let allocatable = amounts(status.and_then(|it| it.allocatable.as_ref()));
    let wanted = requests(pair.pod);
    let left = ["cpu", "memory"].map(|name| {
        let of = |amounts: &crate::requests::Amounts| amounts.get(name).copied().unwrap_or(0);
        let total = i128::from(of(&allocatable));
        let left = total - i128::from(of(&pair.usage.amounts)) - i128::from(of(&wanted));
        if total <= 0 { 0 } else { left.max(0) * i128::from(SCORE_MAX) / total }
    });
    i64::try_from(left.iter().sum::<i128>() / 2).unwrap_or(0)
}
