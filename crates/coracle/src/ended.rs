//! Pods that nobody starts again: how they ended, as `up` and `status` say it. A pod that belongs to a
//! workload is not among them, as another takes its place.

use client::Client;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::{Api, api::LogParams};

use crate::progress;

/// So much of a failed container's log is shown: enough for the error at its end.
const LOG_LINES: i64 = 5;

/// Most of a log that is shown, in bytes: lines may be long.
const LOG_BYTES: i64 = 4096;

/// A pod that has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `pod/name`, with the namespace if it is not `default`.
    pub(crate) object: String,
    /// What became of it, and why.
    pub(crate) how: String,
    /// Whether it did not do what it was to do.
    pub(crate) failed: bool,
    namespace: String,
    name: String,
    /// Containers that failed and left no message: their logs may say why.
    silent: Vec<String>,
}

/// Those of `pods` that belong to nobody and have ended for good.
pub(crate) fn ended(pods: &[&Pod]) -> Vec<Ended> {
    pods.iter().filter_map(|it| of_pod(it)).collect()
}

fn of_pod(pod: &Pod) -> Option<Ended> {
    let metadata = &pod.metadata;
    if metadata.owner_references.is_some() || metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let failed = match status.phase.as_deref() {
        Some("Succeeded") => false,
        Some("Failed") => true,
        _ => return None,
    };
    let initial = status.init_container_statuses.iter().flatten();
    let containers = initial.chain(status.container_statuses.iter().flatten());
    let failures: Vec<(&str, &ContainerStateTerminated)> = containers.filter_map(failure).collect();
    let how = match (&status.reason, failures.as_slice()) {
        _ if !failed => "has completed".to_owned(),
        (Some(reason), _) => {
            let message = status.message.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
            format!("has failed: {reason}{message}")
        }
        (None, []) => "has failed".to_owned(),
        (None, failures) => {
            let each: Vec<String> = failures.iter().map(|(name, it)| end(name, it)).collect();
            format!("has failed: {}", each.join("; "))
        }
    };
    let silent = failures.iter().filter(|(_, it)| it.message.is_none());
    Some(Ended {
        object: progress::object("pod", metadata.namespace.as_deref(), metadata.name.as_deref()),
        how,
        failed,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        silent: silent.map(|(name, _)| (*name).to_owned()).collect(),
    })
}

fn failure(status: &ContainerStatus) -> Option<(&str, &ContainerStateTerminated)> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    (ended.exit_code != 0).then_some((&status.name, ended))
}

fn end(container: &str, ended: &ContainerStateTerminated) -> String {
    // `Error` is the reason of every exit code that has no better one.
    let reason = ended.reason.as_deref().filter(|it| !matches!(*it, "" | "Error"));
    let reason = reason.map(|it| format!(" ({it})")).unwrap_or_default();
    let message = ended.message.as_ref().map(|it| format!(": {}", it.trim_end()));
    let code = ended.exit_code;
    format!(
        "container {container} ended with exit code {code}{reason}{}",
        message.unwrap_or_default()
    )
}

impl Ended {
    /// All of it, for people.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.object, self.how)
    }

    /// The command after which `up` makes the pod anew.
    pub(crate) fn removal(&self) -> String {
        match self.namespace.as_str() {
            "default" | "" => format!("kubectl delete pod {}", self.name),
            namespace => format!("kubectl delete pod {} --namespace {namespace}", self.name),
        }
    }

    /// The last lines of what its failed containers said, if they left no message.
    pub(crate) async fn last_lines(&self, client: &Client) -> Vec<String> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let mut lines = Vec::new();
        for container in &self.silent {
            let parameters = LogParams {
                container: Some(container.clone()),
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                ..LogParams::default()
            };
            match api.logs(&self.name, &parameters).await {
                Ok(text) => lines.extend(text.lines().map(|it| format!("{container} | {it}"))),
                Err(error) => lines.push(format!("{container}: its log was not read: {error}")),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(status: Value, expected: Expect) {
        check_pod(json!({"name": "migrate", "namespace": "default"}), status, expected);
    }

    #[track_caller]
    fn check_pod(metadata: Value, status: Value, expected: Expect) {
        let pod = json!({"metadata": metadata, "status": status});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let text = |it: Ended| {
            let failed = if it.failed { format!("\n{}", it.removal()) } else { String::new() };
            let silent = if it.silent.is_empty() { "" } else { "\nlogs: " };
            format!("{}{silent}{}{failed}", it.line(), it.silent.join(" "))
        };
        let lines: Vec<String> = ended(&[&pod]).into_iter().map(text).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    fn container(name: &str, terminated: Value) -> Value {
        json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
               "state": {"terminated": terminated}})
    }

    #[test]
    fn completed() {
        let done = container("a", json!({"exitCode": 0, "reason": "Completed"}));
        check(
            json!({"phase": "Succeeded", "containerStatuses": [done]}),
            expect!["pod/migrate has completed"],
        );
    }

    #[test]
    fn failed_with_a_code() {
        let done = container("a", json!({"exitCode": 0, "reason": "Completed"}));
        let failed = container("b", json!({"exitCode": 3, "reason": "Error"}));
        check(
            json!({"phase": "Failed", "containerStatuses": [done, failed]}),
            expect![[r#"
                pod/migrate has failed: container b ended with exit code 3
                logs: b
                kubectl delete pod migrate"#]],
        );
    }

    #[test]
    fn failed_with_a_reason_and_a_message() {
        let first = container("a", json!({"exitCode": 137, "reason": "OOMKilled"}));
        let failed = json!({"exitCode": 3, "reason": "Error", "message": "no such table\n"});
        let second = container("b", failed);
        check(
            json!({"phase": "Failed", "initContainerStatuses": [first], "containerStatuses": [second]}),
            expect![[r#"
                pod/migrate has failed: container a ended with exit code 137 (OOMKilled); container b ended with exit code 3: no such table
                logs: a
                kubectl delete pod migrate"#]],
        );
    }

    #[test]
    fn never_began() {
        check_pod(
            json!({"name": "migrate", "namespace": "shop"}),
            json!({"phase": "Failed", "reason": "SysctlForbidden", "message": "not allowed"}),
            expect![[r#"
                pod/migrate in shop has failed: SysctlForbidden: not allowed
                kubectl delete pod migrate --namespace shop"#]],
        );
        check(
            json!({"phase": "Failed"}),
            expect![[r#"
                pod/migrate has failed
                kubectl delete pod migrate"#]],
        );
    }

    #[test]
    fn not_for_good() {
        let failed = container("a", json!({"exitCode": 3}));
        let running = json!({"phase": "Running", "containerStatuses": [failed]});
        check(running, expect![""]);
        let over = json!({"phase": "Failed"});
        let leaving = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        check_pod(leaving, over.clone(), expect![""]);
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1"}]);
        check_pod(json!({"name": "a", "ownerReferences": owner}), over, expect![""]);
    }
}
