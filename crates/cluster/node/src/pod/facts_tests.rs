//! Tests of what a new process makes of what an earlier one has left.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn exit(attempt: u32, code: i32, finished: i64) -> (String, Exit) {
    let exit = Exit {
        attempt,
        code,
        reason: "Error".to_owned(),
        message: None,
        started_at: at(finished - 1),
        finished_at: at(finished),
    };
    ("a".to_owned(), exit)
}

fn running(attempt: u32) -> Value {
    json!({ "state": { "running": { "startedAt": "1970-01-01T00:01:40Z" } }, "ready": true,
        "started": true, "restartCount": attempt, "containerID": format!("coracle://u.a.{attempt}") })
}

fn ended(attempt: u32) -> Value {
    json!({ "terminated": { "exitCode": 0, "reason": "Completed",
        "containerID": format!("coracle://u.a.{attempt}"),
        "startedAt": "1970-01-01T00:01:40Z", "finishedAt": "1970-01-01T00:01:41Z" } })
}

fn check(mut status: Value, records: &Records, expected: &Expect) {
    status["name"] = json!("a");
    status["image"] = json!("");
    status["imageID"] = json!("i");
    let pod = json!({ "spec": { "containers": [{ "name": "a" }] },
        "status": { "containerStatuses": if status["state"].is_null() { json!([]) } else { json!([status]) } } });
    let pod = serde_json::from_value(pod).unwrap();
    let facts = recover(&pod, records, at(1000)).remove("a").unwrap();
    let end = |it: &Exit| format!("{} code {} {}", it.attempt, it.code, it.reason);
    let run = facts.run.as_ref().map(|it| match &it.state {
        RunState::Starting => "starting".to_owned(),
        RunState::Running { .. } => {
            let Health { started, ready, .. } = &facts.health;
            format!("{} running started={started} ready={ready}", it.attempt)
        }
        RunState::Exited(exit) => format!("{} in_sandbox={}", end(exit), it.in_sandbox),
    });
    let last = facts.last.as_ref().map(end);
    expected.assert_eq(&format!("{run:?} last {last:?} failures {}", facts.failures));
}

#[test]
fn adopted_run_goes_on() {
    let records = Records {
        shim_lives: true,
        running: vec![("a".to_owned(), 2, at(100))],
        exits: vec![exit(1, 1, 90)],
    };
    check(
        running(2),
        &records,
        &expect![[
            r#"Some("2 running started=true ready=true") last Some("1 code 1 Error") failures 0"#
        ]],
    );
    // Started, but never reported.
    check(
        json!({}),
        &records,
        &expect![[
            r#"Some("2 running started=false ready=false") last Some("1 code 1 Error") failures 0"#
        ]],
    );
}

#[test]
fn what_ended_meanwhile_has_its_exit_code() {
    let records = Records { shim_lives: true, running: vec![], exits: vec![exit(2, 7, 200)] };
    check(
        running(2),
        &records,
        &expect![[r#"Some("2 code 7 Error in_sandbox=true") last None failures 1"#]],
    );
}

#[test]
fn without_a_record_the_run_is_lost_and_starts_afresh() {
    check(
        running(2),
        &Records::default(),
        &expect![[
            r#"Some("2 code 137 ContainerStatusUnknown in_sandbox=false") last None failures 0"#
        ]],
    );
}

#[test]
fn a_stopped_node_starts_its_pods_again_at_once() {
    let status = json!({ "state": ended(3), "lastState": ended(2), "ready": false, "restartCount": 3,
        "containerID": "coracle://u.a.3" });
    check(
        status,
        &Records::default(),
        &expect![[
            r#"Some("3 code 0 Completed in_sandbox=false") last Some("2 code 0 Completed") failures 0"#
        ]],
    );
}

#[test]
fn back_off_goes_on() {
    let message = "back-off 40s restarting failed container=a pod=web_shop(u)";
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } });
    let status = json!({ "state": waiting, "lastState": ended(3), "ready": false, "restartCount": 3,
        "containerID": "coracle://u.a.3" });
    let records = Records { shim_lives: true, running: vec![], exits: vec![exit(3, 0, 101)] };
    check(
        status.clone(),
        &records,
        &expect![[r#"Some("3 code 0 Error in_sandbox=true") last None failures 4"#]],
    );
    check(
        status,
        &Records::default(),
        &expect![[r#"Some("3 code 0 Completed in_sandbox=false") last None failures 4"#]],
    );
}

#[test]
fn ids_of_runs() {
    assert_eq!(parse_run_id(&run_id("a-b", 12)), Some(("a-b", 12)));
    assert_eq!(parse_run_id("a"), None);
}
