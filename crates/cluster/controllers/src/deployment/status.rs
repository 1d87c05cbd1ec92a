//! The status of a Deployment: counts of its ReplicaSets, availability, progress and its deadline.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{
        DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    condition::{
        self, AVAILABLE, DEADLINE_EXCEEDED, NEW_SET_AVAILABLE, PROGRESSING, REPLICA_FAILURE,
    },
    decide::Seen,
    scale::{Bounds, replicas, sum},
};

/// Time after the deadline at which it is looked at, so that it has surely passed.
const AFTER_DEADLINE: SignedDuration = SignedDuration::from_secs(1);

/// The parts that a status is made of.
pub(super) struct Parts<'a> {
    pub(super) seen: &'a Seen,
    pub(super) spec: &'a DeploymentSpec,
    pub(super) bounds: Bounds,
    pub(super) new: Option<&'a Arc<ReplicaSet>>,
    pub(super) old: &'a [Arc<ReplicaSet>],
    /// Conditions as this decision has found or already changed them.
    pub(super) conditions: Vec<DeploymentCondition>,
}

/// Counts, and whether enough pods are available.
pub(super) fn counted(parts: &Parts<'_>) -> DeploymentStatus {
    let Parts { seen, bounds, new, old, .. } = *parts;
    let all = || old.iter().chain(new);
    let number = |it: i32| (it != 0).then_some(it);
    let available = sum(all(), |it| status_of(it, |it| it.available_replicas.unwrap_or(0)));
    let wanted = sum(all(), replicas);
    let mut conditions = parts.conditions.clone();
    let (holds, reason, message) = if bounds.available_min() <= available {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    condition::set(&mut conditions, condition::new(AVAILABLE, holds, reason, message, seen.now));
    let terminating = all().map(|it| it.status.as_ref().and_then(|it| it.terminating_replicas));
    let old_status = seen.deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: seen.deployment.metadata.generation,
        replicas: number(sum(all(), |it| status_of(it, |it| it.replicas))),
        updated_replicas: number(sum(new, |it| status_of(it, |it| it.replicas))),
        ready_replicas: number(sum(all(), |it| status_of(it, |it| it.ready_replicas.unwrap_or(0)))),
        available_replicas: number(available),
        unavailable_replicas: number((wanted - available).max(0)),
        terminating_replicas: terminating.sum::<Option<i32>>(),
        collision_count: old_status.and_then(|it| it.collision_count),
        conditions: Some(conditions),
    }
}

/// Counts, availability, and how the rollout goes: `syncRolloutStatus` of the original.
pub(super) fn of_rollout(parts: &Parts<'_>) -> DeploymentStatus {
    let mut status = counted(parts);
    let mut conditions = status.conditions.take().unwrap_or_default();
    if has_deadline(parts.spec) {
        let over = status.replicas == status.updated_replicas
            && condition::has_reason(&parts.conditions, PROGRESSING, NEW_SET_AVAILABLE);
        if !over {
            note_progress(parts, &status, &mut conditions);
        }
    } else {
        condition::remove(&mut conditions, PROGRESSING);
    }
    match replica_failure(parts) {
        Some(failure) => condition::set(&mut conditions, failure),
        None => condition::remove(&mut conditions, REPLICA_FAILURE),
    }
    status.conditions = Some(conditions);
    status
}

fn note_progress(
    parts: &Parts<'_>,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
) {
    let now = parts.seen.now;
    let name = match parts.new {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or_default()),
        None => {
            let name = parts.seen.deployment.metadata.name.as_deref();
            format!("Deployment {:?}", name.unwrap_or_default())
        }
    };
    let progressing = |holds, reason, message| {
        condition::new(PROGRESSING, holds, reason, format!("{name} {message}"), now)
    };
    if is_complete(parts, status) {
        let message = "has successfully progressed.";
        condition::set(conditions, progressing("True", NEW_SET_AVAILABLE, message));
    } else if has_progressed(parts, status) {
        condition::renew(conditions, progressing("True", "ReplicaSetUpdated", "is progressing."));
    } else if has_timed_out(parts.spec, conditions, now) {
        let message = "has timed out progressing.";
        condition::set(conditions, progressing("False", DEADLINE_EXCEEDED, message));
    }
}

/// Whether the spec sets a deadline; the largest number means none.
pub(super) fn has_deadline(spec: &DeploymentSpec) -> bool {
    deadline(spec).is_some()
}

fn deadline(spec: &DeploymentSpec) -> Option<SignedDuration> {
    let seconds = spec.progress_deadline_seconds.filter(|it| *it != i32::MAX)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Whether all pods are of the new template and available, and no others are left.
pub(super) fn is_complete(parts: &Parts<'_>, status: &DeploymentStatus) -> bool {
    let wanted = parts.bounds.replicas;
    let counts = [status.updated_replicas, status.replicas, status.available_replicas];
    counts.into_iter().all(|it| it.unwrap_or(0) == wanted)
}

/// Whether the counts moved in the right direction since the last status.
fn has_progressed(parts: &Parts<'_>, new: &DeploymentStatus) -> bool {
    let counts = |it: Option<&DeploymentStatus>| {
        let number = |count: fn(&DeploymentStatus) -> Option<i32>| it.and_then(count).unwrap_or(0);
        let updated = number(|it| it.updated_replicas);
        let outdated = number(|it| it.replicas) - updated;
        [updated, -outdated, number(|it| it.ready_replicas), number(|it| it.available_replicas)]
    };
    let old = counts(parts.seen.deployment.status.as_ref());
    counts(Some(new)).into_iter().zip(old).any(|(new, old)| old < new)
}

fn has_timed_out(
    spec: &DeploymentSpec,
    conditions: &[DeploymentCondition],
    now: Timestamp,
) -> bool {
    let Some(condition) = condition::get(conditions, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(DEADLINE_EXCEEDED) => true,
        _ => until_deadline(spec, condition, now).is_some_and(|it| it < SignedDuration::ZERO),
    }
}

fn until_deadline(
    spec: &DeploymentSpec,
    condition: &DeploymentCondition,
    now: Timestamp,
) -> Option<SignedDuration> {
    let moved = condition.last_update_time.as_ref()?.0;
    Some(deadline(spec)? - now.duration_since(moved))
}

/// When the deadline must be looked at, if the rollout is not over by then.
pub(super) fn next_look(parts: &Parts<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let condition = condition::get(conditions, PROGRESSING)?;
    if is_complete(parts, status) || condition.reason.as_deref() == Some(DEADLINE_EXCEEDED) {
        return None;
    }
    let left = until_deadline(parts.spec, condition, parts.seen.now)?;
    Duration::try_from(left.max(SignedDuration::ZERO) + AFTER_DEADLINE).ok()
}

/// The failure of some ReplicaSet, of the new one first.
fn replica_failure(parts: &Parts<'_>) -> Option<DeploymentCondition> {
    let mut sets = parts.new.into_iter().chain(parts.old);
    let failure = |set: &Arc<ReplicaSet>| -> Option<ReplicaSetCondition> {
        let mut conditions = set.status.as_ref()?.conditions.iter().flatten();
        conditions.find(|it| it.type_ == REPLICA_FAILURE).cloned()
    };
    let failure = sets.find_map(failure)?;
    Some(DeploymentCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time,
    })
}

fn status_of(
    set: &ReplicaSet,
    number: impl Fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32,
) -> i32 {
    set.status.as_ref().map_or(0, number)
}

/// The status when the new ReplicaSet was refused.
pub(super) fn with_creation_failure(seen: &Seen, reason: &str, message: &str) -> DeploymentStatus {
    let mut status = seen.deployment.status.clone().unwrap_or_default();
    if seen.deployment.spec.as_ref().is_some_and(has_deadline) {
        let conditions = status.conditions.get_or_insert_default();
        let failure = condition::new(PROGRESSING, "False", reason, message, seen.now);
        condition::set(conditions, failure);
    }
    status
}

/// The status that makes the next hash another, because the present one is taken.
pub(super) fn with_collision(seen: &Seen) -> DeploymentStatus {
    let mut status = seen.deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
    status
}

/// `Progressing` for a rollout that is paused, or goes on after a pause.
pub(super) fn note_pause(
    spec: &DeploymentSpec,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    // A rollout that failed stays so; pausing it does not make it better.
    if !has_deadline(spec) || condition::has_reason(conditions, PROGRESSING, DEADLINE_EXCEEDED) {
        return;
    }
    let was = condition::has_reason(conditions, PROGRESSING, condition::PAUSED);
    let (reason, message) = match (spec.paused.unwrap_or(false), was) {
        (true, false) => (condition::PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let mut condition = condition::new(PROGRESSING, "Unknown", reason, message, now);
    condition.last_update_time = Some(Time(now));
    condition::set(conditions, condition);
}
