//! The conditions of a Deployment, and what keeps their times.

use jiff::Timestamp;
use k8s_openapi::{api::apps::v1::DeploymentCondition, apimachinery::pkg::apis::meta::v1::Time};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reason of `Progressing`: the rollout is over.
pub(super) const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
/// Reason of `Progressing`: nothing has moved for `progressDeadlineSeconds`.
pub(super) const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// Reason of `Progressing` while the rollout is paused.
pub(super) const PAUSED: &str = "DeploymentPaused";

/// A condition that begins now.
pub(super) fn new(
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The condition of this type.
pub(super) fn get<'a>(
    conditions: &'a [DeploymentCondition],
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|it| it.type_ == kind)
}

/// Whether the condition of this type has this reason.
pub(super) fn has_reason(conditions: &[DeploymentCondition], kind: &str, reason: &str) -> bool {
    get(conditions, kind).is_some_and(|it| it.reason.as_deref() == Some(reason))
}

/// Sets a condition. One that says the same already is left alone; one of the same status keeps
/// the time of its transition.
pub(super) fn set(conditions: &mut Vec<DeploymentCondition>, condition: DeploymentCondition) {
    if let Some(old) = get(conditions, &condition.type_)
        && old.status == condition.status
        && old.reason == condition.reason
    {
        return;
    }
    renew(conditions, condition);
}

/// Sets a condition even if it says the same already: its update time shows that things still move.
pub(super) fn renew(conditions: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition) {
    if let Some(old) = get(conditions, &condition.type_)
        && old.status == condition.status
    {
        condition.last_transition_time = old.last_transition_time.clone();
    }
    remove(conditions, &condition.type_);
    conditions.push(condition);
}

/// Removes the condition of this type.
pub(super) fn remove(conditions: &mut Vec<DeploymentCondition>, kind: &str) {
    conditions.retain(|it| it.type_ != kind);
}
