//! Tests of the status: what `kubectl get pod -o yaml` shows of each moment of a life.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::super::{
    model::{ADDRESS, Model},
    seen::{Sandbox, Waiting},
};
use crate::context::PodAddress;

fn state(state: &Value) -> String {
    let (kind, of) = state.as_object().and_then(|it| it.iter().next()).unwrap();
    let field = |name: &str| of.get(name).map(|it| format!(" {it}")).unwrap_or_default();
    let words = ["reason", "exitCode", "message", "containerID"].map(field).concat();
    format!("{kind}{words}")
}

fn check(model: &mut Model, expected: &Expect) {
    model.settle();
    let status = serde_json::to_value(model.pod.status.as_ref().unwrap()).unwrap();
    let mut text = format!("{} {} {}\n", status["phase"], status["podIP"], status["hostIP"]);
    for condition in status["conditions"].as_array().unwrap() {
        let optional = |name: &str| {
            condition.get(name).map(|it| format!(" {}", it.as_str().unwrap())).unwrap_or_default()
        };
        let (reason, message) = (optional("reason"), optional("message"));
        let (kind, value) = (&condition["type"], &condition["status"]);
        writeln!(text, "{kind}={value}{reason}{message}").unwrap();
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for it in status[list].as_array().into_iter().flatten() {
            let (name, ready, started) = (&it["name"], &it["ready"], &it["started"]);
            let last = it.get("lastState").map(|it| format!(" last {}", state(it)));
            let (count, id) = (&it["restartCount"], &it["containerID"]);
            writeln!(
                text,
                "{name} {} ready={ready} started={started} restarts={count} {id}{}",
                state(&it["state"]),
                last.unwrap_or_default(),
            )
            .unwrap();
        }
    }
    expected.assert_eq(&text);
}

fn two(policy: &str) -> Model {
    let mut model = Model::new(json!({ "restartPolicy": policy,
        "containers": [{ "name": "a", "image": "a:v1" }, { "name": "b" }] }));
    model.settle();
    model
}

/// A pod of a version that knew no IPv6 gets its second address when it is looked at anew.
#[test]
fn a_second_address_is_listed() {
    let mut model = two("Always");
    let status_of =
        |model: &Model| serde_json::to_value(model.pod.status.as_ref().unwrap()).unwrap();
    assert_eq!(status_of(&model)["podIPs"], json!([{ "ip": "10.244.0.9" }]));
    let v6 = Some("fd12:3456:789a::af4:9".parse().unwrap());
    model.sandbox = Sandbox::Up { address: PodAddress { v4: ADDRESS, v6 } };
    model.settle();
    let status = status_of(&model);
    assert_eq!(status["podIP"], "10.244.0.9");
    assert_eq!(
        status["podIPs"],
        json!([{ "ip": "10.244.0.9" }, { "ip": "fd12:3456:789a::af4:9" }])
    );
    assert_eq!(status["hostIPs"], json!([{ "ip": "10.244.0.1" }]));
}

#[test]
fn running() {
    check(
        &mut two("Always"),
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="True"
        "ContainersReady"="True"
        "PodScheduled"="True"
        "a" running ready=true started=true restarts=0 "coracle://1234.a.0"
        "b" running ready=true started=true restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn owners_that_could_not_be_given_are_told() {
    let mut model = two("Always");
    model.owners_lost = 7;
    check(
        &mut model,
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="True"
        "ContainersReady"="True"
        "PodScheduled"="True"
        "coracle.dev/ImageOwners"="False" NoSubordinateIDs 7 files of the images belong to another user or group than the images say: without root that needs newuidmap, and ranges for the user in /etc/subuid and /etc/subgid
        "a" running ready=true started=true restarts=0 "coracle://1234.a.0"
        "b" running ready=true started=true restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn not_ready() {
    let mut model = two("Always");
    model.facts("a").health.ready = false;
    model.facts("b").health.started = false;
    check(
        &mut model,
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="False" ContainersNotReady containers with unready status: [a b]
        "ContainersReady"="False" ContainersNotReady containers with unready status: [a b]
        "PodScheduled"="True"
        "a" running ready=false started=true restarts=0 "coracle://1234.a.0"
        "b" running ready=false started=false restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn crash_loop() {
    let mut model = two("Always");
    model.exit("a", 1);
    model.settle();
    model.exit("a", 2);
    check(
        &mut model,
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="False" ContainersNotReady containers with unready status: [a]
        "ContainersReady"="False" ContainersNotReady containers with unready status: [a]
        "PodScheduled"="True"
        "a" waiting "CrashLoopBackOff" "back-off 10s restarting failed container=a pod=web_shop(1234)" ready=false started=false restarts=1 "coracle://1234.a.1" last terminated "Error" 2 "coracle://1234.a.1"
        "b" running ready=true started=true restarts=0 "coracle://1234.b.0"
    "#]],
    );
    model.sleep();
    check(
        &mut model,
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="True"
        "ContainersReady"="True"
        "PodScheduled"="True"
        "a" running ready=true started=true restarts=2 "coracle://1234.a.2" last terminated "Error" 2 "coracle://1234.a.1"
        "b" running ready=true started=true restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn blocked() {
    let mut model = Model::new(json!({ "initContainers": [{ "name": "one" }],
        "containers": [{ "name": "a" }] }));
    let message = Some("configmap \"x\" not found".to_owned());
    model.facts("one").blocked =
        Some(Waiting { reason: "CreateContainerConfigError".to_owned(), message });
    check(
        &mut model,
        &expect![[r#"
        "Pending" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="False" ContainersNotInitialized containers with incomplete status: [one]
        "Ready"="False" ContainersNotReady containers with unready status: [a]
        "ContainersReady"="False" ContainersNotReady containers with unready status: [a]
        "PodScheduled"="True"
        "one" waiting "CreateContainerConfigError" "configmap \"x\" not found" ready=false started=false restarts=0 null
        "a" waiting "PodInitializing" ready=false started=false restarts=0 null
    "#]],
    );
}

#[test]
fn over() {
    let mut model = two("OnFailure");
    model.exit("a", 0);
    model.exit("b", 0);
    check(
        &mut model,
        &expect![[r#"
        "Succeeded" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="False"
        "Initialized"="True" PodCompleted
        "Ready"="False" PodCompleted
        "ContainersReady"="False" PodCompleted
        "PodScheduled"="True"
        "a" terminated "Completed" 0 "coracle://1234.a.0" ready=false started=false restarts=0 "coracle://1234.a.0"
        "b" terminated "Completed" 0 "coracle://1234.b.0" ready=false started=false restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn deleted() {
    let mut model = two("Always");
    model.delete(0);
    check(
        &mut model,
        &expect![[r#"
        "Failed" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="False"
        "Initialized"="True"
        "Ready"="False" PodFailed
        "ContainersReady"="False" PodFailed
        "PodScheduled"="True"
        "a" terminated "Error" 137 "coracle://1234.a.0" ready=false started=false restarts=0 "coracle://1234.a.0"
        "b" terminated "Error" 137 "coracle://1234.b.0" ready=false started=false restarts=0 "coracle://1234.b.0"
    "#]],
    );
}

#[test]
fn transitions_keep_their_time_while_the_value_stays() {
    let mut model = two("Always");
    let time = |model: &Model, kind: &str| {
        let status = model.pod.status.clone().unwrap();
        let found = status.conditions.unwrap().into_iter().find(|it| it.type_ == kind);
        found.unwrap().last_transition_time.unwrap().0
    };
    let before = time(&model, "Ready");
    model.uptime += std::time::Duration::from_secs(60);
    model.settle();
    assert_eq!(time(&model, "Ready"), before);
    model.facts("a").health.ready = false;
    model.settle();
    assert_eq!(time(&model, "Ready"), model.now());
    assert_eq!(time(&model, "PodScheduled"), before);
}

#[test]
fn readiness_gates() {
    let mut model = Model::new(json!({ "containers": [{ "name": "a" }],
        "readinessGates": [{ "conditionType": "example.com/x" }] }));
    check(
        &mut model,
        &expect![[r#"
        "Running" "10.244.0.9" "10.244.0.1"
        "PodReadyToStartContainers"="True"
        "Initialized"="True"
        "Ready"="False" ReadinessGatesNotReady corresponding condition of pod readiness gate "example.com/x" does not exist.
        "ContainersReady"="True"
        "PodScheduled"="True"
        "a" running ready=true started=true restarts=0 "coracle://1234.a.0"
    "#]],
    );
}
