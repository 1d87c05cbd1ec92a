//! The order in which objects come out.

use crate::{
    kustomization::SortOptions,
    resource::{Id, Resource},
};

/// Kinds that come first where nothing else is asked for.
const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

/// Kinds that come last.
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts as asked for; as kustomize does if nothing is asked for.
pub(crate) fn sort(
    resources: &mut [Resource],
    options: Option<&SortOptions>,
) -> Result<(), String> {
    let (first, last) = match options {
        None => (FIRST.map(str::to_owned).to_vec(), LAST.map(str::to_owned).to_vec()),
        Some(it) => match (it.order.as_str(), &it.legacy_sort_options) {
            ("fifo", None) => return Ok(()),
            ("fifo", Some(_)) => {
                return Err("legacySortOptions go with order `legacy` only".to_owned());
            }
            ("legacy", None) => {
                (FIRST.map(str::to_owned).to_vec(), LAST.map(str::to_owned).to_vec())
            }
            ("legacy", Some(kinds)) => (kinds.order_first.clone(), kinds.order_last.clone()),
            (other, _) => return Err(format!("order `{other}` is neither fifo nor legacy")),
        },
    };
    resources.sort_by_cached_key(|it| {
        let id = it.id();
        let place = |kinds: &[String]| {
            kinds.iter().position(|it| *it == id.kind).and_then(|it| i64::try_from(it).ok())
        };
        // A kind in both lists is where the second says.
        let rank = match (place(&last), place(&first)) {
            (Some(place), _) => 1 + place,
            (None, Some(place)) => place - i64::try_from(first.len()).unwrap_or(i64::MAX),
            (None, None) => 0,
        };
        (rank, kind_key(&id), name_key(it, &id))
    });
    Ok(())
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn kind_key(id: &Id) -> String {
    format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), or(&id.kind, "~K"))
}

fn name_key(resource: &Resource, id: &Id) -> String {
    format!("{}|{}", or(resource.namespace(), "~X"), or(&id.name, "~N"))
}
