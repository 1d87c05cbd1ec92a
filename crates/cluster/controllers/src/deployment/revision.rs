//! ReplicaSets as revisions of a Deployment: which one is current, which number each has, what it
//! is made of, which of the old ones are kept.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{
    hash::template_hash,
    scale::{MAX_REPLICAS, is_settled, pods, set_size_annotations},
};
use crate::owner::{controller_reference, is_deleting};

/// On a Deployment and its ReplicaSets: the number of the rollout.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";

/// On a ReplicaSet: the numbers it had before it was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// Longest list of such numbers, in characters (`maxRevHistoryLengthInChars`).
const REVISION_HISTORY_CHARS_MAX: usize = 2000;

/// The label that tells the pods of one ReplicaSet from those of another.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that say nothing about its ReplicaSets.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    super::scale::DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// Whether `set` has the template of `deployment`, apart from the hash in its labels.
pub(super) fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|it| &it.template);
    let template = set.spec.as_ref().and_then(|it| it.template.as_ref());
    let (Some(wanted), Some(template)) = (wanted, template) else { return false };
    if wanted.spec != template.spec {
        return false;
    }
    without_hash(wanted) == without_hash(template)
}

fn without_hash(template: &PodTemplateSpec) -> ObjectMeta {
    let mut metadata = template.metadata.clone().unwrap_or_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(TEMPLATE_HASH);
    }
    // The server knows no difference between no labels and none.
    metadata.labels = metadata.labels.filter(|it| !it.is_empty());
    metadata.annotations = metadata.annotations.filter(|it| !it.is_empty());
    metadata
}

/// The oldest first; of one age, by name.
pub(super) fn by_age(sets: &mut [Arc<ReplicaSet>]) {
    sets.sort_by(|one, other| {
        let age = |it: &ReplicaSet| it.metadata.creation_timestamp.as_ref().map(|it| it.0);
        (age(one), &one.metadata.name).cmp(&(age(other), &other.metadata.name))
    });
}

/// The revision of an object, 0 if it has none.
pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|it| it.get(REVISION)?.parse().ok()).unwrap_or(0)
}

/// The ReplicaSet for the Deployment's present template, without pods yet.
pub(super) fn new_set(deployment: &Deployment, spec: &DeploymentSpec, revision: i64) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|it| it.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels = with_hash(metadata.labels.take());
    let labels = metadata.labels.clone();
    let match_labels = with_hash(spec.selector.match_labels.clone());
    let selector = LabelSelector { match_labels, ..spec.selector.clone() };
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(format!("{name}-{hash}")),
        namespace: deployment.metadata.namespace.clone(),
        labels,
        owner_references: Some(vec![controller_reference(deployment)]),
        ..Default::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(0),
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
    };
    let mut set = ReplicaSet { metadata, spec: Some(spec), status: None };
    describe(&mut set, deployment, revision);
    set_size_annotations(&mut set, deployment);
    set
}

/// Brings the annotations and settings of the current ReplicaSet in line with its Deployment.
/// Says whether that changed anything.
pub(super) fn describe(set: &mut ReplicaSet, deployment: &Deployment, new: i64) -> bool {
    let old_revision = revision(&set.metadata);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    let wanted = deployment.metadata.annotations.iter().flatten();
    for (key, value) in wanted.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    if old_revision < new {
        annotations.insert(REVISION.to_owned(), new.to_string());
        if 0 < old_revision {
            let history = annotations.get(REVISION_HISTORY).map_or("", String::as_str);
            let history = history_with(history, old_revision);
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    let mut changed = *annotations != before;
    let min_ready_seconds = deployment.spec.as_ref().and_then(|it| it.min_ready_seconds);
    if let Some(spec) = &mut set.spec
        && spec.min_ready_seconds.unwrap_or(0) != min_ready_seconds.unwrap_or(0)
    {
        spec.min_ready_seconds = min_ready_seconds;
        changed = true;
    }
    changed
}

/// Forgets the oldest revisions where the list would get too long.
fn history_with(history: &str, revision: i64) -> String {
    let mut history = match history {
        "" => revision.to_string(),
        history => format!("{history},{revision}"),
    };
    while REVISION_HISTORY_CHARS_MAX < history.len() {
        match history.split_once(',') {
            Some((_, newer)) => history = newer.to_owned(),
            None => return String::new(),
        }
    }
    history
}

/// The old ReplicaSets that the history has no room for: those with the smallest revisions, as far
/// as they have no pods and are at rest.
pub(super) fn superfluous(old: &[Arc<ReplicaSet>], limit: Option<i32>) -> Vec<Arc<ReplicaSet>> {
    // The API defaults the limit to 10; the largest number means that all are kept.
    let Some(limit) = limit.filter(|it| *it != i32::MAX) else { return Vec::new() };
    let mut sets: Vec<_> = old.iter().filter(|it| !is_deleting(&it.metadata)).collect();
    sets.sort_by_key(|it| (revision(&it.metadata), it.metadata.creation_timestamp.clone()));
    let extra = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let at_rest = |set: &ReplicaSet| pods(set) == 0 && is_settled(set);
    sets.into_iter().take(extra).filter(|it| at_rest(it)).map(Arc::clone).collect()
}
