//! The whole policy of the deployment controller, as a function of what was seen.
//!
//! One decision takes one step (create the new ReplicaSet, grow it, shrink the old ones, clean up),
//! as the original does; the next is decided on what the first has led to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};

use super::{
    condition::{self, PROGRESSING},
    revision::{self, by_age, describe, new_set, same_template, superfluous},
    rolling::shrink,
    scale::{
        Bounds, is_recreate, is_scaling, is_settled, new_size, pods, replicas,
        set_size_annotations, sizes, sum,
    },
    status::{self, Parts},
};
use crate::owner::{Claim, claim, is_deleting};

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) deployment: Arc<Deployment>,
    pub(super) selector: LabelSelector,
    /// ReplicaSets that the Deployment manages or could adopt.
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    /// Names of those that still have pods which have not ended.
    pub(super) sets_with_pods: BTreeSet<String>,
}

/// One step, safe to repeat: each write has the precondition that nothing changed meanwhile.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Become the manager of this set.
    Adopt(Arc<ReplicaSet>),
    /// Let this set go: its labels are others now.
    Release(Arc<ReplicaSet>),
    /// Create the set for the present template.
    Create(Box<ReplicaSet>),
    /// Write this set as it is here; `note` is told as an event.
    Update { set: Box<ReplicaSet>, note: Option<String> },
    /// Delete this set, which the history has no room for.
    Delete(Arc<ReplicaSet>),
}

/// What to do, in this order, and why.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    /// The revision to write on the Deployment.
    pub(super) revision: Option<String>,
    /// The status to write; `None` if it is right.
    pub(super) status: Option<DeploymentStatus>,
    /// When the progress deadline must be looked at.
    pub(super) requeue: Option<Duration>,
    pub(super) reason: &'static str,
}

/// What brings the Deployment one step nearer to its spec.
pub(super) fn decide(seen: &Seen) -> Decision {
    let Some(spec) = &seen.deployment.spec else { return Decision::default() };
    let mut mine = Vec::new();
    let mut actions = Vec::new();
    for set in &seen.sets {
        match claim(&seen.deployment.metadata, &seen.selector, &set.metadata) {
            Claim::Owned => mine.push(Arc::clone(set)),
            Claim::Adoptable => actions.push(Action::Adopt(Arc::clone(set))),
            Claim::Releasable => actions.push(Action::Release(Arc::clone(set))),
            Claim::Foreign => {}
        }
    }
    if !actions.is_empty() {
        let reason = "puts the ownership of its ReplicaSets right first";
        return Decision { actions, reason, ..Decision::default() };
    }
    by_age(&mut mine);
    let mut plan = Plan::new(seen, spec, mine);
    let is_rollout = plan.make();
    plan.into_decision(is_rollout)
}

/// A decision in the making: the sets as they will be.
struct Plan<'a> {
    seen: &'a Seen,
    spec: &'a DeploymentSpec,
    bounds: Bounds,
    new: Option<Arc<ReplicaSet>>,
    /// The oldest first.
    old: Vec<Arc<ReplicaSet>>,
    /// Names of the sets that differ from what was seen, with what to tell about it.
    changed: BTreeMap<String, Option<String>>,
    create: Option<Box<ReplicaSet>>,
    delete: Vec<Arc<ReplicaSet>>,
    conditions: Vec<DeploymentCondition>,
    reason: &'static str,
}

impl<'a> Plan<'a> {
    fn new(seen: &'a Seen, spec: &'a DeploymentSpec, mine: Vec<Arc<ReplicaSet>>) -> Self {
        let mut old = mine;
        // Of several sets with the template, the oldest is the one: it may have been rolled back to.
        let new = old.iter().position(|it| same_template(&seen.deployment, it));
        let new = new.map(|index| old.remove(index));
        let status = seen.deployment.status.as_ref();
        let conditions = status.and_then(|it| it.conditions.clone()).unwrap_or_default();
        let bounds = Bounds::of(spec);
        let (changed, delete) = (BTreeMap::new(), Vec::new());
        let (create, reason) = (None, "");
        Self { seen, spec, bounds, new, old, changed, create, delete, conditions, reason }
    }

    /// Fills the plan. Says whether it is one of a rollout, whose progress shows in the status.
    fn make(&mut self) -> bool {
        if is_deleting(&self.seen.deployment.metadata) {
            self.reason = "is being deleted: only its status is kept";
            return false;
        }
        status::note_pause(self.spec, &mut self.conditions, self.seen.now);
        self.describe_new();
        let paused = self.spec.paused.unwrap_or(false);
        if paused || is_scaling(self.bounds, self.all()) {
            self.reason =
                if paused { "is paused: only follows its size" } else { "has a new size" };
            let recreate = is_recreate(self.spec);
            for (set, size) in sizes(self.bounds, recreate, self.new.as_ref(), &self.old) {
                self.resize(&set, size);
            }
            if paused {
                self.clean_up();
            }
            return false;
        }
        let moved =
            if is_recreate(self.spec) { self.roll_by_recreating() } else { self.roll_gradually() };
        if !moved && status::is_complete(&self.parts(), &status::counted(&self.parts())) {
            self.reason = "is complete";
            self.clean_up();
        }
        true
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|it| revision::revision(&it.metadata)).max().unwrap_or(0) + 1
    }

    /// Gives the current set its revision, annotations and settings.
    fn describe_new(&mut self) {
        let next = self.next_revision();
        let Some(new) = &mut self.new else { return };
        let mut described = (**new).clone();
        let name = described.metadata.name.clone().unwrap_or_default();
        if status::has_deadline(self.spec)
            && condition::get(&self.conditions, PROGRESSING).is_none()
        {
            let (reason, text) = ("FoundNewReplicaSet", format!("Found new replica set {name:?}"));
            let found = condition::new(PROGRESSING, "True", reason, text, self.seen.now);
            condition::set(&mut self.conditions, found);
        }
        if describe(&mut described, &self.seen.deployment, next) {
            *new = Arc::new(described);
            self.changed.insert(name, None);
        }
    }

    /// One step at a time: the original goes on while its ReplicaSets have not acted on the last
    /// step, and so may for a moment have more pods, or fewer available ones, than allowed.
    fn roll_gradually(&mut self) -> bool {
        if !self.all().all(|it| is_settled(it)) {
            self.reason = "waits for its ReplicaSets to act on their new size";
            return true;
        }
        if self.ensure_new() {
            return true;
        }
        let all = sum(self.all(), pods);
        let Some(new) = self.new.clone() else { return false };
        let size = replicas(&new);
        let wanted = if self.bounds.replicas < size {
            self.bounds.replicas
        } else {
            new_size(self.bounds, false, size, all)
        };
        if self.resize(&new, wanted) {
            self.reason = "resizes the new ReplicaSet";
            return true;
        }
        let shrinking = shrink(self.bounds, Some(&new), &self.old);
        for (set, size) in &shrinking {
            self.resize(set, *size);
        }
        self.reason = match shrinking.is_empty() {
            false => "shrinks old ReplicaSets",
            true => "waits for pods to become available",
        };
        !shrinking.is_empty()
    }

    fn roll_by_recreating(&mut self) -> bool {
        let active: Vec<_> = self.old.iter().filter(|it| 0 < replicas(it)).cloned().collect();
        if !active.is_empty() {
            self.reason = "takes the old pods down";
            for set in &active {
                self.resize(set, 0);
            }
            return true;
        }
        if self.old.iter().any(|it| self.has_pods(it)) {
            self.reason = "waits for the old pods to end";
            return true;
        }
        if self.ensure_new() {
            return true;
        }
        let Some(new) = self.new.clone() else { return false };
        self.reason = "waits for pods to become available";
        self.resize(&new, self.bounds.replicas)
    }

    fn has_pods(&self, set: &ReplicaSet) -> bool {
        let counted = set.status.as_ref().is_some_and(|it| 0 < it.replicas);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        counted || self.seen.sets_with_pods.contains(name)
    }

    /// Plans the set for the present template. Says whether there was none.
    fn ensure_new(&mut self) -> bool {
        if self.new.is_some() {
            return false;
        }
        self.reason = "creates the new ReplicaSet";
        let mut set = new_set(&self.seen.deployment, self.spec, self.next_revision());
        let all = sum(&self.old, pods);
        let size = new_size(self.bounds, is_recreate(self.spec), 0, all);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
        if status::has_deadline(self.spec) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let text = format!("Created new replica set {name:?}");
            let reason = "NewReplicaSetCreated";
            let created = condition::new(PROGRESSING, "True", reason, text, self.seen.now);
            condition::set(&mut self.conditions, created);
        }
        self.create = Some(Box::new(set));
        true
    }

    /// Plans another size for `set`. Says whether it differs from the present one.
    fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> bool {
        let same = |it: &&mut Arc<ReplicaSet>| it.metadata.name == set.metadata.name;
        let Some(set) = self.old.iter_mut().chain(&mut self.new).find(same) else { return false };
        let mut resized = (**set).clone();
        let before = replicas(set);
        let annotated = set_size_annotations(&mut resized, &self.seen.deployment);
        if let Some(spec) = &mut resized.spec {
            spec.replicas = Some(size);
        }
        if !annotated && before == size {
            return false;
        }
        let name = resized.metadata.name.clone().unwrap_or_default();
        let direction = if before < size { "up" } else { "down" };
        let note = format!("Scaled {direction} replica set {name} from {before} to {size}");
        *set = Arc::new(resized);
        self.changed.insert(name, (before != size).then_some(note));
        before != size
    }

    fn clean_up(&mut self) {
        self.delete = superfluous(&self.old, self.spec.revision_history_limit);
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            seen: self.seen,
            spec: self.spec,
            bounds: self.bounds,
            new: self.new.as_ref(),
            old: &self.old,
            conditions: self.conditions.clone(),
        }
    }

    fn into_decision(self, is_rollout: bool) -> Decision {
        let parts = self.parts();
        let status = if is_rollout { status::of_rollout(&parts) } else { status::counted(&parts) };
        let requeue = if is_rollout { status::next_look(&parts, &status) } else { None };
        let current = self.create.as_deref().or(self.new.as_deref());
        let revision = current.map(|it| revision::revision(&it.metadata));
        let known = revision::revision(&self.seen.deployment.metadata);
        let revision = revision.filter(|it| *it != known).map(|it| it.to_string());
        let mut changed = self.changed;
        let updated = self.new.iter().chain(&self.old).filter_map(|set| {
            let note = changed.remove(set.metadata.name.as_deref().unwrap_or_default())?;
            Some(Action::Update { set: Box::new((**set).clone()), note })
        });
        let mut actions: Vec<Action> = self.create.into_iter().map(Action::Create).collect();
        actions.extend(updated);
        actions.extend(self.delete.into_iter().map(Action::Delete));
        let same = self.seen.deployment.status.as_ref() == Some(&status);
        let status = (!same).then_some(status);
        Decision { actions, revision, status, requeue, reason: self.reason }
    }
}

#[cfg(test)]
mod tests;
