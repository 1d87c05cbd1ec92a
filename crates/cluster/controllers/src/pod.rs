//! What controllers ask of a pod's status, as `k8s.io/kubernetes/pkg/api/v1/pod` defines it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::owner::is_deleting;

/// Whether the pod counts as a replica: neither over nor on its way out.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(&pod.metadata)
}

/// Whether all containers have ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// `status.phase`, or nothing.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod's readiness condition holds.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|it| it.status == "True")
}

/// Since when the pod is ready; `None` if it is not, or nobody knows.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|it| it.status == "True")?;
    condition.last_transition_time.as_ref().map(|it| it.0)
}

/// Whether the pod has been ready for `min_ready_seconds`, and if not, how long until then (as far
/// as it is ready at all).
pub(crate) fn availability(
    pod: &Pod,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Result<(), Option<SignedDuration>> {
    if !is_ready(pod) {
        return Err(None);
    }
    if min_ready_seconds <= 0 {
        return Ok(());
    }
    let needed = SignedDuration::from_secs(min_ready_seconds.into());
    let passed = ready_since(pod).map(|it| now.duration_since(it));
    match passed {
        Some(passed) if needed <= passed => Ok(()),
        Some(passed) => Err(Some(needed - passed)),
        None => Err(None),
    }
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == "Ready")
}
