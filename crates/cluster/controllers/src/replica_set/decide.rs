//! The whole policy of the ReplicaSet controller, as a function of what was seen.

use std::{sync::Arc, time::Duration};

use api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::rank::rank;
use crate::{
    owner::{Claim, claim, is_deleting},
    pod::{availability, is_active, is_ready},
};

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) set: Arc<ReplicaSet>,
    pub(super) selector: LabelSelector,
    /// Pods that the set manages or could adopt, by name.
    pub(super) pods: Vec<Arc<Pod>>,
}

/// What to do, in this order, and why.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) release: Vec<Arc<Pod>>,
    pub(super) adopt: Vec<Arc<Pod>>,
    pub(super) create: usize,
    pub(super) delete: Vec<Arc<Pod>>,
    /// The status to write; `None` if it is right, or pods change now and it will soon be another.
    pub(super) status: Option<ReplicaSetStatus>,
    /// When the passing of time alone makes a pod available.
    pub(super) requeue: Option<Duration>,
    pub(super) reason: &'static str,
}

/// Why pods could not be created or deleted.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(reason: &'static str, error: &client::Error) -> Self {
        Self { reason, message: error.to_string() }
    }
}

/// The condition that shows a [`Failure`].
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What brings the set nearer to its spec, changing at most `burst_max` pods.
pub(super) fn decide(seen: &Seen, burst_max: usize) -> Decision {
    let mut decision = Decision::default();
    let mut mine = Vec::new();
    for pod in seen.pods.iter().filter(|it| is_active(it)) {
        match claim(&seen.set.metadata, &seen.selector, &pod.metadata) {
            Claim::Owned => mine.push(pod),
            Claim::Adoptable => {
                decision.adopt.push(Arc::clone(pod));
                mine.push(pod);
            }
            Claim::Releasable => decision.release.push(Arc::clone(pod)),
            Claim::Foreign => {}
        }
    }
    if is_deleting(&seen.set.metadata) {
        decision.reason = "is being deleted: only its status is kept";
    } else {
        let wanted = wanted(&seen.set);
        decision.create = wanted.saturating_sub(mine.len()).min(burst_max);
        let extra = mine.len().saturating_sub(wanted).min(burst_max);
        decision.delete = first_to_go(&mine, extra, seen.now);
        decision.reason = match (decision.create, extra) {
            (0, 0) => "has the pods it wants",
            (0, _) => "has too many pods",
            _ => "has too few pods",
        };
    }
    if decision.create == 0 && decision.delete.is_empty() {
        let status = status(seen, &mine, None);
        decision.status = (seen.set.status.as_ref() != Some(&status)).then_some(status);
    }
    let seconds = min_ready_seconds(&seen.set);
    let waits = mine.iter().filter_map(|it| availability(it, seconds, seen.now).err().flatten());
    decision.requeue = waits.min().and_then(|it| Duration::try_from(it).ok());
    decision
}

/// The status when pods could not be created or deleted.
pub(super) fn with_failure(seen: &Seen, failure: &Failure) -> ReplicaSetStatus {
    let mine = seen.pods.iter().filter(|it| {
        is_active(it) && claim(&seen.set.metadata, &seen.selector, &it.metadata) == Claim::Owned
    });
    status(seen, &mine.collect::<Vec<_>>(), Some(failure))
}

fn first_to_go(pods: &[&Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut pods = pods.to_vec();
    pods.sort_by(|one, other| rank(one, now).cmp(&rank(other, now)));
    pods.into_iter().take(count).map(Arc::clone).collect()
}

fn wanted(set: &ReplicaSet) -> usize {
    let wanted = set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    usize::try_from(wanted).unwrap_or(0)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.min_ready_seconds).unwrap_or(0)
}

fn status(seen: &Seen, mine: &[&Arc<Pod>], failure: Option<&Failure>) -> ReplicaSetStatus {
    let seconds = min_ready_seconds(&seen.set);
    let template = seen.set.spec.as_ref().and_then(|it| it.template.as_ref());
    let labels = template.and_then(|it| it.metadata.as_ref()?.labels.as_ref());
    let fully_labeled = |pod: &Pod| {
        let has = |(key, value): (&String, &String)| {
            pod.metadata.labels.as_ref().and_then(|it| it.get(key)) == Some(value)
        };
        labels.into_iter().flatten().all(has)
    };
    let terminating = seen.pods.iter().filter(|it| {
        is_deleting(&it.metadata)
            && claim(&seen.set.metadata, &seen.selector, &it.metadata) == Claim::Owned
    });
    let count = |wanted: &dyn Fn(&Pod) -> bool| count(mine.iter().filter(|it| wanted(it)).count());
    // Kubernetes leaves out numbers that are zero, except `replicas` and `terminatingReplicas`.
    let some = |number: i32| (number != 0).then_some(number);
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&fully_labeled)),
        ready_replicas: some(count(&is_ready)),
        available_replicas: some(count(&|it| availability(it, seconds, seen.now).is_ok())),
        terminating_replicas: Some(self::count(terminating.count())),
        observed_generation: seen.set.metadata.generation,
        conditions: conditions(seen, failure),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Keeps the time of a failure that was there before.
fn conditions(seen: &Seen, failure: Option<&Failure>) -> Option<Vec<ReplicaSetCondition>> {
    let old = seen.set.status.iter().flat_map(|it| it.conditions.iter().flatten());
    let (failures, others): (Vec<_>, Vec<_>) = old.partition(|it| it.type_ == REPLICA_FAILURE);
    let mut conditions: Vec<_> = others.into_iter().cloned().collect();
    conditions.extend(failure.map(|failure| {
        let old = failures.first().filter(|it| it.reason.as_deref() == Some(failure.reason));
        old.map_or_else(|| new_condition(failure, seen.now), |it| (*it).clone())
    }));
    (!conditions.is_empty()).then_some(conditions)
}

fn new_condition(failure: &Failure, now: Timestamp) -> ReplicaSetCondition {
    ReplicaSetCondition {
        type_: REPLICA_FAILURE.to_owned(),
        status: "True".to_owned(),
        reason: Some(failure.reason.to_owned()),
        message: Some(failure.message.clone()),
        last_transition_time: Some(Time(now)),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use jiff::SignedDuration;
    use k8s_openapi::{
        api::{
            apps::v1::ReplicaSetSpec,
            core::v1::{PodCondition, PodSpec, PodStatus},
        },
        apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, ObjectMeta},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::owner::controller_reference;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn labels(text: &str) -> std::collections::BTreeMap<String, String> {
        [("app".to_owned(), text.to_owned())].into()
    }

    fn set(replicas: i32) -> ReplicaSet {
        let selector = Selector { match_labels: Some(labels("web")), ..Default::default() };
        let (name, uid) = (Some("web".to_owned()), Some("web-uid".to_owned()));
        let metadata = ObjectMeta { name, uid, generation: Some(1), ..Default::default() };
        let spec = ReplicaSetSpec { replicas: Some(replicas), selector, ..Default::default() };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    /// `NAME` with marks: `?` not bound, `~` pending, `!` ready for an hour, `+` ready just now,
    /// `x` going, `o` without owner, `z` with another label.
    fn pod(text: &str) -> Arc<Pod> {
        let name = text.trim_end_matches(|it: char| "?~!+xoz".contains(it));
        let has = |mark: char| text.contains(mark);
        let since = if has('!') { SignedDuration::from_hours(1) } else { SignedDuration::ZERO };
        let ready = PodCondition {
            type_: "Ready".to_owned(),
            status: if has('!') || has('+') { "True" } else { "False" }.to_owned(),
            last_transition_time: Some(Time(NOW - since)),
            ..Default::default()
        };
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(name.to_owned()),
                labels: Some(labels(if has('z') { "other" } else { "web" })),
                owner_references: (!has('o')).then(|| vec![controller_reference(&set(0))]),
                deletion_timestamp: has('x').then_some(Time(NOW)),
                ..Default::default()
            },
            spec: Some(PodSpec {
                node_name: (!has('?')).then(|| "node".to_owned()),
                ..Default::default()
            }),
            status: Some(PodStatus {
                phase: Some(if has('~') { "Pending" } else { "Running" }.to_owned()),
                conditions: Some(vec![ready]),
                ..Default::default()
            }),
        })
    }

    fn seen(set: ReplicaSet, pods: &str) -> Seen {
        let selector = LabelSelector::parse("app=web").unwrap();
        let pods = pods.split_whitespace().map(pod).collect();
        Seen { now: NOW, set: Arc::new(set), selector, pods }
    }

    #[track_caller]
    fn check(set: ReplicaSet, pods: &str, expect: Expect) {
        let decision = decide(&seen(set, pods), 10);
        let names = |pods: &[Arc<Pod>]| {
            pods.iter().map(|it| it.metadata.name.clone().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let mut shown = decision.reason.to_owned();
        for (what, pods) in [
            ("adopt", &decision.adopt),
            ("release", &decision.release),
            ("delete", &decision.delete),
        ] {
            if !pods.is_empty() {
                shown += &format!("\n{what} {}", names(pods));
            }
        }
        if 0 < decision.create {
            shown += &format!("\ncreate {}", decision.create);
        }
        if let Some(status) = decision.status {
            shown += &format!("\n{}", serde_json::to_string(&status).unwrap());
        }
        if let Some(requeue) = decision.requeue {
            shown += &format!("\nagain in {requeue:?}");
        }
        expect.assert_eq(&shown);
    }

    #[test]
    fn creates_what_is_missing_up_to_the_burst() {
        check(
            set(3),
            "a!",
            expect![[r#"
                has too few pods
                create 2"#]],
        );
        check(
            set(30),
            "",
            expect![[r#"
                has too few pods
                create 10"#]],
        );
    }

    #[test]
    fn going_pods_do_not_count() {
        check(
            set(1),
            "a!x",
            expect![[r#"
                has too few pods
                create 1"#]],
        );
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        check(
            set(1),
            "old! young+ unready pending~ unbound?~",
            expect![[r#"
                has too many pods
                adopt old young unbound
                delete unbound pending unready young"#]],
        );
    }

    #[test]
    fn adopts_orphans_and_releases_strangers() {
        check(
            set(2),
            "a! b!o c!z",
            expect![[r#"
                has the pods it wants
                adopt b
                release c
                {"availableReplicas":2,"fullyLabeledReplicas":2,"observedGeneration":1,"readyReplicas":2,"replicas":2,"terminatingReplicas":0}"#]],
        );
    }

    #[test]
    fn a_pod_is_available_only_after_min_ready_seconds() {
        let mut set = set(3);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        check(
            set,
            "a! b+ c d!x",
            expect![[r#"
                has the pods it wants
                {"availableReplicas":1,"fullyLabeledReplicas":3,"observedGeneration":1,"readyReplicas":2,"replicas":3,"terminatingReplicas":1}
                again in 30s"#]],
        );
    }

    #[test]
    fn a_set_on_its_way_out_makes_no_pods() {
        let mut set = set(3);
        set.metadata.deletion_timestamp = Some(Time(NOW));
        check(
            set,
            "",
            expect![[r#"
            is being deleted: only its status is kept
            {"observedGeneration":1,"replicas":0,"terminatingReplicas":0}"#]],
        );
    }

    #[test]
    fn a_failure_shows_and_keeps_its_time() {
        let failure = Failure { reason: "FailedCreate", message: "no".to_owned() };
        let mut seen = seen(set(1), "");
        let status = with_failure(&seen, &failure);
        Arc::make_mut(&mut seen.set).status = Some(status.clone());
        seen.now += SignedDuration::from_secs(9);
        assert_eq!(with_failure(&seen, &failure), status);
        expect![[r#"ReplicaFailure FailedCreate no"#]].assert_eq(&{
            let it = &status.conditions.unwrap()[0];
            format!("{} {} {}", it.type_, it.reason.as_ref().unwrap(), it.message.as_ref().unwrap())
        });
    }

    proptest! {
        #[test]
        fn converges_within_its_burst(
            wanted in 0..30,
            pods in prop::collection::vec("[?~!+xoz]{0,3}", 0..30),
        ) {
            let pods = pods.iter().enumerate().map(|(n, marks)| format!("p{n}{marks}"));
            let mut seen = seen(set(wanted), &pods.collect::<Vec<_>>().join(" "));
            for round in 0.. {
                let decision = decide(&seen, 4);
                prop_assert!(decision.create <= 4 && decision.delete.len() <= 4);
                prop_assert!(decision.create == 0 || decision.delete.is_empty());
                if decision.create == 0 && decision.delete.is_empty() {
                    break;
                }
                prop_assert!(round < 10);
                let gone = |it: &Arc<Pod>| decision.delete.iter().any(|victim| Arc::ptr_eq(victim, it));
                seen.pods.retain(|it| !gone(it));
                seen.pods.extend((0..decision.create).map(|n| pod(&format!("n{round}.{n}"))));
            }
            let mine = |it: &&Arc<Pod>| is_active(it) && matches!(
                claim(&seen.set.metadata, &seen.selector, &it.metadata),
                Claim::Owned | Claim::Adoptable
            );
            prop_assert_eq!(seen.pods.iter().filter(mine).count(), usize::try_from(wanted).unwrap());
        }
    }
}
