//! What `kubectl get pods` shows of a pod.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    kinds::{print, value::Read},
    object::parts::Parts::{self, All, Of},
};

/// All that a row is made of.
pub(super) const READS: Parts = Of(&[
    ("metadata", print::METADATA),
    (
        "spec",
        Of(&[
            ("containers", Of(&[])),
            ("initContainers", Of(&[("name", All), ("restartPolicy", All)])),
            ("nodeName", All),
            ("readinessGates", All),
        ]),
    ),
    ("status", All),
]);

/// One cell a column.
pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.field("spec"), pod.field("status"));
    let summary = Summary::of(pod);
    vec![
        print::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.as_str().into(),
        summary.restarts.print(now).into(),
        print::age(pod, now),
        print::or_none(status.items("podIPs").first().map_or("", |it| it.text("ip"))).into(),
        print::or_none(spec.text("nodeName")).into(),
        print::or_none(status.text("nominatedNodeName")).into(),
        readiness_gates(spec, status).into(),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = spec.items("readinessGates");
    let open = gates.iter().filter(|it| is_true(status, it.text("conditionType"))).count();
    if gates.is_empty() { print::NONE.to_owned() } else { format!("{open}/{}", gates.len()) }
}

fn is_true(status: &Value, condition: &str) -> bool {
    status
        .items("conditions")
        .iter()
        .any(|it| it.text("type") == condition && it.text("status") == "True")
}

/// How often containers were restarted, and when one last ended before a restart.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.int("restartCount").unwrap_or_default();
        let ended = container.at(&["lastState", "terminated"]).text("finishedAt");
        self.last = self.last.max(ended.parse().ok());
    }

    fn print(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, print::since(&last.to_string(), now))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (pod.field("spec"), pod.field("status"));
        let reason = match (status.text("reason"), status.text("phase")) {
            _ if is_gated(status) => "SchedulingGated",
            ("", phase) => phase,
            (reason, _) => reason,
        };
        let stays = |it: &&Value| it.text("restartPolicy") == "Always";
        let mut summary = Self {
            reason: reason.to_owned(),
            ready: 0,
            total: spec.items("containers").len()
                + spec.items("initContainers").iter().filter(stays).count(),
            restarts: Restarts::default(),
        };
        let initializing = summary.add_init_containers(spec, status);
        if !initializing || is_true(status, "Initialized") {
            summary.add_containers(spec, status);
        }
        let deleted = pod.field("metadata").has("deletionTimestamp");
        let ended = matches!(status.text("phase"), "Succeeded" | "Failed");
        if deleted && status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if deleted && !ended {
            "Terminating".clone_into(&mut summary.reason);
        }
        summary
    }

    /// Whether an init container is still in the way of the others.
    fn add_init_containers(&mut self, spec: &Value, status: &Value) -> bool {
        let total = spec.items("initContainers").len();
        for (index, container) in status.items("initContainerStatuses").iter().enumerate() {
            self.restarts.add(container);
            let state = container.field("state");
            let (ended, waiting) = (state.field("terminated"), state.field("waiting"));
            if !ended.is_null() && ended.int("exitCode").unwrap_or_default() == 0 {
                continue;
            }
            if stays(spec, container) && container.flag("started") {
                self.ready += usize::from(container.flag("ready"));
                continue;
            }
            self.reason = match waiting.text("reason") {
                _ if !ended.is_null() => format!("Init:{}", ending(ended)),
                "" | "PodInitializing" => format!("Init:{index}/{total}"),
                reason => format!("Init:{reason}"),
            };
            return true;
        }
        false
    }

    fn add_containers(&mut self, spec: &Value, status: &Value) {
        // Restarts of init containers that have done their work are history.
        self.restarts = Restarts::default();
        let init_containers = status.items("initContainerStatuses").iter();
        init_containers.filter(|it| stays(spec, it)).for_each(|it| self.restarts.add(it));
        let mut running = false;
        for container in status.items("containerStatuses").iter().rev() {
            self.restarts.add(container);
            let state = container.field("state");
            let (ended, waiting) = (state.field("terminated"), state.field("waiting"));
            if !waiting.text("reason").is_empty() {
                waiting.text("reason").clone_into(&mut self.reason);
            } else if !ended.is_null() {
                self.reason = ending(ended);
            } else if container.flag("ready") && state.has("running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let reason = if is_true(status, "Ready") { "Running" } else { "NotReady" };
            reason.clone_into(&mut self.reason);
        }
    }
}

/// Whether this is the status of an init container that runs beside the others.
fn stays(spec: &Value, status: &Value) -> bool {
    spec.items("initContainers")
        .iter()
        .any(|it| it.text("name") == status.text("name") && it.text("restartPolicy") == "Always")
}

fn is_gated(status: &Value) -> bool {
    status
        .items("conditions")
        .iter()
        .any(|it| it.text("type") == "PodScheduled" && it.text("reason") == "SchedulingGated")
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn ending(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::kinds::{pod::POD, testing};

    /// Ready, status and restarts of a pod with these parts of its status, an hour after its
    /// creation.
    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn check(spec: Value, status: Value, deleted: bool, expected: Expect) {
        let mut pod = json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2024-01-01T01:00:00Z".into();
        }
        let cells = testing::row(&POD, &pod, "2024-01-01T01:00:00Z".parse().unwrap());
        let cells: Vec<&str> = cells[1..5].iter().map(|it| it.as_str().unwrap()).collect();
        expected.assert_eq(&cells.join(" | "));
    }

    fn one() -> Value {
        json!({"containers": [{"name": "c"}]})
    }

    fn running(restarts: i64) -> Value {
        json!({"name": "c", "ready": true, "restartCount": restarts, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:59:55Z"}}})
    }

    #[test]
    fn status_says_what_containers_do() {
        let status = |state: Value| {
            json!({"phase": "Running", "containerStatuses": [
                {"name": "c", "restartCount": 0, "state": state}]})
        };
        check(one(), json!({"phase": "Pending"}), false, expect!["0/1 | Pending | 0 | 60m"]);
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        check(one(), status(waiting), false, expect!["0/1 | CrashLoopBackOff | 0 | 60m"]);
        let ended = json!({"terminated": {"exitCode": 3}});
        check(one(), status(ended), false, expect!["0/1 | ExitCode:3 | 0 | 60m"]);
        let killed = json!({"terminated": {"exitCode": 137, "signal": 9}});
        check(one(), status(killed), false, expect!["0/1 | Signal:9 | 0 | 60m"]);
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        check(one(), status(done), false, expect!["0/1 | Completed | 0 | 60m"]);
    }

    #[test]
    fn restarts_say_when() {
        let status =
            |restarts| json!({"phase": "Running", "containerStatuses": [running(restarts)]});
        check(one(), status(0), false, expect!["1/1 | Running | 0 | 60m"]);
        check(one(), status(2), false, expect!["1/1 | Running | 2 (5s ago) | 60m"]);
    }

    #[test]
    fn deletion_shows() {
        let status = json!({"phase": "Running", "containerStatuses": [running(0)]});
        check(one(), status, true, expect!["1/1 | Terminating | 0 | 60m"]);
        let done = json!({"phase": "Succeeded"});
        check(one(), done, true, expect!["0/1 | Succeeded | 0 | 60m"]);
    }

    #[test]
    fn one_of_two_completed() {
        let spec = json!({"containers": [{"name": "c"}, {"name": "d"}]});
        let done =
            json!({"name": "d", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let status = json!({"phase": "Running", "containerStatuses": [done, running(0)]});
        check(spec, status, false, expect!["1/2 | NotReady | 0 | 60m"]);
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "c"}]});
        let status = |state: Value| {
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "restartCount": 1, "state": state}]})
        };
        let spec = || spec.clone();
        check(spec(), status(json!({"running": {}})), false, expect!["0/1 | Init:1/2 | 1 | 60m"]);
        let failed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        check(spec(), status(failed), false, expect!["0/1 | Init:Error | 1 | 60m"]);
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        check(spec(), status(waiting), false, expect!["0/1 | Init:CrashLoopBackOff | 1 | 60m"]);
    }
}
