//! How many pods of the old ReplicaSets may go now, so that enough stay available.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::scale::{Bounds, available, replicas, sum};

/// The old sets that shrink now, with their new sizes: first those pods that are not available,
/// for they cost nothing; then as many available ones as can be spared. `old` is the oldest first.
pub(super) fn shrink(
    bounds: Bounds,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let all = sum(old.iter().chain(new), replicas);
    let new_unavailable = new.map_or(0, |it| (replicas(it) - available(it)).max(0));
    let removable = all - bounds.available_min() - new_unavailable;
    let mut sizes: Vec<(Arc<ReplicaSet>, i32)> =
        old.iter().map(|it| (Arc::clone(it), replicas(it))).collect();
    let mut unhealthy_left = removable.max(0);
    for (set, size) in &mut sizes {
        let step = (*size - available(set)).clamp(0, unhealthy_left);
        *size -= step;
        unhealthy_left -= step;
    }
    // Only if pods could be spared at all: the available ones beyond the minimum.
    let mut spare = if 0 < removable {
        sum(old.iter().chain(new), available) - bounds.available_min()
    } else {
        0
    };
    for (_, size) in &mut sizes {
        let step = (*size).min(spare).max(0);
        *size -= step;
        spare -= step;
    }
    sizes.retain(|(set, size)| *size != replicas(set));
    sizes
}
