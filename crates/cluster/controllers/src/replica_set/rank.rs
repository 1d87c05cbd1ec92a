//! Which pods go first when a ReplicaSet has too many: `ActivePodsWithRanks` of
//! kube-controller-manager. On one machine pods are never doubled up, so that rank is left out.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::{is_ready, phase, ready_since};

/// On a pod: an integer; of two pods that are otherwise alike, the cheaper one goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts before another pod's if this one should go first.
pub(super) type Rank<'a> = (bool, u8, bool, i32, u32, Reverse<i32>, u32, Option<&'a str>);

/// The rank of `pod`: unassigned before assigned; pending, then unknown, then running; not ready
/// before ready; cheap before dear; ready for a short time; restarted often; young.
///
/// Times are compared by their order of magnitude only, and within one the uid decides, so that a
/// scale-down does not always hit the newest pods, which may all be in the same place
/// (`LogarithmicScaleDown`, KEP-2185).
pub(super) fn rank(pod: &Pod, now: Timestamp) -> Rank<'_> {
    let assigned = pod.spec.as_ref().is_some_and(|it| it.node_name.is_some());
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|it| it.get(DELETION_COST)?.parse().ok()).unwrap_or(0);
    let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    let restarts = statuses.map(|it| it.restart_count).max().unwrap_or(0);
    let ready_age = ready_since(pod).map_or(0, |it| magnitude(it, now));
    let age = pod.metadata.creation_timestamp.as_ref().map_or(0, |it| magnitude(it.0, now));
    let uid = pod.metadata.uid.as_deref();
    (assigned, phase, is_ready(pod), cost, ready_age, Reverse(restarts), age, uid)
}

/// The binary logarithm of an age in nanoseconds, rounded down; 0 for none.
fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let age = now.duration_since(since).as_nanos();
    u128::try_from(age).ok().and_then(u128::checked_ilog2).map_or(0, |it| it + 1)
}
