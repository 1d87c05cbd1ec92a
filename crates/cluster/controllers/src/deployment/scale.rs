//! Sizes: how many pods a Deployment may have, how they are shared out among its ReplicaSets.

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// On a ReplicaSet: the Deployment's replicas when it was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// On a ReplicaSet: the most pods that the Deployment was allowed then.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// How many pods a Deployment wants, and how far it may stray from that during a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) replicas: i32,
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
}

impl Bounds {
    /// Reads a spec. Percentages of `maxSurge` are rounded up, those of `maxUnavailable` down; if
    /// both are zero one pod may be unavailable, or nothing could ever move
    /// (`ResolveFenceposts` of the deployment utilities).
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if is_recreate(spec) {
            return Self { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
        let surge = rolling.and_then(|it| it.max_surge.as_ref());
        let unavailable = rolling.and_then(|it| it.max_unavailable.as_ref());
        let max_surge =
            resolve(surge, replicas, |share| share.div_euclid(100) + i64::from(share % 100 != 0));
        let max_unavailable = resolve(unavailable, replicas, |share| share / 100);
        let max_unavailable =
            if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// The most pods there may be at any moment.
    pub(super) const fn pods_max(self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest available pods there may be at any moment.
    pub(super) const fn available_min(self) -> i32 {
        self.replicas.saturating_sub(self.max_unavailable)
    }
}

/// Whether all old pods go before the first new one comes.
pub(super) fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().is_some_and(|it| it.type_.as_deref() == Some("Recreate"))
}

/// An absolute number, or a percentage of `total`; 25 % if nothing is said. `round` divides the
/// product by 100.
fn resolve(value: Option<&IntOrString>, total: i32, round: impl Fn(i64) -> i64) -> i32 {
    let share = |percent: i64| i32::try_from(round(percent * i64::from(total))).unwrap_or(i32::MAX);
    match value {
        None => share(25),
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|it| it.parse().ok()).map_or(0, share)
        }
    }
}

/// `spec.replicas`.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

/// Pods of `set` that are available and will stay: after a scale-down is asked for, the status goes
/// on counting pods that are about to go.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    let counted = set.status.as_ref().and_then(|it| it.available_replicas).unwrap_or(0);
    counted.min(replicas(set))
}

/// Pods that `set` has or may still make.
pub(super) fn pods(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |it| it.replicas).max(replicas(set))
}

/// Whether the controller of `set` has acted on the size it was last given. Until then its status
/// says nothing about the pods there will be.
pub(super) fn is_settled(set: &ReplicaSet) -> bool {
    let observed = set.status.as_ref().and_then(|it| it.observed_generation);
    set.metadata.generation <= observed
}

/// The sum of a number over several sets.
pub(super) fn sum<'a>(
    sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>,
    number: impl Fn(&ReplicaSet) -> i32,
) -> i32 {
    sets.into_iter().map(|it| number(it)).fold(0, i32::saturating_add)
}

fn annotation(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// Notes the sizes by which `set` is scaled. Says whether they changed.
pub(super) fn set_size_annotations(set: &mut ReplicaSet, deployment: &Deployment) -> bool {
    let Some(bounds) = deployment.spec.as_ref().map(Bounds::of) else { return false };
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (name, value) in [(DESIRED_REPLICAS, bounds.replicas), (MAX_REPLICAS, bounds.pods_max())] {
        let value = value.to_string();
        changed |= annotations.insert(name.to_owned(), value.clone()) != Some(value);
    }
    changed
}

/// Whether the Deployment has another size than when its sets were last scaled.
pub(super) fn is_scaling<'a>(
    bounds: Bounds,
    sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>,
) -> bool {
    let mut active = sets.into_iter().filter(|it| 0 < replicas(it));
    active.any(|it| annotation(it, DESIRED_REPLICAS).is_some_and(|it| it != bounds.replicas))
}

/// The size that the new set may have now.
pub(super) fn new_size(bounds: Bounds, recreate: bool, new: i32, all: i32) -> i32 {
    if recreate {
        return bounds.replicas;
    }
    let room = bounds.pods_max().saturating_sub(all).max(0);
    new.saturating_add(room.min(bounds.replicas.saturating_sub(new)).max(0))
}

/// Sizes for a Deployment whose own size changed: `scale` of the deployment controller. A set that
/// is alone takes the whole change; during a rollout every set takes a part in proportion to its
/// size, so that a scaled-up rollout does not consist of new, untried pods alone.
pub(super) fn sizes(
    bounds: Bounds,
    recreate: bool,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let all: Vec<_> = old.iter().chain(new).collect();
    let active: Vec<_> = all.into_iter().filter(|it| 0 < replicas(it)).collect();
    if let Some(only) = active_or_latest(&active, new, old) {
        return vec![(Arc::clone(only), bounds.replicas)];
    }
    if new.is_some_and(|it| is_saturated(bounds, it)) {
        let old = old.iter().filter(|it| 0 < replicas(it));
        return old.map(|it| (Arc::clone(it), 0)).collect();
    }
    if recreate { Vec::new() } else { proportional(bounds, active) }
}

/// The set that takes the whole size: the only one with pods, or if none has any, the newest.
fn active_or_latest<'a>(
    active: &[&'a Arc<ReplicaSet>],
    new: Option<&'a Arc<ReplicaSet>>,
    old: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    match active {
        [] => new.or_else(|| old.last()),
        [only] => Some(only),
        _ => None,
    }
}

fn is_saturated(bounds: Bounds, new: &ReplicaSet) -> bool {
    annotation(new, DESIRED_REPLICAS) == Some(bounds.replicas)
        && replicas(new) == bounds.replicas
        && available(new) == bounds.replicas
}

fn proportional(bounds: Bounds, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<(Arc<ReplicaSet>, i32)> {
    let allowed = if 0 < bounds.replicas { bounds.pods_max() } else { 0 };
    let to_add = allowed - sum(active.iter().copied(), replicas);
    // Largest first. Of equal ones the newer is the first to grow, the older the first to shrink.
    active.reverse();
    if to_add <= 0 {
        active.reverse();
    }
    active.sort_by_key(|it| Reverse(replicas(it)));
    let (mut added, mut sizes) = (0, Vec::new());
    for set in active {
        let share = share(bounds, set);
        let left = to_add - added;
        let part = match left {
            0 => 0,
            _ if 0 < to_add => share.min(left),
            _ => share.max(left),
        };
        added += part;
        sizes.push((Arc::clone(set), replicas(set) + part));
    }
    // What rounding left over goes to the largest.
    if let Some((_, size)) = sizes.first_mut() {
        *size = size.saturating_add(to_add - added).max(0);
    }
    sizes
}

/// How many pods `set` gains or loses if it keeps its share of the whole.
fn share(bounds: Bounds, set: &ReplicaSet) -> i32 {
    let size = replicas(set);
    if bounds.replicas == 0 {
        return -size;
    }
    let Some(before) = annotation(set, MAX_REPLICAS).filter(|it| *it != 0) else { return 0 };
    let (before, scaled) = (i64::from(before), i64::from(size) * i64::from(bounds.pods_max()));
    // Rounds halves up, as the original does.
    let target = (2 * scaled + before).div_euclid(2 * before);
    i32::try_from(target).unwrap_or(i32::MAX) - size
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};

    use super::*;

    fn bounds(replicas: i32, surge: &str, unavailable: &str) -> (i32, i32) {
        let number = |text: &str| match text.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String(text.to_owned()),
        };
        let rolling_update = Some(RollingUpdateDeployment {
            max_surge: Some(number(surge)),
            max_unavailable: Some(number(unavailable)),
        });
        let strategy = Some(DeploymentStrategy { rolling_update, ..Default::default() });
        let spec = DeploymentSpec { replicas: Some(replicas), strategy, ..Default::default() };
        let Bounds { max_surge, max_unavailable, .. } = Bounds::of(&spec);
        (max_surge, max_unavailable)
    }

    #[test]
    fn percentages_are_rounded_as_kubernetes_rounds_them() {
        assert_eq!(bounds(10, "25%", "25%"), (3, 2));
        assert_eq!(bounds(3, "25%", "25%"), (1, 0));
        assert_eq!(bounds(1, "25%", "25%"), (1, 0));
        assert_eq!(bounds(4, "100%", "0"), (4, 0));
        assert_eq!(bounds(10, "0", "0"), (0, 1));
        assert_eq!(bounds(10, "0", "5%"), (0, 1));
        assert_eq!(bounds(2, "3", "7"), (3, 2));
        assert_eq!(bounds(0, "25%", "25%"), (0, 0));
    }
}
