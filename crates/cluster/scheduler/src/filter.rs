//! What keeps a pod from a node: the filters, in the order of the original's plugins, with its
//! words. Adding one is a function and a line in [`FILTERS`].

use api::selector::{LabelOperator, LabelRequirement};
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};

use crate::{
    ledger::Usage,
    requests::{amounts, clash, host_ports, requests},
};

/// A pod, a node, and what the node's pods use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a Node,
    pub(crate) usage: &'a Usage,
}

/// Why a node will not do; empty if it will.
type Filter = fn(Pair<'_>) -> Vec<String>;

/// All filters. The first that objects speaks for the node.
const FILTERS: [Filter; 6] = [unschedulable, name, taints, affinity, ports, fit];

/// Taint of a node that must not get new pods.
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Taint of a node whose agent does not say that it is ready.
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";

/// Why the node of `pair` will not do; empty if it will.
pub(crate) fn objections(pair: Pair<'_>) -> Vec<String> {
    FILTERS.iter().map(|filter| filter(pair)).find(|it| !it.is_empty()).unwrap_or_default()
}

fn object(objects: bool, reason: &str) -> Vec<String> {
    if objects { vec![reason.to_owned()] } else { Vec::new() }
}

fn unschedulable(pair: Pair<'_>) -> Vec<String> {
    let unschedulable = pair.node.spec.as_ref().and_then(|it| it.unschedulable).unwrap_or(false);
    let tolerated = tolerates(pair.pod, &taint(UNSCHEDULABLE_TAINT));
    object(unschedulable && !tolerated, "node(s) were unschedulable")
}

fn name(pair: Pair<'_>) -> Vec<String> {
    let wanted = pair.pod.spec.as_ref().and_then(|it| it.node_name.as_ref());
    let other =
        wanted.is_some_and(|it| !it.is_empty() && Some(it) != pair.node.metadata.name.as_ref());
    object(other, "node(s) didn't match the requested node name")
}

/// A node that is not ready counts as tainted, which in the original the node controller sees to.
fn taints(pair: Pair<'_>) -> Vec<String> {
    let taints = pair.node.spec.iter().flat_map(|it| it.taints.iter().flatten()).cloned();
    let implied = (!is_ready(pair.node)).then(|| taint(NOT_READY_TAINT));
    let mut hard = taints.chain(implied).filter(|it| it.effect != "PreferNoSchedule");
    object(hard.any(|it| !tolerates(pair.pod, &it)), "node(s) had untolerated taint(s)")
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Default::default() }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Whether the pod puts up with a taint.
pub(crate) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.iter().flat_map(|it| it.tolerations.iter().flatten());
    let covers = |it: &Toleration| {
        let (key, effect) = (it.key.as_deref().unwrap_or(""), it.effect.as_deref().unwrap_or(""));
        let value = it.value.as_deref().unwrap_or("");
        (effect.is_empty() || effect == taint.effect)
            && (key.is_empty() || key == taint.key)
            && match it.operator.as_deref() {
                Some("Exists") => true,
                _ => !key.is_empty() && value == taint.value.as_deref().unwrap_or(""),
            }
    };
    tolerations.into_iter().any(covers)
}

fn affinity(pair: Pair<'_>) -> Vec<String> {
    let spec = pair.pod.spec.as_ref();
    let label = |key: &str| pair.node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let mut selected = spec.iter().flat_map(|it| it.node_selector.iter().flatten());
    let selected = selected.all(|(key, value)| label(key) == Some(value));
    let affinity = spec.and_then(|it| it.affinity.as_ref()?.node_affinity.as_ref());
    let required =
        affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let matches = required
        .is_none_or(|it| it.node_selector_terms.iter().any(|term| term_matches(term, pair.node)));
    object(!selected || !matches, "node(s) didn't match Pod's node affinity/selector")
}

/// Whether a node is what a term asks for. A term that asks for nothing matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    if labels.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| node.metadata.name.as_deref().filter(|_| key == "metadata.name");
    let holds = |it: &NodeSelectorRequirement, value: Option<&str>| {
        requirement(it).is_some_and(|requirement| requirement.matches(value))
    };
    labels.into_iter().all(|it| holds(it, label(&it.key)))
        && fields.into_iter().all(|it| holds(it, field(&it.key)))
}

fn requirement(it: &NodeSelectorRequirement) -> Option<LabelRequirement> {
    let operator = match it.operator.as_str() {
        "In" => LabelOperator::In,
        "NotIn" => LabelOperator::NotIn,
        "Exists" => LabelOperator::Exists,
        "DoesNotExist" => LabelOperator::DoesNotExist,
        "Gt" => LabelOperator::GreaterThan,
        "Lt" => LabelOperator::LessThan,
        _ => return None,
    };
    let values = it.values.clone().unwrap_or_default();
    Some(LabelRequirement { key: it.key.clone(), operator, values })
}

fn ports(pair: Pair<'_>) -> Vec<String> {
    let wanted = host_ports(pair.pod);
    let taken = wanted.iter().any(|it| pair.usage.ports.iter().any(|used| clash(it, used)));
    object(taken, "node(s) didn't have free ports for the requested pod ports")
}

fn fit(pair: Pair<'_>) -> Vec<String> {
    let status = pair.node.status.as_ref();
    let allocatable = amounts(status.and_then(|it| it.allocatable.as_ref()));
    let amount = |name: &str| allocatable.get(name).copied().unwrap_or(0);
    let mut reasons = object(amount("pods") <= pair.usage.pods, "Too many pods");
    for (name, wanted) in requests(pair.pod) {
        let used = pair.usage.amounts.get(&name).copied().unwrap_or(0);
        if 0 < wanted && amount(&name) < used.saturating_add(wanted) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}
