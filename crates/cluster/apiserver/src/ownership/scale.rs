//! Owners of a workload's replicas, seen as owners of a Scale, and back.

use std::{borrow::Cow, collections::BTreeSet};

use super::{owners::Owner, set::Set};

/// API version of Scale.
pub(super) const API_VERSION: &str = "autoscaling/v1";

fn replicas() -> Set<'static> {
    Set::of(&["spec", "replicas"])
}

fn owns_replicas(owner: &Owner<'_>) -> bool {
    !owner.fields.clone().intersection(&replicas()).is_empty()
}

/// The owners of the replicas, as owners of the Scale.
pub(super) fn of_scale<'a>(workload: &[Owner<'a>]) -> Vec<Owner<'a>> {
    let owners = workload.iter().filter(|it| owns_replicas(it)).map(|it| Owner {
        api_version: Cow::Borrowed(API_VERSION),
        fields: replicas(),
        ..it.clone()
    });
    owners.collect()
}

/// The owners of the workload after those of its Scale have become `scale`.
pub(super) fn of_workload<'a>(
    workload: Vec<Owner<'a>>,
    mut scale: Vec<Owner<'a>>,
    api_version: &str,
) -> Vec<Owner<'a>> {
    let at_any_version =
        |it: &Owner<'a>| (it.manager.clone(), it.operation, it.subresource.clone());
    let mut left: BTreeSet<_> = scale.iter().map(at_any_version).collect();
    let mut owners = Vec::with_capacity(workload.len() + 1);
    for mut owner in workload {
        if owns_replicas(&owner) && !left.remove(&at_any_version(&owner)) {
            owner.fields = owner.fields.difference(&replicas());
        }
        if !owner.fields.is_empty() {
            owners.push(owner);
        }
    }
    scale.retain(|it| left.contains(&at_any_version(it)));
    let new = scale.into_iter().filter(owns_replicas).map(|it| Owner {
        api_version: Cow::Owned(api_version.to_owned()),
        fields: replicas(),
        // As in the original, which looks for the time where it cannot be.
        time: None,
        ..it
    });
    owners.extend(new);
    owners
}
