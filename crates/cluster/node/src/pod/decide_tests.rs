//! Tests of `decide`: stories, and what holds for every pod.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        model::Model,
        seen::{ContainerSeen, Verdict},
    },
    *,
};

fn spec(policy: &str, init: &[&str], main: &[&str]) -> Value {
    let container = |name: &&str| match name.strip_prefix('*') {
        Some(name) => json!({ "name": name, "restartPolicy": "Always" }),
        None => json!({ "name": name }),
    };
    json!({
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": 30,
        "initContainers": init.iter().map(container).collect::<Vec<_>>(),
        "containers": main.iter().map(container).collect::<Vec<_>>(),
    })
}

fn check(model: &mut Model, expected: &Expect) {
    let decision = model.settle();
    let mut text = model.take_log();
    for (name, waiting) in &decision.waiting {
        let message = waiting.message.as_deref().unwrap_or_default();
        text += &format!("{name} waits: {} {message}\n", waiting.reason);
    }
    if let Some(wake_at) = decision.wake_at {
        text += &format!("again at {} s\n", wake_at.as_secs());
    }
    if let Some(end) = decision.end {
        text += &format!("{end:?}\n");
    }
    expected.assert_eq(&text);
}

#[test]
fn init_containers_run_in_order_then_all_main_containers() {
    let mut model = Model::new(spec("Always", &["one", "two"], &["a", "b"]));
    check(
        &mut model,
        &expect![[r#"
            prepare
            start one 0
            a waits: PodInitializing 
            b waits: PodInitializing 
            two waits: PodInitializing 
        "#]],
    );
    model.exit("one", 0);
    check(
        &mut model,
        &expect![[r#"
            start two 0
            a waits: PodInitializing 
            b waits: PodInitializing 
        "#]],
    );
    model.exit("two", 0);
    check(
        &mut model,
        &expect![[r#"
            start a 0
            start b 0
        "#]],
    );
}

#[test]
fn crash_loop_backs_off_and_recovers() {
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.take_log();
    model.exit("a", 1);
    check(
        &mut model,
        &expect![[r#"
            start a 1
        "#]],
    );
    model.exit("a", 1);
    check(
        &mut model,
        &expect![[r#"
            a waits: CrashLoopBackOff back-off 10s restarting failed container=a pod=web_shop(1234)
            again at 10 s
        "#]],
    );
    model.sleep();
    check(
        &mut model,
        &expect![[r#"
            start a 2
        "#]],
    );
    model.uptime += crash_loop::FORGIVEN_AFTER;
    model.exit("a", 1);
    check(
        &mut model,
        &expect![[r#"
            start a 3
        "#]],
    );
}

#[test]
fn never_means_once_and_the_sandbox_goes() {
    let mut model = Model::new(spec("Never", &[], &["a", "b"]));
    model.settle();
    model.take_log();
    model.exit("a", 3);
    check(&mut model, &expect![""]);
    model.exit("b", 0);
    check(
        &mut model,
        &expect![[r#"
            stop
        "#]],
    );
    assert_eq!(model.pod.status.clone().unwrap().phase.as_deref(), Some("Failed"));
    // Another process, which only sees the final status, does nothing.
    model.containers.clear();
    check(
        &mut model,
        &expect![[r#"
        a waits: ContainerCreating 
        b waits: ContainerCreating 
    "#]],
    );
}

#[test]
fn failed_init_container_fails_the_pod() {
    let mut model = Model::new(spec("Never", &["one"], &["a"]));
    model.settle();
    model.exit("one", 1);
    model.settle();
    assert_eq!(model.pod.status.clone().unwrap().phase.as_deref(), Some("Failed"));
    assert_eq!(model.take_log(), "prepare\nstart one 0\nstop\n");
}

#[test]
fn sidecars_start_first_and_stop_last() {
    let mut model = Model::new(spec("OnFailure", &["*proxy", "one"], &["a"]));
    model.settle();
    model.exit("one", 0);
    model.settle();
    model.exit("a", 0);
    check(
        &mut model,
        &expect![[r#"
            prepare
            start proxy 0
            start one 0
            start a 0
            terminate proxy until 30 s: Stopping container proxy
            again at 30 s
        "#]],
    );
    model.exit("proxy", 143);
    check(
        &mut model,
        &expect![[r#"
            stop
        "#]],
    );
    assert_eq!(model.pod.status.clone().unwrap().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn deletion_waits_for_routing_then_for_the_grace_period() {
    let mut model = Model::new(spec("Always", &[], &["a", "b"]));
    model.settle();
    model.take_log();
    model.delete(5);
    check(
        &mut model,
        &expect![[r#"
            await unrouted
            terminate a until 5 s: Stopping container a
            terminate b until 5 s: Stopping container b
            again at 5 s
        "#]],
    );
    model.exit("a", 0);
    check(
        &mut model,
        &expect![[r#"
            again at 5 s
        "#]],
    );
    model.sleep();
    check(
        &mut model,
        &expect![[r#"
            kill b
            clean
            Delete
        "#]],
    );
    assert_eq!(model.pod.status.clone().unwrap().phase.as_deref(), Some("Failed"));
}

#[test]
fn vanished_and_forced_pods_are_killed_at_once() {
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.take_log();
    model.vanished = true;
    check(
        &mut model,
        &expect![[r#"
            kill a
            clean
            Forget
        "#]],
    );
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.take_log();
    model.delete(0);
    check(
        &mut model,
        &expect![[r#"
            kill a
            clean
            Delete
        "#]],
    );
}

#[test]
fn a_shorter_deletion_overtakes_a_longer_one() {
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.delete(300);
    model.settle();
    model.take_log();
    model.delete(0);
    check(
        &mut model,
        &expect![[r#"
            kill a
            clean
            Delete
        "#]],
    );
}

#[test]
fn a_lost_sandbox_is_replaced_at_once_with_its_init_containers() {
    let mut model = Model::new(spec("Always", &["one"], &["a"]));
    model.settle();
    model.exit("one", 0);
    model.settle();
    model.take_log();
    model.lose_sandbox();
    check(
        &mut model,
        &expect![[r#"
            prepare
            start one 1
        "#]],
    );
    model.exit("one", 0);
    check(
        &mut model,
        &expect![[r#"
            start a 1
        "#]],
    );
}

#[test]
fn a_node_that_stops_leaves_the_pod_for_later() {
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.take_log();
    model.node_stops = Some(Duration::from_secs(10));
    check(
        &mut model,
        &expect![[r#"
            terminate a until 10 s: Stopping container a
            again at 10 s
        "#]],
    );
    model.exit("a", 0);
    check(
        &mut model,
        &expect![[r#"
            stop
            Forget
        "#]],
    );
    assert_eq!(model.pod.status.clone().unwrap().phase.as_deref(), Some("Running"));
}

#[test]
fn failed_probe_restarts_the_container() {
    let mut model = Model::new(spec("Always", &[], &["a"]));
    model.settle();
    model.take_log();
    let message = "Container a failed liveness probe, will be restarted".to_owned();
    model.facts("a").health.failed = Some(Verdict { message, grace: Some(Duration::from_secs(1)) });
    check(
        &mut model,
        &expect![[r#"
            terminate a until 1 s: Container a failed liveness probe, will be restarted
            again at 1 s
        "#]],
    );
    model.sleep();
    check(
        &mut model,
        &expect![[r#"
            kill a
            start a 1
        "#]],
    );
}

#[test]
fn a_blocked_container_waits_and_says_why() {
    let mut model = Model::new(spec("Always", &[], &["a", "b"]));
    let blocked = Waiting { reason: "ErrImageNeverPull".to_owned(), message: Some("m".to_owned()) };
    model.facts("a").blocked = Some(blocked);
    check(
        &mut model,
        &expect![[r#"
            prepare
            start b 0
            a waits: ErrImageNeverPull m
        "#]],
    );
    model.facts("a").blocked = None;
    check(
        &mut model,
        &expect![[r#"
            start a 0
        "#]],
    );
}

#[derive(Clone, Debug)]
enum Fault {
    Exit(usize, i32),
    LoseSandbox,
    FailProbe(usize),
    Sleep,
    Delete(i64),
    Vanish,
    Stop,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => (0..4_usize, 0..2_i32).prop_map(|(index, code)| Fault::Exit(index, code)),
        2 => Just(Fault::LoseSandbox),
        2 => (0..4_usize).prop_map(Fault::FailProbe),
        4 => Just(Fault::Sleep),
        1 => (0..40_i64).prop_map(Fault::Delete),
        1 => Just(Fault::Vanish),
        1 => Just(Fault::Stop),
    ]
}

const NAMES: [&str; 4] = ["one", "proxy", "a", "b"];

fn invariant_order(model: &Model) {
    let alive = |name: &str| model.containers.get(name).is_some_and(ContainerSeen::is_alive);
    let done = |name: &str| {
        let run = model.containers.get(name).and_then(|it| it.run.as_ref());
        run.is_some_and(|it| {
            it.in_sandbox && matches!(&it.state, RunState::Exited(exit) if exit.code == 0)
        })
    };
    assert!(!(alive("one") && (alive("a") || alive("b"))), "init beside main");
    if alive("a") || alive("b") {
        assert!(done("one"), "main before init");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_life_is_safe_and_comes_to_rest(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        faults in prop::collection::vec(fault(), 0..24),
    ) {
        let mut model = Model::new(spec(policy, &["one", "*proxy"], &["a", "b"]));
        let mut leaving = false;
        for fault in faults {
            if model.end.is_some() {
                break;
            }
            model.turn();
            invariant_order(&model);
            match fault {
                Fault::Exit(index, code) => model.exit(NAMES[index], code),
                Fault::LoseSandbox => model.lose_sandbox(),
                Fault::FailProbe(index) => {
                    let facts = model.facts(NAMES[index]);
                    let verdict = Verdict { message: "failed".to_owned(), grace: None };
                    if facts.is_alive() {
                        facts.health.failed = Some(verdict);
                    }
                }
                Fault::Sleep => drop(model.sleep()),
                Fault::Delete(grace) => { model.delete(grace); leaving = true; }
                Fault::Vanish => { model.vanished = true; leaving = true; }
                Fault::Stop => model.node_stops = Some(Duration::from_secs(10)),
            }
            if leaving {
                model.log.clear();
            }
        }
        // Faults have stopped; what was told to stop is killed at its deadline.
        for _ in 0..64 {
            model.settle();
            invariant_order(&model);
            if model.end.is_some() || !model.sleep() {
                break;
            }
        }
        prop_assert!(decide(&model.seen()).actions.is_empty(), "not at rest");
        if leaving {
            prop_assert!(model.end.is_some(), "{:?}", decide(&model.seen()));
            prop_assert!(!model.log.iter().any(|it| it.starts_with("start")), "{:?}", model.log);
            prop_assert_eq!(&model.sandbox, &Sandbox::Cleaned);
        }
    }
}
