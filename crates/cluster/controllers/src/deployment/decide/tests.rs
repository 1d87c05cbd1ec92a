//! Cases and properties of the deployment policy.

use expect_test::{Expect, expect};
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        apps::v1::{DeploymentStrategy, ReplicaSetSpec, ReplicaSetStatus, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector as Selector, ObjectMeta, Time},
        util::intstr::IntOrString,
    },
};
use proptest::prelude::*;

use super::*;
use crate::owner::controller_reference;

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

fn template(version: &str) -> PodTemplateSpec {
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let annotations = [("version".to_owned(), version.to_owned())].into();
    let metadata =
        ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..Default::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: None }
}

fn deployment(version: &str, replicas: i32, surge: i32, unavailable: i32) -> Deployment {
    let rolling_update = Some(RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(surge)),
        max_unavailable: Some(IntOrString::Int(unavailable)),
    });
    let match_labels = Some([("app".to_owned(), "web".to_owned())].into());
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".to_owned()),
            uid: Some("web-uid".to_owned()),
            generation: Some(1),
            ..Default::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: Selector { match_labels, ..Default::default() },
            strategy: Some(DeploymentStrategy { rolling_update, ..Default::default() }),
            template: template(version),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(1),
            ..Default::default()
        }),
        status: None,
    }
}

/// A set `VERSION:SIZE/PODS/AVAILABLE` of the deployment; versions are ages and revisions too.
/// With `?` at the end its controller has not acted yet.
fn set(owner: &Deployment, text: &str) -> Arc<ReplicaSet> {
    let settled = !text.ends_with('?');
    let (version, numbers) = text.trim_end_matches('?').split_once(':').unwrap();
    let numbers: Vec<i32> = numbers.split('/').map(|it| it.parse().unwrap()).collect();
    let age: i64 = version.parse().unwrap();
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("web-{version}")),
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            owner_references: Some(vec![controller_reference(owner)]),
            generation: Some(1),
            creation_timestamp: Some(Time(NOW + SignedDuration::from_secs(age))),
            annotations: Some([(revision::REVISION.to_owned(), version.to_owned())].into()),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(numbers[0]),
            template: Some(template(version)),
            ..Default::default()
        }),
        status: Some(ReplicaSetStatus {
            replicas: numbers[1],
            ready_replicas: Some(numbers[2]),
            available_replicas: Some(numbers[2]),
            observed_generation: settled.then_some(1),
            ..Default::default()
        }),
    };
    set_size_annotations(&mut set, owner);
    Arc::new(set)
}

fn seen(deployment: Deployment, sets: Vec<Arc<ReplicaSet>>) -> Seen {
    let selector = LabelSelector::parse("app=web").unwrap();
    let with_pods = sets.iter().filter(|it| 0 < it.status.as_ref().unwrap().replicas);
    let sets_with_pods = with_pods.map(|it| it.metadata.name.clone().unwrap()).collect();
    Seen { now: NOW, deployment: Arc::new(deployment), selector, sets, sets_with_pods }
}

fn show(decision: &Decision) -> String {
    let mut shown = decision.reason.to_owned();
    for action in &decision.actions {
        shown += &match action {
            Action::Adopt(set) => format!("\nadopt {}", set.metadata.name.as_ref().unwrap()),
            Action::Release(set) => format!("\nrelease {}", set.metadata.name.as_ref().unwrap()),
            Action::Create(set) => format!("\ncreate with {}", replicas(set)),
            Action::Update { set, note } => {
                let name = set.metadata.name.as_ref().unwrap();
                note.clone().map_or(format!("\nannotate {name}"), |it| format!("\n{it}"))
            }
            Action::Delete(set) => format!("\ndelete {}", set.metadata.name.as_ref().unwrap()),
        };
    }
    if let Some(revision) = &decision.revision {
        shown += &format!("\nrevision {revision}");
    }
    if let Some(status) = &decision.status {
        for it in status.conditions.iter().flatten() {
            shown += &format!("\n{} {} {}", it.type_, it.status, it.reason.as_ref().unwrap());
        }
    }
    shown
}

#[track_caller]
fn check(deployment: Deployment, sets: &str, expect: Expect) {
    let sets = sets.split_whitespace().map(|it| set(&deployment, it)).collect();
    expect.assert_eq(&show(&decide(&seen(deployment, sets))));
}

#[test]
fn the_first_set_gets_all_pods_at_once() {
    check(
        deployment("1", 3, 1, 0),
        "",
        expect![[r#"
        creates the new ReplicaSet
        create with 3
        revision 1
        Progressing True NewReplicaSetCreated
        Available False MinimumReplicasUnavailable"#]],
    );
}

#[test]
fn a_new_template_begins_with_the_surge() {
    check(
        deployment("2", 4, 2, 1),
        "1:4/4/4",
        expect![[r#"
        creates the new ReplicaSet
        create with 2
        revision 2
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
}

#[test]
fn old_pods_go_as_new_ones_become_available() {
    check(
        deployment("2", 4, 1, 0),
        "1:4/4/4 2:1/1/0",
        expect![[r#"
        waits for pods to become available
        revision 2
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
    check(
        deployment("2", 4, 1, 0),
        "1:4/4/4 2:1/1/1",
        expect![[r#"
        shrinks old ReplicaSets
        Scaled down replica set web-1 from 4 to 3
        revision 2
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
    check(
        deployment("2", 4, 1, 0),
        "1:3/4/4? 2:1/1/1",
        expect![[r#"
            waits for its ReplicaSets to act on their new size
            revision 2
            Available True MinimumReplicasAvailable
            Progressing True ReplicaSetUpdated"#]],
    );
    check(
        deployment("2", 4, 1, 0),
        "1:0/0/0 2:4/4/4",
        expect![[r#"
        is complete
        revision 2
        Available True MinimumReplicasAvailable
        Progressing True NewReplicaSetAvailable"#]],
    );
}

#[test]
fn unhealthy_old_pods_go_first() {
    check(
        deployment("3", 4, 0, 2),
        "1:2/2/0 2:2/2/2 3:0/0/0",
        expect![[r#"
        shrinks old ReplicaSets
        Scaled down replica set web-1 from 2 to 0
        revision 3
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
}

#[test]
fn a_changed_size_is_shared_out() {
    let mut before = deployment("2", 10, 3, 2);
    let sets = ["1:8/8/8", "2:5/5/0"].map(|it| set(&before, it));
    before.spec.as_mut().unwrap().replicas = Some(30);
    expect![[r#"
        has a new size
        Scaled up replica set web-2 from 5 to 13
        Scaled up replica set web-1 from 8 to 20
        revision 2
        Progressing True FoundNewReplicaSet
        Available False MinimumReplicasUnavailable"#]]
    .assert_eq(&show(&decide(&seen(before.clone(), sets.to_vec()))));
    before.spec.as_mut().unwrap().replicas = Some(5);
    expect![[r#"
        has a new size
        Scaled down replica set web-2 from 5 to 3
        Scaled down replica set web-1 from 8 to 5
        revision 2
        Progressing True FoundNewReplicaSet
        Available True MinimumReplicasAvailable"#]]
    .assert_eq(&show(&decide(&seen(before, sets.to_vec()))));
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut deployment = deployment("2", 2, 0, 0);
    let strategy = DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    deployment.spec.as_mut().unwrap().strategy = Some(strategy);
    check(
        deployment.clone(),
        "1:2/2/2",
        expect![[r#"
        takes the old pods down
        Scaled down replica set web-1 from 2 to 0
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
    check(
        deployment.clone(),
        "1:0/1/0",
        expect![[r#"
        waits for the old pods to end
        Available False MinimumReplicasUnavailable"#]],
    );
    check(
        deployment,
        "1:0/0/0",
        expect![[r#"
        creates the new ReplicaSet
        create with 2
        revision 2
        Progressing True NewReplicaSetCreated
        Available False MinimumReplicasUnavailable"#]],
    );
}

#[test]
fn a_paused_deployment_rolls_nothing_out() {
    let mut deployment = deployment("2", 4, 1, 0);
    deployment.spec.as_mut().unwrap().paused = Some(true);
    check(
        deployment,
        "1:4/4/4",
        expect![[r#"
        is paused: only follows its size
        Progressing Unknown DeploymentPaused
        Available True MinimumReplicasAvailable"#]],
    );
}

#[test]
fn history_is_cut_when_the_rollout_is_over() {
    check(
        deployment("4", 1, 1, 0),
        "1:0/0/0 2:0/0/0 3:0/0/0 4:1/1/1",
        expect![[r#"
        is complete
        delete web-1
        delete web-2
        revision 4
        Available True MinimumReplicasAvailable
        Progressing True NewReplicaSetAvailable"#]],
    );
}

#[test]
fn a_rollback_gets_the_newest_revision() {
    check(
        deployment("1", 1, 1, 0),
        "1:0/0/0 2:1/1/1",
        expect![[r#"
        resizes the new ReplicaSet
        Scaled up replica set web-1 from 0 to 1
        revision 3
        Available True MinimumReplicasAvailable
        Progressing True ReplicaSetUpdated"#]],
    );
}

#[test]
fn a_rollout_that_does_not_move_times_out() {
    let mut deployment = deployment("1", 1, 1, 0);
    let sets = vec![set(&deployment, "1:1/1/0")];
    let first = decide(&seen(deployment.clone(), sets.clone()));
    deployment.status = first.status;
    let mut late = seen(deployment, sets);
    late.now = NOW + SignedDuration::from_secs(599);
    assert_eq!(decide(&late).requeue, Some(Duration::from_secs(2)));
    late.now = NOW + SignedDuration::from_secs(601);
    expect![[r#"
        waits for pods to become available
        revision 1
        Available False MinimumReplicasUnavailable
        Progressing False ProgressDeadlineExceeded"#]]
    .assert_eq(&show(&decide(&late)));
}

/// One set of the model: what was asked for, what there is, and what the status says of it.
#[derive(Clone, Debug, Default)]
struct Model {
    version: u32,
    size: i32,
    pods: i32,
    ready: i32,
    status: (i32, i32),
    /// Whether the pods are what was last asked for, and whether the status knows that.
    acted: bool,
    settled: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Decide,
    /// The ReplicaSet controller makes the pods what was asked for; unready ones go first.
    Pods(usize),
    /// A pod becomes ready.
    Ready(usize),
    /// The status of a set is brought up to date.
    Status(usize),
}

struct World {
    deployment: Deployment,
    sets: Vec<Model>,
}

impl World {
    fn seen(&self) -> Seen {
        let sets = self.sets.iter().map(|it| {
            let (pods, available) = it.status;
            let mark = if it.settled { "" } else { "?" };
            let text = format!("{}:{}/{pods}/{available}{mark}", it.version, it.size);
            set(&self.deployment, &text)
        });
        seen(self.deployment.clone(), sets.collect())
    }

    fn step(&mut self, event: Event) {
        let count = self.sets.len().max(1);
        match event {
            Event::Decide => self.decide(),
            Event::Pods(n) => {
                if let Some(it) = self.sets.get_mut(n % count) {
                    it.pods = it.size;
                    it.acted = true;
                    it.ready = it.ready.min(it.pods);
                }
            }
            Event::Ready(n) => {
                if let Some(it) = self.sets.get_mut(n % count) {
                    it.ready = (it.ready + 1).min(it.pods);
                }
            }
            Event::Status(n) => {
                if let Some(it) = self.sets.get_mut(n % count) {
                    it.status = (it.pods, it.ready);
                    it.settled = it.acted;
                }
            }
        }
    }

    fn decide(&mut self) {
        let decision = decide(&self.seen());
        if let Some(status) = decision.status {
            self.deployment.status = Some(status);
        }
        for action in decision.actions {
            match action {
                Action::Create(set) => {
                    let version = 2;
                    self.sets.push(Model { version, size: replicas(&set), ..Model::default() });
                }
                Action::Update { set, .. } => {
                    let name = set.metadata.name.as_deref().unwrap();
                    let version: u32 = name.trim_start_matches("web-").parse().unwrap();
                    let it = self.sets.iter_mut().find(|it| it.version == version).unwrap();
                    if it.size != replicas(&set) {
                        (it.acted, it.settled) = (false, false);
                    }
                    it.size = replicas(&set);
                }
                Action::Adopt(_) | Action::Release(_) | Action::Delete(_) => {}
            }
        }
    }

    fn invariant_never_over_the_surge(&self, bounds: Bounds) {
        let pods: i32 = self.sets.iter().map(|it| it.pods).sum();
        assert!(pods <= bounds.pods_max(), "{pods} pods: {:?}", self.sets);
    }

    fn invariant_enough_stay_available(&self, bounds: Bounds) {
        let ready: i32 = self.sets.iter().map(|it| it.ready).sum();
        assert!(bounds.available_min() <= ready, "{ready} ready: {:?}", self.sets);
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Decide),
        2 => (0_usize..2).prop_map(Event::Pods),
        4 => (0_usize..2).prop_map(Event::Ready),
        2 => (0_usize..2).prop_map(Event::Status),
    ]
}

proptest! {
    // Each case is a whole rollout of some hundred decisions.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rollout_is_safe_and_converges(
        replicas in 0..12,
        surge in 0..5,
        unavailable in 0..5,
        events in prop::collection::vec(event(), 0..120),
    ) {
        let deployment = deployment("2", replicas, surge, unavailable);
        let bounds = Bounds::of(deployment.spec.as_ref().unwrap());
        let status = (replicas, replicas);
        let old = Model {
            version: 1, size: replicas, pods: replicas, ready: replicas, status,
            acted: true, settled: true,
        };
        let mut world = World { deployment, sets: vec![old] };
        for event in events {
            world.step(event);
            world.invariant_never_over_the_surge(bounds);
            world.invariant_enough_stay_available(bounds);
        }
        // From here on everything gets its turn.
        for _ in 0..60 {
            for event in [Event::Decide, Event::Pods(0), Event::Pods(1), Event::Ready(0),
                Event::Ready(1), Event::Status(0), Event::Status(1)] {
                world.step(event);
                world.invariant_never_over_the_surge(bounds);
                world.invariant_enough_stay_available(bounds);
            }
        }
        let sizes: Vec<_> = world.sets.iter().map(|it| (it.version, it.size)).collect();
        prop_assert_eq!(sizes, [(1, 0), (2, replicas)]);
        let last = decide(&world.seen());
        prop_assert!(last.actions.is_empty() && last.status.is_none(), "{}", show(&last));
    }
}
