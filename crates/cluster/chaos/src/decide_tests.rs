//! What is decided in each case, and that all of it is undone.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fault::Lease;

const NOW: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

fn pod(name: &str, node: &str, index: u8) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("u-{name}"),
            "labels": {"app": name.trim_end_matches(char::is_numeric)}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIP": format!("10.42.0.{index}")}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn world() -> World {
    let node =
        |name: &str| Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap());
    let backends = BTreeMap::from([(
        ("default".to_owned(), "web".to_owned()),
        BTreeSet::from(["web1".to_owned(), "web2".to_owned()]),
    )]);
    World {
        pods: vec![pod("web1", "a", 1), pod("web2", "b", 2), pod("db1", "b", 3)],
        nodes: vec![node("a"), node("b")],
        backends,
    }
}

/// A fault of that name as the API keeps it.
fn fault(name: &str, spec: Value) -> Fault {
    let fault = json!({"metadata": {"name": name, "uid": name, "generation": 1}, "spec": spec});
    serde_json::from_value(fault).unwrap()
}

fn seen(now: i64, faults: Vec<Fault>) -> Seen {
    Seen { now: at(now), faults: faults.into_iter().map(Arc::new).collect(), world: world() }
}

/// The fault after a decision was carried out.
fn carried_out(fault: &Fault, decision: &Decision) -> Fault {
    let mut fault = fault.clone();
    for (of, status) in decision.before.iter().chain(&decision.after) {
        if of.metadata.uid == fault.metadata.uid {
            fault.status = Some(status.clone());
        }
    }
    fault
}

fn names<'a>(pods: impl IntoIterator<Item = &'a PodId>) -> String {
    pods.into_iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn printed(decision: &Decision) -> String {
    let mut text = String::new();
    for (when, statuses) in [("before", &decision.before), ("after", &decision.after)] {
        for (fault, status) in statuses {
            let name = fault.metadata.name.as_deref().unwrap_or_default();
            let message = status.message.as_deref().unwrap_or_default();
            writeln!(text, "{when}: {name} {:?}: {message}", status.phase.unwrap()).unwrap();
        }
    }
    for (what, pods) in
        [("kill", &decision.kill), ("pause", &decision.pause), ("resume", &decision.resume)]
    {
        if !pods.is_empty() {
            writeln!(text, "{what}: {}", names(pods)).unwrap();
        }
    }
    for it in &decision.disturb {
        writeln!(text, "{:?} from {:?}: {:?}", it.to, it.from, it.impairment).unwrap();
    }
    for (node, loss) in &decision.lose {
        writeln!(text, "lose {node}: {loss:?}").unwrap();
    }
    for ((pod, volume), bytes) in &decision.fill {
        writeln!(text, "fill {volume} of {}: {bytes}", pod.name).unwrap();
    }
    for (pod, volume) in &decision.empty {
        writeln!(text, "empty {volume} of {}", pod.name).unwrap();
    }
    for (what, faults) in [("release", &decision.release), ("forget", &decision.forget)] {
        for fault in faults {
            writeln!(text, "{what} {}", fault.metadata.name.as_deref().unwrap()).unwrap();
        }
    }
    if let Some(wake) = decision.wake {
        writeln!(text, "wake in {wake:?}").unwrap();
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
fn check(spec: Value, expected: Expect) {
    expected.assert_eq(&printed(&decide(&seen(0, vec![fault("f", spec)]))));
}

#[test]
fn pods_are_killed_once() {
    let spec = json!({"action": "Kill", "target": {"kind": "Pod", "selector": {"matchLabels": {"app": "web"}}}});
    check(
        spec.clone(),
        expect![[r#"
        before: f Beginning: 
        after: f Ended: killed pods web1, web2
        kill: web1 web2
        wake in 600s
    "#]],
    );
    let fault = fault("f", spec);
    let fault = carried_out(&fault, &decide(&seen(0, vec![fault.clone()])));
    expect![[r#"
        wake in 599s
    "#]]
    .assert_eq(&printed(&decide(&seen(1, vec![fault.clone()]))));
    expect![[r#"
        forget f
    "#]]
    .assert_eq(&printed(&decide(&seen(600, vec![fault]))));
}

#[test]
fn some_are_chosen_by_lot_and_stay_chosen() {
    let spec =
        json!({"action": "Pause", "count": 1, "target": {"kind": "Service", "names": ["web"]}});
    let fault = fault("f", spec);
    let first = decide(&seen(0, vec![fault.clone()]));
    expect![[r#"
        before: f Beginning: 
        after: f Active: paused pod web1
        pause: web1
    "#]]
    .assert_eq(&printed(&first));
    let fault = carried_out(&fault, &first);
    assert_eq!(decide(&seen(1, vec![fault.clone()])).pause, first.pause);
    // The chosen one goes, and another one takes its place.
    let mut later = seen(2, vec![fault]);
    later.world.pods.retain(|it| !first.pause.contains(&id_of(it)));
    expect![[r#"
        before: f Beginning: 
        after: f Active: paused pod web2
        pause: web2
    "#]]
    .assert_eq(&printed(&decide(&later)));
}

#[test]
fn a_partition_is_between_two_sides() {
    check(
        json!({"action": "Partition", "target": {"kind": "Pod", "names": ["web1"]},
            "from": {"kind": "Pod", "names": ["db1"]}}),
        expect![[r#"
            before: f Beginning: 
            after: f Active: cut off pod web1
            {10.42.0.1} from Some({10.42.0.3}): Cut
        "#]],
    );
    check(
        json!({"action": "Partition", "target": {"kind": "Pod", "names": ["web1"]}}),
        expect![[r#"
        before: f Beginning: 
        after: f Active: cut off pod web1
        {10.42.0.1} from None: Cut
    "#]],
    );
}

#[test]
fn a_node_is_lost_with_its_pods() {
    check(
        json!({"action": "Partition", "target": {"kind": "Node", "names": ["b"]}}),
        expect![[r#"
        before: f Beginning: 
        after: f Active: cut off node b with pods db1, web2
        {10.42.0.2, 10.42.0.3} from Some({10.42.0.1}): Cut
        lose b: Silent
    "#]],
    );
    check(
        json!({"action": "Kill", "target": {"kind": "Node", "names": ["b"]}}),
        expect![[r#"
        before: f Beginning: 
        after: f Active: killed node b with pods db1, web2
        lose b: Dead
    "#]],
    );
    check(
        json!({"action": "Pause", "target": {"kind": "Node", "names": ["a"]}}),
        expect![[r#"
        before: f Beginning: 
        after: f Active: paused node a with pod web1
        pause: web1
        lose a: Silent
    "#]],
    );
}

#[test]
fn packets_are_disturbed_as_asked() {
    check(
        json!({"action": "Network", "target": {"kind": "Pod", "names": ["web1", "db1"]},
            "network": {"delay": "100ms", "jitter": "10ms", "lossPercent": 2.5,
                "bytesPerSecond": "1Mi"}}),
        expect![[r#"
            before: f Beginning: 
            after: f Active: disturbed pods db1, web1
            {10.42.0.1, 10.42.0.3} from None: Shape(Shape { delay: 100ms, jitter: 10ms, loss: 0.025, duplicate: 0.0, corrupt: 0.0, bytes_per_second: Some(1048576) })
        "#]],
    );
}

#[test]
fn volumes_are_filled_and_emptied() {
    let spec = json!({"action": "Fill", "target": {"kind": "Pod", "names": ["db1"]},
        "fill": {"volume": "data", "size": "1Gi"}, "duration": "10s"});
    check(
        spec.clone(),
        expect![[r#"
        before: f Beginning: 
        after: f Active: filled pod db1
        fill data of db1: 1073741824
        wake in 10s
    "#]],
    );
    let fault = fault("f", spec);
    let fault = carried_out(&fault, &decide(&seen(0, vec![fault.clone()])));
    expect![[r#"
        after: f Ended: undone: its time is over
        empty data of db1
        wake in 600s
    "#]]
    .assert_eq(&printed(&decide(&seen(10, vec![fault]))));
}

#[test]
fn what_another_fault_stops_stays_stopped() {
    let spec = |names: Value, duration: Value| json!({"action": "Pause", "duration": duration, "target": {"kind": "Pod", "names": names}});
    let both = [
        fault("f", spec(json!(["web1", "web2"]), json!("5s"))),
        fault("g", spec(json!(["web2"]), Value::Null)),
    ];
    let first = decide(&seen(0, both.to_vec()));
    let both = both.map(|it| carried_out(&it, &first));
    expect![[r#"
        after: f Ended: undone: its time is over
        pause: web2
        resume: web1
        wake in 600s
    "#]]
    .assert_eq(&printed(&decide(&seen(5, both.to_vec()))));
}

#[test]
fn a_fault_ends_with_who_asked_for_it() {
    let pause = json!({"action": "Pause", "target": {"kind": "Pod", "names": ["web1"]}});
    let mut fault = fault("f", pause);
    fault.spec.lease = Some(Lease { holder: None, renew_time: MicroTime(at(0)), seconds: 5 });
    let first = decide(&seen(1, vec![fault.clone()]));
    expect![[r#"
        before: f Beginning: 
        after: f Active: paused pod web1
        pause: web1
        wake in 4s
    "#]]
    .assert_eq(&printed(&first));
    let mut fault = carried_out(&fault, &first);
    expect![[r#"
        after: f Ended: undone: whoever asked for it is gone
        resume: web1
        wake in 600s
    "#]]
    .assert_eq(&printed(&decide(&seen(5, vec![fault.clone()]))));
    fault.metadata.deletion_timestamp = Some(Time(at(2)));
    expect![[r#"
        after: f Ended: undone: it was taken back
        resume: web1
        release f
    "#]]
    .assert_eq(&printed(&decide(&seen(2, vec![fault]))));
}

#[test]
fn a_target_that_is_not_there_is_waited_for() {
    let target = json!({"kind": "Pod", "names": ["web9"]});
    check(
        json!({"action": "Pause", "target": target}),
        expect![[r#"
        before: f Beginning: 
        after: f Active: nothing there that the target means
    "#]],
    );
    check(
        json!({"action": "Kill", "target": target}),
        expect![[r#"
        before: f Beginning: 
        after: f Ended: nothing there that the target means
        wake in 600s
    "#]],
    );
}

fn specs() -> impl Strategy<Value = Value> {
    let action = prop::sample::select(vec!["Kill", "Pause", "Partition", "Network"]);
    let target = prop::sample::select(vec![
        json!({"kind": "Pod", "names": ["web1"]}),
        json!({"kind": "Pod", "selector": {}}),
        json!({"kind": "Service", "names": ["web"]}),
        json!({"kind": "Node", "names": ["b"]}),
    ]);
    let network = json!({"delay": "1ms"});
    (action, target, prop::option::of(1..3_i32), prop::option::of(1..20_u8)).prop_map(
        move |(action, target, count, duration)| {
            json!({"action": action, "target": target, "count": count, "network": network,
                "duration": duration.map(|it| format!("{it}s"))})
        },
    )
}

proptest! {
    /// Whatever was done is undone: when all faults have ended, every pod that was stopped and not
    /// stopped by a fault that goes on has been let go, and a decision that was carried out is not made
    /// again.
    #[test]
    fn all_is_undone_and_nothing_twice(specs in prop::collection::vec(specs(), 1..4), deleted in 0..30_i64) {
        let mut faults: Vec<Fault> = (0_u8..)
            .zip(specs)
            .map(|(index, spec)| fault(&format!("f{index}"), spec))
            .collect();
        let mut stopped = BTreeSet::new();
        for second in 0..=deleted + 1 {
            if second == deleted {
                for fault in &mut faults {
                    fault.metadata.deletion_timestamp = Some(Time(at(second)));
                }
            }
            let decision = decide(&seen(second, faults.clone()));
            let known: BTreeSet<PodId> = faults
                .iter()
                .map(|it| carried_out(it, &decision))
                .flat_map(|it| it.status.unwrap_or_default().pods)
                .collect();
            prop_assert!(decision.pause.is_subset(&known), "stopped before it was written down");
            stopped.extend(decision.pause.iter().cloned());
            stopped.retain(|it| !decision.resume.contains(it));
            faults = faults.iter().map(|it| carried_out(it, &decision)).collect();
            let again = decide(&seen(second, faults.clone()));
            prop_assert!(again.before.is_empty() && again.after.is_empty() && again.kill.is_empty());
            prop_assert!(again.resume.is_empty());
            prop_assert_eq!(&again.pause, &decision.pause);
            prop_assert_eq!(&again.disturb, &decision.disturb);
        }
        prop_assert!(stopped.is_empty(), "{stopped:?}");
    }
}
