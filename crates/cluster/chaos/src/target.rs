//! Whom a target means: which pods and nodes, of those there are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use api::selector::LabelSelector;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::fault::{PodId, Target, TargetKind};

/// What there is to choose from.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) pods: Vec<std::sync::Arc<Pod>>,
    pub(crate) nodes: Vec<std::sync::Arc<Node>>,
    /// Names of pods behind Services, by namespace and name of the Service.
    pub(crate) backends: BTreeMap<(String, String), BTreeSet<String>>,
}

impl World {
    /// The pods of a target that have not ended.
    pub(crate) fn pods_of(&self, target: &Target) -> Vec<&Pod> {
        let nodes = self.nodes_of(target);
        let namespace = target.namespace.as_deref().unwrap_or("default");
        let behind: BTreeSet<&str> = match target.kind {
            TargetKind::Service => target
                .names
                .iter()
                .filter_map(|it| self.backends.get(&(namespace.to_owned(), it.clone())))
                .flatten()
                .map(String::as_str)
                .collect(),
            TargetKind::Node | TargetKind::Pod => BTreeSet::new(),
        };
        let means = |pod: &Pod| match target.kind {
            TargetKind::Node => node_of(pod).is_some_and(|it| nodes.contains(it)),
            TargetKind::Service => in_namespace(pod, namespace) && behind.contains(name_of(pod)),
            TargetKind::Pod => in_namespace(pod, namespace) && named(target, &pod.metadata),
        };
        let alive = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
            node_of(pod).is_some() && !matches!(phase, Some("Succeeded" | "Failed"))
        };
        self.pods.iter().map(|it| &**it).filter(|it| alive(it) && means(it)).collect()
    }

    /// Names of the nodes of a target; none if it is not about nodes.
    pub(crate) fn nodes_of(&self, target: &Target) -> BTreeSet<String> {
        if target.kind != TargetKind::Node {
            return BTreeSet::new();
        }
        let nodes = self.nodes.iter().filter(|it| named(target, &it.metadata));
        nodes.filter_map(|it| it.metadata.name.clone()).collect()
    }
}

fn named(
    target: &Target,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> bool {
    let name = metadata.name.as_deref().unwrap_or_default();
    match &target.selector {
        Some(selector) if target.names.is_empty() => {
            let labels = metadata.labels.clone().unwrap_or_default();
            LabelSelector::from_object(selector).is_ok_and(|it| it.matches(&labels))
        }
        _ => target.names.iter().any(|it| it == name),
    }
}

fn in_namespace(pod: &Pod, namespace: &str) -> bool {
    pod.metadata.namespace.as_deref() == Some(namespace)
}

pub(crate) fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(crate) fn id_of(pod: &Pod) -> PodId {
    PodId {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: name_of(pod).to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

/// At most `count` of `pods`: those that `kept` names first, then others by a lot that each pod has in each
/// fault, so that the choice is by chance and the same whenever it is made again.
pub(crate) fn choose<'a>(
    fault: &str,
    mut pods: Vec<&'a Pod>,
    kept: &[PodId],
    count: Option<usize>,
) -> Vec<&'a Pod> {
    let lot = |pod: &Pod| {
        let mut hasher = DefaultHasher::new();
        (fault, pod.metadata.uid.as_deref()).hash(&mut hasher);
        hasher.finish()
    };
    let is_kept = |pod: &Pod| kept.iter().any(|it| Some(&it.uid) == pod.metadata.uid.as_ref());
    pods.sort_by_key(|it| (!is_kept(it), lot(it)));
    pods.truncate(count.unwrap_or(usize::MAX));
    pods.sort_by_key(|it| id_of(it));
    pods
}
